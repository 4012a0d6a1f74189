"""The first door: drop-ins in `twisted/plugins/`.

Twisted searches the `twisted/plugins` folders on `sys.path`; the one beside the current directory
is added here for the time of a scan. Twisted logs a drop-in that cannot be imported and goes on;
the scan collects what it logs.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from traceback import extract_tb
from typing import TYPE_CHECKING, Any, Final

import twisted.plugins
from twisted.logger import ILogObserver, LogEvent, LogLevel, globalLogPublisher
from twisted.plugin import CachedDropin, IPlugin, getCache
from twisted.python import log
from twisted.python.components import registerAdapter
from twisted.python.modules import getModule
from zope.interface import implementer

from uppercase.interfaces import ITransformPlugin
from uppercase.registry._checks import check, near_misses, stale
from uppercase.registry.problems import Fault, Problem, from_exception
from uppercase.registry.references import ReferencedPlugin, current_directory

__all__ = ["DropIns", "drop_ins_of_twisted", "scan"]

if TYPE_CHECKING:
    from twisted.plugins.uppercase_transforms import TransformByName

_PACKAGE: Final = twisted.plugins.__name__
_BUILT_INS_MISSING: Final = Problem(
    Fault.HIDDEN,
    "uppercase_transforms.py",
    None,
    "the drop-in of the built-in transforms is in no twisted/plugins folder on sys.path; install "
    "uppercase again",
)


@cache
def _adapt_names() -> None:
    """Adapt plugins that are strings, which the drop-in of the built-ins defines."""
    from twisted.plugins.uppercase_transforms import ITransformByName

    registerAdapter(_by_name, ITransformByName, ITransformPlugin)


def _by_name(names: "TransformByName") -> ReferencedPlugin:
    return ReferencedPlugin(
        names.reference,
        name=names.name,
        summary=names.summary,
        streaming=names.streaming,
        ascii=names.ascii,
    )


@dataclass
class DropIns:
    """What a scan found.

    Attributes:
        folders: the `twisted/plugins` folders that were searched, in order.
        plugins: each plugin with its file.
        problems: what is wrong.
    """

    folders: list[str] = field(default_factory=list)
    plugins: list[tuple[ITransformPlugin, str]] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    def note(self, problem: Problem) -> None:
        """Add a problem unless it is known: Twisted may try a module twice."""
        if str(problem) not in map(str, self.problems):
            self.problems.append(problem)


def scan(*, thorough: bool = False) -> DropIns:
    """Look for plugins in all drop-ins.

    Args:
        thorough: import every drop-in, but Twisted's own, and look for what Twisted passes over in
            silence.
    """
    found = DropIns()
    with current_directory() as here, _beside(here):
        files = {
            module.name: str(module.filePath.path) for module in getModule(_PACKAGE).iterModules()
        }
        found.folders = [str(path) for path in twisted.plugins.__path__ if os.path.isdir(path)]
        try:
            _adapt_names()
        except ImportError:
            found.note(_BUILT_INS_MISSING)
        dropins, failures = _read_cache()
        for error in failures:
            found.note(from_exception(error, _file_in(error, files)))
        for dropin in dropins.values():
            file = files.get(dropin.moduleName, dropin.moduleName)
            for label, candidate in _candidates(dropin):
                _take(label, candidate, file, found)
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
                    _find_near_misses(module_name, file, known, found)
    return found


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


def _take(label: str, candidate: Any, file: str, found: DropIns) -> None:
    """Load one plugin if it is one of ours, and check it."""
    try:
        plugin = ITransformPlugin(candidate, None)
    except AttributeError as error:
        found.note(stale(label, file) if error.name == label else from_exception(error, file))
    except (Exception, SystemExit) as error:
        found.note(from_exception(error, file))
    else:
        if plugin is not None:
            fault = check(plugin, label, file)
            if fault is None:
                found.plugins.append((plugin, file))
            else:
                found.note(fault)


def _find_hidden_files(found: DropIns) -> None:
    """Note drop-ins that Twisted never sees: one of the same file name comes before."""
    first: dict[str, str] = {}
    for folder in found.folders:
        for name in sorted(os.listdir(folder)):
            file = os.path.join(folder, name)
            shown = first.setdefault(name, file) if name.endswith(".py") else file
            if name != "__init__.py" and not os.path.samefile(shown, file):
                found.note(
                    Problem(
                        Fault.HIDDEN,
                        file,
                        None,
                        f"{shown} has the same file name and hides it; rename one of them",
                    )
                )


def _find_near_misses(
    module_name: str, file: str, known: set[tuple[str, str]], found: DropIns
) -> None:
    """Import a drop-in and note what was probably meant to be a plugin."""
    try:
        module = import_module(module_name)
        for problem in near_misses(module, file, known):
            found.note(problem)
    except (Exception, SystemExit) as error:
        found.note(from_exception(error, file))
