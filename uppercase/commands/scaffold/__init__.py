"""What `uppercase transforms new` writes: a small project, from the templates in this folder.

In a template `$$` is a dollar sign. The tests install and test the projects.
"""

import keyword
from contextlib import ExitStack
from datetime import date
from importlib.resources import files
from pathlib import Path
from shutil import rmtree
from string import Template
from typing import Final

from uppercase import __version__
from uppercase.errors import DISTRIBUTION, UserError
from uppercase.plugins import fault_of_name
from uppercase.registry import listing

_PYTHONS: Final = ("3.11", "3.12", "3.13", "3.14", "3.15")
"""What a project is tested with, the oldest first; it is what this project needs, too."""

_KINDS: Final = {
    "plain": "puts a mark in place of each space",
    "async": "waits, as for another server, and puts a mark in place of each space",
    "stream": "puts one mark in place of each run of spaces",
}
"""What the transform of each kind of project does, in words, after its name."""

_TAKEN: Final = {
    *("asyncio", "bytes", "connect", "exchange", "float", "len", "str", "transform"),
    *("TestContract", "TransformContract"),
}
"""Names that mean something else in the templates."""

_FILES: Final = {
    "$module/__init__.py": "$kind.py",
    "$module/py.typed": "py.typed",
    "tests/test_$function.py": "test_$kind.py",
    "pyproject.toml": "pyproject.toml",
    "README.md": "README.md",
    "LICENSE": "LICENSE",
    ".github/workflows/test.yml": "test.yml",
    ".gitignore": "gitignore",
}
"""The files of a project, and the template of each."""


def write_project(name: str, *, is_async: bool = False, stream: bool = False) -> list[str]:
    """Write a project for a transform into a new folder of its name; return its files."""
    if is_async and stream:
        raise UserError("got --async and --stream, and a stream cannot wait; take out one of them")
    if fault_of_name(name, name) or not name[0].isalpha():
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
    root = Path(name)
    written = []
    try:
        root.mkdir()
        with ExitStack() as incomplete:
            # Half a project would be in the way of the whole one.
            incomplete.callback(rmtree, root)
            for path, template in _FILES.items():
                file = root / Template(path).substitute(values)
                file.parent.mkdir(parents=True, exist_ok=True)
                source = files(__name__) / f"{Template(template).substitute(values)}.in"
                text = Template(source.read_text("utf-8")).substitute(values)
                file.write_text(text, encoding="utf-8")
                written.append(str(file))
            incomplete.pop_all()
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
    return f"{name}_" if keyword.iskeyword(name) or name in _TAKEN else name
