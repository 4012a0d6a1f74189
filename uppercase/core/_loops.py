"""What ends loops between servers that answer each other's answers.

`LoopGuard` knows our own replies when they come back; `LockStepGuard` knows the rhythm of a loop
whose datagrams differ. Each remembers in a table of bounded size, because a forged source address
costs its sender nothing. Nothing here sends, waits or reads a clock: the caller says what time it
is.
"""

from collections import OrderedDict
from collections.abc import Collection, Mapping, Set
from dataclasses import dataclass
from itertools import islice
from typing import Final

from uppercase.core.guards import Origin
from uppercase.core.values import Client

LOOP_WINDOW: Final = 1.0
"""A client that sends the same datagram up to 15 times a second is never touched."""

LOOP_TABLE: Final = 4096
"""Replies remembered for the loop guard, and clients for the other, at the most."""

LOOP_KEPT: Final = LOOP_TABLE * 3 // 4
"""Replies that are still remembered when the table has been full. A loop renews its entry every
round, so it stays known while fewer other replies than this are sent in one round trip."""

LOCK_STEP: Final = 10_000
"""Datagrams of a row of which one is dropped. A loop of two of our services has as many of each
behind it after a second; a student's program rarely sends so many, and repeats what is lost."""

LOCK_STEP_SILENCE: Final = 1.0
"""Seconds without a datagram of a client until one is answered again, once its loop was multiplied
by our lab: what waits in two receive buffers has passed by then, however slow the other server."""

LOCK_STEP_SILENCE_AT_MOST: Final = 10.0
"""Seconds after which one is answered in any case: a client may send without a pause."""

_NEVER: Final = (0, 0.0)
_LONG_AGO: Final = float("-inf")


def loop_key(client: Client, data: bytes) -> int:
    """Return what stands for a datagram in the loop guard's table.

    Both are Python's keyed 64-bit hashes, so nobody outside can make two that are equal.
    """
    return hash(client) ^ hash(data)


class LoopGuard:
    """Ends the loop that one forged datagram starts between two servers.

    Each server answers the other's answer for ever (CVE-1999-0103, CVE-2024-2169). What tells a
    loop from a client is that our own reply comes back, byte for byte, as often as it is sent.
    Every reply is remembered by client and digest, so that several datagrams may circle at once
    and each is found; what came back `threshold` times within `LOOP_WINDOW` seconds is dropped
    once, which ends its loop. A loop slower than that goes on, as slowly.
    """

    def __init__(self, threshold: int) -> None:
        self._threshold = threshold
        # key -> (returns, time of the first); the longest unused comes first
        self._sent: dict[int, tuple[int, float]] = {}

    def remember(self, keys: Collection[int]) -> None:
        """Take note of replies by their keys."""
        sent = self._sent
        if sent.keys().isdisjoint(keys):
            sent.update(dict.fromkeys(keys, _NEVER))
        else:
            for key in keys:
                sent[key] = sent.pop(key, _NEVER)
        if len(sent) > LOOP_TABLE:
            # Many at once: the first key of a dictionary is found behind all that were deleted.
            for key in list(islice(sent, len(sent) - LOOP_KEPT)):
                del sent[key]

    def knows(self, keys: Collection[int]) -> Set[int]:
        """Return those keys that are of replies of ours."""
        return set() if self._sent.keys().isdisjoint(keys) else self._sent.keys() & keys

    def is_loop(self, client: Client, request: bytes, now: float) -> bool:
        """Return whether a request is our reply come back too often; count it if it is ours."""
        key, sent = loop_key(client, request), self._sent
        entry = sent.get(key)
        if entry is None:
            return False
        returns, since = entry
        if returns == 0 or now - since > LOOP_WINDOW:
            returns, since = 0, now
        if returns + 1 >= self._threshold:
            del sent[key]
            return True
        sent[key] = (returns + 1, since)
        return False


@dataclass(slots=True)
class _Row:
    """What a client has sent without a pause: how much, how much of it unanswered, and when."""

    length: int = 0
    balance: int = 0
    last: float = 0.0
    silent_until: float = 0.0
    silent_at_most: float = 0.0


class LockStepGuard:
    """Ends loops that never bring back what was sent, such as between `reverse` and `reverse`.

    What two servers that answer each other have in common with a client that sends its next
    request as soon as it has a reply is lock step: whatever comes follows what was sent, and
    nothing else is under way. One lost datagram ends such a loop and costs such a client one
    retransmission, so of `LOCK_STEP` datagrams in such a row one is dropped. Several datagrams
    under way at once end a row; but where our lab has multiplied replies, so may be what comes
    back, which is ended sooner, by dropping all of it until `LOCK_STEP_SILENCE` seconds bring none.

    Invariant: a client's balance is the requests that came less the replies that were sent, since
    its row began; above 1 there was a request that no reply of ours had caused.
    """

    def __init__(self) -> None:
        # client -> its row; the one that began first comes first
        self._rows: OrderedDict[Client, _Row] = OrderedDict()

    def _row(self, client: Client, now: float) -> _Row:
        """Return a client's row, a new one after a pause."""
        rows = self._rows
        row = rows.get(client)
        if row is None or now - row.last > LOOP_WINDOW:
            rows.pop(client, None)
            row = rows[client] = _Row()
            if len(rows) > LOOP_TABLE:
                rows.popitem(last=False)[1].last = _LONG_AGO
        return row

    def suspects(self, arrived: Mapping[Origin, int], now: float) -> list[Origin]:
        """Take note of the datagrams of one wake-up by their origins, before any is answered.

        Returns:
            Those origins of whose datagrams `is_loop` has to be asked; else it is true of none.
        """
        found = []
        for origin, count in arrived.items():
            # Invariant: an origin's row is its client's in the table, or its last time is more than
            # a window ago: rows are replaced after a pause, and those forgotten are long ago.
            row = origin.row
            if row is None or now - row.last > LOOP_WINDOW:
                row = origin.row = self._row(origin.client, now)
            row.last = now
            row.length += count
            balance = row.balance = row.balance + count
            if now < row.silent_until:
                found.append(origin)
            elif balance > 1:
                row.length = 1
            elif row.length >= (LOCK_STEP // 4 if balance < count else LOCK_STEP):
                found.append(origin)
        return found

    def replied(self, replies: Mapping[Origin, int]) -> None:
        """Take note of replies to what `suspects` was told of."""
        for origin, count in replies.items():
            origin.row.balance -= count

    def is_loop(self, client: Client, now: float) -> bool:
        """Return whether a datagram that has arrived is to be dropped to end what may be a loop."""
        row = self._rows.get(client)
        if row is None:
            return False
        if now < row.silent_until:
            row.silent_until = min(now + LOCK_STEP_SILENCE, row.silent_at_most)
            return True
        if row.balance > 1:
            row.length = 1
        multiplied = row.balance < 0
        if row.length < (LOCK_STEP // 4 if multiplied else LOCK_STEP):
            return False
        if multiplied:
            row.silent_until = now + LOCK_STEP_SILENCE
            row.silent_at_most = now + LOCK_STEP_SILENCE_AT_MOST
        row.balance, row.length = 0, 0
        return True
