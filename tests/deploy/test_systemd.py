"""The units of systemd: right, hardened, and started as they say."""

import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest

from tests.system.processes import ROOT, START_TIMEOUT, connect, environment, receive_all, tool
from uppercase.taps._process import Notifier

UNITS = ROOT / "deploy" / "systemd"

# What systemd does between fork and exec: descriptors from 3 on, and whom they are for.
ACTIVATE = """
import os, sys
names, *command = sys.argv[1:]
count = str(names.count(":") + 1)
os.environ.update(LISTEN_FDS=count, LISTEN_PID=str(os.getpid()), LISTEN_FDNAMES=names)
os.execv(command[0], command)
"""


def setting(unit: str, key: str) -> str:
    """Return the one value of a key of a unit."""
    (value,) = re.findall(rf"^{key}=(.*)$", (UNITS / unit).read_text(), re.M)
    return str(value)


@pytest.fixture
def units(tmp_path: Path) -> list[str]:
    """Copies of the units that name a program of this machine."""
    for file in UNITS.glob("uppercase*"):
        text = file.read_text().replace("/opt/uppercase/bin/twistd", f'"{tool("twistd")}"')
        (tmp_path / file.name).write_text(text)
    return sorted(map(str, tmp_path.glob("uppercase*")))


@pytest.mark.needs_program("systemd-analyze")
def test_the_units_are_right_and_expose_little(units: list[str]) -> None:
    verified = subprocess.run(
        ["systemd-analyze", "verify", *units], capture_output=True, text=True, check=False
    )
    assert (verified.returncode, verified.stdout + verified.stderr) == (0, "")
    (service,) = [unit for unit in units if unit.endswith(".service")]
    rated = subprocess.run(
        ["systemd-analyze", "security", "--offline=yes", service],
        capture_output=True,
        text=True,
        check=True,
    )
    level = re.search(r"Overall exposure level for uppercase.service: ([\d.]+)", rated.stdout)
    assert level, rated.stdout
    assert float(level[1]) < 2.0


def test_the_service_is_bounded_and_confined() -> None:
    """Also by what systemd's rating does not look at."""
    values = {
        "Type": "notify",
        "MemoryMax": "1G",
        "OOMPolicy": "continue",
        "Restart": "always",
        "StartLimitIntervalSec": "0",
        "DynamicUser": "yes",
        "ProtectSystem": "strict",
        "RestrictAddressFamilies": "AF_INET AF_INET6 AF_UNIX",
    }
    assert {key: setting("uppercase.service", key) for key in values} == values


def test_the_times_of_unit_and_service_agree() -> None:
    """systemd waits for longer than the service takes at the most: the drain time and 5 s."""
    from uppercase.limits import DRAIN

    assert int(setting("uppercase.service", "TimeoutStopSec")) > DRAIN + 5


def test_a_reload_checks_the_file_first() -> None:
    """systemd passes its sockets to the service alone; a check, also one by hand, has none."""
    text = (UNITS / "uppercase.service").read_text()
    check, signal_ = re.findall("^ExecReload=(.*)$", text, re.M)
    assert signal_ == "/bin/kill -HUP $MAINPID"
    assert check == setting("uppercase.service", "ExecStart") + " --check"
    command = [tool("twistd"), *shlex.split(check)[1:-2], f"--config={UNITS / 'services.toml'}"]
    checked = subprocess.run([*command, "--check"], capture_output=True, text=True, check=False)
    said = checked.stdout + checked.stderr
    assert said.endswith("services.toml is right: tcp (TCP), udp (UDP)\n"), said
    assert checked.returncode == 0


def test_the_command_serves_the_units_sockets_and_tells_how_it_is(tmp_path: Path) -> None:
    """As systemd runs it: with both sockets open before, and a socket for its notices."""
    notices = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    notices.bind(str(tmp_path / "notify"))
    notices.settimeout(START_TIMEOUT)
    config = tmp_path / "services.toml"
    config.write_text((UNITS / "services.toml").read_text().replace('"9100"', '"0"'))
    command = shlex.split(setting("uppercase.service", "ExecStart"))
    command[0] = tool("twistd")
    command = [part.replace("/etc/uppercase/services.toml", str(config)) for part in command]
    tcp = socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True)
    udp = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    udp.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    udp.bind(("::", 0))
    names = ":".join(
        setting(f"uppercase-{kind}.socket", "FileDescriptorName") for kind in ("tcp", "udp")
    )

    def place() -> None:
        # First away from where they go.
        high = [os.dup(each.fileno()) for each in (tcp, udp)]
        for number, descriptor in enumerate(high, 3):
            os.dup2(descriptor, number)

    with tempfile.TemporaryFile("w+") as log, notices, tcp, udp:
        server = subprocess.Popen(
            [sys.executable, "-c", ACTIVATE, names, *command],
            close_fds=False,
            preexec_fn=place,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment(NOTIFY_SOCKET=str(tmp_path / "notify"), WATCHDOG_USEC="400000"),
        )
        try:
            assert notices.recv(100) == b"READY=1"
            with connect(tcp.getsockname()[1]) as client:
                client.sendall(b"hello")
                client.shutdown(socket.SHUT_WR)
                assert receive_all(client) == b"HELLO"
            with socket.socket(type=socket.SOCK_DGRAM) as pinger:
                pinger.settimeout(30)
                pinger.sendto(b"hello", ("127.0.0.1", udp.getsockname()[1]))
                assert pinger.recv(100) == b"HELLO"
            started = time.monotonic()
            for _ in range(6):
                assert notices.recv(100) == b"WATCHDOG=1"
            assert time.monotonic() - started < 10
            server.send_signal(signal.SIGTERM)
            while (notice := notices.recv(100)) == b"WATCHDOG=1":
                pass
            assert notice == b"STOPPING=1"
        finally:
            server.send_signal(signal.SIGTERM)
            status = server.wait(START_TIMEOUT)
        said = os.pread(log.fileno(), 1 << 20, 0).decode()
        assert status == -signal.SIGTERM, said


@pytest.mark.parametrize(
    ("watched", "beats"),
    [({}, [b"WATCHDOG=1"]), ({"WATCHDOG_PID": str(os.getppid())}, [])],
)
def test_signs_of_life_are_for_the_process_that_systemd_watches(
    monkeypatch: pytest.MonkeyPatch, watched: dict[str, str], beats: list[bytes]
) -> None:
    """By a socket without a place in the file system, as a user's own systemd may have one."""
    name = f"uppercase-test-{os.getpid()}"
    surroundings = {"NOTIFY_SOCKET": f"@{name}", "WATCHDOG_USEC": "60000000", **watched}
    for key, value in surroundings.items():
        monkeypatch.setenv(key, value)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notices:
        notices.bind(f"\0{name}")
        notices.setblocking(False)
        notifier = Notifier(lambda call: call())
        notifier.startService()
        notifier.stopService()
        expected = [b"READY=1", *beats, b"STOPPING=1"]
        assert [notices.recv(100) for _ in expected] == expected


def test_a_notice_waits_until_there_is_room_for_it_but_not_forever(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Many services may start at once, and a systemd that has hung must hang nobody."""
    name = str(tmp_path / "notify")
    monkeypatch.setenv("NOTIFY_SOCKET", name)
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notices,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as others,
    ):
        notices.bind(name)
        notices.settimeout(START_TIMEOUT)
        others.connect(name)
        others.setblocking(False)
        notifier = Notifier(lambda call: call())
        full = fill(others)
        reader = threading.Timer(0.1, lambda: [notices.recv(100) for _ in range(full)])
        reader.start()
        notifier.startService()
        reader.join()
        assert notices.recv(100) == b"READY=1"
        fill(others)
        notifier.stopService()


def fill(sender: socket.socket) -> int:
    """Send until there is no room; return how often."""
    for count in range(100_000):
        try:
            sender.send(b"X=1")
        except BlockingIOError:
            return count
    raise AssertionError("there is always room")
