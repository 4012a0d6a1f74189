"""What a UDP service answers and what it drops, without a socket."""

import socket
from collections.abc import Iterator
from math import inf
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.udp.helpers import (
    CLIENT,
    SERVER,
    Notebook,
    Time,
    answer,
    answer_batch,
    applied,
    datagram,
    replies,
)
from uppercase.core.datagram import (
    Answer,
    Delay,
    Destination,
    Origin,
    SocketAddress,
    Wait,
    client_of,
)
from uppercase.core.events import (
    Direction,
    Dropped,
    DropReason,
    Impaired,
    Received,
    Replied,
    Several,
    TransformFailed,
    WouldDrop,
)
from uppercase.core.guards import (
    LOCK_STEP,
    LOOP_KEPT,
    LOOP_TABLE,
    LockStepGuard,
    LoopGuard,
    loop_key,
)
from uppercase.core.responder import Responder
from uppercase.core.values import Client
from uppercase.errors import TransformError
from uppercase.lab import Experiment, Impairments, Lab, make_experiment
from uppercase.limits import DatagramLimits


def responder(**limits: float) -> Responder:
    return Responder(applied(), DatagramLimits(**limits))  # type: ignore[arg-type]


def dropped(found: Responder) -> list[DropReason]:
    return list(found.drops.elements())


def test_a_datagram_is_answered_to_its_sender_from_the_address_that_was_asked() -> None:
    (reply,) = answer(responder(), datagram(b"hello"))
    assert isinstance(reply, Answer)
    origin = reply.request.origin
    assert (reply.data, origin.source, origin.destination) == (b"HELLO", CLIENT, SERVER)


@given(st.lists(st.binary(max_size=100), max_size=20))
def test_a_batch_is_answered_in_its_order(payloads: list[bytes]) -> None:
    found = responder(loop_guard=0)
    assert replies(answer_batch(found, [datagram(data) for data in payloads])) == [
        data.upper() for data in payloads
    ]


def test_an_empty_datagram_is_a_message_like_any_other() -> None:
    assert replies(answer(responder(), datagram(b""))) == [b""]


def test_a_truncated_datagram_is_dropped_and_never_transformed() -> None:
    seen: list[bytes] = []
    found = Responder(applied(lambda data: seen.append(data) or data))  # type: ignore[func-returns-value]
    assert answer(found, datagram(truncated=True)) == []
    assert (dropped(found), seen) == ([DropReason.TRUNCATED], [])


def test_source_port_zero_wants_no_reply() -> None:
    found = responder(allow_low_ports=True)
    assert answer(found, datagram(source=("192.0.2.7", 0))) == []
    assert dropped(found) == [DropReason.SOURCE_PORT_ZERO]


@pytest.mark.parametrize("port", [7, 19, 53, 123, 1023, 2049])
def test_the_ports_of_services_are_not_answered_unless_allowed(port: int) -> None:
    source = ("192.0.2.7", port)
    found = responder()
    assert answer(found, datagram(source=source)) == []
    assert dropped(found) == [DropReason.LOW_PORT]
    assert replies(answer(responder(allow_low_ports=True), datagram(source=source))) == [b"HELLO"]


@pytest.mark.parametrize("port", [1024, 2048, 2050, 65_535])
def test_the_ports_of_clients_are_answered(port: int) -> None:
    assert replies(answer(responder(), datagram(source=("192.0.2.7", port)))) == [b"HELLO"]


@pytest.mark.parametrize(
    ("source", "destination", "is_own"),
    [
        # Another host's server on our well-known port, which no client is given.
        (("192.0.2.7", 12_000), Destination("192.0.2.1", 12_000), True),
        (("2001:db8::7", 12_000, 0, 0), Destination("2001:db8::1", 12_000), True),
        # Above, clients have such ports by chance, but not on this host.
        (("192.0.2.7", 40_000), Destination("192.0.2.1", 40_000), False),
        (("192.0.2.1", 40_000), Destination("192.0.2.1", 40_000), True),
        (("127.0.0.3", 40_000), Destination("127.0.0.1", 40_000), True),
        (("::ffff:192.0.2.1", 40_000, 0, 0), Destination("::ffff:192.0.2.1", 40_000), True),
        (("192.0.2.1", 40_001), Destination("192.0.2.1", 40_000), False),
    ],
)
def test_a_server_on_our_own_port_is_not_answered(
    source: SocketAddress, destination: Destination, is_own: bool
) -> None:
    found = responder()
    answered = answer(found, datagram(source=source, destination=destination)) != []
    assert (answered, dropped(found)) == (not is_own, [DropReason.OWN_PORT] if is_own else [])


@pytest.mark.parametrize(
    "destination",
    [
        Destination("192.0.2.255", 12_000, "192.0.2.1"),
        Destination("255.255.255.255", 12_000, "192.0.2.1"),
        Destination("255.255.255.255", 12_000),
        Destination("224.0.0.1", 12_000, "224.0.0.1"),
        Destination("ff02::1", 12_000),
        Destination("::ffff:224.0.0.1", 12_000),
    ],
)
def test_broadcast_and_multicast_are_not_answered(destination: Destination) -> None:
    found = responder()
    assert answer(found, datagram(destination=destination)) == []
    assert dropped(found) == [DropReason.NOT_UNICAST]


@pytest.mark.parametrize("source", [("::", 50_000, 0, 0), ("0.0.0.0", 50_000)])
def test_a_datagram_from_no_address_is_not_answered(source: SocketAddress) -> None:
    """Linux delivers one that has `::`, and sends the reply to a service of this machine's own."""
    found = responder()
    assert answer(found, datagram(source=source)) == []
    assert dropped(found) == [DropReason.NOT_UNICAST]


def test_a_request_of_exactly_the_limit_passes_and_one_byte_more_is_dropped() -> None:
    found = responder(max_request=100)
    assert replies(answer(found, datagram(b"a" * 100))) == [b"A" * 100]
    assert answer(found, datagram(b"a" * 101)) == []
    assert dropped(found) == [DropReason.REQUEST_TOO_LARGE]


@pytest.mark.parametrize(
    ("size", "reply_size", "factor", "is_answered"),
    [
        (0, 64, 3, True),
        (0, 65, 3, False),
        (32, 96, 3, True),
        (32, 97, 3, False),
        (1000, 3000, 3, True),
        (1000, 3001, 3, False),
        (1000, 3001, 4, True),
        (1000, 1064, 0, True),
        (1000, 1065, 0, False),
    ],
)
def test_a_reply_has_at_most_three_times_or_64_bytes_more_than_its_request(
    size: int, reply_size: int, factor: float, is_answered: bool
) -> None:
    chain = applied(lambda _: bytes(reply_size))
    for rate in (0.0, 10.0):  # With a rate each datagram is looked at by itself.
        found = Responder(chain, DatagramLimits(max_amplification=factor, rate=rate))
        assert bool(answer(found, datagram(bytes(size)))) == is_answered
        assert dropped(found) == ([] if is_answered else [DropReason.AMPLIFICATION])


@pytest.mark.parametrize(
    ("source", "largest"),
    [
        (CLIENT, 65_507),
        (("2001:db8::7", 50_000, 0, 0), 65_527),
        (("::ffff:192.0.2.7", 50_000, 0, 0), 65_507),
    ],
)
def test_a_reply_that_does_not_fit_into_a_datagram_is_dropped_before_it_is_sent(
    source: SocketAddress, largest: int
) -> None:
    found = Responder(applied(lambda data: data + b"!"))
    assert len(replies(answer(found, datagram(bytes(largest - 1), source)))[0]) == largest
    assert answer(found, datagram(bytes(largest), source)) == []
    assert dropped(found) == [DropReason.REPLY_TOO_LARGE]


def test_upper_case_is_never_too_large_for_its_request() -> None:
    """U+0390 grows most: 2 bytes to 6."""
    found = Responder(applied(lambda data: data.decode().upper().encode()))
    text = "\u0390" * 1000
    assert replies(answer(found, datagram(text.encode()))) == [text.upper().encode()]


def test_a_failing_transform_costs_one_datagram_and_is_reported_with_its_cause() -> None:
    notebook = Notebook()
    found = Responder(applied(lambda data: bytes.fromhex(data.decode())), observer=notebook)
    steps = answer_batch(found, [datagram(b"no hex"), datagram(b"6869")])
    assert replies(steps) == [b"hi"]
    assert dropped(found) == [DropReason.FAILED]
    (failed,) = [event for event in notebook.events if isinstance(event, TransformFailed)]
    assert failed.transform == "applied"
    assert isinstance(failed.error.__cause__, ValueError)


@pytest.mark.parametrize(
    ("source", "client"),
    [
        (("192.0.2.7", 1), ("192.0.2.7", 1)),
        (("::ffff:192.0.2.7", 1, 0, 0), ("192.0.2.7", 1)),
        (("::ffff:0:1", 1, 0, 0), ("::ffff:0:1", 1)),
        (("2001:db8::7", 1, 9, 0), ("2001:db8::7", 1)),
        (("fe80::7", 1, 0, 1), (f"fe80::7%{socket.if_indextoname(1)}", 1)),
        (("fe80::7", 1, 0, 99_999), ("fe80::7%99999", 1)),
    ],
)
def test_a_client_has_one_name_in_limits_and_logs(
    source: SocketAddress, client: tuple[str, int]
) -> None:
    assert client_of(source) == client


def test_a_reply_goes_to_the_source_as_it_came_with_its_scope() -> None:
    source = ("fe80::7", 50_000, 0, 2)
    (reply,) = answer(responder(), datagram(source=source))
    assert isinstance(reply, Answer)
    assert reply.request.origin.source == source


# The loop guard


def test_our_own_reply_come_back_16_times_within_a_second_is_dropped() -> None:
    found = responder()
    answered = [bool(answer(found, datagram(b"ECHO"))) for _ in range(17)]
    # The first is a request like any other; the 16th return is the loop.
    assert answered == [True] * 16 + [False]
    assert dropped(found) == [DropReason.LOOP]


def test_a_client_that_repeats_itself_is_served_again_after_one_drop() -> None:
    found = responder()
    answered = [bool(answer(found, datagram(b"PING"))) for _ in range(170)]
    assert answered.count(False) == 10


def test_a_client_that_sends_the_same_15_times_a_second_is_never_touched() -> None:
    now = Time()
    found = Responder(applied(), clock=now)
    for _ in range(200):
        assert answer(found, datagram(b"PING"))
        now.now += 1 / 15


def test_requests_that_are_no_replies_of_ours_are_never_taken_for_a_loop() -> None:
    found = responder()
    for _ in range(100):
        assert answer(found, datagram(b"hello"))
    for number in range(100):
        assert answer(found, datagram(b"PING %d" % number))


def test_the_same_from_many_clients_is_no_loop() -> None:
    found = responder()
    for port in range(50_000, 50_400):
        assert answer(found, datagram(b"PING", ("192.0.2.7", port)))


def test_the_loop_guard_can_be_set_and_turned_off() -> None:
    found = responder(loop_guard=2)
    assert [bool(answer(found, datagram(b"ECHO"))) for _ in range(3)] == [True, True, False]
    off = DatagramLimits(loop_guard=0)
    told: Any = {"observer": Notebook(), "tell_each": True}
    for found in (Responder(applied(), off), Responder(applied(), off, **told)):
        assert all(answer(found, datagram(b"ECHO")) for _ in range(1000))


@pytest.mark.parametrize("in_flight", [1, 2, 20])
def test_two_servers_end_their_loops_however_many_datagrams_circle(in_flight: int) -> None:
    one, two = responder(), responder()
    one_address, two_address = ("192.0.2.1", 40_000), ("192.0.2.2", 41_000)
    turns = ((one, one_address, two_address), (two, two_address, one_address))
    flying = [b"hello %d" % number for number in range(in_flight)]
    sent = 0
    while flying:
        for server, own, peer in turns:
            flying = replies(
                answer_batch(server, [datagram(data, peer, Destination(*own)) for data in flying])
            )
            sent += len(flying)
            assert sent < 100 * in_flight


def test_the_rate_ends_a_loop_of_transforms_that_undo_each_other() -> None:
    one, two = (
        Responder(applied(bytes.swapcase), DatagramLimits(rate=10), clock=Time()) for _ in range(2)
    )
    assert lock_step(one, two, most=1000) == 40


def test_the_loop_guard_remembers_a_bounded_number_of_replies() -> None:
    guard = LoopGuard(16)
    for number in range(2 * LOOP_TABLE):
        guard.remember([loop_key(Client(*CLIENT), b"%d" % number)])
        assert len(guard._sent) <= LOOP_TABLE
    assert len(guard._sent) >= LOOP_KEPT


def test_a_reply_that_is_sent_again_and_again_stays_known_among_others() -> None:
    guard = LoopGuard(16)
    for number in range(4):
        others = range(1 + 2_000 * number, 2_001 + 2_000 * number)
        guard.remember([0, *others])
        assert guard.knows([0, others[-1]]) == {0, others[-1]}
    assert not guard.knows([1])


def lock_step(one: Responder, two: Responder, most: int) -> int:
    """Let two servers answer each other; return how many datagrams that were."""
    turns = ((one, ("192.0.2.2", 41_000)), (two, ("192.0.2.1", 40_000)))
    flying, sent = [b"hello"], 0
    while flying and sent < most:
        for server, peer in turns:
            flying = replies(answer_batch(server, [datagram(data, peer) for data in flying]))
            sent += len(flying)
    return sent


def test_a_loop_that_never_brings_back_what_was_sent_ends_too() -> None:
    one, two = (Responder(applied(bytes.swapcase), clock=Time()) for _ in range(2))
    assert lock_step(one, two, most=30_000) < 20_000
    assert one.drops[DropReason.LOOP] + two.drops[DropReason.LOOP] == 1


def test_a_loop_that_a_lab_multiplies_ends_too() -> None:
    lab = Lab(Experiment(seed=1, request=Impairments(duplicate=1.0)), Time(), Notebook())
    one = Responder(applied(bytes.swapcase), clock=Time(), lab=lab)
    assert lock_step(one, Responder(applied(bytes.swapcase), clock=Time()), 60_000) < 20_000


@pytest.mark.parametrize("slow", [True, False])
def test_a_multiplied_loop_with_a_slow_server_is_silent_until_nothing_comes(slow: bool) -> None:
    """What waits there goes on coming for seconds; but a client is not left alone for ever."""
    guard, origin, now = LockStepGuard(), Origin.of(CLIENT, SERVER), 0.0

    def is_dropped() -> bool:
        return bool(guard.suspects({origin: 1}, now)) and guard.is_loop(origin.client, now)

    while not is_dropped():
        guard.replied({origin: 2})
    if not slow:
        now = 0.5
        assert is_dropped()
        now = 1.6
        assert not is_dropped()
        return
    while now < 9.5:
        now += 0.5
        assert is_dropped()
    now += 0.6
    assert not is_dropped()


def test_a_client_in_lock_step_loses_one_datagram_in_10_000() -> None:
    found = Responder(applied(), clock=Time())
    unanswered = [n for n in range(20_000) if not answer(found, datagram(b"ping %d" % n))]
    assert unanswered == [9_999, 19_999]
    assert found.drops == {DropReason.LOOP: 2}


@pytest.mark.parametrize("pause", [0.0, 1.1])
def test_clients_that_pipeline_or_pause_are_never_touched(pause: float) -> None:
    now = Time()
    found = Responder(applied(), clock=now)
    for number in range(15_000):
        batch = [datagram(b"ping %d" % number), datagram(b"pong %d" % number)]
        if number % 9_000 == 8_999:
            now.now += pause
        assert len(answer_batch(found, batch[: 1 if pause else 2])) == (1 if pause else 2)


def test_who_comes_together_with_what_is_odd_is_in_no_loop() -> None:
    found = Responder(applied(), DatagramLimits(max_request=9), clock=Time())
    batch = [
        datagram(data, source=("192.0.2.1", port))
        for port, data in ((50_001, b"one"), (50_002, b"far too long"), (50_003, b"three"))
    ]
    for _ in range(LOCK_STEP // 3):
        assert len(answer_batch(found, batch)) == 2


def test_rows_of_a_bounded_number_of_clients_are_kept() -> None:
    guard = LockStepGuard()
    for number in range(2 * LOOP_TABLE):
        guard.suspects({Origin.of(("192.0.2.1", number), SERVER): 1}, 0.0)
    assert len(guard._rows) == LOOP_TABLE


def test_a_row_that_was_forgotten_is_begun_anew_and_ends_a_loop() -> None:
    """A flood from forged addresses pushes out a client whose datagrams come in batches."""
    guard, origin = LockStepGuard(), Origin.of(CLIENT, SERVER)
    one = {origin: 1}
    guard.suspects(one, 0.0)
    guard.suspects({Origin.of(("192.0.2.1", n), SERVER): 1 for n in range(LOOP_TABLE)}, 0.0)
    for _ in range(LOCK_STEP - 1):
        assert guard.suspects(one, 0.0) == []
        guard.replied(one)
    assert guard.suspects(one, 0.0) == [origin]
    assert guard.is_loop(origin.client, 0.0)


# The rate


def test_the_rate_drops_what_is_over_it_and_counts_in_a_dry_run() -> None:
    burst = [datagram(b"%d" % number) for number in range(10)]
    found = responder(rate=1, burst=4)
    assert len(answer_batch(found, burst)) == 4
    assert found.drops == {DropReason.OVER_RATE: 6}
    notebook = Notebook()
    limits = DatagramLimits(rate=1, burst=4, rate_dry_run=True)
    found = Responder(applied(), limits, observer=notebook)
    assert len(answer_batch(found, burst)) == 10
    assert found.drops == {}
    assert notebook.events == [WouldDrop(str(burst[0].client), DropReason.OVER_RATE)] * 6


def test_who_is_told_of_several_is_told_of_what_was_sent_and_numbers_go_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # The three are one part, on a busy machine too.
    monkeypatch.setattr("uppercase.core.responder.TURN", inf)
    notebook, client = Notebook(), str(client_of(CLIENT))
    tells: Any = {"observer": notebook, "tell_each": lambda count: count == 1}
    found = Responder(applied(), numbered=True, **tells)
    three, origin = [b"one", b"two", b"three"], Origin.of(CLIENT, SERVER)
    for quick, _ in found.exchange(three, [origin] * 3):
        found.exchanged(quick, [(1, OSError(1, "not permitted"))])
    assert notebook.events[:2] == [
        Several(Direction.REQUEST, {client: 3}),
        Several(Direction.REPLY, {client: 2}),
    ]
    assert isinstance(notebook.events[2], Dropped)
    (reply,) = answer(found, datagram(b"four"))
    assert isinstance(reply, Answer)
    found.sent(reply)
    assert notebook.events[3:] == [
        Received(client, b"four", 4),
        Replied(client, b"FOUR", b"four", 4),
    ]


def test_what_nobody_numbers_has_no_number() -> None:
    notebook = Notebook()
    found = Responder(applied(), observer=notebook, tell_each=True)
    (reply,) = answer(found, datagram())
    assert isinstance(reply, Answer)
    found.sent(reply)
    answer(found, datagram(truncated=True))
    told: list[Any] = notebook.events
    assert [(type(event), event.number) for event in told] == [
        (Received, 0),
        (Replied, 0),
        (Received, 0),
        (Dropped, 0),
    ]


def test_a_rate_and_a_lab_hold_for_those_too_of_whom_nobody_wants_to_be_told() -> None:
    told: Any = {"observer": Notebook(), "tell_each": lambda count: False}
    lab = Lab(Experiment(seed=1, request=Impairments(loss=1.0)), Time(), Notebook())
    assert answer_batch(Responder(applied(), lab=lab, **told), [datagram()]) == []
    found = Responder(applied(), DatagramLimits(rate=1, burst=1), **told)
    assert len(answer_batch(found, [datagram(), datagram(b"other")])) == 1


def test_a_v4_mapped_source_has_the_rate_of_its_ipv4_address() -> None:
    found = responder(rate=1, burst=1)
    assert answer(found, datagram(source=CLIENT))
    assert answer(found, datagram(source=("::ffff:192.0.2.7", 50_000, 0, 0))) == []


# Replies that come later


class _Later:
    """An awaitable that nobody has to await."""

    def __init__(self, data: bytes) -> None: ...

    def __await__(self) -> Iterator[None]:
        yield


def test_a_reply_that_is_not_ready_is_waited_for_and_guarded_when_it_comes() -> None:
    found = Responder(applied(_Later))
    steps = answer_batch(found, [datagram(b"ok"), datagram(b"late"), datagram(b"a" * 40_000)])
    ok, late, large = [step for step in steps if isinstance(step, Wait)]
    assert found.outstanding == 3
    assert replies(found.settle(late, b"LATE")) == [b"LATE"]
    assert replies(found.settle(ok, b"x" * 67)) == []
    assert replies(found.settle(large, b"A" * 80_000)) == []
    assert found.outstanding == 0
    assert dropped(found) == [DropReason.AMPLIFICATION, DropReason.REPLY_TOO_LARGE]
    for step in (ok, late, large):
        step.awaitable.close()  # type: ignore[attr-defined]


def test_a_late_failure_costs_that_datagram_only() -> None:
    found = Responder(applied(_Later))
    (wait,) = answer(found, datagram())
    assert isinstance(wait, Wait)
    assert found.settle(wait, TransformError("applied", "gone")) == []
    assert dropped(found) == [DropReason.FAILED]
    wait.awaitable.close()  # type: ignore[attr-defined]


def test_the_number_of_replies_that_are_awaited_is_bounded() -> None:
    started: list[bytes] = []

    def start(data: bytes) -> object:
        started.append(data)
        return _Later(data)

    found = Responder(applied(start), DatagramLimits(max_outstanding=2))
    steps = answer_batch(found, [datagram(b"%d" % number) for number in range(5)])
    assert [len(steps), found.outstanding, len(started)] == [2, 2, 2]
    assert found.drops == {DropReason.OVERLOADED: 3}
    for step in steps:
        assert isinstance(step, Wait)
        step.awaitable.close()  # type: ignore[attr-defined]
        found.abandon(step)
    assert found.outstanding == 0
    assert found.drops[DropReason.STOPPED] == 2


# What is told


def test_an_observer_is_told_of_requests_replies_and_drops() -> None:
    notebook = Notebook()
    found = Responder(applied(), observer=notebook, tell_each=True)
    refused = datagram(b"b", ("2001:db8::7", 50_000, 0, 0))
    answers = [
        step
        for step in answer_batch(
            found, [datagram(b"a"), refused, datagram(source=("192.0.2.7", 0))]
        )
        if isinstance(step, Answer)
    ]
    found.sent(answers[1], PermissionError(1, "Operation not permitted"))
    found.sent(answers[0])
    assert notebook.events == [
        Received("192.0.2.7:50000", b"a"),
        Received("[2001:db8::7]:50000", b"b"),
        Received("192.0.2.7:0", b"hello"),
        Dropped("192.0.2.7:0", DropReason.SOURCE_PORT_ZERO, "", b"hello"),
        Dropped("[2001:db8::7]:50000", DropReason.SEND_ERROR, "Operation not permitted", b"b"),
        Replied("192.0.2.7:50000", b"A", b"a"),
    ]


@given(
    st.lists(
        st.tuples(st.binary(max_size=40), st.sampled_from([0, 53, 12_000, 40_000, 50_000])),
        max_size=60,
    )
)
def test_every_datagram_is_answered_awaited_or_counted_as_dropped(
    sent: list[tuple[bytes, int]],
) -> None:
    limits = DatagramLimits(max_request=30, rate=1, burst=20, loop_guard=2)
    found = Responder(applied(lambda data: data.upper() * 8), limits)
    batch = [datagram(data, ("192.0.2.7", port)) for data, port in sent]
    answers = [step for step in answer_batch(found, batch) if isinstance(step, Answer)]
    for place, each in enumerate(answers):
        found.sent(each, None if place % 3 else OSError(0, "no"))
    assert found.received == len(sent)
    assert found.received == found.answered + found.outstanding + sum(found.drops.values())


# The lab's place


def with_lab(**settings: str) -> tuple[Responder, Notebook]:
    notebook = Notebook()
    lab = Lab(make_experiment(settings, seed=1), Time(), notebook)
    found = Responder(applied(), clock=Time(), observer=notebook, lab=lab, tell_each=True)
    return found, notebook


def test_the_lab_loses_requests_and_replies_apart_from_real_drops() -> None:
    for setting in ("request:1", "reply:1"):
        found, notebook = with_lab(loss=setting)
        assert answer(found, datagram()) == []
        assert found.drops == {}
        assert [type(event) for event in notebook.events] == [Received, Impaired]


def test_the_lab_duplicates_and_each_copy_is_answered() -> None:
    found, _ = with_lab(duplicate="1")
    assert replies(answer(found, datagram())) == [b"HELLO", b"HELLO"]


def test_the_lab_holds_back_requests_and_replies_and_the_shell_resumes_them() -> None:
    found, _ = with_lab(delay="both:100ms")
    (request,) = answer(found, datagram())
    assert isinstance(request, Delay)
    assert request.passage.delay == pytest.approx(0.1)
    (reply,) = found.resume(request)
    assert isinstance(reply, Delay)
    assert replies(found.resume(reply)) == [b"HELLO"]


def test_the_lab_comes_before_the_rules_so_that_its_numbers_depend_on_nobody_else() -> None:
    found, notebook = with_lab(loss="1")
    answer_batch(found, [datagram(bytes(9), ("192.0.2.7", 53)) for _ in range(3)])
    numbers = [event.number for event in notebook.events if isinstance(event, Impaired)]
    assert (numbers, found.drops) == ([1, 2, 3], {})


def test_what_the_lab_corrupts_is_judged_as_it_arrives() -> None:
    lab = Lab(make_experiment({"corrupt": "1"}, seed=1), Time(), Notebook())
    found = Responder(applied(bytes), lab=lab)
    (reply,) = replies(answer(found, datagram(b"hello")))
    assert sum((one ^ two).bit_count() for one, two in zip(reply, b"hello", strict=True)) == 1


def test_the_guide_to_udp_safety_names_every_reason() -> None:
    guide = (Path(__file__).parents[2] / "docs/topics/udp-safety.md").read_text()
    assert [reason for reason in DropReason if f"`{reason}`" not in guide] == []
