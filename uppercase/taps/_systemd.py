"""Tells systemd how the process is, for units of `Type=notify`: ready, stopping, and alive.

The protocol (sd_notify(3)) is one datagram of text. The libraries for it are one that nobody has
kept since 2017 and one that needs a compiler.
"""

import os
import socket
from collections.abc import Callable, Mapping
from typing import Any

from twisted.application.service import Service
from twisted.internet.task import LoopingCall


class Notifier(Service):
    """Sends the notices, from when the reactor runs to when a stop begins.

    Args:
        reactor: Twisted's.
        call_when_ready: calls what it is given once clients are served.
        environ: has NOTIFY_SOCKET, and WATCHDOG_USEC where systemd wants to hear that we live.
    """

    def __init__(
        self,
        reactor: Any,
        call_when_ready: Callable[[Callable[[], object]], object],
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        name = environ["NOTIFY_SOCKET"]
        # Of Linux's abstract sockets, which begin with a null byte.
        self._address = "\0" + name[1:] if name.startswith("@") else name
        self._call_when_ready = call_when_ready
        self._beat = LoopingCall(self._tell, "WATCHDOG=1")
        self._beat.clock = reactor
        watched = environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        self._watchdog = int(environ.get("WATCHDOG_USEC", 0)) / 1e6 if watched else 0.0

    def startService(self) -> None:
        """Say that we are ready, once we are."""
        super().startService()
        self._call_when_ready(self._ready)

    def stopService(self) -> None:
        """Say that a stop has begun; from here on systemd's time for it runs."""
        super().stopService()
        if self._beat.running:
            self._beat.stop()
        self._tell("STOPPING=1")

    def _ready(self) -> None:
        self._tell("READY=1")
        if self._watchdog:
            # Twice in the time that systemd allows, as sd_watchdog_enabled(3) recommends.
            self._beat.start(self._watchdog / 2)

    def _tell(self, notice: str) -> None:
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
                told.setblocking(False)
                told.sendto(notice.encode(), self._address)
        except OSError:
            # Whoever started us may be gone; that is no reason to stop serving.
            return
