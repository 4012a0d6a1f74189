"""Ask a server from a program: the library that the `uppercase` command stands on.

    from uppercase.client import Target, ask

    reply = await ask(Target("127.0.0.1", 12000, udp=True), b"hello")

The client stands beside the servers on the same core and never imports them. Names load on first
use: the command must not pay for Twisted, which the library is made of and the command is not.
"""

from typing import TYPE_CHECKING

from uppercase import lazy

if TYPE_CHECKING:
    from uppercase.client.session import Session, ask, connect, exchange
    from uppercase.client.target import TLS, Target, parse_target
    from uppercase.errors import ConnectionRefused, NetworkError, NoReply

__all__ = [
    "TLS",
    "ConnectionRefused",
    "NetworkError",
    "NoReply",
    "Session",
    "Target",
    "ask",
    "connect",
    "exchange",
    "parse_target",
]

lazy(__name__, __all__, ["..errors", ".target", ".session"])
