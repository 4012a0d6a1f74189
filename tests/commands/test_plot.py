"""The pictures of ping and bench: SVG, PNG and PDF files.

All tests that draw them are here, so that few processes have to load the library.
"""

import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

import pytest

from tests.client.servers import drop, tcp_server, udp_server
from tests.commands.command import environment, run
from uppercase.client.target import Target
from uppercase.commands import main
from uppercase.commands.ping._tracker import Finding, Kind, Totals

if TYPE_CHECKING:
    from uppercase.commands._plots import Drawing

SVG = "{http://www.w3.org/2000/svg}"


def ping_plot(*arguments: Any) -> "Drawing":
    # Imported here: its library takes more than a second of each process that collects the tests.
    from uppercase.commands import _plots

    return _plots.ping_plot(*arguments)


def bench_plot(*arguments: Any) -> "Drawing":
    from uppercase.commands import _plots

    return _plots.bench_plot(*arguments)


def svg(drawing: "Drawing", folder: Path) -> str:
    path = folder / "drawing.svg"
    drawing.save(path)
    return path.read_text(encoding="utf-8")


def texts(document: str) -> list[str]:
    return [element.text or "" for element in ElementTree.fromstring(document).iter(f"{SVG}text")]


def reply(seq: int, rtt: float, reordered: bool = False) -> Finding:
    return Finding(Kind.REPLY, seq, 64, rtt, reordered)


def totals_of(*findings: Finding) -> Totals:
    totals = Totals(transmitted=len(findings))
    for finding in findings:
        if finding.rtt is not None:
            totals.rtt.record(finding.rtt)
    return totals


FOUND = [
    reply(1, 0.001),
    reply(3, 0.002),
    reply(2, 0.004, reordered=True),
    Finding(Kind.LOST, 4),
    Finding(Kind.WRONG, 5, 64, 0.001),
    Finding(Kind.LOST, 6),
    Finding(Kind.LATE, 6, 64, 1.5),
    Finding(Kind.DUPLICATE, 3, 64, 0.003),
]


def test_ping_shows_replies_and_losses(tmp_path: Path) -> None:
    path = tmp_path / "rtt.svg"
    with udp_server(drop(2)) as server:
        run("ping", "-u", "-c", "5", "-i", "10ms", "-W", "1s", "--plot", str(path), server.address)
    drawing = path.read_text()
    assert "5 transmitted, 4 received, 1 lost" in drawing
    assert ">lost</text>" in drawing


def test_bench_shows_throughput_and_latencies(tmp_path: Path) -> None:
    path = tmp_path / "bench.svg"
    with tcp_server() as server:
        run("bench", "--duration=100ms", "--plot", str(path), server.address)
    drawing = path.read_text()
    assert "Throughput" in drawing
    assert "latency in ms" in drawing


def test_what_went_wrong_is_marked_each_with_its_own_shape(tmp_path: Path) -> None:
    drawing = ping_plot(Target(udp=True), FOUND, totals_of(*FOUND))
    shown = texts(svg(drawing, tmp_path))
    kinds = ["reply", "reordered", "duplicate", "late", "wrong", "lost"]
    assert {*kinds, "Histogram"} <= set(shown)
    lines = drawing.figure.axes[0].lines
    assert [line.get_label() for line in lines] == kinds
    assert len({line.get_marker() for line in lines}) == len(kinds)
    numbers = [[int(number) for number in line.get_xdata()] for line in lines]  # type: ignore[union-attr,arg-type]
    assert numbers == [[1, 3, 2], [2], [3], [6], [5], [4]]


def test_a_probe_that_was_late_is_not_drawn_as_lost(tmp_path: Path) -> None:
    found = [reply(1, 0.001), Finding(Kind.LOST, 2), Finding(Kind.LATE, 2, 64, 1.5)]
    assert "lost" not in texts(svg(ping_plot(Target(), found, totals_of(*found)), tmp_path))


def test_nothing_received_still_gives_a_picture(tmp_path: Path) -> None:
    found = [Finding(Kind.LOST, 1)]
    assert "Round trips" in texts(svg(ping_plot(Target(), found, totals_of(*found)), tmp_path))
    assert "Throughput" in texts(svg(bench_plot("bench", "", [], {}), tmp_path))


def test_a_file_stays_small_however_long_the_measurement(tmp_path: Path) -> None:
    found = [
        reply(index, (index * 7919 % 1000) / 1000) if index % 3 else Finding(Kind.LOST, index)
        for index in range(1, 20_000)
    ]
    assert len(svg(ping_plot(Target(), found, totals_of(*found)), tmp_path)) < 1_000_000


@pytest.mark.parametrize("ending", [".svg", ".png", ".pdf"])
def test_names_cannot_break_the_file(ending: str, tmp_path: Path) -> None:
    name = '/tmp/<&">$\\frac{]]>$\x1b\n\ud800\u4e2d'
    path = tmp_path / f"drawing{ending}"
    drawing = ping_plot(Target(unix=name), FOUND, totals_of(*FOUND))
    drawing.save(path)
    if ending == ".svg":
        assert any('<&">$\\frac{]]>$' in text for text in texts(path.read_text("utf-8")))


@pytest.mark.parametrize(("ending", "start"), [(".png", b"\x89PNG"), (".PDF", b"%PDF")])
def test_the_ending_of_the_name_decides_what_is_written(
    ending: str, start: bytes, tmp_path: Path
) -> None:
    path = tmp_path / f"drawing{ending}"
    bench_plot("bench", "", [(1.0, 100.0)], {0.001: 5}).save(path)
    assert path.read_bytes().startswith(start)


def test_equal_measurements_give_equal_files_that_say_what_they_show(tmp_path: Path) -> None:
    one, other = (svg(ping_plot(Target(), FOUND, totals_of(*FOUND)), tmp_path) for _ in range(2))
    assert one == other
    assert re.search(r"<dc:title>ping TCP .*</dc:title>", one)
    assert re.search(r"<dc:description>8 transmitted, .*</dc:description>", one)


def test_the_paper_is_white_so_that_light_and_dark_pages_show_the_same() -> None:
    drawing = ping_plot(Target(), FOUND, totals_of(*FOUND))
    assert drawing.figure.get_facecolor() == (1.0, 1.0, 1.0, 1.0)


@pytest.mark.parametrize("samples", [{0.001: 5}, {0.001: 5, 0.5: 1}])
def test_latencies_are_drawn_as_bars(samples: dict[float, int], tmp_path: Path) -> None:
    drawing = bench_plot("bench", "", [(1.0, 100.0), (2.0, 120.0)], samples)
    assert "latency in ms" in texts(svg(drawing, tmp_path))
    heights = [bar.get_height() for bar in drawing.figure.axes[1].patches]  # type: ignore[attr-defined]
    assert sum(heights) == sum(samples.values())


def test_a_plot_of_bench_says_what_was_lost_and_the_percentiles(tmp_path: Path) -> None:
    shown = ("3 lost, 0 late", "p50/p99 = 1.000/2.000 ms")
    drawing = bench_plot("bench", "", [(1.0, 100.0)], {0.001: 5}, *shown)
    assert set(shown) <= set(texts(svg(drawing, tmp_path)))


@pytest.mark.parametrize("command", ["ping", "bench"])
@pytest.mark.parametrize("name", ["rtt.gif", "rtt", ".svg"])
def test_another_ending_is_a_sentence(
    command: str, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([command, f"--plot={name}"]) == 2
    sentence = "the name of an SVG, PNG or PDF file, such as rtt.svg, is accepted"
    assert capsys.readouterr().err == f"uppercase: got --plot={name}; {sentence}\n"


def test_without_its_library_a_plot_is_a_sentence_and_nothing_is_measured(tmp_path: Path) -> None:
    path = tmp_path / "rtt.svg"
    code = (
        "import sys; from importlib import util; find = util.find_spec; "
        "util.find_spec = lambda name, *rest: None if name == 'matplotlib' else find(name, *rest); "
        f"from uppercase.commands import main; sys.exit(main(['ping', '--plot={path}']))"
    )
    outcome = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, env=environment(), check=False
    )
    assert outcome.stderr.decode() == (
        "uppercase: --plot needs the matplotlib library; install it: "
        "pip install 'twisted-uppercase[plots]'\n"
    )
    assert outcome.returncode == 2
    assert not path.exists()
