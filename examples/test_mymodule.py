from uppercase.testing import TransformContract, connect, connect_udp


class TestShout(TransformContract):
    specification = "mymodule:shout"


class TestTotal(TransformContract):
    specification = "total:total"
    examples = (b"1 2 3", b"-4")


def test_a_line_is_answered() -> None:
    connection = connect("mymodule:shout", framing="line")
    connection.send(b"hel")
    connection.send(b"lo\nagain\n")
    assert connection.receive() == b"HELLO!\nAGAIN!\n"


def test_a_datagram_is_answered() -> None:
    client = connect_udp("mymodule:shout")
    client.send(b"hello")
    assert client.receive() == [b"HELLO!"]
