"""The services as embedders use them: made, started, asked, stopped, started again."""

import math
import re
import socket
import sys
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any, cast
from unittest import mock

import pytest
from twisted.internet import reactor
from twisted.internet.task import Clock, deferLater
from twisted.internet.testing import MemoryReactorClock
from zope.interface import implementer

from tests.tcp.wire import Wire
from uppercase import ITransform, transform
from uppercase.client import Target, ask
from uppercase.core.events import Event, IObserver
from uppercase.core.values import cannot_listen
from uppercase.errors import (
    BadValue,
    CannotListen,
    NetworkError,
    UnknownName,
    UppercaseError,
    UserError,
)
from uppercase.limits import DatagramLimits, Limits
from uppercase.services import (
    CannotStart,
    TCPSettings,
    UDPService,
    UDPSettings,
    tcp_factory,
    tcp_service,
    udp_protocol,
    udp_service,
)
from uppercase.services.base import FREE_PORT_TRIES, Repeated, TransformService

MAKERS: dict[str, Callable[[], TransformService]] = {
    "tcp": lambda: tcp_service(TCPSettings(port=0, transforms=("reverse", "uppercase"))),
    "udp": lambda: udp_service(UDPSettings(port=0, transforms=("reverse", "uppercase"))),
}


SERVICES: dict[str, Callable[[list[object]], TransformService]] = {
    "tcp": lambda transforms: tcp_service(TCPSettings(port=0, transforms=transforms)),
    "udp": lambda transforms: udp_service(UDPSettings(port=0, transforms=transforms)),
}


def shout(text: str) -> str:
    return text.upper() + "!"


@transform
async def politely(text: str, *, word: str = "please") -> str:
    await deferLater(reactor, 0)
    return f"{text}, {word}"


@implementer(ITransform)
class _Mark:
    """Of a name that nobody could type."""

    def transform(self, message: bytes) -> bytes:
        return b"<" + message + b">"


@transform(name="twice")
class Twice:
    def __call__(self, message: bytes) -> bytes:
        return message * 2


def port_of(service: Any) -> int:
    """Return the one port of a service's addresses."""
    (port,) = {port.getHost().port for port in service.ports}
    return int(port)


@pytest.mark.parametrize("kind", MAKERS)
async def test_a_service_is_started_asked_stopped_and_started_again(kind: str) -> None:
    service: Any = MAKERS[kind]()
    for _ in range(2):
        service.startService()
        for host in ("127.0.0.1", "::1"):
            target = Target(host=host, port=port_of(service), udp=kind == "udp")
            assert await ask(target, b"abc", timeout=10) == b"CBA"
        await service.stopService()
        assert not service.ports


async def test_a_reactor_that_has_dropped_everything_serves_what_is_started_after_that() -> None:
    """As trial has it after a test that leaves something behind."""
    before, after = MAKERS["tcp"](), MAKERS["tcp"]()
    own: Any = reactor
    before.startService()
    dropped = own.removeAll()
    try:
        after.startService()
        assert await ask(Target(port=port_of(after)), b"abc", timeout=10) == b"CBA"
        await after.stopService()
    finally:
        for each in dropped:
            own.addReader(each)
    await before.stopService()


@pytest.mark.parametrize("kind", MAKERS)
async def test_what_is_started_again_while_it_stops_is_served_after_that(
    kind: str, said: list[str]
) -> None:
    service: Any = MAKERS[kind]()
    service.startService()
    stopped = service.stopService()
    service.startService()
    await stopped
    await deferLater(reactor, 0)
    target = Target(port=port_of(service), udp=kind == "udp")
    assert await ask(target, b"abc", timeout=10) == b"CBA"
    stopped = service.stopService()
    service.startService()
    service.listen = mock.Mock(side_effect=CannotListen("it is taken"))
    await stopped
    await deferLater(reactor, 0)
    assert said[-1] == "it is taken"


@pytest.mark.skipif(sys.platform != "linux", reason="others refuse what is too much")
@pytest.mark.parametrize("more", [0, 1])
async def test_a_receive_buffer_that_is_smaller_than_asked_for_is_told_of(
    said: list[str], more: int
) -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 30)
        most = probe.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) // 2
    asked = most + more
    service: Any = udp_service(UDPSettings(port=0, limits=DatagramLimits(receive_buffer=asked)))
    service.startService()
    await deferLater(reactor, 0)
    told = f"UDP: the system grants {most} of the {asked} bytes of receive buffer asked for"
    assert any(each.startswith(told) for each in said) is bool(more)
    await service.stopService()


@pytest.mark.parametrize("kind", MAKERS)
async def test_a_port_in_use_is_one_sentence_and_leaves_nothing_open(kind: str) -> None:
    first: Any = MAKERS[kind]()
    first.startService()
    port = port_of(first)
    second: Any = (
        tcp_service(TCPSettings(port=port))
        if kind == "tcp"
        else udp_service(UDPSettings(port=port))
    )
    with pytest.raises(CannotStart, match=f"127.0.0.1:{port}: another program does already"):
        second.startService()
    assert not second.ports
    await first.stopService()


async def test_what_ends_the_program_does_nothing_to_the_terminal() -> None:
    service = tcp_service(TCPSettings(listen=["unix:/no/such/\x1b[31m/socket"]))
    with pytest.raises(CannotStart, match=r"/no/such/\\x1b\[31m/socket: there is no such folder"):
        service.startService()


# Twisted 24.7 leaves a socket that could not be bound to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("kind", MAKERS)
async def test_an_endpoint_that_fails_closes_those_before_it(kind: str) -> None:
    """All of them: those of the shorthands and those that were listed before it."""
    taken: Any = MAKERS[kind]()
    taken.startService()
    with socket.socket(type=socket.SOCK_DGRAM if kind == "udp" else socket.SOCK_STREAM) as probe:
        probe.bind(("127.0.0.1", 0))
        free = probe.getsockname()[1]
    prefix = f"{kind}:{{}}:interface=127.0.0.1"
    listen = (prefix.format(free), prefix.format(port_of(taken)))
    service: Any
    if kind == "tcp":
        service = tcp_service(TCPSettings(port=0, listen=listen))
    else:
        service = udp_service(UDPSettings(port=0, listen=listen))
    with pytest.raises(CannotStart):
        service.startService()
    await deferLater(reactor, 0)
    with socket.socket(type=socket.SOCK_DGRAM if kind == "udp" else socket.SOCK_STREAM) as again:
        again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, kind == "tcp")
        again.bind(("127.0.0.1", free))
    await taken.stopService()


def test_every_mistake_in_settings_is_found_before_anything_listens() -> None:
    with pytest.raises(UnknownName, match="did you mean 'uppercase'"):
        tcp_service(TCPSettings(transforms=("uppercsae",)))
    with pytest.raises(UserError, match="--framing=line"):
        tcp_service(TCPSettings(transforms=("reverse",), framing="stream"))
    with pytest.raises(BadValue, match="an interface is an IP address"):
        udp_service(UDPSettings(interfaces=("eth0",)))
    with pytest.raises(BadValue, match="nope"):
        udp_service(UDPSettings(listen=("nope:1",)))
    with pytest.raises(BadValue, match="'proxy'"):
        tcp_service(TCPSettings(proxy_from="10.0.0.5,proxy"))
    # The system would take it modulo 65,536, and serve another.
    with pytest.raises(BadValue, match="got '70000'; a port is"):
        udp_service(UDPSettings(port=70000))
    with pytest.raises(BadValue, match="got -1 for drain"):
        udp_service(UDPSettings(drain=-1))
    with pytest.raises(BadValue, match="got nan for idle_timeout"):
        tcp_service(TCPSettings(limits=Limits(idle_timeout=math.nan)))
    # What only type checkers, or not even they, would refuse.
    wrong: Any = {"drain": "5s", "drain_quiet": None}
    for name, value in wrong.items():
        with pytest.raises(BadValue, match=f"got {value!r} for {name}; a number that is 0 or more"):
            tcp_service(TCPSettings(**{name: value}))
    wrong = {"framing": None, "proxy_from": ["10.0.0.5"], "lab": {"delay": "1s"}, "limits": None}
    for name, value in wrong.items():
        with pytest.raises(
            BadValue, match=rf"got {re.escape(repr(value))} for {name}; .* accepted"
        ):
            tcp_service(TCPSettings(**{name: value}))
    others: Any = DatagramLimits()
    with pytest.raises(BadValue, match=r"for limits; Limits is accepted"):
        tcp_service(TCPSettings(limits=others))
    # One observer is not a list of them.
    with pytest.raises(BadValue, match=r"for observers; a list is accepted, such as \[<"):
        tcp_service(TCPSettings(observers=cast(Any, Failing())))
    each: Any = "5"
    with pytest.raises(BadValue, match=r"got '5' for max_per_address; int \| None is accepted"):
        tcp_service(TCPSettings(limits=Limits(max_per_address=each)))
    # As of the options: 0 would not be "no time-out", but nobody served.
    for none in Limits(idle_timeout=0), Limits(max_per_address=0), Limits(max_connections=0):
        with pytest.raises(BadValue, match=r"got 0 for \w+; a number that is more than 0 is"):
            tcp_service(TCPSettings(limits=none))
    with pytest.raises(BadValue, match="got 0 for max_output; a number that is more than 0 is"):
        udp_service(UDPSettings(max_output=0))
    zeros = DatagramLimits(rate=0, burst=0, loop_guard=0, receive_buffer=0)
    udp_service(UDPSettings(port=0, drain=0, limits=zeros))
    tcp_service(TCPSettings(port=0, drain=0, drain_quiet=0))
    with pytest.raises(BadValue, match=r"a list is accepted, such as \['localhost'\]"):
        udp_service(UDPSettings(interfaces="localhost"))
    assert udp_service(UDPSettings(interfaces="*")).settings.hosts() == ("0.0.0.0", "::")


def test_a_factory_for_endpoints_of_ones_own_serves_the_declared_proxies_only() -> None:
    header = b"PROXY TCP4 198.51.100.9 10.0.0.1 40001 12000\r\n"
    for proxies, served in (("192.0.2.0/24", True), ("10.0.0.5", False)):
        wire = Wire(tcp_factory(TCPSettings(proxy_from=proxies), MemoryReactorClock()))
        assert wire.send(header + b"hello") == (b"HELLO" if served else b"")
        assert wire.was_aborted() is not served


async def test_a_protocol_for_a_port_of_ones_own_answers_datagrams() -> None:
    own: Any = reactor
    answering = udp_protocol(UDPSettings(transforms=["reverse"]))
    port = own.listenUDP(0, answering, interface="127.0.0.1")
    target = Target(host="127.0.0.1", port=port.getHost().port, udp=True)
    assert await ask(target, b"abc", timeout=10) == b"cba"
    await port.stopListening()


@pytest.mark.parametrize("kind", SERVICES)
async def test_what_serves_ports_of_ones_own_leaves_no_timer_and_tells_what_it_held_back(
    kind: str, said: list[str]
) -> None:
    """What is left in the reactor fails each test."""

    def fail(text: str) -> str:
        raise ValueError("no good")

    own: Any = reactor
    listens: Any = own.listenUDP if kind == "udp" else own.listenTCP
    answering: object = (
        udp_protocol(UDPSettings(transforms=[fail]))
        if kind == "udp"
        else tcp_factory(TCPSettings(transforms=[fail]))
    )
    port = listens(0, answering, interface="127.0.0.1")
    target = Target(port=port.getHost().port, udp=kind == "udp")
    for _ in range(2):
        with pytest.raises(NetworkError):
            await ask(target, b"abc", timeout=0.2 if target.udp else 10, retries=0)
    await port.stopListening()
    held_back = f"{kind.upper()}: transform fail: ValueError: 1 more since the last line"
    for _ in range(500):  # The last connection may still be open.
        if held_back not in said:
            await deferLater(reactor, 0.01)
    assert held_back in said


@pytest.mark.parametrize("kind", SERVICES)
async def test_functions_and_declared_transforms_are_served_as_they_are(kind: str) -> None:
    """With no name anywhere: plain, asynchronous, a class, an object, and one by its name."""
    service: Any = SERVICES[kind]([shout, politely, "reverse", Twice, _Mark()])
    assert service.chain.name == "shout | politely | reverse | twice | _Mark"
    service.startService()
    target = Target(host="127.0.0.1", port=port_of(service), udp=kind == "udp")
    assert await ask(target, b"tea", timeout=10) == b"<esaelp ,!AETesaelp ,!AET>"
    await service.stopService()


@pytest.mark.parametrize("kind", SERVICES)
def test_what_is_no_transform_is_refused_with_what_is_expected(kind: str) -> None:
    for wanted, said in (
        ([lambda text: text], "the message of .*<lambda> has no annotation; annotate it `str`"),
        ([7], "7 is not a transform; point at a function, a class"),
        ([], r"got \[\] as transforms; a list is accepted, such as \['uppercase'\]"),
        ("reverse", "got 'reverse' as transforms; a list is accepted"),
    ):
        with pytest.raises(UppercaseError, match=said):
            SERVICES[kind](wanted)  # type: ignore[arg-type]


class Ports(UDPService):
    """A service of addresses in memory; `taken` says which of them somebody else has."""

    def __init__(self, settings: UDPSettings, taken: Callable[[str, int], bool]) -> None:
        super().__init__(settings)
        self.open: list[tuple[str, int]] = []
        self.tries = 0
        self._taken = taken

    def open_address(self, host: str, port: int, workers: int) -> list[Any]:
        if port == 0:
            self.tries += 1
            port = 40_000 + self.tries
        if self._taken(host, port):
            raise cannot_listen("UDP", f"{host}:{port}", OSError(98, "in use")) from OSError(98, "")
        address = host, port
        self.open.append(address)
        close = partial(self.open.remove, address)
        return [SimpleNamespace(getsockname=lambda: address, close=close)]


def test_any_free_port_is_the_same_in_both_families() -> None:
    """A port that is free in one may be taken in the other: then another is tried."""
    ports = Ports(UDPSettings(port=0), lambda host, port: host == "::1" and port < 40_003)
    ports.open_shorthands(1)
    assert ports.open == [("127.0.0.1", 40_003), ("::1", 40_003)]


def test_the_search_for_a_common_free_port_ends() -> None:
    ports = Ports(UDPSettings(port=0), lambda host, port: host == "::1")
    with pytest.raises(CannotListen):
        ports.open_shorthands(1)
    assert ports.tries == FREE_PORT_TRIES
    assert ports.open == []


@pytest.mark.parametrize(
    ("interfaces", "served"), [([], "127.0.0.1"), (["localhost"], "127.0.0.1"), (["*"], "0.0.0.0")]
)
def test_a_machine_without_ipv6_serves_ipv4_unless_ipv6_was_asked_for(
    interfaces: list[str], served: str, said: list[str]
) -> None:
    class NoIPv6(Ports):
        def open_address(self, host: str, port: int, workers: int) -> list[Any]:
            if ":" in host:
                error = OSError(99, "no such address")
                raise cannot_listen("UDP", f"[{host}]:{port}", error) from error
            return super().open_address(host, port, workers)

    ports = NoIPv6(UDPSettings(port=7, interfaces=interfaces), lambda host, port: False)
    ports.open_shorthands(1)
    assert ports.open == [(served, 7)]
    assert said == ["UDP: this machine has no IPv6; IPv4 only is served"]
    for asked_for in ("::1", "[::1]", "0:0:0:0:0:0:0:1"):
        ports = NoIPv6(UDPSettings(port=7, interfaces=[asked_for]), lambda *_: False)
        with pytest.raises(CannotListen, match="this machine has no such address"):
            ports.open_shorthands(1)


def test_a_machine_without_ipv4_is_not_served_by_ipv6_alone(said: list[str]) -> None:
    def lacks(host: str, port: int, workers: int) -> list[Any]:
        error = OSError(99, "no such address")
        raise cannot_listen("UDP", f"{host}:{port}", error) from error

    ports = Ports(UDPSettings(port=7), lambda *_: False)
    ports.open_address = lacks  # type: ignore[method-assign]
    with pytest.raises(CannotListen, match=r"UDP 127\.0\.0\.1:7: this machine has no such"):
        ports.open_shorthands(1)
    assert said == []


@pytest.mark.parametrize(("listen", "is_said"), [([], True), (["udp:0"], False)])
async def test_that_nobody_else_can_reach_it_is_said_where_it_is_true(
    listen: list[str], is_said: bool, said: list[str]
) -> None:
    service = udp_service(UDPSettings(port=0, interfaces=["127.0.0.1"], listen=listen))
    service.startService()
    await service.stopService()
    assert any("only this machine can reach it" in line for line in said) is is_said
    assert not any("others reach" in line for line in said)


@implementer(IObserver)
class Failing:
    """An observer that cannot stand what it hears."""

    def notify(self, event: Event) -> None:
        raise ValueError(f"nothing is known of {type(event).__name__}")


@pytest.mark.parametrize("kind", ["tcp", "udp"])
async def test_an_observer_that_fails_costs_nobody_a_reply(kind: str, said: list[str]) -> None:
    observers = (Failing(),)
    service: TransformService = (
        tcp_service(TCPSettings(port=0, observers=observers))
        if kind == "tcp"
        else udp_service(UDPSettings(port=0, observers=observers))
    )
    service.startService()
    try:
        target = Target(port=port_of(service), udp=kind == "udp")
        assert [await ask(target, each) for each in (b"one", b"two")] == [b"ONE", b"TWO"]
    finally:
        await service.stopService()
    (told, *_) = [line for line in said if "observer Failing raised" in line]
    assert "ValueError: nothing is known of" in told


def test_what_is_done_again_and_again_goes_on_after_failures(logged_errors: Any) -> None:
    """The first failure of a row has a line in the log."""
    clock, calls = Clock(), list[float]()

    def fail() -> None:
        calls.append(clock.seconds())
        if len(calls) != 3:
            raise ValueError("no good")

    repeated = Repeated(fail, clock)
    repeated.start(1.0)
    clock.pump([1.0] * 3)
    repeated.end()
    repeated.end()
    assert calls == [0.0, 1.0, 2.0, 3.0]
    told = [text.partition("\n")[0] for text in logged_errors.flush()]
    assert told == [f"{fail} has failed, and is called again"] * 2
