"""The first door: drop-ins in `twisted/plugins/`.

Twisted searches the `twisted/plugins` folders on `sys.path`; the one beside the current directory
is added here for the time of a scan. Twisted logs a drop-in that cannot be imported and goes on;
the scan collects what it logs.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from inspect import isclass
from traceback import extract_tb
from types import ModuleType
from typing import Any

import twisted.plugins
from twisted.logger import ILogObserver, LogEvent, LogLevel, globalLogPublisher
from twisted.plugin import CachedPlugin, IPlugin, getCache
from twisted.plugins.uppercase_transforms import ITransformByName, TransformByName
from twisted.python import log
from twisted.python.components import registerAdapter
from twisted.python.modules import getModule
from zope.interface import implementer
from zope.interface.verify import verifyObject

from uppercase.declare import is_name
from uppercase.interfaces import ITransform, ITransformPlugin
from uppercase.registry.problems import Fault, Problem, from_exception, line_of
from uppercase.registry.references import ReferencedPlugin, current_directory

__all__ = ["DropIns", "check", "scan"]

_PACKAGE = twisted.plugins.__name__


def _by_name(names: TransformByName) -> ReferencedPlugin:
    return ReferencedPlugin(
        names.reference,
        name=names.name,
        summary=names.summary,
        streaming=names.streaming,
        ascii=names.ascii,
    )


registerAdapter(_by_name, ITransformByName, ITransformPlugin)


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
        thorough: import every drop-in and look for what Twisted passes over in silence.
    """
    found = DropIns()
    with current_directory() as here, _beside(here):
        files = {
            module.name: str(module.filePath.path) for module in getModule(_PACKAGE).iterModules()
        }
        found.folders = [str(path) for path in twisted.plugins.__path__ if os.path.isdir(path)]
        cache, failures = _read_cache()
        for error in failures:
            found.note(from_exception(error, _file_in(error, files)))
        for dropin in cache.values():
            for cached in dropin.plugins:
                _take(cached, files.get(dropin.moduleName, dropin.moduleName), found)
        if thorough:
            known = {
                (dropin.moduleName, cached.name)
                for dropin in cache.values()
                for cached in dropin.plugins
            }
            _find_hidden_files(found)
            for module_name, file in files.items():
                _find_near_misses(module_name, file, known, found)
    return found


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
    """Give Twisted's record of all drop-ins and the exceptions that it logs meanwhile.

    They are logged as a detail: as long as logging has not begun, critical events would go to
    standard error with their tracebacks.
    """
    failures: list[BaseException] = []

    @implementer(ILogObserver)
    def observe(event: LogEvent) -> None:
        failure = event.get("log_failure") or event.get("failure")
        if failure is not None:
            failures.append(failure.value)

    globalLogPublisher.addObserver(observe)
    try:
        cache = log.callWithContext({"log_level": LogLevel.debug}, getCache, twisted.plugins)
    finally:
        globalLogPublisher.removeObserver(observe)
    return cache, failures


def _file_in(error: BaseException, files: dict[str, str]) -> str:
    """Give the drop-in that an exception went through."""
    if isinstance(error, SyntaxError) and error.filename is not None:
        return error.filename
    frames = {frame.filename for frame in extract_tb(error.__traceback__)}
    return next((file for file in files.values() if file in frames), _PACKAGE)


def _take(cached: CachedPlugin, file: str, found: DropIns) -> None:
    """Load one cached plugin if it is one of ours, and check it."""
    try:
        plugin = ITransformPlugin(cached, None)
    except AttributeError as error:
        if error.name == cached.name:
            found.note(_stale(cached.name, file))
        else:
            found.note(from_exception(error, file))
    except (Exception, SystemExit) as error:
        found.note(from_exception(error, file))
    else:
        if plugin is not None:
            fault = check(plugin, cached.name, file)
            if fault is None:
                found.plugins.append((plugin, file))
            else:
                found.note(fault)


def check(plugin: Any, label: str, place: str) -> Problem | None:
    """Tell what is wrong with an object that claims to be a plugin.

    Args:
        plugin: the object.
        label: what it is called where it was found.
        place: where it was found.
    """
    line = line_of(plugin, place)
    if not isinstance(plugin, ReferencedPlugin):
        # Not for ours: reading the parameters would import the code.
        try:
            verifyObject(ITransformPlugin, plugin)
        except Exception as error:
            said = " ".join(str(error).split())
            return Problem(Fault.INTERFACE, place, line, f"{label}: {said}")
    if not is_name(plugin.name):
        return Problem(
            Fault.NAME,
            place,
            line,
            f"{label} has the name {plugin.name!r}; lower-case letters, digits and single hyphens "
            "are accepted",
        )
    return None


def _stale(label: str, file: str) -> Problem:
    cache = os.path.join(os.path.dirname(file), "dropin.cache")
    return Problem(Fault.STALE, file, None, f"{label} is not what {cache} says; delete that file")


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
        for problem in _near_misses(module, file, known):
            found.note(problem)
    except (Exception, SystemExit) as error:
        found.note(from_exception(error, file))


def _near_misses(module: ModuleType, file: str, known: set[tuple[str, str]]) -> Iterator[Problem]:
    values = dict(vars(module))
    for label, value in values.items():
        line = line_of(value, file)
        if isclass(value):
            is_ours = ITransformPlugin.implementedBy(value) or ITransform.implementedBy(value)
            made = any(isinstance(other, value) for other in values.values())
            if is_ours and value.__module__ == module.__name__ and not made:
                yield Problem(
                    Fault.NOT_INSTANTIATED,
                    file,
                    line,
                    f"{label} is a class and no instance of it is here; add one, such as "
                    f"{label.lower()} = {label}()",
                )
        elif ITransformPlugin.providedBy(value):
            if not IPlugin.providedBy(value):
                yield Problem(
                    Fault.NOT_PLUGIN,
                    file,
                    line,
                    f"{label} provides ITransformPlugin but not twisted.plugin.IPlugin; declare "
                    "its class with @implementer(ITransformPlugin, IPlugin)",
                )
            elif (module.__name__, label) not in known:
                yield _stale(label, file)
        elif ITransform.providedBy(value):
            yield Problem(
                Fault.NOT_PLUGIN,
                file,
                line,
                f"{label} provides ITransform but not ITransformPlugin, which has the name; "
                "declare it with @transform or implement both ITransformPlugin and IPlugin",
            )
