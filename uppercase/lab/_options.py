"""The lab's options as text: what a command line gives, and presets that are made of the same.

The servers and `uppercase fates` hand the texts over as they got them, so that equal options give
equal fates. A value is for requests; `reply:` or `both:` before it names the other side, and a
comma joins two: `--loss=0.3`, `--delay=both:50ms`, `--loss=request:0.3,reply:0.1`.
"""

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from uppercase.core.events import Direction
from uppercase.core.values import parse_duration, parse_probability
from uppercase.errors import BadValue, UnknownName, suggest
from uppercase.lab._fates import BurstLoss, Experiment, Impairments
from uppercase.limits import LAB_SEEDS

__all__ = [
    "OPTIONS",
    "PRESETS",
    "Preset",
    "command_line",
    "make_experiment",
    "merge_settings",
    "new_seed",
]


@dataclass(frozen=True, slots=True)
class Preset:
    """Options under the name of an exercise.

    Attributes:
        name: what `--lab` takes.
        summary: one line for a listing, with what a grader must know.
        settings: the options that it sets, by name without the dashes.
    """

    name: str
    summary: str
    settings: Mapping[str, str]

    def __str__(self) -> str:
        """Return the line that is printed when the preset is used."""
        return f"{self.name}: {command_line(self.settings)} ({self.summary})"


PRESETS: Final[Mapping[str, Preset]] = {
    preset.name: preset
    for preset in (
        Preset(
            "udp-pinger",
            "as the UDP Pinger handout's code, randint(0, 10) < 4, drops 4 of 11 requests: 36.4 %; "
            "the handout's text says 30 %",
            {"loss": "4/11"},
        ),
        Preset(
            "stop-and-wait",
            "all that a stop-and-wait protocol must survive, in both directions; "
            "the round trip takes 100 to 300 ms",
            {
                "loss": "both:0.1",
                "duplicate": "both:0.1",
                "corrupt": "both:0.1",
                "delay": "both:100ms",
                "jitter": "both:50ms",
            },
        ),
        Preset(
            "satellite",
            "a geostationary hop each way, 240 to 280 ms as in RFC 2488 section 2, and no loss",
            {"delay": "both:260ms", "jitter": "both:20ms"},
        ),
    )
}


def merge_settings(preset: str | None, given: Mapping[str, str]) -> dict[str, str]:
    """Return all options by name: the preset's, each replaced as a whole where one is given.

    Raises:
        UnknownName: there is no such preset.
    """
    if preset is None:
        return dict(given)
    if preset not in PRESETS:
        raise UnknownName(f"no lab named {preset!r}{suggest(preset, PRESETS)}")
    return {**PRESETS[preset].settings, **given}


def make_experiment(
    settings: Mapping[str, str], *, seed: int, per_client: bool = False
) -> Experiment:
    """Return what the texts of the options mean.

    Args:
        settings: texts by option, as `merge_settings` gives them; the names are those of `OPTIONS`.
        seed: a whole number, 0 or more.
        per_client: mix the client's host into the draws.

    Raises:
        UnknownName: an option that the lab does not have.
        BadValue: a text or a seed that is not accepted; names the option.
    """
    sides: dict[Direction, dict[str, Any]] = {side: {} for side in Direction}
    for name, text in settings.items():
        if name not in OPTIONS:
            raise UnknownName(f"the lab has no option --{name}{suggest(name, OPTIONS)}")
        for side, value in _parse_sides(name, text).items():
            sides[side][name.replace("-", "_")] = value
    return Experiment(
        seed=seed,
        request=Impairments(**sides[Direction.REQUEST]),
        reply=Impairments(**sides[Direction.REPLY]),
        per_client=per_client,
    )


def command_line(settings: Mapping[str, str], *, seed: int | None = None) -> str:
    """Return the options as one types them, for a line that tells what is set."""
    words = [] if seed is None else [f"--seed={seed}"]
    return " ".join(words + [f"--{name}={text}" for name, text in settings.items()])


def new_seed() -> int:
    """Return a random seed that is short enough to be read out and typed."""
    return secrets.randbelow(LAB_SEEDS)


def _parse_burst_loss(text: str) -> BurstLoss:
    """Read `ENTER:LEAVE` or `ENTER:LEAVE:LOSS`, three probabilities."""
    parts = text.split(":")
    if len(parts) not in (2, 3):
        raise BadValue(
            f"got {text!r}; burst loss is ENTER:LEAVE or ENTER:LEAVE:LOSS, such as 0.02:0.25"
        )
    return BurstLoss(*map(parse_probability, parts))


OPTIONS: Final[Mapping[str, Callable[[str], Any]]] = {
    "loss": parse_probability,
    "duplicate": parse_probability,
    "reorder": parse_probability,
    "corrupt": parse_probability,
    "delay": parse_duration,
    "jitter": parse_duration,
    "burst-loss": _parse_burst_loss,
}
"""The lab's options by name, each with what reads the value of one side."""

_SIDES: Final[Mapping[str, tuple[Direction, ...]]] = {
    "request": (Direction.REQUEST,),
    "reply": (Direction.REPLY,),
    "both": (Direction.REQUEST, Direction.REPLY),
}


def _parse_sides(name: str, text: str) -> dict[Direction, Any]:
    """Read one option's text: `0.3`, `reply:0.3`, `request:0.3,reply:0.1`."""
    values: dict[Direction, Any] = {}
    for part in text.split(","):
        before, _, after = part.partition(":")
        sides, value = (_SIDES[before], after) if before in _SIDES else (_SIDES["request"], part)
        for side in sides:
            if side in values:
                raise BadValue(f"--{name}: got {text!r}, which gives {side} twice; once is enough")
            try:
                values[side] = OPTIONS[name](value)
            except BadValue as error:
                raise BadValue(
                    f"--{name}: {error}; request:, reply: or both: may stand before it"
                ) from error
    return values
