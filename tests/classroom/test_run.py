"""`uppercase run` and `--record`, as a student and a teacher use them: real programs."""

import json
import shlex
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pexpect
import pytest

from tests.commands.command import Piped, run, run_process, terminal
from tests.system.processes import (
    START_TIMEOUT,
    Server,
    connect,
    environment,
    receive_all,
    refused,
    tool,
)
from tests.system.test_lecture import LECTURE, free_port, program

PINGER = """
import socket, sys
skt = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
skt.settimeout(0.5)
for number in range(1, 11):
    skt.sendto(b"ping %d" % number, (sys.argv[1], int(sys.argv[2])))
    try:
        print(skt.recv(2048).decode())
    except TimeoutError:
        print("lost")
sys.exit(3)
"""


def test_a_program_meets_the_fates_of_the_key(tmp_path: Path) -> None:
    """Its exit status is the command's, and the picture shows what was lost."""
    (tmp_path / "pinger.py").write_text(PINGER)
    picture = tmp_path / "run.svg"
    options = ["-u", "--lab", "udp-pinger", "--seed", "7", "--timeline", str(picture)]
    # As for timeout(1), what stands behind the program is the program's.
    place = [sys.executable, "-B", str(tmp_path / "pinger.py"), "{host}", "{port}"]
    done = run_process("run", *options, *place)
    assert done.status == 3
    said = done.stdout.decode().split("\n")
    assert [n for n, line in enumerate(said, 1) if line == "lost"] == [4, 6, 8, 9]
    assert done.stderr.count("request lost") == 4
    assert picture.read_text().count("request lost") == 4


def test_the_status_is_the_programs_where_the_end_of_children_is_ignored() -> None:
    """As by some that run graders, and so by all that they start."""
    done = subprocess.run(
        [tool("uppercase"), "run", "--", "false"],
        env=environment(),
        capture_output=True,
        timeout=START_TIMEOUT,
        check=False,
        preexec_fn=lambda: signal.signal(signal.SIGCHLD, signal.SIG_IGN),
    )
    assert done.returncode == 1, done.stderr


@pytest.mark.parametrize("udp", [[], ["-u"]], ids=["tcp", "udp"])
def test_a_client_finds_the_service_where_localhost_is_ipv6_first(udp: list[str]) -> None:
    """As for C's getaddrinfo and for Go: a datagram that is sent there finds no other way."""
    code = (
        "import socket, sys\n"
        "kind = socket.SOCK_DGRAM if sys.argv[2:] else socket.SOCK_STREAM\n"
        "skt = socket.socket(socket.AF_INET6, kind)\n"
        "skt.settimeout(30)\n"
        "skt.connect(('::1', int(sys.argv[1])))\n"
        "skt.send(b'hello')\n"
        "print(skt.recv(9).decode())\n"
    )
    done = run_process("run", *udp, "--", sys.executable, "-c", code, "{port}", *udp)
    assert (done.status, done.stdout) == (0, b"HELLO\n"), done.stderr


@pytest.mark.parametrize("client", ["tcp_client.py", "udp_client.py"])
def test_the_lectures_clients_run_as_they_are(client: str, tmp_path: Path) -> None:
    """Where 12000 is taken, with another port in them: theirs is fixed."""
    kind = socket.SOCK_DGRAM if client.startswith("udp") else socket.SOCK_STREAM
    port = free_port(kind)
    path = program(client, port, tmp_path)
    udp = ["-u"] if client.startswith("udp") else []
    words = ["run", *udp, "--port", str(port), "--", sys.executable, str(path)]
    done = run_process(*words, data=b"hello\n")
    assert done.status == 0
    assert done.stdout.rstrip().endswith(b"HELLO")
    assert '"HELLO"' in done.stderr
    assert (LECTURE / client).exists()


def test_a_transform_may_await_asyncio(tmp_path: Path) -> None:
    (tmp_path / "soon.py").write_text(
        "import asyncio\n\nasync def soon(text: str) -> str:\n"
        "    await asyncio.sleep(0.01)\n    return text.upper()\n"
    )
    (tmp_path / "client.py").write_text(
        "import socket, sys\n\ns = socket.create_connection(sys.argv[1:])\n"
        "s.send(b'a\\n')\ns.recv(9)\n"
    )
    words = ["run", "-t", "soon:soon", "--", sys.executable, "client.py", "{host}", "{port}"]
    done = run_process(*words, cwd=tmp_path)
    assert done.status == 0
    assert '"A\\n"' in done.stderr


def test_in_a_terminal_the_program_has_the_keyboard(tmp_path: Path) -> None:
    path = tmp_path / "ask.py"
    path.write_text("print('got ' + input('name: '))")
    with terminal("run", "--", sys.executable, str(path)) as screen:
        screen.see("name: ")
        screen.type("ada")
        screen.see("got ada")
        screen.see("nothing came")
        assert screen.status() == 0


def test_ctrl_c_is_for_the_program(tmp_path: Path) -> None:
    path = tmp_path / "wait.py"
    path.write_text("import time; print('here', flush=True); time.sleep(600)")
    with terminal("run", "--", sys.executable, str(path)) as screen:
        screen.see("here")
        screen.press("c")
        screen.see("nothing came")
        assert screen.status() == -signal.SIGINT


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # The child only executes.
def test_ctrl_z_is_for_the_shell(tmp_path: Path) -> None:
    """It stops the program and the command; in the foreground both go on."""
    path = tmp_path / "ask.py"
    path.write_text("print('got ' + input('name: '))")
    words = [tool("uppercase"), "run", "--", sys.executable, str(path)]
    shell = pexpect.spawn(
        "/bin/sh", ["-i"], env=environment(PS1="$ ", HISTFILE=""), timeout=START_TIMEOUT
    )
    try:
        for ending in ("", " &"):  # In the background it stops when it reads.
            shell.sendline(shlex.join(words) + ending)
            shell.expect_exact("name: ")
            if not ending:
                shell.sendcontrol("z")
                shell.expect("(?i)stopped")
            shell.sendline("fg")
            shell.expect_exact("ask.py")
            shell.sendline("ada")
            shell.expect_exact("got ada")
            shell.expect_exact("nothing came")
    finally:
        shell.close(force=True)


def test_a_program_that_asks_somebody_else_is_told_where_the_service_is() -> None:
    """Its exit status and output stay its own."""
    done = run_process("run", "-u", "--", "true")
    assert done.status == 0
    assert "nothing came" in done.stderr
    assert "sent nothing to UDP 127.0.0.1:" in done.stderr
    assert "{host} and {port}" in done.stderr


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--", "no-such-program"], "cannot run no-such-program"),
        (
            ["--loss", "0.3", "--seed", "7", "--", "true"],
            "got loss, which is for UDP only; add -u",
        ),
        (
            ["--lab", "udp-pinger", "--", "true"],
            "got udp-pinger, which is for UDP only; add -u",
        ),
        (["-u", "--slice", "3", "--", "true"], "got slice, which is for TCP only; leave out -u"),
        (["-u", "--lab", "satelite", "--", "true"], "did you mean 'satellite'?"),
        (["-u", "--loss", "3", "--", "true"], "--loss"),
        (["--timeline", "x.doc", "--", "true"], ".svg, .pdf"),
        (["--timeline", "no/x.svg", "--", "true"], "cannot write no/x.svg: there is no folder no"),
        (["-u", "--seed", "7", "--", "true"], "got --seed where nothing is random; add a lab"),
        (["--seed", "7", "--slice", "1", "--", "true"], "got --seed where nothing is random"),
        ([], "Missing argument '-- COMMAND ARG...'"),
        (["--port", "70000", "--", "true"], "got '70000'; a port is a whole number"),
    ],
)
def test_a_mistake_is_one_sentence(words: list[str], sentence: str) -> None:
    done = run_process("run", *words)
    assert done.status == 2
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr
    assert "nothing came" not in done.stderr


@pytest.mark.parametrize("mistake", ["--page-key", "--listen=udp:0:interface=192.0.2.1"])
def test_a_start_that_is_refused_leaves_the_last_record(mistake: str, tmp_path: Path) -> None:
    record = tmp_path / "record.jsonl"
    record.write_text("of yesterday")
    refused("uppercase-udp", mistake, f"--record={record}")
    assert record.read_text() == "of yesterday"


@pytest.mark.parametrize("service", ["uppercase-tcp", "uppercase-udp"])
def test_a_service_records_and_the_command_draws(service: str, tmp_path: Path) -> None:
    """Without waiting for its end: the record is flushed each second."""
    path = tmp_path / "class.jsonl"
    with Server(service, "--port=0", f"--record={path}") as server:
        if service == "uppercase-tcp":
            with connect(server.port) as client:
                client.sendall(b"hello")
                client.shutdown(1)
                assert receive_all(client) == b"HELLO"
            told = ["connected", '-- "hello" -', '- "HELLO" --', "has ended its side", "finished"]
        else:
            told = ['-- 1 "hello" -', '- 1 "HELLO" --']
            words = ["send", "-u", f"127.0.0.1:{server.port}"]
            assert run_process(*words, data=b"hello\n").status == 0
        deadline = time.monotonic() + 20
        while told[-1] not in (drawn := run("timeline", str(path))).stdout.decode():
            assert time.monotonic() < deadline, drawn
            time.sleep(0.1)
        # Nobody else's run takes its place meanwhile.
        other = run_process("run", "--record", str(path), "--", "true")
        assert (other.status, path.read_bytes()[:9]) == (2, b'{"record"')
        assert "which another service writes; name another file" in other.stderr
    assert drawn.status == 0
    assert [words for words in told if words not in drawn.stdout.decode()] == []


def test_a_record_is_json_for_strict_readers_whatever_a_transform_was_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They refuse what Python has for a byte that is no text, half of a pair."""
    (tmp_path / "same.py").write_text("def same(text: str, *, mark: str) -> str: return text\n")
    monkeypatch.chdir(tmp_path)
    wanted = ["--transform", "same:same:mark=\udcff"]
    with Server("uppercase-udp", "--port=0", "--record=served", *wanted, cwd=tmp_path):
        pass
    assert run_process("run", *wanted, "--record", "run", "--", "true").status == 0
    for path in ("served", "run"):
        first = json.loads(Path(path).read_text().splitlines()[0])
        assert first["transform"] == "same:same:mark=\\udcff"


def test_a_record_is_as_large_as_its_options_say(tmp_path: Path) -> None:
    """The service goes on, and says that the record does not."""
    path = tmp_path / "class.jsonl"
    options = (f"--record={path}", "--record-bytes=0", "--record-limit=1k")
    with Server("uppercase-udp", "--port=0", *options) as server:
        words = ["send", "-u", f"127.0.0.1:{server.port}"]
        assert run_process(*words, data=b"hello\n" * 20).status == 0
        server.wait_for_log("the record ends here: it is as large as it may be (--record-limit)")
    text = path.read_text()
    assert 500 < len(text) <= 1024
    rows = [json.loads(line) for line in text.splitlines()[1:]]
    assert {(row["data"], row["size"]) for row in rows} == {("", 5)}


def test_a_record_that_cannot_be_written_is_one_sentence() -> None:
    assert "No such file or directory" in refused("uppercase-udp", "--record=/no/file")


HOSTILE = (
    "import os, signal, sys, time\n"
    "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    "for _ in range(20):\n"
    "    if not os.fork():\n"
    "        os.setsid()\n"
    "        if os.fork(): os._exit(0)\n"
    "        time.sleep(600)\n"
    "if not os.fork():\n"
    "    os.setsid()\n"
    "    time.sleep(600)\n"
    "while True: sys.stdout.write('x' * 1_000_000)\n"
)
"""It ignores signals, has daemons and a child that has left its process group, and floods."""


@pytest.mark.parametrize(
    "option", ["--record", "--timeline", "--junit", "--gradescope", "--report"]
)
def test_a_file_that_cannot_be_written_is_refused_before_the_program_runs(
    option: str, tmp_path: Path
) -> None:
    begun = tmp_path / "begun"
    command = ["run"] if option in ("--record", "--timeline") else ["grade", "udp-client"]
    done = run_process(*command, option, "/proc/class.svg", "--", "touch", str(begun))
    assert done.status == 2
    assert done.stderr.startswith("uppercase: cannot write /proc/class.svg: ")
    assert not begun.exists()


def test_a_picture_that_needs_a_library_is_refused_before_the_program_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a program did is not repeated."""
    monkeypatch.setattr("uppercase.commands._options.find_spec", lambda name: None)
    ran = tmp_path / "ran"
    done = run("run", "--timeline", str(tmp_path / "lesson.pdf"), "--", "touch", str(ran))
    assert (done.status, ran.exists()) == (2, False)
    assert "a .pdf needs matplotlib: pip install" in done.stderr


def test_nothing_is_left_of_a_program_that_does_not_end(tmp_path: Path) -> None:
    """It is killed when its time is over, with all that it has started."""
    script = tmp_path / "hostile.py"
    script.write_text(HOSTILE)
    command = [tool("uppercase"), "run", "--timeout", "1s", "--", sys.executable, str(script)]
    done = subprocess.run(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, timeout=60, check=False
    )
    assert done.returncode == 124
    assert b"killed after 1 s" in done.stderr
    left = [path for path in Path("/proc").glob("[0-9]*/cmdline") if names(path, script)]
    assert not left


IMPATIENT = (
    "import sys, time\n"
    "from uppercase import awaiting\n"
    "from uppercase.__main__ import main\n"
    "from uppercase.classroom import captive\n"
    "captive._BUSY = awaiting.CLEANING_UP = 0.3\n"
    "def hang(message: bytes) -> bytes:\n"
    "    time.sleep(600)\n"
    "sys.modules['mine'] = sys.modules['__main__']\n"
    "sys.exit(main(['run', '-u', '-t', 'mine:hang', '--', *sys.argv[1:]]))\n"
)


def test_a_transform_that_hangs_is_said_to_when_the_program_has_ended() -> None:
    ask = "import socket, sys; skt = socket.socket(type=socket.SOCK_DGRAM)"
    ask += "; skt.sendto(b'x', ('127.0.0.1', int(sys.argv[1]))); skt.settimeout(1); skt.recv(1)"
    command = [sys.executable, "-c", IMPATIENT, sys.executable, "-c", ask, "{port}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert done.stderr.endswith("uppercase: a transform hangs: it has not returned for 0.3 s\n")


@pytest.mark.parametrize("command", ["run", "grade"])
def test_who_is_ended_leaves_no_program_behind(command: str, tmp_path: Path) -> None:
    """As `timeout` does it, or a terminal that is closed, which sends its signal twice."""
    script, runs = tmp_path / "endless.py", tmp_path / "runs"
    script.write_text(
        "import os, time\n"
        "if not os.fork():\n"
        "    os.setsid()\n"
        f"    open({str(runs)!r}, 'w')\n"
        "time.sleep(600)"
    )
    words = ["grade", "udp-client"] if command == "grade" else ["run"]
    with Piped(*words, "--", sys.executable, str(script)) as process:
        deadline = time.monotonic() + START_TIMEOUT
        while not runs.exists():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM if command == "grade" else signal.SIGHUP)
        for _ in range(30):
            time.sleep(0.005)
            process.send_signal(signal.SIGHUP)
        process.wait(START_TIMEOUT)
    assert not [path for path in Path("/proc").glob("[0-9]*/cmdline") if names(path, script)]


def names(path: Path, script: Path) -> bool:
    """Whether the command line of a process has a script."""
    try:
        return str(script).encode() in path.read_bytes()
    except OSError:  # It has just ended.
        return False
