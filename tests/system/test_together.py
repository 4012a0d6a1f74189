"""Several services in one process, as `make serve` and containers run them."""

import signal
import socket
from pathlib import Path

import pytest

from tests.system.processes import Server, connect, receive_all, refused

FILE = """
[services.lecture]
protocol = "tcp"
port = 0
transform = "reverse"

[services.pinger]
protocol = "udp"
port = 0
interface = "127.0.0.1"
"""


@pytest.mark.parametrize("runner", ["twistd", "twist"])
def test_each_service_of_a_file_says_that_it_is_ready_and_they_stop_as_one(
    runner: str, tmp_path: Path
) -> None:
    """Each address has one ready line, what is wrong with a plugin too; one signal drains all."""
    (tmp_path / "services.toml").write_text(FILE)
    (tmp_path / "twisted" / "plugins").mkdir(parents=True)
    (tmp_path / "twisted" / "plugins" / "acme_broken.py").write_text("import no_such_module")
    options = ["uppercase", "--config=services.toml"]
    with Server(*options, runner=runner, addresses=3, cwd=tmp_path) as server:
        assert [kind for kind, _ in server.addresses] == ["TCP", "TCP", "UDP"]
        with connect(server.port) as client, socket.socket(type=socket.SOCK_DGRAM) as pinger:
            pinger.settimeout(30)
            pinger.sendto(b"hello", ("127.0.0.1", int(server.addresses[2][1].split(":")[1])))
            assert pinger.recv(100) == b"HELLO"
            client.sendall(b"hello\nwor")
            client.shutdown(socket.SHUT_WR)
            assert receive_all(client) == b"olleh\nrow"
        server.process.send_signal(signal.SIGTERM)
        server.process.wait(30)
        log = server.log()
        assert "UDP pinger: in total: received 1, answered 1" in log
        assert "TCP lecture: in total: closed finished 1, opened 1" in log
        assert log.count("a plugin cannot be used: ") == 1


def test_a_check_starts_nothing_and_a_mistake_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "services.toml").write_text(FILE.replace("reverse", "revesre"))
    options = ["uppercase", "--config=services.toml", "--check"]
    sentence = "services.toml, [services.lecture]: no transform named 'revesre'; did you mean"
    assert sentence in refused(*options, cwd=tmp_path).splitlines()[0]
