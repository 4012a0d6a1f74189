"""The lab: what happens to a datagram is known beforehand, and the server does exactly that."""

import hashlib
import math
import re
from collections import Counter
from collections.abc import Iterable
from itertools import groupby, pairwise, starmap
from pathlib import Path
from statistics import fmean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.observing import Notebook, Time
from uppercase.core.datagram import FORGET_AFTER, NUMBERED, Numbers, Passage
from uppercase.core.events import Direction, Dropped, DropReason, Impaired, LabAction
from uppercase.core.values import Client
from uppercase.errors import BadValue, UnknownName
from uppercase.lab import (
    MAX_DELAY,
    SEEDS,
    UDP_OPTIONS,
    UDP_PRESETS,
    BurstLoss,
    Experiment,
    Fate,
    Impairments,
    Lab,
    answer_key,
    command_line,
    make_experiment,
    merge_settings,
    new_seed,
)
from uppercase.lab._fates import REORDER_HOLD
from uppercase.lab.serving import HELD_BYTES, HELD_COST

REQUEST, REPLY = Direction.REQUEST, Direction.REPLY
STUDENT = Client("192.0.2.7", 50_000)
EVERYTHING = make_experiment(
    {
        "loss": "both:0.2",
        "duplicate": "both:0.2",
        "corrupt": "both:0.2",
        "reorder": "both:0.2",
        "delay": "both:20ms",
        "jitter": "both:30ms",
    },
    seed=2026,
)
EXPERIMENTS = [
    EVERYTHING,
    *(make_experiment(preset.settings, seed=7) for preset in UDP_PRESETS.values()),
    make_experiment({"burst-loss": "both:0.1:0.4"}, seed=7),
]


class Fates(Notebook):
    """Knows what happened to whom."""

    def fates(self, peer: str) -> list[tuple[int, str]]:
        """Return the number and fate of all that happened to a client."""
        impaired = [each for each in self.events if isinstance(each, Impaired)]
        return [(each.number, each.fate) for each in impaired if each.peer == peer]


class Ward(Lab):
    """A lab whose clients' datagrams are numbered, as a responder does."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.numbers = Numbers()

    def take(self, client: Client, data: bytes) -> list[Passage]:
        return self.request(client, data, self.numbers.take(client, self.clock()))


def converse(lab: Ward, client: Client, data: bytes) -> list[tuple[Passage, list[Passage]]]:
    """Send a datagram through the lab, an upper-casing service and the lab."""
    return [
        (request, lab.reply(client, request.data.upper(), request))
        for request in lab.take(client, data)
    ]


def lost_numbers(lab: Ward, client: Client, count: int) -> list[int]:
    """Return which of a client's next datagrams are lost on the way to the service, from 1."""
    return [number for number in range(1, count + 1) if not lab.take(client, b"ping")]


# The answer key


def test_an_answer_key_never_changes() -> None:
    """A key that was handed out must stay true: a failure here is a new version of the layout."""
    assert [str(row) for row in answer_key(EVERYTHING, 16)] == [
        "  1  request duplicated, delayed 49 ms; "
        "first reply delayed 3.5 ms, reordered (held 250 ms); "
        "second reply duplicated, delayed 25 ms",
        "  2  request delayed 38 ms; reply lost",
        "  3  request lost",
        "  4  request duplicated, delayed 16 ms; second reply delayed 37 ms",
        "  5  request delayed 29 ms; reply delayed 30 ms, reordered (held 250 ms)",
        "  6  request delayed 29 ms; reply duplicated, delayed 34 ms",
        "  7  request delayed 19 ms; reply delayed 16 ms",
        "  8  request delayed 37 ms; reply duplicated, delayed 6.3 ms",
        "  9  request delayed 20 ms; reply delayed 1.6 ms",
        " 10  request lost",
        " 11  request corrupted, delayed 20 ms; reply duplicated, delayed 46 ms",
        " 12  request lost",
        " 13  request reordered (held 250 ms); reply lost",
        " 14  request corrupted, delayed 7.4 ms, reordered (held 250 ms); "
        "reply duplicated, delayed 1.2 ms",
        " 15  request corrupted, delayed 12 ms; reply corrupted, delayed 22 ms",
        " 16  request lost",
    ]


def test_fates_never_change_to_the_last_digit() -> None:
    assert EVERYTHING.fate(REQUEST, 1) == Fate(copies=2, delay=0.0493)
    assert EVERYTHING.fate(REPLY, 1, 0) == Fate(delay=0.0035, held=True)
    assert EVERYTHING.fate(REPLY, 1, 1) == Fate(copies=2, delay=0.0246)
    assert EVERYTHING.fate(REQUEST, 11) == Fate(delay=0.0197, flip=0.2279930363368987)
    assert EVERYTHING.fate(REQUEST, 1_000_000) == Fate(delay=0.0358)
    each = Experiment(seed=7, request=Impairments(loss=0.5), per_client=True)
    hosts = ("192.0.2.1", "192.0.2.2", "2001:db8::1", "fe80::1%eth0")
    assert [
        [number for number in range(1, 13) if not each.fate(REQUEST, number, host=host).copies]
        for host in hosts
    ] == [
        [1, 2, 3, 4, 5, 6, 12],
        [2, 3, 4, 8, 9, 10, 12],
        [3, 6, 7, 12],
        [4, 5, 6, 7, 8, 10, 11, 12],
    ]


def test_bursts_never_change() -> None:
    bursts = Experiment(seed=7, reply=Impairments(burst_loss=BurstLoss(0.1, 0.4, 0.9)))
    assert [number for number in range(1, 61) if not bursts.fate(REPLY, number).copies] == [
        4,
        5,
        6,
        7,
        22,
        24,
        36,
        48,
        58,
    ]


def test_a_fate_can_be_computed_by_hand_from_the_documented_layout() -> None:
    experiment = Experiment(seed=7, reply=Impairments(loss=0.3, duplicate=0.3))
    for number in range(1, 200):
        digest = hashlib.blake2b(b"uppercase-lab-1 7 reply %d 0" % number).digest()
        lost = int.from_bytes(digest[8:16], "big") < 0.3 * 2**64
        twice = int.from_bytes(digest[16:24], "big") < 0.3 * 2**64
        assert experiment.fate(REPLY, number).copies == (0 if lost else 2 if twice else 1)


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_the_server_follows_the_key_datagram_by_datagram(experiment: Experiment) -> None:
    """What is reported, passed on, and when, is what the key says."""
    notebook = Fates()
    lab = Ward(experiment, Time(), notebook)
    for row in answer_key(experiment, 300):
        notebook.events.clear()
        passed = converse(lab, STUDENT, b"abcdefgh")
        assert tuple(fate for _, fate in notebook.fates("192.0.2.7:50000")) == row.events
        assert [request.delay for request, _ in passed] == [row.request.seconds] * len(row.replies)
        assert [[reply.delay for reply in replies] for _, replies in passed] == [
            [fate.seconds] * fate.copies for fate in row.replies
        ]
        assert {request.data for request, _ in passed} <= {row.request.apply(b"abcdefgh")}
        assert all(number == row.number for number, _ in notebook.fates("192.0.2.7:50000"))


def test_a_line_of_the_key_says_what_befalls_request_and_reply() -> None:
    def line(**settings: str) -> str:
        return str(next(answer_key(make_experiment(settings, seed=1), 1)))

    assert line() == "  1  delivered"
    assert line(loss="1") == "  1  request lost"
    assert line(loss="reply:1") == "  1  request delivered; reply lost"
    assert line(delay="reply:240ms") == "  1  request delivered; reply delayed 240 ms"
    assert line(delay="2.5ms", corrupt="1") == "  1  request corrupted, delayed 2.5 ms"
    assert line(reorder="1") == "  1  request reordered (held 250 ms)"
    assert line(duplicate="1") == "  1  request duplicated"
    assert line(duplicate="1", loss="reply:1") == (
        "  1  request duplicated; first reply lost; second reply lost"
    )


# Rates and independence

DRAWS = 30_000
SIGMAS = 5
"""Fixed seeds: the tests cannot fail by chance, only if the layout changes for the worse."""


def near(happened: int, probability: float) -> bool:
    """Return whether an event's count is within chance of its probability."""
    sigma = math.sqrt(DRAWS * probability * (1 - probability))
    return abs(happened - DRAWS * probability) < SIGMAS * sigma


def test_each_impairment_happens_at_its_rate_and_independently_of_the_others() -> None:
    rates = {LabAction.DUPLICATED: 0.1, LabAction.CORRUPTED: 0.2, LabAction.REORDERED: 0.3}
    does = Impairments(duplicate=0.1, corrupt=0.2, reorder=0.3)
    experiment = Experiment(seed=11, request=does)
    counts: Counter[LabAction] = Counter()
    pairs: Counter[frozenset[LabAction]] = Counter()
    for number in range(DRAWS):
        actions = experiment.fate(REQUEST, number).actions
        counts.update(actions)
        pairs.update({frozenset((a, b)) for a in actions for b in actions if a != b})
    assert len(counts) == len(pairs) == 3
    assert all(near(counts[action], rate) for action, rate in rates.items())
    assert all(near(count, rates[a] * rates[b]) for (a, b), count in pairs.items())


def test_losses_of_directions_copies_seeds_and_neighbours_are_independent() -> None:
    does = Impairments(loss=4 / 11)
    experiment = Experiment(seed=12, request=does, reply=does)
    other = Experiment(seed=13, request=does)
    lost = [not experiment.fate(REQUEST, number).copies for number in range(DRAWS)]
    others = {
        "the reply": [not experiment.fate(REPLY, number).copies for number in range(DRAWS)],
        "the second reply": [not experiment.fate(REPLY, n, 1).copies for n in range(DRAWS)],
        "the next seed": [not other.fate(REQUEST, number).copies for number in range(DRAWS)],
        "the next request": lost[1:] + lost[:1],
    }
    assert near(sum(lost), 4 / 11)
    for name, them in others.items():
        assert near(sum(them), 4 / 11), name
        assert near(sum(a and b for a, b in zip(lost, them, strict=True)), (4 / 11) ** 2), name
    replies = zip(others["the reply"], others["the second reply"], strict=True)
    assert near(sum(a and b for a, b in replies), (4 / 11) ** 2)


def test_turning_one_impairment_on_does_not_change_what_the_others_do() -> None:
    alone = Experiment(seed=3, request=Impairments(corrupt=0.3))
    beside = Experiment(seed=3, request=Impairments(corrupt=0.3, duplicate=0.5, jitter=0.02))
    for number in range(1, 200):
        assert alone.fate(REQUEST, number).flip == beside.fate(REQUEST, number).flip


def test_delays_are_spread_evenly_over_delay_plus_and_minus_jitter() -> None:
    """Those of the datagrams that are not lost, too: the loss does not choose among them."""
    experiment = Experiment(seed=5, request=Impairments(loss=0.5, delay=0.1, jitter=0.05))
    fates = [experiment.fate(REQUEST, number) for number in range(20_000)]
    delays = [fate.delay for fate in fates if fate.copies]
    assert min(delays) == pytest.approx(0.05, abs=0.001)
    assert max(delays) == pytest.approx(0.15, abs=0.001)
    assert fmean(delays) == pytest.approx(0.1, abs=0.001)
    assert sum(delay < 0.075 for delay in delays) == pytest.approx(len(delays) / 4, rel=0.06)


def test_jitter_without_delay_never_goes_back_in_time() -> None:
    experiment = Experiment(seed=5, request=Impairments(jitter=0.05))
    delays = [experiment.fate(REQUEST, number).delay for number in range(1000)]
    assert min(delays) == 0
    assert max(delays) <= 0.05


@given(
    seed=st.integers(0, 99),
    enter=st.floats(0.01, 0.5),
    leave=st.floats(0.01, 0.5),
    numbers=st.permutations(range(1, 40)),
)
def test_a_burst_is_found_without_having_been_followed(
    seed: int, enter: float, leave: float, numbers: list[int]
) -> None:
    """The losses are those of the two-state chain, asked for in any order."""
    does = Impairments(burst_loss=BurstLoss(enter, leave))
    experiment = Experiment(seed=seed, request=does)
    expected, state = {}, False
    for number in range(1, 40):
        digest = hashlib.blake2b(b"uppercase-lab-1 %d request %d 0" % (seed, number)).digest()
        draw = (int.from_bytes(digest[:8], "big") >> 11) / 2**53
        state = draw < 1 - leave if state else draw < enter
        expected[number] = state
    assert {n: not experiment.fate(REQUEST, n).copies for n in numbers} == expected


def test_bursts_have_the_length_and_the_share_of_the_model() -> None:
    experiment = Experiment(seed=9, request=Impairments(burst_loss=BurstLoss(0.02, 0.25)))
    lost = [not experiment.fate(REQUEST, number).copies for number in range(1, 30_000)]
    bursts = [sum(1 for _ in run) for state, run in groupby(lost) if state]
    assert fmean(bursts) == pytest.approx(4, rel=0.1)
    assert fmean(lost) == pytest.approx(0.02 / 0.27, rel=0.1)


def test_outside_bursts_the_ordinary_loss_applies() -> None:
    experiment = Experiment(
        seed=9, request=Impairments(loss=1.0, burst_loss=BurstLoss(0.2, 0.2, loss=0.0))
    )
    kept = sum(experiment.fate(REQUEST, number).copies for number in range(1, 10_000))
    assert kept == pytest.approx(5000, rel=0.1)


# Nobody shifts another's fates


@given(
    turns=st.lists(st.tuples(st.integers(0, 3), st.floats(0, FORGET_AFTER / 50)), max_size=40),
    experiment=st.sampled_from(EXPERIMENTS),
)
def test_what_others_send_and_when_changes_no_fate(
    turns: list[tuple[int, float]], experiment: Experiment
) -> None:
    """However students' datagrams interleave, each meets the fates of the key from 1 on."""
    clock, notebook = Time(), Fates()
    lab = Ward(experiment, clock, notebook)
    sent: Counter[int] = Counter()
    for student, pause in turns:
        clock.now += pause
        sent[student] += 1
        converse(lab, Client("192.0.2.7", 50_000 + student), b"ping")
    for student, count in sent.items():
        assert notebook.fates(f"192.0.2.7:{50_000 + student}") == [
            (row.number, fate) for row in answer_key(experiment, count) for fate in row.events
        ]


@given(st.permutations(range(20)), st.sets(st.integers(0, 19)))
def test_a_reply_has_the_number_of_its_request(order: list[int], unanswered: set[int]) -> None:
    """Lost requests, failed transforms and replies that overtake others shift no reply's fate."""
    does = Impairments(loss=0.3)
    experiment = Experiment(seed=4, request=does, reply=does)
    lab = Ward(experiment, Time(), Notebook())
    arrived = [lab.take(STUDENT, b"ping") for _ in range(20)]
    for index in order:
        for request in arrived[index] if index not in unanswered else []:
            reply = lab.reply(STUDENT, b"PING", request)
            assert len(reply) == experiment.fate(REPLY, index + 1).copies


def test_every_student_meets_the_same_fates() -> None:
    lab = Ward(make_experiment(UDP_PRESETS["udp-pinger"].settings, seed=7), Time(), Notebook())
    clients = [Client(host, port) for host in ("192.0.2.1", "::1") for port in (1024, 50_000)]
    assert [lost_numbers(lab, client, 12) for client in clients] == [[4, 6, 8, 9, 12]] * 4


def test_per_client_each_host_meets_other_fates_in_every_run() -> None:
    """The host counts and the port does not: that is another one in every run."""
    experiment = make_experiment({"loss": "0.5"}, seed=7, per_client=True)
    lab = Ward(experiment, Time(), Notebook())
    first, again, other = (
        lost_numbers(lab, client, 64)
        for client in starmap(
            Client, [("192.0.2.1", 50_000), ("192.0.2.1", 50_001), ("192.0.2.2", 50_000)]
        )
    )
    assert first == again != other
    key = answer_key(experiment, 64, host="192.0.2.1")
    assert [row.number for row in key if not row.replies] == first
    with pytest.raises(BadValue, match="got no client address"):
        next(answer_key(experiment, 1))


def test_a_client_silent_for_the_forget_time_starts_again_at_1() -> None:
    numbers, now, found = Numbers(), 0.0, []
    for pause in (0.0, FORGET_AFTER - 1, FORGET_AFTER - 1, FORGET_AFTER, 1.0):
        now += pause
        found.append(numbers.take(STUDENT, now))
    assert found == [1, 2, 3, 1, 2]


def test_a_flood_of_addresses_costs_bounded_memory() -> None:
    """The client silent longest is forgotten first; one that goes on is not."""
    numbers = Numbers()

    def send(port: int) -> int:
        return numbers.take(Client("192.0.2.7", port), 0.0)

    assert [send(0), send(1), send(0)] == [1, 1, 2]
    assert {send(port) for port in range(2, NUMBERED + 1)} == {1}
    assert [send(0), send(1)] == [3, 1]


# What is done to a datagram


def test_without_impairments_everything_passes_at_once_and_nothing_is_reported() -> None:
    notebook = Fates()
    lab = Ward(Experiment(seed=1), Time(), notebook)
    ((request, replies),) = converse(lab, STUDENT, b"ping")
    assert (request.delay, request.data) == (0, b"ping")
    assert [(reply.delay, reply.data) for reply in replies] == [(0, b"PING")]
    assert notebook.events == []


def test_an_action_is_reported_as_a_fact_and_in_the_words_of_the_key() -> None:
    notebook = Fates()
    settings = {"loss": "reply:1", "duplicate": "1", "delay": "50ms"}
    lab = Ward(make_experiment(settings, seed=1), Time(), notebook)
    converse(lab, Client("2001:db8::7", 50_000), b"ping")
    peer, lost = "[2001:db8::7]:50000", (LabAction.LOST,)
    way = "request duplicated, delayed 50 ms"
    assert notebook.events == [
        Impaired(
            peer,
            REQUEST,
            1,
            (LabAction.DUPLICATED, LabAction.DELAYED),
            way,
            b"ping",
            way,
            0.05,
        ),
        Impaired(peer, REPLY, 1, lost, "first reply lost", b"PING", f"{way}; first reply lost"),
        Impaired(peer, REPLY, 1, lost, "second reply lost", b"PING", f"{way}; second reply lost"),
    ]


@given(st.binary(min_size=1, max_size=64), st.integers(1, 1000))
def test_corruption_flips_one_bit_and_always_the_same(data: bytes, number: int) -> None:
    fate = Experiment(seed=6, request=Impairments(corrupt=1.0)).fate(REQUEST, number)
    changed = fate.apply(data)
    difference = int.from_bytes(data, "big") ^ int.from_bytes(changed, "big")
    assert len(changed) == len(data)
    assert difference.bit_count() == 1
    assert fate.apply(data) == changed


def test_corruption_reaches_every_bit() -> None:
    experiment = Experiment(seed=6, request=Impairments(corrupt=1.0))
    changed = {experiment.fate(REQUEST, number).apply(b"\0\0") for number in range(1, 300)}
    assert changed == {(1 << bit).to_bytes(2, "big") for bit in range(16)}


def test_an_empty_datagram_cannot_be_corrupted_and_is_not_reported_as_such() -> None:
    notebook = Fates()
    lab = Ward(Experiment(seed=6, request=Impairments(corrupt=1.0)), Time(), notebook)
    assert [passage.data for passage in lab.take(STUDENT, b"")] == [b""]
    assert notebook.events == []


def test_a_reordered_datagram_is_overtaken_by_the_next_and_arrives() -> None:
    clock = Time()
    experiment = Experiment(seed=2, request=Impairments(reorder=0.3, delay=0.05))
    lab = Ward(experiment, clock, Notebook())
    arrivals = []
    for _ in range(50):
        clock.now += 0.01
        arrivals += [(clock.now + each.delay, each.number) for each in lab.take(STUDENT, b"x")]
    order = [number for _, number in sorted(arrivals)]
    overtaken = {n for n in range(1, 20) if order.index(n) > order.index(n + 1)}
    held = [experiment.fate(REQUEST, number).held for number in range(1, 21)]
    assert sorted(order) == list(range(1, 51))
    assert overtaken == {n for n, (now, after) in enumerate(pairwise(held), 1) if now and not after}
    assert max(at for at, _ in arrivals) <= clock.now + 0.05 + REORDER_HOLD


def test_what_the_lab_holds_back_is_bounded_and_the_rest_is_a_reported_drop() -> None:
    clock, notebook = Time(), Fates()
    lab = Ward(Experiment(seed=1, request=Impairments(delay=1.0)), clock, notebook)
    data = bytes(64 * 1024 - HELD_COST)
    room = HELD_BYTES // (64 * 1024)
    assert sum(len(lab.take(STUDENT, data)) for _ in range(room + 2)) == room
    drops = [event for event in notebook.events if isinstance(event, Dropped)]
    assert [(drop.peer, drop.reason, drop.request, drop.fates) for drop in drops] == [
        ("192.0.2.7:50000", DropReason.LAB_FULL, data, "request delayed 1000 ms")
    ] * 2
    clock.now += 1.0
    assert sum(len(lab.take(STUDENT, data)) for _ in range(room + 2)) == room


# Options and presets


def test_udp_pinger_drops_4_of_11_requests_and_says_what_the_handout_claims() -> None:
    preset = UDP_PRESETS["udp-pinger"]
    experiment = make_experiment(preset.settings, seed=1)
    assert experiment == Experiment(seed=1, request=Impairments(loss=4 / 11))
    assert str(preset).startswith("udp-pinger: --loss=4/11 (")
    assert "36.4 %" in str(preset)
    assert "text says 30 %" in str(preset)


def test_stop_and_wait_impairs_both_directions() -> None:
    experiment = make_experiment(UDP_PRESETS["stop-and-wait"].settings, seed=1)
    does = Impairments(loss=0.1, duplicate=0.1, corrupt=0.1, delay=0.1, jitter=0.05)
    assert (experiment.request, experiment.reply) == (does, does)


def test_satellite_delays_and_loses_nothing() -> None:
    experiment = make_experiment(UDP_PRESETS["satellite"].settings, seed=1)
    does = Impairments(delay=0.26, jitter=0.02)
    assert (experiment.request, experiment.reply) == (does, does)


@pytest.mark.parametrize("name", UDP_PRESETS)
def test_what_a_preset_prints_does_the_same_when_it_is_typed(name: str) -> None:
    preset = UDP_PRESETS[name]
    typed = dict(re.findall(r"--(\S+?)=(\S+)", str(preset)))
    assert make_experiment(typed, seed=3) == make_experiment(preset.settings, seed=3)


def test_an_option_beside_a_preset_replaces_the_presets_value_on_both_sides() -> None:
    merged = merge_settings("stop-and-wait", {"loss": "0.5", "reorder": "reply:0.2"})
    assert command_line(merged, seed=7) == (
        "--seed=7 --loss=0.5 --duplicate=both:0.1 --corrupt=both:0.1 --delay=both:100ms "
        "--jitter=both:50ms --reorder=reply:0.2"
    )
    experiment = make_experiment(merged, seed=7)
    assert (experiment.request.loss, experiment.reply.loss) == (0.5, 0.0)
    assert "loss" not in merge_settings("satellite", {})


def test_a_value_is_for_requests_unless_it_names_a_side() -> None:
    def losses(text: str) -> tuple[float, float]:
        experiment = make_experiment({"loss": text}, seed=1)
        return experiment.request.loss, experiment.reply.loss

    assert losses("0.3") == losses("request:0.3") == (0.3, 0)
    assert losses("reply:0.3") == (0, 0.3)
    assert losses("both:0.3") == (0.3, 0.3)
    assert losses("0.3,reply:0.1") == losses("reply:0.1,request:0.3") == (0.3, 0.1)


def test_burst_loss_takes_two_or_three_probabilities() -> None:
    experiment = make_experiment({"burst-loss": "0.02:0.25,reply:0.1:0.5:0.9"}, seed=1)
    assert experiment.request.burst_loss == BurstLoss(0.02, 0.25, 1.0)
    assert experiment.reply.burst_loss == BurstLoss(0.1, 0.5, 0.9)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("loss", "30%", "--loss: got '30%'; a probability is a number from 0 to 1"),
        ("loss", "", "--loss: got ''; a probability"),
        ("loss", "rely:0.3", "--loss: got 'rely:0.3'.*; request:, reply: or both: may stand"),
        ("loss", "0.1,0.2", "--loss: got '0.1,0.2', which gives request twice"),
        ("loss", "both:0.1,reply:0.2", "which gives reply twice"),
        ("delay", "soon", "--delay: got 'soon'; a duration"),
        ("delay", "61s", "got 61 s for --delay; 0 to 60 s is accepted"),
        ("jitter", "5m", "got 300 s for --jitter; 0 to 60 s is accepted"),
        ("burst-loss", "0.1", "--burst-loss: got '0.1'; burst loss is ENTER:LEAVE"),
        ("burst-loss", "0.9:0.9", "their sum must lie between 0.01 and 1"),
        ("burst-loss", "0:0", "their sum must lie between 0.01 and 1"),
    ],
)
def test_a_value_that_is_none_is_refused_with_what_is_accepted(
    name: str, text: str, message: str
) -> None:
    with pytest.raises(BadValue, match=message):
        make_experiment({name: text}, seed=1)


def test_an_unknown_preset_or_option_is_refused_with_the_nearest() -> None:
    with pytest.raises(UnknownName, match="no preset named 'udp-ping'; did you mean 'udp-pinger'"):
        merge_settings("udp-ping", {})
    with pytest.raises(UnknownName, match="the lab of UDP has no --losss; did you mean 'loss'"):
        make_experiment({"losss": "0.1"}, seed=1)


def refused(values: Iterable[float], name: str) -> None:
    for value in values:
        with pytest.raises(BadValue, match="got"):
            Impairments(**{name: value})  # type: ignore[arg-type]


def test_code_gets_the_same_checks_as_the_command_line() -> None:
    for name in ("loss", "duplicate", "reorder", "corrupt"):
        refused((-0.1, 1.1, float("nan")), name)
    for name in ("delay", "jitter"):
        refused((-1, MAX_DELAY + 1, float("nan")), name)
    with pytest.raises(BadValue, match="got seed -1"):
        Experiment(seed=-1)


def test_a_random_seed_can_be_typed() -> None:
    seeds = {new_seed() for _ in range(100)}
    assert all(0 <= seed < SEEDS <= 1_000_000 for seed in seeds)
    assert len(seeds) > 90


# The guide

GUIDE = Path(__file__).parents[2] / "docs" / "howto" / "run-a-class.md"


def test_the_keys_in_the_guide_are_what_the_commands_print() -> None:
    """Each command that shows a key is followed by its output."""
    shown = re.findall(
        r"^\$ uppercase fates (.+)\n((?: *[0-9]+  .+\n)+)", GUIDE.read_text("utf-8"), re.MULTILINE
    )
    assert len(shown) == 2
    for options, output in shown:
        words = dict(zip(*[iter(options.split())] * 2, strict=True))
        seed, count = int(words.pop("--seed")), int(words.pop("-n"))
        preset = words.pop("--lab", None)
        settings = merge_settings(preset, {name[2:]: text for name, text in words.items()})
        key = answer_key(make_experiment(settings, seed=seed), count)
        assert "".join(f"{row}\n" for row in key) == output


def test_the_guide_names_only_options_and_limits_that_exist() -> None:
    text = GUIDE.read_text("utf-8")
    assert set(re.findall(r"--lab[= ]([a-z-]+)", text)) == set(UDP_PRESETS)
    ours = {"lab", "seed", "per-client", "client", "log-peers", "interface", "record", "port"}
    ours |= {"page", "page-key", "timeout", "report"}
    # An arrow of a timeline that ends in a cross is no option.
    assert set(re.findall(r"(?<!-)--([a-z][a-z-]*)", text)) <= {*UDP_OPTIONS, *ours}
    assert f"{NUMBERED:,} clients" in text
    assert f"held for {REORDER_HOLD * 1000:.0f} ms more" in text
    assert FORGET_AFTER == 60
    assert "silent for a minute" in " ".join(text.split())


def test_a_client_that_has_its_own_key_has_its_own_fates_of_replies_too() -> None:
    experiment = Experiment(seed=7, reply=Impairments(loss=0.5), per_client=True)
    rows = answer_key(experiment, 20, host=STUDENT.host)
    fates = [experiment.fate(REPLY, number, host=STUDENT.host) for number in range(1, 21)]
    assert [row.replies for row in rows] == [(fate,) for fate in fates]
    assert rows != answer_key(experiment, 20, host="192.0.2.8")


@pytest.mark.parametrize("burst", [(-0.1, 0.5, 1.0), (0.5, -0.1, 1.0), (0.1, 0.1, 1.1)])
def test_the_probabilities_of_bursts_are_probabilities(burst: tuple[float, float, float]) -> None:
    with pytest.raises(BadValue):
        BurstLoss(*burst)
