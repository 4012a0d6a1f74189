"""The doors through which transforms are announced: drop-ins and entry points.

Twisted searches the `twisted/plugins` folders on `sys.path`; the one beside the current directory
is added here for the time of a scan. Twisted logs a drop-in that cannot be imported and goes on;
the scan collects what it logs. Entry points are read from the metadata of installed distributions;
nothing of them is imported.
"""

import os
import sys
from contextlib import ExitStack, suppress
from importlib import import_module
from importlib.machinery import PathFinder
from inspect import isclass
from itertools import chain
from pathlib import Path
from traceback import extract_tb
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final

import twisted.plugins
from twisted.logger import ILogObserver, LogEvent, LogLevel, globalLogPublisher
from twisted.plugin import CachedDropin, IPlugin, getCache
from twisted.python import log
from twisted.python.modules import getModule
from zope.interface import implementer

from uppercase.errors import line_of
from uppercase.interfaces import ITransform, ITransformPlugin
from uppercase.plugins import fault_of_name
from uppercase.registry._found import (
    Found,
    Problem,
    current_directory,
    fault_of_plugin,
    from_exception,
    searched_directory,
)

if TYPE_CHECKING:
    from importlib.metadata import Distribution, EntryPoint

GROUP: Final = "uppercase.transforms"
"""The entry points that announce transforms."""

_PACKAGE: Final = twisted.plugins.__name__


class Scan:
    """What both doors showed: folders in the order of the search, what is there, what is wrong.

    A thorough one imports every drop-in except Twisted's own, and looks for what that passes over.
    """

    def __init__(self, *, thorough: bool) -> None:
        self.folders: list[str] = []
        self.transforms: list[Found] = []
        self.problems: dict[str, Problem] = {}
        self._by_name: Any = lambda candidate, default: default
        with _beside():
            self._scan_drop_ins(thorough)
        self._scan_entry_points()

    def note(self, problem: Problem) -> None:
        """Add a problem unless it is known: Twisted may try a module twice."""
        self.problems.setdefault(str(problem), problem)

    def _scan_drop_ins(self, thorough: bool) -> None:
        modules = getModule(_PACKAGE).iterModules()
        files = {module.name: str(module.filePath.path) for module in modules}
        self.folders += [str(path) for path in twisted.plugins.__path__ if os.path.isdir(path)]
        try:
            # Invariant: it is imported before the cache is read, so that a scan looks at what the
            # module holds and not at what the cache says.
            from twisted.plugins.uppercase_transforms import ITransformByName
        except ImportError:
            message = (
                "the drop-in of the built-in transforms is in no twisted/plugins folder on "
                "sys.path; install uppercase again"
            )
            self.note(Problem("uppercase_transforms.py", message))
        else:
            self._by_name = ITransformByName
        dropins, failures = _read_cache()
        for error in failures:
            # The drop-in that it went through.
            frames = {frame.filename for frame in extract_tb(error.__traceback__)}
            file = next((each for each in files.values() if each in frames), _PACKAGE)
            self.note(from_exception(error, file))
        for dropin in dropins.values():
            file = files.get(dropin.moduleName, dropin.moduleName)
            for label, candidate in _candidates(dropin):
                self._take(label, candidate, file)
        if thorough and dropins:
            self._find_hidden_files()
            theirs = drop_ins_of_twisted()
            known = {each.moduleName: {p.name for p in each.plugins} for each in dropins.values()}
            for name, file in files.items():
                if os.path.realpath(file) not in theirs:
                    self._find_near_misses(name, file, known.get(name, set()))

    def _take(self, label: str, candidate: Any, file: str) -> None:
        try:
            names = self._by_name(candidate, None)
            plugin = ITransformPlugin(candidate, None)
        except AttributeError as error:
            self.note(_stale(label, file) if error.name == label else from_exception(error, file))
        except (Exception, SystemExit) as error:
            self.note(from_exception(error, file))
        else:
            if names is not None:
                said = {attribute: getattr(names, attribute) for attribute in self._by_name}
                self._add(Found(file, **said), fault_of_name(names.name, label))
            elif plugin is not None:
                fault = fault_of_plugin(plugin, label) or fault_of_name(plugin.name, label)
                self._add(Found(file, plugin), fault, plugin)

    def _add(self, transform: Found, fault: str | None, plugin: object = None) -> None:
        if fault is None:
            self.transforms.append(transform)
        else:
            self.note(Problem.about(plugin, transform.origin, fault))

    def _find_hidden_files(self) -> None:
        """Note drop-ins that Twisted never sees: one with the same file name comes before."""
        first: dict[str, Path] = {}
        for file in chain.from_iterable(map(drop_ins, self.folders)):
            shown = first.setdefault(file.name, file)
            if not shown.samefile(file):
                message = f"{shown} has the same file name and hides it; rename one of them"
                self.note(Problem(str(file), message))

    def _find_near_misses(self, module_name: str, file: str, known: set[str]) -> None:
        """Import a drop-in; note what was probably meant to be a plugin, and why it is not one."""
        try:
            module = import_module(module_name)
            for label, value in list(vars(module).items()):
                if IPlugin.providedBy(value) and label not in known:
                    self.note(_stale(label, file))
                elif fault := _why_no_plugin(label, value, module):
                    self.note(Problem.about(value, file, fault))
        except (Exception, SystemExit) as error:
            self.note(from_exception(error, file))

    def _scan_entry_points(self) -> None:
        finders = [each for each in sys.meta_path if hasattr(each, "find_distributions")]
        if finders == [PathFinder] and not any(map(_may_announce, sys.path)):
            return
        points, problems = announced(GROUP)
        for problem in problems:
            self.note(problem)
        for point in points:
            # As it is written: importlib.metadata has no module of what is no reference.
            reference = ":".join(map(str.strip, point.value.partition("[")[0].split(":")))
            origin = f"entry point of {title(point.dist)}" if point.dist else GROUP
            transform = Found(origin, reference=reference, name=point.name)
            label = f"{point.name} = {point.value}"
            self._add(transform, fault_of_name(point.name, label))


def announced(group: str) -> "tuple[list[EntryPoint], list[Problem]]":
    """Return a group's entry points; one distribution whose cannot be read must not hide others."""
    # Imported here: Twisted does not import it, and it takes tens of milliseconds.
    from importlib.metadata import distributions, entry_points

    with suppress(Exception):
        return list(entry_points(group=group)), []
    points: list[EntryPoint] = []
    problems = []
    for each in distributions():
        try:
            points += each.entry_points.select(group=group)
        except Exception as error:
            message = f"they cannot be read ({line_of(error)}); correct the project's, and "
            problems.append(Problem(f"entry points of {title(each)}", f"{message}install it again"))
    return points, problems


def title(distribution: "Distribution") -> str:
    """Return a distribution's name and version; what is left of one may have neither."""
    with suppress(Exception):
        about = distribution.metadata  # It is read anew each time.
        if name := about["Name"]:
            return f"{name} {about['Version']}"
    return f"a distribution without metadata in {distribution.locate_file('')}"


def drop_ins(folder: str) -> list[Path]:
    """Return the files of a folder's drop-ins, without links to nowhere, such as Emacs' locks."""
    files = sorted(Path(folder).glob("*.py"))
    return [file for file in files if file.name != "__init__.py" and file.exists()]


def _stale(label: str, file: str) -> Problem:
    """Describe an object of a drop-in that Twisted's cache does not know as it is."""
    cache = os.path.join(os.path.dirname(file), "dropin.cache")
    return Problem(file, f"{label} is not what {cache} says; delete that file")


def _why_no_plugin(label: str, value: Any, module: ModuleType) -> str | None:
    if isclass(value):
        is_one = ITransformPlugin.implementedBy(value) or ITransform.implementedBy(value)
        # By their types, as of `typing.Any`, for one, nobody may ask what its instances are.
        made = any(value in type(other).__mro__ for other in vars(module).values())
        if not is_one or value.__module__ != module.__name__ or made:
            return None
        return (
            f"{label} is a class and no instance of it is here; add one, such as "
            f"{label.lower()} = {label}()"
        )
    is_plugin = ITransformPlugin(value, None) is not None
    if is_plugin and not IPlugin.providedBy(value):
        return (
            f"{label} provides ITransformPlugin but not twisted.plugin.IPlugin; declare "
            "its class with @implementer(ITransformPlugin, IPlugin)"
        )
    if not is_plugin and ITransform.providedBy(value):
        return (
            f"{label} provides ITransform but not ITransformPlugin, which has the name; "
            "declare it with @transform or implement both ITransformPlugin and IPlugin"
        )
    return None


def _may_announce(place: str) -> bool:
    """Whether a distribution that is installed at a place may have entry points of ours."""
    try:
        names = os.listdir(place or os.curdir)
    except NotADirectoryError:  # An archive, into which only `importlib.metadata` looks.
        return True
    except OSError:
        return False
    for name in names:
        if name.lower().endswith((".dist-info", "egg-info")):
            with suppress(OSError), open(os.path.join(place, name, "entry_points.txt"), "rb") as it:
                if GROUP.encode() in it.read():
                    return True
    return False


def drop_ins_of_twisted() -> set[str]:
    """Return the files of Twisted's own drop-ins; none where its installation does not tell."""
    from importlib.metadata import distributions

    return {
        os.path.realpath(str(file.locate()))
        for distribution in distributions(name="twisted")
        for file in distribution.files or ()
        if file.parent.name == "plugins"
    }


def _beside() -> ExitStack:
    """Make `./twisted/plugins` one of Twisted's folders, unless it is one or is a real package.

    Where there is none, nothing of the current folder is imported: its `queue.py` is not Python's.
    """
    folder = os.path.join(searched_directory() or os.devnull, *_PACKAGE.split("."))
    path: list[str] = twisted.plugins.__path__
    beside = ExitStack()
    if (
        os.path.isdir(folder)
        and not os.path.exists(os.path.join(folder, "__init__.py"))
        and os.path.realpath(folder) not in map(os.path.realpath, path)
    ):
        beside.enter_context(current_directory())
        path.append(folder)
        beside.callback(path.remove, folder)
    return beside


def _read_cache() -> tuple[dict[str, Any], list[BaseException]]:
    """Return Twisted's record of all drop-ins and the exceptions that it logs meanwhile.

    A problem's sentence takes the place of the traceback. So they are logged as a detail, because
    critical events go to standard error until logging begins, and without text, which log files
    leave out.
    """
    failures: list[BaseException] = []

    @implementer(ILogObserver)
    def observe(event: LogEvent) -> None:
        failure: Any = event.get("failure")
        trace = failure and failure.value.__traceback__
        # Others are a drop-in's own words, or about the record, as there can be none in an archive.
        if trace and trace.tb_frame.f_code is getCache.__code__ and trace.tb_next:
            failures.append(failure.value)

    globalLogPublisher.addObserver(observe)
    try:
        silent = {"log_level": LogLevel.debug, "log_format": ""}
        dropins = log.callWithContext(silent, getCache, twisted.plugins)
    except (Exception, SystemExit) as error:
        # It gives up at an object that fails when it is asked whether it is a plugin.
        return {}, [*failures, error]
    finally:
        globalLogPublisher.removeObserver(observe)
    return dropins, failures


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
