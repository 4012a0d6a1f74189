"""One message over UDP under Twisted: asked, asked again, answered or given up.

A request has a port of its own, connected to the server: the kernel keeps out what others send,
and a late duplicate finds the port closed. Under epoll Twisted closes a connected port when an
ICMP refusal comes in (its issues 5377 and 6287); since the port serves one request only, that is
just how this request learns of the refusal.
"""

import errno
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.error import MessageLengthError
from twisted.internet.protocol import DatagramProtocol
from twisted.python.failure import Failure

from uppercase.client._udp_window import backoff
from uppercase.client.connecting import Address, explain
from uppercase.client.target import Target
from uppercase.errors import NoReply, UserError
from uppercase.limits import UDP_READ_SIZE

__all__ = ["request"]


def request(
    reactor: Any, target: Target, address: Address, message: bytes, timeout: float, retries: int
) -> Deferred[bytes]:
    """Ask one address of a target.

    Args:
        reactor: an `IReactorUDP` and `IReactorTime`.
        target: the server, for messages.
        address: where to send.
        message: what to send.
        timeout: seconds to wait for the first reply; each repetition waits twice as long.
        retries: how often to ask again.

    Returns:
        The reply. Fails with `ConnectionRefused`, `NoReply`, `NetworkError` or `UserError` (too
        large); when it is cancelled, the port is closed.
    """
    asking = _Request(reactor, target, message, timeout, retries + 1)
    any_interface = "::" if ":" in address.sockaddr[0] else ""
    reactor.listenUDP(0, asking, any_interface, maxPacketSize=UDP_READ_SIZE)
    asking.start(*address.sockaddr[:2])
    return asking.reply


class _Request(DatagramProtocol):
    """The port of one request."""

    noisy = False
    transport: Any

    def __init__(
        self, clock: Any, target: Target, message: bytes, timeout: float, attempts: int
    ) -> None:
        self.reply: Deferred[bytes] = Deferred(self._cancel)
        self._clock = clock
        self._target = target
        self._message = message
        self._timeout = timeout
        self._attempts = attempts
        self._attempt = 0
        self._host = ""
        self._timer: Any = None
        self._ended = False

    def start(self, host: str, port: int) -> None:
        """Connect the port and ask for the first time."""
        self._host = host
        try:
            self.transport.connect(host, port)
        except OSError as error:
            self._fail(explain(error, self._target))
        else:
            self._ask()

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        """Take the reply; one that was queued before the port was connected may be anybody's."""
        if addr[0] == self._host.partition("%")[0]:
            self._finish(datagram)

    def connectionRefused(self) -> None:
        """Hear of a refusal from a reactor that tells."""
        self._fail(explain(ConnectionRefusedError(), self._target))

    def stopProtocol(self) -> None:
        """Hear of a refusal from a reactor that closes the port instead."""
        self._fail(explain(ConnectionRefusedError(), self._target))

    def _ask(self) -> None:
        if self._attempt == self._attempts:
            self._timer = None
            attempts = "1 attempt" if self._attempts == 1 else f"{self._attempts} attempts"
            self._fail(NoReply(f"{self._target} did not reply to {attempts}"))
            return
        self._attempt += 1
        self._timer = self._clock.callLater(backoff(self._timeout, self._attempt), self._ask)
        try:
            self.transport.write(self._message)
        except MessageLengthError:
            self._fail(
                UserError(f"got {len(self._message)} bytes, too many for a datagram; use TCP")
            )
        except OSError as error:
            # No room in the kernel is a loss like any other: it is sent again in time.
            if error.errno not in (errno.EAGAIN, errno.ENOBUFS):
                self._fail(explain(error, self._target))

    def _fail(self, error: Exception) -> None:
        self._finish(Failure(error))

    def _finish(self, result: bytes | Failure) -> None:
        """Close the port, then give the result."""
        if not self._ended:
            self._close().addBoth(lambda _: self.reply.callback(result))

    def _cancel(self, reply: Deferred[bytes]) -> None:
        self._close()

    def _close(self) -> Deferred[Any]:
        self._ended = True
        if self._timer is not None:
            self._timer.cancel()
        if self.transport is None:  # The reactor has closed the port already.
            return succeed(None)
        return maybeDeferred(self.transport.stopListening)
