"""`twistd uppercase`: a file of services, parsed by the options of the single ones."""

import os
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from twisted.application import app
from twisted.python import usage

from tests.certificates import make_certificate
from uppercase.classroom.record import Recorder
from uppercase.limits import DEFAULT_PORT
from uppercase.registry import _sources
from uppercase.services import TCPService, UDPService, UDPSettings
from uppercase.taps import together


def made(text: str, folder: Path, *options: str) -> list[Any]:
    """Return the services that a file describes."""
    path = folder / "services.toml"
    path.write_text(text)
    return parsed(f"--config={path}", *options)


def parsed(*words: str) -> list[Any]:
    """Return the services of a command line."""
    options: Any = together.Options
    options = options()
    options.parseOptions(words)
    services: Any = together.makeService(options)
    return list(services)


def test_without_a_file_both_are_served_on_their_default_port() -> None:
    services = parsed()
    assert [type(each) for each in services] == [TCPService, UDPService]
    assert {each.settings.port_number() for each in services} == {DEFAULT_PORT}


def test_a_start_scans_the_doors_once_for_all_services_and_transforms(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scans = []
    scan = _sources.Scan
    monkeypatch.setattr(_sources, "Scan", lambda **said: scans.append(said) or scan(**said))  # type: ignore[func-returns-value]
    table = 'protocol = "tcp"\ntransform = ["strip", "caesar:shift=3"]\nport = 0\n'
    made(f"[services.one]\n{table}[services.two]\n{table}", tmp_path)
    assert scans == [{"thorough": False}]


def test_a_thousand_services_are_not_compared_with_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = []
    port_number = UDPSettings.port_number
    monkeypatch.setattr(
        UDPSettings,
        "port_number",
        lambda settings: looks.append(settings) or port_number(settings),  # type: ignore[func-returns-value]
    )
    tables = (f'[services.s{number}]\nprotocol = "udp"\nport = {number}\n' for number in range(60))
    assert len(made("".join(tables), tmp_path)) == 60
    assert len(looks) <= 5 * 60


def test_a_table_has_the_options_of_the_command_line(tmp_path: Path) -> None:
    lecture, pinger = made(
        """
        [services.lecture]
        protocol = "tcp"
        transform = ["strip", "caesar:shift=3"]
        interface = "127.0.0.1"
        idle-timeout = "5m"
        close-timeout = 0.000_05
        max-connections = 7
        framing = "line"

        [services.pinger]
        protocol = "udp"
        port = 12001
        rate = 200.5
        allow-low-ports = true
        log-peers = false
        """,
        tmp_path,
    )
    assert (lecture.name, pinger.name) == ("lecture", "pinger")
    assert lecture.settings.transforms == ("strip", "caesar:shift=3")
    assert lecture.settings.hosts() == ("127.0.0.1",)
    assert lecture.settings.limits.idle_timeout == 300
    assert lecture.settings.limits.close_timeout == 5e-5
    assert lecture.settings.limits.max_connections == 7
    assert lecture.settings.framing == "line"
    assert pinger.settings.port_number() == 12001
    assert pinger.settings.limits.rate == 200.5
    assert pinger.settings.limits.allow_low_ports
    assert not pinger.settings.log_peers


UDP = '[services.a]\nprotocol = "udp"\n'
TCP = '[services.a]\nprotocol = "tcp"\n'


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[services.a", " is not TOML: Expected ']' at the end of a table declaration"),
        (
            "[services.a]\nprotocol = tcp",
            " is not TOML: Invalid value (at line 2, column 12); text is in quotes",
        ),
        ('protocol = "tcp"', ": no table or key named 'protocol'; it is a service's: put it below"),
        ("port = 1", ": no table or key named 'port'; it is a service's: put it below"),
        ("metrics = true", ", metrics: got True; accepted is a string or a number"),
        ("page-key = true\n" + UDP, ": got --page-key without a page; add one"),
        ("workers = 2\n" + UDP + "loss = 0.5", ": got --workers with a lab for datagrams"),
        ('watchdog = "5s"\n' + UDP, ": got --watchdog without workers"),
        ("service = 1", ": no table or key named 'service'; did you mean 'services'?"),
        ("", ': it has no service; add a table [services.lecture] with protocol = "tcp"'),
        ("[services]\na = 1", ": got 1 for services.a, which must be a table"),
        ("[services.a]", ', [services.a]: no protocol; add protocol = "tcp" or protocol = "udp"'),
        ('[services.a]\nprotocol = "tpc"', ", protocol: no protocol named 'tpc'; did you mean"),
        ("[services.a]\nprotocol = [1]", ", protocol: no protocol named [1]; known are tcp, udp"),
        (UDP + "prot = 1", ", [services.a]: no key named 'prot'; did you mean 'port'?"),
        (UDP + "help = true", ", [services.a]: no key named 'help'; "),
        (UDP + 'framing = "line"', ": no key named 'framing'; it belongs to protocol = \"tcp\""),
        (UDP + 'log-format = "json"', ", [services.a]: no key named 'log-format'; it is the whole"),
        ('log-format = "yaml"', ", log-format: no format named 'yaml'; known are json, text"),
        (UDP + "port = 70000", ", [services.a], port: got '70000'; a port is a whole number"),
        (UDP + "port = [1, 2]", ", [services.a], port: got [1, 2]; accepted is a string or a num"),
        (UDP + "transform = [true]", ", transform: got True; accepted is a string or a number or"),
        (UDP + 'log-peers = "yes"', ", log-peers: got 'yes'; accepted are true and false"),
        (UDP + "rate-dry-run = true", ", [services.a]: got --rate-dry-run without a rate to try"),
        (TCP + 'transform = "uppercsae"', ", [services.a]: no transform named 'uppercsae'; did"),
        (
            TCP + '[services.b]\nprotocol = "tcp"',
            ", [services.b]: TCP port 12000 belongs to [services.a] already; give it another port",
        ),
    ],
)
def test_a_mistake_names_file_table_and_key(text: str, sentence: str, tmp_path: Path) -> None:
    with pytest.raises(usage.UsageError) as raised:
        made(text, tmp_path, "--check")
    assert str(raised.value).startswith(f"{tmp_path}/services.toml")
    assert sentence in str(raised.value)
    assert "\n" not in str(raised.value)


def test_the_command_line_decides_where_both_say_something(tmp_path: Path) -> None:
    path = tmp_path / "services.toml"
    path.write_text(f"workers = 1\n{TCP}")
    options: Any = together.Options()
    options.parseOptions([f"--config={path}", "--workers=0"])
    assert options["workers"] == 0


def test_services_that_cannot_meet_are_no_mistake(tmp_path: Path) -> None:
    """Of different protocols, on different addresses, or on any free port."""
    text = (
        TCP
        + 'interface = "127.0.0.1"\n[services.b]\nprotocol = "tcp"\ninterface = "127.0.0.2"\n'
        + '[services.c]\nprotocol = "udp"\n'
    )
    assert len(made(text, tmp_path)) == 3


def test_a_file_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    with pytest.raises(usage.UsageError, match=r"cannot read .*: No such file or directory"):
        parsed(f"--config={tmp_path / 'none.toml'}")
    (tmp_path / "latin.toml").write_bytes(b"# \xe4")
    with pytest.raises(usage.UsageError, match="not UTF-8"):
        parsed(f"--config={tmp_path / 'latin.toml'}")


def test_a_check_ends_well_where_nothing_is_wrong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        # Some editors begin a file so.
        made("\ufeff" + TCP + "port = 1", tmp_path, "--check")
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"{tmp_path}/services.toml is right: a (TCP)\n"
    with pytest.raises(usage.UsageError, match="got --check without a file"):
        parsed("--check")


def test_a_check_may_be_made_beside_the_server_that_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Which has the pid file of that folder; before a reload, above all."""
    config, running = tmp_path / "services.toml", tmp_path / "twistd.pid"
    config.write_text(TCP)
    running.write_text(str(os.getppid()))
    options: Any = together.Options
    options = options()
    options.parent = app.ServerOptions()
    options.parent.update(pidfile=str(running))
    with pytest.raises(SystemExit) as ended:
        options.parseOptions([f"--config={config}", "--check"])
    assert (ended.value.code, running.read_text()) == (0, str(os.getppid()))
    assert "services.toml is right: a (TCP)" in capsys.readouterr().out


def test_a_check_warns_of_what_a_start_would(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And says no more than that: what a module tells when it is imported is no warning."""
    expired = make_certificate(tmp_path, days_ago=30).endpoint()
    monkeypatch.syspath_prepend(tmp_path)
    talks = "from uppercase.services.logs import say\nsay('hello')\n"
    (tmp_path / "talks.py").write_text(f"{talks}def same(message: bytes) -> bytes: ...\n")
    with pytest.raises(SystemExit) as ended:
        made(f"{TCP}listen = '{expired}'\ntransform = 'talks:same'", tmp_path, "--check")
    assert ended.value.code == 0
    warned, right = capsys.readouterr().out.splitlines()
    assert "clients that verify it will refuse" in warned
    assert right.endswith("services.toml is right: a (TCP)")


def test_a_check_begins_no_record_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []

    def open_record(path: str, *_: object, **__: object) -> Recorder:
        opened.append(path)
        return Recorder(BytesIO(), {})

    monkeypatch.setattr("uppercase.classroom.record.open_record", open_record)
    with pytest.raises(SystemExit):
        made(TCP + "record = 'of-the-server-that-runs'", tmp_path, "--check")
    assert opened == [os.devnull]


@pytest.mark.parametrize("option", ["loss = 0.5", "record = 'x'", ""])
def test_a_reload_refuses_what_a_start_with_workers_does(option: str, tmp_path: Path) -> None:
    """Even where the file does not ask for workers any more; nothing is opened."""
    path = tmp_path / "services.toml"
    path.write_text(f"{'' if option else 'page = 0'}\n{UDP}{option}")
    options: Any = together.Options
    options = options()
    options.in_worker = True
    with pytest.raises(usage.UsageError, match=r"\[services.a\]: got --workers with"):
        options.parseOptions([f"--config={path}"])
    assert not Path("x").exists()


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("a = " + "[" * 5000 + "]" * 5000, "nested too deeply"),
        ("a = " + "9" * 5000, "a value that cannot be used"),
        ("#" * (1 << 20) + "\n", "has more than 1048576 bytes"),
        ('[services.x]\nprotocol = "tcp"\nrecord = "a\\u0000b"', "embedded null"),
    ],
    ids=["deep", "number", "size", "null"],
)
def test_a_hostile_file_is_one_sentence(text: str, sentence: str, tmp_path: Path) -> None:
    with pytest.raises(usage.UsageError, match=sentence):
        made(text, tmp_path)
