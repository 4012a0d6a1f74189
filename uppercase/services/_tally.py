"""The sum of what workers have measured, for the page of metrics that their supervisor serves."""

from typing import Any

from twisted.internet.defer import Deferred

from uppercase.services._metrics import FAMILIES, Snapshot, add_up, counted
from uppercase.services._supervisor import Supervisor
from uppercase.services._worker_process import Worker

_GAUGES = {family.name for family in FAMILIES if family.kind == "gauge"}


class Tally:
    """A `Source` of metrics: what workers last sent, and the counters of those that have ended.

    Args:
        supervisor: whose workers they are.
    """

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor
        self._past: Snapshot = {}
        self._last: dict[Worker, Snapshot] = {}
        supervisor.tally = self

    def take(self, worker: Worker, numbers: Snapshot) -> None:
        """Take a worker's numbers in place of those before."""
        self._last[worker] = numbers

    def forget(self, worker: Worker) -> None:
        """Keep only what an ended worker has counted; what it had is gone with it."""
        last = self._last.pop(worker, {})
        counted = {key: number for key, number in last.items() if key[0] not in _GAUGES}
        self._past = add_up([self._past, counted])

    def start(self) -> None:
        """The workers measure from their own start."""

    def stop(self) -> None:
        """And to their own end."""

    def snapshot(self) -> Snapshot:
        ours: Snapshot = {
            ("workers",): len(self._last),
            ("worker_restarts",): self._supervisor.restarts,
        }
        # What the supervisor counts itself, as it has the sockets.
        looked_at = (dict(counted(each)) for each in self._supervisor.services)
        return add_up([self._past, *self._last.values(), *looked_at, ours])

    def not_ready(self) -> str:
        return self._supervisor.not_ready()

    def ended(self) -> Deferred[Any]:
        return self._supervisor.stopService()
