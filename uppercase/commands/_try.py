"""`uppercase transforms try`: a chain of transforms as a filter, without a socket.

What can stream is done chunk by chunk, in constant memory.
"""

import os
import sys
from collections.abc import Iterator, Sequence
from inspect import isawaitable
from typing import Final

from uppercase.awaiting import Waiter
from uppercase.commands.cli import write_all
from uppercase.core.framing import FRAMINGS, choose_framing, make_framer
from uppercase.core.pipeline import MessagePipeline, make_pipeline
from uppercase.errors import UserError, suggest
from uppercase.interfaces import IStreamTransform
from uppercase.limits import KIB
from uppercase.registry import listing

_CHUNK: Final = 64 * KIB
"""What is read at once, as by Twisted from a connection: the output for a chunk is bounded as it is
in a server."""


def run(names: Sequence[str], framing: str | None, *, max_length: int, max_output: int) -> None:
    """Transform standard input into standard output.

    Args:
        names: specifications, applied in order.
        framing: a name of `FRAMINGS`; None to stream where the chain can, and otherwise to take
            the whole input as one message.
        max_length: bytes that one message of a framing may have.
        max_output: bytes that each transform may give for one message or chunk.

    Raises:
        uppercase.errors.UserError: a specification or the framing is wrong.
        uppercase.errors.PluginError: a transform cannot be loaded.
        uppercase.errors.TransformError: a transform failed.
        uppercase.errors.FramingError: the input does not follow the framing.
    """
    stages = listing().stages(names)
    chain = make_pipeline(stages, max_output)
    if framing is None:
        framing = "stream" if chain.streams else "whole"
    elif framing == "segment" or framing not in FRAMINGS:
        known = [name for name in FRAMINGS if name != "segment"]
        raise UserError(f"no framing named {framing!r} for a file{suggest(framing, known)}")
    else:
        choose_framing(framing, chain.streams)
    with Waiter([stage.transform for stage in stages]) as waiter:
        for output in _outputs(chain, framing, max_length, waiter):
            write_all(output)


def _outputs(
    chain: MessagePipeline, framing: str, max_length: int, waiter: Waiter
) -> Iterator[bytes]:
    """Return what comes of standard input, as it comes."""

    def reply(message: bytes) -> bytes:
        replied = waiter.call(lambda: chain.transform(message))
        return waiter.wait_for(replied) if isawaitable(replied) else replied

    if framing == "whole":
        yield reply(b"".join(_chunks()))
    elif framing == "stream":
        assert IStreamTransform.providedBy(chain)
        stream = chain.open_stream()
        yield from map(stream.feed, _chunks())
        yield stream.finish()
    else:
        framer = make_framer(framing, max_length=max_length)
        for chunk in _chunks():
            for message, trailer in framer.feed(chunk):
                yield framer.wrap(reply(message), trailer)
        for message, trailer in framer.finish():
            yield framer.wrap(reply(message), trailer)


def _chunks() -> Iterator[bytes]:
    while chunk := os.read(sys.stdin.fileno(), _CHUNK):
        yield chunk
