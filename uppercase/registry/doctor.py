"""Why is mine not found? Where the registry looks, what is there, and what is wrong with it.

The faults of plugins come from a thorough listing; what this module adds are those of files and
installations, which hide plugins without a word from anybody.
"""

import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import Distribution, distributions
from json import loads
from typing import Final
from urllib.parse import unquote, urlsplit

import twisted

from uppercase.registry.catalogue import Listing, listing
from uppercase.registry.problems import Fault, Problem
from uppercase.registry.sources import GROUP, drop_ins_of_twisted

_DROP_INS: Final = os.path.join("twisted", "plugins")
_TWISTED: Final = os.path.realpath(os.path.dirname(twisted.__file__))
_CACHE: Final = "dropin.cache"


@dataclass(frozen=True)
class Diagnosis:
    """What the doctor found.

    Attributes:
        folders: each `twisted/plugins` that was searched, with its drop-ins but Twisted's own.
        beside: the one of the current directory, whether it is there or not; None where the
            current directory is not searched.
        entry_points: for each distribution that has some of ours, these.
        found: the listing, thorough.
        problems: all that is wrong.
    """

    folders: dict[str, list[str]]
    beside: str | None
    entry_points: dict[str, list[str]]
    found: Listing
    problems: list[Problem]


def diagnose() -> Diagnosis:
    """Look everywhere and at everything; imports all plugins."""
    found = listing(thorough=True)
    installed = list(distributions())
    problems = [
        *found.problems,
        *_package_files(),
        *_unwritten_caches(found.folders),
        *_hidden_by_editables(installed, found.folders),
    ]
    theirs = drop_ins_of_twisted()
    return Diagnosis(
        folders={
            folder: [
                name
                for name in _drop_ins(folder)
                if os.path.realpath(os.path.join(folder, name)) not in theirs
            ]
            for folder in found.folders
        },
        beside=None if sys.flags.safe_path else os.path.join(os.getcwd(), _DROP_INS),
        entry_points=_entry_points(installed),
        found=found,
        problems=problems,
    )


def _drop_ins(folder: str) -> list[str]:
    names = os.listdir(folder) if os.path.isdir(folder) else []
    return sorted(name for name in names if name.endswith(".py") and name != "__init__.py")


def _entry_points(installed: Sequence[Distribution]) -> dict[str, list[str]]:
    return {
        f"{distribution.name} {distribution.version}": points
        for distribution in installed
        if (points := [str(p.name) for p in distribution.entry_points if p.group == GROUP])
    }


def _package_files() -> Iterator[Problem]:
    """Find what turns somebody's `twisted/plugins` into a package, which Twisted passes over."""
    for entry in dict.fromkeys(map(os.path.abspath, [*sys.path, ""])):
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
                    Fault.PACKAGE,
                    file,
                    f"it makes {folder} a package, so that Twisted looks for no drop-ins in it; "
                    "delete this file",
                )


def _unwritten_caches(folders: Sequence[str]) -> Iterator[Problem]:
    """Find caches that the listing, just now, should have written and could not."""
    for folder in folders:
        files = [os.path.join(folder, name) for name in _drop_ins(folder)]
        cache = os.path.join(folder, _CACHE)
        newest = max(map(os.path.getmtime, files), default=None)
        if newest is None or (os.path.isfile(cache) and os.path.getmtime(cache) >= newest):
            continue
        yield Problem(
            Fault.CACHE,
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
            if _drop_ins(folder) and os.path.realpath(folder) not in searched:
                yield Problem(
                    Fault.EDITABLE,
                    folder,
                    f"the editable install of {distribution.name} does not show Twisted this "
                    "folder; announce the transform as an entry point, or tell setuptools "
                    'package-dir = {"" = "."} and install it again',
                )


def _editable_root(distribution: Distribution) -> str | None:
    text = distribution.read_text("direct_url.json")
    if text is None:
        return None
    origin = loads(text)
    if not origin.get("dir_info", {}).get("editable"):
        return None
    return unquote(urlsplit(origin["url"]).path)
