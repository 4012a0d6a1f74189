"""Stop-and-wait: lines that arrive once and in order, whatever the network does.

The program reads lines from standard input, sends each as it likes, with numbers and checksums of
its own, to a service that upper-cases, and prints what came back of it: each line upper-cased,
once, in order. How often it may send is what the lab's answer key makes necessary: a line needs one
datagram whose request and reply arrive unharmed, and each that does not is one more. (One flipped
bit in a letter may be its case, which upper-casing heals; it counts as harmed nonetheless.)
"""

from collections.abc import Sequence
from typing import Final

from uppercase.classroom.grade import Run, Trial, Wrong, check, exercise
from uppercase.lab import UDP_PRESETS, Row, answer_key, make_experiment

_WORDS: Final = ("alpha", "bravo", "charlie", "delta", "echo", "foxtrot", "golf", "hotel")

_ALL: Final = UDP_PRESETS["stop-and-wait"].settings


_SEED: Final = 578
"""One with which every check meets, both ways, what it is about, within a few datagrams: bits are
flipped in words, and others so that what comes is no text."""


class _StopAndWait:
    seed: int = _SEED
    seconds: float = 60.0
    quiet: float = 15.0

    def run(self, trial: Trial, **options: str) -> Run:
        text = "".join(f"{word}\n" for word in _WORDS)
        lab = {"options": options, "seed": self.seed} if options else {}
        return trial.client(True, text, seconds=self.seconds, quiet=self.quiet, **lab)

    @check("without trouble", 2)
    def plain(self, trial: Trial) -> None:
        _delivers(self.run(trial))

    @check("loss in both directions", 3)
    def loss(self, trial: Trial) -> None:
        _delivers(self.run(trial, loss="both:0.2"))

    @check("duplicates in both directions", 2)
    def duplicates(self, trial: Trial) -> None:
        _delivers(self.run(trial, duplicate="both:0.5"))

    @check("corruption in both directions", 3)
    def corruption(self, trial: Trial) -> None:
        _delivers(self.run(trial, corrupt="both:0.2"))

    @check("replies later than its time-out", 2)
    def late(self, trial: Trial) -> None:
        """Some round trips take longer than any time-out for this lab: copies of replies come."""
        _delivers(self.run(trial, delay="reply:100ms", reorder="reply:0.3", loss="0.1"))

    @check("all of it", 3)
    def everything(self, trial: Trial) -> None:
        _delivers(self.run(trial, **_ALL))

    @check("sends no more than it must", 2)
    def economy(self, trial: Trial) -> None:
        """With the lab's round trips of up to 300 ms; half as many again as lines are the slack."""
        run = self.run(trial, **_ALL)
        _delivers(run)
        sent = _sent(run)
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


def _sent(run: Run) -> int:
    return sum(row["event"] == "received" for row in run.rows)


def _delivers(run: Run) -> None:
    """Expect each line once and in order, and that the service has seen each."""
    wanted = [word.upper() for word in _WORDS]
    # Whatever stands beside the words: numbers, prompts, how often each was sent.
    got = [line for line in map(str.strip, run.output.splitlines()) if line]
    if len(got) != len(wanted) or not _in_order(got, wanted):
        end = " and had to be killed" if run.status is None else ""
        complaint = f": {run.complaint}" if run.complaint else ""
        raise Wrong(
            f"expected the lines {wanted[0]} to {wanted[-1]}, once and in order, got "
            f"{_shown(got)}{end}{complaint}"
        )
    seen = "".join(row["data"] for row in run.rows if row["event"] == "replied")
    for word in wanted:
        if word not in seen:
            raise Wrong(f"expected that {word} comes from the service, which has never sent it")
    if run.status is None:
        raise Wrong("expected that it ends, got a program that had to be killed")


def _in_order(lines: Sequence[str], words: Sequence[str]) -> bool:
    return all(word in line.split() for line, word in zip(lines, words, strict=True))


def _shown(lines: Sequence[str]) -> str:
    text = ", ".join(lines)
    return (text if len(text) <= 120 else f"{text[:120]}…") or "nothing"


STOP_AND_WAIT: Final = exercise(
    "stop-and-wait", "reads lines; each arrives once and in order, whatever the network does"
)(_StopAndWait)
