"""HAProxy and nginx as their examples say, in front of real services on other ports."""

import contextlib
import re
import signal
import socket
import subprocess
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.system.fleet import balancer_config, exercise, lost, running
from tests.system.processes import PATIENCE, ROOT, Server, connect, receive_all, wait_until
from tests.system.test_lecture import free_port

DEPLOY = ROOT / "deploy"


def ask(port: int, message: bytes) -> bytes:
    """Ask as nc -N does."""
    with connect(port) as client:
        client.sendall(message)
        client.shutdown(socket.SHUT_WR)
        return receive_all(client)


def wait_until_served(port: int) -> None:
    def served() -> bool:
        with contextlib.suppress(OSError):
            return ask(port, b"hello") == b"HELLO"
        return False

    wait_until(served)


def metrics_port(server: Server) -> int:
    log = server.wait_for_log("metrics are at TCP 127.0.0.1:")
    return int(log.split("metrics are at TCP 127.0.0.1:")[1].split(":")[0])


@pytest.mark.needs_program("haproxy")
def test_haproxy_loses_no_request_while_a_service_behind_it_stops(tmp_path: Path) -> None:
    """PROXY headers name the client; a service that drains gets no new connections."""
    where = ("--port=0", "--interface=127.0.0.1", "--proxy-from=127.0.0.1")
    options = ("uppercase-tcp", *where, "--metrics=0", "--log-peers")
    with ExitStack() as stack:
        one, two = (stack.enter_context(Server(*options, addresses=1)) for _ in range(2))
        port = free_port()
        named = (("one", one), ("two", two))
        services = [(name, server.port, metrics_port(server)) for name, server in named]
        (tmp_path / "haproxy.cfg").write_text(balancer_config(port, services))
        checked = subprocess.run(["haproxy", "-c", "-f", DEPLOY / "haproxy" / "haproxy.cfg"])
        assert checked.returncode == 0
        stack.enter_context(running("haproxy", "-f", "haproxy.cfg", cwd=tmp_path))
        wait_until_served(port)
        wrong, count, over = [], 0, threading.Event()

        def ask_on() -> None:
            nonlocal count
            while not over.is_set():
                count += 1
                try:
                    reply = ask(port, b"hello")
                except OSError as error:
                    reply = repr(error).encode()
                if reply != b"HELLO":
                    wrong.append(reply)

        asking = threading.Thread(target=ask_on)
        asking.start()
        try:
            wait_until(lambda: count > 100)
            one.process.send_signal(signal.SIGTERM)
            one.process.wait(PATIENCE)
            before = count
            wait_until(lambda: count > before + 100)
        finally:
            over.set()
            asking.join()
        assert wrong == []
        # Named by the header, both connections of a client are the client's.
        assert " connected" in one.log()
        assert " connected" in two.log()


@pytest.mark.long
@pytest.mark.needs_program("haproxy")
@pytest.mark.needs_program("cc")
def test_a_fleet_loses_no_request_but_those_of_a_service_that_is_killed(tmp_path: Path) -> None:
    """`python -m tests.system.fleet` does it for longer, and prints the same figures."""
    clients = 4
    figures = exercise(tmp_path, rounds=0, clients=clients, pause_ms=10)
    for what, counts in figures.items():
        assert counts["answered"] > 20, (what, counts)
        # Those that the service had, and one more for each client while the next check is to come.
        assert lost(counts) <= (2 * clients if "killed" in what else 0), (what, counts)


def nginx_config(text: str, ports: dict[str, int], services: dict[str, list[int]]) -> str:
    """Return the example for nginx with places of this machine, by protocol."""
    text = text.replace("listen 12000 backlog", f"listen 127.0.0.1:{ports['tcp']} backlog")
    text = text.replace("listen 12000 udp", f"listen 127.0.0.1:{ports['udp']} udp")
    for name, found in services.items():
        block = re.search(rf"upstream uppercase_{name} {{.*?}}", text, re.DOTALL)
        assert block
        here = block[0]
        for number, port in enumerate(found, 11):
            here = here.replace(f"10.0.0.{number}:12000", f"127.0.0.1:{port}")
        text = text.replace(block[0], here)
    return text


def ask_datagrams(client: socket.socket, port: int, count: int) -> int:
    """Ask so often; return how many had to be asked again."""
    repeated = 0
    for number in range(count):
        reply = b""
        while reply != b"HELLO %d" % number:
            client.sendto(b"hello %d" % number, ("127.0.0.1", port))
            try:
                reply = client.recv(100)
            except TimeoutError:
                repeated += 1
                assert repeated < 20
    return repeated


@pytest.mark.needs_program("nginx")
def test_nginx_passes_tcp_and_udp_on_with_half_closes(tmp_path: Path) -> None:
    """A service that reloads loses no datagram; of one that stops, clients ask again and go on."""
    where = ("--port=0", "--interface=127.0.0.1")
    udp_options = ("uppercase-udp", *where, "--workers=2", "--log-peers")
    with ExitStack() as stack:
        tcp_options = ("uppercase-tcp", *where, "--proxy-from=127.0.0.1")
        tcp = stack.enter_context(Server(*tcp_options, addresses=1))
        udp = [stack.enter_context(Server(*udp_options, addresses=1)) for _ in range(2)]
        ports = {"tcp": free_port(), "udp": free_port(socket.SOCK_DGRAM)}
        services = {"tcp": [tcp.port, tcp.port], "udp": [each.port for each in udp]}
        path = tmp_path / "nginx.conf"
        path.write_text(nginx_config((DEPLOY / "nginx/nginx.conf").read_text(), ports, services))
        globals_ = f"daemon off; pid {tmp_path}/pid; error_log stderr;"
        nginx = ("nginx", "-p", tmp_path, "-c", path, "-g", globals_)
        subprocess.run([*nginx, "-t"], check=True)
        stack.enter_context(running(*nginx, cwd=tmp_path))
        wait_until_served(ports["tcp"])
        assert [ask(ports["tcp"], b"hello %d" % n) for n in range(40)] == [
            b"HELLO %d" % n for n in range(40)
        ]
        with socket.socket(type=socket.SOCK_DGRAM) as client:
            # None is asked again.
            client.settimeout(PATIENCE)
            ask_datagrams(client, ports["udp"], 40)
            client.sendto(b"x" * 65_507, ("127.0.0.1", ports["udp"]))
            assert client.recv(70_000) == b"X" * 65_507
            for server in udp:
                server.process.send_signal(signal.SIGHUP)
            while not all("reloaded:" in server.log() for server in udp):
                ask_datagrams(client, ports["udp"], 5)
            ask_datagrams(client, ports["udp"], 40)
            (serving,) = (server for server in udp if "-> " in server.log())
            serving.stop()
            client.settimeout(2)
            repeated = ask_datagrams(client, ports["udp"], 40)
            print(f"{repeated} datagrams were asked again after a stop")


@pytest.mark.needs_program("nginx")
def test_nginx_does_not_blame_a_service_for_a_datagram_without_reply(tmp_path: Path) -> None:
    """Clients whose datagrams are dropped leave the others their service."""
    options = ("uppercase-udp", "--port=0", "--interface=127.0.0.1", "--max-request=100")
    with ExitStack() as stack:
        udp = [stack.enter_context(Server(*options, addresses=1)) for _ in range(2)]
        ports = {"tcp": free_port(), "udp": free_port(socket.SOCK_DGRAM)}
        services = {"udp": [each.port for each in udp]}
        path = tmp_path / "nginx.conf"
        path.write_text(nginx_config((DEPLOY / "nginx/nginx.conf").read_text(), ports, services))
        globals_ = f"daemon off; pid {tmp_path}/pid; error_log stderr;"
        nginx = ("nginx", "-p", tmp_path, "-c", path, "-g", globals_)
        stack.enter_context(running(*nginx, cwd=tmp_path))
        client = stack.enter_context(socket.socket(type=socket.SOCK_DGRAM))
        client.settimeout(2)
        ask_datagrams(client, ports["udp"], 1)
        # Twenty addresses, so that each service has some of them.
        for number in range(2, 22):
            with socket.socket(type=socket.SOCK_DGRAM) as other:
                other.bind((f"127.0.0.{number}", 0))
                other.sendto(b"x" * 200, ("127.0.0.1", ports["udp"]))
        for server in udp:
            server.wait_for_log("was dropped")
        # nginx gives a reply two seconds.
        time.sleep(2.5)
        assert ask_datagrams(client, ports["udp"], 5) == 0
