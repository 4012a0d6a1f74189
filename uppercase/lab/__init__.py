"""The lab: what networks do to programs, done on purpose and reproducibly.

Over UDP it loses, duplicates, reorders, corrupts and delays datagrams: what happens to one is a
function of the seed, the direction and its number; see `uppercase.lab._fates`. No socket, no timer,
no shared random generator: a UDP port asks a `Lab` what to pass on and when, and `answer_key` says
the same beforehand. Over TCP, `TCPLab` says what `uppercase.lab.serving` does to a connection.

Here are the options of both as text: what a command line gives, and presets made of the same. The
servers and `uppercase fates` hand the texts over as they got them, so that equal options give equal
fates. A value is for requests; `reply:` or `both:` before it names the other side, and a comma
joins two: `--loss=0.3`, `--delay=both:50ms`, `--loss=request:0.3,reply:0.1`.

The lab over UDP loads on first use: every service knows the options, and few have a lab.
"""

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

from uppercase import lazy
from uppercase.core.events import Direction
from uppercase.core.values import parse_duration, parse_probability, parse_size
from uppercase.errors import BadValue, UnknownName, suggest

if TYPE_CHECKING:
    from uppercase.lab._fates import BurstLoss, Experiment, Fate, Impairments, Row, answer_key
    from uppercase.lab.serving import Lab

__all__ = [
    "NO_LAB",
    "TCP_OPTIONS",
    "TCP_PRESETS",
    "UDP_OPTIONS",
    "UDP_PRESETS",
    "BurstLoss",
    "Experiment",
    "Fate",
    "Impairments",
    "Lab",
    "LabOption",
    "Preset",
    "Row",
    "TCPLab",
    "answer_key",
    "command_line",
    "make_experiment",
    "make_tcp_lab",
    "merge_settings",
    "new_seed",
]

lazy(__name__, __all__, ["._fates", ".serving"])

MAX_DELAY: Final = 60.0
"""The longest delay and the widest jitter of the lab: what is delayed is held in memory."""

SEEDS: Final = 1_000_000
"""Random seeds are below this: six digits can be read from a projector and typed."""


def check_delays(given: object, *names: str) -> None:
    """Refuse a record in which one of these is not from 0 to `MAX_DELAY` seconds."""
    for name in names:
        if not 0 <= (seconds := getattr(given, name)) <= MAX_DELAY:
            raise BadValue(
                f"got {seconds:g} s for --{name.replace('_', '-')}; 0 to {MAX_DELAY:g} s is "
                "accepted, because what is delayed is held in memory"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class TCPLab:
    """What happens to each connection.

    Attributes:
        delay: seconds that each reply is held.
        slice: bytes that are sent at a time; 0 for no slicing.
        reset_after: bytes of replies after which the connection is reset; 0 for never.
        accept_delay: seconds before a connection is served.
    """

    delay: float = 0.0
    slice: int = 0
    reset_after: int = 0
    accept_delay: float = 0.0

    def __post_init__(self) -> None:
        check_delays(self, "delay", "accept_delay")

    def __str__(self) -> str:
        """Return the options as one types them."""
        values = {each.name.replace("_", "-"): getattr(self, each.name) for each in fields(self)}
        return command_line({name: f"{value:.15g}" for name, value in values.items() if value})


NO_LAB: Final = TCPLab()


class Preset(NamedTuple):
    """Options under the name of an exercise.

    Attributes:
        summary: one line for a listing, with what a grader must know.
        settings: the options that it sets, by name without the dashes.
    """

    name: str
    summary: str
    settings: Mapping[str, str]

    def __str__(self) -> str:
        """Return the line that is printed when the preset is used."""
        return f"{self.name}: {command_line(self.settings)} ({self.summary})"


class LabOption(NamedTuple):
    """One option of a lab; `parse` makes the value of its text, over UDP that of one side."""

    name: str
    metavar: str
    text: str
    parse: Callable[[str], Any]


_Named = TypeVar("_Named", Preset, LabOption)


def _by_name(*rows: _Named) -> Mapping[str, _Named]:
    return {row.name: row for row in rows}


UDP_PRESETS: Final = _by_name(
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

TCP_PRESETS: Final = _by_name(
    Preset(
        "byte-stream",
        "replies come a byte at a time, so that one recv(1024) is visibly not enough",
        {"slice": "1"},
    ),
    Preset(
        "lecture",
        "as the lecture's server: one recv is one message, one reply, then the end",
        {"framing": "segment"},
    ),
)


def merge_settings(
    preset: str | None, given: Mapping[str, str], presets: Mapping[str, Preset] = UDP_PRESETS
) -> dict[str, str]:
    """Return all options by name: the preset's, each replaced where one is given."""
    if preset is None:
        return {**given}
    if preset not in presets:
        raise UnknownName(f"no preset named {preset!r}{suggest(preset, presets)}")
    return {**presets[preset].settings, **given}


def make_experiment(
    settings: Mapping[str, str], *, seed: int, per_client: bool = False
) -> "Experiment":
    """Return what the texts of the options mean."""
    from uppercase.lab._fates import Experiment, Impairments

    sides: dict[Direction, dict[str, Any]] = {side: {} for side in Direction}
    for name, text in settings.items():
        for side, value in _parse_sides(name, text).items():
            sides[side][name.replace("-", "_")] = value
    return Experiment(
        seed=seed,
        request=Impairments(**sides[Direction.REQUEST]),
        reply=Impairments(**sides[Direction.REPLY]),
        per_client=per_client,
    )


def make_tcp_lab(settings: Mapping[str, str]) -> TCPLab:
    """Return what the texts of the options over TCP mean."""
    values = {name: _parse("TCP", TCP_OPTIONS, name, text) for name, text in settings.items()}
    return TCPLab(**{name.replace("-", "_"): value for name, value in values.items()})


def _parse(
    protocol: str, options: Mapping[str, LabOption], name: str, text: str, hint: str = ""
) -> Any:
    if name not in options:
        raise UnknownName(f"the lab of {protocol} has no --{name}{suggest(name, options)}")
    try:
        return options[name].parse(text)
    except BadValue as error:
        raise BadValue(f"--{name}: {error}{hint}") from error


def command_line(settings: Mapping[str, str], *, seed: int | None = None) -> str:
    """Return the options as one types them."""
    words = [] if seed is None else [f"--seed={seed}"]
    return " ".join(words + [f"--{name}={text}" for name, text in settings.items()])


def new_seed() -> int:
    """Return a random seed that is short enough to be read out and typed."""
    return secrets.randbelow(SEEDS)


def _parse_burst_loss(text: str) -> "BurstLoss":
    parts = text.split(":")
    if len(parts) not in (2, 3):
        raise BadValue(
            f"got {text!r}; burst loss is ENTER:LEAVE or ENTER:LEAVE:LOSS, such as 0.02:0.25"
        )
    from uppercase.lab._fates import BurstLoss

    return BurstLoss(*map(parse_probability, parts))


UDP_OPTIONS: Final = _by_name(
    LabOption("loss", "P", "lost, with this probability; 4/11 is accepted too", parse_probability),
    LabOption("duplicate", "P", "passed on twice", parse_probability),
    LabOption("reorder", "P", "held until later ones have overtaken it", parse_probability),
    LabOption("corrupt", "P", "passed on with one bit flipped", parse_probability),
    LabOption("delay", "DURATION", "passed on this much later", parse_duration),
    LabOption("jitter", "DURATION", "how far the delay varies, up and down", parse_duration),
    LabOption(
        "burst-loss",
        "ENTER:LEAVE[:LOSS]",
        "lost in bursts (Gilbert and Elliott): the probabilities of entering and leaving a burst, "
        "and of loss in it",
        _parse_burst_loss,
    ),
)

TCP_OPTIONS: Final = _by_name(
    LabOption(
        "slice", "BYTES", "send replies in pieces of this many bytes (up to 256 pieces)", parse_size
    ),
    LabOption("delay", "DURATION", "hold each reply for this long", parse_duration),
    LabOption(
        "reset-after", "BYTES", "reset each connection after this many bytes of replies", parse_size
    ),
    LabOption(
        "accept-delay", "DURATION", "serve each connection only after this time", parse_duration
    ),
)

_SIDES: Final[Mapping[str, Sequence[Direction]]] = {
    **{side.value: [side] for side in Direction},
    "both": [*Direction],
}


def _parse_sides(name: str, text: str) -> dict[Direction, Any]:
    """Read one option's text: `0.3`, `reply:0.3`, `request:0.3,reply:0.1`."""
    values: dict[Direction, Any] = {}
    for part in text.split(","):
        before, _, after = part.partition(":")
        sides, value = (_SIDES[before], after) if before in _SIDES else (_SIDES["request"], part)
        for side in sides:
            if side in values:
                raise BadValue(
                    f"--{name}: got {text!r}, which gives {side} twice; once is enough, and "
                    "decimals come after a point"
                )
            hint = "; request:, reply: or both: may stand before it"
            values[side] = _parse("UDP", UDP_OPTIONS, name, value, hint)
    return values
