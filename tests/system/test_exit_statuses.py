"""How the services end, as `docs/reference/exit-statuses` says."""

import socket
from collections.abc import Iterator

import pytest

from tests.system.processes import ROOT, ended, tool

PAGE = ROOT / "docs" / "reference" / "exit-statuses.md"


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that another program listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


@pytest.mark.parametrize(
    ("program", "usage"),
    [(("twistd", "-n", "--pidfile="), 1), (("twist",), 64)],
    ids=["twistd", "twist"],
)
def test_a_service_that_cannot_start(program: tuple[str, ...], usage: int, taken: int) -> None:
    name, *options = program
    for arguments, status in (
        (["uppercase-tcp", f"--port={taken}"], 1),
        (["uppercase-tcp", "--transform=nope"], usage),
        (["uppercase-udp", "--bogus"], usage),
    ):
        assert ended([tool(name), *options, *arguments])[0] == status
    assert f"| {usage} |" in PAGE.read_text()
