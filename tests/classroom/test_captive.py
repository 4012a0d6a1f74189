"""A graded program on trial: limited, cut, and gone for certain when it is over."""

import os
import signal
import socket
import subprocess
import sys
import time
from itertools import chain, count, repeat
from pathlib import Path
from textwrap import dedent

import pytest

from tests.commands.command import run_process
from uppercase.classroom import captive
from uppercase.classroom.captive import LIMITS, OUTPUT, Program
from uppercase.errors import UserError
from uppercase.limits import KIB, MIB

WITHIN = 60.0


def ran(code: str, **limits: int) -> tuple[int | None, str]:
    """Return how Python code ended under other limits, and what it printed."""
    with Program([sys.executable, "-c", code], 1, limits={**LIMITS, **limits}) as program:
        status = program.wait(WITHIN)
        return status, program.output() + program.complaint()


def test_processor_time_is_limited() -> None:
    status, _ = ran("while True: pass", RLIMIT_CPU=1)
    assert status in (-signal.SIGXCPU, -signal.SIGKILL)


def test_memory_is_limited() -> None:
    status, said = ran(f"x = bytearray({LIMITS['RLIMIT_AS']}); print('got it')")
    assert status == 1
    assert said.startswith("MemoryError")


def test_the_size_of_files_is_limited(tmp_path: Path) -> None:
    path = tmp_path / "big"
    ran(f"open({str(path)!r}, 'wb').write(bytes({LIMITS['RLIMIT_FSIZE'] + MIB}))")
    assert path.stat().st_size <= LIMITS["RLIMIT_FSIZE"]


def test_open_files_are_limited() -> None:
    status, said = ran("x = [open('/dev/null') for _ in range(400)]")
    assert status == 1
    assert "Too many open files" in said


def test_processes_are_limited() -> None:
    """To some more than the user has; the system does not hold root to that."""
    code = "import resource; print(*resource.getrlimit(resource.RLIMIT_NPROC))"
    status, said = ran(code)
    soft, hard = map(int, said.split())
    assert status == 0
    assert soft == hard
    least = captive.TASKS + captive.TASKS_A_CORE * (os.cpu_count() or 1)
    assert least < soft < least + 2 * len(list(Path("/proc").glob("[0-9]*/task/*"))) + 500


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become another user")
def test_what_the_user_runs_outside_of_a_container_leaves_a_program_its_own() -> None:
    """The system counts it too, and `/proc` does not show it."""
    code = """
        import os, resource, signal, sys, threading, warnings
        os.setuid(54321)
        for _ in range(200):
            threading.Thread(target=threading.Event().wait, daemon=True).start()
        launch, *sys.argv[1:] = sys.argv[1:]
        exec(launch)
        """
    words = [sys.executable, "-c", dedent(code), captive._LAUNCH]
    command = [*words, "100", "RLIMIT_CORE=0", "cat", "/proc/self/limits"]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stderr
    line = next(each for each in ran.stdout.splitlines() if each.startswith("Max processes"))
    soft, hard = map(int, line.split()[2:4])
    assert soft == hard
    assert 300 <= soft <= 2 * 200 + 100 + 64


def test_a_limit_that_the_system_refuses_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """MacOS refuses one of memory."""
    refusing = """
        import resource
        def refuse(kind, pair, real=resource.setrlimit):
            if kind == resource.RLIMIT_AS:
                raise ValueError("current limit exceeds maximum limit")
            real(kind, pair)
        resource.setrlimit = refuse
        """
    monkeypatch.setattr(captive, "_LAUNCH", dedent(refusing) + captive._LAUNCH)
    code = "import resource; print(resource.getrlimit(resource.RLIMIT_NOFILE)[0])"
    assert ran(code) == (0, f"{LIMITS['RLIMIT_NOFILE']}\n")


def test_eight_java_programs_fit() -> None:
    """Each has 20 threads where there are two cores, and 80 where there are 64."""
    for cores, threads in ((2, 22), (16, 45), (64, 80)):
        assert 8 * threads < captive.TASKS + captive.TASKS_A_CORE * cores


def test_no_core_is_left() -> None:
    code = "import resource; print(*resource.getrlimit(resource.RLIMIT_CORE))"
    assert ran(code) == (0, "0 0\n")


def test_output_is_cut_and_the_program_goes_on() -> None:
    code = "import sys; sys.stdout.write('x' * 3_000_000); sys.stderr.write('done')"
    status, said = ran(code)
    assert status == 0
    assert said == "x" * OUTPUT + "done"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may become another user")
def test_nothing_is_left_of_a_program_that_root_starts_as_another_user() -> None:
    sleeper = f"sleep 6{os.getpid()}"
    wanted = [
        "runuser",
        "-u",
        "nobody",
        "--",
        "sh",
        "-c",
        f"setsid {sleeper} & echo begun; {sleeper}",
    ]
    with Program(wanted, 1) as program:
        deadline = time.monotonic() + WITHIN
        while "begun" not in program.output() and program.alive and time.monotonic() < deadline:
            time.sleep(0.01)
        assert program.output() == "begun\n", program.output(2)
    lines = [line for _, line in captive._processes("cmdline")]
    assert sleeper.replace(" ", "\0").encode() + b"\0" not in lines


def test_a_program_that_may_not_be_killed_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """As sudo's, which runs as root."""

    def refuse(*_: int) -> None:
        raise PermissionError

    program = Program(["sleep", "20"], 1)
    with monkeypatch.context() as patch:
        patch.setattr("os.killpg", refuse)
        patch.setattr(captive, "KILLED_WITHIN", 0.1)
        program.interrupt()
        with pytest.raises(UserError, match=r"is another user's; start"), program:
            pass
    program.process.kill()
    program.process.communicate()


@pytest.fixture
def port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


ESCAPE = """
import os, socket, sys, time
{leave}
if os.fork():
    {parent}
os.setsid()
if os.fork():
    os._exit(0)
server = socket.create_server(("127.0.0.1", {port}), reuse_port=True)
open({ready!r}, "w").write(str(os.getpid()))
time.sleep(600)
"""
FRESH = (
    "if len(sys.argv) == 1: "
    "os.execve(sys.executable, [sys.executable, __file__, 'x'], {'PATH': '/bin'})"
)
"""Start again with an environment in which nothing of ours is."""


def escaping(folder: Path, port: int, *, leave: str = "", parent: str = "os._exit(0)") -> Path:
    """Write a program that leaves a server behind, whose number comes into a file `ready`."""
    folder.mkdir(exist_ok=True)
    script = folder / "escape.py"
    ready = str(folder / "ready")
    script.write_text(ESCAPE.format(leave=leave, parent=parent, port=port, ready=ready))
    return script


def escaped(script: Path, program: Program) -> int:
    """Wait for the server that was left behind; return its number."""
    ready = script.parent / "ready"
    deadline = time.monotonic() + WITHIN
    while not (ready.exists() and ready.read_text()):
        assert time.monotonic() < deadline, program.complaint()
        time.sleep(0.02)
    return int(ready.read_text())


def lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize("leave", ["", FRESH], ids=["", "environment"])
@pytest.mark.parametrize("parent", ["time.sleep(600)", "os._exit(0)"], ids=["stays", "ends"])
def test_nothing_of_a_program_is_left_listening(
    leave: str, parent: str, port: int, tmp_path: Path
) -> None:
    """Not a daemon either: in a session of its own, its parents gone, its environment emptied."""
    script = escaping(tmp_path, port, leave=leave, parent=parent)
    with Program([sys.executable, str(script)], port) as program:
        pid = escaped(script, program)
    assert not lives(pid)
    with socket.socket() as again:
        again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        again.bind(("127.0.0.1", port))
        again.listen()


def test_of_programs_that_run_at_once_each_keeps_its_own(port: int, tmp_path: Path) -> None:
    """One that ends takes nothing of another's away; what hides its owner goes with the last."""
    ours = escaping(tmp_path / "ours", port)
    theirs = escaping(tmp_path / "theirs", port)
    hidden = escaping(tmp_path / "hidden", port, leave=FRESH)
    with Program([sys.executable, str(ours)], port) as program:
        daemon = escaped(ours, program)
        with Program([sys.executable, str(theirs)], port) as other:
            others = escaped(theirs, other)
            with Program([sys.executable, str(hidden)], port) as third:
                stray = escaped(hidden, third)
        assert not lives(others)
        assert lives(daemon)
    assert not lives(daemon)
    assert not lives(stray)


def test_other_children_of_the_grader_live() -> None:
    """Only what a program has started is killed."""
    pid = os.posix_spawn("/bin/sleep", ["sleep", "600"], os.environ)
    try:
        assert ran("print(1)") == (0, "1\n")
        assert os.waitpid(pid, os.WNOHANG) == (0, 0)
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def test_what_cannot_be_started_leaves_nothing_open(monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as where the system has no room for one more process."""
    before = {*os.listdir("/proc/self/fd")}
    monkeypatch.setattr("sys.executable", "/no/such/python")
    with pytest.raises(OSError, match="/no/such/python") as caught:
        Program(["true"], 1)
    assert {*os.listdir("/proc/self/fd")} <= before, caught


def test_a_server_has_longer_to_start_where_the_machine_has_no_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each look is a minute late."""
    minutes = count(0.0, 60.0)
    looks = iter([False, False, True])
    with Program(["sleep", "60"], 1) as program, monkeypatch.context() as slow:
        slow.setattr(captive, "listens", lambda *_: next(looks))
        slow.setattr(time, "monotonic", lambda: next(minutes))
        assert program.serves("tcp")


def test_a_server_that_never_listens_is_waited_for_so_many_looks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looks = iter([None, None])
    monkeypatch.setattr(captive, "listens", lambda *_: next(looks))
    monkeypatch.setattr(captive, "_STARTS_WITHIN", 0.1)
    with Program(["sleep", "60"], 1) as program:
        assert not program.serves("tcp")


def test_a_server_that_has_ended_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[object] = []
    monkeypatch.setattr(captive, "listens", lambda *_: looks.append(_))
    with Program(["true"], 1) as program:
        program.wait(30)
        assert not program.serves("tcp")
    assert not looks


def test_java_has_the_addresses_that_it_reserves() -> None:
    """Half of the limit for its heap, 1.25 GiB for classes and code, and some for libraries."""
    size = LIMITS["RLIMIT_AS"] // 2 + 1536 * MIB
    reserve = "mmap.mmap(-1, {}, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x4000, mmap.PROT_READ)"
    assert ran(f"import mmap; x = {reserve.format(size)}; print('runs')") == (0, "runs\n")


def test_threads_take_few_of_the_addresses() -> None:
    """One that allocates had 64 MiB of them, and Java has more threads on more cores."""
    code = (
        "import ctypes, threading\n"
        "threading.stack_size(256 * 1024)\n"
        "ready, end = threading.Barrier(41), threading.Event()\n"
        "take = lambda: (ctypes.CDLL(None).malloc(1000), ready.wait(), end.wait())\n"
        "for _ in range(40): threading.Thread(target=take).start()\n"
        "ready.wait()\n"
        "print(open('/proc/self/status').read().partition('VmSize:')[2].split()[0])\n"
        "end.set()\n"
    )
    _, one = ran(code.replace("40", "1").replace("41", "2"))
    status, forty = ran(code)
    assert status == 0
    assert (int(forty) - int(one)) * KIB < 256 * MIB


def test_dotnet_makes_no_file_of_2_tib() -> None:
    """The limit of a file's size would end it at once, says dotnet/runtime's issue 117819."""
    assert ran("import os; print(os.environ['DOTNET_EnableWriteXorExecute'])") == (0, "0\n")


def test_a_program_dies_of_a_broken_pipe() -> None:
    """Unlike Python: a server in C that writes to who has gone ends for everybody."""
    with Program(["grep", "SigIgn", "/proc/self/status"], 1) as program:
        assert program.wait(WITHIN) == 0
        ignored = int(program.output().split()[1], 16)
    assert not any(ignored >> number - 1 & 1 for number in (signal.SIGPIPE, signal.SIGXFSZ))


def test_nobody_types_and_there_is_no_end_of_it() -> None:
    """A server that ends when somebody presses Enter does not end by itself."""
    code = "import select; print(len(select.select([0], [], [], 0)[0]))"
    with Program([sys.executable, "-c", code], 1) as program:
        assert (program.wait(WITHIN), program.output()) == (0, "0\n")
    with Program([sys.executable, "-c", code.replace("[], 0", "[], 30")], 1, "") as program:
        assert (program.wait(WITHIN), program.output()) == (0, "1\n")


def test_what_is_typed_can_be_waited_for_and_need_not_be_read() -> None:
    """By epoll as well, and so in asyncio, which both refuse a file."""
    code = (
        "import os, select\n"
        "waiting = select.epoll()\n"
        "waiting.register(0, select.EPOLLIN)\n"
        "waiting.poll(30)\n"
        "print(os.read(0, 5).decode())\n"
    )
    with Program([sys.executable, "-c", code], 1, "hello" * MIB) as program:
        assert (program.wait(WITHIN), program.output()) == (0, "hello\n")


@pytest.mark.parametrize("command", ["exec sleep 100", "exec 3<&0; setsid sleep 100 &"])
def test_who_never_reads_what_is_typed_keeps_nobody_waiting(command: str) -> None:
    """Nor does a daemon that has it from there."""
    began = time.monotonic()
    with Program(["sh", "-c", command], 1, "hello" * MIB) as program:
        program.wait(1.0)
    assert time.monotonic() < began + WITHIN


def test_a_server_may_go_on_in_the_background(port: int, tmp_path: Path) -> None:
    """As a shell script starts one, or a daemon: what was started first has ended."""
    script = escaping(tmp_path, port)
    source = script.read_text().replace("os.setsid()", "time.sleep(0.5)")
    script.write_text(source)
    with Program([sys.executable, str(script)], port) as program:
        assert program.wait(WITHIN) == 0
        assert program.serves("tcp")


def test_a_server_that_forks_while_it_is_looked_for_is_found(
    port: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The list of processes may lack the new one, and the old one end before its turn."""
    looks = chain([lambda _: iter(())], repeat(captive._processes))
    with Program([sys.executable, str(escaping(tmp_path, port))], port) as program:
        escaped(tmp_path / "escape.py", program)
        assert program.wait(WITHIN) == 0
        monkeypatch.setattr(captive, "_processes", lambda file: next(looks)(file))
        assert program.serves("tcp")


def test_the_last_words_are_those_of_standard_error_if_there_are_some() -> None:
    """Java says on standard output why it does not start; a crash in C only the system knows."""
    dies = "print('ready'); import os; os.kill(os.getpid(), 11)"
    for code, words in (
        ("print('no room'); import sys; sys.exit(1)", "no room"),
        ("print('ready'); import sys; sys.exit('no room')", "no room"),
        (dies, "Segmentation fault"),
        (f"import sys; print('no room', file=sys.stderr); {dies}", "no room"),
        ("pass", "nothing"),
    ):
        with Program([sys.executable, "-c", code], 1) as program:
            program.wait(WITHIN)
            assert program.last_words() == words


GOES_ON = {
    "OSError: Address in use": """Traceback (most recent call last):
  File "server.py", line 3, in <module>
    skt.bind(('', 12000))
OSError: Address in use
""",
    "Caused by: java.net.BindException: Address already in use": """\
Exception in thread "main" java.lang.RuntimeException: cannot start
	at Server.main(Server.java:7)
Caused by: java.net.BindException: Address already in use
	at java.base/sun.nio.ch.Net.bind0(Native Method)
	... 1 more
""",
    "Error: read ECONNRESET": """node:events:502
      throw er; // Unhandled 'error' event
      ^

Error: read ECONNRESET
    at TCP.onStreamRead (node:internal/stream_base_commons:218:20)
Emitted 'error' event on Socket instance at:
    at emitErrorNT (node:internal/streams/destroy:169:8) {
  errno: -104,
}

Node.js v20.20.2
""",
    "no reply": """/tmp/client.js:1
throw 'no reply'
^
no reply
(Use `node --trace-uncaught ...` to show where the exception was thrown)

Node.js v20.20.2
""",
    "panic: runtime error: invalid memory address or nil pointer dereference": """\
panic: runtime error: invalid memory address or nil pointer dereference
[signal SIGSEGV: segmentation violation code=0x1 addr=0x0 pc=0x4a9f74]

goroutine 19 [running]:
main.(*T).serve(0x0?, 0x0?)
	/tmp/server.go:4 +0x14
created by main.main
	/tmp/server.go:5 +0xb2
exit status 2
""",
    "called `Result::unwrap()` on an `Err` value: Os { code: 98, kind: AddrInUse }": """
thread 'main' (7) panicked at server.rs:1:126:
called `Result::unwrap()` on an `Err` value: Os { code: 98, kind: AddrInUse }
stack backtrace:
   0: core::panicking::panic_fmt
note: Some details are omitted, run with `RUST_BACKTRACE=full` for a verbose backtrace.
""",
    "server.rb:1:in `bind': Address already in use (Errno::EADDRINUSE)": """\
server.rb:1:in `bind': Address already in use (Errno::EADDRINUSE)
	from server.rb:1:in `<main>'
""",
    "PHP Fatal error:  Uncaught Exception: no reply in /tmp/client.php:1": """\
PHP Fatal error:  Uncaught Exception: no reply in /tmp/client.php:1
Stack trace:
#0 /tmp/client.php(1): f()
#1 {main}
  thrown in /tmp/client.php on line 1
""",
    "client: no reply": """client: no reply
CallStack (from HasCallStack):
  error, called at client.hs:3:8 in main:Main
""",
    "lua: server.lua:1: address already in use": """lua: server.lua:1: address already in use
stack traceback:
	[C]: in ?
""",
    "couldn't open socket: address already in use": """\
couldn't open socket: address already in use
    while executing
"socket -server x 12321 "
    (file "server.tcl" line 1)
""",
    "what():  no reply": """terminate called after throwing an instance of 'std::runtime_error'
  what():  no reply
""",
    "bind: Address already in use": """bind: Address already in use
make[1]: *** [Makefile:2: run] Error 1
make: *** [Makefile:5: all] Error 2
""",
    "error: no reply": """1 | throw Error("no reply")
          ^
error: no reply
      at /tmp/client.js:1:7

Bun v1.4.5 (Linux x64)
""",
    "SUMMARY: AddressSanitizer: SEGV /tmp/client.c:1 in main": """\
==7==ERROR: AddressSanitizer: SEGV on unknown address 0x000000000000
    #0 0x55e9cd2a01a1 in main /tmp/client.c:1
SUMMARY: AddressSanitizer: SEGV /tmp/client.c:1 in main
==7==ABORTING
""",
    "indented": "  only\n  indented\n\n",
}


@pytest.mark.parametrize("says", GOES_ON)
def test_a_complaint_is_the_line_that_says_what_went_wrong(says: str) -> None:
    """Runtimes go on with where it was, and a server's port that is in use was not seen there."""
    with Program(["sh", "-c", 'printf %s "$0" >&2', GOES_ON[says]], 1) as program:
        program.wait(WITHIN)
        assert program.complaint() == says


def test_a_complaint_is_found_at_once_in_whatever_was_printed() -> None:
    """Where in a program something was is a pattern that long lines would keep busy."""
    code = f"import sys; sys.stderr.write('a.' + '(' * {OUTPUT})"
    with Program([sys.executable, "-c", code], 1) as program:
        program.wait(WITHIN)
        began = time.thread_time()
        assert program.complaint() == "a." + "(" * 198
        assert time.thread_time() < began + 0.2


def test_a_program_that_cannot_be_started_says_why() -> None:
    with Program(["/no/such/program"], 1) as program:
        assert program.wait(WITHIN) == 1
        assert program.complaint() == "cannot run /no/such/program: No such file or directory"


def test_a_first_line_from_windows_is_not_a_missing_file(tmp_path: Path) -> None:
    script = tmp_path / "ada.py"
    script.write_bytes(b"#!/usr/bin/python3\r\nprint('hello')\r\n")
    script.chmod(0o755)
    why = f"cannot run {script}: the interpreter that it names (#!) is not here"
    with Program([str(script)], 1) as program:
        assert program.wait(WITHIN) == 1
        assert program.complaint() == why
    done = run_process("run", "--", str(script))
    assert (done.status, done.stderr) == (2, f"uppercase: {why}\n")


def test_where_nobody_tells_who_listens_a_server_cannot_be_graded(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("uppercase.classroom.captive._OPEN_PORTS", str(tmp_path / "nothing"))
    with (
        Program(["sleep", "60"], 1) as program,
        pytest.raises(UserError, match="only Linux tells who listens"),
    ):
        program.serves("tcp")
