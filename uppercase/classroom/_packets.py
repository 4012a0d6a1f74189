"""The timeline as packets: a `.pcapng` for Wireshark and tshark, the lab's fates as comments.

The packets are made up: a record holds payloads and times, no headers. Each arrow of the timeline
is one packet, at the time when it left; the lost are there too, and say so. The server is 127.0.0.1
or ::1, port 12345, because a record does not say at which of its addresses it was asked. Where a
record holds the beginning of a payload, the beginning of its packet was captured.

A pcapng is blocks (draft-ietf-opsawg-pcapng), IP packets without a link layer in them. TCP's
numbers are those of a connection without losses.
"""

import ipaddress
from collections.abc import Iterator
from struct import pack
from typing import Final, NamedTuple

from uppercase import __version__
from uppercase.classroom.timeline import REPLY, REQUEST, Arrow, Timeline, title_of
from uppercase.limits import IPV4_MAX_DATAGRAM, MIB

_PORT: Final = 12345  # Not the 12000 of the lecture: to Wireshark, UDP's 12000 is another protocol.
_LOOPBACK: Final = {4: bytes((127, 0, 0, 1)), 6: bytes(15) + b"\1"}
_RAW_IP: Final = 101
_UDP, _TCP = 17, 6
_HOPS: Final = 64
_FIN, _SYN, _RST, _PSH, _ACK = 1, 2, 4, 8, 16
_SEGMENT: Final = 65_000  # Bytes of a chunk that fit into one packet of IP with all headers.

_CHUNK: Final = 64 * MIB
"""The most that is written at a time (`--max-output`): a thousand packets. A record from elsewhere
may say anything."""

_RESET_BY_SERVER: Final = frozenset({"lab-reset", "stalled", "evicted", "refused"})
"""Outcomes of a connection that the server cuts off; if the client does, it is `disconnected`."""


class _Packet(NamedTuple):
    time: float
    data: bytes
    size: int
    comment: str


def draw_packets(timeline: Timeline) -> bytes:
    """Return a pcapng of the timeline: a packet for each arrow, in the order of time."""
    packets: list[_Packet] = []
    for number, (client, arrows) in enumerate(timeline.clients.items()):
        maker = _Maker(client, number)
        is_tcp = timeline.about.get("protocol") == "TCP"
        packets += maker.segments(arrows) if is_tcp else maker.datagrams(arrows)
    packets.sort(key=lambda packet: packet.time)
    about = f"{title_of(timeline)}; the packets are made up from a record"
    header = pack("<IHHq", 0x1A2B3C4D, 1, 0, -1) + _option(1, about)
    blocks = [
        _block(0x0A0D0D0A, header + _option(4, f"uppercase {__version__}") + bytes(4)),
        _block(1, pack("<HHI", _RAW_IP, 0, 0)),
    ]
    for each in packets:
        stamp = max(0, round((each.time + timeline.epoch) * 1e6))
        body = pack("<IIIII", 0, stamp >> 32, stamp & 0xFFFFFFFF, len(each.data), each.size)
        comment = _option(1, each.comment) + bytes(4) if each.comment else b""
        blocks.append(_block(6, body + _padded(each.data) + comment))
    return b"".join(blocks)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)


def _block(kind: int, body: bytes) -> bytes:
    size = len(body) + 12
    return pack("<II", kind, size) + body + pack("<I", size)


def _option(code: int, text: str) -> bytes:
    value = text.encode()[:60_000]
    return pack("<HH", code, len(value)) + _padded(value)


def _checksum(data: bytes) -> int:
    """Return the Internet checksum of RFC 1071."""
    data += bytes(len(data) % 2)
    total = sum(int.from_bytes(data[i : i + 2], "big") for i in range(0, len(data), 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF


class _Maker:
    """Makes the packets of one client, whose TCP connections follow each other on one port.

    A client without an address (a UNIX socket) is given one; the server's is of its family.
    """

    def __init__(self, peer: str, number: int) -> None:
        host, _, port = peer.rpartition(":")
        try:
            address = ipaddress.ip_address(host.strip("[]").partition("%")[0])
            client = address.packed, int(port) & 0xFFFF
        except ValueError:
            client = _LOOPBACK[4], 49_152 + number % 16_000
        server = _LOOPBACK[4 if len(client[0]) == 4 else 6], _PORT
        self._ends = {REQUEST: (client, server), REPLY: (server, client)}
        self._next: dict[str, int] = {}
        self._client_has_ended = False
        self._remarks: list[str] = []

    def _packet(
        self, direction: str, head: bytes, time: float, data: bytes, size: int, words: str
    ) -> _Packet:
        """Return a packet with its checksums.

        The head is that of UDP or, longer, TCP, from after the ports on, its checksum 0; the size
        is that of all data, captured or not.
        """
        (source, port), (goal, their_port) = self._ends[direction]
        head = pack("!HH", port, their_port) + head
        protocol, at = (_UDP, 6) if len(head) == 8 else (_TCP, 16)
        length = len(head) + size
        # What a record does not hold counts as zeros: readers cannot check it anyway.
        pseudo = source + goal + pack("!II", length, protocol)
        check = _checksum(pseudo + head + data)
        if protocol == _UDP:
            check = check or 0xFFFF  # RFC 768: 0 means that there is none
        head = head[:at] + pack("!H", check) + head[at + 2 :]
        if len(source) == 4:
            ip = pack("!BBHHHBBH", 0x45, 0, 20 + length, 0, 0x4000, _HOPS, protocol, 0)
            ip += source + goal
            ip = ip[:10] + pack("!H", _checksum(ip)) + ip[12:]
        else:
            ip = pack("!IHBB", 6 << 28, length, protocol, _HOPS) + source + goal
        return _Packet(time, ip + head + data, len(ip) + length, words)

    def datagrams(self, arrows: list[Arrow]) -> Iterator[_Packet]:
        for arrow in arrows:
            if arrow.direction:
                size = min(arrow.size, IPV4_MAX_DATAGRAM)
                head, data = pack("!HH", 8 + size, 0), arrow.data[:size]
                yield self._packet(arrow.direction, head, arrow.begin, data, size, arrow.words)

    def segments(self, arrows: list[Arrow]) -> Iterator[_Packet]:
        for arrow in arrows:
            self._remarks.append(arrow.words)
            if arrow.direction:
                most = min(arrow.size, _CHUNK)
                for start in range(0, max(most, 1), _SEGMENT):
                    data = arrow.data[start : start + _SEGMENT]
                    size = min(_SEGMENT, most - start)
                    yield self._send(arrow, arrow.direction, _PSH | _ACK, data, size)
            for way, flags in self._steps(arrow):
                yield self._send(arrow, way, flags)

    def _steps(self, arrow: Arrow) -> Iterator[tuple[str, int]]:
        """Return the ways and flags of a connection's beginning and of its ends."""
        if arrow.event in ("opened", "refused"):
            self._next, self._client_has_ended = {REQUEST: 0, REPLY: 0}, False
            yield from ((REQUEST, _SYN), (REPLY, _SYN | _ACK), (REQUEST, _ACK))
        if arrow.event == "half-closed":
            self._client_has_ended = True
            yield REQUEST, _FIN | _ACK
        if arrow.event in ("closed", "refused"):
            # Both ends of one that was refused say so.
            self._remarks = self._remarks or [arrow.words]
            outcome = arrow.actions[0] if arrow.actions else ""
            if outcome == "disconnected" and not self._client_has_ended:
                yield REQUEST, _RST | _ACK
            elif outcome in _RESET_BY_SERVER or outcome == "disconnected":
                yield REPLY, _RST | _ACK
            else:
                yield REPLY, _FIN | _ACK
                yield REQUEST, _ACK if self._client_has_ended else _FIN | _ACK

    def _send(
        self, arrow: Arrow, way: str, flags: int, data: bytes = b"", size: int = 0
    ) -> _Packet:
        back = REPLY if way == REQUEST else REQUEST
        numbers = self._next.get(way, 1), self._next.get(back, 1) if flags & _ACK else 0
        self._next[way] = numbers[0] + size + bool(flags & (_SYN | _FIN))
        comment = "; ".join(filter(None, self._remarks))
        self._remarks.clear()
        seq, ack = (number & 0xFFFFFFFF for number in numbers)
        head = pack("!IIBBHHH", seq, ack, 5 << 4, flags, 65_535, 0, 0)
        return self._packet(way, head, arrow.begin, data, size, comment)
