"""What is wrong with a plugin, or with what was meant to be one, as a record for people.

The message is one sentence with the likely fix; the traceback is kept beside it for those who ask.
"""

import inspect
import os
import traceback
from dataclasses import dataclass, field
from inspect import isclass
from types import ModuleType
from typing import Any, Final

from twisted.plugin import IPlugin
from zope.interface.exceptions import BrokenImplementation, BrokenMethodImplementation, Invalid
from zope.interface.verify import verifyObject

import uppercase.errors
from uppercase.errors import PluginError, UppercaseError
from uppercase.interfaces import ITransform, ITransformPlugin
from uppercase.plugins.declare import is_name
from uppercase.plugins.parameters import Parameter

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
    said = " ".join(str(error).split())
    if isinstance(error, UppercaseError):
        return said
    if isinstance(error, ImportError):
        install = "install it or " if isinstance(error, ModuleNotFoundError) else ""
        return f"{said}; {install}correct the import"
    if isinstance(error, SystemExit):
        return "it ends the program when it is imported (SystemExit); take that out"
    return f"importing it raised {type(error).__name__}{': ' if said else ''}{said}"


def line_of(thing: object, file: str) -> int | None:
    """Return the line of a file where a class or function, or an object's class, is defined."""
    place = _definition(thing)
    return place[1] if place is not None and place[0] == file else None


def place_of(thing: object) -> str:
    """Return where a thing or its class is defined, as the beginning of a sentence, or ""."""
    place = _definition(thing)
    return "" if place is None else f"{place[0]}, line {place[1]}: "


def _definition(thing: object) -> tuple[str | None, int] | None:
    definition: Any = inspect.unwrap(thing) if callable(thing) else thing
    if not (inspect.isclass(definition) or inspect.isfunction(definition)):
        definition = type(definition)
    try:
        return inspect.getsourcefile(definition), inspect.getsourcelines(definition)[1]
    except (OSError, TypeError):
        return None


def violations(error: Invalid) -> str:
    """Say what an object lacks of an interface, in an author's words."""
    return ", ".join(map(_violation, getattr(error, "exceptions", (error,))))


def _violation(error: Exception) -> str:
    if isinstance(error, BrokenImplementation):
        return f"it has no {_spelling(error.name)}"
    if isinstance(error, BrokenMethodImplementation):
        return f"its {error.method.__name__} cannot be called as {_spelling(error.method)}"
    return " ".join(str(error).split())


def _spelling(member: Any) -> str:
    """Return the name of an interface's attribute, a method's with its parameters."""
    signature = getattr(member, "getSignatureString", str)()
    return f"{member.__name__}{signature}"


def fault_of_plugin(plugin: Any, label: str, place: str) -> Problem | None:
    """Tell what is wrong with an object that claims to be a plugin."""
    try:
        verifyObject(ITransformPlugin, plugin)
        foreign = [item for item in plugin.parameters if not isinstance(item, Parameter)]
    except Invalid as error:
        message = f"{label} does not keep to ITransformPlugin: {violations(error)}"
    except Exception as error:
        said = " ".join(str(error).split())
        message = f"{label} raised {type(error).__name__}: {said}"
    else:
        if not foreign:
            return fault_of_name(plugin.name, label, place, plugin)
        message = (
            f"{label} has {foreign[0]!r} among its parameters; "
            "uppercase.plugins.Parameter is accepted"
        )
    return Problem(place, message, line_of(plugin, place))


def fault_of_name(name: object, label: str, place: str, plugin: object = None) -> Problem | None:
    """Tell what is wrong with the name of a transform, which may not be loaded yet."""
    if is_name(name):
        return None
    return Problem(
        place,
        f"{label} has the name {name!r}; lower-case letters, digits and single hyphens "
        "are accepted",
        # Only now: finding a line reads and parses a source file.
        line_of(plugin, place),
    )


def stale(label: str, file: str) -> Problem:
    """Describe an object of a drop-in that Twisted's cache does not know as it is."""
    cache = os.path.join(os.path.dirname(file), "dropin.cache")
    return Problem(file, f"{label} is not what {cache} says; delete that file")


def why_no_plugin(label: str, value: Any, module: ModuleType, by_name: Any) -> str | None:
    """Return why what may have been meant as a plugin is none; None if it is one, else ""."""
    if isclass(value):
        is_ours = ITransformPlugin.implementedBy(value) or ITransform.implementedBy(value)
        made = any(isinstance(other, value) for other in vars(module).values())
        if not is_ours or value.__module__ != module.__name__ or made:
            return ""
        return (
            f"{label} is a class and no instance of it is here; add one, such as "
            f"{label.lower()} = {label}()"
        )
    if by_name is not None and by_name.providedBy(value):
        return None
    if ITransformPlugin(value, None) is not None:
        if IPlugin.providedBy(value):
            return None
        return (
            f"{label} provides ITransformPlugin but not twisted.plugin.IPlugin; declare "
            "its class with @implementer(ITransformPlugin, IPlugin)"
        )
    if ITransform.providedBy(value):
        return (
            f"{label} provides ITransform but not ITransformPlugin, which has the name; "
            "declare it with @transform or implement both ITransformPlugin and IPlugin"
        )
    return ""
