r"""For tests of transforms: the contract kit, and a server and client without sockets.

    from uppercase.testing import TransformContract, connect, connect_udp

    class TestShout(TransformContract):
        specification = "mymodule:shout"

    def test_a_line_is_answered():
        connection = connect("mymodule:shout", framing="line")
        connection.send(b"hello\n")
        assert connection.receive() == b"HELLO!\n"

    def test_a_datagram_is_answered():
        client = connect_udp("mymodule:shout")
        client.send(b"hello")
        assert client.receive() == [b"HELLO!"]

The contract kit needs pytest and hypothesis: `pip install 'uppercase[testing]'`. Names load on
first use, and nothing of the package itself imports this one but the command that runs the kit.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from uppercase.testing.connection import Connection, connect
    from uppercase.testing.contract import TransformContract
    from uppercase.testing.datagrams import UDPClient, connect_udp
    from uppercase.testing.examination import Broken, Law
    from uppercase.testing.laws import LAWS, Report, check

_HOMES: dict[str, str] = {
    "LAWS": "laws",
    "Broken": "examination",
    "Connection": "connection",
    "Law": "examination",
    "Report": "laws",
    "TransformContract": "contract",
    "check": "laws",
    "UDPClient": "datagrams",
    "connect": "connection",
    "connect_udp": "datagrams",
}

__all__ = [
    "LAWS",
    "Broken",
    "Connection",
    "Law",
    "Report",
    "TransformContract",
    "UDPClient",
    "check",
    "connect",
    "connect_udp",
]


def __getattr__(name: str) -> Any:
    """Load a public name from its module (PEP 562)."""
    try:
        home = _HOMES[name]
    except KeyError:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None
    try:
        return getattr(import_module(f"{__name__}.{home}"), name)
    except ModuleNotFoundError as error:
        if str(error.name).partition(".")[0] != "hypothesis":
            raise
        raise ImportError(
            "the contract kit needs hypothesis; install it with: pip install 'uppercase[testing]'"
        ) from error
