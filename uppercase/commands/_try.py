"""`uppercase transforms try`: a chain of transforms as a filter, without a socket.

What can stream is done chunk by chunk, in constant memory.
"""

import os
import sys
from collections.abc import Iterator, Sequence
from inspect import isawaitable

from uppercase.awaiting import wait_for
from uppercase.commands._input import write_all
from uppercase.core.framing import FRAMINGS, choose_framing, make_framer
from uppercase.core.pipeline import Stage, make_pipeline
from uppercase.errors import UserError, suggest
from uppercase.interfaces import IStreamTransform, ITransform
from uppercase.limits import TRY_CHUNK
from uppercase.registry import find

__all__ = ["run"]


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
    chain = make_pipeline([Stage(name, find(name)) for name in names], max_output)
    if framing is None:
        framing = "stream" if chain.streams else "whole"
    elif framing == "segment" or framing not in FRAMINGS:
        known = [name for name in FRAMINGS if name != "segment"]
        raise UserError(f"no framing named {framing!r} for a file{suggest(framing, known)}")
    else:
        choose_framing(framing, chain.streams)
    output = sys.stdout.fileno()
    if framing == "whole":
        write_all(output, _reply(chain, b"".join(_chunks())))
        return
    if framing == "stream":
        assert IStreamTransform.providedBy(chain)
        stream = chain.open_stream()
        for chunk in _chunks():
            write_all(output, stream.feed(chunk))
        write_all(output, stream.finish())
        return
    framer = make_framer(framing, max_length=max_length)
    for chunk in _chunks():
        for message, trailer in framer.feed(chunk):
            write_all(output, framer.wrap(_reply(chain, message), trailer))
    for message, trailer in framer.finish():
        write_all(output, framer.wrap(_reply(chain, message), trailer))


def _chunks() -> Iterator[bytes]:
    while chunk := os.read(sys.stdin.fileno(), TRY_CHUNK):
        yield chunk


def _reply(chain: ITransform, message: bytes) -> bytes:
    reply = chain.transform(message)
    return wait_for(reply) if isawaitable(reply) else reply
