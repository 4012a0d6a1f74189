"""The UDP server and client in memory behave as real ones do."""

import pytest
from twisted.internet.defer import Deferred

from uppercase import transform
from uppercase.core.events import DropReason
from uppercase.errors import UnknownName
from uppercase.limits import DatagramLimits
from uppercase.testing import connect_udp


def test_without_anything_it_serves_upper_case() -> None:
    client = connect_udp()
    client.send(b"hello", b"", b"\xff")
    assert client.receive() == [b"HELLO", b"", b"\xff"]
    assert client.receive() == []


def test_transforms_are_chained_and_a_datagram_is_a_whole_message() -> None:
    client = connect_udp("strip", "reverse")
    client.send(b" abc\n")
    client.send(b"def")
    assert client.receive() == [b"cba", b"fed"]


def test_a_failed_transform_costs_its_datagram_only() -> None:
    client = connect_udp("hex-decode")
    client.send(b"6g", b"6869")
    assert client.receive() == [b"hi"]
    assert client.drops == {DropReason.FAILED: 1}
    assert str(client.error).startswith("transform 'hex-decode' failed: got byte 0x67")


def test_an_awaited_reply_comes_when_it_is_there() -> None:
    waiting: list[Deferred[str]] = []

    @transform
    def later(text: str) -> Deferred[str]:
        waiting.append(Deferred())
        return waiting[-1]

    client = connect_udp(later)
    client.send(b"one", b"two")
    waiting[1].callback("second")
    assert client.receive() == [b"second"]
    waiting[0].callback("first")
    assert client.receive() == [b"first"]


def test_the_guards_are_those_of_the_service() -> None:
    @transform
    def tenfold(data: bytes) -> bytes:
        return data * 10

    client = connect_udp(tenfold, max_output=5000)
    client.send(b"a" * 100, b"b" * 501)
    assert client.receive() == []
    assert client.drops == {DropReason.AMPLIFICATION: 1, DropReason.FAILED: 1}


def test_a_rate_allows_more_when_the_test_lets_time_pass() -> None:
    client = connect_udp(limits=DatagramLimits(rate=1.0, burst=2))
    client.send(b"a", b"b", b"c")
    client.advance(1)
    client.send(b"d", b"e")
    assert client.receive() == [b"A", b"B", b"D"]
    assert client.drops == {DropReason.OVER_RATE: 2}


def test_mistakes_are_told_as_on_the_command_line() -> None:
    with pytest.raises(UnknownName, match="did you mean 'caesar'"):
        connect_udp("ceasar")
