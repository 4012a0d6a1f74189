"""The lecture's clients, the UDP Pinger and stop-and-wait, judged by the record of a service.

Stop-and-wait: the program reads lines from standard input, sends each as it likes, with numbers and
checksums of its own, to a service that upper-cases, and prints what came back of it: each line
upper-cased, once, in order, whatever the network does. How often it may send is what the lab's
answer key makes necessary: a line needs one datagram whose request and reply arrive unharmed, and
each that does not is one more. (One flipped bit in a letter may be its case, which upper-casing
heals; it counts as harmed nonetheless.)
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

from uppercase.classroom.grade import Run, Trial, Wrong, check, exercise
from uppercase.lab import UDP_PRESETS, Row, answer_key, make_experiment

_SENTENCE: Final = "hello world"

_DELAY: Final = 0.2
"""Seconds by which the pinger's replies are late, so that what it prints can only be measured."""


def _ends(run: Run) -> None:
    if run.status is None:
        raise Wrong("expected that it ends, got a program that had to be killed")


def _begins(run: Run) -> None:
    if not run.rows:
        raise Wrong(f"expected a datagram, got none: {run.complaint or 'it sent nothing'}")


def _succeeds(run: Run) -> None:
    if run.status:
        raise Wrong(f"expected exit status 0, got {run.status}: {run.complaint}")


def _prints(run: Run) -> None:
    if _SENTENCE.upper() not in run.output:
        words = run.complaint or run.output[-80:] or "nothing"
        raise Wrong(f"expected {_SENTENCE.upper()!r} in its output, got {words!r}")


def _sends(run: Run) -> None:
    sent = "".join(
        row["data"]
        for row in run.rows
        if row["event"] == "received"
        or (row["event"], row.get("direction")) == ("chunk", "request")
    )
    if sent.rstrip("\r\n") != _SENTENCE:
        raise Wrong(f"expected that it sends {_SENTENCE!r} once, got {sent[:60]!r}")


def _run(name: str, points: int, *judges: Callable[[Run], None], **lab: Any) -> Any:
    """Return a check that judges the exercise's run under a lab."""

    def examine(exercise: Any, trial: Trial) -> None:
        run = exercise.run(trial, **lab)
        for judge in judges:
            judge(run)

    return check(name, points)(examine)


@dataclass(frozen=True)
class _Client:
    udp = False
    seconds: float = 15.0

    def run(self, trial: Trial, **lab: Any) -> Run:
        return trial.client(self.udp, f"{_SENTENCE}\n", seconds=self.seconds, **lab)

    sends = _run("sends the line", 2, _sends)
    prints = _run("prints the reply", 3, _prints)
    ends = _run("ends with status 0", 1, _ends, _succeeds)


class _TCPClient(_Client):
    pieces = _run("takes a reply in pieces", 1, _prints, options={"slice": "1"})


class _UDPClient(_Client):
    udp = True
    lonely = _run("ends without a reply", 1, _ends, _begins, options={"loss": "1"}, seed=7)


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
        _begins(run)
        return run

    @check("sends ten pings", 3)
    def ten(self, trial: Trial) -> None:
        count = len(_arrivals(self.run(trial)))
        if count != self.pings:
            raise Wrong(f"expected {self.pings} datagrams, got {count}")

    @check("waits a second for each reply")
    def waits(self, trial: Trial) -> None:
        """No less, and hardly more: a busy machine may add some."""
        run = self.run(trial)
        lost = _lost(run)
        for number, (sent, following) in enumerate(pairwise(_arrivals(run)), 1):
            if number in lost and not 0.8 <= following - sent <= 4:
                raise Wrong(
                    f"expected one second between ping {number}, which is lost, and the next, "
                    f"got {following - sent:.1f} s"
                )

    @check("tells of each loss", 2)
    def tells(self, trial: Trial) -> None:
        run = self.run(trial)
        lost = len(_lost(run))
        told = len(re.findall(r"(?im)^.*(?:timed?[ -]?out|lost).*$", run.output))
        # A summary may have one more line.
        if told not in (lost, lost + 1):
            raise Wrong(f"expected {lost} lines that tell of a time-out or a loss, got {told}")

    @check("prints each round trip", 2)
    def round_trips(self, trial: Trial) -> None:
        """In seconds or milliseconds; a summary may have some more."""
        run = self.run(trial)
        came = sum(row["event"] == "replied" for row in run.rows)
        told = sum(_has_round_trip(line) for line in run.output.splitlines())
        if not came <= told <= came + 3:
            raise Wrong(
                f"expected {came} lines with a round trip of {_DELAY:g} s or somewhat more "
                f"(the replies were held back for so long), got {told}"
            )

    @check("prints the loss rate")
    def rate(self, trial: Trial) -> None:
        run = self.run(trial)
        rate = 100 * len(_lost(run)) / max(1, len(_arrivals(run)))
        told = re.findall(r"(\d+(?:\.\d+)?)\s*%", run.output)
        if not any(abs(float(each) - rate) <= 1 for each in told):
            got = f"{told[-1]} %" if told else "no percentage"
            raise Wrong(f"expected a loss of {rate:.0f} %, as the record has it, got {got}")

    ends = _run("ends with status 0", 1, _ends, _succeeds)


def _arrivals(run: Run) -> list[float]:
    return [row["time"] for row in run.rows if row["event"] == "received"]


def _lost(run: Run) -> set[int]:
    return {row["number"] for row in run.rows if "lost" in row.get("actions", ())}


def _has_round_trip(line: str) -> bool:
    numbers = [float(each) for each in re.findall(r"\d+\.?\d*", line)]
    return any(_DELAY * 0.99 <= n < 1 or _DELAY * 990 <= n < 1000 for n in numbers)


_WORDS: Final = ("alpha", "bravo", "charlie", "delta", "echo", "foxtrot", "golf", "hotel")

_ALL: Final = UDP_PRESETS["stop-and-wait"].settings


def _delivers(run: Run) -> None:
    """Expect each line once and in order, and that the service has seen each."""
    wanted = [word.upper() for word in _WORDS]
    # Whatever stands beside the words: numbers, prompts, how often each was sent.
    got = [line for line in map(str.strip, run.output.splitlines()) if line]
    if len(got) != len(wanted) or not all(
        word in line.split() for line, word in zip(got, wanted, strict=True)
    ):
        shown = ", ".join(got)
        shown = shown if len(shown) <= 120 else f"{shown[:120]}…"
        end = " and had to be killed" if run.status is None else ""
        complaint = f": {run.complaint}" if run.complaint else ""
        raise Wrong(
            f"expected the lines {wanted[0]} to {wanted[-1]}, once and in order, got "
            f"{shown or 'nothing'}{end}{complaint}"
        )
    seen = "".join(row["data"] for row in run.rows if row["event"] == "replied")
    for word in wanted:
        if word not in seen:
            raise Wrong(f"expected that {word} comes from the service, which has never sent it")
    _ends(run)


class _StopAndWait:
    # With it each check meets, both ways, what it is about: bits are flipped in words, and others
    # so that what comes is no text.
    seed: int = 578
    seconds: float = 60.0
    quiet: float = 15.0

    def run(self, trial: Trial, **options: str) -> Run:
        text = "".join(f"{word}\n" for word in _WORDS)
        lab = {"options": options, "seed": self.seed} if options else {}
        return trial.client(True, text, seconds=self.seconds, quiet=self.quiet, **lab)

    plain = _run("without trouble", 2, _delivers)
    loss = _run("loss in both directions", 3, _delivers, loss="both:0.2")
    duplicates = _run("duplicates in both directions", 2, _delivers, duplicate="both:0.5")
    corruption = _run("corruption in both directions", 3, _delivers, corrupt="both:0.2")
    # Some round trips take longer than any time-out for this lab: copies of replies come.
    late = _run(
        "replies later than its time-out", 2, _delivers,
        delay="reply:100ms", reorder="reply:0.3", loss="0.1",
    )  # fmt: skip
    everything = _run("all of it", 3, _delivers, **_ALL)

    @check("sends no more than it must", 2)
    def economy(self, trial: Trial) -> None:
        """With the lab's round trips of up to 300 ms; half as many again as lines are the slack."""
        run = self.run(trial, **_ALL)
        _delivers(run)
        sent = len(_arrivals(run))
        key = list(answer_key(make_experiment(_ALL, seed=self.seed), sent))
        needed = len(_WORDS) + sum(not _unharmed(row) for row in key)
        slack = len(_WORDS) // 2
        if sent > needed + slack:
            raise Wrong(
                f"expected at most {needed + slack} transmissions ({len(_WORDS)} lines, "
                f"{needed - len(_WORDS)} that the network harmed, {slack} to spare), got {sent}"
            )


def _unharmed(row: Row) -> bool:
    """Whether this datagram can be the one that delivers a line."""
    return row.request.flip is None and any(
        fate.copies and fate.flip is None for fate in row.replies
    )


CLIENTS: Final = (
    exercise("tcp-client", "reads a line, sends it over TCP, prints the reply, ends")(_TCPClient),
    exercise("udp-client", "reads a line, sends it as a datagram, prints the reply, ends")(
        _UDPClient
    ),
    exercise(
        "udp-pinger", "ten pings, a second for each reply, round trips and loss; 4 of 11 are lost"
    )(_UDPPinger),
    exercise(
        "stop-and-wait", "reads lines; each arrives once and in order, whatever the network does"
    )(_StopAndWait),
)
