"""The supervisor: opens sockets, has worker processes serve them, and replaces those that end.

It accepts and answers nothing itself. A socket that it has opened stays open, with the clients that
wait in it, while workers come and go; so a worker's death costs its own connections, and a reload
none. Twisted's `ProcessMonitor` does not fit: its stop does not wait for the processes, and it
knows neither crash loops nor generations.
"""

import math
import os
import signal
from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, dataclass
from itertools import chain
from typing import Any, Final

from twisted.application.service import Service
from twisted.internet.defer import Deferred, succeed
from twisted.logger import LogLevel

from uppercase.awaiting import CLEANING_UP
from uppercase.core.values import counted
from uppercase.errors import CannotListen
from uppercase.services._stopping import STOP_SIGNALS, CannotStart, exit_with
from uppercase.services._tcp import LAST_WORD, Board
from uppercase.services.base import Repeated, TransformService
from uppercase.services.logs import say
from uppercase.services.metrics import Snapshot, add_up, counts_of, without_gauges
from uppercase.services.worker import RETIRE, STOP, Assignment, State, Worker
from uppercase.tcp.kernel import raise_descriptor_limit

BEAT: Final = 1.0  # Seconds between a worker's signs of life, unless the watchdog looks more often.

_LATE: Final = 2.0  # Seconds without one after which a worker's event loop counts as late.

_START: Final = 30.0
"""Seconds that a worker may take to begin at least, whatever the watchdog's time: on a busy machine
imports take several."""

_LOOKS: Final = 4
"""Looks of the watchdog in its time: a worker that hangs is found at most a quarter of it late."""

PROVEN: Final = 1.0
"""Seconds that a worker must have served to count as one that works. If it were longer, workers
that somebody kills now and then would look like a crash loop."""

QUICK_DEATHS: Final = 5
"""Workers in a row that ended before they were proven, after which the service ends. As long as a
proven one serves, what keeps others from beginning, such as a half-written file, ends nothing."""

_BACK_OFF: Final = (0.0, 0.0, 1.0, 2.0, 4.0, 30.0)
"""Seconds before a worker is replaced, by the number of quick deaths in a row."""

_DESCRIPTORS: Final = 16
"""Of each worker: four pipes, twice as many while a generation takes over and once more for those
that finish, and its sockets. Most systems begin with a limit of 1,024."""

_CRASHED: Final = 3  # The exit status of a service whose workers keep ending.
_OVERTIME: Final = LAST_WORD + CLEANING_UP + 0.5
"""Seconds beyond the drain time after which a worker is taken to hang; what it may have to do then
must fit in, and this process ends after `STOP_GRACE`."""


class Generation:
    """Workers that have begun together, or in each other's place, and what they share."""

    def __init__(self, size: int) -> None:
        self.board = Board.make(size)
        # By number: those that serve, or will; one that has ended is to be replaced.
        self.workers: dict[int, Worker] = {}

    def serving(self) -> list[Worker]:
        return [each for each in self.workers.values() if each.state is State.SERVING]


@dataclass(eq=False)
class Supervisor(Service):
    """Serves services by worker processes.

    Args:
        services: as the options describe them; they are queried and opened, never started.
        program: what a worker runs, before our process's number, at whose end it ends too.
        words: what follows that.
        watchdog: seconds without a sign of life after which a worker is replaced.
        measure: whether workers send their numbers.
    """

    services: Sequence[TransformService]
    reactor: Any
    _: KW_ONLY
    workers: int
    program: Sequence[str]
    words: Sequence[str] = ()
    watchdog: float = math.inf
    measure: bool = False

    def __post_init__(self) -> None:
        # Where the options were read, and will be again.
        self.directory = self._runs_in = os.getcwd()
        self._drain = max(each.settings.drain for each in self.services)
        self.patience = self._drain + _OVERTIME
        self._has_opened = False
        # Invariant: each worker that has not ended is in `_all`; those that serve, or will, are in
        # `_current` or `_fresh` too.
        self._all: set[Worker] = set()
        self._current = Generation(self.workers)
        self._fresh: Generation | None = None
        self._quick_deaths = self._restarts = 0
        self._counted: Snapshot = {}
        self._first_ready: Deferred[None] = Deferred()
        self._stopping: Deferred[None] | None = None
        self._beat = min(BEAT, self.watchdog / _LOOKS)
        self._watch = Repeated(self._look, self.reactor)

    # Starting

    def privilegedStartService(self) -> None:
        self._open()

    def startService(self) -> None:
        super().startService()
        self._open()
        STOP_SIGNALS.take(self, self.reactor, self._drain)
        self.reactor.callWhenRunning(self._begin)

    def _open(self) -> None:
        if self._has_opened:
            return
        raise_descriptor_limit(_DESCRIPTORS * self.workers)
        try:
            for service in self.services:
                service.open_sockets(self.workers)
        except CannotListen as error:
            self._release()
            raise CannotStart(str(error)) from error
        self._has_opened = True

    def _release(self) -> None:
        for service in self.services:
            service.close()

    def _begin(self) -> None:
        # Now, as it may be gone when a worker is replaced.
        self._runs_in = os.getcwd()
        # Under nohup it is ignored, and stays so.
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
            signal.signal(signal.SIGHUP, lambda *_: self.reactor.callFromThread(self.reload))
        self._watch.start(self._beat, now=False)
        self._spawn_all(self._current)

    def _spawn_all(self, generation: Generation) -> None:
        for number in range(self.workers):
            self._spawn(number, generation)

    def _spawn(self, number: int, generation: Generation) -> None:
        assignment = Assignment(
            number=number,
            workers=self.workers,
            beat=self._beat,
            measure=self.measure,
            reactor=type(self.reactor).__module__,
            directory=self._runs_in,
            places=[each.places() for each in self.services],
            sockets=[[place.place for place in each.opened] for each in self.services],
        )
        opened = chain(*(each.opened for each in self.services))
        sockets = [each.sockets[number % len(each.sockets)].fileno() for each in opened]
        worker = generation.workers[number] = Worker(number, self)
        self._all.add(worker)
        worker.spawn(assignment, [generation.board.descriptor, *sockets])

    def call_when_ready(self, call: Callable[[], object]) -> None:
        """Call once all workers serve, for the first time."""
        self._first_ready.addCallback(lambda _: call())

    # What workers tell

    def ready(self, worker: Worker, served: list[list[str]]) -> None:
        worker.since = self.reactor.seconds()
        if self._fresh is not None and self._serves(self._fresh):
            old, self._current, self._fresh = self._current, self._fresh, None
            self._quick_deaths = 0  # They were of the old ones.
            self._retire(old)
            text = f"reloaded: served by {counted(self.workers, 'new worker')}; the old ones finish"
            say(text, event="reloaded", count=self.workers)
        if not self._first_ready.called and self._serves(self._current):
            for service, addresses in zip(self.services, served, strict=True):
                service.announce(addresses)
            say(f"served by {counted(self.workers, 'worker')}")
            self._first_ready.callback(None)

    def _serves(self, generation: Generation) -> bool:
        return len(generation.serving()) == self.workers

    def ended(self, worker: Worker, how: str) -> None:
        """Note that a worker has ended, and see to it that others serve."""
        self._all.discard(worker)
        self._counted = add_up([self._counted, without_gauges(worker.numbers)])
        if self._stopping is not None:
            self._end_if_alone(self._stopping)
        elif self._fresh is not None and worker in self._fresh.workers.values():
            self._not_reloaded(how)
        elif worker in self._current.workers.values():
            self._replace(worker, how)

    def _replace(self, worker: Worker, how: str) -> None:
        current = self._current
        current.board.clear(worker.number)
        count = 0 if self._is_proven(worker) else min(self._quick_deaths + 1, QUICK_DEATHS)
        self._quick_deaths = count
        others = self._first_ready.called and any(map(self._is_proven, current.serving()))
        if count == QUICK_DEATHS and not others:
            current.workers.clear()  # They are not replaced: the reactor is about to stop.
            say(
                f"{QUICK_DEATHS} workers in a row have ended as soon as they had begun; the last "
                f"one: {how}",
                LogLevel.critical,
                event="gave-up",
                how=how,
            )
            exit_with(_CRASHED)
            self.reactor.stop()
            return
        self._restarts += 1
        delay = _BACK_OFF[count]
        when = f" in {delay:g} s" if delay else ""
        text = f"{worker} has ended: {how}; a new one is started{when}"
        say(text, LogLevel.error, event="worker-ended", worker=worker.number + 1, how=how)
        self.reactor.callLater(delay, self._respawn, worker.number, current)

    def _is_proven(self, worker: Worker) -> bool:
        return bool(self.reactor.seconds() - worker.since >= PROVEN)

    def _respawn(self, number: int, generation: Generation) -> None:
        if self._stopping is None and generation is self._current:
            self._spawn(number, generation)

    # Reloading

    def reload(self) -> None:
        """Start workers with everything as it is now; they take over when all of them serve."""
        if self._stopping is None:
            self._retire(self._fresh)
            self._fresh = None
            try:
                self._fresh = Generation(self.workers)
                self._spawn_all(self._fresh)
            except OSError as error:  # Such as for want of a descriptor or of memory.
                self._not_reloaded(error.strerror or str(error))

    def _not_reloaded(self, how: str) -> None:
        self._retire(self._fresh)
        self._fresh = None
        text = f"not reloaded, the old workers go on: {how}"
        say(text, LogLevel.error, event="not-reloaded", how=how)

    def _retire(self, generation: Generation | None) -> None:
        """Have a generation finish that does not serve, or no longer has to."""
        if generation is not None:
            generation.board.close()
            for worker in generation.workers.values():
                worker.give_up()
                worker.end(RETIRE)

    # Ending

    def _look(self) -> None:
        """Count how long workers have given no sign of life; replace those that hang."""
        for worker in self._all:
            # Counted in looks, not by a clock, as this process may have been stopped itself.
            worker.silent += self._beat
            if worker.state not in (State.STARTING, State.SERVING):
                continue
            limit = max(self.watchdog, _START if worker.state is State.STARTING else 0)
            if worker.silent > limit:
                say(
                    f"{worker} hangs: no sign of life for {limit:g} s (--watchdog); this is where:",
                    LogLevel.error,
                    event="worker-hangs",
                    worker=worker.number + 1,
                )
                worker.state = State.ENDING  # Told of once, even if it takes a second to end.
                worker.since = -math.inf  # It is none that has ended as soon as it had begun.
                worker.kill()

    def stopService(self) -> Deferred[None]:
        super().stopService()
        if self._stopping is not None or not self._has_opened:
            return self._stopping or succeed(None)
        stopping = self._stopping = Deferred()
        # First: the last process to close a socket has to serve its queue, so that must be a
        # worker.
        self._release()
        self._watch.end()
        # The old ones serve the clients that wait.
        for worker in self._fresh.workers.values() if self._fresh else ():
            worker.give_up()
        for worker in self._all:
            worker.end(STOP)
        self._end_if_alone(stopping)
        return stopping

    def _end_if_alone(self, stopping: Deferred[None]) -> None:
        if not self._all:
            STOP_SIGNALS.release(self, self.reactor)
            say("all workers have ended")
            stopping.callback(None)

    # What a page of metrics shows

    def snapshot(self) -> Snapshot:
        numbers = [each.numbers for each in self._all if each.numbers]
        ours: Snapshot = {("workers",): len(numbers), ("worker_restarts",): self._restarts}
        # What this process counts itself, because it has the sockets.
        looked_at = (dict(counts_of(each)) for each in self.services)
        return add_up([self._counted, *numbers, *looked_at, ours])

    def not_ready(self) -> str:
        if self._stopping is not None:
            return "draining"
        serving = self._current.serving()
        says = ("overloaded" if each.silent > _LATE else each.not_ready for each in serving)
        return min(says, default="not started")
