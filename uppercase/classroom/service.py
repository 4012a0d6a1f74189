"""A service of our own on a free port, for one program: with a lab, and its record in memory."""

import io
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final, Self

from twisted.internet.task import LoopingCall

from uppercase import lab as labs
from uppercase.awaiting import Waiter
from uppercase.classroom.record import Recorder, Row, read_record
from uppercase.core.framing import AUTO
from uppercase.errors import CannotListen, UnknownName, UserError, suggest
from uppercase.services import TCPService, TCPSettings, UDPService, UDPSettings
from uppercase.services._base import clock_of

HOST: Final = "127.0.0.1"

_BEAT: Final = 0.05  # Seconds between two looks at how late the event loop is.


class Exhibit:
    """A service on loopback while the `with` block lasts, and all that it saw.

    The block is not in the reactor's thread.

    Attributes:
        late: seconds by which a reply was late at worst, because the machine had other work.
    """

    def __init__(
        self,
        *,
        udp: bool,
        transforms: Sequence[str] = ("uppercase",),
        port: int = 0,
        lab: str | None = None,
        options: Mapping[str, str] | None = None,
        seed: int | None = None,
    ) -> None:
        from twisted.internet import reactor

        self.port = port
        self.late = 0.0
        self._file = io.BytesIO()
        self._beat = LoopingCall(self._look)
        protocol = "UDP" if udp else "TCP"
        known = labs.UDP_OPTIONS if udp else labs.TCP_OPTIONS
        for name in options or {}:
            if name not in known:
                raise UnknownName(f"the lab of {protocol} has no --{name}{suggest(name, known)}")
        seed = labs.new_seed() if seed is None else seed
        presets = labs.UDP_PRESETS if udp else labs.TCP_PRESETS
        texts = labs.merge_settings(lab, options or {}, presets)
        about = {
            "protocol": protocol,
            "transform": "|".join(transforms),
            "lab": labs.command_line(texts, seed=seed if udp and texts else None),
        }
        self._recorder = Recorder(self._file, about, clock=clock_of(reactor).seconds)
        shared: dict[str, Any] = {
            "transforms": tuple(transforms),
            "interfaces": (HOST,),
            "port": port,
            "drain": 1.0,
            "observers": (self._recorder,),
        }
        self._service: UDPService | TCPService
        if udp:
            experiment = labs.make_experiment(texts, seed=seed) if texts else None
            self._service = UDPService(UDPSettings(**shared, lab=experiment), reactor)
        else:
            shared["framing"] = texts.pop("framing", AUTO)
            shared["lab"] = labs.make_tcp_lab(texts)
            self._service = TCPService(TCPSettings(**shared), reactor)

    def __enter__(self) -> Self:
        Waiter(()).wait_for(self._start())
        return self

    def __exit__(self, *raised: object) -> None:
        Waiter(()).wait_for(self._stop())

    async def _start(self) -> None:
        try:
            self._service.listen()
        except CannotListen as error:
            raise UserError(str(error)) from error
        self.port = int(self._service.served()[0].rpartition(":")[2])
        self._due = time.monotonic()
        self._beat.start(_BEAT)

    def _look(self) -> None:
        now = time.monotonic()
        self.late, self._due = max(self.late, now - self._due), now + _BEAT

    async def _stop(self) -> None:
        """Stop listening and end all connections within a second."""
        self._look()
        self._beat.stop()
        await self._service.end()
        self._recorder.flush()

    @property
    def recorded(self) -> int:
        """How large the record is by now: what does not grow is silent."""
        return self._file.tell()

    def record(self) -> bytes:
        return self._file.getvalue()

    def seen(self) -> tuple[Row, list[Row]]:
        return read_record(self.record().splitlines(keepends=True))[:2]
