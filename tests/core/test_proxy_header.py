"""PROXY headers: what is accepted, what is not, and that no split and no mutation matters."""

import struct
from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz.proxy_header import check, outcome, outcome_bytewise
from uppercase.core.proxy_header import (
    PROXY_V1_MAX,
    PROXY_V2_MAX,
    V2_SIGNATURE,
    ProxyHeader,
    parse_proxy_header,
)
from uppercase.errors import ProxyHeaderError


def v2(command: int, kind: int, block: bytes) -> bytes:
    return V2_SIGNATURE + struct.pack("!BBH", command, kind, len(block)) + block


TCP4 = struct.pack("!4s4sHH", bytes([192, 0, 2, 7]), bytes([10, 0, 0, 1]), 40000, 443)
TCP6 = struct.pack(
    "!16s16sHH", IPv6Address("2001:db8::7").packed, IPv6Address("::1").packed, 40000, 443
)
TLV = b"\x04\x00\x03pad"

ACCEPTED = {
    b"PROXY TCP4 192.0.2.7 10.0.0.1 40000 443\r\n": ("192.0.2.7", 40000),
    b"PROXY TCP6 2001:db8::7 ::1 40000 443\r\n": ("2001:db8::7", 40000),
    b"PROXY TCP4 192.0.2.7 10.0.0.1 0 65535\r\n": ("192.0.2.7", 0),
    b"PROXY UNKNOWN\r\n": None,
    b"PROXY UNKNOWN ffff::1 ffff::2 65535 65535\r\n": None,
    b"PROXY UNKNOWN " + b"x" * (PROXY_V1_MAX - 16) + b"\r\n": None,
    v2(0x21, 0x11, TCP4): ("192.0.2.7", 40000),
    v2(0x21, 0x21, TCP6): ("2001:db8::7", 40000),
    v2(0x21, 0x11, TCP4 + TLV * 3): ("192.0.2.7", 40000),
    v2(0x21, 0x11, TCP4 + bytes(PROXY_V2_MAX - 28)): ("192.0.2.7", 40000),
    v2(0x20, 0x00, b""): None,
    v2(0x20, 0x11, TCP4): None,
    v2(0x20, 0xFF, b"whatever"): None,
    v2(0x21, 0x00, TLV): None,
    v2(0x21, 0x12, TCP4): None,
    v2(0x21, 0x31, bytes(216)): None,
}

REFUSED = {
    "another protocol": b"GET / HTTP/1.1\r\n",
    "lower case": b"proxy TCP4 192.0.2.7 10.0.0.1 1 2\r\n",
    "no CR": b"PROXY TCP4 192.0.2.7 10.0.0.1 1 2\n",
    "two spaces": b"PROXY TCP4  192.0.2.7 10.0.0.1 1 2\r\n",
    "a missing field": b"PROXY TCP4 192.0.2.7 10.0.0.1 1\r\n",
    "a field too many": b"PROXY TCP4 192.0.2.7 10.0.0.1 1 2 3\r\n",
    "no such family": b"PROXY TCP5 192.0.2.7 10.0.0.1 1 2\r\n",
    "UDP": b"PROXY UDP4 192.0.2.7 10.0.0.1 1 2\r\n",
    "the other family's address": b"PROXY TCP4 ::1 ::1 1 2\r\n",
    "the other family's destination": b"PROXY TCP4 192.0.2.7 ::1 1 2\r\n",
    "an address with leading zeros": b"PROXY TCP4 192.0.02.7 10.0.0.1 1 2\r\n",
    "an address cut short": b"PROXY TCP4 192.0.2 10.0.0.1 1 2\r\n",
    "an escape sequence for an address": b"PROXY TCP4 \x1b[31m 10.0.0.1 1 2\r\n",
    "an escape sequence for a scope": b"PROXY TCP6 fe80::1%\x1b[31m ::1 1 2\r\n",
    "a scope": b"PROXY TCP6 fe80::1%eth0 ::1 1 2\r\n",
    "a port with a sign": b"PROXY TCP4 192.0.2.7 10.0.0.1 +1 2\r\n",
    "a port with a leading zero": b"PROXY TCP4 192.0.2.7 10.0.0.1 01 2\r\n",
    "a port with an underscore": b"PROXY TCP4 192.0.2.7 10.0.0.1 1_0 2\r\n",
    "a port over the limit": b"PROXY TCP4 192.0.2.7 10.0.0.1 65536 2\r\n",
    "a destination port over the limit": b"PROXY TCP4 192.0.2.7 10.0.0.1 1 99999\r\n",
    "UNKNOWN run on": b"PROXY UNKNOWNX\r\n",
    "one byte too long": b"PROXY UNKNOWN " + b"x" * (PROXY_V1_MAX - 15) + b"\r\n",
    "no end": b"PROXY TCP4 " + b"1" * PROXY_V1_MAX,
    "version 1 in binary": v2(0x11, 0x11, TCP4),
    "version 3": v2(0x31, 0x11, TCP4),
    "command 2": v2(0x22, 0x11, TCP4),
    "family 4": v2(0x21, 0x41, TCP4),
    "transport 3": v2(0x21, 0x13, TCP4),
    "an address cut short in binary": v2(0x21, 0x11, TCP4[:-1]),
    "an IPv6 address cut short in binary": v2(0x21, 0x21, TCP4),
    "a UNIX address cut short": v2(0x21, 0x31, bytes(215)),
    "a block over the limit": v2(0x21, 0x11, bytes(PROXY_V2_MAX - 15)),
}


@pytest.mark.parametrize("header", ACCEPTED)
def test_a_header_tells_who_is_calling_and_what_follows_is_not_touched(header: bytes) -> None:
    expected = ProxyHeader(ACCEPTED[header], len(header))
    assert outcome(header + b"hello\r\n\x00") == expected
    assert outcome_bytewise(header + b"hello") == expected
    assert outcome(header[:-1]) is None


@pytest.mark.parametrize("fault", REFUSED)
def test_a_departure_from_the_specification_is_refused(fault: str) -> None:
    assert outcome(REFUSED[fault] + b"hello") == "refused"
    assert outcome_bytewise(REFUSED[fault] + b"hello") == "refused"


def test_what_a_refusal_says_is_bounded_and_names_the_fix() -> None:
    with pytest.raises(ProxyHeaderError, match="send-proxy") as caught:
        parse_proxy_header(b"\x1b[31m" * 1000)
    assert len(str(caught.value)) < 250


@given(
    address=st.ip_addresses(),
    other=st.ip_addresses(),
    port=st.integers(0, 65535),
    rest=st.binary(max_size=20),
)
def test_every_address_comes_back(
    address: IPv4Address | IPv6Address, other: IPv4Address | IPv6Address, port: int, rest: bytes
) -> None:
    """In both versions; the destination is of the source's family."""
    other = type(address)(other.packed[:4] if address.version == 4 else other.packed.rjust(16))
    text = f"PROXY TCP{address.version} {address} {other} {port} 1\r\n".encode()
    kind = 0x11 if address.version == 4 else 0x21
    binary = v2(0x21, kind, address.packed + other.packed + struct.pack("!HH", port, 1))
    for header in (text, binary):
        assert outcome(header + rest) == ProxyHeader((str(address), port), len(header))


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A valid header with a few bytes changed, put in or taken out, and something behind it."""
    data = bytearray(draw(st.sampled_from(sorted(ACCEPTED))) + draw(st.binary(max_size=8)))
    for _ in range(draw(st.integers(0, 3))):
        place = draw(st.integers(0, min(len(data), 120)))
        data[place : place + draw(st.integers(0, 2))] = draw(st.binary(max_size=2))
    return bytes(data)


@given(st.one_of(mutated(), st.binary(max_size=200)))
def test_whole_and_byte_by_byte_agree_and_only_our_own_error_comes_out(data: bytes) -> None:
    assert outcome(data) == outcome_bytewise(data)


@given(st.binary(max_size=120))
def test_the_fuzz_target_holds(data: bytes) -> None:
    check(data)
