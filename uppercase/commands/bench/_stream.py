"""Load on one stream connection: requests cut from a cycle, replies compared with a cycle.

The bytes of many messages move with one call and are compared with one: what a message costs here
is little compared to what it costs the server.
"""

import socket
import ssl
from bisect import bisect_right
from collections import deque
from collections.abc import Callable
from time import monotonic
from typing import Final

from uppercase.client.connecting import explain
from uppercase.client.target import Target
from uppercase.commands.bench._ledger import Ledger
from uppercase.commands.bench._workload import Workload
from uppercase.errors import NetworkError
from uppercase.limits import BENCH_BLOCK

__all__ = ["StreamLoad"]

_WOULD_BLOCK: Final = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)
_EXCERPT: Final = 256


class StreamLoad:
    """One connection.

    Args:
        connection: a connected, non-blocking socket.
        target: the server, for sentences.
        workload: what to send.
        ledger: where to count.
        timeout: seconds after which a reply is late.
        clock: gives the monotonic time.
    """

    def __init__(
        self,
        connection: socket.socket,
        target: Target,
        workload: Workload,
        ledger: Ledger,
        timeout: float,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._socket = connection
        self._target = target
        self._ledger = ledger
        self._timeout = timeout
        self._clock = clock
        self._size = workload.size
        self._number = len(workload.messages)
        self._outgoing = memoryview(workload.outgoing)
        self._incoming = workload.incoming
        self._ends = workload.ends
        self._cycle_in = len(self._incoming) // 2
        self._cycle_out = len(self._outgoing) // 2
        self._buffer = memoryview(bytearray(min(BENCH_BLOCK, self._cycle_in)))
        self._planned: deque[tuple[int, float]] = deque()  # (offered up to here, planned for)
        self._offered = 0
        self._answered = 0
        self._sent = 0  # bytes
        self._taken = 0  # bytes
        self._last_wrong = -1

    def fileno(self) -> int:
        """Return the socket's descriptor."""
        return self._socket.fileno()

    def offer(self, number: int, planned: float) -> None:
        """Take so many messages that were planned for that time."""
        self._offered += number
        self._planned.append((self._offered, planned))
        self._ledger.transmitted += number

    def flush(self) -> bool:
        """Send what fits; tell whether everything has been sent."""
        try:
            while waiting := self._offered * self._size - self._sent:
                start = self._sent % self._cycle_out
                piece = min(waiting, self._cycle_out, BENCH_BLOCK)
                sent = self._socket.send(self._outgoing[start : start + piece])
                self._sent += sent
                self._ledger.sent_bytes += sent
        except _WOULD_BLOCK:
            return False
        except OSError:
            # Reading tells how it ended, after what had been sent before the end.
            return True
        return True

    def receive(self) -> int:
        """Read what has come, compare it, and give how many messages it answers."""
        try:
            size = self._socket.recv_into(self._buffer)
        except _WOULD_BLOCK:
            return 0
        except OSError as error:
            raise self._end(error) from error
        now = self._clock()
        if not size:
            raise self._end(None)
        cycles, phase = divmod(self._taken, self._cycle_in)
        got = self._buffer[:size]
        # Equal to a slice of the expected bytes, without making the slice: one memcmp.
        if not self._incoming.startswith(got, phase):
            self._compare(bytes(got), cycles * self._number, phase)
        self._taken += size
        self._ledger.received_bytes += size
        cycles, phase = divmod(self._taken, self._cycle_in)
        reached = cycles * self._number + bisect_right(self._ends, phase)
        if reached > self._offered:
            raise NetworkError(f"{self._target} sent more than it was asked for")
        return self._settle(reached, now)

    def expire(self, now: float) -> int:
        """Give up nothing: a stream delivers what was sent, if late."""
        return 0

    def abandon(self) -> None:
        """Count everything that is still awaited as lost, but half a reply as a wrong one."""
        self._ledger.lost += self._offered - self._answered
        phase = self._taken % self._cycle_in
        start = ([0, *self._ends])[bisect_right(self._ends, phase)]
        if start < phase and self._answered < self._offered:
            end = self._ends[bisect_right(self._ends, phase)]
            self._ledger.note_wrong(self._incoming[start:phase], self._incoming[start:end])
            self._ledger.answered += 1
            self._ledger.lost -= 1

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()

    def _settle(self, reached: int, now: float) -> int:
        """Take note that the messages before `reached` have been answered."""
        fresh = reached - self._answered
        counts = self._ledger.latencies.counts
        while self._answered < reached:
            upto, planned = self._planned[0]
            if upto <= reached:
                self._planned.popleft()
            else:
                upto = reached
            number = upto - self._answered
            latency = now - planned
            counts[int(latency * 1e6)] += number
            if latency > self._timeout:
                self._ledger.late += number
            self._answered = upto
        self._ledger.answered += fresh
        return fresh

    def _compare(self, got: bytes, base: int, phase: int) -> None:
        """Find the messages whose replies are wrong; slow, for a server that is.

        Args:
            got: what came.
            base: the number of the first message of this cycle.
            phase: where in the cycle `got` begins.
        """
        first = bisect_right(self._ends, phase)
        start = phase
        for number in range(first, first + 2 * self._number):
            cycle, place = divmod(number, self._number)
            end = self._ends[place] + cycle * self._cycle_in
            piece = got[start - phase : end - phase]
            if not piece:
                return
            expected = self._incoming[start : start + len(piece)]
            if piece != expected and base + number != self._last_wrong:
                self._last_wrong = base + number
                whole = self._incoming[start : min(end, start + _EXCERPT)]
                self._ledger.note_wrong(got[start - phase :][:_EXCERPT], whole)
            start = end

    def _end(self, error: OSError | None) -> NetworkError:
        if error is not None and not isinstance(error, ConnectionError):
            return explain(error, self._target)
        did = "closed" if error is None or isinstance(error, BrokenPipeError) else "reset"
        number = "1 reply" if self._answered == 1 else f"{self._answered} replies"
        hint = ""
        if self._answered == 1:
            hint = (
                "; bench needs a server that keeps its connections, and one that closes after each "
                "reply, like the lecture's, does not"
            )
        return NetworkError(f"{self._target} {did} a connection after {number}{hint}")
