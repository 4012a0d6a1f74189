"""What an author does besides writing: `uppercase transforms new` and `try`.

`new` writes a small project from the templates in the folder `scaffold`, where `$$` is a dollar
sign; the tests install and test what it makes. `try` runs a chain of transforms as a filter,
without a socket; what can stream is done chunk by chunk, in constant memory.
"""

import keyword
import os
import sys
from collections.abc import Iterator, Sequence
from datetime import date
from importlib.resources import files
from inspect import isawaitable
from pathlib import Path
from string import Template
from typing import Final

from uppercase import __version__
from uppercase.awaiting import Waiter
from uppercase.commands.cli import CHUNK, write_all
from uppercase.core.framing import FRAMINGS, choose_framing, make_framer
from uppercase.core.pipeline import MessagePipeline, make_pipeline
from uppercase.errors import DISTRIBUTION, UserError, suggest
from uppercase.interfaces import IStreamTransform
from uppercase.plugins import is_name
from uppercase.registry import listing

_PYTHONS: Final = ("3.11", "3.12", "3.13")
"""What a project is tested with, the oldest first; it is what this project needs, too."""

_KINDS: Final = {
    "plain": "puts a mark in the place of each space",
    "async": "waits, as for another server, and puts a mark in the place of each space",
    "stream": "puts one mark in the place of spaces that follow each other",
}
"""What the transform of each kind of project does, in words, after its name."""

_FILES: Final = {
    "$module/__init__.py": "$kind.py",
    "$module/py.typed": None,
    "tests/test_$function.py": "test_$kind.py",
    "pyproject.toml": "pyproject.toml",
    "README.md": "README.md",
    "LICENSE": "LICENSE",
    ".github/workflows/test.yml": "test.yml",
    ".gitignore": "gitignore",
}
"""The files of a project, and the template of each; without one, a file is empty."""


def write_project(name: str, *, is_async: bool = False, stream: bool = False) -> list[str]:
    """Write a project for a transform into a new folder of its name; return its files."""
    if is_async and stream:
        raise UserError("got --async and --stream, and a stream cannot wait; take out one of them")
    if not is_name(name) or not name[0].isalpha():
        raise UserError(
            f"got {name!r}; a transform's name is a letter and then lower-case letters, digits "
            "and single hyphens, such as rot47 or pig-latin"
        )
    taken = listing().transforms.get(name)
    if taken is not None:
        raise UserError(
            f"there is a transform named {name!r} already ({taken.provenance}); choose another name"
        )
    values = _values(name, "async" if is_async else "stream" if stream else "plain")
    templates = files("uppercase.commands.scaffold")
    root = Path(name)
    written = []
    try:
        root.mkdir()
        for path, template in _FILES.items():
            file = root / Template(path).substitute(values)
            file.parent.mkdir(parents=True, exist_ok=True)
            text = ""
            if template is not None:
                source = templates / f"{Template(template).substitute(values)}.in"
                text = Template(source.read_text("utf-8")).substitute(values)
            file.write_text(text, encoding="utf-8")
            written.append(str(file))
    except FileExistsError:
        raise UserError(
            f"a file or folder named {name!r} is here already; choose another name"
        ) from None
    except OSError as error:
        raise UserError(f"cannot write the folder {name!r}: {error.strerror}") from error
    return written


def _values(name: str, kind: str) -> dict[str, str]:
    """Return what the templates' words stand for."""
    function = _identifier(name.replace("-", "_"))
    return {
        "name": name,
        "kind": kind,
        "function": function,
        "target": _identifier(name.title().replace("-", "")) if kind == "stream" else function,
        # Its own prefix: a module named string or json would hide that of Python.
        "module": f"uppercase_{name.replace('-', '_')}",
        "distribution": f"uppercase-{name}",
        "ours": DISTRIBUTION,
        "version": __version__,
        "oldest": _PYTHONS[0],
        "pythons": ", ".join(f'"{python}"' for python in _PYTHONS),
        "year": str(date.today().year),
        "does": _KINDS[kind],
        "arguments": "| `seconds` | how long it waits | `0.0` |\n" if kind == "async" else "",
    }


def _identifier(name: str) -> str:
    return f"{name}_" if keyword.iskeyword(name) else name


def run(names: Sequence[str], framing: str | None, *, max_length: int, max_output: int) -> None:
    """Transform standard input into standard output.

    Without a framing it streams where the chain can, and else takes the whole input as one message.
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
    while chunk := os.read(sys.stdin.fileno(), CHUNK):
        yield chunk
