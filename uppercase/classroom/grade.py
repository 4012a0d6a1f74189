"""The grader: a student's program on trial, a check at a time, each with points and a sentence.

An exercise is a class with `@exercise` whose methods with `@check` raise `Wrong` where a program
does not do what it should. Its annotated attributes are its options, which a TOML file may set.
What becomes of the marks is `uppercase.classroom.marks`; the exercises themselves, and how others
are found, are in `uppercase.classroom.exercises`.
"""

import errno
import itertools
import socket
import time
from collections import ChainMap
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from math import inf
from threading import Event, Lock
from typing import Any, Final, NamedTuple

from uppercase.classroom.captive import ObservedService, Program, listens
from uppercase.classroom.record import Row
from uppercase.classroom.timeline import Timeline
from uppercase.core.values import printable
from uppercase.errors import PluginError, UserError, kind_of, suggest
from uppercase.limits import MIB

_GLANCE: Final = 0.25  # Seconds between two looks at whether a client's silence is over.

_STARTS_WITHIN: Final = 20.0
"""Seconds in which a client has sent something, a Java program on a busy machine too."""

_PORT_FREE_WITHIN: Final = 65.0
_PORTS: Final = range(20_000, 32_000)
"""Ports for programs on trial: below those that systems give out for port 0, so that nobody gets
one between our look and the program's `bind`, and is taken for it."""
_turns: Final = itertools.count()

_TRIES: Final = 3  # How often a starved run is repeated.

STARVED: Final = 0.35
"""Seconds by which our service may be late: half of what a program can spare that waits a second
for replies that the exercises hold back for at most 0.3 s."""

RECORD: Final = 8 * MIB
"""Bytes of a run's record: some 40,000 events, which a flood has within seconds, and then is over.
What is read of them takes six times as much memory, and an exercise may have six runs."""

DRAWN: Final = 1000
"""Events of a run that its picture shows, the first of more: one of a flood has a quarter of a
gibibyte, and no reader."""


class Wrong(Exception):
    """A check's expectation that was not met, as one sentence."""


class Run(NamedTuple):
    """A client's run against a service of ours.

    Attributes:
        complaint: the last line of its standard error.
        status: its exit status; None if it had to be killed.
        rows: the service's record.
        late: seconds by which our service was late at worst, infinite if a run was in the way.
    """

    output: str
    complaint: str
    status: int | None
    rows: Sequence[Row]
    timeline: Timeline
    late: float


@dataclass
class Trial:
    """One program on trial, as one check sees it; the copies share what all checks have in common.

    Args:
        command: it and its arguments, with `{host}` and `{port}`.
        port: the one that it has fixed; 0 for a free one.

    Attributes:
        timeline: the picture of the check's run, as far as there is one.
        late: how late our service was in it.
        alone: whether no other check is made meanwhile.
    """

    command: Sequence[str]
    port: int = 0
    timeline: Timeline | None = None
    late: float = 0.0
    alone: bool = False
    # What the checks, each in a thread of its own, have in common.
    _lock: Lock = field(default_factory=Lock)
    _over: Event = field(default_factory=Event)
    _unserved: list[str] = field(default_factory=list)
    _silent: list[Run] = field(default_factory=list)
    _runs: dict[str, tuple[Lock, list[Run]]] = field(default_factory=dict)
    _programs: set[Program] = field(default_factory=set)

    @contextmanager
    def server(self, kind: str) -> Iterator[Program]:
        """Run the program as a server of `tcp` or `udp`, anew for each check, or raise `Wrong`."""
        if self._unserved:
            raise Wrong(self._unserved[0])
        self.timeline = Timeline({"protocol": kind.upper()})
        with (
            socket.socket(socket.AF_UNIX) as claim,
            self._program(self._take_port(kind, claim)) as program,
        ):
            if program.serves(kind):
                yield program
                return
            words = program.last_words()
        self._unserved.append(
            f"expected a server on {kind.upper()} port {program.port}; nobody listens there "
            f"(--port is for a fixed port), and the program's last words are: {words}"
        )
        raise Wrong(self._unserved[0])

    def _take_port(self, kind: str, claim: socket.socket) -> int:
        """Return a port for the program, which is no other grader's while the claim is open."""
        # The last check's connections are forgotten after a minute (TIME_WAIT, which UDP has not).
        waits = kind == "tcp" and not listens(self.port, kind)
        deadline = time.monotonic() + waits * _PORT_FREE_WITHIN
        while _is_taken(port := self.port or _PORTS[next(_turns) % len(_PORTS)], kind, claim):
            if self.port and self._over.wait(0.1):
                break
            if self.port and time.monotonic() > deadline:
                raise UserError(
                    f"cannot grade a server on {kind.upper()} port {port}: another program has it; "
                    "stop that, such as a twistd of yours"
                )
        return port

    def note(self, rows: Sequence[Row]) -> None:
        """Add what a client of ours saw to the check's timeline."""
        if self.timeline is not None:
            self.timeline.clients.update(Timeline.of({}, rows).clients)

    def client(
        self, udp: bool, text: str, *, seconds: float, quiet: float = 0.0, **lab: Any
    ) -> Run:
        """Run the program as a client of a service, with a text to read from standard input.

        Checks that ask for the same get the same run. One in which our service was late, because
        the machine had other work, or that another was in the way of, is repeated where the check
        is made alone.

        It is killed after `seconds`, and when nothing has come or gone for `quiet` seconds or it
        does not begin; 0 is for programs that may be silent. The lab is `lab`, `options` and `seed`
        of an `ObservedService`.
        """
        key = repr((udp, text, sorted(lab.items())))
        lock, runs = self._runs.setdefault(key, (Lock(), []))
        with lock:
            while not runs or (self.alone and runs[-1].late > STARVED and len(runs) <= _TRIES):
                runs.append(self._run(udp, text, seconds, quiet, lab))
            run = runs[-1]
        self.timeline, self.late = run.timeline, max(self.late, run.late)
        return run

    def _run(
        self, udp: bool, text: str, seconds: float, quiet: float, lab: Mapping[str, Any]
    ) -> Run:
        service = ObservedService(udp=udp, port=self.port, limit=RECORD, **lab)
        if self._silent:
            return self._silent[0]._replace(timeline=Timeline.of(*service.seen()))
        with service, self._program(service.port, text) as program:
            status = _wait(program, service, seconds, quiet)
            said = program.output(), program.complaint()
        about, rows = service.seen()
        if len(rows) > DRAWN:
            shown = f"the first {DRAWN} of {len(rows)} events"
            about = {**about, "lab": " · ".join(filter(None, [about["lab"], shown]))}
        timeline = Timeline.of(about, rows[:DRAWN])
        # Another check's run may have had a port that is fixed for its own end.
        disturbed = not self.alone and "in use" in said[1]
        run = Run(*said, status, rows, timeline, inf if disturbed else service.late)
        if status is None and not run.rows and run.late <= STARVED:
            # It has met nothing of the network that could differ another time.
            self._silent.append(run)
        return run

    @contextmanager
    def _program(self, port: int, typed: str | None = None) -> Iterator[Program]:
        with Program(self.command, port, typed) as program:
            with self._lock:
                self._programs.add(program)
                if self._over.is_set():
                    raise Wrong("it was interrupted")
            try:
                yield program
            finally:
                with self._lock:
                    self._programs.remove(program)

    def interrupt(self) -> None:
        """End what runs and start nothing more: nobody waits for the marks."""
        with self._lock:
            self._over.set()
            for program in self._programs:
                program.interrupt()


def _wait(program: Program, service: ObservedService, seconds: float, quiet: float) -> int | None:
    """Return a client's exit status, None if it has to be killed."""
    now = begin = last = time.monotonic()
    size = service.recorded
    silence = max(quiet, _STARTS_WITHIN)
    while now < begin + seconds and not (service.full or (quiet and now > last + silence)):
        left = begin + seconds - now
        if (status := program.wait(min(left, _GLANCE) if quiet else left)) is not None:
            return status
        now = time.monotonic()
        if service.recorded > size:
            size, last, silence = service.recorded, now, quiet
    return None


@dataclass(frozen=True)
class Check:
    """One thing that a program does right, or the exercise's method raises `Wrong`."""

    name: str
    points: int
    examine: Callable[[Any, Trial], None]

    def __post_init__(self) -> None:
        if type(self.points) is not int or self.points < 0:
            got = f"points of {self.name!r}: got {self.points!r}"
            raise UserError(f"{got}; a whole number is accepted")


@dataclass(frozen=True)
class Exercise:
    """What a program has to do; `subject` is an instance of the decorated class."""

    name: str
    summary: str
    checks: Sequence[Check]
    subject: Any

    def changed(
        self,
        name: str,
        *,
        summary: str = "",
        points: Mapping[str, Any] = {},
        texts: Mapping[str, Any] = {},
        options: Mapping[str, Any] = {},
    ) -> "Exercise":
        """Return it with other points, texts and options, which name checks and attributes."""
        known = [check.name for check in self.checks]
        for each in (*points, *texts):
            if each not in known:
                raise UserError(f"{self.name} has no check {each!r}{suggest(each, known)}")
        checks = [
            Check(printable(str(texts.get(each.name, each.name))), worth, each.examine)
            for each in self.checks
            # What is worth nothing is left out: it would only cost time.
            if (worth := points.get(each.name, each.points)) != 0
        ]
        if not checks:
            raise UserError("got 0 points for each check; one that is worth some is needed")
        return Exercise(name, summary or self.summary, checks, self._subject(options))

    def _subject(self, options: Mapping[str, Any]) -> Any:
        known = {each.name for each in fields(self.subject)}
        for option, value in options.items():
            if option not in known:
                raise UserError(f"{self.name} has no option {option!r}{suggest(option, known)}")
            wanted = type(getattr(self.subject, option))
            if type(value) is not wanted and (wanted, type(value)) != (float, int):
                raise UserError(f"option {option}: got {value!r}; {wanted.__name__} is accepted")
            # None of them means that there is no limit.
            if option in ("seconds", "quiet", "pings") and not value > 0:
                raise UserError(f"option {option}: got {value!r}; a positive number is accepted")
        return replace(self.subject, **options)


def check(name: str, points: int = 1) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Make a method of an exercise's class one of its checks."""

    def decorate(method: Callable[..., None]) -> Callable[..., None]:
        method.__dict__["check"] = Check(name, points, method)
        return method

    return decorate


def exercise(name: str, summary: str) -> Callable[[type], Exercise]:
    """Make an exercise of a class whose methods are checks, in their order.

    Its annotated attributes are its options and have defaults; a base with some is a dataclass.
    """

    def decorate(kind: type) -> Exercise:
        # By name, so that a class may replace a check of its base.
        methods = ChainMap(*({**vars(base)} for base in kind.__mro__)).values()
        found = [getattr(method, "check", None) for method in methods]
        checks = [each for each in found if isinstance(each, Check)]
        subject: Any = dataclass(frozen=True)(kind)
        return Exercise(name, summary, checks, subject())

    return decorate


@dataclass(frozen=True)
class Mark:
    """The outcome of one check; `sentence` says what was expected and got, if it has not passed.

    It is `starved` where the machine had so much other work that this may be wrong.
    """

    check: Check
    passed: bool
    sentence: str
    seconds: float
    starved: bool
    timeline: Timeline | None = field(default=None, repr=False)

    @property
    def points(self) -> int:
        return self.check.points if self.passed else 0


def grade(exercise: Exercise, trial: Trial, jobs: int = 1) -> Iterator[Mark]:
    """Make the checks, some at a time; return their outcomes in order, each as soon as it is known.

    One whose run was starved is made again, alone.

    Raises:
        PluginError: a check failed by itself, which is not the program's fault.
    """
    with ThreadPoolExecutor(1 if trial.port else jobs) as pool:
        try:
            made = [pool.submit(_examine, exercise, each, trial) for each in exercise.checks]
            for future in made:
                mark = future.result()
                if mark.starved:
                    wait(made)
                    mark = _examine(exercise, mark.check, replace(trial, alone=True))
                yield mark
        except BaseException:
            trial.interrupt()
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _examine(exercise: Exercise, check: Check, trial: Trial) -> Mark:
    trial = replace(trial)
    begin = time.monotonic()
    sentence = ""
    try:
        check.examine(exercise.subject, trial)
    except Wrong as wrong:
        sentence = printable(str(wrong)) or "it does not"
    except UserError:
        raise
    except (Exception, SystemExit) as error:
        raise PluginError(
            f"the check {check.name!r} of {exercise.name} failed by itself, not the program: "
            f"{kind_of(error)}"
        ) from error
    seconds, starved = time.monotonic() - begin, trial.late > STARVED
    return Mark(check, not sentence, sentence, seconds, starved, trial.timeline)


def _is_taken(port: int, kind: str, claim: socket.socket) -> bool:
    """Return whether somebody has a port, on any address: that would be taken for the program.

    Else it is claimed from other graders, whose programs may not listen yet.
    """
    if listens(port, kind):
        return True
    with socket.socket(type=socket.SOCK_DGRAM if kind == "udp" else socket.SOCK_STREAM) as probe:
        try:
            probe.bind(("", port))
            claim.bind(f"\0uppercase grade {kind} {port}")
        except OSError as error:
            return error.errno == errno.EADDRINUSE
    return False
