"""The doors through which transforms are announced: drop-ins and entry points.

Twisted searches the `twisted/plugins` folders on `sys.path`; the one beside the current directory
is added here for the time of a scan. Twisted logs a drop-in that cannot be imported and goes on;
the scan collects what it logs. Of entry points the metadata of the installed distributions is read;
nothing of them is imported.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from traceback import extract_tb
from typing import Any, Final

import twisted.plugins
from twisted.logger import ILogObserver, LogEvent, LogLevel, globalLogPublisher
from twisted.plugin import CachedDropin, IPlugin, getCache
from twisted.python import log
from twisted.python.modules import getModule
from zope.interface import implementer

from uppercase.interfaces import ITransformPlugin
from uppercase.registry.problems import (
    Problem,
    fault_of_name,
    fault_of_plugin,
    from_exception,
    near_misses,
    stale,
)
from uppercase.registry.references import Found, current_directory

GROUP: Final = "uppercase.transforms"
"""The entry points that announce transforms."""

_PACKAGE: Final = twisted.plugins.__name__


@dataclass
class Scan:
    """What the doors showed: folders in the order of the search, what is there, what is wrong."""

    folders: list[str] = field(default_factory=list)
    transforms: list[Found] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    def note(self, problem: Problem) -> None:
        """Add a problem unless it is known: Twisted may try a module twice."""
        if str(problem) not in map(str, self.problems):
            self.problems.append(problem)

    def take(self, transform: Found, problem: Problem | None) -> None:
        """Add a transform, or what is wrong with it."""
        if problem is None:
            self.transforms.append(transform)
        else:
            self.note(problem)


def scan(*, thorough: bool = False) -> Scan:
    """Look through both doors.

    Thoroughly means to import every drop-in but Twisted's own, and to look for what it passes over.
    """
    found = Scan()
    _scan_drop_ins(found, thorough=thorough)
    _scan_entry_points(found)
    return found


def _scan_drop_ins(found: Scan, *, thorough: bool) -> None:
    with current_directory() as here, _beside(here):
        files = {
            module.name: str(module.filePath.path) for module in getModule(_PACKAGE).iterModules()
        }
        found.folders = [str(path) for path in twisted.plugins.__path__ if os.path.isdir(path)]
        try:
            # Invariant: it is imported before the cache is read, so that a scan looks at what the
            # module holds and not at what the cache says.
            from twisted.plugins.uppercase_transforms import ITransformByName
        except ImportError:
            by_name: Any = None
            message = (
                "the drop-in of the built-in transforms is in no twisted/plugins folder on "
                "sys.path; install uppercase again"
            )
            found.note(Problem("uppercase_transforms.py", message))
        else:
            by_name = ITransformByName
        dropins, failures = _read_cache()
        for error in failures:
            found.note(from_exception(error, _file_in(error, files)))
        for dropin in dropins.values():
            file = files.get(dropin.moduleName, dropin.moduleName)
            for label, candidate in _candidates(dropin):
                _take(label, candidate, by_name, file, found)
        if thorough:
            known = {
                (dropin.moduleName, cached.name)
                for dropin in dropins.values()
                for cached in dropin.plugins
            }
            _find_hidden_files(found)
            theirs = drop_ins_of_twisted()
            for module_name, file in files.items():
                if os.path.realpath(file) not in theirs:
                    _find_near_misses(module_name, file, by_name, known, found)


@cache
def drop_ins_of_twisted() -> frozenset[str]:
    """Return the files of Twisted's own drop-ins; none where its installation does not tell."""
    from importlib.metadata import PackageNotFoundError, files

    try:
        installed = files("twisted") or ()
    except PackageNotFoundError:
        installed = ()
    folder = os.path.join(os.path.realpath(os.path.dirname(twisted.__file__)), "plugins")
    return frozenset(
        os.path.join(folder, file.name)
        for file in installed
        if file.parent.parts == ("twisted", "plugins")
    )


@contextmanager
def _beside(here: str | None) -> Iterator[None]:
    """Make `./twisted/plugins` one of Twisted's folders, unless it is one or is a real package."""
    folder = os.path.join(here or "", *_PACKAGE.split("."))
    path: list[str] = twisted.plugins.__path__
    if (
        here is None
        or not os.path.isdir(folder)
        or os.path.exists(os.path.join(folder, "__init__.py"))
        or os.path.realpath(folder) in map(os.path.realpath, path)
    ):
        yield
        return
    path.append(folder)
    try:
        yield
    finally:
        path.remove(folder)


def _read_cache() -> tuple[dict[str, Any], list[BaseException]]:
    """Return Twisted's record of all drop-ins and the exceptions that it logs meanwhile.

    The sentence of a problem takes the place of a traceback. So they are logged as a detail, as
    critical events would go to standard error as long as logging has not begun, and without words,
    which log files leave out.
    """
    failures: list[BaseException] = []

    @implementer(ILogObserver)
    def observe(event: LogEvent) -> None:
        failure = event.get("log_failure") or event.get("failure")
        if failure is not None:
            failures.append(failure.value)

    globalLogPublisher.addObserver(observe)
    try:
        silent = {"log_level": LogLevel.debug, "log_format": ""}
        dropins = log.callWithContext(silent, getCache, twisted.plugins)
    finally:
        globalLogPublisher.removeObserver(observe)
    return dropins, failures


def _file_in(error: BaseException, files: dict[str, str]) -> str:
    """Return the drop-in that an exception went through."""
    if isinstance(error, SyntaxError) and error.filename is not None:
        return error.filename
    frames = {frame.filename for frame in extract_tb(error.__traceback__)}
    return next((file for file in files.values() if file in frames), _PACKAGE)


def _candidates(dropin: CachedDropin) -> list[tuple[str, Any]]:
    """Return the plugins of a drop-in, or what the cache says of one that is not imported yet.

    The cache can be out of date: Twisted compares times of files, which some installers (uv, for
    one) set to the past. Ours is always imported, so an upgrade shows all of it.
    """
    module = sys.modules.get(dropin.moduleName)
    if module is None:
        return [(cached.name, cached) for cached in dropin.plugins]
    return [
        (label, value) for label, value in list(vars(module).items()) if IPlugin.providedBy(value)
    ]


def _take(label: str, candidate: Any, by_name: Any, file: str, found: Scan) -> None:
    """Load one plugin if it is one of ours, and check it."""
    try:
        names = None if by_name is None else by_name(candidate, None)
        plugin = None if names is not None else ITransformPlugin(candidate, None)
    except AttributeError as error:
        found.note(stale(label, file) if error.name == label else from_exception(error, file))
    except (Exception, SystemExit) as error:
        found.note(from_exception(error, file))
    else:
        if names is not None:
            said = {attribute: getattr(names, attribute) for attribute in by_name}
            found.take(Found(file, **said), fault_of_name(names.name, label, file))
        elif plugin is not None:
            found.take(Found(file, plugin), fault_of_plugin(plugin, label, file))


def _find_hidden_files(found: Scan) -> None:
    """Note drop-ins that Twisted never sees: one of the same file name comes before."""
    first: dict[str, str] = {}
    for folder in found.folders:
        for name in sorted(os.listdir(folder)):
            file = os.path.join(folder, name)
            shown = first.setdefault(name, file) if name.endswith(".py") else file
            if name != "__init__.py" and not os.path.samefile(shown, file):
                message = f"{shown} has the same file name and hides it; rename one of them"
                found.note(Problem(file, message))


def _find_near_misses(
    module_name: str, file: str, by_name: Any, known: set[tuple[str, str]], found: Scan
) -> None:
    """Import a drop-in and note what was probably meant to be a plugin."""
    try:
        module = import_module(module_name)
        for problem in near_misses(module, file, by_name, known):
            found.note(problem)
    except (Exception, SystemExit) as error:
        found.note(from_exception(error, file))


def _scan_entry_points(found: Scan) -> None:
    # Imported here: Twisted does not import it, and it costs milliseconds.
    from importlib.metadata import entry_points

    for point in entry_points(group=GROUP):
        origin = f"entry point of {point.dist.name} {point.dist.version}" if point.dist else GROUP
        transform = Found(origin, reference=f"{point.module}:{point.attr}", name=point.name)
        found.take(transform, fault_of_name(point.name, f"{point.name} = {point.value}", origin))
