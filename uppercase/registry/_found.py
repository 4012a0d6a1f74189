"""A transform that was found, or what is wrong with what was meant to be one.

Its code may be named by a string, and is imported when asked for. What is wrong is one sentence for
people with the likely fix; the traceback is kept beside it for those who ask.
"""

import inspect
import os
import sys
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from functools import cached_property, partial
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Final, cast

from zope.interface.exceptions import BrokenImplementation, BrokenMethodImplementation, Invalid
from zope.interface.verify import verifyObject

import uppercase.errors
from uppercase.errors import BadArgument, PluginError, UppercaseError, kind_of, line_of, suggest
from uppercase.interfaces import IStreamTransform, ITransform, ITransformPlugin
from uppercase.plugins import adopt
from uppercase.plugins.declared import ACCEPTED, Kind, Parameter, convert_arguments


def searched_directory() -> str | None:
    """Return the current directory; None where it is not searched, or has been removed.

    PYTHONSAFEPATH and `python -P` switch the search off here as they do in Python.
    """
    with suppress(FileNotFoundError):
        return None if sys.flags.safe_path else os.getcwd()
    return None


_kept: Final[set[str]] = set()
"""Directories that have been left at the end of the path."""


@contextmanager
def current_directory() -> Iterator[None]:
    """Make the modules of the current directory importable for a while, before all others.

    `python -m` and gunicorn do so; scripts such as twistd do not.
    """
    here = searched_directory()
    if here is None or "" in sys.path or (here in sys.path and here not in _kept):
        yield
        return
    sys.path.insert(0, here)
    try:
        yield
    finally:
        with suppress(ValueError):  # What was imported may have taken it out.
            sys.path.remove(here)


def load(reference: str) -> Any:
    """Import what a reference, `module:attribute`, points at; both may be dotted."""
    module_name, _, path = reference.partition(":")
    if not _is_dotted(f"{module_name}.{path}"):
        name = module_name.removeprefix("./").removesuffix(".py").replace(os.sep, ".")
        here = f", here {name}:{path}" if _is_dotted(f"{name}.{path}") else ""
        raise PluginError(f"got {reference!r}; a reference is written module:function{here}")
    # Not for a built-in, as what that imports must not be from there.
    with nullcontext() if reference.startswith(_BUILT_INS) else current_directory():
        try:
            found: Any = import_module(module_name)
        except (Exception, SystemExit) as error:
            missing = error.name if isinstance(error, ModuleNotFoundError) else None
            if missing is not None and f"{module_name}.".startswith(f"{missing}."):
                raise NoSuchModule(
                    f"no module named {missing!r} for {reference!r}; install it or run in the "
                    "folder that holds it"
                ) from error
            problem = from_exception(error, _file_of(module_name))
            raise PluginError(f"{reference!r} cannot be loaded: {problem}") from error
    for name in path.split("."):
        try:
            found = getattr(found, name)
        except (Exception, SystemExit) as error:
            # A module may say why, such as which extra is missing, in its `__getattr__`.
            why = "" if isinstance(error, AttributeError) else f" ({line_of(error)})"
            where = getattr(found, "__dict__", {}).get("__file__") or repr(found)
            raise PluginError(
                f"{reference!r} cannot be loaded: {where} has no {name!r}{why}"
                f"{suggest(name, _offered(found))}"
            ) from error
    return found


def _is_dotted(name: str) -> bool:
    return all(part.isidentifier() for part in name.split("."))


def _offered(owner: Any) -> list[str]:
    """Return the names of the functions and classes that a module, or a class, defines itself."""
    own = getattr(owner, "__dict__", {})
    home = own.get("__module__") or own.get("__name__")
    return [
        name
        for name, value in own.items()
        # The methods of built-in classes have no module.
        if callable(value)
        and not name.startswith("_")
        and getattr(value, "__module__", None) == home
    ]


def _file_of(module_name: str) -> str:
    """Return the file of a module that could not be imported, or else its name."""
    with suppress(Exception):  # The package that holds it may be what cannot be imported.
        if (spec := find_spec(module_name)) and spec.origin:
            return spec.origin
    return module_name


_BUILT_INS: Final = "uppercase.transforms."
"""Where the code of the built-in transforms is."""


class Found:
    """A transform that was found: its name, its origin, and a plugin or a reference to its code.

    The origin is its file, the entry point and its distribution, or the reference. What is
    `declared` of a reference is as for `uppercase.transform`, but `ascii` is a reference, too. A
    property that needs the code loads it, and may raise `PluginError`.
    """

    def __init__(
        self,
        origin: str,
        plugin: ITransformPlugin | None = None,
        *,
        reference: str = "",
        **declared: Any,
    ) -> None:
        self.origin = origin
        self.reference = reference
        self._declared = declared
        if plugin is not None:
            self.target = self.plugin = plugin

    @cached_property
    def target(self) -> Any:
        """The object that it is about: what the reference points at, or the plugin."""
        return load(self.reference)

    @cached_property
    def plugin(self) -> ITransformPlugin:
        """The plugin that it is or is made into."""
        target, ascii = self.target, self._declared.get("ascii")
        try:
            plugin = adopt(target, **{**self._declared, "ascii": load(ascii) if ascii else None})
            if fault := fault_of_plugin(plugin, self.reference.partition(":")[2]):
                raise PluginError(fault)
            return plugin
        except PluginError as error:
            raise PluginError(
                f"{self.reference!r} cannot be used: {_place_of(target)}{error}"
            ) from error
        except (Exception, SystemExit) as error:
            # What stands for another object may fail whatever it is asked.
            raise PluginError(
                f"{self.reference!r} cannot be used: asked what it is, it raised {kind_of(error)}"
            ) from error

    @property
    def built_in(self) -> bool:
        return self.reference.startswith(_BUILT_INS)

    @property
    def provenance(self) -> str:
        """Where it comes from, for those who did not write it."""
        return "built in" if self.built_in else self.origin

    @property
    def name(self) -> str:
        return str(self._declared.get("name") or self.plugin.name)

    @property
    def summary(self) -> str:
        """One line, whatever it says of itself."""
        return " ".join(str(self._declared.get("summary") or self.plugin.summary).split())

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        return tuple(self.plugin.parameters)

    @property
    def kind(self) -> Kind:
        """What its code works on: the bytes as they are, unless it says otherwise."""
        kind = getattr(self.plugin, "kind", None)
        return kind if isinstance(kind, Kind) else Kind.BYTES

    @property
    def streaming(self) -> bool:
        """Whether it works on an endless stream."""
        declared: bool | None = getattr(self.plugin, "streaming", None)
        if declared is None:
            # Only the transform itself tells, where one can be made without arguments.
            needs = any(parameter.required for parameter in self.parameters)
            return not needs and IStreamTransform.providedBy(self.build())
        return declared

    def describe(self) -> str:
        """Return it with its arguments and where it comes from, for people."""
        usage = "".join(f":{parameter.name}=..." for parameter in self.parameters)
        source = self.provenance if self.built_in else f"from {self.origin}"
        streams = "streams" if self.streaming else "needs whole messages"
        lines = [
            f"{self.name}{usage}",
            *([f"  {self.summary}"] if self.summary else []),
            f"  works on {self.kind.value}, {streams}; {source}",
        ]
        lines += [f"  {parameter.describe()}" for parameter in self.parameters]
        return "\n".join(lines)

    def build(self, segments: Iterable[str] = ()) -> ITransform:
        """Make the transform, of arguments such as `shift=3`; see `Listing.find`."""
        try:
            arguments = convert_arguments(self.parameters, map(self._split, segments))
            self._keep_importable()
            made: Any = self.plugin.build(**arguments)
            verifyObject(ITransform, made)
        except BadArgument as error:
            raise BadArgument(f"transform {self.name!r}: {error}") from error
        except UppercaseError:
            raise
        except Invalid as error:
            raise PluginError(
                f"transform {self.name!r} ({self.origin}) builds no ITransform: {_place_of(made)}"
                f"{type(made).__name__} is not one: {_violations(error)}"
            ) from error
        except (Exception, SystemExit) as error:
            raise PluginError(
                f"transform {self.name!r} ({self.origin}) cannot be built: {kind_of(error)}"
            ) from error
        return cast(ITransform, made)

    def _keep_importable(self) -> None:
        """Leave the current directory on the path if it is from there.

        When it is called it may import more, and in processes that it spawns it is imported anew.
        At the end, as what others import then must not be from there.
        """
        here = searched_directory()
        if here is None or here in sys.path or "" in sys.path:
            return
        module = sys.modules.get(self.reference.partition(":")[0].partition(".")[0])
        files = [
            self.origin,
            str(getattr(module, "__file__", "")),
            *getattr(module, "__path__", ()),
        ]
        if {here, os.path.join(here, "twisted", "plugins")} & set(map(os.path.dirname, files)):
            _kept.add(here)
            sys.path.append(here)

    def _split(self, segment: str) -> tuple[str, str]:
        key, equals, value = segment.partition("=")
        if not equals or not key:
            raise BadArgument(
                f"got {segment!r}; arguments are written key=value, as in {self.name}:key=value"
            )
        return key, value


_OURS: Final = os.path.join(os.path.dirname(uppercase.errors.__file__), "")
"""A frame of ours says what was checked, not where the fault is."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One fault of one plugin; `file` is the one to look at, or the entry point's description."""

    file: str
    message: str
    line: int | None = None
    traceback: str = field(default="", repr=False)

    def __str__(self) -> str:
        place = self.file if self.line is None else f"{self.file}, line {self.line}"
        return f"{place}: {self.message}"

    @classmethod
    def about(cls, thing: object, file: str, message: str) -> "Problem":
        """Return a problem at the line of the file where a thing, or its class, is defined."""
        place = _definition(thing)
        return cls(file, message, place[1] if place is not None and place[0] == file else None)


class NoSuchModule(PluginError):
    """The module of a reference does not exist."""


def from_exception(error: BaseException, file: str) -> Problem:
    """Describe what importing a plugin raised."""
    text = "".join(traceback.format_exception(error))
    if isinstance(error, SyntaxError):
        message = f"syntax error: {error.msg}; it is not loaded"
        return Problem(error.filename or file, message, error.lineno, text)
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith(("<frozen", _OURS))
    ]
    line = next((frame.lineno for frame in reversed(frames) if frame.filename == file), None)
    message = _explain(error)
    if line is not None and frames[-1].filename != file:
        message += f" (raised in {frames[-1].filename}, line {frames[-1].lineno})"
    return Problem(file, message, line, text)


def _explain(error: BaseException) -> str:
    said = line_of(error)
    if isinstance(error, UppercaseError):
        return said
    if isinstance(error, ImportError):
        install = "install it or " if isinstance(error, ModuleNotFoundError) else ""
        return f"{said}; {install}correct the import"
    if isinstance(error, SystemExit):
        return "it ends the program when it is imported (SystemExit); take that out"
    return f"importing it raised {kind_of(error)}"


def _place_of(thing: object) -> str:
    """Return where a thing or its class is defined, as the beginning of a sentence."""
    place = _definition(thing)
    return "" if place is None else f"{place[0]}, line {place[1]}: "


def _definition(thing: Any) -> tuple[str | None, int] | None:
    try:
        definition = inspect.unwrap(thing.func if isinstance(thing, partial) else thing)
        if not (inspect.isclass(definition) or inspect.isfunction(definition)):
            definition = type(definition)
        file, line = inspect.getsourcefile(definition), inspect.getsourcelines(definition)[1]
        # Since Python 3.13 what `-c` runs has lines, which are not those of other code without any.
        return None if file == "<string>" else (file, line)
    except Exception:  # It has no source, or fails when it is asked.
        return None


def fault_of_plugin(plugin: Any, label: str) -> str | None:
    """Say what keeps an object from being the plugin that it says it is."""
    try:
        verifyObject(ITransformPlugin, plugin)
        foreign = [
            item
            for item in plugin.parameters
            if not (isinstance(item, Parameter) and (item.choices or item.type in ACCEPTED))
        ]
    except Invalid as error:
        return f"{label} does not keep to ITransformPlugin: {_violations(error)}"
    except (Exception, SystemExit) as error:
        return f"{label} raised {kind_of(error)}"
    if not foreign:
        return None
    return (
        f"{label} has {foreign[0]!r} among its parameters; "
        "uppercase.plugins.Parameter is accepted, of int, float, bool or str, or with choices"
    )


def _violations(error: Invalid) -> str:
    """Say what an object lacks of an interface, in an author's words."""
    return ", ".join(map(_violation, getattr(error, "exceptions", (error,))))


def _violation(error: Any) -> str:
    if isinstance(error, BrokenImplementation):
        parameters = getattr(error.name, "getSignatureString", str)()  # "" of an attribute
        return f"it has no {error.name.__name__}{parameters}"
    if isinstance(error, BrokenMethodImplementation):
        name = error.method.__name__
        return f"its {name} cannot be called as {name}{error.method.getSignatureString()}"
    return line_of(error)
