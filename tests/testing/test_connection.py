"""The server and client in memory behave as a real connection does."""

import subprocess
import sys

import pytest
from twisted.internet.defer import Deferred

from tests.system.processes import environment
from uppercase import transform
from uppercase.core.events import Incomplete, Outcome
from uppercase.errors import UnknownName, UserError
from uppercase.limits import CLOSE_TIMEOUT, Limits
from uppercase.testing import connect


@transform(streaming=True)
def shout(text: str) -> str:
    return text.upper()


def test_without_anything_it_serves_upper_case() -> None:
    connection = connect()
    connection.send(b"hello")
    assert connection.receive() == b"HELLO"


def test_what_was_received_is_given_once() -> None:
    connection = connect()
    connection.send(b"a")
    connection.send(b"b")
    assert connection.receive() == b"AB"
    assert connection.receive() == b""


def test_a_message_arrives_in_as_many_chunks_as_asked_for() -> None:
    whole = connect("hex-decode")
    whole.send(b"6869", cuts=[1, 3, 99])
    assert whole.receive() == b"hi"
    cut = connect(shout, framing="segment")
    cut.send(b"hello", cuts=[2])
    assert cut.receive() == b"HE"


def test_transforms_are_chained_in_the_order_given() -> None:
    connection = connect("strip", shout, "caesar:shift=1", framing="line")
    connection.send(b" abc \n")
    assert connection.receive() == b"BCD\n"


def test_a_plain_function_will_do() -> None:
    def reverse(text: str) -> str:
        return text[::-1]

    connection = connect(reverse)
    connection.send(b"abc\r\n")
    assert connection.receive() == b"cba\r\n"


def test_a_client_that_waits_within_a_line_is_told_of_as_in_a_server() -> None:
    connection = connect(framing="line")
    connection.send(b"hello")
    connection.advance(10.0)
    assert [event for event in connection.events if isinstance(event, Incomplete)] == [
        Incomplete("192.0.2.1:49152", 5)
    ]


def test_after_a_half_close_the_rest_is_answered_and_the_connection_ends() -> None:
    connection = connect("reverse", framing="line")
    connection.send(b"no newline")
    assert connection.receive() == b""
    connection.half_close()
    assert connection.receive() == b"enilwen on"
    assert connection.ended
    assert connection.closed
    assert connection.outcome is Outcome.FINISHED


def test_a_failed_transform_ends_the_connection_and_is_told() -> None:
    connection = connect("hex-decode")
    connection.send(b"68x")
    assert connection.receive() == b"h"
    connection.send(b"6869")
    assert (connection.ended, connection.closed) == (True, False)
    connection.half_close()
    assert (connection.ended, connection.closed) == (True, True)
    assert connection.outcome is Outcome.FAILED
    assert str(connection.error).startswith("transform 'hex-decode' failed: ")
    assert "got byte 0x78 (x) at offset 2: hexadecimal is made of" in str(connection.error)


def test_time_passes_for_the_server_when_the_test_says_so() -> None:
    connection = connect("reverse", framing="segment")
    connection.send(b"ab")
    assert connection.receive() == b"ba"
    closed = []
    for seconds in (CLOSE_TIMEOUT / 2, CLOSE_TIMEOUT):
        connection.advance(seconds)
        closed.append(connection.closed)
    assert closed == [False, True]
    assert connection.clock.seconds() == 1.5 * CLOSE_TIMEOUT


def test_a_client_can_vanish() -> None:
    connection = connect()
    connection.disconnect()
    assert connection.closed
    assert connection.outcome is Outcome.DISCONNECTED
    connection.send(b"to nobody")
    assert connection.receive() == b""


def test_an_awaited_reply_comes_when_the_test_makes_it_come() -> None:
    waiting: list[Deferred[str]] = []

    @transform
    def later(text: str) -> Deferred[str]:
        waiting.append(Deferred())
        return waiting[-1]

    connection = connect(later, framing="line")
    connection.send(b"one\ntwo\n")
    waiting[1].callback("second")
    assert connection.receive() == b""
    waiting[0].callback("first")
    assert connection.receive() == b"first\nsecond\n"


def test_a_server_that_does_not_read_gets_the_rest_when_it_does() -> None:
    waiting: list[Deferred[str]] = []

    @transform
    def later(text: str) -> Deferred[str]:
        waiting.append(Deferred())
        return waiting[-1]

    connection = connect(later, framing="line", limits=Limits(async_window=1))
    for line in (b"one\n", b"two\n"):
        connection.send(line)
    connection.half_close()
    assert len(waiting) == 1
    waiting[0].callback("first")
    connection.advance(0)
    assert len(waiting) == 2
    waiting[1].callback("second")
    connection.advance(0)
    assert connection.receive() == b"first\nsecond\n"
    assert connection.outcome is Outcome.FINISHED


def test_the_bounds_are_those_of_the_service() -> None:
    connection = connect("reverse", framing="line", limits=Limits(max_length=3))
    connection.send(b"abc\nabcd\n")
    assert connection.receive() == b"cba\n"
    connection.half_close()
    assert connection.outcome is Outcome.TOO_LONG
    bounded = connect("hex-encode", max_output=3)
    bounded.send(b"ab")
    bounded.half_close()
    assert bounded.outcome is Outcome.FAILED


def test_mistakes_are_told_as_on_the_command_line() -> None:
    with pytest.raises(UnknownName, match="did you mean 'caesar'"):
        connect("ceasar")
    with pytest.raises(UserError, match="needs whole messages"):
        connect("reverse", framing="stream")


def test_it_needs_neither_pytest_nor_hypothesis() -> None:
    code = (
        "import sys; sys.modules['hypothesis'] = sys.modules['pytest'] = None\n"
        "from uppercase.testing import connect\n"
        "c = connect(); c.send(b'hi'); assert c.receive() == b'HI'\n"
        "try: from uppercase.testing import TransformContract\n"
        "except ImportError as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=True
    )
    assert done.stdout == (
        "the contract kit needs hypothesis; install it with: "
        "pip install 'twisted-uppercase[testing]'\n"
    )
