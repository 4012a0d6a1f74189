"""What ping and bench share in their output: NDJSON, phrases, histograms, pictures (`--plot`).

Pictures are drawn by matplotlib, without pyplot and so without a display; it loads slowly, so it is
imported only if one is asked for. The background is always white: the same colours then read well
on a light page and on a dark one. Kinds differ in shape as well as in colour.
"""

import json
import math
import warnings
from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from uppercase.commands._options import FILE, require_matplotlib, try_to_write
from uppercase.commands.group import Function, section
from uppercase.core.values import printable
from uppercase.errors import UserError, install

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SCHEMA: Final = 1
"""The version of the objects: it grows when a key changes its meaning or is removed."""

_EXCERPT: Final = 60
_BEFORE, _AFTER = 8, 24  # bytes shown around the first difference
_DECADE: Final = 10


def print_object(kind: str, **fields: Any) -> None:
    """Print one line of NDJSON."""
    line = {"schema": SCHEMA, "type": kind, **fields}
    print(json.dumps(line), flush=True)


def excerpt(data: bytes) -> str:
    r"""Return the beginning of some bytes as text; what is not UTF-8 is shown as `\xNN`."""
    text = data[:_EXCERPT].decode("utf-8", "backslashreplace")
    return text + "..." if len(data) > _EXCERPT else text


def _quoted(data: bytes) -> str:
    return f"'{printable(excerpt(data))}'"


def difference(got: bytes, expected: bytes) -> str:
    """Return the rest of a sentence about a wrong reply: where it differs, and how."""
    if not expected:
        return f" was {_quoted(got)}; no probe was awaiting one"
    pairs = enumerate(zip(got, expected, strict=False))
    at = next((at for at, (a, b) in pairs if a != b), min(len(got), len(expected)))
    shown = slice(max(0, at - _BEFORE), at + _AFTER)
    return f" differs at byte {at}: {_quoted(got[shown])} instead of {_quoted(expected[shown])}"


def in_words(counts: Any, names: Iterable[str]) -> str:
    """Return the counts of these names as `3 lost, 1 late`, and what is still awaited."""
    words = [f"{getattr(counts, name)} {name}" for name in names]
    return ", ".join([*words, f"{counts.pending} still awaited"] if counts.pending else words)


def in_a_row(values: Mapping[str, float], names: Sequence[str]) -> str:
    """Return the values of these names as `min/avg/max = 0.1/0.2/0.3 ms`."""
    numbers = "/".join(f"{values[name]:.3f}" for name in names)
    return f"{'/'.join(names).replace('_', '.')} = {numbers} ms"


def bins(counted: Mapping[float, int], number: int = 16) -> tuple[list[float], list[int]]:
    """Return the edges of bins, the last one's upper edge too, and how many samples are in each.

    They are of equal width, or of equal ratio where the samples, of which there are some, spread
    over more than a decade: a few slow replies would otherwise squeeze all others into one bar.
    """
    low, high = min(counted), max(counted)
    if low == high:
        number = 1
    if low > 0 and high / low > _DECADE:
        edges = [low * (high / low) ** (index / number) for index in range(number)]
    else:
        edges = [low + (high - low) * index / number for index in range(number)]
    heights = [0] * number
    for value, times in counted.items():
        heights[bisect_right(edges, value) - 1] += times
    return [*edges, high], heights


# Pictures

_ENDINGS: Final = (".svg", ".png", ".pdf")
BLUE, RED, BROWN, VIOLET = "#0969da", "#cf222e", "#9a6700", "#8250df"
_INK, _DIM, _GRID = "#1f2328", "#59636e", "#d8dee4"
_RC: Final[Any] = {
    "svg.fonttype": "none",  # text stays text, for search and screen readers
    "svg.hashsalt": "uppercase",  # equal measurements give equal files
    "pdf.fonttype": 42,
    "text.parse_math": False,  # a dollar sign in a path starts no formula
    "font.size": 9,
    "text.color": _INK,
    "axes.labelcolor": _DIM,
    "axes.edgecolor": _DIM,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.titlesize": 10,
    "grid.color": _GRID,
    "xtick.color": _DIM,
    "ytick.color": _DIM,
    "lines.linestyle": "none",
    "lines.markerfacecolor": "none",
    "legend.frameon": False,
    "legend.labelcolor": _DIM,
}
_BINS: Final = 24

Panel = Callable[["Axes"], None]
"""Draws one diagram of a picture."""


def plot(text: str) -> Callable[[Function], Function]:
    """Return the decorator that passes `plot`, a path or None, to a command."""
    endings = ", ".join(_ENDINGS)
    return section("Output")("--plot", FILE, f"{text}  [{endings}]", callback=_check_plot)


def _check_plot(
    context: click.Context, parameter: click.Parameter, path: Path | None
) -> Path | None:
    """Refuse, before minutes of measuring, a file that could not be written afterwards."""
    if path is not None:
        if path.suffix.lower() not in _ENDINGS:
            raise UserError(
                f"got --plot={path}; the name of an SVG, PNG or PDF file, such as rtt.svg, "
                "is accepted"
            )
        require_matplotlib(f"--plot needs the matplotlib library; install it: {install('plots')}")
        try:
            try_to_write(path)
        except OSError as error:
            raise _cannot_write(path, error) from error
    return path


def _cannot_write(path: Path, error: OSError) -> UserError:
    return UserError(
        f"cannot write --plot={path}: {error.strerror}; name a file in a folder of yours"
    )


def save_plot(path: Path, title: str, description: str, panels: Sequence[Panel]) -> "Figure":
    """Write panels, one below the other, as SVG, PNG or PDF, by the ending of the name."""
    import matplotlib
    from matplotlib.figure import Figure

    # XML cannot hold all characters, and names come from outside.
    title, description = printable(title), printable(description)
    kind = path.suffix[1:].lower()
    # The time of writing would make equal drawings differ.
    by_kind: dict[str, dict[str, Any]] = {
        "svg": {"Title": title, "Description": description, "Date": None},
        "png": {"Title": title, "Description": description},
        "pdf": {"Title": title, "Subject": description, "CreationDate": None},
    }
    height = 1.0 + 2.6 * len(panels)
    with matplotlib.rc_context(_RC), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about letters of a name that no font has
        figure = Figure(figsize=(8, height), facecolor="white")
        for axes, draw in zip(
            figure.subplots(len(panels), squeeze=False)[:, 0], panels, strict=True
        ):
            draw(axes)
        figure.subplots_adjust(
            left=0.1, right=0.98, top=1 - 1.05 / height, bottom=0.5 / height, hspace=0.5
        )
        figure.text(0.02, 1 - 0.33 / height, title, fontsize=13, fontweight="bold")
        figure.text(0.02, 1 - 0.58 / height, description, color=_DIM)
        try:
            figure.savefig(path, format=kind, dpi=150, metadata=by_kind[kind])
        except OSError as error:
            raise _cannot_write(path, error) from error
    return figure


def histogram(counted: Mapping[float, int], x_title: str, note: str = "") -> list[Panel]:
    """Return the panel of how often each time, in seconds, occurred; none without samples."""

    def draw(axes: "Axes") -> None:
        # Few samples in many bins would look like a comb.
        edges, heights = bins(counted, min(_BINS, 2 * math.isqrt(sum(counted.values())) + 1))
        axes.set(title="Histogram", xlabel=x_title, ylabel="replies")
        axes.set_title(note, loc="right", color=_DIM, fontsize=9)
        axes.locator_params(axis="y", integer=True)
        # Bins of equal ratio look equally wide: the axis shows edges and is not a scale.
        axes.bar(range(len(heights)), heights, align="edge", width=0.95, color=BLUE)
        axes.set_xticks(range(0, len(edges), 3), [f"{edge * 1e3:.3g}" for edge in edges[::3]])

    return [draw] if counted else []


def throughput(rates: Sequence[tuple[float, float]], note: str = "") -> Panel:
    """Return the panel of messages a second, from each interval's end, in s, to the next."""

    def draw(axes: "Axes") -> None:
        axes.set(title="Throughput", xlabel="time in s", ylabel="messages/s")
        axes.set_title(note, loc="right", color=_DIM, fontsize=9)
        if rates:
            ends, heights = zip(*rates, strict=True)
            axes.stairs(heights, [0.0, *ends], color=BLUE, linewidth=1.5, baseline=None)
            axes.set_ylim(0, max(heights) * 1.05 or 1.0)

    return draw
