"""Messages over UDP, each answered by its own datagram: sockets around `Window`.

Every message has a socket of its own, connected to the server from a port that no recent message
had. So the kernel keeps out what others send, and a late duplicate of one reply finds its port
closed instead of passing for the reply to another message.
"""

import errno
import selectors
import socket
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from itertools import count

from uppercase.client._udp_window import Settled, Window
from uppercase.client.connecting import connect_udp, explain, reachable
from uppercase.client.target import Target
from uppercase.commands._message_input import Input
from uppercase.errors import UserError
from uppercase.limits import (
    IPV4_MAX_DATAGRAM,
    IPV6_MAX_DATAGRAM,
    SAFE_DATAGRAM,
    UDP_PORT_MEMORY,
    UDP_PORT_TRIES,
    UDP_READ_SIZE,
)

__all__ = ["UdpConversation"]


class UdpConversation:
    """A conversation with a datagram server.

    Args:
        target: the server. If its first address refuses before there was any reply, the next one
            is tried.
        window: which messages are under way.
        warn: told once, with a sentence, if a message is large enough to be cut into fragments.

    Raises:
        NetworkError: the target's name stands for no address, or no route leads there.
    """

    def __init__(
        self, target: Target, window: Window, warn: Callable[[str], None] | None = None
    ) -> None:
        self._target = target
        self._window = window
        self._warn = warn
        self._addresses = deque(reachable(target))
        self._answered = False
        self._sockets: dict[int, socket.socket] = {}
        self._selector = selectors.PollSelector()
        self._recent_ports: OrderedDict[int, None] = OrderedDict()

    @property
    def max_message(self) -> int:
        """Bytes that one datagram carries to any of the target's addresses."""
        only_ipv6 = all(address.family == socket.AF_INET6 for address in self._addresses)
        return IPV6_MAX_DATAGRAM if only_ipv6 else IPV4_MAX_DATAGRAM

    def close(self) -> None:
        """Forget what is under way."""
        for number in list(self._sockets):
            self._close_socket(number)
        self._selector.close()

    def ask(self, message: bytes) -> bytes | None:
        """Return the reply to one message, or None if every attempt went unanswered.

        Raises:
            NetworkError: nothing listens there, or it cannot be reached.
            UserError: the message is too large.
        """
        self._add(message, b"")
        while not (settled := list(self._take_settled())):
            self._step(None)
        return settled[0].reply

    def filter(self, messages: Input, deliver: Callable[[Settled], None]) -> None:
        """Send all messages of the input and deliver what became of each, in their order.

        Raises:
            NetworkError: nothing listens there, or it cannot be reached.
            UserError: the input cannot be read, or a message is too large; those before it have
                been settled and delivered.
        """
        while True:
            wants_input = self._fill(messages)
            if messages.ended and self._window.is_empty:
                break
            self._step(messages if wants_input else None)
            for settled in self._take_settled():
                deliver(settled)
        if messages.fault is not None:
            raise UserError(
                f"a message of the input is too large for a datagram: more than "
                f"{self.max_message:,} bytes; cut the input with --chunk, or use TCP"
            ) from messages.fault

    def _fill(self, messages: Input) -> bool:
        """Send what fits into the window; tell whether more input is wanted."""
        while self._window.has_room:
            message = messages.take()
            if message is None:
                return not messages.ended
            self._add(*message)
        return False

    def _add(self, message: bytes, trailer: bytes) -> None:
        if len(message) > self.max_message:
            raise self._too_large(message)
        number = self._window.add(message, trailer, time.monotonic())
        if self._warn is not None and len(message) > SAFE_DATAGRAM:
            self._warn(
                f"message {number} has {len(message):,} bytes; more than {SAFE_DATAGRAM:,} may be "
                "cut into fragments, which many networks drop (--no-warn)"
            )
            self._warn = None
        self._send(number, message)

    def _take_settled(self) -> Iterator[Settled]:
        for settled in self._window.take_settled():
            if settled.number in self._sockets:
                self._close_socket(settled.number)
            yield settled

    def _step(self, messages: Input | None) -> None:
        """Wait for replies, input or a time-out, and handle them.

        Replies are taken before anything is given up: they may have come while we were held up.
        """
        due = self._window.next_due
        patience = None if due is None else max(due - time.monotonic(), 0)
        if messages is not None:
            self._selector.register(messages.source, selectors.EVENT_READ)
        try:
            ready = [key for key, _ in self._selector.select(patience)]
        finally:
            if messages is not None:
                self._selector.unregister(messages.source)
        for key in ready:
            if key.data is not None:
                self._receive(key.data)
            elif messages is not None:
                messages.read()
        for number, message in self._window.due(time.monotonic()):
            self._send(number, message)

    def _send(self, number: int, message: bytes) -> None:
        if number not in self._sockets:
            fresh = self._open_socket()
            self._sockets[number] = fresh
            self._selector.register(fresh, selectors.EVENT_READ, number)
        try:
            self._sockets[number].send(message)
        except ConnectionRefusedError as error:
            self._refused(error)
        except OSError as error:
            if error.errno == errno.EMSGSIZE:
                raise self._too_large(message) from error
            # No room in the kernel is a loss like any other: it is sent again in time.
            if error.errno not in (errno.EAGAIN, errno.ENOBUFS):
                raise explain(error, self._target) from error

    def _receive(self, number: int) -> None:
        if number not in self._sockets:
            return  # Closed since it became ready.
        try:
            reply = self._sockets[number].recv(UDP_READ_SIZE)
        except BlockingIOError:
            return
        except ConnectionRefusedError as error:
            self._refused(error)
        except OSError as error:
            raise explain(error, self._target) from error
        else:
            self._answered = True
            self._window.answer(number, reply)
            self._close_socket(number)

    def _refused(self, error: OSError) -> None:
        """Go on to the target's next address, if nothing has ever come from this one."""
        if self._answered or len(self._addresses) == 1:
            raise explain(error, self._target) from error
        self._addresses.popleft()
        for number in list(self._sockets):
            self._close_socket(number)
        self._window.restart(time.monotonic())

    def _open_socket(self) -> socket.socket:
        """Open a socket whose port no recent message had."""
        for refused in count(1):
            fresh = connect_udp(self._target, self._addresses[0])
            port = fresh.getsockname()[1]
            if port not in self._recent_ports:
                break
            fresh.close()
            # Remember less where the system has few ports to give.
            if refused % UDP_PORT_TRIES == 0:
                self._recent_ports.popitem(last=False)
        self._recent_ports[port] = None
        if len(self._recent_ports) > UDP_PORT_MEMORY:
            self._recent_ports.popitem(last=False)
        return fresh

    def _close_socket(self, number: int) -> None:
        used = self._sockets.pop(number)
        self._selector.unregister(used)
        used.close()

    def _too_large(self, message: bytes) -> UserError:
        return UserError(
            f"got a message of {len(message):,} bytes; a datagram to {self._target} carries "
            f"{self.max_message:,} at the most; cut the input with --chunk, or use TCP"
        )
