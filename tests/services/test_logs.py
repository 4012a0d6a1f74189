"""What an operator reads: no peer can forge a line, break a terminal or fill a disk."""

import io
from collections.abc import Iterator

import pytest
from twisted.internet.task import Clock
from twisted.logger import globalLogPublisher, textFileLogObserver

from uppercase.core.events import (
    AcceptFailed,
    Closed,
    Direction,
    Dropped,
    DropReason,
    Event,
    Impaired,
    Incomplete,
    KernelDropped,
    LabAction,
    Opened,
    Outcome,
    Received,
    RefusalReason,
    Refused,
    Replied,
    SlowCall,
    TransformFailed,
    WouldDrop,
)
from uppercase.core.values import printable
from uppercase.errors import OutputTooLong, TransformError
from uppercase.services.logs import Counters, LogObserver

HOSTILE = "\x1b[2J\r\n\a2026-01-01 [uppercase] forged\u202e\x9b \u2028" + "x" * 10_000


class Written(io.StringIO):
    """The log as a file has it."""

    def lines(self) -> list[str]:
        """Return the lines so far, without their times and sources."""
        return [line.partition("] ")[2] or line for line in self.getvalue().split("\n")[:-1]]


@pytest.fixture
def written() -> Iterator[Written]:
    file = Written()
    observer = textFileLogObserver(file)
    globalLogPublisher.addObserver(observer)
    yield file
    globalLogPublisher.removeObserver(observer)


def logged(*events: Event, log_peers: bool = False) -> tuple[Clock, LogObserver]:
    """Tell a log of events, all in one moment."""
    clock = Clock()
    observer = LogObserver("TCP", clock, log_peers=log_peers)
    for event in events:
        observer.notify(event)
    return clock, observer


def closed(detail: str, outcome: Outcome = Outcome.MALFORMED) -> Closed:
    return Closed("192.0.2.1:50000", outcome, detail, 1, 0)


@pytest.mark.parametrize("log_peers", [False, True])
def test_what_a_peer_sends_is_escaped_and_cut(written: Written, log_peers: bool) -> None:
    _, observer = logged(closed(HOSTILE), log_peers=log_peers)
    observer.stop()
    (line,) = written.lines()
    assert line.isprintable()
    assert "\\x1b[2J\\r\\n\\x07" in line
    assert len(line) < 300


def test_text_is_kept_as_it_is_unless_it_could_do_harm() -> None:
    assert printable("Straße, 東京, 😀") == "Straße, 東京, 😀"
    assert printable("a\nb\x00\u202e\ud800") == "a\\nb\\x00\\u202e\\ud800"
    assert printable("x" * 300, 200) == "x" * 200 + "…"


def test_each_reason_has_one_line_a_second_and_then_the_number_left_out(written: Written) -> None:
    clock, observer = logged(*[closed("bad")] * 1000, *[closed("long", Outcome.TOO_LONG)] * 10)
    assert written.lines() == [
        "TCP: 192.0.2.1:50000 was closed: malformed: bad",
        "TCP: 192.0.2.1:50000 was closed: too-long: long",
    ]
    clock.advance(1.0)
    assert written.lines()[2:] == [
        "TCP: connections closed: malformed: 999 more since the last line",
        "TCP: connections closed: too-long: 9 more since the last line",
    ]
    for _ in range(50):
        observer.notify(closed("bad"))
        clock.advance(0.1)
    assert len(written.lines()) <= 4 + 6
    observer.stop()
    assert not clock.getDelayedCalls()


def test_a_line_that_is_alone_leaves_no_timer_behind(written: Written) -> None:
    """A factory of an embedder's own has no end that would cancel it; trial looks for timers."""
    clock, observer = logged(closed("bad"), closed("long", Outcome.TOO_LONG))
    assert clock.getDelayedCalls() == []
    clock.advance(0.9)
    observer.notify(closed("bad"))
    clock.advance(0.1)
    assert len(written.lines()) == 3
    assert clock.getDelayedCalls() == []
    clock.advance(0.9)
    observer.notify(closed("bad"))
    assert len(written.lines()) == 3, "the line that tells of others is a line of the kind"
    observer.stop()


def test_the_end_tells_what_was_held_back(written: Written) -> None:
    _, observer = logged(*[closed("bad")] * 3)
    observer.stop()
    assert written.lines()[1:] == ["TCP: connections closed: malformed: 2 more since the last line"]


def test_ordinary_connections_are_not_logged_unless_asked_for(written: Written) -> None:
    events: list[Event] = [Opened("192.0.2.1:50000"), closed("", Outcome.FINISHED)]
    logged(*events)
    assert written.lines() == []
    logged(*events, log_peers=True)
    assert written.lines() == [
        "TCP: 192.0.2.1:50000 connected",
        "TCP: 192.0.2.1:50000 closed: finished, 1 byte in, 0 bytes out",
    ]


def test_a_refusal_names_the_option_that_it_comes_from(written: Written) -> None:
    _, observer = logged(
        *[Refused("192.0.2.1:5", RefusalReason.FULL, "all 9 are taken (--max-connections)")] * 5,
        AcceptFailed("EMFILE", "Too many open files"),
    )
    observer.stop()
    assert written.lines() == [
        "TCP: 192.0.2.1:5 was refused: full: all 9 are taken (--max-connections)",
        "TCP: no connection can be accepted for now: Too many open files (EMFILE); "
        "new clients wait",
        "TCP: connections refused: full: 4 more since the last line",
    ]


def failure(message: str, kind: type[Exception] = ValueError) -> TransformFailed:
    """Return what a transform's own exception becomes."""
    try:
        raise kind(message)
    except Exception as error:
        return TransformFailed("mine", TransformError.caused_by("mine", error))


def test_a_transform_has_one_traceback_a_minute_for_each_kind_of_exception(
    written: Written,
) -> None:
    clock, observer = logged(*[failure("no")] * 1000, failure("no", KeyError))
    text = written.getvalue()
    assert text.count("Traceback") == 2
    assert "ValueError: no" in text
    assert "raise kind(message)" in text
    clock.advance(60.0)
    assert "transform mine: ValueError: 999 more since the last line" in written.getvalue()
    clock.advance(59.0)
    observer.notify(failure("soon"))
    assert written.getvalue().count("Traceback") == 2
    clock.pump([1.0, 60.0])
    observer.notify(failure("again"))
    assert written.getvalue().count("Traceback") == 3
    observer.stop()
    assert not clock.getDelayedCalls()


def test_what_an_exception_says_cannot_forge_lines(written: Written) -> None:
    """Its text may be what a peer sent; no line of the log starts with it."""
    _, observer = logged(failure(HOSTILE))
    observer.stop()
    assert not [line for line in written.getvalue().split("\n") if "forged" in line[:40]]
    assert all(line.replace("\t", "").isprintable() for line in written.getvalue().split("\n"))
    assert len(written.getvalue()) < 3000


def test_the_frames_of_a_group_are_lines_too(written: Written) -> None:
    """What it says is one, like what any exception says."""
    said = HOSTILE[:60]
    try:
        try:
            raise ValueError(said)
        except ValueError as error:
            raise ExceptionGroup(said, [error]) from None
    except ExceptionGroup as group:
        _, observer = logged(TransformFailed("mine", TransformError.caused_by("mine", group)))
    observer.stop()
    lines = written.lines()
    assert "\t  |     raise ExceptionGroup(said, [error]) from None" in lines
    assert "\t    |     raise ValueError(said)" in lines
    assert not [line for line in written.getvalue().split("\n") if "forged" in line[:40]]


def test_a_traceback_that_cannot_be_shown_is_a_line_of_it(written: Written) -> None:
    """Each message would have another, unasked for, and its datagram no count."""

    class Odd(str):
        def __format__(self, spec: str) -> str:
            raise AttributeError("it has no text")

    error = TransformError.caused_by("mine", SyntaxError("odd", (Odd("mine"), 3, 5, "text")))
    _, observer = logged(TransformFailed("mine", error))
    observer.stop()
    assert written.lines()[0].startswith("TCP: transform 'mine' raised:")
    assert written.lines()[-1] == "\t(its text cannot be had: AttributeError)"


def test_too_much_output_needs_no_traceback(written: Written) -> None:
    _, observer = logged(TransformFailed("mine", OutputTooLong("mine", 10, 5)))
    observer.stop()
    assert written.lines() == []


def test_a_slow_transform_is_named(written: Written) -> None:
    _, observer = logged(SlowCall("mine", 0.25))
    observer.stop()
    assert written.lines() == [
        "TCP: transform 'mine' blocked the reactor for 250 ms; nobody else was served meanwhile"
    ]


def test_everything_is_counted_by_its_reason() -> None:
    """Requests and replies are not: they are told only where somebody watches."""
    counters = Counters()
    for event in (
        Opened("x"),
        closed("", Outcome.IDLE),
        closed("", Outcome.IDLE),
        Refused("x", RefusalReason.PRESSURE, ""),
        AcceptFailed("EMFILE", ""),
        failure("no"),
        Received("x", b""),
        Replied("x", b""),
    ):
        counters.notify(event)
    assert list(counters.by_name().items()) == [
        ("accept-failed EMFILE", 1),
        ("closed idle", 2),
        ("opened", 1),
        ("refused pressure", 1),
        ("transform-failed mine", 1),
    ]


def test_a_datagram_has_one_line_which_says_how_it_ended(written: Written) -> None:
    peer, delayed = "192.0.2.1:50000", (LabAction.DELAYED,)
    late = "request delayed 50 ms"
    logged(
        Received(peer, b"ping"),
        Replied(peer, b"PING", b"ping"),
        Dropped(peer, DropReason.FAILED, "no number", b"x"),
        Impaired(peer, Direction.REQUEST, 7, delayed, late, b"ping", late),
        Replied(peer, b"PING", b"ping", 7, late),
        Impaired(
            peer, Direction.REQUEST, 8, (LabAction.LOST,), "request lost", b"hi", "request lost"
        ),
        Replied(peer, b"PING", b"ping", 9),
        log_peers=True,
    )[1].stop()
    assert [line.partition(peer)[2] for line in written.lines()] == [
        ": 4 bytes b'ping' -> 4 bytes b'PING'",
        ": no reply (failed: no number) to 1 byte b'x'",
        "   7  request delayed 50 ms: 4 bytes b'ping' -> 4 bytes b'PING'",
        "   8  request lost: 2 bytes b'hi'",
        "   9  delivered: 4 bytes b'ping' -> 4 bytes b'PING'",
    ]


def test_what_a_client_may_wonder_about_is_a_sentence(written: Written) -> None:
    peer = "192.0.2.1:50000"
    logged(
        WouldDrop(peer, DropReason.OVER_RATE),
        Incomplete(peer, 1),
        Impaired(peer, Direction.REPLY, 0, (LabAction.DELAYED,), "the reply is held back"),
        KernelDropped("192.0.2.2:12000", 2),
        log_peers=True,
    )[1].stop()
    assert written.lines() == [
        f"TCP: a datagram from {peer} would have been dropped: over-rate",
        f"TCP: {peer} has sent 1 byte without a line's end and waits; --framing=segment answers "
        "programs that send none",
        f"TCP: {peer}: the reply is held back",
        "TCP: the system dropped 2 datagrams for 192.0.2.2:12000: too many at once (a larger "
        "--rcvbuf holds more, up to net.core.rmem_max) or damaged (nstat -az '*CsumErrors')",
    ]


def test_lines_say_uppercase_and_not_where_in_the_code_they_come_from(written: Written) -> None:
    logged(closed(""))[1].stop()
    assert "[uppercase#warn]" in written.getvalue()
