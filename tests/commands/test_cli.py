"""The command's outside: help, mistakes, exit statuses, start-up."""

import os
import re
import resource
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from unittest import mock

import pytest

import uppercase
from docs.pages import commands
from tests.client.servers import free_port, tcp_server
from tests.commands.command import Outcome, command_line, environment, run_process
from tests.costs import here
from uppercase.__main__ import main
from uppercase.client.target import ENVIRONMENT
from uppercase.commands import MEANINGS, die_of, signals
from uppercase.commands.group import group
from uppercase.commands.send import send


def test_help_opens_with_examples(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    page = capsys.readouterr().out
    assert page.index("Examples:") < page.index("Usage:") < page.index("Commands:")
    assert "  send " in page


def test_a_command_s_help_has_its_options_in_sections(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["send", "--help"]) == 0
    page = capsys.readouterr().out
    places = [page.index(f"\n{heading}:") for heading in ("Examples", "Server", "Waiting", "UDP")]
    assert places == sorted(places)
    assert max(map(len, page.splitlines())) <= 80


@pytest.mark.parametrize(
    ("command", "defaults"),
    [
        (
            "send",
            {
                "timeout": "1s for UDP, else 10s",
                "retries": "3",
                "window": "16; 1 to 512",
                "on-loss": "fail",
            },
        ),
        (
            "ping",
            {
                "interval": "1s",
                "size": "64",
                "timeout": "1s for UDP, else 10s",
                "expect": "uppercase",
                "max-loss": "0",
            },
        ),
        (
            "bench",
            {
                "connections": "8",
                "size": "64",
                "pipeline": "1",
                "duration": "10s",
                "timeout": "1s for UDP, else 10s",
                "expect": "uppercase",
                "max-loss": "0",
            },
        ),
        ("fates", {"n": "20"}),
        (
            "run",
            {"transform": "uppercase", "port": "any free one", "seed": "random", "timeout": "5m"},
        ),
        ("grade", {"port": "any free one", "jobs": "8"}),
        ("try", {"max-length": "64k", "max-output": "1M"}),
    ],
)
def test_defaults_are_those_that_scripts_rely_on(command: str, defaults: dict[str, str]) -> None:
    (context,) = (each for each in commands(group) if each.info_name == command)
    found = {}
    for option in context.command.get_params(context):
        _, text = option.get_help_record(context) or ("", "")
        if shown := re.search(r"\[default: (.*)\]", text):
            found[option.opts[-1].lstrip("-")] = shown[1]
    assert found == defaults


def test_no_command_at_all_shows_the_help_and_is_a_mistake(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main([]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "Examples:" in captured.err


def test_a_command_ends_though_a_thread_that_a_transform_began_never_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Python would wait for an executor's: after `run --timeout`, or a check that says it hangs."""
    statuses: list[int] = []
    monkeypatch.setattr("uppercase.awaiting.leave_threads", statuses.append)
    monkeypatch.setattr("sys.argv", ["uppercase", "--bogus"])
    assert main() == 2
    assert main(["--bogus"]) == 2  # of a program that goes on
    assert statuses == [2]


def test_ctrl_c_behind_the_result_ends_a_command_as_any_other_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ends: list[int] = []
    monkeypatch.setattr(
        "uppercase.awaiting.leave_threads", mock.Mock(side_effect=KeyboardInterrupt)
    )
    monkeypatch.setattr("uppercase.__main__.die_of", ends.append)
    monkeypatch.setattr("sys.argv", ["uppercase", "--bogus"])
    assert main() == 130
    assert ends == [signal.SIGINT]


def test_the_version_is_ours(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert uppercase.__version__ in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["sned"], "no command named 'sned'; did you mean 'send'?"),
        (["doctor"], "no command named 'doctor'; did you mean 'transforms doctor'?"),
        (["--bogus"], "No such option '--bogus'"),
        (["send", "--tiemout=2"], "--timeout"),
        (["send", "-W", "-1"], "got '-1'; a duration is"),
        (["send", "-W", "0"], "got '0'; it must be more than 0"),
        (["send", "-u", "--chunk", "lots"], "got 'lots'; a size is"),
        (["send", "-u", "--retries", "1.5"], "got '1.5'; a whole number"),
        (["send", "-u", "--window", "100000"], "512"),
        (["send", "-u", "--on-loss", "cry"], "'cry'"),
        (["send", "-u", "--chunk=9", "--on-loss=empty"], "but chunks have no empty lines"),
        (["send", ":0"], "got '0' for the port"),
        (["ping", "–c", "10"], "got '–c', whose dash is no hyphen; type it as - or --"),
        (["send", "a", "b"], "got 'b' beside the address; one address is accepted"),
        (["send", "a", "7" * 5000], "beside the address; one address is accepted"),
        (["send", "::1", "7"], "write the port after its host: [::1]:7"),
        (["send", "12000"], "got the host '12000'; a port alone is written :12000"),
        (["send", "unix:/run/x"], "got the address 'unix:/run/x'; accepted are HOST, HOST:PORT,"),
        (["send", "/run/x"], "and, for a UNIX socket, --unix PATH"),
        (["ping", "-p", "7"], "No such option '-p'. Write the port after its host: HOST:PORT."),
        (["bench", "--port=7"], "Write the port after its host"),
        (["run", "-p", "7"], "No such option '-p'.\n"),
        (["send", "-4", "-6"], "got -4 and -6, which exclude each other"),
        (["send", "-u", "--tls"], "got --tls and -u"),
        (["send", "--unix", "x", "host"], "got --unix and a HOST"),
        (["send", "--unix", "x", "-u"], "got --unix and -u"),
        (["send", "--ca", "x"], "--ca is about TLS; add --tls"),
        (["send", "--insecure"], "--insecure is about TLS; add --tls"),
        (["send", "--retries", "0"], "got --retries, which is for UDP only; add -u"),
        (["send", "--no-warn"], "got --no-warn, which is for UDP only; add -u"),
        (["send", "-u", "--allow-empty"], "got --allow-empty, but over UDP"),
        (["send", "--on-loss=skip"], "got --on-loss, which is for UDP only; add -u"),
    ],
)
def test_a_mistake_is_one_sentence_and_status_2(
    arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("uppercase: ")
    assert sentence in captured.err
    assert captured.err.count("\n") == 1


@pytest.mark.parametrize("columns", [40, 50, 80])
def test_help_fits_the_terminal(
    columns: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """All but the examples, which are to be typed as they are."""
    monkeypatch.setenv("COLUMNS", str(columns))
    assert main(["send", "--help"]) == 0
    options = capsys.readouterr().out.partition("Usage:")[2]
    assert "--on-loss [fail|skip|empty]" in options
    assert max(map(len, options.splitlines())) <= columns


def test_help_imports_neither_twisted_nor_a_server() -> None:
    """Nor does anything else that the command shows before it talks to the network."""
    script = (
        "import sys; from uppercase.__main__ import main; main(['--help']); "
        "main(['send', '--help']); "
        "slow = {'twisted', 'hdrh', 'uppercase.services'} & set(sys.modules); "
        "sys.exit(f'imported {slow}' if slow else 0)"
    )
    process = subprocess.run(
        [sys.executable, "-c", script], env=environment(), capture_output=True, check=False
    )
    assert process.returncode == 0, process.stderr


def processor_time(arguments: list[str]) -> float:
    """Return the processor time of a run, in seconds."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(arguments, env=environment(), stdout=subprocess.DEVNULL, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def test_help_is_there_at_once() -> None:
    """Beyond the interpreter's own start, in processor time, of which a busy machine takes more."""
    interpreter = [sys.executable, "-c", "pass"]
    # What disturbs a run makes it dearer, never cheaper.
    assert any(
        processor_time(command_line("--help")) - processor_time(interpreter) < here(0.6)
        for _ in range(3)
    )


@pytest.mark.parametrize("command", [["ping", "-u"], ["send", "-u"], ["bench"], ["bench", "-u"]])
def test_ctrl_c_ends_a_command_that_waits_for_a_server_of_names(
    command: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python sees it only when a system's call of the main thread is over."""

    def look_up(*_: object) -> None:
        threads.append(threading.current_thread())
        raise socket.gaierror(socket.EAI_AGAIN, "nobody answers")

    threads: list[threading.Thread] = []
    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    assert main([*command, "nowhere.example"]) == 1
    assert threads
    assert threading.main_thread() not in threads


def run_without(closed: str, *arguments: str) -> Outcome:
    """Run the command without one of its standard streams, as shells write it."""
    line = ["sh", "-c", f'exec "$@" {closed}', "sh", *command_line(*arguments)]
    process = subprocess.run(line, env=environment(), capture_output=True, check=False)
    return Outcome(process.returncode, process.stdout, process.stderr.decode())


@pytest.mark.parametrize(
    ("closed", "command", "sentence"),
    [
        ("<&-", "send", "uppercase: standard input is closed; to send nothing, use </dev/null\n"),
        (">&-", "send", "uppercase: standard output is closed; to throw it away, use >/dev/null\n"),
        (">&-", "ping", "uppercase: standard output is closed; to throw it away, use >/dev/null\n"),
    ],
)
def test_a_closed_standard_stream_is_one_sentence(closed: str, command: str, sentence: str) -> None:
    outcome = run_without(closed, command)
    assert (outcome.status, outcome.stderr) == (2, sentence)


def test_nobody_need_read_the_errors() -> None:
    """With standard error closed, results and exit status are what they are."""
    with tcp_server() as server:
        outcome = run_without("2>&-", "bench", "--duration=100ms", server.address)
    assert outcome.status == 0
    assert b"throughput" in outcome.stdout
    assert run_without("2>&-", "ping", f":{free_port()}").status == 1


def test_no_socket_takes_the_place_of_a_closed_standard_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or what is said to the person would be sent to the server."""
    monkeypatch.chdir(tmp_path)
    Path("place.py").write_text(
        "import os\n\ndef of(number: str) -> str:\n    return os.readlink(f'/dev/fd/{number}')\n"
    )
    Path("number").write_text("2")
    outcome = run_without("2>&- < number", "transforms", "try", "place:of")
    assert (outcome.status, outcome.stdout) == (0, b"/dev/null")


def test_ctrl_c_is_quiet_even_while_the_command_loads() -> None:
    """And the process dies of it, so that a loop in a shell script ends with it."""
    interrupt = (
        "import sys, importlib.abc\n"
        "class Interrupt(importlib.abc.MetaPathFinder):\n"
        "    def find_spec(self, name, path, target=None):\n"
        "        if name == 'click':\n"
        "            raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Interrupt())\n"
        "from uppercase.__main__ import main\n"
        "sys.exit(main())"
    )
    process = subprocess.run(
        [sys.executable, "-c", interrupt], env=environment(), capture_output=True, check=False
    )
    assert (process.returncode, process.stderr) == (-signal.SIGINT, b"")


def test_a_second_ctrl_c_does_not_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[object] = []
    monkeypatch.setattr("uppercase.commands.die_of", said.append)
    before = signal.getsignal(signal.SIGINT)
    with signals(lambda: said.append("stop"), lambda: said.append("look")):
        signal.raise_signal(signal.SIGQUIT)
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
    assert said == ["look", "stop", signal.SIGINT]
    assert signal.getsignal(signal.SIGINT) is before


def test_a_full_disk_is_one_sentence() -> None:
    with open("/dev/full", "wb") as full:
        process = subprocess.run(
            command_line("--help"),
            env=environment({"PYTHONUNBUFFERED": ""}),
            stdout=full,
            stderr=subprocess.PIPE,
            check=False,
        )
    assert process.returncode == 2
    assert process.stderr.decode() == (
        "uppercase: cannot read or write a standard stream: No space left on device\n"
    )
    with open("/dev/full", "wb") as full:
        mistaken = command_line("ping", "--count=x")
        done = subprocess.run(mistaken, env=environment(), stderr=full, check=False)
    assert done.returncode == 2


def test_a_system_that_gives_no_thread_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(**_: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(send, "callback", refuse)
    assert main(["send"]) == 2
    assert capsys.readouterr().err == (
        "uppercase: cannot start a thread; `ulimit -u` shows how many threads and processes may "
        "be\n"
    )


def test_what_a_library_says_of_the_system_is_said_as_it_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """As Matplotlib does where it can write nowhere, which is no standard stream."""

    def refuse(*_: object) -> None:
        raise OSError("no place for its cache")

    monkeypatch.setattr("uppercase.classroom.picture.save_timeline", refuse)
    (tmp_path / "record").write_text('{"record": 1}')
    assert main(["timeline", f"{tmp_path}/record", "-o", "x.png"]) == 2
    assert capsys.readouterr().err == "uppercase: cannot write x.png: no place for its cache\n"
    source = (
        "from uppercase.__main__ import main; from uppercase.commands.send import send\n"
        "def refuse(**_): raise OSError('no place')\n"
        "send.callback = refuse; main(['send'])"
    )
    command = [sys.executable, "-c", source]
    done = subprocess.run(command, env=environment(), capture_output=True, check=True)
    assert done.stderr == b"uppercase: no place\n"


def test_the_first_process_of_a_container_dies_of_a_signal_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As in `uppercase fates ... | head -1`; the system keeps the signal from it."""
    exited: list[int] = []
    monkeypatch.setattr(os, "kill", lambda *_: None)
    monkeypatch.setattr(os, "_exit", exited.append)
    before = signal.getsignal(signal.SIGPIPE)
    die_of(signal.SIGPIPE)
    signal.signal(signal.SIGPIPE, before)
    assert exited == [128 + signal.SIGPIPE]


def test_a_terminal_without_some_letters_is_shown_how_they_are_written() -> None:
    record = b'{"record":1,"protocol":"UDP","transform":"\\u22ee"}\n'
    env = {"PYTHONIOENCODING": "latin-1"}
    shown = run_process("timeline", "/dev/stdin", data=record, env=env, fresh=True)
    assert (shown.status, shown.stdout) == (0, b"UDP \xb7 \\u22ee\nnothing came\n")


def test_the_module_runs_as_the_command_does() -> None:
    assert run_process("--version").stdout.decode() == f"uppercase {uppercase.__version__}\n"


def test_the_manual_page_has_every_command_option_and_exit_status(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["man"]) == 0
    page = capsys.readouterr().out
    assert page.startswith(".TH UPPERCASE 1 ")
    requests = {line.split()[0] for line in page.splitlines() if line.startswith(".")}
    assert requests == {".TH", ".nh", ".SH", ".SS", ".PP", ".TP", ".B", ".I", ".nf", ".fi"}
    for expected in (
        '.SS "uppercase send [OPTIONS] [HOST[:PORT]]"',
        ".B \\-\\-on\\-loss [fail|skip|empty]",
        ".B UPPERCASE_PORT",
        '.SH "EXIT STATUS"\n.TP\n.B 0\nEverything was answered as expected.',
        # What a shell is to take must not become typographic.
        "eval \\(dq$(uppercase completion bash)\\(dq        in \\(ti/.bashrc",
    ):
        assert expected in page
    assert re.findall(r"^[^.].*['`^~].*", page, re.MULTILINE) == []


def test_the_manual_has_its_options_where_python_drops_docstrings(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`python -OO`, and so PYTHONOPTIMIZE=2."""
    monkeypatch.setattr(group, "help", None)
    assert main(["man"]) == 0
    assert ".SH COMMANDS" in capsys.readouterr().out


def test_the_reference_has_every_option_of_send_and_every_exit_status() -> None:
    reference = Path(__file__).parents[2] / "docs" / "reference"
    page = (reference / "client.md").read_text()
    statuses = (reference / "exit-statuses.md").read_text()
    options = [name for parameter in send.params for name in parameter.opts if name[0] == "-"]
    assert [name for name in options if f"`{name}" not in page] == []
    said = {
        int(status)
        for status in re.findall(r"(?:^\| [^|]*\||a shell shows) (\d+) \|", statuses, re.M)
    }
    assert set(MEANINGS) <= said
    assert [name for name in ENVIRONMENT if f"`{name}`" not in page] == []
