"""How lines look: text, JSON and its vocabulary, the journal's priorities; a file's rotation."""

import io
import json
import os
import re
from pathlib import Path
from typing import Any, get_args, get_type_hints
from unittest import mock

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import LogEvent, Logger, globalLogPublisher

from tests.services.test_logs import HOSTILE, failure
from uppercase.core.events import (
    Chunk,
    Closed,
    Dropped,
    DropReason,
    Event,
    HalfClosed,
    Outcome,
    Received,
    Several,
    word_of,
)
from uppercase.services import TCPSettings, tcp_service
from uppercase.services.logs import (
    LogObserver,
    WatchedLogFile,
    as_json,
    goes_to_journal,
    observer_of,
)

ROOT = Path(__file__).parents[2]
LOG = Logger("uppercase")


def written(format_: str, *events: Event, file: Any = None, service: str = "") -> str:
    """Return what a log has of events."""
    file = file or io.StringIO()
    observer = observer_of(file, format_)
    globalLogPublisher.addObserver(observer)
    try:
        log = LogObserver("TCP", Clock())
        log.service = service
        for event in events:
            log.notify(event)
        log.stop()
    finally:
        globalLogPublisher.removeObserver(observer)
    if isinstance(file, io.StringIO):
        return file.getvalue()
    return Path(file.name).read_text()


CLOSED = Closed("192.0.2.1:50000", Outcome.TOO_LONG, "a " + HOSTILE, 70_000, 0)


def test_text_has_milliseconds() -> None:
    line = written("text", CLOSED)
    assert re.match(
        r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}[+-]\d{4} \[uppercase#warn\] TCP: ", line
    )


def test_what_the_encoding_of_a_terminal_lacks_is_escaped_there() -> None:
    """Its line would else be lost: a cut one ends in a character that few encodings have."""
    inner = io.BytesIO()
    file = io.TextIOWrapper(inner, encoding="latin-1")
    observer_of(file, "text")({"log_format": "caf\xe9 \u20ac", "log_time": 0.0})
    file.flush()
    assert inner.getvalue().endswith(b"caf\xe9 \\u20ac\n")


def test_json_is_one_object_a_line_with_the_events_facts() -> None:
    first, second, third = map(
        json.loads, written("json", *[CLOSED] * 3, failure("no")).splitlines()
    )
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", first.pop("time"))
    assert first.pop("detail").startswith("a \\x1b[2J\\r\\n\\x07")
    assert first.pop("text").startswith("TCP: 192.0.2.1:50000 was closed: too-long: a \\x1b")
    assert first == {
        "level": "warn",
        "event": "closed",
        "protocol": "TCP",
        "peer": "192.0.2.1:50000",
        "outcome": "too-long",
        "received": 70_000,
        "sent": 0,
    }
    assert second["event"] == "transform-failed"
    assert "ValueError: no" in second["text"]
    assert (third["event"], third["count"]) == ("more", 2)


@pytest.mark.parametrize("odd", ["\x1b", "\x07", "\n", "\x7f", "\x9b", "\u2028", "\u202e"])
def test_no_control_character_is_in_a_line_of_json(odd: str) -> None:
    """A terminal obeys some, readers take others for a line's end; JSON escapes but the first."""
    event: LogEvent = {"log_format": "{it}", "it": f"a{odd}b", "log_time": 0.0}
    line = as_json(event)
    assert line is not None
    assert odd not in line.removesuffix("\n")
    assert json.loads(line)["text"] == f"a{odd}b"
    line.encode()


def test_half_of_a_pair_is_text_in_json_as_strict_readers_refuse_its_escape() -> None:
    """It stands for a byte that is no text, as in the name of a file."""
    line = as_json({"log_format": "{it}", "it": "a\udcff", "log_time": 0.0})
    assert line is not None
    assert json.loads(line)["text"] == "a\\udcff"


def test_payloads_are_told_by_their_length_and_services_by_their_name() -> None:
    dropped = Dropped("192.0.2.1:5", DropReason.LOOP, request=b"secret")
    line = json.loads(written("json", dropped, service="pinger"))
    assert line["request_bytes"] == 6
    assert "secret" not in json.dumps(line)
    assert line["service"] == "pinger"
    assert line["text"].startswith("TCP pinger: ")


def test_whose_lines_were_left_out_is_told_where_a_process_has_several_services() -> None:
    left_out = json.loads(written("json", *[CLOSED] * 3, service="exam").splitlines()[1])
    assert (left_out["protocol"], left_out["service"]) == ("TCP", "exam")
    assert left_out["text"] == "TCP exam: connections closed: too-long: 2 more since the last line"
    assert (left_out["like"], left_out["count"]) == ("connections closed: too-long", 2)


def test_every_service_says_that_it_is_ready_and_sums_up_in_json() -> None:
    file = io.StringIO()
    observer = observer_of(file, "json")
    globalLogPublisher.addObserver(observer)
    service = tcp_service(TCPSettings(port=0, interfaces=["127.0.0.1"], lab_notes=["a lab"]))
    service.setName("exam")
    service.announce(["TCP 127.0.0.1:1"])
    service._stopping = Deferred()
    service._ended(None)
    globalLogPublisher.removeObserver(observer)
    ready, *notes, summary = map(json.loads, file.getvalue().splitlines())
    assert [(each["event"], each["text"][:15]) for each in notes] == [
        ("log", "TCP exam: only "),
        ("log", "TCP exam: a lab"),
    ]
    assert {each["service"] for each in (ready, *notes, summary)} == {"exam"}
    assert ready["text"] == "The server is ready to receive: TCP 127.0.0.1:1 (uppercase)"
    assert (ready["event"], ready["address"]) == ("ready", "TCP 127.0.0.1:1")
    assert ready["transform"] == "uppercase"
    assert (summary["event"], summary["counts"]) == ("summary", {})


def test_what_others_log_is_told_from_where_and_with_its_traceback() -> None:
    lines = []
    observer: Any = lambda event: lines.append(as_json(event))  # noqa: E731
    log = Logger("elsewhere", observer=observer)
    log.info("hello {facts}", facts="world")
    try:
        raise ValueError("no\nnew line")
    except ValueError:
        log.failure("it failed")
    hello, failed = (json.loads(line or "") for line in lines)
    assert (hello["text"], hello["event"], hello["from"]) == ("hello world", "log", "elsewhere")
    assert failed["level"] == "critical"
    assert "ValueError: no" in failed["traceback"]
    assert all((line or "").count("\n") == 1 for line in lines)


def test_the_page_has_every_word_and_its_keys() -> None:
    page = (ROOT / "docs" / "reference" / "log.md").read_text()
    rows = dict(re.findall(r"^\| `([a-z-]+)` \| (`[^|]+`) \| ", page, re.M))
    for kind in set(get_args(Event)) - {Received, Several, Chunk, HalfClosed}:
        made = kind._make(kind._fields)
        types = get_type_hints(kind)
        keys = [f"{name}_bytes" if types[name] is bytes else name for name in kind._fields]
        assert re.findall(r"`(\w+)`", rows.pop(word_of(type(made).__name__))) == keys
    of_services = ["log", "metrics", "more", "page", "ready", "summary"]
    of_workers = [
        "garbled-report",
        "gave-up",
        "not-reloaded",
        "output",
        "reloaded",
        "worker-ended",
        "worker-hangs",
    ]
    assert sorted(rows) == sorted(of_services + of_workers)


def test_lines_for_the_journal_have_a_priority_each_and_no_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (tmp_path / "journal").open("w") as file:
        assert not goes_to_journal(file)
        status = os.fstat(file.fileno())
        monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino}")
        lines = written("text", CLOSED, failure("no"), file=file).splitlines()
        assert lines[0].startswith("<4>[uppercase#warn] TCP: 192.0.2.1:50000 was closed")
        assert lines[1].startswith("<3>[uppercase#error] TCP: transform 'mine' raised:")
        assert len(lines) > 4
        assert all(line.startswith("<3>") for line in lines[2:])
        lines = written("json", CLOSED, file=file).splitlines()
        assert lines[-1].startswith('<4>{"time": ')
    assert not goes_to_journal(io.StringIO())


def test_a_file_that_was_renamed_or_removed_is_opened_anew(tmp_path: Path) -> None:
    path = tmp_path / "log"
    file: Any = WatchedLogFile(path.name, str(tmp_path))
    file.write("one\n")
    path.rename(tmp_path / "log.1")
    file.write("two\n")
    path.unlink()
    file.write("three\n")
    file.rotate()
    file.write("four\n")
    file.close()
    assert (tmp_path / "log.1").read_text() == "three\n"
    assert path.read_text() == "four\n"


def test_a_file_that_was_emptied_goes_on_at_its_start(tmp_path: Path) -> None:
    """As logrotate's copytruncate does it; the next line is not after a hole of zeros."""
    path = tmp_path / "log"
    file: Any = WatchedLogFile(path.name, str(tmp_path))
    file.write("one, which was copied\n")
    os.truncate(path, 0)
    file.write("two\n")
    file.close()
    assert path.read_text() == "two\n"


def test_a_file_that_may_not_be_renamed_grows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As AppArmor may have it, or a sticky folder. Twisted closes it before it tries."""
    monkeypatch.setattr(os, "rename", mock.Mock(side_effect=PermissionError))
    file: Any = WatchedLogFile("log", str(tmp_path), rotateLength=4)
    file.write("one\n")
    file.write("two\n")
    file.rotate()
    file.write("three\n")
    file.close()
    assert (tmp_path / "log").read_text() == "one\ntwo\nthree\n"


def test_without_the_right_to_open_a_new_file_the_old_one_serves_until_there_is_one(
    tmp_path: Path,
) -> None:
    """A folder stands for a file of root's, as logrotate makes it: neither can be written."""
    path = tmp_path / "log"
    file: Any = WatchedLogFile(path.name, str(tmp_path))
    path.rename(tmp_path / "old")
    path.mkdir()
    file.write("kept\n")
    file.write("too\n")
    path.rmdir()
    file.write("new\n")
    file.close()
    assert (tmp_path / "old").read_text() == "kept\ntoo\n"
    assert path.read_text() == "new\n"


def test_a_folder_that_cannot_be_entered_any_more_does_not_end_the_log(tmp_path: Path) -> None:
    """A file stands for a folder of root's, when twistd has changed to the user of `--uid`."""
    folder = tmp_path / "folder"
    folder.mkdir()
    file: Any = WatchedLogFile("log", str(folder))
    folder.rename(tmp_path / "moved")
    folder.touch()
    file.write("kept\n")
    file.close()
    assert (tmp_path / "moved" / "log").read_text() == "kept\n"
