"""Ask a server from a program (the library), and the `uppercase` command.

    from uppercase.client import Target, ask

    reply = await ask(Target("127.0.0.1", 12000, udp=True), b"hello")

The client stands beside the servers on the same core and never imports them. Names load on first
use: the command must not pay for Twisted, which the library is made of and the command is not.
"""

from typing import TYPE_CHECKING, Any

from uppercase._facade import load

if TYPE_CHECKING:
    from uppercase.client._asking import ask, connect, exchange
    from uppercase.client._session import Session
    from uppercase.client.target import TLS, Target, parse_target
    from uppercase.errors import ConnectionRefused, NetworkError, NoReply

_HOMES: dict[str, str] = {
    "NetworkError": "uppercase.errors",
    "NoReply": "uppercase.errors",
    "ConnectionRefused": "uppercase.errors",
    "Session": "uppercase.client._session",
    "Target": "uppercase.client.target",
    "TLS": "uppercase.client.target",
    "ask": "uppercase.client._asking",
    "connect": "uppercase.client._asking",
    "exchange": "uppercase.client._asking",
    "parse_target": "uppercase.client.target",
}

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


def __getattr__(name: str) -> Any:
    """Load a public name from its module."""
    return load(__name__, _HOMES, name)
