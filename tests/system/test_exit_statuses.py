"""How the services end, as `docs/reference/exit-statuses` says."""

import socket
import subprocess
from collections.abc import Iterator

import pytest

from tests.system.processes import ROOT, environment, tool

PAGE = ROOT / "docs" / "reference" / "exit-statuses.md"


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that another program listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def ended(*command: str) -> int:
    return subprocess.run(
        command, env=environment(), stdin=subprocess.DEVNULL, capture_output=True, timeout=60
    ).returncode


@pytest.mark.parametrize(
    ("program", "usage"),
    [(("twistd", "-n", "--pidfile="), 1), (("twist",), 64)],
    ids=["twistd", "twist"],
)
def test_a_service_that_cannot_start(program: tuple[str, ...], usage: int, taken: int) -> None:
    name, *options = program
    command = (tool(name), *options)
    assert ended(*command, "uppercase-tcp", f"--port={taken}") == 1
    assert ended(*command, "uppercase-tcp", "--transform=nope") == usage
    assert ended(*command, "uppercase-udp", "--bogus") == usage
    assert f"| {usage} |" in PAGE.read_text()
