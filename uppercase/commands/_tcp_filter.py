"""A byte-exact filter through a stream server: input in, replies out, both at the same time.

One thread, so that a TLS connection is never used by two; memory is one chunk each way. Where the
reader of the output is slow, the filter waits for it and reads no more input meanwhile.
"""

import os
import select
import socket
import ssl
from contextlib import suppress

from uppercase.client.connecting import explain
from uppercase.client.target import Target
from uppercase.errors import NetworkError, UserError
from uppercase.limits import FILTER_CHUNK, TLS_QUIET_TIME

__all__ = ["filter_stream", "write_all"]

_NOT_NOW = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


def filter_stream(
    connection: socket.socket,
    target: Target,
    *,
    source: int,
    sink: int,
    timeout: float,
    allow_empty: bool = False,
) -> None:
    """Send all input, end the sending side, and write all replies.

    Args:
        connection: a connected socket; left open, its state undefined.
        target: the server, for messages.
        source: the descriptor to read from.
        sink: the descriptor to write to.
        timeout: seconds that the server may be owed something, or owe something, and do nothing.
        allow_empty: whether a server that was sent something may end without a byte of reply.

    Raises:
        NetworkError: the server went away or fell silent before it had and gave everything.
        UserError: the input cannot be read or the output cannot be written.
        BrokenPipeError: nobody reads the output any more.
    """
    connection.setblocking(False)
    _Filter(connection, target, source, sink, timeout, allow_empty).run()


def write_all(sink: int, data: bytes) -> None:
    """Write everything to a descriptor.

    Raises:
        UserError: the output cannot be written.
        BrokenPipeError: nobody reads it any more.
    """
    left = memoryview(data)
    while left:
        try:
            left = left[os.write(sink, left) :]
        except BlockingIOError:  # Whoever shares the output made it so.
            select.select([], [sink], [])
        except BrokenPipeError:
            raise
        except OSError as error:
            raise UserError(f"cannot write the output: {error.strerror}") from error


class _Filter:
    """The state of one filter: what is under way and which ends are still open."""

    def __init__(
        self,
        connection: socket.socket,
        target: Target,
        source: int,
        sink: int,
        timeout: float,
        allow_empty: bool,
    ) -> None:
        self._connection = connection
        self._tls = connection if isinstance(connection, ssl.SSLSocket) else None
        self._target = target
        self._source = source
        self._sink = sink
        self._timeout = timeout
        self._allow_empty = allow_empty
        self._unsent = memoryview(b"")
        self._sent = 0
        self._received = 0
        self._input_ended = False
        self._server_ended = False
        self._send_error: OSError | None = None

    def run(self) -> None:
        while not self._server_ended:
            patience = self._patience()
            if not self._wait(patience):
                if not self._owed_nothing_but_the_end():
                    raise self._silence()
                self._end_tls()
                return
            self._receive()
            if self._unsent:
                self._send()
        if self._unsent or self._send_error or not (self._input_ended or self._no_more_input()):
            raise NetworkError(
                f"{self._target} ended the conversation after {self._sent} bytes, "
                "before the end of the input"
            ) from self._send_error
        if self._sent and not self._received and not self._allow_empty:
            raise NetworkError(
                f"{self._target} ended the conversation without a reply; "
                "if there need be none, say --allow-empty"
            )

    def _wants_input(self) -> bool:
        return not (self._unsent or self._input_ended or self._send_error)

    def _owed_nothing_but_the_end(self) -> bool:
        """Return whether silence means that a TLS server is done: it is not told of our end."""
        answered = self._received or not self._sent or self._allow_empty
        return bool(self._tls and self._input_ended and not self._unsent and answered)

    def _patience(self) -> float | None:
        """Return the seconds to wait for something to happen; None while the input may pause."""
        if self._tls and self._tls.pending():
            return 0.0
        if self._owed_nothing_but_the_end():
            return TLS_QUIET_TIME
        return None if self._wants_input() else self._timeout

    def _wait(self, patience: float | None) -> bool:
        """Wait until something can be done, and read input if that is it.

        Returns:
            Whether anything can be done.
        """
        readers: list[int | socket.socket] = [self._connection]
        if self._wants_input():
            readers.append(self._source)
        writers = [self._connection] if self._unsent else []
        # select, because epoll takes no regular files.
        readable, writable, _ = select.select(readers, writers, [], patience)
        if self._source in readable:
            self._read_input()
        return bool(readable or writable or patience == 0)

    def _read_input(self) -> None:
        try:
            self._unsent = memoryview(os.read(self._source, FILTER_CHUNK))
        except OSError as error:
            raise UserError(f"cannot read the input: {error.strerror}") from error
        if not self._unsent:
            self._input_ended = True
            if self._tls is None:
                with suppress(OSError):  # The server has gone already; receiving tells.
                    self._connection.shutdown(socket.SHUT_WR)

    def _send(self) -> None:
        try:
            sent = self._connection.send(self._unsent)
        except _NOT_NOW:
            return
        except OSError as error:
            # What the server sent before it went is still to be read.
            self._send_error = error
            self._unsent = memoryview(b"")
            return
        self._unsent = self._unsent[sent:]
        self._sent += sent

    def _receive(self) -> None:
        try:
            data = self._connection.recv(FILTER_CHUNK)
        except _NOT_NOW:
            return
        except OSError as error:
            raise explain(error, self._target) from error
        self._received += len(data)
        if data:
            write_all(self._sink, data)
        else:
            self._server_ended = True

    def _no_more_input(self) -> bool:
        """Return whether the input ends here, without waiting for it."""
        readable, _, _ = select.select([self._source], [], [], 0)
        return bool(readable) and not os.read(self._source, 1)

    def _silence(self) -> NetworkError:
        what = "takes no more of the input" if self._unsent else "has not ended its replies"
        return NetworkError(
            f"{self._target} {what} and has been silent for {self._timeout:g} s (-W)"
        )

    def _end_tls(self) -> None:
        """Say goodbye; a reply that crosses it is an error, never lost in silence."""
        assert self._tls is not None
        self._tls.settimeout(self._timeout)
        try:
            self._tls.unwrap()
        except ssl.SSLError as error:
            if error.reason == "APPLICATION_DATA_AFTER_CLOSE_NOTIFY":
                raise NetworkError(
                    f"{self._target} went on replying when it had been silent for "
                    f"{TLS_QUIET_TIME:g} s, and the rest is lost; TLS has no half-close"
                ) from error
        except OSError:
            pass  # It closed without a goodbye, having sent all that it would.
