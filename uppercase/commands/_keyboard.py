"""A person who types a line and reads its reply.

The prompt is the lecture's. Where standard output is a terminal too, the line editor draws it, with
history and editing; otherwise it goes to standard error, and standard output has replies alone.
"""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Final

import click

from uppercase.commands._input import CHUNK, write_all

PROMPT: Final = "Input lowercase sentence: "


def converse(ask: Callable[[bytes], bytes | None], complain: Callable[[str], None]) -> bool:
    """Ask for lines and show their replies until the end of input (Ctrl-D).

    Args:
        ask: gives the reply to a line, which has no line ending, or None if there was none.
        complain: told, with a sentence, when there was no reply.

    Returns:
        Whether every line was answered.
    """
    all_answered = True
    for line in _lines():
        reply = ask(line)
        if reply is None:
            all_answered = False
            complain("no reply; type it again, or end with Ctrl-D")
        else:
            ending = b"" if reply.endswith(b"\n") else b"\n"
            write_all(sys.stdout.fileno(), reply + ending)
    return all_answered


def _lines() -> Iterator[bytes]:
    read = _read_edited if sys.stdout.isatty() else _read_plain
    while (line := read()) is not None:
        yield line
    # The shell's prompt belongs on a line of its own.
    click.echo(err=True)


def _read_edited() -> bytes | None:
    """Read with the line editor, which `input` uses once it is imported."""
    with suppress(ImportError):
        import readline  # noqa: F401  (its import is its use)
    sys.stdin.reconfigure(errors="surrogateescape")  # type: ignore[union-attr]
    try:
        line = input(PROMPT)
    except (EOFError, OSError):  # OSError: the terminal is gone.
        return None
    return line.encode(sys.stdin.encoding, "surrogateescape")


def _read_plain() -> bytes | None:
    """Read with what the terminal itself offers; the prompt goes to standard error."""
    click.echo(PROMPT, nl=False, err=True)
    try:
        line = os.read(sys.stdin.fileno(), CHUNK)
    except OSError:
        return None
    return line.rstrip(b"\r\n") if line else None
