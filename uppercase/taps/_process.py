"""What a process of `twistd` or `twist` needs beside the services that it serves."""

import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from twisted.application.service import IService, MultiService
from twisted.logger import Logger

from uppercase.errors import UserError
from uppercase.services import UDPSettings
from uppercase.taps._systemd import Notifier

if TYPE_CHECKING:
    from uppercase.services._supervisor import Plan


class Page(NamedTuple):
    """What the command line says of the live page.

    Attributes:
        description: where it is.
        shows_key: whether the answer key is on it.
        hosts: names by which browsers reach it.
    """

    description: str
    shows_key: bool
    hosts: tuple[str, ...]


def page_of(description: str | None, shows_key: bool, hosts: tuple[str, ...] | None) -> Page | None:
    """Return what the options say of the page; None if there is none.

    Raises:
        UserError: they say something of a page that there is not.
    """
    if description is not None:
        return Page(description, shows_key, hosts or ())
    if shows_key or hosts:
        option = "--page-key" if shows_key else "--page-host"
        raise UserError(f"got {option} without a page; add one, such as --page=tcp:8080")
    return None


def accompany(
    service: IService, metrics: str | None, plan: "Plan | None", page: Page | None = None
) -> IService:
    """Return the service together with what it needs beside it; itself, if that is nothing.

    Args:
        service: a service, or a `MultiService` of several.
        metrics: where metrics are served, if anywhere.
        plan: by which workers it is served, if not by this process.
        page: the live page, if there is one; the services were made for it.

    Raises:
        UserError: they cannot be served there, or workers cannot serve it.
    """
    from twisted.internet import reactor

    known: Any = reactor
    parts: Any = service if isinstance(service, MultiService) else [service]
    services: list[Any] = list(parts)
    company: list[Any] = []
    call_when_ready = known.callWhenRunning
    supervisor: Any = None
    if plan is not None:
        from uppercase.services._supervisor import Supervisor

        _check_for_workers(services)
        service = supervisor = Supervisor(services, plan, reactor)
        call_when_ready = supervisor.call_when_ready
    if metrics is not None:
        # Here, as they take a tenth of a second to import.
        from uppercase.services._metrics import Measurements
        from uppercase.services._metrics_page import MetricsService

        if supervisor is None:
            source: Any = Measurements(services, reactor)
        else:
            from uppercase.services._tally import Tally

            source = Tally(supervisor)
        company.append(MetricsService(metrics, source, reactor))
    if page is not None:
        from uppercase.classroom.page import PageService

        company.append(
            PageService(
                page.description, services, reactor, shows_key=page.shows_key, hosts=page.hosts
            )
        )
    if "NOTIFY_SOCKET" in os.environ:
        company.append(Notifier(reactor, call_when_ready))
    if not company:
        return service
    together: Any = MultiService()
    for each in [service, *company]:
        each.setServiceParent(together)
    whole: IService = together
    return whole


def check_pid_file(runner: Mapping[str, Any] | None) -> None:
    """Refuse a pid file that twistd could not write, or that another server has.

    It would answer the one with a traceback, and the other without the way out.

    Args:
        runner: twistd's options; those of `twist` have no pid file.

    Raises:
        UserError: it cannot be had.
    """
    name = runner.get("pidfile") if runner else None
    if not runner or not name or runner.get("chroot"):
        return
    path = os.path.join(runner.get("rundir") or ".", name)
    folder = os.path.dirname(path) or "."
    if not os.path.isdir(folder):
        why = f"there is no folder {folder}"
    elif os.path.isdir(path):
        why = "it is a folder"
    elif not os.access(path if os.path.exists(path) else folder, os.W_OK):
        why = "permission denied"
    elif owner := _running(path):
        why = f"the server with the process number {owner} has it"
    else:
        return
    raise UserError(
        f"cannot write the pid file {path} ({why}); name another with --pidfile=FILE before "
        "the service's name, or have none with --pidfile="
    )


def _running(path: str) -> int | None:
    """Return whose number a pid file has, if that process runs; twistd replaces what is stale."""
    try:
        number = int(Path(path).read_text())
    except (OSError, ValueError):
        return None
    try:
        os.kill(number, 0)
    except (ProcessLookupError, OverflowError):
        return None
    except PermissionError:
        pass  # it is another user's
    return number


def _check_for_workers(services: list[Any]) -> None:
    """Refuse what several processes could not do right."""
    for service in services:
        if isinstance(service.settings, UDPSettings) and service.settings.lab is not None:
            raise UserError(
                "got --workers with a lab for datagrams, whose numbers would start anew with each "
                "worker; leave out one of them"
            )
        if service.settings.observers:
            raise UserError(
                "got --workers with --record or --page, which tell of what one process sees; leave "
                "out one of them"
            )


def plan_of(
    workers: int | None, watchdog: float | None, metrics: str | None, tap: str, words: Sequence[str]
) -> "Plan | None":
    """Return by which workers to serve; None if this process serves.

    Args:
        workers: how many; 0 is one for each processor that this process may use.
        watchdog: as `Plan` has it.
        metrics: where they are served, if anywhere.
        tap: the module of the options.
        words: the command line behind the service's name.

    Raises:
        UserError: they cannot be had.
    """
    if watchdog is not None and workers is None:
        raise UserError("got --watchdog without workers to watch; add --workers=2")
    if workers == 0:
        can_tell = hasattr(os, "sched_getaffinity")
        workers = len(os.sched_getaffinity(0)) if can_tell else os.cpu_count() or 1
    if workers is None or (workers == 1 and watchdog is None):
        return None
    if os.name != "posix":
        raise UserError("got --workers, which only POSIX systems have; leave it out")
    from uppercase.services._supervisor import Plan

    return Plan(
        workers=workers,
        command=[sys.executable, "-m", "uppercase.taps._worker", tap, *words],
        directory=os.getcwd(),
        watchdog=watchdog,
        measure=metrics is not None,
    )


def use_monotonic_time() -> None:
    """Have the reactor go by a clock that nobody sets.

    Twisted's goes by the wall's: where that is set forward an hour, every time-out is over at once,
    and where it is set back, none is for an hour. `IReactorTime` does not say by which clock it
    goes, and the process is ours. Programs that embed a service decide for themselves.
    """
    from twisted.internet import reactor

    known: Any = reactor
    # Invariant: nothing is scheduled by the other clock; it would wait for decades.
    if not known.getDelayedCalls():
        known.seconds = time.monotonic
    else:
        Logger("uppercase").warn(
            "a transform's module has scheduled calls while it was imported, so all time-outs go "
            "by the wall's clock; schedule them when the transform is called"
        )
