"""A reference solution of `tcp-server`: bytes are passed on as they come, and nobody ends it."""

import contextlib
import os
from socket import create_server

with create_server(("127.0.0.1", int(os.environ.get("UPPERCASE_PORT", "12000")))) as server:
    while True:
        connection, _ = server.accept()
        # A client that goes away is its own affair.
        with connection, contextlib.suppress(OSError):
            while data := connection.recv(65536):
                connection.sendall(data.upper())
