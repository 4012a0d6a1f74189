"""`uppercase send`: what is typed or piped in goes to a server, and its replies come out.

Which of four ways it is depends on the transport and on whether a person types. Standard output
gets replies and nothing else.

The prompt for a person is the lecture's. Where standard output is a terminal too, the line editor
draws it, with history and editing; otherwise it goes to standard error.
"""

import os
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final

import click

from uppercase.client.target import Target, reachable
from uppercase.commands import CHUNK, NETWORK, OK, _options, look_up, running, write_all
from uppercase.commands._options import COUNT, SIZE
from uppercase.commands.group import Command, say, section
from uppercase.core.framing import SizeFramer, make_framer
from uppercase.errors import FramingError, UserError
from uppercase.limits import IPV4_MAX_DATAGRAM, IPV6_MAX_DATAGRAM, UDP_RETRIES

PROMPT: Final = "Input lowercase sentence: "

UDP_WINDOW: Final = 16
"""Requests that a client has under way: their datagrams of 1,232 bytes fit many times into Linux's
default receive buffer (208 KiB), and 16 per round trip are no burden for a network."""

UDP_MAX_WINDOW: Final = 512
"""Each request under way has a socket of its own; Linux gives a process 1,024 descriptors."""

_CONNECT_NOTICE: Final = 0.1
"""When a person is told what we wait for: anything shorter feels immediate."""

_tcp = section("TCP")
_udp = section("UDP")


@click.command("send", cls=Command)
@_options.server
@_options.timeout(
    "Waiting",
    "Longest silence while a reply is owed. "
    "UDP: the wait before a message is sent again, then twice as long each time.",
)
@_tcp("--allow-empty", bool, "In a pipe, a server that ends without any reply has answered.")
@_udp(
    "--retries",
    COUNT,
    "How often a message is sent again, at most.",
    show_default=str(UDP_RETRIES),
)
@_udp(
    "--window",
    click.IntRange(1, UDP_MAX_WINDOW),
    "Requests under way at once.",
    metavar="N",
    show_default=str(UDP_WINDOW),
)
@_udp("--chunk", SIZE.positive, "Send SIZE bytes of input in each datagram; without it, a line.")
@_udp(
    "--on-loss",
    click.Choice(["fail", "skip", "empty"]),
    "A message without reply ends it (fail), is left out (skip) "
    "or is an empty line (empty). The exit status is 1 in each case.",
    show_default="fail",
)
@_udp("--no-warn", bool, "Do not warn of datagrams that may be cut into fragments.")
@_udp(
    "--one-socket",
    bool,
    "Send all from one port, one at a time: a lab then numbers them 1, 2, 3, ...",
)
@_udp("-v", "--verbose", bool, "Say when a message is sent again.")
def send(target: Target, timeout: float, allow_empty: bool, **udp_options: Any) -> int:
    """Send what is typed or piped in, and print the replies.

    On a terminal each line gets a reply, and Ctrl-D ends. In a pipe TCP is a byte-exact filter;
    UDP sends a datagram for each line and prints the replies in the order of the lines.

    Examples:
        uppercase send                       type lines to 127.0.0.1:12000
        uppercase send < in.txt > out.txt    a file through TCP, byte for byte
        uppercase send -u < in.txt           a datagram per line, asked again if lost
        uppercase send --tls --ca ca.pem example.org:12001
    """
    if sys.stdin is None:
        raise UserError("standard input is closed; to send nothing, use </dev/null")
    if target.udp:
        if allow_empty:
            raise UserError(
                "got --allow-empty, but over UDP an empty datagram is a reply; leave it out"
            )
        return _send_datagrams(target, timeout, **udp_options)
    for name, value in udp_options.items():
        if value is not None and value is not False:
            raise UserError(f"got --{name.replace('_', '-')}, which is for UDP only; add -u")
    return _send_stream(target, timeout, allow_empty)


# What follows imports Twisted when it is called: `--help` must not pay for it.


def _send_stream(target: Target, timeout: float, allow_empty: bool) -> int:
    from uppercase.commands.send._stream import Filter, LineConversation, Source

    typed = sys.stdin.isatty()
    if typed and allow_empty:
        raise UserError("got --allow-empty at a keyboard; it is for input from a pipe or file")
    with running() as (reactor, wait):
        lines = LineConversation(reactor, target, timeout)
        piped = Filter(reactor, target, Source(reactor), timeout, allow_empty)
        with _notice(target):
            wait(lines.connect() if typed else piped.connect())
        if typed:
            converse(lambda line: wait(lines.ask(line)))
        else:
            wait(piped.run())
    return OK


def _send_datagrams(
    target: Target,
    timeout: float,
    *,
    retries: int | None,
    window: int | None,
    chunk: int | None,
    on_loss: str | None,
    no_warn: bool,
    one_socket: bool,
    verbose: bool,
) -> int:
    from uppercase.client.session import Datagrams
    from uppercase.commands.send._datagrams import Messages
    from uppercase.commands.send._stream import Source

    addresses = look_up(reachable, target)
    only_ipv6 = all(address.family == socket.AF_INET6 for address in addresses)
    limit = IPV6_MAX_DATAGRAM if only_ipv6 else IPV4_MAX_DATAGRAM
    again = UDP_RETRIES if retries is None else retries
    if one_socket and window not in (None, 1):
        raise UserError(f"got --one-socket and --window={window}; one socket takes one at a time")
    typed = sys.stdin.isatty() and chunk is None
    if chunk is not None and chunk > limit:
        raise UserError(f"got --chunk={chunk}; a datagram carries at most {limit:,} bytes")
    if chunk is not None and on_loss == "empty":
        raise UserError("got --chunk and --on-loss=empty, but chunks have no empty lines")
    framer = SizeFramer(chunk) if chunk else make_framer("line", max_length=limit)
    places = 1 if one_socket else window or UDP_WINDOW
    with running() as (reactor, wait):
        datagrams = Datagrams(reactor, target, addresses, timeout, again, one_socket)
        messages = Messages(datagrams, on_loss or "fail", not no_warn, verbose)
        try:
            if typed:
                return OK if converse(lambda line: wait(messages.ask(line))) else NETWORK
            wait(messages.filter(Source(reactor), framer, places))
        except FramingError as error:
            raise UserError(
                f"a message of the input is too large for a datagram: more than {limit:,} bytes; "
                "cut the input with --chunk, or use TCP"
            ) from error
        finally:
            datagrams.close()
            if messages.lost:
                say(messages.losses())
    return NETWORK if messages.lost else OK


def converse(ask: Callable[[bytes], bytes | None]) -> bool:
    """Ask for lines and show their replies until the end of input (Ctrl-D)."""
    all_answered = True
    for line in _lines():
        reply = ask(line)
        if reply is None:
            all_answered = False
            say("no reply; type it again, or end with Ctrl-D")
        else:
            ending = b"" if reply.endswith(b"\n") else b"\n"
            write_all(reply + ending)
    return all_answered


def _lines() -> Iterator[bytes]:
    read = _read_edited if sys.stdout.isatty() else _read_plain
    while (line := read()) is not None:
        yield line
    # The shell's prompt belongs on a line of its own.
    click.echo(err=True)


def _read_edited() -> bytes | None:
    """Read with the line editor, which `input` uses once it is imported."""
    with suppress(ImportError):
        import readline  # noqa: F401  (its import is its use)
    sys.stdin.reconfigure(errors="surrogateescape")  # type: ignore[union-attr]
    try:
        line = input(PROMPT)
    except (EOFError, OSError):  # OSError: the terminal is gone.
        return None
    return line.encode(sys.stdin.encoding, "surrogateescape")


def _read_plain() -> bytes | None:
    """Read with what the terminal itself offers; the prompt goes to standard error."""
    click.echo(PROMPT, nl=False, err=True)
    try:
        line = os.read(sys.stdin.fileno(), CHUNK)
    except OSError:
        return None
    return line.rstrip(b"\r\n") if line else None


@contextmanager
def _notice(target: Target) -> Iterator[None]:
    """Tell a person what takes so long."""
    timer = threading.Timer(_CONNECT_NOTICE, say, [f"connecting to {target} ..."])
    if sys.stderr.isatty():
        timer.start()
    try:
        yield
    finally:
        timer.cancel()
