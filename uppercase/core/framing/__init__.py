"""From a stream of bytes to messages and back: the framings by name.

A framer is a lazy generator over the chunks that it is fed: nobody is called back, so a consumer
pauses by not asking for the next message, and there is nothing to recurse into. This package does
no I/O and knows nothing of transforms.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

from uppercase.core.framing._framers import (
    Framer,
    Int16Framer,
    Int32Framer,
    LineFramer,
    NetstringFramer,
    SegmentFramer,
)
from uppercase.errors import UnknownName, UserError, suggest

__all__ = [
    "AUTO",
    "FRAMINGS",
    "Framer",
    "Framing",
    "choose_framing",
    "framing_summaries",
    "make_framer",
]

AUTO: Final = "auto"
"""Stands for `stream` if the whole chain can stream, else for `line`."""


class Framing(NamedTuple):
    """A choice of framing.

    Attributes:
        summary: one line for a listing.
        factory: makes the framer of one connection from the bytes that a message may have; None
            for `stream`, the absence of framing: its input goes to an `ITransformStream`.
    """

    summary: str
    factory: Callable[[int], Framer] | None


FRAMINGS: Final[Mapping[str, Framing]] = MappingProxyType(
    {
        "stream": Framing("no messages: each chunk is answered at once", None),
        "line": Framing(r"a message ends with \n or \r\n, which comes back as sent", LineFramer),
        "netstring": Framing("a message is sent as <length>:<data>,", NetstringFramer),
        "int16": Framing("a message follows its length in 2 bytes, big-endian", Int16Framer),
        "int32": Framing("a message follows its length in 4 bytes, big-endian", Int32Framer),
        "segment": Framing(
            "whatever one read delivered is one message; then the connection is closed",
            SegmentFramer,
        ),
    }
)
"""Every framing by its name; `auto` is not one, see `choose_framing`."""


def framing_summaries() -> Mapping[str, str]:
    """Return all that a user can name, each with what it means."""
    auto = {AUTO: "stream if the whole chain can stream, else line"}
    return {**auto, **{name: framing.summary for name, framing in FRAMINGS.items()}}


def choose_framing(name: str, streams: bool) -> str:
    """Return the framing that a name stands for with a certain chain of transforms.

    Args:
        name: `auto` or a name of `FRAMINGS`.
        streams: whether the whole chain works on an endless stream.

    Returns:
        A name of `FRAMINGS`.

    Raises:
        uppercase.errors.UnknownName: there is no such framing.
        uppercase.errors.UserError: the framing is `stream` and the chain cannot stream.
    """
    if name == AUTO:
        return "stream" if streams else "line"
    if name not in FRAMINGS:
        raise _unknown(name, [AUTO, *FRAMINGS])
    if name == "stream" and not streams:
        raise UserError(
            "got the framing 'stream' with a transform that needs whole messages; "
            "choose one that gives it messages, such as --framing=line"
        )
    return name


def make_framer(name: str, *, max_length: int) -> Framer:
    """Make the framer of one connection.

    Args:
        name: a name of `FRAMINGS` other than `stream`.
        max_length: bytes that one message may have, without its framing; exactly this many pass.

    Raises:
        uppercase.errors.UnknownName: no framer has this name.
    """
    factory = FRAMINGS[name].factory if name in FRAMINGS else None
    if factory is None:
        raise _unknown(name, [known for known, framing in FRAMINGS.items() if framing.factory])
    return factory(max_length)


def _unknown(name: str, known: list[str]) -> UnknownName:
    return UnknownName(f"no framing named {name!r}{suggest(name, known)}")
