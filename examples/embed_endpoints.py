from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.task import react

from uppercase.services import TCPSettings, UDPSettings, tcp_factory, udp_protocol


async def main(reactor: Any) -> None:
    factory = tcp_factory(TCPSettings(transforms=["reverse"]), reactor)
    port = await serverFromString(reactor, "tcp:12003:interface=127.0.0.1").listen(factory)
    print("ready:", port.getHost())
    protocol = udp_protocol(UDPSettings(transforms=["reverse"]), reactor)
    print("ready:", reactor.listenUDP(12003, protocol, "127.0.0.1").getHost())
    await Deferred()


react(main)
