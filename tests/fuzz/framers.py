"""Fuzzes the framers: `make fuzz`, or `python -m tests.fuzz.framers -max_total_time=60`.

Input in one piece and byte by byte must give the same messages and the same fault, and the only
error that comes out is our own.
"""

from tests.fuzz import run_atheris
from uppercase.core.framing import make_framer
from uppercase.errors import FramingError

FRAMINGS = ("line", "netstring", "int16", "int32")
MAX_LENGTH = 64


def outcome(framing: str, chunks: list[bytes]) -> tuple[list[tuple[bytes, bytes]], str]:
    """Return the messages with their trailers, and what was wrong behind them."""
    framer = make_framer(framing, max_length=MAX_LENGTH)
    messages: list[tuple[bytes, bytes]] = []
    try:
        for chunk in chunks:
            messages.extend(framer.feed(chunk))
        messages.extend(framer.finish())
    except FramingError as error:
        return messages, str(error)
    return messages, ""


def check(data: bytes) -> None:
    """Hold a framing, chosen by the first byte, to its law; what is wrong is an exception."""
    framing, rest = FRAMINGS[data[0] % len(FRAMINGS)] if data else "line", data[1:]
    whole = outcome(framing, [rest])
    single = outcome(framing, [rest[index : index + 1] for index in range(len(rest))])
    assert whole == single, f"{framing}: {rest!r}: {whole} in one piece, {single} byte by byte"
    for message, _ in whole[0]:
        assert len(message) <= MAX_LENGTH


if __name__ == "__main__":
    run_atheris(check)
