"""`uppercase fates`: the answer key that an instructor prints."""

import os
import sys
from unittest import mock

import pytest

from tests.commands.command import read_late, run
from uppercase.__main__ import main
from uppercase.lab import UDP_OPTIONS, UDP_PRESETS, answer_key, make_experiment

Capture = pytest.CaptureFixture[str]


def fates(capsys: Capture, *arguments: str) -> list[str]:
    assert main(["fates", *arguments]) == 0
    return capsys.readouterr().out.splitlines()


def test_it_prints_the_labs_own_key_a_line_a_datagram() -> None:
    outcome = run("fates", "--seed", "7", "--loss", "0.3", "-n", "50")
    experiment = make_experiment({"loss": "0.3"}, seed=7)
    assert outcome.stdout.decode().splitlines() == [str(row) for row in answer_key(experiment, 50)]
    assert b"request lost" in outcome.stdout
    assert outcome.status == 0


@pytest.mark.parametrize(
    ("stream", "arguments", "lines", "status"),
    [("stdout", ["fates", "--seed=7", "-n9000"], 9000, 0), ("stderr", ["?"], 1, 2)],
)
def test_a_stream_that_somebody_made_non_blocking_loses_no_line(
    stream: str, arguments: list[str], lines: int, status: int
) -> None:
    with read_late() as (writer, received):
        filled = os.write(writer, bytes(1 << 20))
        with open(writer, "w", closefd=False) as pipe, mock.patch.object(sys, stream, pipe):
            assert main(arguments) == status
    assert received[0].count(b"\n", filled) == lines


def test_equal_options_give_equal_fates_and_another_seed_others(capsys: Capture) -> None:
    options = ["--loss", "request:0.2,reply:0.2", "--delay", "both:20ms", "-n", "40"]
    first, again, other = (fates(capsys, "--seed", seed, *options) for seed in ("1", "1", "2"))
    assert first == again != other


def test_a_preset_can_be_named_and_partly_replaced(capsys: Capture) -> None:
    by_name = fates(capsys, "--seed", "7", "--lab", "udp-pinger")
    assert by_name == fates(
        capsys, "--seed", "7", "--loss", UDP_PRESETS["udp-pinger"].settings["loss"]
    )
    assert len(by_name) == 20
    replaced = fates(capsys, "--seed", "7", "--lab", "udp-pinger", "--loss", "0")
    assert all(line.endswith("delivered") for line in replaced)


def test_every_option_of_the_lab_is_offered(capsys: Capture) -> None:
    text = "\n".join(fates(capsys, "--help"))
    assert all(f"--{name}" in text for name in UDP_OPTIONS)


def test_a_client_of_its_own_has_fates_of_its_own(capsys: Capture) -> None:
    one, other = (
        fates(capsys, "--seed", "7", "--loss", "0.5", "--client", address)
        for address in ("192.0.2.1", "192.0.2.2")
    )
    assert one != other
    short, long = (
        fates(capsys, "--seed", "7", "--loss", "0.5", "--client", address)
        for address in ("2001:db8::1", "2001:DB8:0::1")
    )
    assert short == long


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "got no --seed"),
        (["--seed", "7", "--lab", "udp-pingre"], "did you mean 'udp-pinger'?"),
        (["--seed", "7", "--loss", "3"], "got '3'; a probability"),
        (["--seed", "7", "--client", "nobody"], "got --client=nobody; an IP address"),
        (["--seed", "7", "-n", "0"], "got '0'; it must be more than 0"),
    ],
)
def test_a_mistake_is_a_sentence_and_exit_status_2(
    arguments: list[str], words: str, capsys: Capture
) -> None:
    assert main(["fates", *arguments]) == 2
    captured = capsys.readouterr()
    assert words in captured.err
    assert captured.out == ""
