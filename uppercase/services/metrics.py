"""What is measured of the services of one process, and how it is summed and shown to Prometheus.

A service counts its events anyway; `Measurements` adds what only metrics need: the time and size of
each call of a transform, by stages of a chain that measure, and the reactor's lag. Nothing of it
runs where there are no metrics.

A `Snapshot` is plain numbers by plain keys, all of which may be added, gauges too. So processes
send theirs to one that serves the sum (`add_up`); the keys and numbers pass through JSON as lists.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from inspect import isawaitable
from time import perf_counter
from types import SimpleNamespace
from typing import Any, Final, NamedTuple, cast

from twisted.application.service import Service
from twisted.internet.defer import gatherResults, inlineCallbacks
from zope.interface import alsoProvides, implementer

from uppercase.core.events import DropReason, Outcome, RefusalReason
from uppercase.core.pipeline import Stage
from uppercase.interfaces import IStreamTransform, ITransform, ITransformStream
from uppercase.services.base import Repeated, TransformService

Snapshot = dict[tuple[str, ...], float]
"""Numbers by family and values of its labels; those of histograms by bound, and "sum", as well."""


class Family(NamedTuple):
    """Metrics of one name, which begins with `uppercase_` where it is shown.

    Attributes:
        name: as in snapshots, a counter's without `_total`.
        by: its labels beside the service; with None not even that. No peer can choose their values.
        counts: the word by which `Counters` count it.
    """

    name: str
    help: str
    by: str | None = ""
    counts: str = ""
    kind: str = "counter"

    @property
    def labels(self) -> tuple[str, ...]:
        return () if self.by is None else ("service", *self.by.split())


FAMILIES: Final = (
    Family("connections", "TCP connections that were let in.", "", "opened"),
    Family("connections_open", "TCP connections that are open.", kind="gauge"),
    Family("connections_closed", "TCP connections that ended, by outcome.", "outcome", "closed"),
    Family(
        "connections_refused",
        "TCP connections that were not served, by reason.",
        "reason",
        "refused",
    ),
    Family(
        "accept_failures",
        "Times that the system had no descriptor or memory for a connection, by its error.",
        "error",
        "accept-failed",
    ),
    Family("datagrams_received", "Datagrams that came in."),
    Family("datagrams_answered", "Replies that the system took."),
    Family("datagrams_awaited", "Datagrams whose replies are awaited.", kind="gauge"),
    Family(
        "datagrams_dropped",
        "Datagrams without a reply, by reason; without the lab's.",
        "reason",
        "dropped",
    ),
    Family(
        "datagrams_would_drop",
        "Datagrams answered that a dry run would have dropped, by reason.",
        "reason",
        "would-drop",
    ),
    Family("kernel_drops", "Datagrams that the system dropped.", "", "kernel-dropped"),
    Family("messages", "Messages, chunks of a stream, and datagrams to transform."),
    Family(
        "message_bytes",
        "Bytes given to the chain of transforms (in) and given by it (out).",
        "direction",
    ),
    Family(
        "transform_seconds",
        "Seconds that one call of a transform took, waiting for its result included.",
        "transform",
        kind="histogram",
    ),
    Family(
        "transform_failures",
        "Messages that a transform failed on.",
        "transform",
        "transform-failed",
    ),
    Family(
        "slow_calls",
        "Calls of a transform that blocked everybody else for more than 100 ms.",
        "transform",
        "slow-call",
    ),
    Family("lab_actions", "What the lab did on purpose.", "direction action"),
    Family("workers", "Worker processes that serve, with --workers.", None, kind="gauge"),
    Family("worker_restarts", "Workers that ended by themselves and were replaced.", None),
    Family(
        "event_loop_lag_seconds", "How late the event loop's timers were.", None, kind="histogram"
    ),
)
"""All that is exposed; the reference page, the dashboard and the alerts are held to it."""

_GAUGES: Final = {family.name for family in FAMILIES if family.kind == "gauge"}

_COUNTED: Final = {family.counts: family.name for family in FAMILIES if family.counts}

_AT_FIRST: Final[Mapping[str, Mapping[str, Iterable[str]]]] = {
    "TCP": {
        "connections": [""],
        "connections_closed": Outcome,
        "connections_refused": RefusalReason,
    },
    "UDP": {"kernel_drops": [""], "datagrams_dropped": DropReason},
}
"""What may happen, by protocol and family, so that its first time is a rise from 0."""

LAG_LOOK: Final = 0.5  # Seconds between two looks at how late the event loop is.

_LATE: Final = 0.5
"""Seconds of lag beyond which the process counts as overloaded: clients notice a tenth of it."""

_SENT_AWAY: Final = {("refused", RefusalReason.FULL), ("dropped", DropReason.OVERLOADED)}

_OVERLOAD_LASTS: Final = 5.0
"""Seconds that a process stays not ready after it had to turn somebody away: a load balancer asks
every few seconds, and must not come and go with each burst."""


def _name(service: TransformService) -> str:
    return service.name or service.protocol.lower()


def counts_of(service: TransformService) -> Iterator[tuple[tuple[str, ...], float]]:
    """Yield what a service has counted: a family's name with its labels, and the number."""
    name = _name(service)
    for (kind, what), count in service.counters.items():
        if kind in _COUNTED:
            yield (_COUNTED[kind], name, *filter(None, [what])), count
        elif kind.startswith("lab-"):
            yield ("lab_actions", name, kind.removeprefix("lab-"), what), count


class _ServiceMeter:
    def __init__(self, service: TransformService) -> None:
        self.service = service
        self._stages: list[Measured] = []
        self._took: dict[str, Histogram] = {}
        service.chain.wrap_stages(self._measure)

    def _measure(self, stage: Stage) -> Stage:
        took = self._took.setdefault(stage.name, Histogram())
        self._stages.append(Measured(stage.transform, took))
        return Stage(stage.name, self._stages[-1])

    def numbers(self) -> Iterator[tuple[tuple[str, ...], float]]:
        service = self.service
        name = _name(service)
        may_happen = {
            **_AT_FIRST[service.protocol],
            "transform_failures": self._took,
            "slow_calls": self._took,
        }
        for family, words in may_happen.items():
            yield from (((family, name, *filter(None, [word])), 0) for word in words)
        for level, number in service.levels().items():
            yield (level, name), number
        yield from counts_of(service)
        yield ("messages", name), self._stages[0].messages
        yield ("message_bytes", name, "in"), self._stages[0].received
        yield ("message_bytes", name, "out"), self._stages[-1].sent
        for transform, took in self._took.items():
            yield from took.numbers("transform_seconds", name, transform)


class Measurements(Service):
    """Measures the services of this process, from before they are started until they have ended."""

    def __init__(self, services: Sequence[TransformService], reactor: Any) -> None:
        self._services = services
        self._meters = [_ServiceMeter(service) for service in services]
        self._lag = Histogram()
        self._clock = reactor
        self._due = self._overloaded_until = 0.0
        self._pressed = 0
        self._look = Repeated(self._look_at_loop, reactor)

    def startService(self) -> None:
        super().startService()
        self._due = self._clock.seconds() + LAG_LOOK
        self._look.start(LAG_LOOK, now=False)

    @inlineCallbacks
    def stopService(self) -> Any:
        """Stop when everything that is measured has."""
        super().stopService()
        yield gatherResults([service.stopService() for service in self._services])
        self._look.end()

    def snapshot(self) -> Snapshot:
        numbers = dict(self._lag.numbers("event_loop_lag_seconds"))
        for meter in self._meters:
            numbers.update(meter.numbers())
        return numbers

    def not_ready(self) -> str:
        """Return why no more clients should be sent here, in a word or two; "" if they should."""
        for service in self._services:
            if service.phase != "serving":
                return service.phase
        return "overloaded" if self._clock.seconds() < self._overloaded_until else ""

    def _look_at_loop(self) -> None:
        now = self._clock.seconds()
        lag = max(0.0, now - self._due)
        self._lag.observe(lag)
        self._due = now + LAG_LOOK
        pressed = sum(
            count
            for service in self._services
            for (kind, what), count in service.counters.items()
            if kind == "accept-failed" or (kind, what) in _SENT_AWAY
        )
        if lag > _LATE or pressed > self._pressed:
            self._overloaded_until = now + _OVERLOAD_LASTS
        self._pressed = pressed


def add_up(snapshots: Iterable[Snapshot]) -> Snapshot:
    """Return the sum of snapshots, such as those of several processes."""
    total: Counter[tuple[str, ...]] = Counter()
    for snapshot in snapshots:
        # Not `+`, which leaves out zeros. Counters take floats as they take whole numbers.
        total.update(snapshot)
    return dict(total)


def without_gauges(snapshot: Snapshot) -> Snapshot:
    """Return the part of a snapshot that stays true when its process has ended."""
    return {key: number for key, number in snapshot.items() if key[0] not in _GAUGES}


def exposition(snapshot: Snapshot) -> bytes:
    """Return a snapshot as Prometheus reads it, without what only a later version counts."""
    from prometheus_client import generate_latest
    from prometheus_client.core import Metric

    metrics = {
        family.name: Metric(f"uppercase_{family.name}", family.help, family.kind)
        for family in FAMILIES
    }
    names = {family.name: family.labels for family in FAMILIES}
    known = {key: number for key, number in snapshot.items() if key[0] in metrics}
    for (family, *values), number in known.items():
        metric, labels = metrics[family], dict(zip(names[family], values, strict=False))
        if metric.type != "histogram":
            suffixes = ["_total" if metric.type == "counter" else ""]
        elif values[-1] == "sum":
            suffixes = ["_sum"]
        else:
            suffixes = ["_bucket", *(["_count"] if values[-1] == "+Inf" else [])]
        for suffix in suffixes:
            bound = {"le": values[-1]} if suffix == "_bucket" else {}
            metric.add_sample(metric.name + suffix, {**labels, **bound}, number)

    shown = [metric for metric in metrics.values() if metric.samples]
    return generate_latest(SimpleNamespace(collect=lambda: shown))


BOUNDS: Final = (1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
"""Upper bounds of the histograms' buckets, in seconds: a table lookup takes 1e-6, a hung transform
any number, and two a decade show enough."""


class Histogram:
    """How many values were at most as large as each bound, and their sum."""

    def __init__(self) -> None:
        self._counts = [0] * (len(BOUNDS) + 1)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        self._counts[bisect_left(BOUNDS, value)] += 1
        self._sum += value

    def numbers(self, *key: str) -> Iterator[tuple[tuple[str, ...], float]]:
        total = 0
        for bound, count in zip([*map(str, BOUNDS), "+Inf"], self._counts, strict=True):
            total += count
            yield (*key, bound), total
        yield (*key, "sum"), self._sum


@implementer(ITransform)
class Measured:
    """A transform whose calls are measured; a stream's end is not counted."""

    def __init__(self, inner: ITransform, took: Histogram) -> None:
        self._inner: Any = inner
        self._took = took
        self.messages = self.received = self.sent = 0
        if IStreamTransform.providedBy(inner):
            alsoProvides(self, IStreamTransform)

    def transform(self, message: bytes) -> bytes | Awaitable[bytes]:
        result: bytes | Awaitable[bytes] = self.call(self._inner.transform, message)
        return result

    def open_stream(self) -> ITransformStream:
        inner = self._inner.open_stream()
        feed, finish = (partial(self.call, each) for each in (inner.feed, inner.finish))
        return cast(ITransformStream, SimpleNamespace(feed=feed, finish=finish))

    def call(self, function: Callable[..., Any], *data: bytes) -> Any:
        """Call a function of the transform, or of a stream of it."""
        self.messages += len(data)
        self.received += sum(map(len, data))
        started, awaited = perf_counter(), False
        try:
            result = function(*data)
            awaited = not isinstance(result, bytes) and isawaitable(result)
        finally:
            if not awaited:
                self._took.observe(perf_counter() - started)
        if awaited:
            return self._wait(result, started)
        # Anything else is left to the chain, which names the culprit.
        self.sent += len(result) if isinstance(result, bytes) else 0
        return result

    async def _wait(self, result: Awaitable[bytes], started: float) -> bytes:
        try:
            reply = await result
        finally:
            self._took.observe(perf_counter() - started)
        self.sent += len(reply) if isinstance(reply, bytes) else 0
        return reply
