"""The PROXY protocol's headers, versions 1 and 2: who a proxy says is calling.

Strict, because the header's address is what limits and logs go by: every departure from the
specification is an error, and only so many bytes are looked at. A shell gathers them and asks.

https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt
"""

import re
import struct
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final

from uppercase.errors import ProxyHeaderError
from uppercase.limits import KIB, MAX_PORT

PROXY_V1_MAX: Final = 107
"""Bytes of a PROXY header of version 1, its CRLF included: the longest that the protocol allows."""

PROXY_V2_MAX: Final = 2 * KIB
"""Bytes of a PROXY header of version 2. The protocol can declare 64 KiB; addresses take 52 bytes,
and HAProxy's additions (certificate names, unique IDs) some hundred."""

V2_SIGNATURE: Final = b"\r\n\r\n\x00\r\nQUIT\n"
_V1_START: Final = b"PROXY "
_V1_UNKNOWN: Final = re.compile(rb"PROXY UNKNOWN(?: .*)?", re.DOTALL)
# One space between fields; ports in decimal without leading zeros; each field is checked below.
_V1_TCP: Final = re.compile(
    rb"PROXY TCP([46]) ([0-9A-Fa-f:.]+) ([0-9A-Fa-f:.]+) (0|[1-9][0-9]{0,4}) (0|[1-9][0-9]{0,4})"
)

_V2_FIXED: Final = struct.Struct("!12sBBH")
_V2_LOCAL: Final = 0x20
_V2_PROXY: Final = 0x21
# Address family and transport (their nibbles) -> bytes of addresses. Others must be rejected.
_V2_ADDRESS_SIZES: Final = {0x00: 0, 0x11: 12, 0x12: 12, 0x21: 36, 0x22: 36, 0x31: 216, 0x32: 216}
# The addresses of TCP over IPv4 and IPv6: the client's, ours, and their ports.
_V2_TCP: Final = {0x11: struct.Struct("!4s4sHH"), 0x21: struct.Struct("!16s16sHH")}


@dataclass(frozen=True, slots=True)
class ProxyHeader:
    """A complete header.

    Attributes:
        source: the client's IP address and port; None where the proxy tells none (`UNKNOWN`,
            `LOCAL`, and families other than TCP over IP): the connection's own address counts.
        length: its bytes; what follows them is the client's.
    """

    source: tuple[str, int] | None
    length: int


def parse_proxy_header(data: bytes) -> ProxyHeader | None:
    """Return the header at the start of all that has arrived so far; None while it is incomplete.

    Raises:
        ProxyHeaderError: what has arrived cannot become a header, however it goes on.
    """
    if data.startswith(_V1_START):
        return _parse_v1(data)
    if data.startswith(V2_SIGNATURE):
        return _parse_v2(data)
    if _V1_START.startswith(data) or V2_SIGNATURE.startswith(data):
        return None
    raise ProxyHeaderError(
        f"got {data[:16]!r}, which does not begin a PROXY header; the proxy must send one "
        "(HAProxy: send-proxy or send-proxy-v2; nginx: proxy_protocol on)"
    )


def _parse_v1(data: bytes) -> ProxyHeader | None:
    end = data.find(b"\n", 0, PROXY_V1_MAX)
    if end < 0:
        if len(data) < PROXY_V1_MAX:
            return None
        raise ProxyHeaderError(
            f"got a PROXY header of version 1 over the protocol's limit of {PROXY_V1_MAX} bytes"
        )
    line = data[: end - 1]
    if data[end - 1] == ord("\r"):
        if _V1_UNKNOWN.fullmatch(line):
            return ProxyHeader(None, end + 1)
        match = _V1_TCP.fullmatch(line)
        if match:
            source = _v1_address(match[1], match[2]), int(match[4])
            _v1_address(match[1], match[3])
            if max(source[1], int(match[5])) <= MAX_PORT:
                return ProxyHeader(source, end + 1)
    raise ProxyHeaderError(f"got a malformed PROXY header of version 1: {data[: end + 1]!r}")


def _v1_address(family: bytes, text: bytes) -> str:
    try:
        return str((IPv4Address if family == b"4" else IPv6Address)(text.decode("ascii")))
    except ValueError:
        raise ProxyHeaderError(
            f"got a PROXY header of version 1 with {text!r}, which is not an IPv{family.decode()} "
            "address"
        ) from None


def _parse_v2(data: bytes) -> ProxyHeader | None:
    if len(data) < _V2_FIXED.size:
        return None
    _, command, kind, size = _V2_FIXED.unpack_from(data)
    length = _V2_FIXED.size + size
    if length > PROXY_V2_MAX:
        raise ProxyHeaderError(
            f"got a PROXY header of version 2 declared with {length} bytes, over the limit of "
            f"{PROXY_V2_MAX}"
        )
    if command not in (_V2_LOCAL, _V2_PROXY):
        raise ProxyHeaderError(
            f"got a PROXY header with version and command 0x{command:02x}; 0x20 (LOCAL) and 0x21 "
            "(PROXY) are accepted"
        )
    # LOCAL: the proxy speaks for itself, such as for a health check; its addresses mean nothing.
    needed = _V2_ADDRESS_SIZES.get(kind)
    if command == _V2_PROXY and (needed is None or size < needed):
        raise ProxyHeaderError(
            f"got a PROXY header of version 2 with family and transport 0x{kind:02x} and {size} "
            "bytes, which do not go together"
        )
    if len(data) < length:
        return None
    return ProxyHeader(_v2_source(kind, data) if command == _V2_PROXY else None, length)


def _v2_source(kind: int, data: bytes) -> tuple[str, int] | None:
    if kind not in _V2_TCP:
        return None
    address, _, port, _ = _V2_TCP[kind].unpack_from(data, _V2_FIXED.size)
    return str(ip_address(address)), port
