"""Our units as click's parameter types, and options that know their section of the help.

The parsers are those of `uppercase.core.units`; this module only tells click about them.
"""

from collections.abc import Callable
from typing import Any

import click

from uppercase.core.units import parse_count, parse_duration, parse_size
from uppercase.errors import BadValue


class _Quantity(click.ParamType[float]):
    """A number that one of our parsers reads.

    Args:
        positive: whether 0 is refused too.
    """

    parse: Callable[[str], float]

    def __init__(self, *, positive: bool = False) -> None:
        self.positive = positive

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the number; a default that is one already passes."""
        if not isinstance(value, str):
            return value
        try:
            number = type(self).parse(value)
        except BadValue as error:
            self.fail(str(error), param, ctx)
        if self.positive and not number:
            self.fail(f"got {value!r}; it must be more than 0", param, ctx)
        return number


class Duration(_Quantity):
    """Seconds as a float: `500ms`, `2s`, `5m`; a bare number is seconds."""

    name = "duration"
    parse = staticmethod(parse_duration)


class Size(_Quantity):
    """Bytes as an int: `64k`, `1M`; a bare number is bytes."""

    name = "size"
    parse = staticmethod(parse_size)


class Count(_Quantity):
    """A whole number, 0 or more."""

    name = "count"
    parse = staticmethod(parse_count)
