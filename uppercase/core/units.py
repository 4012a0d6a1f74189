"""Numbers as people write them on a command line: durations, sizes, ports, probabilities.

Each parser takes the text of one value and gives the number, or raises `BadValue` with what was
got and what is accepted. Both the servers' and the client's options use them.
"""

import math
import re
from typing import Final

from uppercase.errors import BadValue
from uppercase.limits import KIB, MAX_PORT, MIB

__all__ = [
    "parse_count",
    "parse_duration",
    "parse_factor",
    "parse_port",
    "parse_probability",
    "parse_rate",
    "parse_size",
    "parse_timeout",
]

_SECONDS: Final = {"": 1.0, "us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_BYTES: Final = {"": 1, "k": KIB, "m": MIB, "g": KIB * MIB}
_QUANTITY: Final = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)([a-z]*)", re.ASCII)


def parse_duration(text: str) -> float:
    """Return seconds for `500ms`, `2s`, `5m`, `1h`; a bare number is seconds."""
    match = _QUANTITY.fullmatch(text.strip().lower())
    seconds = float(match[1]) * _SECONDS[match[2]] if match and match[2] in _SECONDS else math.inf
    if not math.isfinite(seconds):
        raise BadValue(
            f"got {text!r}; a duration is a number of seconds, 0 or more, or has a unit: "
            "500ms, 2s, 5m, 1h"
        )
    return seconds


def parse_timeout(text: str) -> float:
    """Return seconds as `parse_duration` does, but never 0, which would end what it guards."""
    seconds = parse_duration(text)
    if not seconds:
        raise BadValue(f"got {text!r}; a time-out is longer than 0, such as 500ms, 2s or 5m")
    return seconds


def parse_size(text: str) -> int:
    """Return bytes for `64k`, `1M`, `1G` (powers of 1,024); a bare number is bytes."""
    match = re.fullmatch(r"([0-9]+)([kmg]?)(?:i?b)?", text.strip().lower(), re.ASCII)
    if not match:
        raise BadValue(
            f"got {text!r}; a size is a whole number of bytes, 0 or more, or has a unit: "
            "64k, 1M, 1G"
        )
    return int(match[1]) * _BYTES[match[2]]


def parse_count(text: str) -> int:
    """Return a whole number, 0 or more."""
    if not re.fullmatch(r"[0-9]{1,18}", text.strip(), re.ASCII):
        raise BadValue(f"got {text!r}; a whole number, 0 or more, is accepted")
    return int(text)


def parse_port(text: str) -> int:
    """Return a port number; 0 stands for any free port."""
    if not re.fullmatch(r"[0-9]{1,9}", text.strip(), re.ASCII) or int(text) > MAX_PORT:
        raise BadValue(
            f"got {text!r}; a port is a whole number from 0 (any free port) to {MAX_PORT}"
        )
    return int(text)


def parse_probability(text: str) -> float:
    """Return a number from 0 to 1; `4/11` is one too."""
    numerator, slash, denominator = text.partition("/")
    try:
        value = int(numerator) / int(denominator) if slash else float(text)
    except (ValueError, ArithmeticError):
        value = math.nan
    if not 0 <= value <= 1:
        raise BadValue(f"got {text!r}; a probability is a number from 0 to 1, such as 0.3 or 4/11")
    return value


def parse_factor(text: str) -> float:
    """Return a number that is 1 or more."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 1 <= value < math.inf:
        raise BadValue(f"got {text!r}; a factor is a number that is 1 or more, such as 3")
    return value


def parse_rate(text: str) -> tuple[float, float]:
    """Return the rate and the burst of `R` or `R:BURST`; a burst of 0 stands for the default."""
    rate, _, burst = text.partition(":")
    try:
        values = float(rate), float(burst or 0)
    except ValueError:
        values = math.nan, math.nan
    if not (0 < values[0] < math.inf and 0 <= values[1] < math.inf) or text.endswith(":"):
        raise BadValue(
            f"got {text!r}; a rate is datagrams a second, and may have a burst: 200 or 200:400"
        )
    return values
