"""The raw, non-blocking sockets of `uppercase bench`, connected to a target.

Bench alone has them, because a load generator must not be the bottleneck: everything else that
talks to a server does it with `uppercase.client`. No message is sent or read here.
"""

import socket
import ssl
import time
from collections.abc import Iterator

from uppercase.client.connecting import connect_udp, explain, open_socket, reachable, resolve
from uppercase.client.target import TLS, Target
from uppercase.errors import NoReply, UppercaseError, UserError
from uppercase.limits import CONNECT_TIMEOUT


def connect(target: Target, connections: int) -> Iterator[list[socket.socket]]:
    """Return the connections, non-blocking; over UDP those to each of the addresses in turn.

    Raises:
        NetworkError: one could not be had.
        UserError: the file of authorities cannot be used, or the system gives no socket.
    """
    if target.udp:
        for address in reachable(target):
            yield [connect_udp(target, address) for _ in range(connections)]
        return
    streams: list[socket.socket] = []
    try:
        while len(streams) < connections:
            streams.append(_connect_stream(target))
    except UppercaseError as error:
        for stream in streams:
            stream.close()
        if not streams or not isinstance(error, NoReply):
            raise
        raise NoReply(
            f"{target} let {len(streams)} of {connections} connections in and no more within "
            f"{CONNECT_TIMEOUT:g} s; one that serves a client at a time and closes after each "
            "reply, like the lecture's, cannot be loaded: bench needs a server that keeps its "
            "connections"
        ) from error
    yield streams


def _connect_stream(target: Target) -> socket.socket:
    """Return a stream socket, an `ssl.SSLSocket` if the target asks for TLS.

    Each address of the target is tried in turn, within `CONNECT_TIMEOUT` for all of them.
    """
    context = _tls_context(target.tls) if target.tls else None
    deadline = time.monotonic() + CONNECT_TIMEOUT
    last_error = OSError("no address")
    for address in resolve(target):
        try:
            connection = open_socket(address.family, socket.SOCK_STREAM)
        except OSError as error:
            last_error = error
            continue
        try:
            # Invariant: never 0, which would mean "do not block" and fail at once.
            connection.settimeout(max(deadline - time.monotonic(), 0.001))
            connection.connect(address.sockaddr)
            if address.family != socket.AF_UNIX:
                # A message must not wait for the acknowledgement of the one before.
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if context is not None:
                # An end without TLS's own goodbye is an error: what came may have been cut short.
                connection = context.wrap_socket(
                    connection, server_hostname=target.host, suppress_ragged_eofs=False
                )
            connection.setblocking(False)
        except OSError as error:
            connection.close()
            last_error = error
        else:
            return connection
    raise explain(last_error, target, CONNECT_TIMEOUT) from last_error


def _tls_context(tls: TLS) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=tls.ca)
    except OSError as error:
        raise UserError(
            f"got --ca={tls.ca}, which cannot be used ({error.strerror or error}); "
            "a PEM file of certificates is accepted"
        ) from error
    if not tls.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
