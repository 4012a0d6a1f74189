"""The timeline: a record as the textbook's time-sequence diagram, and the same as text.

Two lines, client and server, time downward, an arrow per datagram (TCP: chunk). What is seen is the
server's side of it: a datagram leaves and arrives when the server, or the lab in it, knew of it.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import zip_longest
from textwrap import wrap
from typing import Any, Final
from unicodedata import category, east_asian_width

from uppercase.classroom.record import Row
from uppercase.core.events import Direction
from uppercase.core.values import printable
from uppercase.errors import UserError

REQUEST, REPLY = (each.value for each in Direction)

FOLD: Final = 2.0
"""Seconds without an event that are folded into a line, which says how many."""

_LANE: Final = 42  # Columns between the two lines of the text.

_WORDS: Final = 80 - 9 - 2 - (_LANE + 2) - 2
"""Columns for the words beside them, on a terminal of 80."""

_TEXT: Final = 22  # Characters of a payload on its arrow: a line of the lecture.

_COPY: Final = " (copy)"
"""Behind the words of the second of two copies, which shows no text of its own."""

_NOTES: Final = {
    "opened": "connected",
    "half-closed": "the client has ended its side",
    "incomplete": "the client waits, and has sent no line's end",
}


@dataclass(slots=True)
class Arrow:
    """One copy of a datagram, or a chunk; without a direction, a note across both lines.

    Attributes:
        begin: when it left, in seconds.
        end: when it arrived, or would have.
        number: the request's number among its client's; 0 over TCP.
        actions: what the lab did to it, as `LabAction` words, and `dropped` for a real drop.
        words: the same for people, as the answer key says it.
        data: the first bytes; `text` is these as people read them.
        event: what a note is about, in the record's word.
        serial: by which a page recognises it; 0 elsewhere.
        ended: whether a request has been answered or dropped.
    """

    begin: float
    end: float
    direction: str
    number: int = 0
    text: str = ""
    size: int = 0
    actions: tuple[str, ...] = ()
    words: str = ""
    data: bytes = b""
    event: str = ""
    serial: int = 0
    ended: bool = False

    @property
    def lost(self) -> bool:
        return "lost" in self.actions


@dataclass(slots=True)
class Timeline:
    """The arrows of each client, in the order of their beginning.

    Attributes:
        about: the record's first line.
        epoch: what makes a time of the record one since 1970.
    """

    about: Row
    clients: dict[str, list[Arrow]] = field(default_factory=dict)
    epoch: float = 0.0

    @classmethod
    def of(cls, about: Row, rows: Iterable[Row], client: str = "") -> "Timeline":
        """Make the timeline of a record, or of one client in it: ADDRESS or ADDRESS:PORT."""
        timeline = cls(about)
        builders: dict[str, ClientArrows] = {}
        others: dict[str, None] = {}
        for row in rows:
            timeline.epoch = timeline.epoch or row.get("wall", 0) - row["time"]
            peer = row.get("peer", "")
            host = peer.rpartition(":")[0]
            if client not in ("", peer, host, host.strip("[]")):
                others[peer] = None
            elif peer:
                builders.setdefault(peer, ClientArrows()).take(row)
        if client and not builders:
            known = ", ".join(list(filter(None, others))[:5]) or "none"
            raise UserError(f"the record has no client {client!r}; the first that it has: {known}")
        timeline.clients = {
            peer: sorted(each.arrows, key=lambda arrow: arrow.begin)
            for peer, each in builders.items()
            if each.arrows
        }
        return timeline


class ClientArrows:
    """Makes arrows of one client's rows, as the rows come.

    Attributes:
        arrows: all so far, in the order of their making; a caller that has taken them may clear it.
    """

    def __init__(self) -> None:
        self.arrows: list[Arrow] = []
        self._requests: dict[int, list[Arrow]] = {}
        # By number and fates: what the lab did to a reply, and what is said of its next copy.
        self._left: dict[int, dict[str, tuple[Row, str]]] = {}

    def take(self, row: Row) -> list[Arrow]:
        """Take the next row; return the arrows that are new, and those that may have changed."""
        before, number = len(self.arrows), row.get("number", 0)
        match row["event"]:
            case "received":
                self._requests[number] = [self._arrow(row, REQUEST)]
            case "impaired":
                self._impaired(row)
            case "replied":
                self._replied(row)
            case "dropped":
                self._dropped(row)
            case "chunk" if row.get("direction") in (REQUEST, REPLY):
                self._arrow(row, row["direction"])
            case "opened" | "half-closed" | "incomplete" as word:
                self._note(row, _NOTES[word])
            case "refused":
                self._note(row, f"refused: {row.get('reason', '')}", "refused")
            case "closed":
                detail = f" ({row['detail']})" if row.get("detail") else ""
                outcome = str(row.get("outcome", ""))
                self._note(row, f"closed: {outcome}{detail}", outcome)
        return [*self._requests.get(number, ()), *self.arrows[before:]]

    def forget(self, number: int) -> None:
        """Keep nothing of an exchange except its arrows: no more will come of it."""
        self._requests.pop(number, None)
        self._left.pop(number, None)

    def _arrow(self, row: Row, direction: str, **more: Any) -> Arrow:
        data = row.get("data", "").encode("latin-1", "replace")
        size = row.get("size", len(data))
        # As one reads it: UTF-8 where it is, escaped where it is not.
        text = printable(data.decode("utf-8", "replace")[: _TEXT + 1])
        whole = len(text) <= _TEXT and size <= len(data)
        arrow = Arrow(
            row["time"],
            row["time"],
            direction,
            row.get("number", 0),
            f'"{text}"' if whole else f'"{text[:_TEXT]}…"',
            size,
            data=data[:size],
            **more,
        )
        self.arrows.append(arrow)
        return arrow

    def _note(self, row: Row, text: str, *outcome: str) -> None:
        at = row["time"]
        self.arrows.append(Arrow(at, at, "", actions=outcome, words=text, event=row["event"]))

    def _impaired(self, row: Row) -> None:
        actions, words = _actions(row), row.get("fate", "")
        number = row.get("number", 0)
        if not row.get("fates"):
            self._note(row, words)
            return
        if row.get("direction") != REPLY:
            arrows = self._requests.get(number, [])
            for arrow in arrows:
                arrow.actions, arrow.words = actions, words
                arrow.end = round(arrow.begin + row.get("delay", 0), 6)
            if "duplicated" in actions and len(arrows) == 1:
                arrows.append(replace(arrows[0], words=words + _COPY, text="", serial=0))
                self.arrows.append(arrows[1])
            return
        self._end_one(number)
        if "lost" in actions:
            self._arrow(row, REPLY, actions=actions, words=words)
        else:
            self._left.setdefault(number, {})[row["fates"]] = row, words

    def _replied(self, row: Row) -> None:
        number, fates = row.get("number", 0), row.get("fates", "")
        if fates not in (copies := self._left.get(number, {})):
            self._arrow(row, REPLY)
            self._end_one(number)
            return
        left, words = copies[fates]
        # As it was before a bit was flipped, when it left the service.
        arrow = self._arrow(left, REPLY, actions=_actions(left), words=words)
        if left.get("delay"):
            # A record may come from anywhere: no arrow goes back in time.
            arrow.end = max(arrow.begin, row["time"])
        if words.endswith(_COPY):
            arrow.text = ""
        elif "duplicated" in arrow.actions:
            copies[fates] = left, words + _COPY

    def _dropped(self, row: Row) -> None:
        text, number = f"dropped: {row.get('reason', '')}", row.get("number", 0)
        # A reply that the lab was to hold back has ended its request already.
        if row.get("fates", "") not in self._left.get(number, {}):
            self._end_one(number)
        if ended := [each for each in self._requests.get(number, ()) if each.ended]:
            arrow = ended[-1]
            arrow.words = f"{arrow.words}; {text}" if arrow.words else text
            arrow.actions = (*arrow.actions, "dropped")
        else:
            self._note(row, text)

    def _end_one(self, number: int) -> None:
        """End the first copy of a request that has no end yet: by its reply, or a drop."""
        for arrow in self._requests.get(number, ()):
            if not arrow.ended:
                arrow.ended = True
                break


def _actions(row: Row) -> tuple[str, ...]:
    return tuple(map(str, row.get("actions", ())))


def title_of(timeline: Timeline) -> str:
    """Return what was served, and what its lab was told."""
    facts = (timeline.about.get(name) for name in ("protocol", "transform", "lab"))
    return " · ".join(str(each) for each in facts if each)


def draw_text(timeline: Timeline) -> Iterator[str]:
    """Return the lines of the text: an arrow is one, another where it arrives later.

    What has no room goes on in the next line, which has no time.
    """
    yield from wrap(title_of(timeline), 80)
    for client, arrows in timeline.clients.items():
        yield ""
        yield f"{'seconds':>9}  {client:<{_LANE}}  server"
        begin = before = arrows[0].begin
        for moment, lines, words in sorted(_text_rows(arrows), key=lambda row: row[0]):
            if moment - before > FOLD:
                yield f"{'⋮':>9}  {f'nothing for {moment - before:.1f} s':^{_LANE + 2}}"
            before = moment
            stamp, empty = f"{moment - begin:9.3f}", f"|{'':{_LANE}}|"
            # No line breaks between a number and its unit.
            parts = wrap(words.replace(" ms", "\xa0ms"), _WORDS)
            for line, part in zip_longest(lines, parts, fillvalue=""):
                yield f"{stamp}  {line or empty}  {part}".rstrip().replace("\xa0", " ")
                stamp = f"{'':9}"
    if not timeline.clients:
        yield "nothing came"


def _text_rows(arrows: Sequence[Arrow]) -> Iterator[tuple[float, list[str], str]]:
    """Return time, picture and words of each moment."""
    for arrow in arrows:
        if not arrow.direction:
            wide = _columns(arrow.words) > len(arrow.words)  # Half as many letters have room.
            lines = wrap(arrow.words, (_LANE - 4) // (1 + wide))
            notes = [f" {it} ".center(_LANE + len(it) - _columns(it), "·") for it in lines]
            yield arrow.begin, [f"|{note}|" for note in notes], ""
            continue
        number = f"{arrow.number} " if arrow.number else ""
        label = f" {number}{arrow.text} "
        late = arrow.end > arrow.begin and not arrow.lost
        end = "x" if arrow.lost else "~" if late else ">"
        known = {"corrupted": "*", "duplicated": "="}
        line = next((sign for action, sign in known.items() if action in arrow.actions), "-")
        words = _COPY.strip() if arrow.words.endswith(_COPY) else arrow.words
        yield arrow.begin, [_lane(label, arrow.direction, end, line, line)], words
        if late:
            yield arrow.end, [_lane(f" {number}", arrow.direction, ">", "~", line)], ""


def _columns(text: str) -> int:
    """Return how many columns of a terminal a text takes: a letter of some scripts two, or none."""
    seen = [c for c in text if category(c) not in ("Mn", "Me") and not "\u1160" <= c <= "\u11ff"]
    return len(seen) + sum(east_asian_width(each) in "WF" for each in seen)


def _lane(label: str, direction: str, end: str, start: str, line: str) -> str:
    """Return one arrow between the lines; `end` is how it ends: `>`, `x` half-way, `~` later."""
    length = _LANE * 2 // 3 if end == "x" else _LANE
    while (room := length - 3 - _columns(label)) < 0:
        label = label.rstrip('…" ')[:-1] + '…" '
    rest, empty = line * room, " " * (_LANE - length)
    if direction == REPLY:
        return f"|{empty}{end.replace('>', '<')}{rest}{label}{start * 2}|"
    return f"|{start * 2}{label}{rest}{end}{empty}|"
