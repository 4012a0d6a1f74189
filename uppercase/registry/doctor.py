"""Why is mine not found? Where the registry looks, what is there, and what is wrong with it.

The faults of plugins come from a thorough listing; what this module adds are those of files and
installations, which hide plugins in silence.
"""

import ast
import inspect
import os
import sys
import tomllib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from difflib import get_close_matches
from importlib import metadata
from importlib.metadata import Distribution
from json import loads
from typing import Any, Final
from urllib.parse import unquote, urlsplit

import twisted

from uppercase.registry import Listing, listing
from uppercase.registry._found import Found, Problem, searched_directory
from uppercase.registry._sources import GROUP, drop_ins, drop_ins_of_twisted, title

_DROP_INS: Final = os.path.join("twisted", "plugins")
_TWISTED: Final = os.path.realpath(os.path.dirname(twisted.__file__))


def diagnose() -> tuple[Listing, list[Problem], list[str]]:
    """Look everywhere and at everything; imports all plugins.

    Returns:
        What there is, what is wrong, and lines that say where it looked.
    """
    found = listing(thorough=True)
    # Without those whose entry points cannot be read, which are among the listing's problems.
    installed = [each for each in metadata.distributions() if _is_readable(each)]
    problems = [
        *found.problems,
        *_package_files(),
        *_unwritten_caches(found.folders),
        *_hidden_by_editables(installed, found.folders),
        *_mistyped_groups(installed),
        *_not_installed(installed),
        *_reactor_imports(found.transforms.values()),
    ]
    return found, problems, [*_searched(found, installed)]


def _is_readable(distribution: Distribution) -> bool:
    with suppress(Exception):
        return distribution.entry_points is not None
    return False


def _searched(found: Listing, installed: Sequence[Distribution]) -> Iterator[str]:
    """Say where it looked, and what is there besides Twisted's own."""
    theirs = drop_ins_of_twisted()
    yield "Searched for drop-ins:"
    for folder in found.folders:
        others = [file.name for file in drop_ins(folder) if os.path.realpath(file) not in theirs]
        yield f"  {folder}: {', '.join(others) or 'none'}"
    if sys.flags.safe_path:
        yield "  not the current folder: PYTHONSAFEPATH or python -P excludes it"
    elif (here := searched_directory()) is None:
        yield "  not the current folder: it has been removed"
    elif not os.path.isdir(beside := os.path.join(here, _DROP_INS)):
        yield f"  {beside}: no such folder"
    yield f"Searched for entry points ({GROUP}):"
    # Few are asked for their names: each time, importlib reads the whole metadata.
    points = {
        title(each): names
        for each in installed
        if (names := [point.name for point in each.entry_points if point.group == GROUP])
    }
    ours = [f"  {distribution}: {', '.join(names)}" for distribution, names in points.items()]
    yield from ours or ["  none in any distribution that is installed"]
    yield "Found:"
    origins: dict[str, list[str]] = {}
    for transform in found.transforms.values():
        origins.setdefault(transform.origin, []).append(transform.name)
    yield from (f"  {origin}: {', '.join(names)}" for origin, names in origins.items())


def _package_files() -> Iterator[Problem]:
    """Find what turns somebody's `twisted/plugins` into a package, which Twisted passes over."""
    places = filter(None, [*sys.path, searched_directory()])
    for entry in dict.fromkeys(map(os.path.abspath, places)):
        package = os.path.join(entry, "twisted")
        # A folder with a version in it is another Twisted, such as the system's.
        if os.path.realpath(package) == _TWISTED or os.path.exists(
            os.path.join(package, "_version.py")
        ):
            continue
        for folder in (package, os.path.join(package, "plugins")):
            file = os.path.join(folder, "__init__.py")
            if os.path.exists(file):
                yield Problem(
                    file,
                    f"it makes {folder} a package, so that Twisted looks for no drop-ins in it; "
                    "delete this file",
                )


def _unwritten_caches(folders: Sequence[str]) -> Iterator[Problem]:
    """Find caches that the listing, just now, should have written and could not."""
    for folder in folders:
        cache = os.path.join(folder, "dropin.cache")
        newest = max(map(os.path.getmtime, drop_ins(folder)), default=None)
        if newest is None or (os.path.isfile(cache) and os.path.getmtime(cache) >= newest):
            continue
        yield Problem(
            cache,
            "it is not up to date and cannot be written, so that each start imports every drop-in "
            "and logs this; run twistd --help once as the owner of the folder",
        )


def _hidden_by_editables(
    installed: Sequence[Distribution], folders: Sequence[str]
) -> Iterator[Problem]:
    """Find drop-ins of editable installs (PEP 610, PEP 660) that are not on Twisted's path."""
    searched = set(map(os.path.realpath, folders))
    for distribution in installed:
        root = _editable_root(distribution)
        for source in (root, os.path.join(root, "src")) if root else ():
            folder = os.path.join(source, _DROP_INS)
            if drop_ins(folder) and os.path.realpath(folder) not in searched:
                yield Problem(
                    folder,
                    f"the editable install of {distribution.name} does not show Twisted this "
                    "folder; announce the transform as an entry point, or tell setuptools "
                    'package-dir = {"" = "."} and install it again',
                )


def _editable_root(distribution: Distribution) -> str | None:
    with suppress(ValueError, LookupError, TypeError):  # It has none, or none that pip writes.
        origin: Any = loads(distribution.read_text("direct_url.json") or "")
        if origin["dir_info"]["editable"]:
            return unquote(urlsplit(origin["url"]).path)
    return None


def _mistyped_groups(installed: Sequence[Distribution]) -> Iterator[Problem]:
    """Find entry points in a group whose name is ours except for a letter or two."""
    for distribution in installed:
        for group in dict.fromkeys(point.group for point in distribution.entry_points):
            if group != GROUP and get_close_matches(group, [GROUP], cutoff=0.85):
                yield Problem(
                    f"entry points of {title(distribution)}",
                    f"nobody reads the group {group!r}; the group is {GROUP!r}: correct it, and "
                    "install it again",
                )


def _not_installed(installed: Sequence[Distribution]) -> Iterator[Problem]:
    """Find entry points of projects in development that the installed metadata does not have."""
    roots = map(_editable_root, installed)
    for root in sorted(filter(None, {*roots, searched_directory()})):
        file = os.path.join(root, "pyproject.toml")
        try:
            with open(file, "rb") as content:
                project: Any = tomllib.load(content)["project"]
            wanted = dict(project["entry-points"][GROUP])
            name = str(project["name"])
        except (OSError, ValueError, LookupError, TypeError):
            continue  # Not one of ours, or not one that can be installed.
        known, points = None, metadata.EntryPoints()
        with suppress(Exception):  # It is not installed, or cannot be read.
            known = metadata.distribution(name)
            points = known.entry_points
        have = {point.name: point.value for point in points if point.group == GROUP}
        missing = [each for each, value in wanted.items() if have.get(each) != value]
        if missing:
            what = "is not installed" if known is None else "was installed without this"
            again = "" if known is None else " again"
            yield Problem(
                file,
                f"{', '.join(missing)}: {name} {what}, and only what is installed counts; "
                f"install it{again}: pip install -e {root}",
            )


def _reactor_imports(transforms: Iterable[Found]) -> Iterator[Problem]:
    """Find modules of transforms that choose the reactor of whoever imports them."""
    modules = {str(getattr(found.target, "__module__", None)) for found in transforms}
    for module in filter(None, map(sys.modules.get, sorted(modules))):
        try:
            file, tree = inspect.getsourcefile(module), ast.parse(inspect.getsource(module))
        except (OSError, TypeError, SyntaxError):
            continue  # Without source.
        line = _line_of_reactor_import(tree)
        if file and line is not None:
            yield Problem(
                file,
                "importing it chooses the reactor, which is for whoever runs the server to choose; "
                "import the reactor within the functions that use it",
                line,
            )


def _line_of_reactor_import(tree: ast.Module) -> int | None:
    """Return the line at which a module imports the reactor when it is imported itself."""
    todo: list[ast.AST] = [tree]
    while todo:
        node = todo.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            continue
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            names = []
        if any(f"{name}.".startswith("twisted.internet.reactor.") for name in names):
            return int(node.lineno)  # type: ignore[attr-defined]
        todo += ast.iter_child_nodes(node)
    return None
