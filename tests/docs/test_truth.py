"""What the pages say is what the code has: options, paths, rooms, tests."""

import json
import re
import tomllib
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from twisted.application.twist._options import TwistOptions
from twisted.scripts.twistd import ServerOptions  # type: ignore[attr-defined]

import uppercase.client
from docs.pages import PICTURE, RECORD, commands, contents, draw_run, options_page, services
from uppercase import limits
from uppercase.classroom import _packets, captive, grade
from uppercase.classroom import page as pages
from uppercase.classroom.page import _audience
from uppercase.classroom.timeline import FOLD
from uppercase.client.session import PORT_MEMORY
from uppercase.commands.classroom import OVERTIME
from uppercase.commands.group import group
from uppercase.commands.ping import _run
from uppercase.commands.ping._tracker import PING_SAMPLES
from uppercase.commands.send import UDP_WINDOW, _datagrams, _stream
from uppercase.core import guards
from uppercase.core.datagram import FORGET_AFTER, NUMBERED
from uppercase.lab import answer_key, make_experiment
from uppercase.lab._fates import REORDER_HOLD
from uppercase.lab.serving import LAB_PIECE_PAUSE, LAB_PIECES
from uppercase.services import logs, metrics, supervisor, web
from uppercase.services._stopping import STOP_GRACE
from uppercase.services._udp import KERNEL_LOOK
from uppercase.tcp._closing import LINGER
from uppercase.tcp.factory import INCOMPLETE_TIME
from uppercase.tcp.opening import BACKLOG
from uppercase.udp._batches import BATCH

ROOT = Path(__file__).parents[2]
PAGES = {
    path.relative_to(ROOT): path.read_text()
    for path in (*ROOT.glob("*.md"), *ROOT.glob("docs/*/*.md"))
    # What has changed is about names that are no more.
    if path.name != "CHANGES.md"
}
OTHER_PROGRAMS = {
    "--allow": "ncat",
    "--broker": "ncat",
    "--cap-drop": "podman",
    "--editable": "pip",
    "--exec": "ncat",
    "--inetd": "systemd-socket-activate",
    "--init": "podman",
    "--now": "systemctl",
    "--only": "benchmarks",
    "--publish": "podman",
    "--read-only": "podman",
    "--rounds": "benchmarks",
    "--sign": "git",
    "--signal": "podman",
    "--ssl": "ncat",
    "--ssl-cert": "ncat",
    "--ssl-key": "ncat",
    "--ssl-trustfile": "ncat",
    "--ssl-verify": "ncat",
    "--strict": "twine",
    "--tag": "podman",
    "--time": "podman",
    "--yes": "towncrier",
}
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z0-9-]+")


def ours() -> Iterator[tuple[str, ...]]:
    """Return the spellings of each option of our programs."""
    for service in services():
        for spelling in service.longOpt:
            yield (f"--{spelling.rstrip('=')}",)
    for context in commands(group):
        for parameter in context.command.get_params(context):
            if parameter.param_type_name == "option":
                yield (*parameter.opts, *parameter.secondary_opts)


def mentioned() -> Mapping[str, set[Path]]:
    """Return the pages on which each long option is."""
    found: defaultdict[str, set[Path]] = defaultdict(set)
    for path, text in PAGES.items():
        for option in OPTION.findall(text):
            found[option].add(path)
    return found


def test_every_option_on_a_page_is_one_of_the_program() -> None:
    known = {spelling for option in ours() for spelling in option}
    known |= {
        f"--{spelling.rstrip('=')}"
        for options in (ServerOptions(), TwistOptions())
        for spelling in options.longOpt
    }
    stale = {
        option: pages
        for option, pages in mentioned().items()
        if option not in known and option not in OTHER_PROGRAMS
    }
    assert stale == {}
    assert not set(OTHER_PROGRAMS) - set(mentioned())


def test_every_option_is_on_a_page_that_says_more_than_the_help() -> None:
    """By its long name or its letter."""
    text = "\n".join(PAGES.values())
    missing = {
        option
        for option in ours()
        if not any(re.search(rf"(?<![\w-]){spelling}(?![\w-])", text) for spelling in option)
    }
    assert missing == set()


def test_the_page_of_options_has_every_command_and_fits_the_site(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    page = options_page()
    for command in ("twistd uppercase", "twistd uppercase-udp", "uppercase transforms check"):
        assert f"## `{command}`\n" in page
    assert "  uppercase ping -u -c 10" in page
    for spellings in ours():
        assert spellings[0] in page
    assert max(map(len, page.splitlines())) <= 88


def test_every_path_on_a_page_leads_somewhere() -> None:
    """From the root of the repository or of the package."""
    roots = (ROOT, ROOT / "uppercase")
    first = {path.name for root in roots for path in root.iterdir() if path.name != "build"}
    missing = {
        (page, path)
        for page, text in PAGES.items()
        for path in re.findall(r"`(\w[\w.-]*/[\w./-]*)`", text)
        if path.split("/")[0] in first
        and not any((root / path).exists() for root in (*roots, (ROOT / page).parent))
    }
    assert missing == set()


def test_the_picture_of_a_lossy_run_is_what_the_command_draws(tmp_path: Path) -> None:
    """Of a run with the fates of its seed."""
    draw_run(tmp_path / "run.svg")
    assert PICTURE.read_text() == (tmp_path / "run.svg").read_text(), "run: python -m docs.pages"
    fates = {
        row["number"]: row["event"] == "impaired"
        for row in map(json.loads, RECORD.read_text().splitlines()[1:])
    }
    key = answer_key(make_experiment({"loss": "0.5"}, seed=4), len(fates))
    assert [fates[number] for number in sorted(fates)] == ["lost" in str(row) for row in key]


def test_the_drawing_of_the_rooms_is_what_import_linter_holds() -> None:
    with (ROOT / "pyproject.toml").open("rb") as file:
        contracts = tomllib.load(file)["tool"]["importlinter"]["contracts"]
    layers = [set(layer.split(" | ")) for layer in contracts[0]["layers"]]
    drawing = re.search(r"```text\n(.*?)```", PAGES[Path("docs/topics/architecture.md")], re.S)
    assert drawing
    lines = [line.partition("  ")[2].split() for line in drawing[1].splitlines()]
    assert [set(rooms) for rooms in lines if rooms] == layers


def test_every_room_is_in_the_table_of_rooms() -> None:
    table = PAGES[Path("docs/topics/architecture.md")]
    rows = "".join(re.findall(r"^\| (`.*?) \|", table, re.M))
    rooms = {path.stem for path in (ROOT / "uppercase").iterdir() if path.name[0] not in "_."} - {
        "py"
    }
    assert {name.rstrip("/") for name in re.findall(r"`(\w+/?)`", rows)} == rooms


def test_what_the_guide_to_the_client_makes_is_there() -> None:
    """In its sentences; its programs are run."""
    text = PAGES[Path("docs/howto/embed-the-client.md")].split("## Testing")[0]
    made = set(re.findall(r"\b([A-Z]\w+)\(", re.sub(r"```.*?```", "", text, flags=re.DOTALL)))
    assert {"TLS", "Target"} <= made <= set(uppercase.client.__all__)


def test_the_status_after_a_time_out_is_the_commands() -> None:
    page = PAGES[Path("docs/reference/exit-statuses.md")]
    assert f"; {OVERTIME} after `--timeout`;" in page


_OF_DATAGRAMS = limits.DatagramLimits()
_WORDS: Mapping[float, str] = {
    0.5: "half second",
    1: "a second",
    2: "two",
    3: "three",
    5: "five",
    60: "a minute",
}


@pytest.mark.parametrize(
    ("page", "figures"),
    [
        (
            "topics/reliability.md",
            [
                f"{BACKLOG:,} connections may wait to be accepted",
                f"blocks for more than {1000 * limits.SLOW_CALL:.0f} ms is named",
                f"{LINGER // limits.MIB} MiB are thrown away",
                f"{STOP_GRACE:.0f} s after the drain time the process ends with status 1",
            ],
        ),
        (
            "topics/udp-safety.md",
            [
                f"if that is below {guards.EPHEMERAL_PORTS:,} or",
                f"from a port below {guards.LOW_PORTS:,}, or {limits.NFS_PORT:,}, where",
                f"more than {guards.REPLY_SLACK} bytes more",
                f"for the {_OF_DATAGRAMS.loop_guard}th time within a second",
                f"while {_OF_DATAGRAMS.max_outstanding:,} replies",
                f"up to the table's {guards.LOOP_TABLE:,} is found",
                f"Of {guards.LOCK_STEP:,} in such a row",
                f"At most {BATCH} datagrams are read",
                f"ask for {_OF_DATAGRAMS.receive_buffer // limits.MIB} MiB of receive buffer",
                f"a bucket {guards.RATE_PREFIX_FACTOR} times as large",
                f"The {guards.RATE_TABLE:,} most recent",
            ],
        ),
        (
            "topics/tcp-lab.md",
            [
                f"of that many bytes, {1000 * LAB_PIECE_PAUSE:.0f} ms apart",
                f"into at most {LAB_PIECES} pieces",
            ],
        ),
        (
            "reference/client.md",
            [
                f"| {limits.UDP_TIMEOUT:.0f}s | the wait for the reply to the first datagram",
                f"| `--retries N` | {limits.UDP_RETRIES} |",
                f"| `--window N` | {UDP_WINDOW} |",
                f"does nothing for `-W` ({limits.REPLY_TIMEOUT:.0f} s)",
                f"when {_stream.LINE_QUIET_TIME} s pass",
                f"silent for {_stream.TLS_QUIET_TIME:.0f} s",
                f"above {_datagrams.SAFE_DATAGRAM:,} bytes",
                f"not used again for {PORT_MEMORY:,} requests",
            ],
        ),
        (
            "reference/record.md",
            [
                f"are kept ({limits.RECORD_BYTES}; 0 for none)",
                f"may become ({limits.RECORD_LIMIT // limits.MIB}M)",
                f"More than {_WORDS[FOLD]} seconds without an event",
                f"at most {captive.LIMITS['RLIMIT_CPU']} s of processor time,",
                f"{captive.LIMITS['RLIMIT_AS'] // limits.MIB // 1024} GiB of addresses,",
                f"files of {captive.LIMITS['RLIMIT_FSIZE'] // limits.MIB} MiB,",
                f"{captive.LIMITS['RLIMIT_NOFILE']} open files and {captive.TASKS} processes",
                f"and {captive.TASKS_A_CORE} for each core, more",
                f"the first {captive.OUTPUT // limits.KIB} KiB are read",
                f"late by more than {grade.STARVED} s",
                f"127.0.0.1 or ::1, port {_packets._PORT}, and",
                f"of each run the first {grade.DRAWN:,} events",
            ],
        ),
        (
            "reference/page.md",
            [
                f"up to {_audience.SHOWN_BURST:.0f} at once and {_audience.SHOWN_RATE:.0f} a sec",
                f"the last {_audience.HISTORY};",
                f"the {_audience.CLIENTS} heard from last",
                f"the first {_audience.KEY_LINES} |",
                f"| {pages.WATCHERS}, and {pages.KEPT_FOR_THIS_MACHINE} more on the machine",
                f"after {pages.STALLED:.0f} s it is let go",
                f"| {pages.PageSite.connections} at a time, {pages.PageSite.deadline:.0f} s each;",
                f"{pages.PageSite.burst:,.0f} at once and {pages.PageSite.rate:.0f} a second, as m",
                f"| {_audience.LINE} bytes; {pages.SEND_BURST:.0f} at once",
                f"at once and {pages.SEND_RATE:.0f} a second of each browser",
            ],
        ),
        (
            "reference/metrics.md",
            [
                f"and {web.MetricsSite.deadline:.0f} seconds for everything;",
                f"{web.MetricsSite.connections} are open at a time",
                f"{web.MetricsSite.burst:.0f} at once and {web.MetricsSite.rate:.0f} a second",
                f"more than {1000 * limits.SLOW_CALL:.0f} ms",
                f"looked at every {_WORDS[KERNEL_LOOK]} seconds",
                f"came to a timer, every {_WORDS[metrics.LAG_LOOK]} |",
                f"more than {metrics._LATE} s late, within",
                f"the last {metrics._OVERLOAD_LASTS:.0f} s) |",
            ],
        ),
        (
            "reference/workers.md",
            [
                f"| {_WORDS[supervisor.QUICK_DEATHS]} workers in a row end before",
                f"served for {_WORDS[supervisor.PROVEN]} |",
            ],
        ),
        (
            "reference/ping-and-bench.md",
            [
                f"{_run.CONNECTIONS} connections may await something at once",
                f"over the last {PING_SAMPLES:,}",
            ],
        ),
        (
            "howto/run-a-class.md",
            [
                f"held for {1000 * REORDER_HOLD:.0f} ms more",
                f"when more than {NUMBERED:,} clients are about",
                f"silent for {_WORDS[FORGET_AFTER]}",
            ],
        ),
        (
            "reference/log.md",
            [
                f"has waited {_WORDS[INCOMPLETE_TIME]} seconds for its end",
                f"shows the first {logs._LOG_PAYLOAD} bytes of datagrams",
            ],
        ),
    ],
)
def test_figures_are_those_of_the_code(page: str, figures: list[str]) -> None:
    text = " ".join(PAGES[Path("docs", page)].split())
    assert [figure for figure in figures if figure not in text] == []


def test_each_threat_names_tests_that_there_are() -> None:
    page = PAGES[Path("SECURITY.md")]
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", page)
    for path, test in named:
        assert f"def {test}(" in (ROOT / path).read_text(), f"{path}::{test}"
    threats = re.findall(r"^(?:- |### ).*\n(?:(?!- |#).*\n)*", page, re.M)
    assert len(threats) > 20
    for threat in threats:
        assert "`tests/" in threat or "It cannot\n\n" in threat, threat


def test_each_change_is_a_sentence_of_a_kind_that_is_known() -> None:
    """A file of another name would be left out of the changes without a word."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        towncrier = tomllib.load(file)["tool"]["towncrier"]
    kinds = "|".join(kind["directory"] for kind in towncrier["type"])
    for path in (ROOT / towncrier["directory"]).glob("[!.]*"):
        assert re.fullmatch(rf"\+[a-z0-9-]+\.({kinds})\.md", path.name), path.name
        assert re.fullmatch(r"\S.*[.)]\s*", path.read_text(), re.DOTALL), path.name


def test_the_table_of_contents_is_the_index() -> None:
    parts = contents()["parts"]
    assert [part["caption"] for part in parts] == [
        "Tutorial",
        "How to",
        "Topics",
        "Reference",
        "Project",
    ]
    listed = [chapter["file"] for part in parts for chapter in part["chapters"]]
    pages = {
        path.relative_to("docs").with_suffix("").as_posix()
        for path in PAGES
        if path.parts[0] == "docs"
    }
    assert set(listed) == pages | {"options"}
    assert len(listed) == len(set(listed))
