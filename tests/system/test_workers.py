"""Several processes behind the same sockets: their deaths, their replacement, their end."""

import contextlib
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.certificates import make_certificate
from tests.system.processes import (
    PATIENCE,
    Server,
    connect,
    ended,
    environment,
    half_close,
    receive_all,
    receive_exactly,
    refused,
    tool,
    wait_until,
)
from tests.system.spare import NAME as SPARE

TCP = ("uppercase-tcp", "--port=0", "--interface=127.0.0.1", "--workers=2")
# A start is dear, and much can be seen of one worker: it has a supervisor because it is watched.
ONE = (*TCP[:3], "--workers=1", "--watchdog=80s")
ONE_IN_A_FILE = 'workers = 1\nwatchdog = "80s"\n'
UDP = ("uppercase-udp", "--port=0", "--interface=127.0.0.1", "--workers=2")

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")


def served(*arguments: str, cwd: Path | None = None, runner: str = "twistd") -> Server:
    return Server(*arguments, addresses=1, cwd=cwd, runner=runner)


def children(pid: int) -> list[int]:
    """Return the workers of a process."""
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(each) for each in found if name(each) != SPARE]


def name(pid: str) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def alive(pid: int) -> bool:
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def ask(port: int, request: bytes = b"hello\n") -> bytes:
    """Connect, ask, half-close and read to the end, as `nc -N` does."""
    with connect(port) as client:
        client.sendall(request)
        half_close(client)
        return receive_all(client)


class Load:
    """Clients that ask again and again, each time on a new connection.

    They leave processor time to others: there is always somebody who asks, which is enough.

    Args:
        port: whom.
        expected: replies that are right.
        clients: how many.
        asks: asks once.

    Attributes:
        answered: how often.
        failures: what else happened, by its name.
    """

    def __init__(
        self,
        port: int,
        expected: set[bytes],
        clients: int = 4,
        asks: Callable[[int], bytes] = ask,
    ) -> None:
        self.answered: Counter[bytes] = Counter()
        self.failures: Counter[str] = Counter()
        self._port = port
        self._ask = asks
        self._expected = expected
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(clients)]

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(PATIENCE)

    def _run(self) -> None:
        while not self._over.wait(0.02):
            try:
                reply = self._ask(self._port)
            except (ConnectionResetError, BrokenPipeError):
                self.failures["reset"] += 1
                continue
            except OSError as error:
                self.failures[type(error).__name__] += 1
                continue
            # What is shown needs somebody at any time, and not both processors all the time.
            self._over.wait(0.02)
            if reply in self._expected:
                self.answered[reply] += 1
            else:
                self.failures[f"got {reply!r}"] += 1


@pytest.mark.parametrize("runner", ["twistd", "twist"])
def test_workers_serve_what_the_supervisor_has_opened(runner: str) -> None:
    with served(*TCP, "--log-peers", runner=runner) as server:
        pids = children(server.process.pid)
        assert len(pids) == 2
        for _ in range(20):
            assert ask(server.port) == b"HELLO\n"
        log = server.wait_for_log("closed: finished", times=20)
        assert re.search(r"worker [12]: TCP: 127.0.0.1:\d+ connected", log)
        assert log.count("The server is ready to receive") == 1
        server.stop()
        assert not any(map(alive, pids))
        assert "all workers have ended" in server.log()


@pytest.mark.parametrize("workers", [(), ("--workers=1",)])
def test_what_was_imported_is_no_garbage_to_look_for(
    tmp_path: Path, workers: tuple[str, ...]
) -> None:
    """A look through all of it would hold all clients up."""
    (tmp_path / "kept.py").write_text(
        "import gc\ndef kept(text: str) -> str: return str(gc.get_freeze_count())\n"
    )
    # An interpreter of its own: a fork has frozen what there was.
    fresh = {"PYTHONHASHSEED": "0"}
    command = ("uppercase-tcp", "--port=0", "-i", "127.0.0.1", "-t", "kept:kept", *workers)
    with Server(*command, addresses=1, cwd=tmp_path, env=fresh) as server:
        assert int(ask(server.port)) > 10_000


def test_a_worker_that_is_killed_costs_its_own_connections_only() -> None:
    """Those who wait in the queue are not its own: the others, or the next, serve them.

    So it is with one that is sent SIGTERM alone, and whoever comes after that is served, too.
    """
    with served(*TCP) as server:
        pids = children(server.process.pid)
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        clients = [connect(server.port) for _ in range(100)]
        for client in clients:
            client.sendall(b"hello\n")
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        for client in clients:
            with client:
                client.shutdown(socket.SHUT_WR)
                assert receive_all(client) == b"HELLO\n"
        log = server.wait_for_log("has ended: killed by SIGKILL; a new one is started", times=2)
        assert re.search(r"worker 1 \(process \d+\) has ended", log)
        server.wait_for_log("TransformFactory starting", times=4)
        os.kill(children(server.process.pid)[0], signal.SIGTERM)
        server.wait_for_log("it exited with status 0; a new one is started")
        for _ in pids:
            with connect(server.port) as client:
                client.sendall(b"hello\n")
                assert receive_exactly(client, 6) == b"HELLO\n"


@pytest.mark.long
def test_workers_may_be_killed_again_and_again_under_load() -> None:
    """Nobody is refused. A reset is of a connection that the killed worker had: one a client."""
    with served(*TCP) as server, Load(server.port, {b"HELLO\n"}) as load:
        kills = 6
        for number in range(kills):
            # Longer than a worker has to serve to count as one that works.
            time.sleep(1.2)
            victims = children(server.process.pid)
            os.kill(victims[number % len(victims)], signal.SIGKILL)
            server.wait_for_log("TransformFactory starting on", times=2 + number + 1)
        assert server.log().count("a new one is started") == kills
        assert load.answered.total() > 100
        assert set(load.failures) <= {"reset", "got b''"}, load.failures
        assert load.failures.total() <= 4 * kills, load.failures


BOTH = """
workers = 2
[services.tcp]
protocol = "tcp"
{tcp}
[services.udp]
protocol = "udp"
port = 0
interface = "127.0.0.1"
"""


def bound(port: int) -> bool:
    """Whether the system knows of a socket that listens on a port, or takes its datagrams."""
    for table, state in (("tcp", "0A"), ("udp", "07")):
        for row in map(str.split, Path(f"/proc/net/{table}").read_text().splitlines()[1:]):
            if row[1].endswith(f":{port:04X}") and row[3] == state:
                return True
    return False


@pytest.mark.parametrize("death", [signal.SIGKILL, signal.SIGSEGV])
def test_no_socket_stays_bound_however_the_supervisor_dies(tmp_path: Path, death: int) -> None:
    """Its workers go at once, also one that hangs."""
    (tmp_path / "services.toml").write_text(BOTH.format(tcp='port = 0\ninterface = "127.0.0.1"'))
    with Server("uppercase", "--config=services.toml", cwd=tmp_path) as server:
        server.statuses = [-death]
        ports = [int(address.rpartition(":")[2]) for _, address in server.addresses]
        assert all(map(bound, ports))
        pids = children(server.process.pid)
        os.kill(pids[0], signal.SIGSTOP)
        server.stop(death)
        wait_until(lambda: not any(map(alive, pids)), 5)
        assert not any(map(bound, ports))


def test_a_stop_serves_the_queue_and_finishes_what_is_under_way() -> None:
    """Here 200 MB, of which a quarter of a megabyte is through when the stop comes, to all."""
    piece, pieces = bytes(range(256)) * 256, 3200
    # A busy machine may keep the client itself from reading for a while.
    patient = ("--drain=80s", "--drain-quiet=30s")
    with served(*TCP, "-t", "identity", *patient) as server, connect(server.port) as busy:

        def send() -> None:
            for _ in range(pieces):
                busy.sendall(piece)
            busy.shutdown(socket.SHUT_WR)

        sender = threading.Thread(target=send)
        sender.start()
        received = len(receive_exactly(busy, 4 * len(piece)))
        pids = children(server.process.pid)
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        waiting = [connect(server.port) for _ in range(50)]
        for client in waiting:
            client.sendall(b"hello\n")
        for pid in (*pids, server.process.pid):
            os.kill(pid, signal.SIGTERM)
        server.wait_for_log("Received SIGTERM")
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
        while chunk := busy.recv(1 << 20):
            received += len(chunk)
        sender.join()
        assert received == pieces * len(piece)
        for client in waiting:
            with client:
                assert receive_exactly(client, 6) == b"hello\n"
        server.stop()


def test_an_interrupt_from_the_terminal_drains_too() -> None:
    """It goes to every process of the group, and must not be a worker's second signal."""
    with served(*TCP) as server, connect(server.port) as client:
        client.sendall(b"hello\n")
        assert receive_exactly(client, 6) == b"HELLO\n"
        server.statuses = [-signal.SIGINT]
        for pid in (server.process.pid, *children(server.process.pid)):
            os.kill(pid, signal.SIGINT)
        client.sendall(b"again\n")
        assert receive_exactly(client, 6) == b"AGAIN\n"
        client.close()
        server.process.wait(PATIENCE)


def test_a_worker_that_the_supervisor_has_told_to_end_ignores_a_late_sigterm() -> None:
    """As where it goes to every process of a group, and comes to the supervisor first."""
    with served(*TCP, "--drain=20s", "--drain-quiet=10s") as server:
        with connect(server.port) as client:
            client.sendall(b"hello\n")
            assert receive_exactly(client, 6) == b"HELLO\n"
            pids = children(server.process.pid)
            server.process.send_signal(signal.SIGTERM)
            server.wait_for_log("1 connection left")
            for pid in pids:
                # It had no connection, and has ended.
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGTERM)
            client.sendall(b"again\n")
            assert receive_exactly(client, 6) == b"AGAIN\n"
        server.process.wait(PATIENCE)
        assert "ReactorNotRunning" not in server.log()


VERSION = "def say(message: bytes) -> bytes:\n    return b'{}'\n"


def test_a_hangup_reloads_and_nothing_is_lost(tmp_path: Path) -> None:
    module = tmp_path / "saying.py"
    module.write_text(VERSION.format("old"))
    with served(*TCP, "-t", "saying:say", cwd=tmp_path) as server:
        before = set(children(server.process.pid))
        with Load(server.port, {b"old\n", b"new\n", b"newest\n"}) as load:
            for number, word in enumerate(("new", "newest"), 1):
                time.sleep(0.5)
                module.write_text(VERSION.format(word))
                # Bytecode is told from newer source by whole seconds.
                os.utime(module, (number * 1000, number * 1000))
                server.process.send_signal(signal.SIGHUP)
                server.wait_for_log("reloaded: served by 2 new workers", times=number)
            time.sleep(0.5)
        assert not load.failures, load.failures
        assert all(load.answered[word] for word in (b"old\n", b"new\n", b"newest\n"))
        assert ask(server.port) == b"newest\n"
        wait_until(lambda: len(children(server.process.pid)) == 2)
        assert not before & set(children(server.process.pid))


def test_a_reload_loses_no_datagram_and_no_tls_connection(tmp_path: Path) -> None:
    certificate = make_certificate(tmp_path)
    tcp = f"listen = '{certificate.endpoint()}'"
    (tmp_path / "services.toml").write_text(BOTH.format(tcp=tcp))
    context = ssl.create_default_context(cafile=str(certificate.cert))

    def ask_in_secret(port: int) -> bytes:
        with context.wrap_socket(connect(port), server_hostname="localhost") as client:
            client.sendall(b"hello\n")
            return receive_exactly(client, 6)

    with (
        Server("uppercase", "--config=services.toml", cwd=tmp_path) as server,
        contextlib.ExitStack() as stack,
    ):
        ports = {name: int(address.rpartition(":")[2]) for name, address in server.addresses}
        datagrams = [stack.enter_context(asking(ports["UDP"])) for _ in range(16)]
        over, answered = threading.Event(), list[bytes]()

        def send_on() -> None:
            while not over.is_set():
                for client in datagrams:
                    client.send(b"hello")
                # None is sent again: one that is lost ends this by a time-out.
                answered.extend(client.recv(100) for client in datagrams)
                over.wait(0.005)

        thread = threading.Thread(target=send_on)
        thread.start()
        with Load(ports["TLS"], {b"HELLO\n"}, 2, ask_in_secret) as load:
            for number in (1, 2):
                time.sleep(0.5)
                server.process.send_signal(signal.SIGHUP)
                server.wait_for_log("reloaded: served by 2 new workers", times=number)
            time.sleep(0.5)
            over.set()
            thread.join(2 * PATIENCE)
        print(f"{len(answered)} datagrams, {load.answered.total()} connections over TLS")
        assert not load.failures, load.failures
        assert load.answered.total() > 10
        assert len(answered) > 100
        assert set(answered) == {b"HELLO"}
        assert len(answered) % len(datagrams) == 0


def test_a_reload_that_cannot_be_leaves_the_old_workers(tmp_path: Path) -> None:
    module = tmp_path / "saying.py"
    module.write_text(VERSION.format("old"))
    config = tmp_path / "services.toml"
    text = '[services.one]\nprotocol = "tcp"\nport = 0\ninterface = "127.0.0.1"\n'
    config.write_text(f'{ONE_IN_A_FILE}{text}transform = "saying:say"\n')
    with served("uppercase", "--config=services.toml", cwd=tmp_path) as server:
        before = set(children(server.process.pid))

        def refuse(saying: str) -> None:
            server.process.send_signal(signal.SIGHUP)
            server.wait_for_log(saying)
            wait_until(lambda: set(children(server.process.pid)) == before)
            assert ask(server.port) == b"old\n"

        module.write_text("raise ValueError('unfinished')\n")
        refuse("ValueError: unfinished")
        module.write_text(VERSION.format("old"))
        config.write_text(f'{ONE_IN_A_FILE}{text}transform = "saying:say"\nrate = 3\n')
        refuse("[services.one]: no key named 'rate'")
        config.write_text(f"{ONE_IN_A_FILE}{text.replace('0', '12345', 1)}")
        refuse("restart the service for that")
        assert server.log().count("not reloaded, the old workers go on:") == 3


@pytest.mark.long
def test_what_cannot_start_ends_with_its_last_word(tmp_path: Path) -> None:
    (tmp_path / "crashing.py").write_text(
        "import sys\nif sys.argv[0].endswith('_worker.py'):\n    import os\n"
        "    print('out of luck', file=sys.stderr, flush=True)\n    os._exit(7)\n"
        "def say(message: bytes) -> bytes: return message\n"
    )
    command = [tool("twistd"), "-n", "--pidfile=", *ONE, "-t", "crashing:say"]
    status, said = ended(command, tmp_path)
    assert status == 3, said
    assert "5 workers in a row have ended as soon as they had begun; the last one: out of luck" in (
        said
    )


@pytest.mark.long
def test_a_worker_that_hangs_says_where_and_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "hanging.py").write_text(
        "import time\ndef hang(message: bytes) -> bytes:\n    while message == b'hang':\n"
        "        time.sleep(1)\n    return message\n"
    )
    arguments = (*TCP, "-t", "hanging:hang", "--framing=line", "--watchdog=5s")
    with served(*arguments, cwd=tmp_path) as server, connect(server.port) as client:
        server.tracebacks = True
        client.sendall(b"hang\n")
        log = server.wait_for_log("killed by SIG")
        assert "hangs: no sign of life for 5 s (--watchdog)" in log
        assert re.search(r'worker [12]:   File ".*hanging.py", line 4 in hang', log), log
        wait_until(lambda: len(children(server.process.pid)) == 2)
        for _ in range(10):
            assert ask(server.port) == b"hello\n"


def test_a_thread_that_a_library_never_ends_keeps_no_worker(tmp_path: Path) -> None:
    """As aiosqlite's; Python would wait for it, and the supervisor kills late, with a dump.

    Nor one that cannot start: the supervisor would not say so.
    """
    begun = "import threading\nthreading.Thread(target=threading.Event().wait).start()\n"
    module = tmp_path / "threads.py"
    module.write_text(f"{begun}def answer(message: bytes) -> bytes:\n    return message\n")
    arguments = (*TCP, "-t", "threads:answer", "--framing=line", "--drain=30s")
    # With an environment of its own the server is no fork, whose threads end with it.
    with Server(*arguments, addresses=1, cwd=tmp_path, env={"TZ": "UTC"}) as server:
        assert ask(server.port) == b"hello\n"
        module.write_text(begun)
        server.process.send_signal(signal.SIGHUP)
        server.wait_for_log("not reloaded")
        server.stop(seconds=20)
        assert "Fatal" not in server.log()


def get(port: int, path: str) -> str:
    """Return a page; nothing if it took longer than whoever asks has there."""
    with contextlib.suppress(ConnectionError), connect(port) as client:
        client.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        return receive_all(client).decode()
    return ""


def test_metrics_are_the_sum_of_all_workers_there_have_ever_been() -> None:
    with served(*TCP, "--metrics=0") as server:
        log = server.wait_for_log("metrics are at TCP 127.0.0.1:")
        port = int(log.split("metrics are at TCP 127.0.0.1:")[1].split(":")[0])

        def shows(*lines: str) -> bool:
            return set(lines) <= set(get(port, "/metrics").splitlines())

        for _ in range(40):
            ask(server.port)
        wait_until(lambda: shows('uppercase_connections_total{service="tcp"} 40.0'))
        with connect(server.port) as client:
            client.sendall(b"hello\n")
            receive_exactly(client, 6)
            wait_until(lambda: shows('uppercase_connections_open{service="tcp"} 1.0'))
            for pid in children(server.process.pid):
                os.kill(pid, signal.SIGKILL)
                server.wait_for_log("a new one is started")
            wait_until(
                lambda: shows(
                    'uppercase_connections_total{service="tcp"} 41.0',
                    'uppercase_connections_open{service="tcp"} 0.0',
                    'uppercase_messages_total{service="tcp"} 41.0',
                    "uppercase_worker_restarts_total 2.0",
                    "uppercase_workers 2.0",
                )
            )
        server.process.send_signal(signal.SIGHUP)
        server.wait_for_log("reloaded")
        for _ in range(5):
            ask(server.port)
        wait_until(lambda: shows('uppercase_connections_total{service="tcp"} 46.0'))
        wait_until(lambda: "200 OK" in get(port, "/readyz"))
        with connect(server.port) as client:
            client.sendall(b"hello\n")
            receive_exactly(client, 6)
            server.process.send_signal(signal.SIGTERM)
            server.wait_for_log("Received SIGTERM")
            # A stop waits as long for this connection.
            while not (page := get(port, "/readyz")):
                pass
            assert page.endswith("draining\n")


def test_the_workers_have_about_as_many_connections_each() -> None:
    with served(*TCP, "--log-peers", "--max-connections=4000") as server:
        clients: list[socket.socket] = []
        while len(clients) < 1000:
            clients += [connect(server.port) for _ in range(50)]
            log = server.wait_for_log("connected", times=len(clients))
        shares = Counter(re.findall(r"worker (\d): TCP: \S+ connected", log))
        for client in clients:
            client.close()
        print(f"of {len(clients)} connections: {dict(shares)}")
        # Halves where each has a processor of its own; here other tests may keep one from it.
        assert min(shares["1"], shares["2"]) > 50, shares


@contextlib.contextmanager
def asking(port: int) -> Iterator[socket.socket]:
    with socket.socket(type=socket.SOCK_DGRAM) as client:
        client.settimeout(PATIENCE)
        client.connect(("127.0.0.1", port))
        yield client


def test_datagrams_of_one_client_meet_one_worker() -> None:
    """So the loop guard counts as it does in one process; other clients meet others."""
    with served(*UDP, "--log-peers") as server, contextlib.ExitStack() as stack:
        # All at one time, so that none has the port of another.
        for client in [stack.enter_context(asking(server.port)) for _ in range(40)]:
            for _ in range(3):
                client.send(b"hello")
                assert client.recv(100) == b"HELLO"
        log = server.wait_for_log("-> 5 bytes", times=120)
        met = set(re.findall(r"worker (\d): UDP: (\S+?):? ", log))
        workers = Counter(worker for worker, _ in met)
        assert len(met) == 40, "a client met two workers"
        assert set(workers) == {"1", "2"}
        with asking(server.port) as client:
            client.settimeout(0.5)
            replies = 0
            with contextlib.suppress(TimeoutError):
                for _ in range(100):
                    client.send(b"LOOP")
                    replies += client.recv(100) == b"LOOP"
            assert replies < 40


def test_datagrams_wait_for_the_next_worker() -> None:
    with served(*UDP) as server, contextlib.ExitStack() as stack:
        clients = [stack.enter_context(asking(server.port)) for _ in range(20)]
        pids = children(server.process.pid)
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        for client in clients:
            client.send(b"hello")
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        for client in clients:
            assert client.recv(100) == b"HELLO"
        server.process.send_signal(signal.SIGHUP)
        server.wait_for_log("reloaded")
        for client in clients:
            client.send(b"again")
            assert client.recv(100) == b"AGAIN"


def kernel_drops_of(port: int) -> int:
    """Return what the system says of all sockets of a port."""
    rows = [line.split() for line in Path("/proc/net/udp").read_text().splitlines()[1:]]
    return sum(int(row[-1]) for row in rows if row[1].endswith(f":{port:04X}"))


def test_what_the_system_drops_counts_once_whatever_workers_come_and_go() -> None:
    with served(*UDP, "--rcvbuf=4k", "--metrics=0") as server, contextlib.ExitStack() as stack:
        log = server.wait_for_log("metrics are at TCP 127.0.0.1:")
        page = int(log.split("metrics are at TCP 127.0.0.1:")[1].split(":")[0])
        for pid in children(server.process.pid):
            os.kill(pid, signal.SIGSTOP)
        # Fresh ones read what is there, while the old ones do not yet know of their end.
        server.process.send_signal(signal.SIGHUP)
        for client in [stack.enter_context(asking(server.port)) for _ in range(20)]:
            for _ in range(50):
                client.send(b"x" * 1000)
        dropped = kernel_drops_of(server.port)
        assert dropped > 0
        server.wait_for_log("reloaded")
        for pid in children(server.process.pid):
            os.kill(pid, signal.SIGCONT)
        # Those sent since the count, to fresh workers that were not ready.
        wait_until(lambda: len(children(server.process.pid)) == 2)
        shown = f'uppercase_kernel_drops_total{{service="udp"}} {kernel_drops_of(server.port)}.0'
        wait_until(lambda: shown in get(page, "/metrics").splitlines())
        time.sleep(2.5)
        assert shown in get(page, "/metrics").splitlines(), get(page, "/metrics")


def test_what_workers_cannot_do_is_one_sentence() -> None:
    said = refused(*UDP, "--loss=0.5")
    assert "got --workers with a lab for datagrams" in said
    said = refused(*UDP, f"--record={os.devnull}")
    assert "got --workers with --record" in said
    assert "got --watchdog without workers" in refused("uppercase-tcp", "--watchdog=5s")
    with served(*UDP) as server:
        port = server.port
        said = refused("uppercase-udp", f"--port={port}", "-i", "127.0.0.1", "--workers=2")
        assert f"cannot listen on UDP 127.0.0.1:{port}" in said
    with served(*TCP) as server:
        said = refused("uppercase-tcp", f"--port={server.port}", "-i", "127.0.0.1", "--workers=2")
        assert f"cannot listen on TCP 127.0.0.1:{server.port}" in said


def test_a_unix_socket_keeps_its_name_and_mode_until_the_end(tmp_path: Path) -> None:
    path = tmp_path / "socket"

    def ask_there() -> bytes:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(PATIENCE)
            client.connect(str(path))
            client.sendall(b"hello\n")
            client.shutdown(socket.SHUT_WR)
            return receive_all(client)

    arguments = ("uppercase-tcp", f"--listen=unix:{path}:mode=600", *ONE[3:])
    with served(*arguments) as server:
        assert ask_there() == b"HELLO\n"
        server.process.send_signal(signal.SIGHUP)
        server.wait_for_log("reloaded")
        wait_until(lambda: len(children(server.process.pid)) == 1)
        for pid in children(server.process.pid):
            os.kill(pid, signal.SIGKILL)
        assert ask_there() == b"HELLO\n"
        assert path.stat().st_mode & 0o777 == 0o600
        assert "another program" in refused(*arguments)
        server.stop(signal.SIGKILL)
    assert path.exists()
    with served(*arguments) as server:
        assert ask_there() == b"HELLO\n", "what a killed program has left is no hindrance"
    assert not path.exists()


def test_certificates_are_read_anew_by_a_reload(tmp_path: Path) -> None:
    certificate = make_certificate(tmp_path)

    def serial(server: Server) -> object:
        context = ssl.create_default_context(cafile=str(certificate.cert))
        with context.wrap_socket(connect(server.port), server_hostname="localhost") as client:
            client.sendall(b"hello")
            assert client.recv(100) == b"HELLO"
            found = client.getpeercert()
            assert found is not None
            return found["serialNumber"]

    with served("uppercase-tcp", f"--listen={certificate.endpoint()}", *ONE[3:]) as server:
        before = serial(server)
        make_certificate(tmp_path)
        server.process.send_signal(signal.SIGHUP)
        # Until then the old workers, who have the old certificate, may accept.
        server.wait_for_log("(TCP Port")
        assert serial(server) != before
        certificate.key.write_text("no key")
        server.process.send_signal(signal.SIGHUP)
        server.wait_for_log("not reloaded, the old workers go on: the file")
        assert serial(server) != before


def test_proxy_headers_tell_workers_who_asks() -> None:
    with served(*ONE, "--proxy-from=127.0.0.1", "--log-peers") as server:
        reply = ask(server.port, b"PROXY TCP4 192.0.2.7 192.0.2.1 5000 80\r\nhello\n")
        assert reply == b"HELLO\n"
        server.wait_for_log("192.0.2.7:5000 closed: finished")


# What systemd does: descriptors from 3 on, and whom they are for.
ACTIVATE = """
import fcntl, os, sys
*passed, program = sys.argv[1:3] + [sys.argv[3:]]
for place, number in enumerate([fcntl.fcntl(int(each), fcntl.F_DUPFD, 50) for each in passed]):
    os.dup2(number, 3 + place)
os.environ.update(LISTEN_FDS="2", LISTEN_PID=str(os.getpid()), LISTEN_FDNAMES="tcp:udp")
os.execv(program[0], program)
"""

SYSTEMD = """
workers = 2
[services.tcp]
protocol = "tcp"
listen = "systemd:domain=INET:name=tcp"
[services.udp]
protocol = "udp"
listen = "systemd:domain=INET:name=udp"
"""


def test_systemd_passes_sockets_and_is_told(tmp_path: Path) -> None:
    """READY comes when workers serve, not before; the pid file has the supervisor."""
    (tmp_path / "services.toml").write_text(SYSTEMD)
    pid_file = tmp_path / "pid"
    with (
        socket.create_server(("127.0.0.1", 0)) as stream,
        socket.socket(type=socket.SOCK_DGRAM) as datagram,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notified,
        (tmp_path / "log").open("w") as log,
    ):
        datagram.bind(("127.0.0.1", 0))
        notified.bind(str(tmp_path / "notify"))
        notified.settimeout(PATIENCE)
        # Such as another checkout, which is not what the supervisor runs.
        (tmp_path / "uppercase").mkdir()
        for other in ("uppercase/__init__.py", "json.py"):
            (tmp_path / other).write_text("raise SystemExit('not mine')")
        service = subprocess.Popen(
            [
                *(sys.executable, "-ISc", ACTIVATE, str(stream.fileno()), str(datagram.fileno())),
                *(tool("twistd"), "-n", f"--pidfile={pid_file}"),
                *("uppercase", "--config=services.toml"),
            ],
            pass_fds=[stream.fileno(), datagram.fileno()],
            cwd=tmp_path,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=environment(NOTIFY_SOCKET=str(tmp_path / "notify")),
        )
        try:
            assert notified.recv(100) == b"READY=1"
            said = (tmp_path / "log").read_text()
            assert said.count("The server is ready to receive") == 2, said
            assert int(pid_file.read_text()) == service.pid
            assert len(children(service.pid)) == 2
            assert ask(stream.getsockname()[1]) == b"HELLO\n"
            with asking(datagram.getsockname()[1]) as client:
                for _ in range(20):
                    client.send(b"hello")
                    assert client.recv(100) == b"HELLO"
        finally:
            service.send_signal(signal.SIGTERM)
            assert service.wait(PATIENCE) == -signal.SIGTERM
        assert notified.recv(100) == b"STOPPING=1"
        assert not pid_file.exists()
        # It is systemd's, and is not shut down.
        with connect(stream.getsockname()[1]):
            pass


def test_a_worker_finds_what_its_supervisor_finds(tmp_path: Path) -> None:
    """However that has come by its packages: some ways of shipping a program set `sys.path`."""
    (tmp_path / "brought").mkdir()
    (tmp_path / "brought" / "colorsys.py").write_text("raise ValueError('not the one of Python')")
    (tmp_path / "brought" / "along.py").write_text(
        "import colorsys\ndef say(text: str) -> str: return text + '!'\n"
    )
    # Such as a package that was installed since.
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "installed_since.py").touch()
    (tmp_path / "start.py").write_text(
        "import os, pathlib, sys\nif sys.argv[0].endswith('_worker.py'):\n"
        "    import installed_since\nelse:\n"
        f"    sys.path += [{str(tmp_path / 'brought')!r}, pathlib.Path('no text')]\n"
        f"    os.environ['PYTHONPATH'] = {str(tmp_path / 'new')!r}\n"
        "from along import say\n"
    )
    with served(*ONE, "-t", "start:say", "--framing=line", cwd=tmp_path) as server:
        assert ask(server.port) == b"hello!\n"
