"""The clock by which a service decides: the reactor's timers, and a time that nobody sets."""

import time
from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.runtime import seconds as wall_seconds
from zope.interface import implementer


@implementer(IReactorTime)
class _SteadyClock:
    """A reactor's timers beside the monotonic clock.

    Whatever a timer was for is decided by the time here: one that a step of the wall's clock has
    brought forward finds nothing to do. What such a step puts off comes late; only a reactor that
    goes by another clock could help that.
    """

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor

    # No method around it: it is read for each message.
    seconds = staticmethod(time.monotonic)

    def callLater(  # noqa: N802
        self, delay: float, callable: Callable[..., Any], *args: object, **kw: object
    ) -> IDelayedCall:
        call: IDelayedCall = self._reactor.callLater(delay, callable, *args, **kw)
        return call

    def getDelayedCalls(self) -> Sequence[IDelayedCall]:  # noqa: N802
        calls: Sequence[IDelayedCall] = self._reactor.getDelayedCalls()
        return calls


def clock_of(reactor: Any) -> Any:
    """Return by what a service under this reactor decides; itself, if that is not the wall's clock.

    `twistd uppercase-tcp` and the like have set their reactor's clock by then, and tests have their
    own; what is left are programs that embed a service, and `.tac` files.
    """
    return _SteadyClock(reactor) if reactor.seconds is wall_seconds else reactor
