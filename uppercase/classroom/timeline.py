"""The timeline: a record as the textbook's time-sequence diagram, in text and in SVG.

Two lines, client and server, time downward, an arrow a datagram (TCP: a chunk). What is seen is the
server's side of it: a datagram leaves and arrives when the server, or the lab in it, knew of it.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final
from xml.sax.saxutils import escape, quoteattr

from uppercase.classroom.record import Row
from uppercase.core.values import printable

REQUEST, REPLY = "request", "reply"

_FOLD: Final = 2.0
"""Seconds without an event that are folded into a line that says how many they were."""

_LANE: Final = 46
"""Columns between the two lines of the text."""

_TEXT: Final = 22
"""Characters of a payload on its arrow: a line of the lecture."""


@dataclass(slots=True)
class Arrow:
    """One copy of a datagram, or a chunk; without a direction, a note across both lines.

    Attributes:
        begin: when it left, in seconds.
        end: when it arrived, or would have.
        direction: `request`, `reply` or "".
        number: the request's number among its client's; 0 over TCP.
        text: its first bytes as people read them.
        size: its bytes.
        actions: what the lab did to it, as `LabAction` words, and `dropped` for a real drop.
        words: the same for people, as the answer key says it.
        serial: by which a page knows it again; 0 elsewhere.
    """

    begin: float
    end: float
    direction: str
    number: int = 0
    text: str = ""
    size: int = 0
    actions: tuple[str, ...] = ()
    words: str = ""
    serial: int = 0

    @property
    def lost(self) -> bool:
        """Whether it ends half-way."""
        return "lost" in self.actions


@dataclass(slots=True)
class Timeline:
    """The arrows of each client, in the order of their beginning.

    Attributes:
        about: the record's first line.
        clients: arrows by client, in the order of first appearance.
    """

    about: Row
    clients: dict[str, list[Arrow]] = field(default_factory=dict)

    @classmethod
    def of(cls, about: Row, rows: Iterable[Row], client: str = "") -> "Timeline":
        """Make the timeline of a record, or of one client in it: ADDRESS or ADDRESS:PORT."""
        timeline = cls(about)
        builder: dict[str, ClientArrows] = {}
        for row in rows:
            peer = row.get("peer", "")
            if peer and (not client or peer == client or peer.rpartition(":")[0] == client):
                builder.setdefault(peer, ClientArrows()).take(row)
        for peer, each in builder.items():
            timeline.clients[peer] = sorted(each.arrows, key=lambda arrow: arrow.begin)
        return timeline


class ClientArrows:
    """Makes arrows of one client's rows, as the rows come.

    Attributes:
        arrows: all so far, in the order of their making; who has taken them may clear it.
    """

    def __init__(self) -> None:
        self.arrows: list[Arrow] = []
        self._requests: dict[int, list[Arrow]] = {}
        self._left: dict[tuple[int, str], tuple[float, tuple[str, ...], str]] = {}

    def take(self, row: Row) -> list[Arrow]:
        """Take the next row; return the arrows that are new, and those that may have changed."""
        before = len(self.arrows)
        take = getattr(self, f"_{row['event'].replace('-', '_')}", None)
        if take is not None:
            take(row)
        return [*self._requests.get(row.get("number", 0), ()), *self.arrows[before:]]

    def forget(self, number: int) -> None:
        """Keep nothing of an exchange but its arrows: no more is to come of it."""
        self._requests.pop(number, None)
        for key in [key for key in self._left if key[0] == number]:
            del self._left[key]

    def _arrow(self, row: Row, direction: str, **more: Any) -> Arrow:
        arrow = Arrow(
            row["time"],
            row["time"],
            direction,
            row.get("number", 0),
            _readable(row.get("data", ""), row.get("size", 0)),
            row.get("size", 0),
            **more,
        )
        self.arrows.append(arrow)
        return arrow

    def _note(self, row: Row, text: str) -> None:
        self.arrows.append(Arrow(row["time"], row["time"], "", words=text))

    def _received(self, row: Row) -> None:
        self._requests[row.get("number", 0)] = [self._arrow(row, REQUEST)]

    def _impaired(self, row: Row) -> None:
        actions, words = tuple(map(str, row.get("actions", ()))), row.get("fate", "")
        number, direction = row.get("number", 0), row.get("direction")
        if not row.get("fates"):
            return self._note(row, words)
        if direction == REPLY:
            if "lost" in actions:
                self._arrow(row, REPLY, actions=actions, words=words)
            else:
                self._left[number, row["fates"]] = row["time"], actions, words
            return None
        arrows = self._requests.get(number, [])
        for arrow in arrows:
            arrow.actions, arrow.words = actions, words
            arrow.end = arrow.begin + row.get("delay", 0)
        if "duplicated" in actions and len(arrows) == 1:
            arrows.append(replace(arrows[0], words=f"{words} (copy)", serial=0))
            self.arrows.append(arrows[1])
        return None

    def _replied(self, row: Row) -> None:
        arrow = self._arrow(row, REPLY)
        begin = self._left.get((arrow.number, row.get("fates", "")))
        if begin is not None:
            arrow.begin, arrow.actions, arrow.words = begin

    def _dropped(self, row: Row) -> None:
        text = f"dropped: {row.get('reason', '')}"
        for arrow in self._requests.get(row.get("number", 0), []):
            arrow.words = f"{arrow.words}; {text}" if arrow.words else text
            arrow.actions = (*arrow.actions, "dropped")
            return
        self._note(row, text)

    def _opened(self, row: Row) -> None:
        self._note(row, "connected")

    def _chunk(self, row: Row) -> None:
        self._arrow(row, str(row.get("direction")))

    def _half_closed(self, row: Row) -> None:
        self._note(row, "the client has ended its side")

    def _closed(self, row: Row) -> None:
        detail = f" ({row['detail']})" if row.get("detail") else ""
        self._note(row, f"closed: {row.get('outcome', '')}{detail}")

    def _refused(self, row: Row) -> None:
        self._note(row, f"refused: {row.get('reason', '')}")

    def _incomplete(self, row: Row) -> None:
        self._note(row, "the client waits, and has sent no line's end")


def _readable(data: str, size: int) -> str:
    """Return a payload's start as one reads it: UTF-8 where it is, escaped where it is not."""
    text = data.encode("latin-1", "replace").decode("utf-8", "replace")
    text = printable(text[: _TEXT + 1])
    return f'"{text}"' if len(text) <= _TEXT and size <= len(data) else f'"{text[:_TEXT]}…'


def _title(timeline: Timeline) -> str:
    about = timeline.about
    parts = [str(about.get("protocol", "")), str(about.get("transform", "")), about.get("lab", "")]
    return " · ".join(str(part) for part in parts if part)


def draw_text(timeline: Timeline) -> Iterator[str]:
    """Return the lines of the text: an arrow is one line, and one more where it arrives later."""
    yield _title(timeline)
    for client, arrows in timeline.clients.items():
        yield ""
        yield f"{'seconds':>9}  {client:<{_LANE}}  server"
        begin = before = arrows[0].begin
        for moment, line, words in sorted(_text_rows(arrows), key=lambda row: row[0]):
            if moment - before > _FOLD:
                yield f"{'⋮':>9}  {f'nothing for {moment - before:.1f} s':^{_LANE + 2}}"
            before = moment
            yield f"{moment - begin:9.3f}  {line}  {words}".rstrip()
    if not timeline.clients:
        yield "nothing came"


def _text_rows(arrows: Sequence[Arrow]) -> Iterator[tuple[float, str, str]]:
    """Return time, picture and words of each line."""
    for arrow in arrows:
        if not arrow.direction:
            yield arrow.begin, f"|{f' {arrow.words} ':·^{_LANE}}|", ""
            continue
        number = f"{arrow.number} " if arrow.number else ""
        label = f" {number}{arrow.text} "
        late = arrow.end > arrow.begin and not arrow.lost
        end = "x" if arrow.lost else "~" if late else ">"
        yield arrow.begin, _lane(label, arrow.direction, end), arrow.words
        if late:
            yield arrow.end, _lane(f" {number}", arrow.direction, ">", start="~"), ""


def _lane(label: str, direction: str, end: str, start: str = "-") -> str:
    """Return one arrow between the lines; `end` is how it ends: `>`, `x` half-way, `~` later."""
    length = _LANE * 2 // 3 if end == "x" else _LANE
    shaft = (start * 2 + label).ljust(length - 1, "-")[: length - 1] + end
    if direction == REPLY:
        body = (label + start * 2).rjust(length - 1, "-")[-(length - 1) :]
        shaft = end.replace(">", "<") + body
        return f"|{shaft:>{_LANE}}|"
    return f"|{shaft:<{_LANE}}|"


_LEFT, _RIGHT, _ROW, _MOST = 150, 560, 26, 120
_STYLE: Final = """
svg{background:#fff;font:14px sans-serif}text{fill:#111}.t{font-size:11px;fill:#555}
line{stroke:#111;stroke-width:1.6}.life{stroke-width:2}.delayed{stroke:#06c}
.lost,.dropped{stroke:#b00}.corrupted{stroke:#a0a;stroke-dasharray:2 3}
.duplicated{stroke:#070;stroke-dasharray:9 3}.reordered{stroke:#c60;stroke-dasharray:12 3 2 3}
""".strip()
"""Each mark differs by dashes and by its word too, so that it is told apart in black and white."""


def draw_svg(timeline: Timeline) -> str:
    """Return the diagram as an SVG document; gaps are folded, slants show the delays."""
    body, top = [], 60
    for client, arrows in timeline.clients.items():
        heights = _heights(arrows, top + 34)
        begin, bottom = arrows[0].begin, max(heights.values()) + 20
        body += [
            f'<text x="{_LEFT}" y="{top}" text-anchor="middle">{escape(client)}</text>',
            f'<text x="{_RIGHT}" y="{top}" text-anchor="middle">server</text>',
            *(_line(x, top + 10, x, bottom, "life") for x in (_LEFT, _RIGHT)),
        ]
        for arrow in arrows:
            body += _svg_arrow(arrow, heights, begin)
        top = bottom + 50
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="960" height="{top}" '
        f'viewBox="0 0 960 {top}" role="img" aria-label={quoteattr(_title(timeline))}>'
        f"<style>{_STYLE}</style>"
        f'<text x="20" y="24" font-weight="bold">{escape(_title(timeline))}</text>'
        f"{''.join(body)}</svg>\n"
    )


def _heights(arrows: Sequence[Arrow], top: int) -> Mapping[float, int]:
    """Return the place of each moment: a second is 100, no two are closer than a line of text."""
    places: dict[float, int] = {}
    before: float | None = None
    for moment in sorted({moment for each in arrows for moment in (each.begin, each.end)}):
        if before is not None:
            top += max(_ROW, min(_MOST, int((moment - before) * 100)))
        places[moment] = top
        before = moment
    return places


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return f'<line class="{kind}" x1="{x1:g}" y1="{y1:g}" x2="{x2:g}" y2="{y2:g}"/>'


def _svg_arrow(arrow: Arrow, heights: Mapping[float, int], begin: float) -> Iterator[str]:
    top = heights[arrow.begin]
    yield f'<text class="t" x="20" y="{top + 4}">{arrow.begin - begin:.3f} s</text>'
    if not arrow.direction:
        middle = (_LEFT + _RIGHT) / 2
        yield f'<text class="t" x="{middle:g}" y="{top}" text-anchor="middle">'
        yield f"{escape(arrow.words)}</text>"
        return
    start, goal = (_LEFT, _RIGHT) if arrow.direction == REQUEST else (_RIGHT, _LEFT)
    end: float = heights[arrow.end] + (6 if arrow.end == arrow.begin else 0)
    kinds = " ".join(word for word in arrow.actions if word.isalpha())
    stop, low = (start + (goal - start) / 2, (top + end) / 2) if arrow.lost else (goal, end)
    yield _line(start, top, stop, low, kinds)
    side = -1 if goal > start else 1
    if arrow.lost:
        yield _line(stop - 6, low - 6, stop + 6, low + 6, "lost")
        yield _line(stop - 6, low + 6, stop + 6, low - 6, "lost")
    else:
        yield _line(stop, low, stop + side * 9, low - 5, kinds)
        yield _line(stop, low, stop + side * 9, low + 5, kinds)
    anchor, x = ("start", start + 12) if goal > start else ("end", start - 12)
    number = f"{arrow.number}  " if arrow.number else ""
    yield f'<text x="{x}" y="{top - 4}" text-anchor="{anchor}">{number}{escape(arrow.text)}</text>'
    yield f'<text class="t" x="{_RIGHT + 20}" y="{top + 4}">{escape(arrow.words)}</text>'
