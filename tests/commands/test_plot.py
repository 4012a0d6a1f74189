"""The pictures of ping and bench: SVG, PNG and PDF files.

All tests that draw them are here, so that few processes have to load the library.
"""

import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from unittest import mock
from xml.etree import ElementTree

import pytest

from tests.client.servers import drop, free_port, tcp_server, udp_server
from tests.commands.command import environment, run
from uppercase.__main__ import main
from uppercase.client.target import Target
from uppercase.commands._options import ANY_PATH, try_to_write
from uppercase.commands._report import histogram, save_plot, throughput
from uppercase.commands.ping import save_plot as ping_plot
from uppercase.commands.ping._tracker import Finding, Totals, Verdict

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SVG = "{http://www.w3.org/2000/svg}"


def bench_plot(
    path: Path,
    rates: Sequence[tuple[float, float]],
    latencies: Mapping[float, int],
    losses: str = "",
    percentiles: str = "",
) -> "Figure":
    bars = histogram(latencies, "latency in ms", percentiles)
    return save_plot(path, "bench", "", [throughput(rates, losses), *bars])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "drawing.svg"


def texts(path: Path) -> list[str]:
    document = ElementTree.fromstring(path.read_text("utf-8"))
    return [element.text or "" for element in document.iter(f"{SVG}text")]


def reply(seq: int, rtt: float, reordered: bool = False) -> Finding:
    return Finding(Verdict.REPLY, seq, 64, rtt, reordered)


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
    Finding(Verdict.LOST, 4),
    Finding(Verdict.WRONG, 5, 64, 0.001),
    Finding(Verdict.LOST, 6),
    Finding(Verdict.LATE, 6, 64, 1.5),
    Finding(Verdict.DUPLICATE, 3, 64, 0.003),
]


def test_ping_shows_replies_and_losses(tmp_path: Path) -> None:
    path = tmp_path / "rtt.svg"
    with udp_server(drop(2)) as server:
        run("ping", "-u", "-c", "5", "-i", "10ms", "-W", "1s", "--plot", str(path), server.address)
    drawing = path.read_text()
    assert "5 transmitted, 4 received, 1 lost" in drawing
    assert ">lost</text>" in drawing


@pytest.mark.parametrize("command", ["ping", "bench"])
def test_where_nothing_can_be_measured_no_picture_is_left(command: str, tmp_path: Path) -> None:
    path = tmp_path / "rtt.svg"
    assert run(command, "--plot", str(path), f":{free_port()}").status == 1
    assert not path.exists()


def test_whether_a_file_can_be_written_is_asked_of_the_file_and_of_no_pipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pipe's reader would be waited for, and see an end of what has not begun."""
    file, pipe = tmp_path / "file", tmp_path / "pipe"
    file.touch()
    os.mkfifo(pipe)
    monkeypatch.setattr(Path, "open", mock.Mock(side_effect=PermissionError))
    try_to_write(pipe)
    with pytest.raises(PermissionError):
        try_to_write(file)


def test_a_path_that_somebody_else_opens_is_no_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    """A program's argument may be the name of a file that only the program can read."""
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert ANY_PATH.convert(__file__, None, None) == __file__


def test_bench_shows_throughput_and_latencies(tmp_path: Path) -> None:
    path = tmp_path / "bench.svg"
    with tcp_server() as server:
        run("bench", "--duration=100ms", "--plot", str(path), server.address)
    drawing = path.read_text()
    assert "Throughput" in drawing
    assert "latency in ms" in drawing


def test_what_went_wrong_is_marked_each_with_its_own_shape(path: Path) -> None:
    drawing = ping_plot(path, Target(udp=True), FOUND, totals_of(*FOUND))
    shown = texts(path)
    kinds = ["reply", "reordered", "duplicate", "late", "wrong", "lost"]
    assert {*kinds, "Histogram"} <= set(shown)
    lines = drawing.axes[0].lines
    assert [line.get_label() for line in lines] == kinds
    assert len({line.get_marker() for line in lines}) == len(kinds)
    numbers = [[int(number) for number in line.get_xdata()] for line in lines]  # type: ignore[union-attr,arg-type]
    assert numbers == [[1, 3, 2], [2], [3], [6], [5], [4]]


def test_a_probe_that_was_late_is_not_drawn_as_lost(path: Path) -> None:
    found = [reply(1, 0.001), Finding(Verdict.LOST, 2), Finding(Verdict.LATE, 2, 64, 1.5)]
    ping_plot(path, Target(), found, totals_of(*found))
    assert "lost" not in texts(path)


def test_nothing_received_still_gives_a_picture(path: Path) -> None:
    found = [Finding(Verdict.LOST, 1)]
    drawing = ping_plot(path, Target(), found, totals_of(*found))
    assert "Round trips" in texts(path)
    assert all(tick.is_integer() for tick in drawing.axes[0].get_xticks()), "no probe is 0.98"
    bench_plot(path, [], {})
    assert "Throughput" in texts(path)


def test_a_file_stays_small_however_long_the_measurement(path: Path) -> None:
    found = [
        reply(index, (index * 7919 % 1000) / 1000) if index % 3 else Finding(Verdict.LOST, index)
        for index in range(1, 20_000)
    ]
    ping_plot(path, Target(), found, totals_of(*found))
    assert path.stat().st_size < 1_000_000


@pytest.mark.parametrize("ending", [".svg", ".png", ".pdf"])
def test_names_cannot_break_the_file(ending: str, tmp_path: Path) -> None:
    name = '/tmp/<&">$\\frac{]]>$\x1b\n\ud800\u4e2d'
    path = tmp_path / f"drawing{ending}"
    ping_plot(path, Target(unix=name), FOUND, totals_of(*FOUND))
    if ending == ".svg":
        assert any('<&">$\\frac{]]>$' in text for text in texts(path))


@pytest.mark.parametrize(("ending", "start"), [(".png", b"\x89PNG"), (".PDF", b"%PDF")])
def test_the_ending_of_the_name_decides_what_is_written(
    ending: str, start: bytes, tmp_path: Path
) -> None:
    path = tmp_path / f"drawing{ending}"
    bench_plot(path, [(1.0, 100.0)], {0.001: 5})
    assert path.read_bytes().startswith(start)


def test_equal_measurements_give_equal_files_that_say_what_they_show(path: Path) -> None:
    ping_plot(path, Target(), FOUND, totals_of(*FOUND))
    one = path.read_text("utf-8")
    ping_plot(path, Target(), FOUND, totals_of(*FOUND))
    assert one == path.read_text("utf-8")
    assert re.search(r"<dc:title>ping TCP .*</dc:title>", one)
    assert re.search(r"<dc:description>8 transmitted, .*</dc:description>", one)


def test_the_paper_is_white_so_that_light_and_dark_pages_show_the_same(path: Path) -> None:
    drawing = ping_plot(path, Target(), FOUND, totals_of(*FOUND))
    assert drawing.get_facecolor() == (1.0, 1.0, 1.0, 1.0)


@pytest.mark.parametrize("samples", [{0.001: 5}, {0.001: 5, 0.5: 1}])
def test_latencies_are_drawn_as_bars(samples: dict[float, int], path: Path) -> None:
    drawing = bench_plot(path, [(1.0, 100.0), (2.0, 120.0)], samples)
    assert "latency in ms" in texts(path)
    heights = [bar.get_height() for bar in drawing.axes[1].patches]  # type: ignore[attr-defined]
    assert sum(heights) == sum(samples.values())


def test_a_plot_of_bench_says_what_was_lost_and_the_percentiles(path: Path) -> None:
    shown = ("3 lost, 0 late", "p50/p99 = 1.000/2.000 ms")
    bench_plot(path, [(1.0, 100.0)], {0.001: 5}, *shown)
    assert set(shown) <= set(texts(path))


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
        f"from uppercase.__main__ import main; sys.exit(main(['ping', '--plot={path}']))"
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
