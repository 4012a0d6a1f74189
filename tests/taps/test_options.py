"""The options' table: what is accepted is shown, and what is shown is accepted."""

import os
import re
import resource
from contextlib import nullcontext
from dataclasses import fields
from errno import EACCES
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from twisted.application import app
from twisted.internet import reactor
from twisted.python import usage

from uppercase.awaiting import leave_threads
from uppercase.errors import UserError
from uppercase.lab import make_experiment
from uppercase.limits import RECORD_BYTES, RECORD_LIMIT, DatagramLimits, Limits
from uppercase.services import TCPService
from uppercase.services.logs import say
from uppercase.taps import name_sockets, tcp, together, udp
from uppercase.taps._options import TableOptions
from uppercase.taps._process import check_places


@pytest.mark.parametrize("options", [tcp.Options, udp.Options, together.Options])
def test_every_option_is_in_the_help_and_every_shown_option_exists(
    options: type[TableOptions],
) -> None:
    made = options()
    shown = set(re.findall(r"^  (?:-\w, |    )--([\w-]+)", made.getUsage(), re.MULTILINE))
    accepted = {name for name in made.longOpt if name.rstrip("=")}
    assert {name.rstrip("=") for name in accepted} == shown


def test_options_become_settings() -> None:
    options = tcp.Options()
    where = ["--port=0", "-i127.0.0.1", "-i::1", "-ltcp:0:interface=127.0.0.2", "-lunix:socket"]
    what = ["-tstrip", "-tcaesar:shift=3", "-fnetstring", "--max-output=2M"]
    options.parseOptions([*where, *what, "--drain=2s", "--drain-quiet=3s", "--log-peers"])
    made: Any = tcp.makeService(options)
    (service,) = made
    assert isinstance(service, TCPService)
    settings = service.settings
    assert settings.port_number() == 0
    assert settings.hosts() == ("127.0.0.1", "::1")
    assert settings.transforms == ("strip", "caesar:shift=3")
    assert settings.listen == ("tcp:0:interface=127.0.0.2", "unix:socket")
    assert (settings.framing, settings.drain, settings.drain_quiet) == ("netstring", 2.0, 3.0)
    assert (settings.max_output, settings.log_peers) == (2 << 20, True)


def test_every_limit_of_tcp_has_an_option_and_its_default() -> None:
    """A value of its own for each, and none is mixed up with another."""
    values: dict[str, Any] = {field.name: 7 + place for place, field in enumerate(fields(Limits))}
    options = tcp.Options()
    options.parseOptions([f"--{name.replace('_', '-')}={n}" for name, n in values.items()])
    assert tcp_limits(options) == Limits(**values)
    options = tcp.Options()
    options.parseOptions([])
    assert tcp_limits(options) == Limits()


def tcp_limits(options: tcp.Options) -> Limits:
    """Return the limits of the service that options describe."""
    (service,) = options.services
    assert isinstance(service, TCPService)
    return service.factory.limits


BOTH = {
    "port": "-p 12000",
    "interface": "-i loopback, both families",
    "listen": "-l",
    "transform": "-t uppercase",
    "max-output": "1M",
    "drain": "10s",
    "record": "off",
    "record-bytes": "64",
    "record-limit": "100M",
    "page": "off",
    "log-format": "text",
    "metrics": "off",
    "workers": "1",
    "watchdog": "off",
}
"""What scripts rely on: each option's letter, and its default in the words of the help."""

OF_TCP = {
    "framing": "-f auto",
    "max-length": "64k",
    "max-connections": "1000",
    "max-per-address": "any number",
    "idle-timeout": "10m",
    "send-timeout": "60s",
    "handshake-timeout": "15s",
    "drain-quiet": "500ms",
}

OF_UDP = {
    "max-request": "65535",
    "max-amplification": "3",
    "loop-guard": "16",
    "rate": "off",
    "rcvbuf": "4M",
    "lab": "none",
    **dict.fromkeys(("loss", "duplicate", "reorder", "corrupt", "delay", "jitter"), "0"),
    "seed": "random, logged",
}


@pytest.mark.parametrize("module", [tcp, udp])
def test_letters_and_defaults_are_those_that_scripts_rely_on(module: Any) -> None:
    rows = re.sub("\n {8,}", " ", module.Options().getUsage())
    found = re.findall(r"^  (-\w|  )[ ,] +--([\w-]+).*?(?:\[default: (.*)\])?$", rows, re.MULTILINE)
    shown = {name: f"{letter} {default}".strip() for letter, name, default in found}
    expected = BOTH | (OF_TCP if module is tcp else OF_UDP)
    assert {name: shown[name] for name in expected} == expected
    given, left = module.Options(), module.Options()
    numbers = {name: told for name, told in expected.items() if told[0] in "123456789"}
    # No record is to be made.
    given.parseOptions([f"--{n}={told}" for n, told in numbers.items() if "record" not in n])
    left.parseOptions([])
    assert given.services[0].settings == left.services[0].settings


@pytest.mark.parametrize("module", [tcp, udp])
def test_zero_workers_are_one_for_each_processor(
    module: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the help says what each has of the limits."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 2, 5}, raising=False)
    options = module.Options()
    options.parseOptions(["--workers=0"])
    (supervisor,) = options.service
    assert supervisor.workers == 3
    text = options.rows["workers"].text
    assert "--max-connections and --max-per-address are shared among them" in text
    assert "each has UDP's --rate for itself" in text


def test_a_record_keeps_and_holds_what_the_help_says() -> None:
    rows = udp.Options.rows
    for name, used in (("record-bytes", RECORD_BYTES), ("record-limit", RECORD_LIMIT)):
        assert rows[name].parse(rows[name].shown) == used


def test_every_limit_of_udp_has_an_option() -> None:
    options = udp.Options()
    words = ["--max-request=1k", "--max-amplification=5", "--loop-guard=7", "--allow-low-ports"]
    options.parseOptions([*words, "--rate=11:13", "--rate-dry-run", "--rcvbuf=17k"])
    (service,) = options.services
    assert service.settings.limits == DatagramLimits(
        max_request=1024,
        max_amplification=5,
        loop_guard=7,
        allow_low_ports=True,
        rate=11,
        burst=13,
        rate_dry_run=True,
        receive_buffer=17 * 1024,
    )


def test_a_lab_is_that_of_the_options() -> None:
    options: Any = udp.Options()
    options.parseOptions(["--lab=satellite", "--loss=both:0.5", "--seed=7", "--per-client"])
    (service,) = options.services
    made = {"loss": "both:0.5", "delay": "both:260ms", "jitter": "both:20ms"}
    assert service.settings.lab == make_experiment(made, seed=7, per_client=True)


def test_as_many_workers_as_processors_are_asked_for_by_0(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda process: {3, 5, 8}, raising=False)
    options: Any = tcp.Options()
    options.parseOptions(["--workers=0"])
    (supervisor,) = options.service
    assert supervisor.workers == 3


def test_a_start_that_is_refused_leaves_the_record_of_the_server_that_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`twistd` writes its pid file where it is called, whatever it runs in."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "record").write_text("of today")
    (tmp_path / "twistd.pid").write_text(str(os.getppid()))
    options: Any = udp.Options()
    options.parent = app.ServerOptions()
    options.parent.update(rundir="/", pidfile="twistd.pid")
    with pytest.raises(SystemExit):
        options.parseOptions([f"--record={tmp_path / 'record'}"])
    assert (tmp_path / "record").read_text() == "of today"


@pytest.mark.parametrize(
    ("content", "error", "whose"),
    [
        ("7", None, 7),
        ("7", PermissionError, 7),
        ("7", ProcessLookupError, None),
        ("9" * 30, OverflowError, None),
        ("seven", None, None),
        # Of one that was killed in the same container, whose first process is this one, too.
        ("ours", None, None),
    ],
)
def test_a_pid_file_has_an_owner_only_while_its_process_runs(
    content: str,
    error: type[Exception] | None,
    whose: int | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = tmp_path / "twistd.pid"
    path.write_text(content.replace("ours", str(os.getpid())))
    monkeypatch.setattr(os, "kill", mock.Mock(side_effect=error))
    if whose is None:
        check_places({"pidfile": str(path)})
        # twistd would take ours for another one.
        assert path.exists() is (content not in ("7", "ours"))
    else:
        with pytest.raises(UserError, match=f"number {whose} has it; remove it if that is none"):
            check_places({"pidfile": str(path)})


def test_a_stale_pid_file_that_may_not_be_removed_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of another user in /tmp, who lets everybody write his files; twistd has a traceback."""
    path = tmp_path / "twistd.pid"
    path.write_text("7")
    monkeypatch.setattr(os, "kill", mock.Mock(side_effect=ProcessLookupError))
    monkeypatch.setattr(os, "remove", mock.Mock(side_effect=PermissionError))
    with pytest.raises(UserError, match=r"cannot write the pid file \S+ \(.*; name another"):
        check_places({"pidfile": str(path)})


def test_a_pid_file_that_is_no_file_is_not_read() -> None:
    """A pipe, which somebody may have put into /tmp, would be waited for."""
    with pytest.raises(UserError, match=r"cannot write the pid file /dev/null \(it is no file\)"):
        check_places({"pidfile": "/dev/null"})


def test_a_pid_file_that_another_user_has_left_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a folder of all, such as /tmp, where it can be neither read nor removed."""
    path = tmp_path / "twistd.pid"
    path.touch()
    monkeypatch.setattr(os, "access", lambda place, mode: place != str(path))
    with pytest.raises(UserError, match=r"cannot write the pid file \S+ \(permission denied\)"):
        check_places({"pidfile": str(path)})


def test_a_pid_file_that_there_is_no_room_for_is_a_sentence(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        with pytest.raises(UserError, match=r"cannot write the pid file \S+ \(file too large\)"):
            check_places({"pidfile": str(tmp_path / "twistd.pid")})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("writable", [True, False])
def test_a_pid_file_may_be_all_that_the_system_lets_a_service_write(
    writable: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by a profile of AppArmor's, of which the folder's mode knows nothing."""
    refuse = mock.Mock(side_effect=PermissionError(EACCES, "Permission denied"))
    monkeypatch.setattr("uppercase.taps._process.TemporaryFile", refuse)
    monkeypatch.setattr(os, "access", lambda place, _: writable or place != str(tmp_path))
    sentence = pytest.raises(UserError, match=r"pid file \S+ \(permission denied\); name another")
    with nullcontext() if writable else sentence:
        check_places({"pidfile": str(tmp_path / "twistd.pid")})
    refuse.assert_called_once_with(dir=str(tmp_path))


def test_a_folder_to_run_in_may_be_entered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not so the current one after `sudo -u nobody` in the home of root."""
    with pytest.raises(UserError, match=r"got --rundir=\S*/none to run in; an existing folder"):
        check_places({"rundir": str(tmp_path / "none")})
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(UserError, match="got the current folder to run in; an existing folder"):
        check_places({"rundir": "."})


def test_sockets_without_names_get_some_in_their_places() -> None:
    given = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "3", "LISTEN_FDNAMES": ":udp"}
    assert name_sockets(given) == 3
    assert given["LISTEN_FDNAMES"] == "unknown:udp:unknown"
    assert name_sockets({**given, "LISTEN_FDS": "9" * 15}) == os.sysconf("SC_OPEN_MAX")
    assert name_sockets({**given, "LISTEN_PID": "1"}) == 0


@pytest.mark.parametrize("number", [1, 2])
def test_the_first_process_of_a_container_ends_despite_threads(
    number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its signal ends any other, but the system spares this one, and Python waits for them."""
    ends = mock.Mock()
    monkeypatch.setattr(reactor, "addSystemEventTrigger", ends)
    monkeypatch.setattr(os, "getpid", lambda: number)
    tcp.Options().parseOptions(["--port=0"])
    assert (mock.call("after", "shutdown", leave_threads) in ends.mock_calls) == (number == 1)


@pytest.mark.parametrize("passed", [0, 1, 2])
def test_sockets_of_systemd_that_nothing_serves_are_told(
    passed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their clients wait for ever, as they do where only a unit's file names them."""
    later = list[Any]()
    monkeypatch.setattr(reactor, "callWhenRunning", later.append)
    monkeypatch.setattr("uppercase.taps._process.PASSED", passed)
    udp.Options().parseOptions(["--listen=systemd:domain=INET:index=0"])
    sentences = [call.args[0] for call in later if isinstance(call, partial) and call.func is say]
    assert [each for each in sentences if "systemd" in each] == [
        "nothing serves 1 of 2 sockets from systemd, whose clients wait; "
        "--listen=systemd:domain=INET:index=0 serves the first"
    ] * (passed == 2)
    later.clear()
    metrics = "--metrics=systemd:domain=INET:index=1"
    tcp.Options().parseOptions(["--listen=Systemd:domain=INET:index=0", metrics])
    assert not [call for call in later if isinstance(call, partial) and call.func is say]


def test_who_reads_one_line_of_a_mistake_gets_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    """As `| head -1`, which goes once it has it; unbuffered, each write would be one of its own."""

    class Pipe(StringIO):
        def write(self, text: str) -> int:
            if self.getvalue():
                raise BrokenPipeError
            return super().write(text)

    monkeypatch.setattr("sys.stdout", pipe := Pipe())
    options: Any = tcp.Options()
    options.parent = app.ServerOptions()
    options.parent.subCommand = "uppercase-tcp"
    with pytest.raises(SystemExit):
        options.parseOptions(["--bogus"])
    assert pipe.getvalue().endswith("no option named --bogus\ntry 'twistd uppercase-tcp --help'\n")


@pytest.mark.parametrize("word", ["localhost", "*", "*:12000", "tcp:12000", "0.0.0.0:12000"])
def test_a_word_that_is_a_place_is_no_transform(word: str) -> None:
    with pytest.raises(usage.UsageError, match="no option; where to listen is given as --interfac"):
        tcp.Options().parseOptions([word])


@pytest.mark.parametrize(
    ("option", "here"),
    [
        ("--address", "where to listen is --interface=ADDRESS"),
        ("--bind", "where to listen is --interface=ADDRESS"),
        ("--udp", "UDP is what uppercase-udp serves"),
        ("--ssl", "TLS .TCP. is --listen=tls:"),
    ],
)
def test_an_option_of_other_programs_is_said_in_ours(option: str, here: str) -> None:
    with pytest.raises(usage.UsageError, match=f"no option named {option}; {here}"):
        tcp.Options().parseOptions([option])


def test_a_transform_whose_help_is_not_there_is_a_sentence() -> None:
    with pytest.raises(usage.UsageError, match="no transform named 'ceasar'; did you mean"):
        tcp.Options().parseOptions(["--help-transform=ceasar"])


@pytest.mark.parametrize("option", ["seed=7", "per-client"])
def test_what_is_about_a_lab_needs_one(option: str) -> None:
    name = option.partition("=")[0]
    with pytest.raises(usage.UsageError, match=f"got --{name} without a lab; give it something"):
        udp.Options().parseOptions([f"--{option}"])


def test_an_unknown_option_gets_a_suggestion() -> None:
    with pytest.raises(
        usage.UsageError, match="no option named --framnig; did you mean '--framing'"
    ):
        tcp.Options().parseOptions(["--framnig=x"])
    # Nothing that has no more than the dashes and a letter or two of it.
    with pytest.raises(usage.UsageError, match=r"no option named --slow-close$"):
        tcp.Options().parseOptions(["--slow-close=1s"])
