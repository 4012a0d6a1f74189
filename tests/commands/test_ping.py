"""How ping tells lost, late, duplicate, reordered and wrong replies apart; in memory."""

import re
import tracemalloc
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from tests.commands.command import run
from tests.costs import here, spent
from uppercase.client.target import Target
from uppercase.commands._options import acceptable
from uppercase.commands._report import difference
from uppercase.commands.ping import Display, finding_text
from uppercase.commands.ping._run import Lines
from uppercase.commands.ping._tracker import Finding, Probes, Tracker, Verdict, schedule
from uppercase.errors import NetworkError, UserError

TIMEOUT = 1.0


def upper(message: bytes) -> bytes:
    return message.upper()


def make_tracker(size: int = 64, ending: bytes = b"") -> Tracker:
    return Tracker(Probes(upper, size, b"abcd", ending), TIMEOUT)


def verdicts(*findings: Finding) -> list[tuple[Verdict, int | None]]:
    return [(finding.verdict, finding.seq) for finding in findings]


def test_probes_are_planned_at_fixed_times_whatever_comes_back() -> None:
    assert [*schedule(interval=0.5, count=3, duration=None)] == [0.0, 0.5, 1.0]


def test_no_probe_is_planned_at_the_deadline_or_after() -> None:
    assert [*schedule(interval=1.0, count=None, duration=2.0)] == [0.0, 1.0]


def test_a_probe_is_lower_case_text_of_the_size_asked_for_and_carries_its_number() -> None:
    tracker = make_tracker(ending=b"\n")
    probe = [tracker.send(0.0) for _ in range(12)][-1]
    assert len(probe) == 64
    assert probe.startswith(b"abcd12abc")
    assert probe.endswith(b"\n")
    assert probe[:-1].isalnum()
    assert probe == probe.lower()


def test_a_reply_in_time_has_its_whole_round_trip() -> None:
    tracker = make_tracker()
    reply = tracker.receive(tracker.send(5.0).upper(), 5.25)
    assert (reply.verdict, reply.rtt, reply.size) == (Verdict.REPLY, 0.25, 64)
    assert tracker.totals.rtt.mean == 0.25


def test_a_probe_without_a_reply_is_lost_when_its_time_is_over() -> None:
    tracker = make_tracker()
    tracker.send(0.0)
    tracker.send(0.6)
    assert tracker.expire(0.9) == []
    assert verdicts(*tracker.expire(1.0)) == [(Verdict.LOST, 1)]
    assert tracker.next_expiry == 1.6
    assert (tracker.totals.lost, tracker.totals.pending, tracker.totals.loss) == (1, 1, 1.0)


def test_a_late_reply_is_no_longer_lost_and_not_among_the_round_trips() -> None:
    tracker = make_tracker()
    reply = tracker.send(0.0).upper()
    tracker.expire(1.0)
    assert tracker.receive(reply, 1.5).verdict is Verdict.LATE
    totals = tracker.totals
    assert (totals.late, totals.lost, totals.received, totals.rtt.count) == (1, 0, 0, 0)
    assert not acceptable(totals, max_loss=0.0)


def test_a_reply_after_the_timeout_is_late_even_if_nobody_has_looked_at_the_clock() -> None:
    tracker = make_tracker()
    assert tracker.receive(tracker.send(0.0).upper(), 1.5).verdict is Verdict.LATE
    assert tracker.expire(2.0) == []


def test_a_second_copy_is_a_duplicate() -> None:
    tracker = make_tracker()
    reply = tracker.send(0.0).upper()
    found = [tracker.receive(reply, now) for now in (0.1, 0.2, 3.0)]
    assert verdicts(*found) == [(Verdict.REPLY, 1), (Verdict.DUPLICATE, 1), (Verdict.DUPLICATE, 1)]
    assert (tracker.totals.received, tracker.totals.duplicates) == (1, 2)
    assert acceptable(tracker.totals, max_loss=0.0)


def test_a_reply_after_a_later_ones_is_reordered() -> None:
    """RFC 4737: the packet that comes after one with a larger number."""
    tracker = make_tracker()
    first, second, third = (tracker.send(0.0).upper() for _ in range(3))
    found = [tracker.receive(reply, 0.1) for reply in (second, first, third)]
    assert [each.reordered for each in found] == [False, True, False]
    assert tracker.totals.reordered == 1


def test_a_wrong_reply_counts_for_the_probe_it_names_and_is_not_also_lost() -> None:
    tracker = make_tracker()
    tracker.send(0.0)
    second = tracker.send(0.0)
    assert verdicts(tracker.receive(second, 0.1)) == [(Verdict.WRONG, 2)]  # an echo
    assert verdicts(*tracker.expire(1.0)) == [(Verdict.LOST, 1)]
    assert (tracker.totals.wrong, tracker.totals.lost) == (1, 1)


def test_a_garbled_reply_counts_for_the_probe_it_resembles() -> None:
    tracker = make_tracker()
    replies = [tracker.send(0.0).upper() for _ in range(3)]
    garbled = b"?" + replies[1][1:]
    assert verdicts(tracker.receive(garbled, 0.1)) == [(Verdict.WRONG, 2)]


def test_a_wrong_reply_that_nothing_awaits_belongs_to_no_probe() -> None:
    tracker = make_tracker()
    tracker.receive(tracker.send(0.0).upper(), 0.1)
    assert verdicts(tracker.receive(b"?", 0.2)) == [(Verdict.WRONG, None)]
    assert (tracker.totals.received, tracker.totals.wrong) == (1, 1)


def test_what_a_server_says_before_it_is_asked_belongs_to_no_probe() -> None:
    """Its round trip would be negative."""
    tracker = make_tracker()
    tracker.send(0.2)
    finding = tracker.receive(b"30 NOV 2026\r\n", 0.1)
    assert (*verdicts(finding), finding.rtt) == ((Verdict.WRONG, None), None)
    assert tracker.totals.pending == 1


def test_a_correct_reply_after_a_wrong_one_still_counts() -> None:
    tracker = make_tracker()
    probe = tracker.send(0.0)
    assert tracker.receive(probe, 0.1).verdict is Verdict.WRONG
    assert tracker.receive(probe.upper(), 0.2).verdict is Verdict.REPLY
    assert (tracker.totals.received, tracker.totals.wrong, tracker.totals.lost) == (1, 1, 0)


def test_a_wrong_reply_that_comes_late_is_wrong_and_not_lost() -> None:
    tracker = make_tracker()
    probe = tracker.send(0.0)
    tracker.expire(1.0)
    assert verdicts(tracker.receive(probe, 1.1)) == [(Verdict.WRONG, 1)]
    assert (tracker.totals.wrong, tracker.totals.lost) == (1, 0)


def test_a_reply_to_another_run_is_wrong() -> None:
    tracker = make_tracker()
    tracker.send(0.0)
    other = Probes(upper, 64, b"wxyz").reply(1)
    assert tracker.receive(other, 0.1).verdict is Verdict.WRONG


@given(st.lists(st.tuples(st.sampled_from("sdrwxt"), st.integers(0, 9)), max_size=60))
def test_every_probe_is_counted_once(actions: list[tuple[str, int]]) -> None:
    """Whatever a server does: sent, received, late, lost, wrong only and pending add up."""
    tracker = make_tracker()
    now = 0.0
    sent: list[bytes] = []
    found: list[Finding] = []
    for action, which in actions:
        now += 0.11
        if action == "s" or not sent:
            sent.append(tracker.send(now))
        elif action == "t":
            found += tracker.expire(now)
        else:
            probe = sent[which % len(sent)]
            reply = {"w": probe, "x": b"?"}.get(action, probe.upper())
            found.append(tracker.receive(reply, now))
    totals = tracker.totals
    correct = {each.seq for each in found if each.verdict in (Verdict.REPLY, Verdict.LATE)}
    only_wrong = {each.seq for each in found if each.verdict is Verdict.WRONG} - correct - {None}
    assert totals.transmitted == len(sent)
    settled = totals.received + totals.late + totals.lost + len(only_wrong)
    assert totals.transmitted - totals.pending == settled
    counted = Counter(each.verdict for each in found)
    assert counted[Verdict.DUPLICATE] == totals.duplicates
    assert counted[Verdict.WRONG] == totals.wrong


def test_what_is_remembered_is_bounded() -> None:
    tracker = make_tracker(size=1 << 20)
    replies = []
    for number in range(20):
        replies.append(tracker.send(number).upper())
        tracker.receive(replies[-1], number)
    assert tracker.receive(replies[-1], 20.0).verdict is Verdict.DUPLICATE
    assert tracker.receive(replies[0], 20.0).verdict is Verdict.WRONG, "the first is long forgotten"


def test_what_is_awaited_is_remembered_beyond_that_bound() -> None:
    tracker = make_tracker(size=1 << 20)
    replies = [tracker.send(number / 1000).upper() for number in range(20)]
    assert {tracker.receive(reply, 0.5).verdict for reply in replies} == {Verdict.REPLY}


@pytest.mark.parametrize("size", [15, 2**20 + 1, 2**90])
def test_a_probe_too_small_to_be_told_apart_or_too_large_is_refused(size: int) -> None:
    with pytest.raises(UserError, match=f"got a size of {size} bytes; .* has 16 to 1048576"):
        Probes(upper, size, b"abcd")


def test_an_expectation_that_cannot_tell_probes_apart_is_refused() -> None:
    with pytest.raises(UserError, match="all replies of the expected transform are equal"):
        Probes(lambda message: b"ok", 64, b"abcd")


@pytest.mark.parametrize(
    ("code", "sentence"),
    [
        (
            "def fails(text: str) -> str:\n    raise KeyError(7)",
            "but transform {} failed: KeyError: 7",
        ),
        ("async def waits(text: str) -> str:\n    return text", "which answers asynchronously; "),
    ],
)
@pytest.mark.filterwarnings("error")
def test_an_expectation_that_cannot_be_asked_is_one_sentence(
    code: str, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = re.findall("def (.*)[(]", code)[0]
    (tmp_path / f"acme_{name}.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    wanted = f"acme_{name}:{name}"
    outcome = run("ping", f"--expect={wanted}")
    assert outcome.status == 2
    got = f"uppercase: got --expect={wanted}, {sentence.format(repr(wanted))}"
    assert outcome.stderr.startswith(got)
    assert outcome.stderr.count("\n") == 1


def test_a_reply_of_several_lines_is_refused_on_a_stream_only() -> None:
    def two_lines(message: bytes) -> bytes:
        return message + b"\n" + message

    Probes(two_lines, 64, b"abcd")
    with pytest.raises(UserError, match="several lines"):
        Probes(two_lines, 64, b"abcd", b"\n")


@pytest.mark.parametrize(
    ("lost", "sent", "max_loss", "fine"),
    [(0, 10, 0.0, True), (3, 10, 0.3, True), (4, 10, 0.3, False), (29, 100, 0.29, True)],
)
def test_as_much_loss_as_allowed_is_acceptable(
    lost: int, sent: int, max_loss: float, fine: bool
) -> None:
    tracker = make_tracker()
    replies = [tracker.send(0.0).upper() for _ in range(sent)]
    for reply in replies[lost:]:
        tracker.receive(reply, 0.1)
    tracker.expire(9.0)
    assert acceptable(tracker.totals, max_loss) is fine


def test_nothing_received_is_not_acceptable_unless_all_may_be_lost() -> None:
    tracker = make_tracker()
    assert not acceptable(tracker.totals, 0.5)
    assert acceptable(tracker.totals, 1.0)


@pytest.mark.parametrize(
    ("finding", "line"),
    [
        (Finding(Verdict.REPLY, 7, 64, 0.0000434), "64 bytes from h:1: seq=7 time=0.043 ms"),
        (
            Finding(Verdict.REPLY, 7, 64, 0.001, reordered=True),
            "64 bytes from h:1: seq=7 time=1.000 ms REORDERED",
        ),
        (Finding(Verdict.LATE, 7, 64, 1.5), "64 bytes from h:1: seq=7 time=1500.000 ms LATE"),
        (Finding(Verdict.DUPLICATE, 7, 64, 0.001), "64 bytes from h:1: seq=7 time=1.000 ms DUP"),
        (Finding(Verdict.WRONG, 7, 5, 0.001), "5 bytes from h:1: seq=7 time=1.000 ms WRONG"),
        (Finding(Verdict.WRONG, None, 5), "5 bytes from h:1: seq=? WRONG"),
        (Finding(Verdict.LOST, 7), "no reply from h:1: seq=7 within 0.5 s LOST"),
    ],
)
def test_the_last_word_of_a_line_says_what_was_not_as_it_should_be(
    finding: Finding, line: str
) -> None:
    assert finding_text(finding, "h:1", 0.5) == line


@pytest.mark.parametrize(
    ("got", "expected", "sentence"),
    [
        (b"ABCdEF", b"ABCDEF", " differs at byte 3: 'ABCdEF' instead of 'ABCDEF'"),
        (b"ABC", b"ABC\n", " differs at byte 3: 'ABC' instead of 'ABC\\n'"),
        (b"\xff", b"A", " differs at byte 0: '\\xff' instead of 'A'"),
        (b"?", b"", " was '?'; no probe was awaiting one"),
    ],
)
def test_a_wrong_reply_is_shown_where_it_differs(
    got: bytes, expected: bytes, sentence: str
) -> None:
    assert difference(got, expected) == sentence


def make_lines() -> tuple[Lines, list[bytes], StringTransport]:
    came: list[bytes] = []
    lines = Lines(Target(port=12000), came.append, 1)
    transport = StringTransport()
    lines.makeConnection(transport)  # type: ignore[no-untyped-call]
    return lines, came, transport


def test_lines_are_whole_whatever_the_pieces_they_come_in() -> None:
    lines, came, _ = make_lines()
    lines.dataReceived(b"ONE\nTW")
    assert came == [b"ONE\n"]
    lines.dataReceived(b"O\nTHREE\n")
    assert came == [b"ONE\n", b"TWO\n", b"THREE\n"]
    assert lines.incomplete() == b""


def test_a_long_line_in_small_pieces_is_joined_once() -> None:
    """It took the square of its length: a second and a half for this one."""
    lines, came, _ = make_lines()

    def receive() -> None:
        for _ in range(10_000):
            lines.dataReceived(b"x" * 100)
        lines.dataReceived(b"\n")

    assert spent(receive) < here(0.4)
    assert came == [b"x" * 1_000_000 + b"\n"]


def test_a_line_that_still_comes_is_not_taken_for_a_wrong_one() -> None:
    """A slow network brings it in pieces; a server may leave out its end, or say something else."""
    tracker = make_tracker(size=20, ending=b"\n")
    lines, came, _ = make_lines()
    first, second, third = (tracker.send(0.0).upper() for _ in range(3))
    lines.dataReceived(first[:18])
    assert lines.stuck(tracker) == b""
    # A probe may expire as soon as a reply is told, when there is more in the same piece.
    lines.deliver = lambda line: came.extend((line, lines.stuck(tracker)))
    lines.dataReceived(first[18:] + second + third[:9])
    assert (lines.stuck(tracker), came) == (b"", [first, b"", second, b""])
    lines.dataReceived(third[9:-1])
    assert lines.stuck(tracker) == third[:-1]
    lines.dataReceived(b"ERROR")
    assert lines.stuck(tracker) == b"ERROR"
    assert lines.stuck(tracker) == b""
    lines.dataReceived(b"\nmore than was asked for\n?")
    assert lines.stuck(tracker) == b"?"


@pytest.mark.parametrize("ended", ["half", "whole"])
def test_what_came_before_the_end_is_given_before_the_end_is_told(ended: str) -> None:
    lines, came, _ = make_lines()
    lines.dataReceived(b"ONE\nTW")
    ends: list[object] = []
    lines.over.addCallback(lambda error: ends.append((error, list(came))))
    if ended == "half":
        lines.readConnectionLost()
    lines.connectionLost(Failure(ConnectionDone()))
    assert ends == [(None, [b"ONE\n", b"TW"])]
    sentence = str(lines.ending("closed"))
    assert sentence.endswith("closed the connection after 2 replies")


def test_a_line_without_end_does_not_fill_the_memory() -> None:
    lines, came, _ = make_lines()
    for _ in range(400):
        lines.dataReceived(b"x" * 65536)
    assert came
    assert max(map(len, came)) < 4 << 20
    assert len(lines.incomplete()) < 4 << 20


def test_what_an_evil_server_sends_is_not_kept() -> None:
    """A plot looks back on 100,000 replies, each of which may have been a mebibyte."""
    tracker = make_tracker()
    display = Display(
        Target(), TIMEOUT, tracker.totals, quiet=True, as_json=False, timestamps=False
    )
    tracker.send(0.0)
    tracemalloc.start()
    try:
        for _ in range(40):
            display.show(tracker.receive(bytes(1 << 20), 0.5))
        assert tracemalloc.get_traced_memory()[0] < 4 << 20
    finally:
        tracemalloc.stop()
    assert len(display.found) == 40


def test_how_it_stands_is_an_object_among_objects(capsys: pytest.CaptureFixture[str]) -> None:
    totals = make_tracker().totals
    Display(Target(), TIMEOUT, totals, quiet=True, as_json=True, timestamps=False).show_interim()
    assert '"type": "interim"' in capsys.readouterr().out


def test_a_server_that_stops_reading_is_told() -> None:
    lines, _, transport = make_lines()
    assert transport.producer is lines
    lines.pauseProducing()
    with pytest.raises(NetworkError, match="has stopped reading"):
        lines.send(b"x" * (32 << 20))
    lines.close()
    assert transport.disconnected, "what waits is dropped"


def test_a_reset_is_told_from_an_orderly_end() -> None:
    lines, _, _ = make_lines()
    lines.connectionLost(Failure(ConnectionLost()))
    ends: list[object] = []
    lines.over.addCallback(ends.append)
    assert "reset the connection after 0 replies" in str(ends[0])
