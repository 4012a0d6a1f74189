"""A small SVG writer: panels with axes, points, bars, a line and marks.

Written by ourselves because the libraries cost more than they give here: matplotlib installs over
100 MB, pygal's files load scripts from the network, svgwrite is no longer kept. The files are
self-contained, follow the viewer's light or dark preference, and tell kinds apart by shape as well
as by colour. Points that fall on one spot are drawn once, so that a file stays small however long
the measurement was.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final
from xml.sax.saxutils import escape

__all__ = ["Bars", "Layer", "Line", "Marks", "Panel", "Points", "draw", "ticks"]

_WIDTH: Final = 800
_LEFT, _RIGHT, _TOP, _BOTTOM = 72, 20, 34, 48  # around the area of each panel
_HEADER: Final = 64
_STYLE: Final = """
svg{font:13px system-ui,sans-serif}
.paper{fill:#fff}.ink{fill:#1f2328}.dim{fill:#59636e}
.axis{stroke:#59636e;fill:none}.grid{stroke:#d8dee4;fill:none}
.a{fill:#0969da;stroke:#0969da}.b{fill:#cf222e;stroke:#cf222e}
.c{fill:#9a6700;stroke:#9a6700}.d{fill:#8250df;stroke:#8250df}
.line{fill:none;stroke-width:1.5}.mark{fill:none;stroke-width:1.8}.points{stroke:none}
@media (prefers-color-scheme:dark){
.paper{fill:#0d1117}.ink{fill:#f0f6fc}.dim{fill:#9198a1}
.axis{stroke:#9198a1}.grid{stroke:#30363d}
.a{fill:#58a6ff;stroke:#58a6ff}.b{fill:#ff7b72;stroke:#ff7b72}
.c{fill:#d29922;stroke:#d29922}.d{fill:#bc8cff;stroke:#bc8cff}
.line,.mark{fill:none}.points{stroke:none}}
"""
_SHAPES: Final = {
    "dot": "m-2,0a2,2 0 1,0 4,0a2,2 0 1,0 -4,0",
    "ring": "m-4,0a4,4 0 1,0 8,0a4,4 0 1,0 -8,0",
    "cross": "m-4,-4l8,8m0,-8l-8,8",
    "triangle": "m-4.5,3.5h9l-4.5,-8z",
    "square": "m-3.5,-3.5h7v7h-7z",
}


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Return round numbers (1, 2 or 5 times a power of ten) from `low` to `high`."""
    if high <= low:
        return [low]
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(index * step, 12) for index in range(first, last + 1)]


@dataclass(frozen=True, slots=True)
class Points:
    """A cloud of points, `colour` being `a`, `b`, `c` or `d`."""

    xy: Sequence[tuple[float, float]]
    label: str
    colour: str = "a"
    shape: str = "dot"


@dataclass(frozen=True, slots=True)
class Marks:
    """Things that have an x but no y, drawn on the upper edge of the panel."""

    x: Sequence[float]
    label: str
    colour: str = "b"
    shape: str = "cross"


@dataclass(frozen=True, slots=True)
class Line:
    """A line through points, from left to right."""

    xy: Sequence[tuple[float, float]]
    label: str
    colour: str = "a"


@dataclass(frozen=True, slots=True)
class Bars:
    """Bars of equal width, one at each whole x from 0."""

    heights: Sequence[float]
    label: str
    colour: str = "a"


Layer = Points | Marks | Line | Bars


@dataclass(frozen=True, slots=True)
class Panel:
    """One pair of axes and what is drawn on them.

    Attributes:
        title: what stands above it.
        x_title: what x is, with its unit.
        y_title: what y is, with its unit.
        layers: what to draw, the last on top.
        x_labels: instead of numbers, what stands at an x.
        height: of the area, in pixels.
    """

    title: str
    x_title: str
    y_title: str
    layers: Sequence[Layer]
    x_labels: Sequence[tuple[float, str]] = field(default=())
    height: int = 240


@dataclass(frozen=True, slots=True)
class _Scale:
    """Maps values to pixels."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        part = (value - self.low) / (self.high - self.low)
        return round(self.start + part * (self.end - self.start), 1)


def draw(title: str, subtitle: str, panels: Iterable[Panel]) -> str:
    """Return a whole SVG document, the panels one below the other."""
    parts: list[str] = []
    top = _HEADER
    for panel in panels:
        parts += _panel(panel, top + _TOP)
        top += _TOP + panel.height + _BOTTOM
    height = top + 12
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" '
            f'width="{_WIDTH}" height="{height}" role="img" aria-label="{_quoted(title)}">',
            f"<title>{escape(title)}</title><desc>{escape(subtitle)}</desc>",
            f"<style>{_STYLE}</style>",
            f'<rect class="paper" width="{_WIDTH}" height="{height}"/>',
            _text(16, 28, title, "ink", extra=' font-size="18" font-weight="600"'),
            _text(16, 50, subtitle, "dim"),
            *parts,
            "</svg>\n",
        ]
    )


def _panel(panel: Panel, top: float) -> list[str]:
    bottom, right = top + panel.height, _WIDTH - _RIGHT
    x = _Scale(*_x_range(panel.layers), _LEFT, right)
    y = _Scale(0.0, _y_top(panel.layers), bottom, top)
    parts = [_text(_LEFT, top - 12, panel.title, "ink", extra=' font-weight="600"')]
    for value in ticks(0.0, y.high):
        parts.append(f'<path class="grid" d="M{_LEFT},{y(value)}H{right}"/>')
        parts.append(_text(_LEFT - 8, y(value) + 4, f"{value:g}", "dim", "end"))
    labels = panel.x_labels or [(value, f"{value:g}") for value in ticks(x.low, x.high, 8)]
    for value, label in labels:
        parts.append(f'<path class="axis" d="M{x(value)},{bottom}v5"/>')
        parts.append(_text(x(value), bottom + 19, label, "dim", "middle"))
    parts += [_layer(layer, x, y) for layer in panel.layers]
    parts.append(f'<path class="axis" d="M{_LEFT},{top}V{bottom}H{right}"/>')
    parts.append(_text((_LEFT + right) / 2, bottom + 38, panel.x_title, "dim", "middle"))
    middle = (top + bottom) / 2
    turned = f' transform="rotate(-90 18 {middle:g})"'
    parts.append(_text(18, middle, panel.y_title, "dim", "middle", turned))
    # One layer needs no legend: the axes say what it is.
    return parts + (_legend(panel.layers, right, top - 16) if len(panel.layers) > 1 else [])


def _layer(layer: Layer, x: _Scale, y: _Scale) -> str:
    if isinstance(layer, Bars):
        rects = "".join(
            f"M{x(index) + 0.5:g},{y(0)}V{y(height)}H{x(index + 1) - 0.5:g}V{y(0)}z"
            for index, height in enumerate(layer.heights)
            if height
        )
        return f'<path class="{layer.colour} points" d="{rects}"/>'
    if isinstance(layer, Line):
        path = "L".join(f"{x(a):g},{y(b):g}" for a, b in layer.xy)
        return f'<path class="{layer.colour} line" d="M{path}"/>' if path else ""
    shape = _SHAPES[layer.shape]
    if isinstance(layer, Points):
        spots = {(round(x(a)), round(y(b))) for a, b in layer.xy}
    else:
        # On the upper edge, where no point can be: the scale leaves room above the highest.
        spots = {(round(x(a)), round(y.end) + 6) for a in layer.x}
    path = "".join(f"M{a},{b}{shape}" for a, b in sorted(spots))
    return f'<path class="{layer.colour} {_fill(layer.shape)}" d="{path}"/>'


def _legend(layers: Sequence[Layer], right: float, baseline: float) -> list[str]:
    """Return the labels, from the right edge to the left, each after its shape."""
    parts: list[str] = []
    end = right
    for layer in reversed(layers):
        parts.append(_text(end, baseline + 4, layer.label, "dim", "end"))
        end -= 7.2 * len(layer.label) + 12
        shape = "square" if isinstance(layer, Bars | Line) else layer.shape
        kind = "points" if isinstance(layer, Bars | Line) else _fill(shape)
        at = f"M{end:g},{baseline:g}"
        parts.append(f'<path class="{layer.colour} {kind}" d="{at}{_SHAPES[shape]}"/>')
        end -= 18
    return parts


def _fill(shape: str) -> str:
    return "points" if shape == "dot" else "mark"


def _x_range(layers: Sequence[Layer]) -> tuple[float, float]:
    values: list[float] = []
    for layer in layers:
        if isinstance(layer, Bars):
            values += (0, len(layer.heights))
        elif isinstance(layer, Marks):
            values += layer.x
        else:
            values += (a for a, _ in layer.xy)
    low, high = min(values, default=0.0), max(values, default=1.0)
    return (low, high) if low < high else (low - 0.5, high + 0.5)


def _y_top(layers: Sequence[Layer]) -> float:
    values = [0.0]
    for layer in layers:
        if isinstance(layer, Bars):
            values += layer.heights
        elif not isinstance(layer, Marks):
            values += (b for _, b in layer.xy)
    room = 1.12 if any(isinstance(layer, Marks) for layer in layers) else 1.05
    return max(values) * room or 1.0


def _text(x: float, y: float, text: str, style: str, anchor: str = "start", extra: str = "") -> str:
    return (
        f'<text class="{style}" x="{x:g}" y="{y:g}" text-anchor="{anchor}"{extra}>'
        f"{escape(text)}</text>"
    )


def _quoted(text: str) -> str:
    return escape(text, {'"': "&quot;"})
