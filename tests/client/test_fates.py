"""`uppercase fates`: the answer key that an instructor prints."""

import pytest

from tests.client.command import run
from uppercase.lab import OPTIONS, PRESETS, answer_key, make_experiment


def test_it_prints_the_labs_own_key_a_line_a_datagram() -> None:
    outcome = run("fates", "--seed", "7", "--loss", "0.3", "-n", "50")
    experiment = make_experiment({"loss": "0.3"}, seed=7)
    assert outcome.stdout.decode().splitlines() == [str(row) for row in answer_key(experiment, 50)]
    assert b"request lost" in outcome.stdout
    assert outcome.status == 0


def test_equal_options_give_equal_fates_and_another_seed_others() -> None:
    options = ["--loss", "request:0.2,reply:0.2", "--delay", "both:20ms", "-n", "40"]
    first, again, other = (
        run("fates", "--seed", seed, *options).stdout for seed in ("1", "1", "2")
    )
    assert first == again != other


def test_a_preset_can_be_named_and_partly_replaced() -> None:
    by_name = run("fates", "--seed", "7", "--lab", "udp-pinger").stdout
    by_options = run("fates", "--seed", "7", "--loss", PRESETS["udp-pinger"].settings["loss"])
    assert by_name == by_options.stdout
    assert len(by_name.splitlines()) == 20
    replaced = run("fates", "--seed", "7", "--lab", "udp-pinger", "--loss", "0").stdout
    assert b"lost" not in replaced


def test_every_option_of_the_lab_is_offered() -> None:
    text = run("fates", "--help").stdout.decode()
    assert all(f"--{name}" in text for name in OPTIONS)


def test_a_client_of_its_own_has_fates_of_its_own() -> None:
    one, other = (
        run("fates", "--seed", "7", "--loss", "0.5", "--client", address).stdout
        for address in ("192.0.2.1", "192.0.2.2")
    )
    assert one != other


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "got no --seed"),
        (["--seed", "7", "--lab", "udp-pingre"], "did you mean 'udp-pinger'?"),
        (["--seed", "7", "--loss", "3"], "got '3'; a probability"),
        (["--seed", "7", "-n", "0"], "got '0'; it must be more than 0"),
    ],
)
def test_a_mistake_is_a_sentence_and_exit_status_2(arguments: list[str], words: str) -> None:
    outcome = run("fates", *arguments)
    assert words in outcome.stderr
    assert (outcome.status, outcome.stdout) == (2, b"")
