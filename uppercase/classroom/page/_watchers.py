"""Who watches the page and what they send: one frame for all, nothing kept for one that stalls.

A frame of server-sent events is made once, however many watch. A watcher whose connection is full
gets none until it is empty again, and then all that is kept, at once; so the connection's own
buffer is the only queue, and a frame above its high-water mark the most that a watcher holds. One
that takes nothing for `STALLED` seconds is let go; its browser comes back by itself.
"""

import json
from collections.abc import Callable, Sequence
from secrets import token_urlsafe
from typing import Any, Final

from twisted.internet.interfaces import IDelayedCall, IPushProducer
from twisted.web.server import Request
from zope.interface import implementer

from uppercase.core.guards import TokenBuckets
from uppercase.services.base import Repeated

FRAME: Final = 0.25  # Seconds between frames: four a second look like a stream.

FULL_PACE: Final = 100
"""Fewer watchers than this get each frame; of twice as many, each gets one in three, so a class of
200 costs less than 300 writes a second, and not 800."""

STALLED: Final = 15.0
"""Seconds that a watcher may take nothing: a phone that is carried through the hall comes back."""

HEARTBEAT: Final = 10.0
"""Seconds after which something is written even where nothing happens, so that both sides notice
when the other is gone; proxies give up after 30 or more."""

WATCHERS: Final = 256  # How many may watch: a class of 200 with a few second screens.

KEPT_FOR_THIS_MACHINE: Final = 8
"""Further places for watchers on this machine: nobody can take the projector's."""

_TURN: Final = 25
"""Watchers that are written to before others have their turn, so that a frame for 200 delays no
datagram by more than some 2 ms."""

SEND_RATE: Final = 2.0  # Lines a second of one watcher: for more, there are programs.

SEND_BURST: Final = 10.0
"""Lines at once: the ten of the pinger's exercise, as fast as one types Return."""


@implementer(IPushProducer)
class Watcher:
    """One browser that watches, known by a token.

    Attributes:
        stalled_since: when its connection became full; None while it is not.
        ports: those that its lines leave from, by the services that they are for.
    """

    def __init__(self, request: Request, watchers: "Watchers") -> None:
        self.token = token_urlsafe(12)
        self.stalled_since: float | None = None
        self.ports: dict[object, Any] = {}
        self._request: Any = request
        self._watchers = watchers
        self._missed = False
        request.setHeader(b"content-type", b"text/event-stream; charset=utf-8")
        request.notifyFinish().addErrback(lambda _: watchers.forget(self))
        self._request.registerProducer(self, True)

    def push(self, frame: bytes) -> None:
        """Write a frame, or note that it was missed."""
        if self.stalled_since is None:
            self._request.write(frame)
        else:
            self._missed = True

    def pauseProducing(self) -> None:
        self.stalled_since = self._watchers.seconds()

    def resumeProducing(self) -> None:
        self.stalled_since = None
        if self._missed:
            self._missed = False
            self.push(self._watchers.greeting(self))

    def stopProducing(self) -> None:
        """Do nothing: the request tells of the loss, too."""

    def end(self) -> None:
        self._request.channel.transport.abortConnection()


class Watchers:
    """All who watch: a new one is sent a snapshot, and then changes, if there are any."""

    def __init__(
        self,
        snapshot: Callable[[], dict[str, Any]],
        changes: Callable[[], dict[str, Any]],
        clock: Any,
    ) -> None:
        self._snapshot = snapshot
        self._changes = changes
        self._clock = clock
        self.by_token: dict[str, Watcher] = {}
        self.lines = TokenBuckets(SEND_RATE, SEND_BURST, WATCHERS + KEPT_FOR_THIS_MACHINE)
        self._last_write = 0.0
        self._ticks = 0
        self._turn: IDelayedCall | None = None
        self._frames = Repeated(self._frame, clock)

    def __len__(self) -> int:
        return len(self.by_token)

    def seconds(self) -> float:
        return float(self._clock.seconds())

    def have_room(self, *, local: bool) -> bool:
        """Whether one more may watch; there is more room for those on this machine."""
        return len(self.by_token) < WATCHERS + (KEPT_FOR_THIS_MACHINE if local else 0)

    def admit(self, request: Request) -> None:
        # Invariant: what has changed before the first one came is in its snapshot.
        if not self._frames.running:
            self._changes()
            self._frames.start(FRAME, now=False)
        watcher = Watcher(request, self)
        self.by_token[watcher.token] = watcher
        channel: Any = request.channel
        channel.leave_bounds()
        watcher.push(self.greeting(watcher))

    def greeting(self, watcher: Watcher) -> bytes:
        """Return the frame for a watcher that comes, or comes back."""
        return frame("hello", {"you": watcher.token, **self._snapshot()})

    def forget(self, watcher: Watcher) -> None:
        self.by_token.pop(watcher.token, None)
        for port in watcher.ports.values():
            port.stopListening()
        if not self.by_token:
            self._frames.end()

    def stop(self) -> None:
        if self._turn is not None:
            self._turn.cancel()
            self._turn = None
        for watcher in list(self.by_token.values()):
            watcher.end()

    def _frame(self) -> None:
        now, watchers = self.seconds(), list(self.by_token.values())
        for watcher in watchers:
            if watcher.stalled_since is not None and now - watcher.stalled_since > STALLED:
                watcher.end()
        self._ticks = (self._ticks + 1) % (1 + len(watchers) // FULL_PACE)
        if self._ticks or self._turn is not None:
            return  # the next frame tells of all since the last, which may be on its way still
        changes = self._changes()
        if changes or now - self._last_write >= HEARTBEAT:
            self._last_write = now
            self._deliver(frame("frame", changes) if changes else b": still here\n\n", watchers)

    def _deliver(self, data: bytes, watchers: Sequence[Watcher]) -> None:
        """Write to some, and to the others in the next turns of the reactor."""
        for watcher in watchers[:_TURN]:
            if watcher.token in self.by_token:
                watcher.push(data)
        if len(watchers) > _TURN:
            self._turn = self._clock.callLater(0, self._deliver, data, watchers[_TURN:])
        else:
            self._turn = None


def frame(event: str, content: dict[str, Any]) -> bytes:
    """Return a server-sent event; JSON without a line's end needs no further care."""
    return f"event: {event}\ndata: {json.dumps(content, separators=(',', ':'))}\n\n".encode()
