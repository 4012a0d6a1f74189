"""What a person sees who runs `uppercase send` in a terminal."""

import signal
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.client.servers import (
    TcpBehaviour,
    deaf_listener,
    drop,
    free_port,
    one_reply,
    silent,
    strip_newline,
    tcp_server,
    udp_server,
    upper_stream,
)
from tests.commands.command import Terminal, terminal

PROMPT = "Input lowercase sentence:"


def ask(session: Terminal, line: str, reply: str) -> None:
    session.see(PROMPT)
    session.type(line)
    session.see(line)  # the terminal's echo
    session.see(reply)


@pytest.mark.parametrize("behave", [upper_stream, one_reply, strip_newline])
def test_each_typed_line_is_answered_over_tcp(behave: TcpBehaviour) -> None:
    """Whether the server goes on, closes after each reply, or drops the newline."""
    with tcp_server(behave) as server, terminal("send", server.address) as session:
        ask(session, "hello", "HELLO")
        ask(session, "world", "WORLD")
        session.see(PROMPT)
        session.press("d")
        assert session.status() == 0


def test_each_typed_line_is_a_datagram_without_newline() -> None:
    with udp_server() as server, terminal("send", "-u", server.address) as session:
        ask(session, "hello", "HELLO")
        ask(session, "", "")
        ask(session, "world", "WORLD")
        session.see(PROMPT)
        session.press("d")
        assert session.status() == 0
    assert server.received == [b"hello", b"", b"world"]


def test_the_arrow_keys_bring_back_what_was_typed() -> None:
    with udp_server() as server, terminal("send", "-u", server.address) as session:
        ask(session, "hello", "HELLO")
        session.see(PROMPT)
        session.type("\x10")  # Ctrl-P, the line editor's "previous"
        session.see("HELLO")
        session.see(PROMPT)
        session.press("d")
        assert session.status() == 0
    assert server.received == [b"hello", b"hello"]


def test_standard_output_has_the_replies_alone(tmp_path: Path) -> None:
    """With its output in a file, prompt and echo are on the terminal only."""
    replies = tmp_path / "replies"
    with (
        replies.open("wb") as file,
        tcp_server() as server,
        terminal("send", server.address, stdout=file.fileno()) as session,
    ):
        for line in "hello", "world":
            session.see(PROMPT)
            session.type(line)
        session.see(PROMPT)
        session.press("d")
        assert session.status() == 0
    assert replies.read_bytes() == b"HELLO\nWORLD\n"


@pytest.mark.parametrize("transport", ["tcp", "udp"])
def test_a_server_that_is_gone_is_one_sentence(transport: str) -> None:
    options = ["-u"] if transport == "udp" else []
    with ExitStack() as stack:
        with udp_server() if options else tcp_server(one_reply) as server:
            session = stack.enter_context(terminal("send", *options, server.address))
            ask(session, "hello", "HELLO")
        session.see(PROMPT)
        session.type("again")
        session.see(f"nothing listens on {transport.upper()} {server.address}")
        assert b"Traceback" not in session.see_end()
        assert session.status() == 1


def test_nothing_listening_is_said_before_the_first_prompt() -> None:
    with terminal("send", f":{free_port()}") as session:
        assert PROMPT.encode() not in session.see("nothing listens on TCP")
        assert session.status() == 1


def test_a_connection_that_takes_its_time_is_announced() -> None:
    with deaf_listener() as server, terminal("send", server.address) as session:
        session.see(f"connecting to TCP {server.address} ...")
        session.press("c")
        assert b"Traceback" not in session.see_end()
        assert session.status() == -signal.SIGINT


def test_a_lost_reply_is_said_and_the_next_line_may_be_typed() -> None:
    with (
        udp_server(drop(0)) as server,
        terminal("send", "-u", "-W", "1s", "--retries=0", server.address) as session,
    ):
        ask(session, "hello", "no reply")
        ask(session, "world", "WORLD")
        session.see(PROMPT)
        session.press("d")
        assert session.status() == 1


@pytest.mark.parametrize("waiting", ["for input", "for a reply"])
def test_ctrl_c_ends_it_at_once_and_quietly(waiting: str) -> None:
    with udp_server(silent) as server, terminal("send", "-u", "-W1h", server.address) as session:
        session.see(PROMPT)
        if waiting == "for a reply":
            session.type("hello")
            session.see("hello")
            server.wait_for(1)
        session.rest()
        session.press("c")
        assert b"Traceback" not in session.see_end()
        assert session.status() == -signal.SIGINT


def test_what_is_about_a_pipe_is_refused_at_a_keyboard() -> None:
    with terminal("send", "--allow-empty", "127.0.0.1:1") as session:
        session.see("got --allow-empty at a keyboard; it is for input from a pipe or file")
        assert session.status() == 2


@pytest.mark.parametrize("options", [[], ["-u"]])
def test_a_closed_terminal_ends_it(options: list[str]) -> None:
    context = udp_server() if options else tcp_server()
    with context as server, terminal("send", *options, server.address) as session:
        ask(session, "hello", "HELLO")
        session.see(PROMPT)
        session.hang_up()
        assert session.status() in (0, -signal.SIGHUP)
