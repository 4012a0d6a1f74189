"""What the client's tests share."""

import socket
from collections.abc import Iterator
from typing import Any

import pytest

from tests.client.servers import release_ports


@pytest.fixture(autouse=True)
def _ports() -> Iterator[None]:
    """Keep the ports where nothing is to listen from other tests that run at the same time."""
    yield
    release_ports()


@pytest.fixture
def both_families(monkeypatch: pytest.MonkeyPatch) -> str:
    """Return a name that stands for the loopback addresses of both families, IPv6 first."""
    name = "both.example"
    resolve = socket.getaddrinfo

    def answer(host: str, port: int, family: int = 0, *rest: Any) -> list[Any]:
        if host != name:
            return resolve(host, port, family, *rest)
        wanted = {socket.AF_INET6: "::1", socket.AF_INET: "127.0.0.1"}
        return [
            entry
            for known, address in wanted.items()
            if family in (known, socket.AF_UNSPEC)
            for entry in resolve(address, port, known, *rest)
        ]

    monkeypatch.setattr(socket, "getaddrinfo", answer)
    return name
