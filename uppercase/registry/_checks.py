"""What is wrong with an object that is, or was meant to be, a plugin."""

import os
from collections.abc import Iterator
from inspect import isclass
from types import ModuleType
from typing import Any

from twisted.plugin import IPlugin
from zope.interface.exceptions import Invalid
from zope.interface.verify import verifyObject

from uppercase.interfaces import ITransform, ITransformPlugin
from uppercase.plugins.declare import is_name
from uppercase.plugins.parameters import Parameter
from uppercase.registry.problems import Fault, Problem, line_of, violations
from uppercase.registry.references import ReferencedPlugin

__all__ = ["check", "near_misses", "stale"]


def check(plugin: Any, label: str, place: str) -> Problem | None:
    """Tell what is wrong with an object that claims to be a plugin.

    Args:
        plugin: the object.
        label: what it is called where it was found.
        place: where it was found.
    """
    wrong = _what_is_wrong(plugin, label)
    if wrong is None:
        return None
    fault, message = wrong
    # Only now: finding a line reads and parses a source file.
    return Problem(fault, place, line_of(plugin, place), message)


def _what_is_wrong(plugin: Any, label: str) -> tuple[Fault, str] | None:
    if not isinstance(plugin, ReferencedPlugin):
        # One by reference is ours, and reading its parameters would import the code.
        try:
            verifyObject(ITransformPlugin, plugin)
            foreign = [item for item in plugin.parameters if not isinstance(item, Parameter)]
        except Invalid as error:
            said = violations(error)
            return Fault.INTERFACE, f"{label} does not keep to ITransformPlugin: {said}"
        except Exception as error:
            said = " ".join(str(error).split())
            return Fault.INTERFACE, f"{label} raised {type(error).__name__}: {said}"
        if foreign:
            return (
                Fault.INTERFACE,
                f"{label} has {foreign[0]!r} among its parameters; "
                "uppercase.plugins.Parameter is accepted",
            )
    if not is_name(plugin.name):
        return (
            Fault.NAME,
            f"{label} has the name {plugin.name!r}; lower-case letters, digits and single hyphens "
            "are accepted",
        )
    return None


def stale(label: str, file: str) -> Problem:
    """Describe an object of a drop-in that Twisted's cache does not know as it is."""
    cache = os.path.join(os.path.dirname(file), "dropin.cache")
    return Problem(Fault.STALE, file, None, f"{label} is not what {cache} says; delete that file")


def near_misses(module: ModuleType, file: str, known: set[tuple[str, str]]) -> Iterator[Problem]:
    """Tell what in a drop-in was probably meant to be a plugin, and why it is none.

    Args:
        module: the drop-in.
        file: its file.
        known: module and object names of the plugins that Twisted sees.
    """
    values = dict(vars(module))
    for label, value in values.items():
        if isclass(value):
            is_ours = ITransformPlugin.implementedBy(value) or ITransform.implementedBy(value)
            made = any(isinstance(other, value) for other in values.values())
            if is_ours and value.__module__ == module.__name__ and not made:
                yield Problem(
                    Fault.NOT_INSTANTIATED,
                    file,
                    line_of(value, file),
                    f"{label} is a class and no instance of it is here; add one, such as "
                    f"{label.lower()} = {label}()",
                )
        elif ITransformPlugin(value, None) is not None:
            if not IPlugin.providedBy(value):
                yield Problem(
                    Fault.NOT_PLUGIN,
                    file,
                    line_of(value, file),
                    f"{label} provides ITransformPlugin but not twisted.plugin.IPlugin; declare "
                    "its class with @implementer(ITransformPlugin, IPlugin)",
                )
            elif (module.__name__, label) not in known:
                yield stale(label, file)
        elif ITransform.providedBy(value):
            yield Problem(
                Fault.NOT_PLUGIN,
                file,
                line_of(value, file),
                f"{label} provides ITransform but not ITransformPlugin, which has the name; "
                "declare it with @transform or implement both ITransformPlugin and IPlugin",
            )
