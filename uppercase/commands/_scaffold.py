"""`uppercase transforms new`: the small project that an author starts from.

The templates are here, one below the other; the tests install and test what they make.
"""

import keyword
from pathlib import Path
from string import Template
from typing import Final

from uppercase import __version__
from uppercase.errors import UserError
from uppercase.plugins.declare import is_name
from uppercase.registry import listing

_TRANSFORM: Final = '''\
"""The transform $name."""

from uppercase import transform


@transform(name="$name", streaming=True)
def $function(text: str, *, mark: str = "-") -> str:
    """Put a mark in the place of each space."""
    return text.replace(" ", mark)
'''

_TESTS: Final = '''\
"""Tests of the transform $name."""

from uppercase.testing import TransformContract, connect

from $module import $function


class Test$title(TransformContract):
    """The laws that servers rely on, a test each."""

    transform = $function
    examples = (b"hello world",)


def test_each_space_becomes_a_mark() -> None:
    assert $function("hello big world") == "hello-big-world"


def test_a_server_takes_the_mark_as_an_argument() -> None:
    connection = connect("$module:$function:mark=_", framing="line")
    connection.send(b"hello big world\\n")
    assert connection.receive() == b"hello_big_world\\n"
'''

_PYPROJECT: Final = """\
[build-system]
requires = ["setuptools>=64"]
build-backend = "setuptools.build_meta"

[project]
name = "$distribution"
version = "0.1.0"
description = "The transform $name for uppercase"
readme = "README.md"
requires-python = ">=3.11"
dependencies = ["twisted-uppercase>=$version"]

[project.optional-dependencies]
test = ["twisted-uppercase[testing]"]

# This is what makes the transform known by its name. After a change here, install again.
[project.entry-points."uppercase.transforms"]
$name = "$module:$function"

[tool.setuptools]
py-modules = ["$module"]

[tool.pytest.ini_options]
testpaths = ["tests"]
"""

_README: Final = """\
# $distribution

The transform `$name` for uppercase: puts a mark in the
place of each space.

```console
$$ pip install $distribution
$$ printf 'hello world\\n' | uppercase transforms try $name
hello-world
$$ twistd -n uppercase-tcp --transform $name:mark=_
```

| argument | is | default |
| --- | --- | --- |
| `mark` | what takes the place of a space | `-` |

## To work on it

```console
$$ python -m venv .venv && . .venv/bin/activate
$$ pip install -e '.[test]'
$$ pytest
$$ uppercase transforms check $name
$$ uppercase transforms doctor
```
"""

_WORKFLOW: Final = """\
name: test
on: [push, pull_request]
jobs:
  test:
    runs-on: ubuntu-latest
    strategy:
      matrix:
        python: ["3.11", "3.12", "3.13"]
    steps:
      - uses: actions/checkout@v4
      - uses: actions/setup-python@v5
        with:
          python-version: $${{ matrix.python }}
      - run: pip install '.[test]' && pytest && uppercase transforms check $name
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
    "$module.py": _TRANSFORM,
    "tests/test_$function.py": _TESTS,
    "pyproject.toml": _PYPROJECT,
    "README.md": _README,
    ".github/workflows/test.yml": _WORKFLOW,
    ".gitignore": _IGNORED,
}


def write_project(name: str) -> list[str]:
    """Write a project for a transform into a new folder of its name.

    Args:
        name: the transform's name.

    Returns:
        The files.

    Raises:
        UserError: the name cannot be used or is taken, or the folder cannot be made.
    """
    if not is_name(name) or not name[0].isalpha():
        raise UserError(
            f"got {name!r}; a transform's name is a letter and then lower-case letters, digits "
            "and single hyphens, such as rot47 or pig-latin"
        )
    taken = listing().transforms.get(name)
    if taken is not None:
        raise UserError(
            f"there is a transform named {name!r} already, in {taken.origin}; choose another name"
        )
    function = name.replace("-", "_")
    if keyword.iskeyword(function):
        function += "_"
    values = {
        "name": name,
        "function": function,
        "title": name.title().replace("-", ""),
        # Its own prefix: a module named string or json would hide that of Python.
        "module": f"uppercase_{name.replace('-', '_')}",
        "distribution": f"uppercase-{name}",
        "version": __version__,
    }
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
