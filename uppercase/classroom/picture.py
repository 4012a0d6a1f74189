"""The timeline as a picture: laid out once, written as SVG by us, as PDF and PNG by matplotlib.

What happened is told apart by shape first (a cross, a diamond, a ring, two heads) and by dashes,
and only then by colour, so that a black-and-white print says the same. Every arrow slants a little,
as in a textbook; the more it slants, the longer it was under way.
"""

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, pairwise
from math import cos, pi, sin
from pathlib import Path
from typing import Any, Final, NamedTuple
from xml.sax.saxutils import escape, quoteattr

from uppercase.classroom._packets import draw_packets
from uppercase.classroom.timeline import FOLD, REQUEST, Arrow, Timeline, draw_text, title_of
from uppercase.errors import UserError

_CLIENT, _MIDDLE, _SERVER = 130.0, 345.0, 560.0
_SLANT: Final = 16.0  # The least that an arrow falls, in pixels: one that was not held back.
_APART: Final = 16.0  # Between two arrows' beginnings: the words in the margins must not overlap.
_ROW: Final = 25.0
"""Between an arrow's beginning and what came before it on the same line: its text stands there."""
_LONGEST: Final = 60.0
"""How far the longest delay falls; if there is none, a second is a hundred pixels."""
_MOST: Final = 40.0  # For a time without an event that is too short to be folded.
_PAGE: Final = 1.414  # Height to width of a page of PDF: A4.
_HEIGHTS: Final = {".png": 60_000, ".pdf": 120_000}
"""Pixels; matplotlib draws no image of more than 65,535, and a hundred pages take half a minute. A
few hundred and a few thousand datagrams: for more, there are --client and SVG."""


class _Style(NamedTuple):
    colour: str
    width: float = 1.4
    dashes: tuple[int, ...] = ()


_STYLES: Final = {
    "arrow": _Style("#111111"),
    "lost": _Style("#b00020"),
    "corrupted": _Style("#7b1fa2", dashes=(2, 3)),
    "duplicated": _Style("#00695c", dashes=(9, 3)),
    "reordered": _Style("#b35900", dashes=(12, 3, 2, 3)),
    "delayed": _Style("#0b57a4"),
    "dropped": _Style("#b00020", dashes=(5, 4)),
    "mark": _Style("#b00020", 2.4),
    "life": _Style("#111111", 2.0),
    "fold": _Style("#111111", 2.0, (2, 5)),
}
"""The first that applies to an arrow is its own; the shapes show all that apply."""

_LEGEND: Final = ("lost", "corrupted", "duplicated", "reordered", "delayed", "dropped")


class _Path(NamedTuple):
    points: Sequence[tuple[float, float]]
    style: str
    filled: bool = True


class _Words(NamedTuple):
    x: float
    y: float
    text: str
    anchor: str = "start"
    size: float = 13
    bold: bool = False


@dataclass
class _Drawing:
    """Lines, shapes and words on a page of any height, from the top."""

    title: str
    lines: list[_Path] = field(default_factory=list)
    shapes: list[_Path] = field(default_factory=list)
    words: list[_Words] = field(default_factory=list)
    width: float = 760.0
    height: float = 0.0

    def say(self, words: _Words) -> None:
        """Add words, and room for them."""
        self.words.append(words)
        if words.anchor == "start":
            self.width = max(self.width, words.x + 20 + 0.62 * words.size * len(words.text))


def draw_svg(timeline: Timeline) -> str:
    """Return the diagram as an SVG document."""
    drawing = _lay_out(timeline)
    width, height = f"{drawing.width:.0f}", f"{drawing.height:.0f}"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" role="group" aria-label={quoteattr(drawing.title)}>'
        f"<style>{_css()}</style>"
        f'<rect width="100%" height="100%" fill="#fff"/>\n{chr(10).join(_svg(drawing))}\n</svg>\n'
    )


def save_timeline(timeline: Timeline, path: Path) -> None:
    """Write a timeline as its file's name says: `.txt`, `.pcapng`, `.svg`, `.pdf` or `.png`."""
    match path.suffix.lower():
        case ".txt":
            lines = "".join(f"{line}\n" for line in draw_text(timeline))
            path.write_text(lines, encoding="utf-8")
        case ".pcapng":
            path.write_bytes(draw_packets(timeline))
        case ".svg":
            path.write_text(draw_svg(timeline), encoding="utf-8")
        case kind:
            _save_by_matplotlib(timeline, path, kind)


def _save_by_matplotlib(timeline: Timeline, path: Path, kind: str) -> None:
    # Imported here: it loads slowly, and is an extra.
    import matplotlib
    from matplotlib.backends.backend_pdf import PdfPages

    drawing = _lay_out(timeline)
    if drawing.height > _HEIGHTS[kind]:
        raise UserError(
            f"a {kind} of this record would be {drawing.height:,.0f} pixels high, and "
            f"{_HEIGHTS[kind]:,} are accepted; write a .svg, or one --client"
        )
    # A dollar sign in what clients send starts no formula, and equal records give equal files.
    rc: Any = {"text.parse_math": False, "pdf.fonttype": 42}
    with matplotlib.rc_context(rc), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about letters that no font has
        if kind == ".pdf":
            with PdfPages(path, metadata={"Title": drawing.title, "CreationDate": None}) as pages:
                for top, bottom in _pages(drawing):
                    pages.savefig(_figure(drawing, top, bottom))
        else:
            # Twice as sharp for a projector, where that is not too much.
            scale = 2 if drawing.height * 2 <= _HEIGHTS[kind] else 1
            _figure(drawing, 0, drawing.height).savefig(path, format="png", dpi=72 * scale)


# Where things are


def _lay_out(timeline: Timeline) -> _Drawing:
    drawing = _Drawing(title_of(timeline))
    drawing.say(_Words(20, 26, drawing.title, bold=True))
    if not timeline.clients:
        drawing.say(_Words(20, 56, "nothing came"))
    top = _lay_out_legend(drawing, timeline) if timeline.clients else 44.0
    for client, arrows in timeline.clients.items():
        top = _lay_out_client(drawing, client, arrows, top + 34) + 16
    drawing.height = top + 24
    return drawing


def _lay_out_legend(drawing: _Drawing, timeline: Timeline) -> float:
    """Say what the shapes that occur mean; return where that ends."""
    seen = {word for arrow in chain(*timeline.clients.values()) for word in arrow.actions}
    x, top = 20.0, 44.0
    for word in _LEGEND:
        if word in seen:
            _arrow(drawing, (x, top), (x + (88 if word == "lost" else 56), top), (word,))
            drawing.say(_Words(x + 64, top + 4, word, size=11))
            x += 80 + 7 * len(word)
    return top + 6 if x > 20 else top - 20


def _lay_out_client(drawing: _Drawing, client: str, arrows: Sequence[Arrow], top: float) -> float:
    # An address of IPv6 may have more letters than there is room for on both sides of the line.
    drawing.say(_Words(max(_CLIENT, 20 + 4 * len(client)), top, client, "middle"))
    drawing.say(_Words(_SERVER, top, "server", "middle"))
    begins, ends, folds = _places(arrows, top + 40)
    bottom = max(ends) + 16
    edges = [top + 10, *(y for fold, _ in folds for y in (fold, fold + 22)), bottom]
    for number, (start, end) in enumerate(pairwise(edges)):
        for x in (_CLIENT, _SERVER):
            style = "fold" if number % 2 else "life"
            drawing.lines.append(_Path([(x, start), (x, end)], style))
    for fold, seconds in folds:
        drawing.say(_Words(_MIDDLE, fold + 15, f"nothing for {seconds:.1f} s", "middle", 11))
    for arrow, begin, end in zip(arrows, begins, ends, strict=True):
        _lay_out_arrow(drawing, arrow, begin, end, arrows[0].begin)
    return bottom


def _places(
    arrows: Sequence[Arrow], top: float
) -> tuple[list[float], list[float], list[tuple[float, float]]]:
    """Return where each arrow begins and ends, and each fold with its seconds.

    Time goes down, and there is room for all words.
    """
    longest = max(arrow.end - arrow.begin for arrow in arrows)
    scale = _LONGEST / longest if longest else 100.0
    # At the same time beginnings come first: an arrow cannot end before its own.
    moments = sorted(
        (moment, number, is_end)
        for number, arrow in enumerate(arrows)
        for is_end, moment in enumerate((arrow.begin, arrow.end))
    )
    begins, ends = [0.0] * len(arrows), [0.0] * len(arrows)
    folds = []
    bottom = last_begin = top - _APART
    used = {"client": top - _ROW, "server": top - _ROW}
    before = moments[0][0]
    for moment, number, is_end in moments:
        arrow, gap = arrows[number], moment - before
        y = bottom + min(gap * scale, _MOST)
        if gap > FOLD:
            y = max(bottom, *used.values()) + 52
            folds.append((y - 42, gap))
        before = moment
        side = "client" if (arrow.direction == REQUEST) != is_end else "server"
        if is_end:
            y = max(y, begins[number] + (_SLANT if arrow.direction else 0), used[side] + 5)
            ends[number] = y
        else:
            y = max(y, last_begin + _APART, used[side] + _ROW)
            begins[number] = last_begin = y
        used[side] = bottom = y
        if not arrow.direction:
            used = dict.fromkeys(used, y)
    return begins, ends, folds


def _lay_out_arrow(
    drawing: _Drawing, arrow: Arrow, top: float, bottom: float, start: float
) -> None:
    drawing.say(_Words(20, top + 4, f"{arrow.begin - start:.3f} s", size=11))
    if not arrow.direction:
        drawing.say(_Words(_MIDDLE, top + 4, arrow.words, "middle", 11))
        return
    begin, goal = (_CLIENT, _SERVER) if arrow.direction == REQUEST else (_SERVER, _CLIENT)
    _arrow(drawing, (begin, top), (goal, bottom), arrow.actions)
    number = f"{arrow.number}  " if arrow.number else ""
    anchor, x = ("start", begin + 10) if goal > begin else ("end", begin - 10)
    drawing.say(_Words(x, top - 4, number + arrow.text, anchor))
    drawing.say(_Words(_SERVER + 16, top + 4, arrow.words, size=11))


def _arrow(
    drawing: _Drawing, begin: tuple[float, float], goal: tuple[float, float], actions: Sequence[str]
) -> None:
    """Draw one arrow with the shapes of all that was done to it."""
    (x1, y1), (x2, y2) = begin, goal
    style = next((word for word in _STYLES if word in actions), "arrow")
    across, down = x2 - x1, y2 - y1

    def at(part: float) -> tuple[float, float]:
        return x1 + part * across, y1 + part * down

    sideways = 1 if across > 0 else -1
    if "lost" in actions:
        x, y = at(0.5)
        drawing.lines += [
            _Path([begin, (x, y)], style),
            _Path([(x - 6, y - 6), (x + 6, y + 6)], "mark"),
            _Path([(x - 6, y + 6), (x + 6, y - 6)], "mark"),
        ]
    else:
        drawing.lines.append(_Path([begin, goal], style))
        for back in (0, 11) if "duplicated" in actions else (0,):
            x, y = x2 - sideways * back, y2 - back * abs(down / across)
            tail = x - sideways * 11
            drawing.shapes.append(_Path([(x, y), (tail, y - 5), (tail, y + 5)], style))
    if "corrupted" in actions:
        x, y = at(0.36)
        diamond = [(x - 7, y), (x, y - 7), (x + 7, y), (x, y + 7)]
        drawing.shapes.append(_Path(diamond, "corrupted"))
    if "reordered" in actions:
        x, y = at(0.25)
        ring = [(x + 6 * cos(n * pi / 8), y + 6 * sin(n * pi / 8)) for n in range(16)]
        drawing.shapes.append(_Path(ring, "reordered", filled=False))


# SVG


def _css() -> str:
    rules = [
        "svg{font-family:'DejaVu Sans',Verdana,sans-serif}polygon{stroke-width:1.4}"
        "text{fill:#111;paint-order:stroke;stroke:#fff;stroke-width:3px}"
    ]
    for name, style in _STYLES.items():
        dashes = f";stroke-dasharray:{' '.join(map(str, style.dashes))}" if style.dashes else ""
        rules.append(f"line.{name}{{stroke:{style.colour};stroke-width:{style.width}{dashes}}}")
        rules.append(f"polygon.{name}{{stroke:{style.colour};fill:{style.colour}}}")
    return "".join([*rules, "polygon.hollow{fill:#fff}"])


def _svg(drawing: _Drawing) -> Iterator[str]:
    for line in drawing.lines:
        (x1, y1), (x2, y2) = line.points
        ends = f'x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"'
        yield f'<line class="{line.style}" {ends}/>'
    for shape in drawing.shapes:
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in shape.points)
        hollow = "" if shape.filled else " hollow"
        yield f'<polygon class="{shape.style}{hollow}" points="{points}"/>'
    for words in drawing.words:
        bold = ' font-weight="bold"' if words.bold else ""
        yield (
            f'<text x="{words.x:.1f}" y="{words.y:.1f}" font-size="{words.size:g}" '
            f'text-anchor="{words.anchor}"{bold}>{escape(words.text)}</text>'
        )


# PDF and PNG


def _pages(drawing: _Drawing) -> Iterator[tuple[float, float]]:
    """Return the pages' tops and bottoms; no page ends within a line of text."""
    rows = {int(words.y) for words in drawing.words}
    top, height = 0.0, drawing.width * _PAGE
    while top < drawing.height:
        bottom = top + height
        while bottom < drawing.height and any(int(bottom) + y in rows for y in range(-4, 11)):
            bottom -= 1
            if bottom < top + height / 2:
                bottom = top + height
                break
        yield top, bottom
        top = bottom


def _figure(drawing: _Drawing, top: float, bottom: float) -> Any:
    """Return a figure of what is between two heights, a pixel of the drawing being a point."""
    from matplotlib.collections import LineCollection, PolyCollection
    from matplotlib.figure import Figure

    figure = Figure(figsize=(drawing.width / 72, (bottom - top) / 72))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, drawing.width), ylim=(bottom, top))
    axes.axis("off")

    def seen(paths: Sequence[_Path]) -> list[_Path]:
        heights = ((each, [y for _, y in each.points]) for each in paths)
        return [each for each, ys in heights if max(ys) >= top and min(ys) <= bottom]

    lines, shapes = seen(drawing.lines), seen(drawing.shapes)
    styles = [_STYLES[each.style] for each in lines]
    axes.add_collection(
        LineCollection(
            [each.points for each in lines],
            colors=[style.colour for style in styles],
            linewidths=[style.width for style in styles],
            linestyles=[(0, [n / style.width for n in style.dashes] or None) for style in styles],
        )
    )
    axes.add_collection(
        PolyCollection(
            [each.points for each in shapes],
            facecolors=[_STYLES[each.style].colour if each.filled else "white" for each in shapes],
            edgecolors=[_STYLES[each.style].colour for each in shapes],
            zorder=3,
        )
    )
    anchors = {"start": "left", "middle": "center", "end": "right"}
    for words in drawing.words:
        if top <= words.y <= bottom:
            axes.text(
                words.x,
                words.y,
                words.text,
                fontsize=words.size,
                horizontalalignment=anchors[words.anchor],
                fontweight="bold" if words.bold else "normal",
                color="#111111",
                # Letters with an edge would be shapes in a PDF, where nobody finds a word.
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 0},
                zorder=4,
            )
    return figure
