"""The options' table: what is accepted is shown, and what is shown is accepted."""

import os
import re
from dataclasses import fields, replace
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from twisted.application import app
from twisted.python import usage

from uppercase.errors import UserError
from uppercase.limits import RECORD_BYTES, RECORD_LIMIT, Limits
from uppercase.services import TCPService
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
    options.parseOptions(
        ["--port=0", "-i", "127.0.0.1", "-t", "strip", "-t", "caesar:shift=3", "--drain=2s"]
    )
    made: Any = tcp.makeService(options)
    (service,) = made
    assert isinstance(service, TCPService)
    assert service.settings.port_number() == 0
    assert service.settings.hosts() == ("127.0.0.1",)
    assert service.settings.transforms == ("strip", "caesar:shift=3")
    assert service.settings.drain == 2.0


def test_every_limit_of_tcp_has_an_option_and_its_default() -> None:
    """A value of its own for each, and none is mixed up with another."""
    values: dict[str, Any] = {field.name: 7 + place for place, field in enumerate(fields(Limits))}
    options = tcp.Options()
    options.parseOptions([f"--{name.replace('_', '-')}={n}" for name, n in values.items()])
    assert tcp_limits(options) == Limits(**values)
    options = tcp.Options()
    options.parseOptions([])
    assert tcp_limits(options) == Limits()


SHARED = {
    "port": "12000",
    "transform": "uppercase",
    "max-output": "1M",
    "drain": "10s",
    "log-format": "text",
    "workers": "1",
}
OF_TCP = {
    "framing": "auto",
    "max-length": "64k",
    "max-connections": "1000",
    "async-window": "64",
    "proxy-timeout": "5s",
    "handshake-timeout": "15s",
    "idle-timeout": "10m",
    "send-timeout": "60s",
    "close-timeout": "5s",
    "drain-quiet": "500ms",
}
OF_UDP = {
    "max-request": "65535",
    "max-amplification": "3",
    "loop-guard": "16",
    "rcvbuf": "4M",
}


@pytest.mark.parametrize(("options", "own"), [(tcp.Options, OF_TCP), (udp.Options, OF_UDP)])
def test_defaults_are_those_that_scripts_rely_on(
    options: type[TableOptions], own: dict[str, str]
) -> None:
    """The help has them, and who gives them changes nothing."""
    defaults = {**SHARED, **own}
    for name, value in defaults.items():
        assert options.rows[name].described().endswith(f" [default: {value}]")
    spelled = [f"--{name}={value}" for name, value in defaults.items()]
    assert meant(options, "-i", "127.0.0.1", "-i", "::1", *spelled) == meant(options)
    assert meant(options, "-i", "*")[1] == ("0.0.0.0", "::")


def meant(options: type[TableOptions], *words: str) -> tuple[object, ...]:
    """Return where a service with these options listens, and its other settings."""
    parsed: Any = options()
    parsed.parseOptions(words)
    (service,) = parsed.services
    settings = service.settings
    return settings.port_number(), settings.hosts(), replace(settings, port=None, interfaces=())


def test_a_record_keeps_and_holds_what_the_help_says() -> None:
    rows = tcp.Options.rows
    for name, value, used in (
        ("record-bytes", "64", RECORD_BYTES),
        ("record-limit", "100M", RECORD_LIMIT),
    ):
        assert (rows[name].shown, rows[name].parse(value)) == (value, used)


def tcp_limits(options: tcp.Options) -> Limits:
    """Return the limits of the service that options describe."""
    (service,) = options.services
    assert isinstance(service, TCPService)
    return service.factory.limits


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
        # twistd would take it for another one.
        assert path.exists() is (content != "ours")
    else:
        with pytest.raises(UserError, match=f"number {whose} has it; remove it if that is none"):
            check_places({"pidfile": str(path)})


def test_a_folder_to_run_in_may_be_entered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not so the current one after `sudo -u nobody` in the home of root."""
    with pytest.raises(UserError, match=r"got --rundir=\S*/none to run in; an existing folder"):
        check_places({"rundir": str(tmp_path / "none")})
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(UserError, match="got the current folder to run in; an existing folder"):
        check_places({"rundir": "."})


def test_sockets_without_names_get_some_in_their_places() -> None:
    given = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "3", "LISTEN_FDNAMES": ":udp"}
    name_sockets(given)
    assert given["LISTEN_FDNAMES"] == "unknown:udp:unknown"


def test_an_unknown_option_gets_a_suggestion() -> None:
    with pytest.raises(
        usage.UsageError, match="no option named --framnig; did you mean '--framing'"
    ):
        tcp.Options().parseOptions(["--framnig=x"])
