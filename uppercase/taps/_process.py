"""What a process of `twistd` or `twist` needs beside the services that it serves."""

import os
import time
from typing import Any

from twisted.application.service import IService, MultiService
from twisted.logger import Logger

from uppercase.taps._systemd import Notifier


def accompany(service: IService, metrics: str | None) -> IService:
    """Return the service together with what it needs beside it; itself, if that is nothing.

    Args:
        service: a service, or a `MultiService` of several.
        metrics: where metrics are served, if anywhere.

    Raises:
        UserError: they cannot be served there.
    """
    from twisted.internet import reactor

    company: list[Any] = []
    if metrics is not None:
        # Here, as they take a tenth of a second to import.
        from uppercase.services._metrics import Measurements
        from uppercase.services._metrics_page import MetricsService

        services: Any = service if isinstance(service, MultiService) else [service]
        company.append(MetricsService(metrics, Measurements(list(services), reactor), reactor))
    if "NOTIFY_SOCKET" in os.environ:
        company.append(Notifier(reactor))
    if not company:
        return service
    together: Any = MultiService()
    for each in [service, *company]:
        each.setServiceParent(together)
    whole: IService = together
    return whole


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
