"""Records: what is written, what is read of a damaged one, and that neither stops anybody."""

import io
import json
import os
import re
from pathlib import Path

import pytest
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock

from tests.classroom.helpers import exchange
from uppercase.classroom import Recorder, Timeline, draw_svg, draw_text, read_record
from uppercase.classroom.record import VERSION, open_record
from uppercase.core.events import (
    Chunk,
    Closed,
    Direction,
    Dropped,
    DropReason,
    Event,
    HalfClosed,
    Impaired,
    Incomplete,
    LabAction,
    Opened,
    Outcome,
    Received,
    RefusalReason,
    Refused,
    SlowCall,
    TransformFailed,
)
from uppercase.errors import TransformError, UserError
from uppercase.lab import UDP_PRESETS, Experiment, make_experiment

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "record.md"


def recorded(experiment: Experiment, count: int, pause: float = 1.0) -> io.BytesIO:
    """Return the record of a client that sends so many datagrams, each when all is over."""
    now = [0.0]
    file = io.BytesIO()
    exchange(
        experiment,
        count,
        now,
        Recorder(file, {"protocol": "UDP"}, clock=lambda: now[0]),
        pause=pause,
    )
    return file


def test_what_clients_send_is_no_markup() -> None:
    timeline = Timeline.of(
        *read_record(recorded(Experiment(seed=1), 1).getvalue().splitlines())[:2]
    )
    assert "<b>" not in draw_svg(timeline)
    assert "&lt;b&gt;&amp;1" in draw_svg(timeline)


def test_words_that_a_record_has_over_and_over_are_kept_once() -> None:
    """A gigabyte of memory was needed for a record of the default limit's 100 MB."""
    line = b'{"time": 1.0, "event": "received", "peer": "192.0.2.1:5", "data": "x", "number": 1}'
    _, (one, other), _ = read_record([b'{"record": 1, "wall": 1.0}', line, line])
    assert one == other
    assert all(mine is theirs for mine, theirs in zip(one, other, strict=True))
    assert one["peer"] is other["peer"]


def test_every_event_has_the_keys_that_its_schema_says() -> None:
    """And the page is of the version that is written."""
    page = PAGE.read_text()
    assert f"the version of the format: {VERSION}" in page
    table = re.findall(r"^\| `([a-z-]+)` \| ((?:`[a-z]+`,? ?)+)\|", page, re.M)
    schema = {event: set(re.findall(r"`([a-z]+)`", keys)) for event, keys in table}
    options = {"loss": "both:0.2", "duplicate": "0.3", "corrupt": "0.2", "delay": "both:10ms"}
    lines = [
        line
        for settings in (options, UDP_PRESETS["stop-and-wait"].settings)
        for line in recorded(make_experiment(settings, seed=7), 40).getvalue().splitlines()
    ]
    file = io.BytesIO()
    recorder = Recorder(file, {"protocol": "TCP"})
    peer = "127.0.0.1:1"
    tcp: list[Event] = [
        Opened(peer),
        Chunk(peer, Direction.REQUEST, b"hi"),
        HalfClosed(peer),
        Incomplete(peer, 2),
        Impaired(peer, Direction.REPLY, 1, (LabAction.SLICED,), "reply sliced"),
        Closed(peer, Outcome.FAILED, "why", 2, 2),
        Refused(peer, RefusalReason.FULL, "1000"),
        Dropped(peer, DropReason.OVER_RATE, "10/s", b"x", 3, "request delivered"),
        SlowCall("x", 2.0),
        TransformFailed("x", TransformError("x", "y")),
    ]
    for event in tcp:
        recorder.notify(event)
    lines += file.getvalue().splitlines()
    seen = set()
    for line in lines:
        row = json.loads(line)
        if "record" in row:
            assert {"record", "wall", "protocol"} == set(row)
            assert all(f"`{key}`" in page for key in row)
        else:
            word = row["event"]
            seen.add(word)
            assert set(row) - {"event", "time", "wall"} <= schema[word], word
            assert {"event", "time", "wall"} <= set(row)
    assert seen == set(schema)


def test_of_a_damaged_record_what_is_before_is_shown() -> None:
    whole = recorded(Experiment(seed=1), 3).getvalue()
    _, rows, problem = read_record(whole[:-9].splitlines(), "class.jsonl")
    assert len(rows) == 5
    assert problem.startswith("class.jsonl, line 7: cut")
    deep = [*whole.splitlines()[:2], b"[" * 100_000]
    assert read_record(deep, "class.jsonl")[2].startswith("class.jsonl, line 3: cut")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "empty"),
        (b"hello\n", "not a record"),
        (b"[1]\n", "not a record"),
        (b'{"record":2}\n', "of version 2"),
    ],
)
def test_what_is_no_record_is_one_sentence(content: bytes, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        read_record(content.splitlines(), "file")


def test_a_record_ends_at_its_limit_and_nobody_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    """The log says so, once."""
    said: list[str] = []
    monkeypatch.setattr("uppercase.classroom.record.say", lambda text, _: said.append(text))
    file = io.BytesIO()
    recorder = Recorder(file, {}, limit=500)
    for _ in range(100):
        recorder.notify(Received("127.0.0.1:1", b"x" * 100))
    why = "it is as large as it may be (--record-limit)"
    assert said == [f"the record ends here: {why}; the service goes on"]
    assert len(file.getvalue()) <= 500
    assert file.getvalue().endswith(b"\n")


def test_a_full_disk_stops_nobody() -> None:
    with open("/dev/full", "wb", buffering=0) as full:
        recorder = Recorder(full, {})
        recorder.notify(Received("127.0.0.1:1", b"x"))
        recorder.close()
    assert recorder.ended == "No space left on device"


def test_a_pipe_that_nobody_reads_holds_up_nobody(tmp_path: Path) -> None:
    """Without a reader it is refused; full, it ends the record, and the service goes on."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(UserError, match="No such device"):
        open_record(str(pipe), {}, Clock(), head=64, limit=1 << 20)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        recorder = open_record(str(pipe), {}, MemoryReactorClock(), head=64, limit=1 << 30)
        for _ in range(2000):
            recorder.notify(HalfClosed("192.0.2.1:50000"))
        recorder.close()
        assert recorder.ended
    finally:
        os.close(reader)


def test_one_service_at_a_time_writes_a_record(tmp_path: Path) -> None:
    """A second start, which may be refused for its port later, does not empty what is written."""
    path = tmp_path / "record"
    path.write_text("of yesterday" * 100)
    first = open_record(str(path), {}, MemoryReactorClock(), head=64, limit=1 << 20)
    first.flush()
    with pytest.raises(UserError, match="which another service writes; name another file"):
        open_record(str(path), {}, MemoryReactorClock(), head=64, limit=1 << 20)
    first.close()
    assert path.read_text().startswith('{"record":1')
    assert "yesterday" not in path.read_text()
    open_record(str(path), {}, MemoryReactorClock(), head=64, limit=1 << 20).close()


def test_a_record_keeps_so_many_bytes() -> None:
    file = io.BytesIO()
    Recorder(file, {}, head=2).notify(Received("127.0.0.1:1", b"\xffabc", 1))
    row = json.loads(file.getvalue().splitlines()[1])
    assert (row["data"], row["size"], row["number"]) == ("\xffa", 4, 1)


def test_a_connection_is_drawn_by_its_chunks() -> None:
    file = io.BytesIO()
    recorder = Recorder(file, {"protocol": "TCP"})
    peer = "127.0.0.1:1"
    recorder.notify(Opened(peer))
    recorder.notify(Chunk(peer, Direction.REQUEST, b"hi"))
    recorder.notify(Chunk(peer, Direction.REPLY, b"HI"))
    recorder.notify(Closed(peer, Outcome.FINISHED, "", 2, 2))
    timeline = Timeline.of(*read_record(file.getvalue().splitlines())[:2])
    lines = [line[11:] for line in draw_text(timeline)][3:]
    assert "connected" in lines[0]
    assert lines[1].startswith('|-- "hi" ---')
    assert lines[2].endswith('--- "HI" --|')
    assert "closed: finished" in lines[3]
