"""The timeline's formats: pictures of every preset, packets that Wireshark's own reader accepts."""

import io
import itertools
import json
import re
import subprocess
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.backends.backend_pdf import PdfPages

from tests.classroom.helpers import arrows_of, exchange
from tests.classroom.test_record import recorded
from tests.commands.command import run
from tests.drawing import CHARACTER
from uppercase.classroom import Recorder, Timeline, draw_packets, draw_svg, draw_text, read_record
from uppercase.classroom.page import Audience
from uppercase.classroom.page._audience import COUNTS
from uppercase.classroom.picture import _PAGE, _Drawing, _pages, _Words, save_timeline
from uppercase.classroom.timeline import ClientArrows
from uppercase.core.events import Chunk, Closed, Direction, Event, HalfClosed, Opened, Outcome
from uppercase.errors import UserError
from uppercase.lab import UDP_PRESETS, Experiment, answer_key, make_experiment


def timeline_of(record: bytes, client: str = "") -> Timeline:
    about, rows, problem = read_record(record.splitlines())
    assert problem == ""
    return Timeline.of(about, rows, client)


WRONG = ("_ws.malformed", "tcp.analysis.flags", "_ws.expert.severity")


def packets(path: Path, *fields: str) -> list[dict[str, str]]:
    """Return what tshark says of each packet, all checksums looked at, and nothing wrong."""
    checks = [
        word for name in ("ip", "udp", "tcp") for word in ("-o", f"{name}.check_checksum:TRUE")
    ]
    wanted = [word for name in (*WRONG, *fields) for word in ("-e", name)]
    command = ["tshark", "-r", str(path), *checks, "-T", "json", *wanted]
    done = subprocess.run(command, capture_output=True, check=True, timeout=120)
    seen = [each["_source"]["layers"] for each in json.loads(done.stdout)]
    for each in seen:
        # From 0x800000 on they are errors; that a connection was reset is a warning.
        severities = each.pop("_ws.expert.severity", [])
        assert all(int(severity, 0) < 0x800000 for severity in severities), each
        assert not set(WRONG) & set(each), each
    return [{name: ",".join(values) for name, values in each.items()} for each in seen]


def comments(pcapng: bytes) -> Counter[str]:
    """Return the packets' comments, "" for none; tshark says in other tests that they are right."""
    found: Counter[str] = Counter()
    at = 0
    while at < len(pcapng):
        kind, size = (int.from_bytes(pcapng[at + n : at + n + 4], "little") for n in (0, 4))
        if kind == 6:
            captured = int.from_bytes(pcapng[at + 20 : at + 24], "little")
            options = pcapng[at + 28 + (captured + 3) // 4 * 4 : at + size - 4]
            length = int.from_bytes(options[2:4], "little")
            found[options[4 : 4 + length].decode()] += 1
        at += size
    return found


def words_of(lines: Iterable[str]) -> list[str]:
    """Return the words beside a text's arrows; what has no time goes on with those above."""
    found: list[str] = []
    for line in lines:
        assert len(line) <= 80
        time, _, words = line[:9].strip(), *line.rpartition("|")[1:]
        if time:
            found.append(words.strip())
        elif line.startswith(" "):
            found[-1] += words[1:]
    return found


def agree(experiment: Experiment, count: int, pause: float) -> None:
    """Hold record, arrows, text, packets and page against the answer key, datagram for datagram."""
    now = [0.0]
    file = io.BytesIO()
    recorder = Recorder(file, {"protocol": "UDP"}, clock=lambda: now[0])
    audience = Audience({"protocol": "UDP"}, lambda: now[0])
    exchange(experiment, count, now, recorder, audience, pause=pause)
    record = file.getvalue()
    rows = read_record(record.splitlines())[1]
    timeline = timeline_of(record)
    (arrows,) = timeline.clients.values()
    shown = Counter(words_of(draw_text(timeline)))
    expected: Counter[str] = Counter()
    for key in answer_key(experiment, count):
        mine = [each for each in rows if each.get("number") == key.number]
        assert Counter(each["fate"] for each in mine if "fate" in each) == Counter(key.events)
        assert sum(each["event"] == "replied" for each in mine) == sum(
            fate.copies for fate in key.replies
        )
        drawn = [arrow for arrow in arrows if arrow.number == key.number]
        requests = [arrow for arrow in drawn if arrow.direction == "request"]
        assert len(requests) == max(1, key.request.copies)
        assert requests[0].lost is (key.request.copies == 0)
        replies = [arrow for arrow in drawn if arrow.direction == "reply"]
        assert len(replies) == sum(max(1, fate.copies) for fate in key.replies)
        assert sum(arrow.lost for arrow in replies) == sum(not fate.copies for fate in key.replies)
        expected.update(key.events)
    copies = Counter({word: n for word, n in shown.items() if word.endswith("(copy)")})
    assert (
        Counter({word: n for word, n in (shown - copies).items() if word in expected}) == expected
    )
    told = comments(draw_packets(timeline))
    assert told.total() == len(arrows)
    assert told == Counter(arrow.words for arrow in arrows)
    page = audience.snapshot()
    assert arrows_of(page) == sorted(
        (
            "127.0.0.1:50000",
            round(each.begin, 4),
            round(each.end, 4),
            each.direction,
            each.number,
            each.text,
            each.size,
            each.actions,
            each.words,
        )
        for each in arrows
    )
    fates = [fate for key in answer_key(experiment, count) for fate in (key.request, *key.replies)]
    ((_, _, _, *counts),) = page["clients"]
    counted = dict(zip(COUNTS, counts, strict=True))
    assert counted["received"] == count
    assert counted["answered"] == sum(each["event"] == "replied" for each in rows)
    assert counted["lost"] == sum(not fate.copies for fate in fates)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32), pause=st.sampled_from([0.0, 0.05, 1.0]))
def test_every_preset_agrees_with_the_answer_key(seed: int, pause: float) -> None:
    """Whatever the seed: record, text, packets and page."""
    for preset in UDP_PRESETS.values():
        agree(make_experiment(preset.settings, seed=seed), 20, pause)


@pytest.mark.parametrize(
    ("ends", "words"),
    [
        (["replied", "dropped"], ["{}", "{} (copy); {}"]),
        (["dropped", "replied"], ["{}; {}", "{} (copy)"]),
        (["dropped", "dropped"], ["{}; {}", "{} (copy); {}"]),
    ],
)
def test_a_drop_is_that_of_the_copy_that_was_dropped(ends: list[str], words: list[str]) -> None:
    fate = "request duplicated"
    rows = [row(number=1, data="a")]
    rows.append(row(event="impaired", number=1, actions=["duplicated"], fate=fate, fates=fate))
    rows += [row(event=end, number=1, fates=fate, reason="failed") for end in ends]
    (arrows,) = timeline_of(b"\n".join([b'{"record": 1}', *rows])).clients.values()
    drawn = [each.words for each in arrows if each.direction == "request"]
    assert drawn == [each.format(fate, "dropped: failed") for each in words]


def test_a_reply_that_was_not_delayed_arrives_when_it_leaves_and_is_shown_as_it_was_sent() -> None:
    """Although the service tells of the lab first, and of what it has sent a little later."""
    fate, fates = "reply duplicated, corrupted", "request delivered; reply duplicated, corrupted"
    about = {"number": 1, "fates": fates, "size": 1}
    actions = {"actions": ["duplicated", "corrupted"], "fate": fate, "direction": "reply"}
    rows = [row(number=1, data="a", size=1)]
    rows.append(row(event="impaired", time=1.1, data="A", delay=0.0, **actions, **about))
    rows += [row(event="replied", time=time, data="Q", **about) for time in (1.2, 1.3)]
    drawn = [*draw_text(timeline_of(b"\n".join([b'{"record": 1}', *rows])))]
    arrows = [re.sub(r"([*-])+", r"\1", line[11:55]) for line in drawn if line.startswith("    0.")]
    assert arrows == ['|- 1 "a" ->|', '|<* 1 "A" *|', "|<* 1  *|"]


def test_nothing_is_kept_of_an_exchange_that_is_forgotten() -> None:
    made = ClientArrows()
    about = {"data": "A", "fates": "x", "fate": "delayed", "direction": "reply"}
    events = [(event, number) for event in ("impaired", "replied") for number in (1, 2)]
    for event, number in events:
        made.take(json.loads(row(event=event, number=number, **about)))
        made.forget(1)
    assert [(arrow.number, arrow.words) for arrow in made.arrows] == [(1, ""), (2, "delayed")]


WIDE_AND_ONTO = ("\u6f22\uff21\u1112", "\u0337\u0322\u20dd\u1161\u11ab")


@pytest.mark.parametrize("actions", [[], ["lost"]])
@pytest.mark.parametrize(
    "text",
    [
        *("hello", "\u6f22", "\u6f22" * 40, "\uff21", "Z\u0337\u0322a", "a\u20dd"),
        "\u1112\u1161\u11ab",  # Hangul, as file names of macOS have it
    ],
)
def test_lines_stand_below_each_other_whatever_letters_are_on_an_arrow(
    text: str, actions: list[str]
) -> None:
    """Wide ones take two columns of a terminal, and those that are written onto others none."""
    data = text.encode().decode("latin-1")
    about = {"number": 1, "data": data, "size": len(data), "fates": "x", "direction": "reply"}
    rows = [row(**about), row(event="impaired", actions=actions, **about)]
    rows.append(row(event="replied", **about))
    *_, request, reply = draw_text(timeline_of(b"\n".join([b'{"record": 1}', *rows])))
    for line in request, reply:
        wide, marks = (sum(map(line.count, each)) for each in WIDE_AND_ONTO)
        assert line[54 - wide + marks] == "|"
        # A cut takes the text's end, and not the number.
        assert " 1 " in line


def test_what_is_cut_on_an_arrow_does_not_run_into_its_mark() -> None:
    """Here the 28 columns up to the cross, which would be one more letter of the text."""
    rows = [row(number=1, data="x" * 22, size=22)]
    rows.append(row(event="impaired", number=1, actions=["lost"], fates="request lost"))
    *_, line = draw_text(timeline_of(b"\n".join([b'{"record": 1}', *rows])))
    assert line[11:] == f'|-- 1 "{"x" * 18}…" x{"":14}|'


@pytest.mark.parametrize("detail", ["\u6f22" * 45, "\u6f22 " * 30, "words " * 9, "Z\u0337 " * 30])
def test_a_note_stays_between_the_lines_whatever_letters_it_has(detail: str) -> None:
    closed = row(event="closed", outcome="failed", detail=detail.strip())
    _, _, *notes = draw_text(timeline_of(b"\n".join([b'{"record": 1}', closed])))
    assert len(notes) > 1
    for note in notes:
        wide, marks = note.count("\u6f22"), note.count("\u0337")
        assert (note[11], note[54 - wide + marks :]) == ("|", "|")


CHANCES = st.sampled_from(["0.3", "reply:0.5", "both:0.25", "request:0.2,reply:0.6", "both:1"])
OPTIONS = st.fixed_dictionaries(
    {},
    optional={
        "loss": CHANCES,
        "duplicate": CHANCES,
        "corrupt": CHANCES,
        "reorder": CHANCES,
        "delay": st.sampled_from(["20ms", "both:100ms", "reply:1s"]),
        "jitter": st.sampled_from(["10ms", "both:20ms"]),
        "burst-loss": st.sampled_from(["0.2:0.25", "both:0.1:0.3:0.8"]),
    },
).filter(lambda options: "jitter" not in options or options.get("delay") == "both:100ms")


@settings(max_examples=40, deadline=None)
@given(options=OPTIONS, seed=st.integers(0, 2**32))
def test_all_options_agree_with_the_answer_key(options: dict[str, str], seed: int) -> None:
    agree(make_experiment(options, seed=seed), 12, 0.5)


def connection(peer: str, *events: Callable[[str], Event]) -> bytes:
    """Return the record of a TCP connection whose events are a tenth of a second apart."""
    now = [0.0]
    file = io.BytesIO()
    recorder = Recorder(file, {"protocol": "TCP"}, clock=lambda: now[0])
    for event in events:
        recorder.notify(event(peer))
        now[0] += 0.1
    return file.getvalue()


def conversation(outcome: Outcome, *, half_closed: bool) -> list[Callable[[str], Event]]:
    end = [HalfClosed] if half_closed else []
    return [
        Opened,
        lambda peer: Chunk(peer, Direction.REQUEST, b"hello"),
        lambda peer: Chunk(peer, Direction.REPLY, b"HELLO"),
        *end,
        lambda peer: Closed(peer, outcome, "", 5, 5),
    ]


def together(*records: bytes) -> Timeline:
    """Return the timeline of several records, of one client each, as if they were one."""
    first, *others = records
    return timeline_of(first + b"".join(each.partition(b"\n")[2] for each in others))


@pytest.mark.needs_program("tshark")
def test_wireshark_opens_the_packets_of_datagrams(tmp_path: Path) -> None:
    """Each with right checksums, its time and the lab's fate as a comment."""
    experiment = make_experiment(UDP_PRESETS["stop-and-wait"].settings, seed=7)
    record = recorded(experiment, 40).getvalue()
    timeline = together(record, record.replace(b"127.0.0.1:50000", b"[fe80::1%eth0]:50000"))
    path = tmp_path / "class.pcapng"
    path.write_bytes(draw_packets(timeline))
    seen = packets(
        path, "frame.time_relative", "frame.comment", "ip.checksum.status", "udp.checksum.status",
        "udp.payload", "udp.stream",
    )  # fmt: skip
    for number, arrows in enumerate(timeline.clients.values()):
        of_one = [packet for packet in seen if packet["udp.stream"] == str(number)]
        for packet, arrow in zip(of_one, arrows, strict=True):
            assert abs(float(packet["frame.time_relative"]) - arrow.begin + arrows[0].begin) < 1e-5
            assert packet.get("frame.comment", "") == arrow.words
            assert packet["udp.checksum.status"] == "1"
            assert packet.get("ip.checksum.status", "1") == "1"
            assert bytes.fromhex(packet["udp.payload"]) == arrow.data


ENDS = {
    Outcome.FINISHED: ["FA", "FA", "A"],
    Outcome.ANSWERED: ["FA", "FA"],
    Outcome.LAB_RESET: ["RA"],
    Outcome.DISCONNECTED: ["RA"],
}


@pytest.mark.needs_program("tshark")
def test_wireshark_opens_the_segments_of_a_connection(tmp_path: Path) -> None:
    """Handshake, numbers that follow each other, and how it ended."""
    path = tmp_path / "class.pcapng"
    cases = [(outcome, host) for outcome in ENDS for host in ("127.0.0.1", "[2001:db8::1]")]
    records = [
        connection(
            f"{host}:{port}", *conversation(outcome, half_closed=outcome is Outcome.FINISHED)
        )
        for port, (outcome, host) in enumerate(cases, 50000)
    ]
    path.write_bytes(draw_packets(together(*records)))
    seen = packets(
        path, "tcp.flags.str", "tcp.checksum.status", "tcp.len", "frame.comment", "tcp.stream"
    )
    for number, (outcome, _) in enumerate(cases):
        of_one = [packet for packet in seen if packet["tcp.stream"] == str(number)]
        flags = [re.sub(r"\W", "", each["tcp.flags.str"])[::-1] for each in of_one]
        assert flags == ["S", "SA", "A", "PA", "PA", *ENDS[outcome]]
        assert {each["tcp.checksum.status"] for each in of_one} == {"1"}
        assert [each["tcp.len"] for each in of_one[3:5]] == ["5", "5"]
        assert of_one[0]["frame.comment"] == "connected"
        assert any(each.get("frame.comment") == f"closed: {outcome}" for each in of_one)


@pytest.mark.needs_program("tshark")
def test_a_payload_that_a_record_cuts_is_a_packet_that_was_captured_in_part(tmp_path: Path) -> None:
    """With its real length: a chunk that no packet holds is several."""
    big = b"x" * 70_000
    path = tmp_path / "class.pcapng"
    events = Opened, lambda peer: Chunk(peer, Direction.REQUEST, big)
    path.write_bytes(draw_packets(timeline_of(connection("127.0.0.1:50000", *events))))
    lengths = [int(each["tcp.len"]) for each in packets(path, "tcp.len")]
    assert lengths == [0, 0, 0, 65_000, 5_000]


def test_pictures_tell_apart_without_colour_what_happened() -> None:
    """A cross half-way, a diamond, a ring and two heads; a legend says which is which."""
    options = {"loss": "0.2", "duplicate": "0.3", "corrupt": "0.3", "reorder": "0.3"}
    drawn = draw_svg(timeline_of(recorded(make_experiment(options, seed=3), 30).getvalue()))
    root = ElementTree.fromstring(drawn)
    # To a screen reader an image would be its name alone, and not the words in it.
    assert root.get("role") == "group"
    svg = "{http://www.w3.org/2000/svg}"
    corners = {len(each.get("points", "").split()) for each in root.iter(f"{svg}polygon")}
    assert corners == {3, 4, 16}
    assert sum(each.get("class") == "mark" for each in root.iter(f"{svg}line")) >= 4
    dashes = re.findall(r"line\.(\w+)\{[^}]*dasharray:([\d ]+)", drawn)
    assert len({pattern for _, pattern in dashes}) == len(dashes) >= 4
    texts = [each.text or "" for each in root.iter(f"{svg}text")]
    assert {"lost", "duplicated", "corrupted", "reordered"} <= set(texts)


def test_in_a_picture_time_goes_down_and_nothing_overlaps() -> None:
    """Also where a client sends all at once."""
    experiment = make_experiment({"delay": "both:100ms", "jitter": "both:50ms"}, seed=3)
    drawn = draw_svg(timeline_of(recorded(experiment, 50, 0.0).getvalue()))
    rows = re.findall(r'<text x="20.0" y="([\d.]+)"[^>]*>[\d.]+ s<', drawn)
    heights = [float(y) for y in rows]
    assert len(heights) == 100
    assert all(below - above >= 12 for above, below in itertools.pairwise(heights))


def test_the_longest_address_has_room() -> None:
    peer = "[2001:db8:1234:1234:1234:1234:1234:1234]:54321"
    drawn = draw_svg(timeline_of(b"\n".join([b'{"record": 1}', row(peer=peer, data="a")])))
    (middle,) = re.findall(rf'<text x="([\d.]+)"[^>]*>{re.escape(peer)}<', drawn)
    # In DejaVu Sans it takes 340 pixels.
    assert 180 < float(middle) < 380


@pytest.mark.parametrize("kind", [".svg", ".pdf", ".png", ".txt", ".pcapng"])
def test_every_picture_is_a_file_of_its_kind(kind: str, tmp_path: Path) -> None:
    record = recorded(make_experiment(UDP_PRESETS["stop-and-wait"].settings, seed=7), 6).getvalue()
    path = tmp_path / f"class{kind}"
    # A formula that does not end, and a letter that the font has not got: 0xE6BCA2 is U+6F22.
    payload = rb"$<\u00e6\u00bc\u00a2"
    save_timeline(timeline_of(record.replace(b"<b>", payload)), path)
    begins = {".svg": b"<svg", ".pdf": b"%PDF", ".png": b"\x89PNG", ".txt": b"UDP"}
    assert path.read_bytes().startswith(begins.get(kind, b"\n\r\r\n"))
    if kind == ".pdf":
        assert b"/FontFile2" in path.read_bytes(), "its words are shapes, which nobody can search"
    assert path.stat().st_size > 1000


@pytest.mark.parametrize("loss", ["0", "0.3", "1"])
def test_no_page_ends_within_a_line_of_text(
    loss: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pages: list[Any] = []
    monkeypatch.setattr(PdfPages, "savefig", lambda _, figure: pages.append(*figure.axes))
    record = recorded(make_experiment({"loss": loss}, seed=3), 60, 0.0).getvalue()
    save_timeline(timeline_of(record), tmp_path / "class.pdf")
    assert len(pages) > 1
    for page in pages:
        bottom, top = page.get_ylim()
        heights = [text.get_position()[1] for text in page.texts]
        assert top + 10 < min(heights)
        assert max(heights) < bottom - 4
        boxes: Any = [text.get_bbox_patch() for text in page.texts]
        colours = {(box.get_facecolor()[:3], box.get_edgecolor()[3]) for box in boxes}
        assert colours == {((1.0, 1.0, 1.0), 0.0)}, "lines go through words, or round them"


def test_a_page_ends_somewhere_even_where_words_leave_no_gap() -> None:
    drawing = _Drawing("", words=[_Words(0, y, "") for y in range(3000)], height=3000)
    pages = list(_pages(drawing))
    height = drawing.width * _PAGE
    assert pages == [(0.0, height), (height, 2 * height), (2 * height, 3 * height)]


def test_a_picture_of_thousands_says_what_to_do_instead(tmp_path: Path) -> None:
    record = recorded(Experiment(seed=1), 2000).getvalue()
    path = tmp_path / "class.jsonl"
    path.write_bytes(record)
    done = run("timeline", str(path), "-o", str(tmp_path / "class.png"))
    assert done.status == 2
    assert re.search(r"pixels high.*write a \.svg, or one --client", done.stderr)
    done = run("timeline", str(path), "-o", str(tmp_path / "class.svg"))
    assert done.status == 0
    assert (tmp_path / "class.svg").read_text().count("HTML") == 0
    assert len(run("timeline", str(path)).stdout.splitlines()) > 4000


def test_what_is_readable_of_a_record_that_is_cut_is_drawn(tmp_path: Path) -> None:
    path = tmp_path / "class.jsonl"
    path.write_bytes(recorded(Experiment(seed=1), 2).getvalue()[:-5])
    done = run("timeline", str(path))
    assert done.status == 0
    assert b'1 "' in done.stdout
    assert "cut or damaged; what is before it is shown" in done.stderr


def test_one_client_of_many_is_drawn() -> None:
    record = recorded(Experiment(seed=1), 2).getvalue()
    record += record.partition(b"\n")[2].replace(b"127.0.0.1:50000", b"[::1]:4")
    assert list(timeline_of(record, "::1").clients) == ["[::1]:4"]
    assert list(timeline_of(record, "127.0.0.1").clients) == ["127.0.0.1:50000"]
    with pytest.raises(UserError, match=r"no client '192.0.2.1'; .*127.0.0.1:50000, \[::1\]:4"):
        timeline_of(record, "192.0.2.1")


EVENTS = ["received", "impaired", "replied", "dropped", "opened", "chunk", "half-closed", "closed"]
EVENTS += ["refused", "arrow", "note", "take"]
"""Also such as are no events, but names in the code."""


def row(**facts: Any) -> bytes:
    return json.dumps({"time": 1.0, "event": "received", "peer": "127.0.0.1:1", **facts}).encode()


@pytest.mark.parametrize(
    "facts",
    [{"time": float("inf")}, {"time": float("nan")}, {"size": -1}, {"size": 10**30}, {"wall": -5}],
    ids=str,
)
def test_a_number_that_would_break_a_picture_ends_what_is_read(facts: dict[str, Any]) -> None:
    lines = [b'{"record":1}', row(), row(**facts)]
    _, rows, problem = read_record(lines, "class.jsonl")
    assert len(rows) == 1
    assert problem.startswith("class.jsonl, line 3: cut or damaged")


def test_a_chunk_of_any_size_is_a_bounded_number_of_packets() -> None:
    chunk = row(event="chunk", direction="request", size=10**11 - 1)
    about, rows, _ = read_record([b'{"record":1,"protocol":"TCP"}', chunk])
    assert len(draw_packets(Timeline.of(about, rows))) < 1 << 20


def seen(at: float, number: int, event: str = "received", **facts: Any) -> bytes:
    return row(time=at, number=number, event=event, data="hi", size=2, **facts)


def harmed(at: float, number: int, action: str, whose: str = "request", **facts: Any) -> bytes:
    fate = f"{whose} {action}"
    facts |= {"direction": whose, "actions": [action], "fate": fate, "fates": fate}
    return seen(at, number, "impaired", **facts)


LESSON = [
    b'{"record":1,"protocol":"UDP"}',
    *(seen(0.0, 1), harmed(0.0, 1, "lost")),
    *(seen(1.0, 2), harmed(1.0, 2, "duplicated"), *[seen(1.1, 2, "replied")] * 2),
    *(seen(5.0, 3), harmed(5.0, 3, "delayed", delay=0.25), seen(5.25, 3, "replied")),
    *(seen(6.0, 4), harmed(6.0, 4, "lost", "reply")),
    *(seen(7.0, 5), harmed(7.0, 5, "corrupted"), seen(7.0, 5, "dropped", reason="failed")),
]
"""What the network does to five datagrams, one after the other."""


def test_a_lesson_in_text_has_each_mark_of_the_table() -> None:
    """A cross half-way on the side of its direction, copies, late arrivals, and no empty time."""
    assert list(draw_text(timeline_of(b"\n".join(LESSON)))) == [
        "UDP",
        "",
        "  seconds  127.0.0.1:1                                 server",
        '    0.000  |-- 1 "hi" -----------------x              |  request lost',
        '    1.000  |== 2 "hi" ===============================>|  request duplicated',
        "    1.000  |== 2  ===================================>|  (copy)",
        '    1.100  |<------------------------------- 2 "hi" --|',
        '    1.100  |<------------------------------- 2 "hi" --|',
        "        ⋮               nothing for 3.9 s              ",
        '    5.000  |-- 3 "hi" -------------------------------~|  request delayed',
        "    5.250  |~~ 3 ------------------------------------>|",
        '    5.250  |<------------------------------- 3 "hi" --|',
        '    6.000  |-- 4 "hi" ------------------------------->|',
        '    6.000  |              x----------------- 4 "hi" --|  reply lost',
        '    7.000  |** 5 "hi" *******************************>|  request corrupted;',
        "           |                                          |  dropped: failed",
    ]


def test_a_lesson_in_a_picture_is_as_short_as_what_happens_in_it() -> None:
    """A fold takes the place of empty time; who is held back falls further, and copies have two
    heads."""

    def drawn(*rows: bytes) -> str:
        return draw_svg(timeline_of(b"\n".join((LESSON[0], *rows))))

    def height(picture: str) -> int:
        return int(re.findall(r'height="(\d+)"', picture)[0])

    def fall(picture: str) -> float:
        # Of the picture, not of the legend.
        line = r'<line class="delayed" x1="130.0" y1="([\d.]+)" x2="560.0" y2="([\d.]+)"'
        ((begin, end),) = re.findall(line, picture)
        return float(end) - float(begin)

    hour = drawn(seen(0.0, 1), seen(3600.0, 2))
    assert "nothing for 3600.0 s" in hour
    assert height(hour) == height(drawn(seen(0.0, 1), seen(2.5, 2)))
    assert "nothing for" not in drawn(seen(0.0, 1), seen(1.9, 2))
    late, soon = (
        fall(drawn(seen(0.0, 1), harmed(0.0, 1, "delayed", delay=delay))) for delay in (0.25, 0.0)
    )
    assert late > 2 * soon > 0
    plain, copied = (
        drawn(seen(0.0, 1), harmed(0.0, 1, action)).count("<polygon")
        for action in ("delayed", "duplicated")
    )
    assert copied > 2 * plain


@settings(max_examples=60, deadline=None)
@given(
    rows=st.lists(
        st.fixed_dictionaries(
            {
                "time": st.floats(0, 1e10),
                "event": st.sampled_from(EVENTS),
            },
            optional={
                "peer": st.sampled_from(["127.0.0.1:1", "[::1]:99999999", "/run/x.sock", "x"]),
                "number": st.integers(0, 3),
                "size": st.integers(0, 100_000),
                "data": st.text(CHARACTER, max_size=9),
                "direction": st.sampled_from(["request", "reply", "up"]),
                "actions": st.lists(st.sampled_from(["lost", "duplicated", "reordered"])),
                "fate": st.text(CHARACTER, max_size=5),
                "fates": st.text(CHARACTER, max_size=5),
                "delay": st.floats(0, 1e5),
                "outcome": st.sampled_from(["disconnected", "finished"]),
            },
        )
    ),
    protocol=st.sampled_from(["TCP", "UDP", "?"]),
)
def test_any_record_can_be_drawn(rows: list[dict[str, Any]], protocol: str) -> None:
    """Whoever wrote it: pictures and packets come out, and no traceback."""
    lines = [{"record": 1, "protocol": protocol}, *rows]
    timeline = timeline_of(b"\n".join(json.dumps(line).encode() for line in lines))
    ElementTree.fromstring(draw_svg(timeline))
    assert list(draw_text(timeline))
    assert draw_packets(timeline)
