"""Input through a datagram server: a message each, many at a time, their replies in order."""

from dataclasses import dataclass, field
from typing import Any, Final

from twisted.internet.defer import Deferred, DeferredQueue, DeferredSemaphore

from uppercase.client.session import Datagrams
from uppercase.commands.group import say
from uppercase.commands.send._stream import Source, write
from uppercase.core.framing import Framer
from uppercase.core.values import counted
from uppercase.errors import NetworkError, NoReply

SAFE_DATAGRAM: Final = 1232
"""Payload that no usual path fragments: IPv6's minimum MTU of 1,280 less 48 bytes of headers (DNS
Flag Day 2020)."""

_LOSSES_NAMED: Final = 10


@dataclass
class Messages:
    """Sends messages, each as a datagram; warns once of one that is large.

    `on_loss` says what becomes of one without a reply: it ends all (`fail`), is left out (`skip`),
    or is an empty line (`empty`).
    """

    datagrams: Datagrams
    on_loss: str
    warn: bool
    verbose: bool
    asked: int = 0
    lost: list[int] = field(default_factory=list)

    async def ask(self, message: bytes) -> bytes | None:
        """Return the reply to a message, or None if every attempt went unanswered."""
        self.asked += 1
        name = f"message {self.asked}"
        if self.warn and len(message) > SAFE_DATAGRAM:
            say(
                f"{name} has {len(message):,} bytes; more than {SAFE_DATAGRAM:,} "
                "may be cut into fragments, which many networks drop (--no-warn)"
            )
            self.warn = False

        def again(attempt: str) -> None:
            if self.verbose:
                say(f"{name}: no reply, sent again ({attempt})")

        try:
            return await self.datagrams.ask(message, again)
        except NoReply:
            return None

    async def deliver(self, number: int, reply: bytes | None, trailer: bytes) -> None:
        """Write the reply to a message, or do without."""
        if reply is not None:
            await write(reply + trailer)
        elif self.on_loss == "fail":
            raise NetworkError(f"message {number} got no reply {self._attempts}")
        else:
            self.lost.append(number)
            if self.on_loss == "empty":
                await write(trailer)

    def losses(self) -> str:
        first = ", ".join(map(str, self.lost[:_LOSSES_NAMED]))
        more = ", ..." if len(self.lost) > _LOSSES_NAMED else ""
        messages = counted(len(self.lost), "message")
        return f"{messages} got no reply {self._attempts}: number {first}{more}"

    @property
    def _attempts(self) -> str:
        attempts = counted(self.datagrams.retries + 1, "attempt")
        return f"after {attempts} from {self.datagrams.target}"

    async def filter(self, source: Source, framer: Framer, window: int) -> None:
        """Send all messages of an input and deliver what became of each, in their order.

        At most `window` are under way or wait for their turn. Those before a fault in the input are
        delivered.
        """
        places = DeferredSemaphore(window)
        # What becomes of each message, and its trailer; None is the end.
        under_way: DeferredQueue[tuple[Deferred[bytes | None], bytes] | None] = DeferredQueue()

        async def feed() -> None:
            data = b"more"
            try:
                while data:
                    data = await source.read()
                    for message, trailer in framer.feed(data) if data else framer.finish():
                        await places.acquire()
                        if over:  # A message failed at once, as where no socket can be opened.
                            return
                        under_way.put((Deferred.fromCoroutine(self.ask(message)), trailer))
            finally:
                under_way.put(None)

        over = False
        feeding = Deferred.fromCoroutine(feed())
        number = 0
        try:
            while (entry := await under_way.get()) is not None:
                reply, trailer = entry
                number += 1
                await self.deliver(number, await reply, trailer)
                places.release()
            await feeding
        finally:
            over = True
            left: list[Deferred[Any]] = [entry[0] for entry in under_way.pending if entry]
            for waiting in (feeding, *left):
                waiting.addErrback(lambda failure: None)
                waiting.cancel()
