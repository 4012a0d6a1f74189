"""The pictures of ping and bench: SVG files that anything can show."""

import re
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uppercase.client.target import Target
from uppercase.commands._plots import bench_plot, ping_plot
from uppercase.commands._svg_plot import Line, Marks, Panel, Points, draw, ticks
from uppercase.commands.ping._tracker import Finding, Kind, Totals

SVG = "{http://www.w3.org/2000/svg}"


def texts(drawing: str) -> list[str]:
    return [element.text or "" for element in ElementTree.fromstring(drawing).iter(f"{SVG}text")]


def reply(seq: int, rtt: float, reordered: bool = False) -> Finding:
    return Finding(Kind.REPLY, seq, 64, rtt, reordered)


def totals_of(*findings: Finding) -> Totals:
    totals = Totals(transmitted=len(findings))
    for finding in findings:
        if finding.rtt is not None:
            totals.rtt.record(finding.rtt)
    return totals


@given(st.floats(0, 1e6), st.floats(1e-6, 1e6))
def test_ticks_are_few_round_numbers_within_the_range(low: float, width: float) -> None:
    result = ticks(low, low + width)
    assert 1 <= len(result) <= 12
    assert all(low - width * 1e-6 <= value <= low + width * (1 + 1e-6) for value in result)


def test_what_went_wrong_is_marked_each_with_its_own_shape() -> None:
    found = [
        reply(1, 0.001),
        reply(3, 0.002),
        reply(2, 0.004, reordered=True),
        Finding(Kind.LOST, 4),
        Finding(Kind.WRONG, 5, 64, 0.001),
        Finding(Kind.LOST, 6),
        Finding(Kind.LATE, 6, 64, 1.5),
    ]
    drawing = ping_plot(Target(udp=True), found, totals_of(*found))
    shown = texts(drawing)
    assert {"reply", "reordered", "lost", "late", "wrong", "Histogram"} <= set(shown)
    shapes = re.findall(r'class="(\w) mark" d="([^"]+)"', drawing)
    assert len({re.sub(r"M[\d.,-]+", "", path) for _, path in shapes}) == 4


def test_a_probe_that_was_late_is_not_drawn_as_lost() -> None:
    found = [reply(1, 0.001), Finding(Kind.LOST, 2), Finding(Kind.LATE, 2, 64, 1.5)]
    assert "lost" not in texts(ping_plot(Target(), found, totals_of(*found)))


def test_nothing_received_still_gives_a_picture() -> None:
    found = [Finding(Kind.LOST, 1)]
    assert "Round trips" in texts(ping_plot(Target(), found, totals_of(*found)))
    assert "Throughput" in texts(bench_plot("bench", "", [], {}))


def test_a_file_stays_small_however_long_the_measurement() -> None:
    points = [(float(index), (index * 7919 % 1000) / 1000) for index in range(100_000)]
    lost = [float(index) for index in range(0, 100_000, 3)]
    drawing = draw("long", "", [Panel("p", "x", "y", [Points(points, "a"), Marks(lost, "b")])])
    assert len(drawing) < 8_000_000
    short = draw("long", "", [Panel("p", "x", "y", [Marks(lost, "b")])])
    assert len(short) < 60_000


def test_names_cannot_break_the_file() -> None:
    drawing = draw('<&">', "]]>", [Panel("<b>", "&", '"', [Line([(0, 0), (1, 1)], "<")])])
    assert '<&">' in texts(drawing)


def test_the_picture_follows_the_viewers_light_or_dark_preference() -> None:
    drawing = ping_plot(Target(), [reply(1, 0.001)], totals_of(reply(1, 0.001)))
    light, dark = drawing.split("@media (prefers-color-scheme:dark)")
    for name in ("paper", "ink", "dim", "axis", "grid", "a", "b", "c", "d"):
        assert f".{name}{{" in light
        assert f".{name}{{" in dark


@pytest.mark.parametrize("samples", [{0.001: 5}, {0.001: 5, 0.5: 1}])
def test_latencies_are_drawn_as_bars(samples: dict[float, int]) -> None:
    drawing = bench_plot("bench", "", [(1.0, 100.0), (2.0, 120.0)], samples)
    ElementTree.fromstring(drawing)
    assert "latency in ms" in texts(drawing)
