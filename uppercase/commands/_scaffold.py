"""`uppercase transforms new`: the small project that an author starts from.

The templates are here, one below the other; the tests install and test what they make.
"""

import keyword
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from string import Template
from typing import Final

from uppercase import __version__
from uppercase.errors import DISTRIBUTION, UserError
from uppercase.plugins.declare import is_name
from uppercase.registry import listing

_PYTHONS: Final = ("3.11", "3.12", "3.13")
"""What a project is tested with, the oldest first; it is what this project needs, too."""


@dataclass(frozen=True, slots=True)
class _Kind:
    """What differs between projects.

    Attributes:
        does: the transform in words, after its name.
        code: the template of the module.
        tests: the template of what its tests have besides the contract.
        imports: what these tests import from the standard library.
    """

    does: str
    code: str
    tests: str
    imports: str = ""


_PLAIN: Final = _Kind(
    "puts a mark in the place of each space",
    '''\
"""The transform $name."""

from uppercase import transform


@transform(name="$name", streaming=True)
def $target(text: str, *, mark: str = "-") -> str:
    """Put a mark in the place of each space."""
    return text.replace(" ", mark)
''',
    """\
def test_each_space_becomes_a_mark() -> None:
    assert $target("hello big world") == "hello-big-world"


def test_a_server_takes_the_mark_as_an_argument() -> None:
    connection = connect("$module:$target:mark=_", framing="line")
    connection.send(b"hello big world\\n")
    assert connection.receive() == b"hello_big_world\\n"
""",
)

_ASYNC: Final = _Kind(
    "waits, as for another server, and puts a mark in the place of each space",
    '''\
"""The transform $name."""

import asyncio

from uppercase import transform


@transform(name="$name")
async def $target(text: str, *, mark: str = "-", seconds: float = 0.0) -> str:
    """Wait, as for another server, and put a mark in the place of each space."""
    await asyncio.sleep(seconds)
    return text.replace(" ", mark)
''',
    """\
def test_each_space_becomes_a_mark() -> None:
    assert asyncio.run($target("hello big world")) == "hello-big-world"


async def exchange(data: bytes) -> bytes:
    connection = connect("$module:$target:mark=_", framing="line")
    connection.send(data)
    reply = b""
    async with asyncio.timeout(10):
        while len(reply) < len(data):
            await asyncio.sleep(0.01)
            reply += connection.receive()
    return reply


def test_a_server_awaits_the_replies_and_keeps_their_order() -> None:
    assert asyncio.run(exchange(b"hello world\\nbig world\\n")) == b"hello_world\\nbig_world\\n"
""",
    "import asyncio\n\n",
)

_STREAM: Final = _Kind(
    "puts one mark in the place of spaces that follow each other",
    '''\
"""The transform $name."""

import re

from uppercase import stream_transform


@stream_transform(name="$name")
class $target:
    """Put one mark in the place of spaces that follow each other; an instance for each stream."""

    def __init__(self, *, mark: str = "-") -> None:
        self._mark = mark
        self._after_space = False

    def feed(self, text: str) -> str:
        """Take the next piece, cut anywhere, of 1 character or more; return all that is settled."""
        if self._after_space:
            text = text.lstrip(" ")
        self._after_space = text.endswith(" ") if text else self._after_space
        return re.sub(" +", lambda _: self._mark, text)

    def finish(self) -> str:
        """End the input; return the rest, which is nothing here."""
        return ""
''',
    """\
def test_spaces_become_one_mark_wherever_they_are_cut() -> None:
    stream = $target(mark="_")
    assert stream.feed("hello ") + stream.feed("  big world") == "hello_big_world"


def test_a_server_answers_what_has_come_before_a_line_ends() -> None:
    connection = connect("$module:$target", framing="stream")
    connection.send(b"hello  wor")
    assert connection.receive() == b"hello-wor"
""",
)

_TESTS: Final = '''\
"""Tests of the transform $name."""

${imports}from uppercase.testing import TransformContract, connect

from $module import $target


class TestContract(TransformContract):
    """The laws that servers rely on, a test each."""

    transform = $target
    examples = (b"hello world",)


$tests'''

_PYPROJECT: Final = """\
[build-system]
requires = ["setuptools>=77"]
build-backend = "setuptools.build_meta"

[project]
name = "$distribution"
version = "0.1.0"
description = "The transform $name for uppercase"
readme = "README.md"
license = "MIT"
license-files = ["LICENSE"]
requires-python = ">=$oldest"
dependencies = ["$ours>=$version"]

[project.optional-dependencies]
test = ["$ours[testing]", "mypy"]

# This is what makes the transform known by its name. After a change here, install again.
[project.entry-points."uppercase.transforms"]
$name = "$module:$target"

[tool.setuptools]
packages = ["$module"]
package-data = { $module = ["py.typed"] }

[tool.pytest.ini_options]
testpaths = ["tests"]

[tool.mypy]
strict = true
files = ["$module", "tests"]
"""

_README: Final = """\
# $distribution

The transform `$name` for uppercase: $does.

```console
$$ pip install $distribution
$$ printf 'hello world\\n' | uppercase transforms try $name
hello-world
$$ twistd -n uppercase-tcp --transform $name:mark=_
```

| argument | is | default |
| --- | --- | --- |
| `mark` | what takes the place of a space | `-` |
$arguments
## To work on it

```console
$$ python -m venv .venv && . .venv/bin/activate
$$ pip install -e '.[test]'
$$ pytest
$$ mypy
$$ uppercase transforms check $name
$$ uppercase transforms doctor
```

The licence is MIT: see LICENSE.
"""

_WORKFLOW: Final = """\
name: test
on: [push, pull_request]
jobs:
  test:
    runs-on: ubuntu-latest
    strategy:
      matrix:
        python: [$pythons]
    steps:
      - uses: actions/checkout@v4
      - uses: actions/setup-python@v5
        with:
          python-version: $${{ matrix.python }}
      - run: pip install '.[test]' && pytest && mypy && uppercase transforms check $name
"""

_LICENSE: Final = """\
MIT License

Copyright (c) $year The authors of $distribution

Permission is hereby granted, free of charge, to any person obtaining a copy
of this software and associated documentation files (the "Software"), to deal
in the Software without restriction, including without limitation the rights
to use, copy, modify, merge, publish, distribute, sublicense, and/or sell
copies of the Software, and to permit persons to whom the Software is
furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all
copies or substantial portions of the Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR
IMPLIED, INCLUDING BUT NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY,
FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE
AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER
LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM,
OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE
SOFTWARE.
"""

_IGNORED: Final = """\
.venv/
__pycache__/
*.egg-info/
build/
dist/
.hypothesis/
.pytest_cache/
"""

_FILES: Final = {
    "$module/__init__.py": "$code",
    "$module/py.typed": "",
    "tests/test_$function.py": _TESTS,
    "pyproject.toml": _PYPROJECT,
    "README.md": _README,
    "LICENSE": _LICENSE,
    ".github/workflows/test.yml": _WORKFLOW,
    ".gitignore": _IGNORED,
}


def write_project(name: str, *, is_async: bool = False, stream: bool = False) -> list[str]:
    """Write a project for a transform into a new folder of its name.

    Args:
        name: the transform's name.
        is_async: its transform is a coroutine function.
        stream: its transform is a class of streams.

    Returns:
        The files.

    Raises:
        UserError: the name cannot be used or is taken, both kinds are asked for, or the folder
            cannot be made.
    """
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
    values = _values(name, _ASYNC if is_async else _STREAM if stream else _PLAIN, stream=stream)
    root = Path(name)
    written = []
    try:
        root.mkdir()
        for path, template in _FILES.items():
            file = root / Template(path).substitute(values)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(Template(template).substitute(values), encoding="utf-8")
            written.append(str(file))
    except FileExistsError:
        raise UserError(
            f"a file or folder named {name!r} is here already; choose another name"
        ) from None
    except OSError as error:
        raise UserError(f"cannot write the folder {name!r}: {error.strerror}") from error
    return written


def _values(name: str, kind: _Kind, *, stream: bool) -> dict[str, str]:
    """Return what the templates' words stand for."""
    function = _identifier(name.replace("-", "_"))
    values = {
        "name": name,
        "function": function,
        "target": _identifier(name.title().replace("-", "")) if stream else function,
        # Its own prefix: a module named string or json would hide that of Python.
        "module": f"uppercase_{name.replace('-', '_')}",
        "distribution": f"uppercase-{name}",
        "ours": DISTRIBUTION,
        "version": __version__,
        "oldest": _PYTHONS[0],
        "pythons": ", ".join(f'"{python}"' for python in _PYTHONS),
        "year": str(date.today().year),
        "does": kind.does,
        "imports": kind.imports,
        "arguments": "| `seconds` | how long it waits | `0.0` |\n" if kind is _ASYNC else "",
    }
    for part, template in (("code", kind.code), ("tests", kind.tests)):
        values[part] = Template(template).substitute(values)
    return values


def _identifier(name: str) -> str:
    return f"{name}_" if keyword.iskeyword(name) else name
