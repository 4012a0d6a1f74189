"""The lecture's clients, the UDP Pinger and stop-and-wait, judged by the record of a service.

Stop-and-wait: the program reads lines from standard input, sends each as it likes, with numbers and
checksums of its own, to a service that upper-cases, and prints what came back of it: each line
upper-cased, once, in order, whatever the network does. How often it may send is what the lab's
answer key makes necessary: a line needs one datagram whose request and reply arrive unharmed, and
each that does not is one more. (One flipped bit in a letter may be its case, which upper-casing
heals; it counts as harmed nonetheless.)
"""

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial
from itertools import pairwise
from operator import contains
from typing import Any, ClassVar, Final

from uppercase.classroom.captive import OUTPUT, ending
from uppercase.classroom.grade import Run, Trial, Wrong, check, exercise
from uppercase.lab import UDP_PRESETS, answer_key, make_experiment
from uppercase.limits import KIB

_SENTENCE: Final = "hello world"

_TRANSFORMS: Final = ("uppercase", "rot13")
_REPLY: Final = "URYYB JBEYQ"
"""What no client prints that has not read it, though the server of the exercise upper-cases."""

_DELAY: Final = 0.2
"""Seconds by which the pinger's replies are late, so that what it prints can only be measured."""

_LOSS: Final = re.compile(
    r"timed?[ -]?out|lost|drop|\bmiss|fail|unanswered|\bno [a-z]|(?:\bnot|n't|never) [a-z]"
)
_RATE: Final = re.compile(
    r"(-?\d+(?:\.\d+)?)[^\S\n]*(?:%|per ?cent)|(?:%|per ?cent)[^\d\n]*?(-?\d+(?:\.\d+)?)"
)
_FRACTION: Final = re.compile(r"los[st]\b.*?(?<![\d.])(-?0?\.\d+)(?![.\d]*\s*(?:%|per ?cent|m?s))")
"""A loss rate that is no percentage, such as 0.4."""
_NUMBER: Final = re.compile(r"(\d+\.?\d*)\s*(m(?=illi|s)|n(?=ano|s)|micro|[uµμ](?=s)|s(?=ec|\b)|)")
_SCALES: Final = {"": (1.0, 1e3), "s": (1.0,), "m": (1e3,), "n": (1e9,)}
"""By the unit: how many make a second. Without one, seconds or milliseconds are meant."""


def _expect(fine: object, wanted: str) -> None:
    if not fine:
        raise Wrong(f"expected {wanted}")


def _judged(name: str, points: int = 1, **lab: Any) -> Callable[[Callable[[Any, Run], None]], Any]:
    """Make one of the exercise's checks of a function that judges its run under a lab."""

    def decorate(judge: Callable[[Any, Run], None]) -> Any:
        def examine(exercise: Any, trial: Trial) -> None:
            run = exercise.run(trial, **lab)
            asks = "that it asks the service on its port (--port is for a fixed port)"
            _expect(run.rows, f"{asks}, got nothing{_end(run)}")
            judge(exercise, run)

        return check(name, points)(examine)

    return decorate


def _end(run: Run) -> str:
    """Return what a sentence adds to what a program has done."""
    why = "" if run.output else " (what it has not flushed is lost)"
    if any(row["event"] == "chunk" and row["direction"] == "reply" for row in run.rows):
        why = " (the service ends a connection after its client does, not after a reply)"
    end = f" and had to be killed{why}" if run.status is None else ""
    if len(run.output.encode()) >= OUTPUT:
        end = f" (of its output, the first {OUTPUT // KIB} KiB are read){end}"
    return end + (f" and, on standard error, {run.complaint}" if run.complaint else "")


def _ends(run: Run) -> None:
    _expect(run.status is not None, "that it ends, got a program that had to be killed")


def _ends_well(_: object, run: Run) -> None:
    _ends(run)
    _expect(run.status == 0, f"exit status 0, got {ending(run.status or 0)}{_end(run)}")


def _prints(_: object, run: Run, times: int = 1) -> None:
    got, reply = f"got {run.output[-80:]!r}{_end(run)}", _REPLY * times
    _expect(reply in run.output, f"the reply of this service, {reply!r}, in its output, {got}")


@dataclass(frozen=True)
class _Client:
    udp = False
    lab: ClassVar[Mapping[str, Any]] = {}
    # Four time-outs, each twice as long as the one before, from one second on, and its start.
    seconds: float = 20.0

    def run(self, trial: Trial, times: int = 1, **lab: Any) -> Run:
        lab = {"transforms": _TRANSFORMS, **(lab or self.lab)}
        return trial.client(self.udp, f"{_SENTENCE * times}\n", seconds=self.seconds, **lab)

    @_judged("sends the line", 2)
    def sends(self, run: Run) -> None:
        arrivals = (("received", None), ("chunk", "request"))
        came = (row for row in run.rows if (row["event"], row.get("direction")) in arrivals)
        sent = "".join(row["data"] for row in came)
        right = sent.rstrip("\r\n") == _SENTENCE
        _expect(right, f"that it sends {_SENTENCE!r} once, got {sent[:60]!r}{_end(run)}")

    prints = _judged("prints the reply", 3)(_prints)
    ends = _judged("ends with status 0")(_ends_well)


@exercise("tcp-client", "reads a line, sends it over TCP, prints the reply, ends")
class _TCPClient(_Client):
    # It takes 0.44 s: a busy machine may have one recv wait for a shorter one until it is whole.
    pieces = _judged("takes a reply in pieces", times=4, options={"slice": "1"})(
        partial(_prints, times=4)
    )


@exercise("udp-client", "reads a line, sends it as a datagram, prints the reply, ends")
class _UDPClient(_Client):
    udp = True
    # However fast the machine is, who does not wait for the reply gets none.
    lab: ClassVar = {"options": {"delay": "reply:50ms"}, "seed": 7}

    @_judged("ends without a reply", options={"loss": "1"}, seed=7)
    def lonely(self, run: Run) -> None:
        _ends(run)
        fake = _SENTENCE.upper()
        _expect(fake not in run.output, f"no reply in its output, as none came, got {fake!r}")


@exercise(
    "udp-pinger", "ten pings, a second for each reply, round trips and loss; 4 of 11 are lost"
)
class _UDPPinger:
    seed: int = 7
    loss: str = "4/11"
    pings: int = 10
    seconds: float = 30.0
    quiet: float = 10.0

    def run(self, trial: Trial) -> Run:
        options = {"loss": self.loss, "delay": f"reply:{_DELAY}s"}
        run = trial.client(
            True, "", seconds=self.seconds, quiet=self.quiet, options=options, seed=self.seed
        )
        # What a line takes grows with the square of its length: a minute for 64 KiB of digits.
        output = "\n".join(line[:300] for line in run.output.lower().splitlines())
        # Python reads a number of Java's in Arabic, but for its decimal comma.
        return run._replace(output=output.replace("\u066b", "."))

    @_judged("sends ten pings", 3)
    def ten(self, run: Run) -> None:
        count = len(_arrivals(run))
        _expect(count == self.pings, f"{self.pings} datagrams, got {count}{_end(run)}")

    @_judged("waits a second for each reply")
    def waits(self, run: Run) -> None:
        gaps = [following - sent for sent, following in pairwise(_arrivals(run))]
        for number in self._met(run):
            between = f"one second between ping {number}, which is lost, and the next"
            if number > len(gaps):
                _expect(run.status is not None, f"{between}, got no other{_end(run)}")
                continue
            # No less, except for how late our service was with the first, and hardly more: a busy
            # machine may add some.
            gap = gaps[number - 1]
            _expect(0.8 - run.late <= gap <= 4, f"{between}, got {gap:.1f} s")

    @_judged("tells of each loss", 2)
    def tells(self, run: Run) -> None:
        wanted = "that tell of a time-out or a loss, such as 'Request timed out'"
        _expect_lines(run, len(self._met(run)), _LOSS.search, wanted)

    @_judged("prints each round trip", 2)
    def round_trips(self, run: Run) -> None:
        came = sum(row["event"] == "replied" for row in run.rows)
        wanted = (
            f"with a round trip of {_DELAY:g} s or {_DELAY * 1e3:g} ms or somewhat more "
            "(the replies were held back for that long)"
        )
        _expect_lines(run, came, _has_round_trip, wanted)

    @_judged("prints the loss rate")
    def rate(self, run: Run) -> None:
        rate = 100 * len(_lost(run)) / max(1, len(_arrivals(run)))
        output = run.output.replace(",", ".")
        told = [float(one or other) for one, other in _RATE.findall(output)]
        told += [100 * float(each) for each in _FRACTION.findall(output)]
        got = (f"{told[-1]:g} %" if told else "no percentage") + _end(run)
        fine = any(abs(each - rate) <= 1 for each in told)
        _expect(fine, f"a loss of {rate:.0f} %, as the record has it, got {got}")

    ends = _judged("ends with status 0")(_ends_well)

    def _met(self, run: Run) -> Sequence[int]:
        """Return what is lost; who has sent too little to meet any has shown nothing."""
        lost, count = sorted(_lost(run)), len(_arrivals(run))
        _expect(lost or count >= self.pings, f"pings until one is lost, got {count}{_end(run)}")
        return lost


def _expect_lines(run: Run, count: int, is_one: Callable[[str], object], wanted: str) -> None:
    """Expect so many lines, and a summary's few, or of each kind as many, or twice."""
    lines = [line for line in run.output.splitlines() if is_one(line)]
    kinds = Counter(re.sub(r"[\d.,]+", "", line) for line in lines)
    fine = len(lines) <= count + min(3, count) or {*kinds.values()} <= {1, count, 2 * count}
    _expect(fine and len(lines) >= count, f"{count} lines {wanted}, got {len(lines)}{_end(run)}")


def _arrivals(run: Run) -> list[float]:
    return [row["time"] for row in run.rows if row["event"] == "received"]


def _lost(run: Run) -> set[int]:
    return {row["number"] for row in run.rows if "lost" in row.get("actions", ())}


def _has_round_trip(line: str) -> bool:
    """With a decimal comma too, as Java prints it in some countries; a time of day is none."""
    # But Python's `timedelta` is, which looks like one.
    line = re.sub(r"(?!0+:00:00\.)\d+:\d+:\d+[.,:]?\d*", "", line)
    return any(
        _DELAY * 0.99 <= float(number) / scale < 1
        for text in {line, line.replace(",", ".")}
        for number, unit in _NUMBER.findall(text)
        for scale in _SCALES.get(unit, (1e6,))
    )


_WORDS: Final = ("alpha", "bravo", "charlie", "delta", "echo", "foxtrot", "golf", "hotel")

_ALL: Final = UDP_PRESETS["stop-and-wait"].settings


def _delivers(_: object, run: Run) -> None:
    """Expect each line once and in order, and that the service has seen each."""
    wanted = [word.upper() for word in _WORDS]
    # Whatever else is in the lines, such as numbers and colours, and whatever other lines there
    # are: banners, prompts, time-outs. But a word that was harmed is one.
    lines = run.output.splitlines()
    got = [
        line.strip()
        for line in lines
        if any(
            word in line or get_close_matches(word, line.split(), cutoff=0.75) for word in wanted
        )
    ]
    fine = len(got) == len(wanted) and all(map(contains, got, wanted))
    stuck = run.status is None and any(row["event"] == "replied" for row in run.rows)
    hint = " (the service has replied, in capitals: a checksum has to be of these)" * stuck
    shown = ", ".join(got) or f"none of them{hint}"
    shown = shown if len(shown) <= 120 else f"{shown[:120]}…"
    expected = f"the lines {wanted[0]} to {wanted[-1]}, once and in order"
    _expect(fine, f"{expected}, got {shown}{_end(run)}")
    seen = "".join(row["data"] for row in run.rows if row["event"] == "replied")
    for word in wanted:
        _expect(word in seen, f"that {word} comes from the service, which has never sent it")
    _ends(run)


@exercise("stop-and-wait", "reads lines; each arrives once and in order, whatever the network does")
class _StopAndWait:
    # With it each check meets, both ways, what it is about: bits are flipped in words, and others
    # so that what comes is not text.
    seed: int = 578
    seconds: float = 60.0
    quiet: float = 15.0

    def run(self, trial: Trial, **options: str) -> Run:
        text = "".join(f"{word}\n" for word in _WORDS)
        lab = {"options": options, "seed": self.seed} if options else {}
        return trial.client(True, text, seconds=self.seconds, quiet=self.quiet, **lab)

    plain = _judged("without trouble", 2)(_delivers)
    loss = _judged("loss in both directions", 3, loss="both:0.2")(_delivers)
    duplicates = _judged("duplicates in both directions", 2, duplicate="both:0.5")(_delivers)
    corruption = _judged("corruption in both directions", 3, corrupt="both:0.2")(_delivers)
    # Some round trips take longer than any time-out for this lab: copies of replies come.
    late = _judged(
        "replies later than its time-out", 2, delay="reply:100ms", reorder="reply:0.3", loss="0.1"
    )(_delivers)
    everything = _judged("all of it", 3, **_ALL)(_delivers)

    @_judged("sends no more than it must", 2, **_ALL)
    def economy(self, run: Run) -> None:
        """With the lab's round trips of up to 300 ms; half as many again as lines are the slack."""
        _delivers(self, run)
        sent = len(_arrivals(run))
        key = answer_key(make_experiment(_ALL, seed=self.seed), sent)
        harmed = sum(
            row.request.flip is not None
            or not any(fate.copies and fate.flip is None for fate in row.replies)
            for row in key
        )
        slack = len(_WORDS) // 2
        most = len(_WORDS) + harmed + slack
        _expect(
            sent <= most,
            f"at most {most} transmissions ({len(_WORDS)} lines, {harmed} that the network "
            f"harmed, {slack} to spare), got {sent}",
        )


CLIENTS: Final[Sequence[Any]] = (_TCPClient, _UDPClient, _UDPPinger, _StopAndWait)
