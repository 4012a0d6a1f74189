"""The servers' command lines: help, versions, and one sentence for each mistake."""

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.certificates import make_certificate
from tests.system.processes import (
    Server,
    ended,
    environment,
    receive_all,
    receive_exactly,
    refused,
    tool,
    wait_until,
)

SERVICES = ["uppercase-tcp", "uppercase-udp"]


def shown(*arguments: str, runner: str = "twistd", cwd: Path | None = None) -> str:
    """Return what a command prints that ends well."""
    status, said = ended([tool(runner), *arguments], cwd)
    assert status == 0, said
    return said


@pytest.mark.parametrize("service", SERVICES)
def test_the_help_has_examples_first_then_groups_with_defaults(service: str) -> None:
    text = shown("-n", service, "--help")
    assert text.index("Examples:") < text.index("Where to listen:") < text.index("Information:")
    for default in (
        "[default: 12000]",
        "[default: loopback, both families]",
        "[default: uppercase]",
    ):
        assert default in " ".join(text.split())
    assert all(len(line) <= 100 for line in text.splitlines())


@pytest.mark.parametrize("service", SERVICES)
def test_the_transforms_can_be_listed_and_looked_at(service: str) -> None:
    listed = shown("-n", service, "--help-transforms")
    for name in ("uppercase", "caesar", "base64-decode", "normalize"):
        assert f"\n  {name} " in listed
    one = shown("-n", service, "--help-transform=caesar")
    assert one.startswith("caesar:shift=...\n")
    assert "shift: whole number, default 13" in one


@pytest.mark.parametrize("service", SERVICES)
def test_a_broken_plugin_is_a_line_of_the_log_and_nothing_more(
    service: str, tmp_path: Path
) -> None:
    file = tmp_path / "twisted" / "plugins" / "acme_broken.py"
    file.parent.mkdir(parents=True)
    file.write_text("import no_such_module")
    problem = f"{file}, line 1: No module named 'no_such_module'; install it or correct the import"
    listed = shown("-n", service, "--help-transforms", cwd=tmp_path)
    assert listed.endswith(f"\nCannot be used:\n  {problem}\n")
    with Server(service, "--port=0", cwd=tmp_path) as server:
        assert f"a plugin cannot be used: {problem}\n" in server.wait_for_log("a plugin")


def test_the_version_is_the_projects_own() -> None:
    assert shown("-n", "uppercase-tcp", "--version").startswith("uppercase 0.")


def said_once(said: str) -> str:
    """Return the one line that there is, apart from the advice behind it."""
    sentence, advice = said.splitlines()
    assert re.fullmatch(r"try '(twistd uppercase-\w+) --help'", advice)
    return sentence


def test_a_mistake_is_said_where_the_terminal_lacks_its_letters() -> None:
    done = subprocess.run(
        [tool("twistd"), "uppercase-udp", "--transform=größer"],
        env=environment(PYTHONIOENCODING="ascii"),
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (1, b"")
    assert said_once(done.stdout.decode()).startswith(
        r"twistd uppercase-udp: no transform named 'gr\xf6\xdfer'; known are "
    )


@pytest.mark.parametrize("service", SERVICES)
@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["-t", "uppercsae"], "no transform named 'uppercsae'; did you mean 'uppercase'?"),
        (["-t", "caesar:shfit=3"], "did you mean 'shift'?"),
        (["-t", "caesar:shift=x"], "'x'"),
        (["--prot=1"], "no option named --prot; did you mean '--port'?"),
        (["--port=70000"], "--port: got '70000'; a port is a whole number from 0"),
        (["--port=http"], "--port: got 'http'; a port is a whole number from 0"),
        (["--interface=eth0"], "got 'eth0'; an interface is an IP address"),
        (["--interface=224.0.0.1"], "got '224.0.0.1', which stands for many machines"),
        (["--interface=ff02::1"], "got 'ff02::1', which stands for many machines"),
        (["--interface=255.255.255.255"], "which stands for many machines"),
        (["--drain=8761h"], "--drain: got '8761h'; a duration is at most a year (8760h)"),
        (["--max-output=65M"], "--max-output: got '65M'; at most 67108864 is accepted"),
        (["--workers=257"], "--workers: got '257'; at most 256 is accepted"),
        (["--drain=-1"], "--drain: got '-1'; a duration is"),
        (["--max-output=lots"], "--max-output: got 'lots'; a size is"),
        (["--listen=nope:1"], "'nope:1'"),
        (["reverse"], "got 'reverse', which belongs to no option; a transform is given as"),
        (["–loss=1"], "got '–loss=1', which belongs to no option; type the hyphens of --loss=1"),
        (["－－loss=1"], "type the hyphens of --loss=1"),
        (["12000"], "a port is given as --port=12000"),
        (["tcp:127.0.0.1:12000"], "where to listen is given as --interface=ADDRESS and --port=N"),
        (["127.0.0.1", "12000"], "got '127.0.0.1', which belongs to no option; where to listen"),
        (["mymodule:shout"], "a transform is given as --transform=mymodule:shout"),
        (["-u"], "no option named -u; UDP is what uppercase-udp serves"),
        (["--host=0.0.0.0"], "no option named --host; where to listen is --interface=ADDRESS"),
        (["--tls"], "no option named --tls; TLS (TCP) is --listen=tls:PORT:"),
        (["uppercase-udp"], "twistd uppercase serves several services at once"),
        (["-t", "UPPERCASE"], "no transform named 'UPPERCASE'; did you mean 'uppercase'?"),
        (["-t", "x" * 9999], f"no transform named '{'x' * 199}… known are ascii-lowercase"),
        (["--max-output=0"], "--max-output: got '0'; a bound is 1 byte or more"),
        (["--record-bytes=9"], "got --record-bytes without a record; add one, such as --record="),
    ],
)
def test_a_mistake_gets_one_sentence(service: str, arguments: list[str], sentence: str) -> None:
    assert sentence in said_once(refused(service, *arguments))


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--framing="], "no framing named ''; known are auto"),
        (["--framing=lines"], "no framing named 'lines'; did you mean 'line'?"),
        (["-t", "reverse", "--framing=stream"], "--framing=line"),
        (["--max-length=x"], "--max-length: got 'x'; a size is"),
        (["--max-length=17M"], "--max-length: got '17M'; at most 16777216 is accepted"),
        (["--async-window=65537"], "--async-window: got '65537'; at most 65536 is accepted"),
    ],
)
def test_a_mistake_about_framing_gets_one_sentence(arguments: list[str], sentence: str) -> None:
    assert sentence in said_once(refused("uppercase-tcp", *arguments))


@pytest.mark.parametrize(
    ("service", "runner", "arguments", "sentence"),
    [
        ("uppercase-tcp", "twistd", ["--loss=0.3"], "--loss belongs to uppercase-udp"),
        ("uppercase-udp", "twist", ["--framing=line"], "--framing belongs to uppercase-tcp"),
        ("uppercase", "twistd", ["--port=7"], "--port belongs to uppercase-tcp and uppercase-udp"),
        ("uppercase-tcp", "twistd", ["-n"], "-n is an option of twistd itself; give it before"),
        ("uppercase-udp", "twistd", ["--pidfile="], "--pidfile is an option of twistd itself"),
        ("uppercase-udp", "twist", ["--reactor=poll"], "--reactor is an option of twist itself"),
        ("uppercase-udp", "twistd", ["-x"], "no option named -x\n"),
    ],
)
def test_an_option_of_somebody_else_is_recognised(
    service: str, runner: str, arguments: list[str], sentence: str
) -> None:
    assert f"{runner} {service}: {sentence}" in refused(service, *arguments, runner=runner)


def test_the_help_fits_a_narrow_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "44")
    texts = [
        line
        for line in shown("-n", "uppercase-tcp", "--help").splitlines()
        # Commands to type and options stay on one line.
        if not line.startswith(("  twistd", "  -", "      --", "Usage:"))
    ]
    assert max(map(len, texts)) <= 44


def test_twist_says_the_same_on_its_own_stream() -> None:
    command = [tool("twist"), "uppercase-tcp", "-t", "uppercsae"]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (64, "")
    assert done.stderr == (
        "twist uppercase-tcp: no transform named 'uppercsae'; did you mean 'uppercase'?\n"
        "try 'twist uppercase-tcp --help'\n"
    )


@pytest.mark.parametrize("service", SERVICES)
@pytest.mark.parametrize("runner", ["twistd", "twist"])
def test_a_port_in_use_is_said_and_nothing_is_left_running(service: str, runner: str) -> None:
    udp = service.endswith("udp")
    kind = socket.SOCK_DGRAM if udp else socket.SOCK_STREAM
    with socket.socket(type=kind) as taken:
        taken.bind(("127.0.0.1", 0))
        if not udp:
            taken.listen()
        port = taken.getsockname()[1]
        said = refused(service, f"--port={port}", runner=runner)
    name = "UDP" if udp else "TCP"
    assert f"cannot listen on {name} 127.0.0.1:{port}: another program does already" in said


def test_whoever_starts_a_daemon_is_told_why_it_has_ended(tmp_path: Path) -> None:
    """Twisted shows a hundred bytes of that, and the log has all."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        places = [f"--pidfile={tmp_path}/pid", f"--logfile={tmp_path}/log"]
        status, said = ended([tool("twistd"), *places, "uppercase-tcp", f"--port={port}"])
    why = f"cannot listen on TCP 127.0.0.1:{port}: another program does already; stop it"
    assert (status, why in said) == (1, True), said
    # The daemon tells its parent first.
    wait_until(lambda: f"{why}, wait a minute" in (tmp_path / "log").read_text())
    wait_until(lambda: not (tmp_path / "pid").exists())


def test_an_address_of_another_machine_is_said() -> None:
    said = refused("uppercase-tcp", "--port=0", "--interface=192.0.2.1")
    assert "cannot listen on TCP 192.0.2.1:0: this machine has no such address" in said


@pytest.mark.parametrize(
    "where",
    [
        ("--port=0", "--interface=127.255.255.255"),
        ("--port=0", "--interface=127.255.255.255", "--workers=2"),
        ("--listen=tcp:0:interface=224.0.0.1",),
        ("--listen=tcp:0:interface=224.0.0.1", "--workers=2"),
    ],
    ids=" ".join,
)
def test_an_address_that_nobody_could_connect_to_is_said(where: tuple[str, ...]) -> None:
    said = refused("uppercase-tcp", *where)
    assert ": it stands for many machines; choose an address of this one as --interface" in said
    assert "ready" not in said


@pytest.mark.parametrize(
    ("name", "why"), [("missing/x.pid", "there is no folder"), ("folder", "it is a folder")]
)
def test_a_pid_file_that_cannot_be_written_is_one_sentence(
    name: str, why: str, tmp_path: Path
) -> None:
    (tmp_path / "folder").mkdir()
    said = refused(f"--pidfile={tmp_path / name}", "uppercase-tcp", "--port=0")
    assert f"cannot write the pid file {tmp_path / name} ({why}" in " ".join(said.split())
    assert "Traceback" not in said


@pytest.mark.parametrize("option", ["--logfile", "--rundir"])
def test_a_place_that_is_not_there_is_one_sentence(option: str, tmp_path: Path) -> None:
    said = refused(f"{option}={tmp_path}/missing/x", "uppercase-tcp", "--port=0")
    assert f"{tmp_path}/missing/x" in said
    assert option in said
    assert "Traceback" not in said


def test_a_pipe_as_log_file_is_one_sentence(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    said = refused(f"--logfile={tmp_path}/pipe", "uppercase-tcp", "--port=0")
    assert f"cannot write the log file {tmp_path}/pipe: Illegal seek; name another" in said
    assert "or standard output with --logfile=-, before the service's name" in said


@pytest.mark.skipif(os.geteuid() != 0, reason="only root changes the root folder")
def test_a_service_in_a_jail_needs_nothing_from_outside(tmp_path: Path) -> None:
    """`twistd --chroot`: all of it is loaded before, and a jail without Python has no workers."""
    jail = tmp_path / "jail"
    (jail / "dev").mkdir(parents=True)
    # Twisted keeps it open, for a day without descriptors.
    (jail / "dev/null").touch()
    certificate = make_certificate(tmp_path)
    options = ["--proxy-from=127.0.0.0/8,unix", "--metrics=unix:/metrics", "--page=unix:/page"]
    options.append("--delay=1ms")
    unix, tls = "--listen=unix:/socket", f"--listen={certificate.endpoint()}"
    # Not a fork of the tests, which have imported everything.
    with Server(f"--chroot={jail}", "uppercase-tcp", unix, tls, *options, prepare=lambda: None):
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(f"{jail}/socket")
            client.sendall(b"PROXY UNKNOWN\r\nhello\x1b\n")
            assert receive_exactly(client, 7) == b"HELLO\x1b\n"
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(f"{jail}/metrics")
            client.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
            assert b"uppercase_connections_total" in receive_all(client)
    with Server(f"--chroot={jail}", "uppercase-udp", "--port=0", prepare=lambda: None):
        pass
    said = refused(f"--chroot={jail}", "uppercase-tcp", "--port=0", "--workers=2")
    assert f"--chroot={jail}, where there is no {sys.executable}" in " ".join(said.split())


def test_a_unix_socket_in_the_place_of_a_file_is_one_sentence(tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    file.touch()
    said = refused("uppercase-tcp", f"--listen=unix:{file}")
    assert f"cannot listen on UNIX {file}: a file that is not a socket has this name" in said
    assert [each.name for each in tmp_path.iterdir()] == ["notes.txt"]
    said = refused("uppercase-tcp", f"--listen=unix:{tmp_path}/missing/socket")
    assert f"cannot listen on UNIX {tmp_path}/missing/socket: there is no such folder" in said


def test_a_pid_file_that_another_server_has_is_one_sentence(tmp_path: Path) -> None:
    """As with two of README's commands in one directory; what a killed server left is replaced."""
    file = tmp_path / "twistd.pid"
    file.write_text(str(os.getpid()))
    said = refused(f"--pidfile={file}", "uppercase-tcp", "--port=0")
    assert f"the server with the process number {os.getpid()} has it" in " ".join(said.split())
    assert "name another with --pidfile=FILE" in " ".join(said.split())


def test_a_receive_buffer_that_no_system_has_is_one_sentence() -> None:
    said = refused("uppercase-udp", "--port=0", "--rcvbuf=3G")
    assert "got '3G'; at most 2147483647 is accepted" in " ".join(said.split())
    assert "Traceback" not in said
