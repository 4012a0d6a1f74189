"""Load on one datagram socket: each datagram is told from the others by its reply."""

import socket
from collections import deque
from collections.abc import Callable
from itertools import takewhile
from time import monotonic

from uppercase.client.target import Target
from uppercase.commands.bench._ledger import Ledger
from uppercase.commands.bench._sockets import explain_send
from uppercase.commands.bench._workload import Workload

__all__ = ["DatagramLoad"]


class DatagramLoad:
    """One connected socket.

    Args:
        datagrams: a connected, non-blocking socket.
        target: the server, for sentences.
        workload: what to send.
        ledger: where to count.
        timeout: seconds after which a datagram without a reply is lost.
        clock: gives the monotonic time.
    """

    def __init__(
        self,
        datagrams: socket.socket,
        target: Target,
        workload: Workload,
        ledger: Ledger,
        timeout: float,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._socket = datagrams
        self._target = target
        self._ledger = ledger
        self._timeout = timeout
        self._clock = clock
        self._messages = workload.messages
        self._replies = workload.replies
        self._index = workload.index
        # One byte more than any, so that a longer reply is not cut down to a correct one.
        self._read_size = max(map(len, workload.replies)) + 1
        self._unsent: deque[float] = deque()
        self._next = 0
        self._awaited: dict[int, float] = {}  # in the order of sending
        self._expired: dict[int, float] = {}
        self._blamed: dict[int, float] = {}  # those that a wrong reply was put down to

    def fileno(self) -> int:
        """Return the socket's descriptor."""
        return self._socket.fileno()

    def offer(self, number: int, planned: float) -> None:
        """Take so many messages that were planned for that time."""
        self._unsent.extend([planned] * number)
        self._ledger.transmitted += number

    def flush(self) -> bool:
        """Send what fits; tell whether everything has been sent."""
        send, messages, awaited, unsent = (
            self._socket.send,
            self._messages,
            self._awaited,
            self._unsent,
        )
        try:
            while unsent:
                number = self._next
                self._ledger.sent_bytes += send(messages[number])
                if number in awaited:
                    self._lose(number)
                self._expired.pop(number, None)
                self._blamed.pop(number, None)
                awaited[number] = unsent.popleft()
                self._next = number + 1 if number + 1 < len(messages) else 0
        except BlockingIOError:
            return False
        except OSError as error:
            raise explain_send(error, self._target, len(messages[self._next])) from error
        return True

    def receive(self) -> int:
        """Read what has come, and give how many messages it answers."""
        ledger, awaited, recv = self._ledger, self._awaited, self._socket.recv
        counts = ledger.latencies.counts
        answered = 0
        try:
            while True:
                reply = recv(self._read_size)
                now = self._clock()
                ledger.received_bytes += len(reply)
                planned = awaited.pop(self._index.get(reply, -1), None)
                if planned is None:
                    answered += self._judge(reply, now)
                    continue
                latency = now - planned
                counts[int(latency * 1e6)] += 1
                if latency > self._timeout:
                    ledger.late += 1
                answered += 1
                if not awaited:
                    break  # saves asking in vain; if there is more, the selector says so
        except BlockingIOError:
            pass
        except OSError as error:
            raise explain_send(error, self._target, 0) from error
        ledger.answered += answered
        return answered

    def expire(self, now: float) -> int:
        """Give up the datagrams that have waited for the time-out."""
        overdue = now - self._timeout
        in_time = takewhile(lambda each: each[1] <= overdue, self._awaited.items())
        gone = [number for number, _ in in_time]
        for number in gone:
            self._lose(number)
        return len(gone)

    def abandon(self) -> None:
        """Count everything that is still awaited as lost."""
        for number in list(self._awaited):
            self._lose(number)
        self._ledger.lost += len(self._unsent)
        self._unsent.clear()

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def _lose(self, number: int) -> None:
        self._expired[number] = self._awaited.pop(number)
        self._ledger.lost += 1

    def _judge(self, reply: bytes, now: float) -> int:
        """Take a reply that nothing awaits; return how many messages it answers."""
        number = self._index.get(reply, -1)
        if number in self._expired:
            self._ledger.latencies.counts[int((now - self._expired.pop(number)) * 1e6)] += 1
            self._ledger.lost -= 1
            self._ledger.late += 1
            # It has been given up before, and what follows it been sent.
            self._ledger.answered += 1
            return 0
        if number in self._blamed:
            # So the wrong reply was to another one.
            self._ledger.latencies.counts[int((now - self._blamed.pop(number)) * 1e6)] += 1
            return self._blame()
        if number >= 0:
            self._ledger.duplicates += 1
            return 0
        oldest = next(iter(self._awaited), None)
        self._ledger.note_wrong(reply, b"" if oldest is None else self._replies[oldest])
        return self._blame()

    def _blame(self) -> int:
        """Put a wrong reply down to the message that has waited longest, if there is one."""
        oldest = next(iter(self._awaited), None)
        if oldest is None:
            self._ledger.stray += 1
            return 0
        self._blamed[oldest] = self._awaited.pop(oldest)
        return 1
