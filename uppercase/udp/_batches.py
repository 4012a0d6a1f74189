"""Reading and sending the datagrams of a socket: one by one, or many in one system call.

Many go by recvmmsg and sendmmsg, which Python's socket module lacks; ctypes calls them where the C
library has them, on Linux. Elsewhere, and on a socket of a subclass, `OneByOne` has the same
outcome. What datagrams have in common is looked at once: the addresses of an origin are decoded for
its first datagram only, and under load replies of one size that go to the same client, one after
another, are handed over as one (`UDP_SEGMENT`): the kernel cuts them apart where they leave, as
they would have left one by one, for a third of the processor time.

Everything that the kernel sees stays where it is for as long as a `Batches` lives: the structures
hold addresses of the buffers.
"""

import ctypes
import os
import socket
import struct
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import lru_cache
from itertools import accumulate, compress
from mmap import mmap
from operator import attrgetter, is_not, mul, ne, or_, sub
from typing import Any, Final

from uppercase.core.datagram import Destination, Origin, Replies, SocketAddress
from uppercase.core.values import unmapped
from uppercase.limits import PORTABLE, UDP_READ_SIZE
from uppercase.udp.sockets import (
    ANCILLARY_SPACE,
    Ancillary,
    enable_destinations,
    parse_destination,
    reply_ancillary,
)

BATCH: Final = 64
"""Datagrams read in one wake-up of the reactor. Counted in datagrams, because empty ones have no
bytes to count: timers, signals and other sockets get their turn under any flood."""

ORIGINS: Final = 4096
"""Origins that are remembered; when there are more, all are forgotten and learned anew."""

_REPLY_CONTROL: Final = 40
"""Bytes for the ancillary data of a reply: IPV6_PKTINFO takes 40 with its header. After IP_PKTINFO,
which takes 32, no other header fits, so the kernel looks for none."""

SEGMENTED: Final = BATCH // 2
"""Replies at once from which on some are handed over as one. A capture on this machine (Wireshark)
sees them before they are cut apart, so there has to be a load that nobody reads packet by packet.
"""

_MAX_SEGMENT: Final = 1000
"""Bytes of each: with its headers it fits the smallest MTU of IPv6 (1,280, RFC 8200 section 5), and
a batch of them fits the 64 KiB that go at once."""

_UDP_SEGMENT: Final = 103  # since Linux 4.18; the socket module has no name for it

# msghdr: name, its length, iovecs, their number, ancillary data, its length, flags
# mmsghdr: that, and the length of the datagram
_MMSGHDR: Final = struct.Struct("@PIPNPNi0PI0P")
_NAME_LENGTH, _CONTROL_LENGTH, _FLAGS, _LENGTH = (
    struct.calcsize(before) for before in ("@P", "@PIPNP", "@PIPNPN", "@PIPNPNi0P")
)
_WORD: Final = struct.calcsize("@N")
_IOVEC: Final = struct.Struct("@PN")
_CMSGHDR: Final = struct.Struct("@Nii")
_WHOLE: Final = _CMSGHDR.pack(_CMSGHDR.size + 2, socket.IPPROTO_UDP, _UDP_SEGMENT) + bytes(_WORD)
"""The ancillary data with which a reply's begins: the size of its segments, 0 where it is one."""

_SOCKADDR_IN: Final = struct.Struct("!H4s")
_SOCKADDR_IN6: Final = struct.Struct("!HI16sI")
_FAMILY: Final = struct.Struct("@H")
_WIRE: Final = attrgetter("wire")
_SIZE: Final[Any] = "N"  # size_t; typeshed does not know that memoryview casts to it


def _function(name: str) -> Any:
    """Return a function of the C library that fails by -1 and errno; None where none is used."""
    # With 32-bit words the kernel looks for headers in the bytes that are left after the ancillary
    # data of a reply, too, and refuses what it finds there.
    if sys.platform != "linux" or PORTABLE or sys.maxsize < 1 << 32:
        return None
    return getattr(ctypes.CDLL(None, use_errno=True), name, None)


_recvmmsg, _sendmmsg = _function("recvmmsg"), _function("sendmmsg")
if _recvmmsg and _sendmmsg:
    _sendmmsg.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int]
    _recvmmsg.argtypes = [*_sendmmsg.argtypes, ctypes.c_void_p]


class _MessageHeaders:
    """A batch of `mmsghdr` in memory that stays where it is, each with room for any datagram.

    Args:
        control: bytes of ancillary data of each; 0 is none.
        name_length: bytes of each address.
    """

    def __init__(self, control: int, name_length: int) -> None:
        self.name = -(-name_length // _WORD) * _WORD
        # The system provides its pages when they are first written to.
        self.payloads = mmap(-1, BATCH * UDP_READ_SIZE)
        self.stride = self.name + control
        # A message's address and its ancillary data side by side: together they are its origin.
        self.records = mmap(-1, BATCH * self.stride)
        self._blank = bytes(BATCH * self.stride)
        vectors, headers = mmap(-1, BATCH * _IOVEC.size), mmap(-1, BATCH * _MMSGHDR.size)
        payloads, records = _address(self.payloads), _address(self.records)
        self.address = _address(headers)
        for index in range(BATCH):
            record = records + index * self.stride
            payload = payloads + index * UDP_READ_SIZE
            _IOVEC.pack_into(vectors, index * _IOVEC.size, payload, UDP_READ_SIZE)
            _MMSGHDR.pack_into(
                headers,
                index * _MMSGHDR.size,
                record,
                name_length,
                _address(vectors) + index * _IOVEC.size,
                1,
                record + self.name if control else 0,
                control,
                0,
                0,
            )
        view, words = memoryview(headers), memoryview(headers).cast("I")
        step = _MMSGHDR.size // words.itemsize
        self.flags = words[_FLAGS // words.itemsize :: step]
        self.lengths = words[_LENGTH // words.itemsize :: step]
        sizes = view.cast(_SIZE)
        step = _MMSGHDR.size // sizes.itemsize
        self.control_lengths = sizes[_CONTROL_LENGTH // sizes.itemsize :: step]
        parts = memoryview(vectors).cast(_SIZE)
        self.starts, self.sizes = parts[::2], parts[1::2]
        self.first = payloads
        self._full = memoryview(_words([control] * BATCH))

    def make_room(self, count: int) -> None:
        """Clear the ancillary data of the first messages, which the kernel fills in again."""
        self.records[: count * self.stride] = self._blank[: count * self.stride]
        self.control_lengths[:count] = self._full[:count]


@lru_cache(256)
def _slots(length: int, size: int, count: int) -> struct.Struct:
    """Return what takes the first bytes out of each of a number of slots of one size."""
    return struct.Struct(f"{length}s{size - length}x" * count)


def _address(memory: mmap) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(memory))


def _words(numbers: Sequence[int]) -> "memoryview[int]":
    return memoryview(struct.pack(f"@{len(numbers)}N", *numbers)).cast(_SIZE)


class OneByOne:
    """Reads and sends datagrams of one bound socket, each by a system call.

    Nothing here waits or tries again: UDP may lose datagrams, and waiting for a full network would
    only fill it further.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        host, port = sock.getsockname()[:2]
        # Invariant: where the system names no destination it is this object itself, not one equal
        # to it.
        self.bound = Destination(host.partition("%")[0], port)
        # Whether the system says where each datagram was sent to, so that broadcasts are told apart
        # and replies leave from the address that was asked. One address needs no telling.
        self._tells = unmapped(self.bound.host) in ("0.0.0.0", "::") and enable_destinations(sock)
        self._origin_of = lru_cache(ORIGINS)(Origin.of)

    def receive(self) -> tuple[Sequence[bytes], list[Origin]]:
        """Read what is there, up to a batch, in the order of arrival.

        Raises:
            OSError: nothing could be read.
        """
        payloads: list[bytes] = []
        origins: list[Origin] = []
        try:
            for _ in range(BATCH):
                data, ancillary, flags, source = self._sock.recvmsg(UDP_READ_SIZE, ANCILLARY_SPACE)
                told = parse_destination(ancillary, self.bound.port) if self._tells else None
                truncated = bool(flags & socket.MSG_TRUNC)
                origins.append(self._origin_of(source, told or self.bound, truncated))
                payloads.append(data)
        except (OSError, MemoryError):
            # Invariant: the socket does not block, so the read after the last datagram raises. An
            # error of another kind comes again if it lasts.
            if not origins:
                raise
        return payloads, origins

    def send(self, data: bytes, origin: Origin) -> OSError | None:
        """Send a reply from the address that was asked; return why the system refuses it."""
        source = origin.destination
        try:
            # A wildcard is not an address to answer from, so the system chooses one.
            if self._tells and source is not self.bound:
                self._sock.sendmsg([data], reply_ancillary(source), 0, origin.source)
            else:
                self._sock.sendto(data, origin.source)
        except OSError as error:
            return error
        return None

    def send_replies(self, replies: Replies) -> list[tuple[int, OSError]]:
        """Send up to a batch of replies; return the positions of those refused, and why."""
        return send_each(self.send, replies)


def send_each(
    send: Callable[[bytes, Origin], OSError | None], replies: Replies
) -> list[tuple[int, OSError]]:
    """Send replies one by one; return the positions of those refused, and why."""
    return [
        (position, error)
        for position, (data, origin) in enumerate(
            zip(replies.payloads, replies.origins, strict=True)
        )
        if (error := send(data, origin)) is not None
    ]


class Batches(OneByOne):
    """Reads and sends datagrams of one bound socket, up to a batch in one system call."""

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock)
        name_length = 28 if sock.family == socket.AF_INET6 else 16
        received, sent = (ANCILLARY_SPACE, _REPLY_CONTROL) if self._tells else (0, 0)
        self._incoming = _MessageHeaders(received, name_length)
        out = _MessageHeaders(len(_WHOLE) + sent, name_length)
        self._outgoing = out
        halves = memoryview(out.records).cast("H")
        self._segments = halves[(out.name + _CMSGHDR.size) // 2 :: out.stride // 2]
        self._origins = _Origins(self._decode)
        self._used = 0

    def receive(self) -> tuple[Sequence[bytes], list[Origin]]:
        into = self._incoming
        if self._tells:
            into.make_room(self._used)
        got = _recvmmsg(self._sock.fileno(), into.address, BATCH, socket.MSG_DONTWAIT, None)
        if got < 0:
            raise _error()
        self._used = got
        size, lengths = UDP_READ_SIZE, into.lengths[:got].tolist()
        data: Sequence[bytes]
        if lengths.count(lengths[0]) == got:
            data = _slots(lengths[0], size, got).unpack_from(into.payloads)
        else:
            memory = into.payloads
            data = [
                memory[start : start + length]
                for start, length in zip(range(0, got * size, size), lengths, strict=True)
            ]
        # Beyond the longest ancillary data nothing tells origins apart.
        used = into.name + (max(into.control_lengths[:got]) if self._tells else 0)
        keys = _slots(used, into.stride, got).unpack_from(into.records)
        origins = list(map(self._origins.__getitem__, keys))
        flags = into.flags[:got].tolist()
        if any(flags):
            for index, flag in enumerate(flags):
                if flag & socket.MSG_TRUNC:
                    origins[index] = replace(origins[index], truncated=True, is_refused=None)
        return data, origins

    def send_replies(self, replies: Replies) -> list[tuple[int, OSError]]:
        payloads, origins = replies.payloads, replies.origins
        out = self._outgoing
        joined = b"".join(payloads)
        out.payloads[: len(joined)] = joined
        sizes = segments = list(map(len, payloads))
        bounds = _bounds(origins, sizes)
        count = len(bounds) - 1
        if count < len(payloads):
            origins = [origins[first] for first in bounds[:-1]]
            segments = [sizes[first] for first in bounds[:-1]]
            sizes = list(map(mul, segments, map(sub, bounds[1:], bounds)))
        out.sizes[:count] = _words(sizes)
        out.starts[:count] = _words(list(accumulate(sizes[:-1], initial=out.first)))
        wires = list(map(_WIRE, origins))
        if None in wires:
            wires = [origin.wire or self._wire(origin) for origin in origins]
        out.records[: count * out.stride] = b"".join(wires)
        if count < len(payloads):
            self._segments[:count] = memoryview(struct.pack(f"@{count}H", *segments)).cast("H")
        refused = []
        done = 0
        while done < count:
            where = out.address + done * _MMSGHDR.size
            sent = _sendmmsg(self._sock.fileno(), where, count - done, socket.MSG_DONTWAIT)
            if sent < 0:
                # The first of those that are left is the one that the system refused.
                first, end = bounds[done], bounds[done + 1]
                if count == len(payloads):
                    refused.append((first, _error()))
                else:
                    # It went as segments, a lone one too, which not every path takes.
                    alone = Replies(payloads[first:end], replies.origins[first:end], ())
                    refused += [(first + place, why) for place, why in send_each(self.send, alone)]
                sent = 1
            done += sent
        return refused

    def _decode(self, key: bytes) -> Origin:
        """Return the origin of a datagram from its address and ancillary data."""
        destination = self.bound
        if self._tells:
            ancillary = _controls(key, self._incoming.name)
            destination = parse_destination(ancillary, self.bound.port) or self.bound
        return Origin.of(_decode(key), destination)

    def _wire(self, origin: Origin) -> bytes:
        """Return the address and ancillary data of replies, and keep them."""
        out = self._outgoing
        record = _encode(origin.source, self._sock.family).ljust(out.name, b"\0") + _WHOLE
        if self._tells:
            # From a wildcard the system chooses the address.
            ((level, kind, data),) = reply_ancillary(origin.destination)
            record += _CMSGHDR.pack(_CMSGHDR.size + len(data), level, kind) + data
        wire = origin.wire = record.ljust(out.stride, b"\0")
        return wire


def _bounds(origins: Sequence[Origin], sizes: Sequence[int]) -> Sequence[int]:
    """Return where the messages that are handed over begin, and where the last one ends.

    A message is replies of one size that go to one origin; without a load, each by itself.
    """
    each = range(len(sizes) + 1)
    if len(sizes) < SEGMENTED or max(sizes) > _MAX_SEGMENT or not all(sizes):
        return each
    differs = map(or_, map(is_not, origins[1:], origins), map(ne, sizes[1:], sizes))
    bounds = [0, *compress(each[1:], differs), len(sizes)]
    # To tell of few that go together would cost more than it saves.
    return bounds if len(bounds) <= len(sizes) // 2 else each


class _Origins(dict[bytes, Origin]):
    """Origins by the raw addresses of their datagrams, decoded once."""

    def __init__(self, decode: Callable[[bytes], Origin]) -> None:
        super().__init__()
        self._decode = decode

    def __missing__(self, key: bytes) -> Origin:
        if len(self) >= ORIGINS:
            self.clear()
        origin = self[key] = self._decode(key)
        return origin


def batches_of(sock: socket.socket) -> OneByOne:
    """Return what reads and sends a bound socket's datagrams, in batches where that can be."""
    # A subclass may have methods of its own, which are to be called.
    if _recvmmsg and _sendmmsg and type(sock) is socket.socket:
        # A filter of system calls may refuse these two; now they have nothing to do.
        nothing = sock.fileno(), None, 0, socket.MSG_DONTWAIT
        with suppress(OSError):
            sock.getsockopt(socket.IPPROTO_UDP, _UDP_SEGMENT)
            if _recvmmsg(*nothing, None) == _sendmmsg(*nothing) == 0:
                return Batches(sock)
    return OneByOne(sock)


def _error() -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number))


def _decode(record: bytes) -> SocketAddress:
    """Return a socket address as the socket module gives it."""
    (family,) = _FAMILY.unpack_from(record)
    if family == socket.AF_INET:
        port, host = _SOCKADDR_IN.unpack_from(record, _FAMILY.size)
        return socket.inet_ntoa(host), port
    # Only the interface's index is in the machine's byte order.
    port, flow, host, scope = _SOCKADDR_IN6.unpack_from(record, _FAMILY.size)
    return socket.inet_ntop(socket.AF_INET6, host), port, flow, socket.htonl(scope)


def _encode(address: SocketAddress, family: int) -> bytes:
    """Return a socket address as the kernel takes it."""
    host, port, *more = address
    if family == socket.AF_INET:
        return _FAMILY.pack(family) + _SOCKADDR_IN.pack(port, socket.inet_aton(host))
    flow, scope = more or (0, 0)
    packed = socket.inet_pton(socket.AF_INET6, host)
    return _FAMILY.pack(family) + _SOCKADDR_IN6.pack(port, flow, packed, socket.htonl(scope))


def _controls(record: bytes, start: int) -> Ancillary:
    """Return the ancillary data from a start on; the memory after its end is zero."""
    found: Ancillary = []
    while start + _CMSGHDR.size <= len(record):
        length, level, kind = _CMSGHDR.unpack_from(record, start)
        if length < _CMSGHDR.size:
            break
        found.append((level, kind, record[start + _CMSGHDR.size : start + length]))
        # Each is aligned as a size_t is.
        start += -(-length // _WORD) * _WORD
    return found
