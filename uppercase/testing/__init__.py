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

The contract kit needs pytest and hypothesis: `pip install 'twisted-uppercase[testing]'`. Names load
on first use, and nothing of the package imports this one except the command that runs the kit.
"""

from typing import TYPE_CHECKING

from uppercase import lazy

if TYPE_CHECKING:
    from uppercase.testing._examination import Broken, Law
    from uppercase.testing._laws import LAWS, Report, TransformContract, check
    from uppercase.testing._memory import Connection, UDPClient, connect, connect_udp

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

# In this order: what works in memory needs neither pytest nor hypothesis.
lazy(__name__, __all__, ["._memory", "._laws"])
