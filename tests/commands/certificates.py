"""A throw-away authority's certificate for loopback, for the client's tests."""

import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests import certificates

__all__ = ["Certificate", "make_certificate"]


@dataclass(frozen=True, slots=True)
class Certificate:
    """A self-signed certificate for 127.0.0.1.

    Attributes:
        path: the PEM file of certificate and key; as `--ca` it makes the certificate trusted.
        wrap: makes an accepted connection a TLS connection.
    """

    path: Path
    wrap: Callable[[socket.socket], socket.socket]


def make_certificate(folder: Path) -> Certificate:
    """Make one that is valid for a day, for no name."""
    made = certificates.make_certificate(folder, "loopback")
    path = folder / "loopback.pem"
    path.write_bytes(made.key.read_bytes() + made.cert.read_bytes())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    return Certificate(path, lambda connection: context.wrap_socket(connection, server_side=True))
