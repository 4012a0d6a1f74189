"""A person who types a line and reads its reply: at the keyboard, and over a stream server.

The prompt is the lecture's. Where standard output is a terminal too, the line editor draws it, with
history and editing; otherwise it goes to standard error, and standard output has replies alone.

A stream has no messages: a reply is complete when it ends with a newline, when the server ends the
conversation, or when bytes have come and no more follow. A server that closes after each reply, as
the lecture's does, is connected to again for the next line.
"""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, Final

import click
from twisted.internet.defer import DeferredQueue
from twisted.internet.defer import TimeoutError as Silence
from twisted.python.failure import Failure

from uppercase.client._endpoints import Conversation, IReactor, open_connection
from uppercase.client.connecting import explain
from uppercase.client.target import Target
from uppercase.commands._reactor import CHUNK
from uppercase.commands.cli import write_all
from uppercase.errors import NetworkError

PROMPT: Final = "Input lowercase sentence: "

LINE_QUIET_TIME: Final = 0.3
"""When a reply to a typed line that does not end with a newline counts as complete: after this
silence. More than a round trip round the earth, less than a person minds."""


class LineConversation:
    """A conversation with a stream server.

    Args:
        reactor: the reactor.
        target: the server.
        timeout: seconds to wait for a reply to begin.
    """

    def __init__(self, reactor: IReactor, target: Target, timeout: float) -> None:
        self._reactor = reactor
        self._target = target
        self._timeout = timeout
        self._connection = _Connection()
        self._fresh = True

    async def connect(self) -> None:
        """Connect to the server, for the first time or again; see `open_connection`."""
        self.close()
        self._connection = _Connection()
        await open_connection(self._target, self._connection, self._reactor)
        self._fresh = True

    async def ask(self, line: bytes) -> bytes:
        """Send a line, with a newline, and return what the server replies.

        What comes of an earlier reply after it seemed complete precedes the next one.

        Raises:
            NetworkError: the server is gone, or says nothing in time.
        """
        late = b"".join(self._connection.chunks.pending)
        self._connection.chunks.pending.clear()
        if self._connection.ended:
            await self.connect()
        reply = await self._exchange(line)
        if not reply and not self._fresh:
            # It closed just when we sent: not this line's fault.
            await self.connect()
            reply = await self._exchange(line)
        if not reply:
            raise NetworkError(f"{self._target} closed the connection without a reply")
        self._fresh = False
        return late + reply

    def close(self) -> None:
        """End the conversation."""
        if self._connection.transport is not None:
            self._connection.transport.abortConnection()

    async def _exchange(self, line: bytes) -> bytes:
        """Send a line and return the reply, b"" if the server closed or broke off before it."""
        reply = b""
        self._connection.transport.write(line + b"\n")
        patience = self._timeout
        try:
            while not reply.endswith(b"\n"):
                data = await self._connection.chunks.get().addTimeout(patience, self._reactor)
                if not data:
                    break
                reply += data
                patience = LINE_QUIET_TIME
        except Silence as error:
            if not reply:
                raise explain(TimeoutError(), self._target, self._timeout) from error
        return reply


class _Connection(Conversation):
    """Keeps what has come until it is asked for.

    Attributes:
        chunks: what has come, b"" last.
        ended: whether no more comes.
    """

    transport: Any = None

    def __init__(self) -> None:
        self.chunks: DeferredQueue[bytes] = DeferredQueue()
        self.ended = False

    def dataReceived(self, data: bytes) -> None:
        """Keep it."""
        self.chunks.put(data)

    def lost(self, reason: Failure) -> None:
        """Know that no more comes."""
        self.ended = True
        self.chunks.put(b"")


def converse(ask: Callable[[bytes], bytes | None], complain: Callable[[str], None]) -> bool:
    """Ask for lines and show their replies until the end of input (Ctrl-D).

    Args:
        ask: gives the reply to a line, which has no line ending, or None if there was none.
        complain: told, with a sentence, when there was no reply.

    Returns:
        Whether every line was answered.
    """
    all_answered = True
    for line in _lines():
        reply = ask(line)
        if reply is None:
            all_answered = False
            complain("no reply; type it again, or end with Ctrl-D")
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
