"""Plugins whose code is named by a string, `module:attribute`, and imported when asked for."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cached_property
from importlib import import_module
from typing import Any

from twisted.plugin import IPlugin
from zope.interface import implementer

from uppercase.errors import PluginError, suggest
from uppercase.interfaces import ITransform, ITransformPlugin
from uppercase.plugins.declare import adopt
from uppercase.registry.problems import CannotLoad, Fault, NoSuchModule, from_exception, place_of

__all__ = ["ReferencedPlugin", "current_directory", "load"]


@contextmanager
def current_directory() -> Iterator[str | None]:
    """Make the modules of the current directory importable for a while, before all others.

    `python -m` and gunicorn do so; scripts such as twistd do not. PYTHONSAFEPATH and `python -P`
    switch it off here as they do there.

    Returns:
        The directory, or None where it is not searched.
    """
    try:
        here = None if sys.flags.safe_path else os.getcwd()
    except FileNotFoundError:  # It was removed.
        here = None
    if here is None or here in sys.path or "" in sys.path:
        yield here
        return
    sys.path.insert(0, here)
    try:
        yield here
    finally:
        with suppress(ValueError):  # What was imported may have taken it out.
            sys.path.remove(here)


def load(reference: str) -> Any:
    """Import what a reference points at.

    Args:
        reference: `module:attribute`; both may be dotted.

    Raises:
        NoSuchModule: its module does not exist.
        PluginError: it cannot be had; the text names the file and the likely fix.
    """
    module_name, _, path = reference.partition(":")
    if not all(part.isidentifier() for part in f"{module_name}.{path}".split(".")):
        raise PluginError(f"got {reference!r}; a reference is written module:function")
    with current_directory():
        try:
            found: Any = import_module(module_name)
        except (Exception, SystemExit) as error:
            missing = error.name if isinstance(error, ModuleNotFoundError) else None
            if missing is not None and f"{module_name}.".startswith(f"{missing}."):
                raise NoSuchModule(
                    Fault.IMPORT,
                    f"no module named {missing!r} for {reference!r}; install it or run in the "
                    "directory that holds it",
                ) from error
            problem = from_exception(error, _file_of(module_name))
            raise CannotLoad(problem.fault, f"{reference!r} cannot be loaded: {problem}") from error
    for name in path.split("."):
        try:
            found = getattr(found, name)
        except Exception as error:
            where = getattr(found, "__file__", None) or repr(found)
            raise CannotLoad(
                Fault.IMPORT,
                f"{reference!r} cannot be loaded: {where} has no {name!r}"
                f"{suggest(name, _offered(found))}",
            ) from error
    return found


def _offered(owner: Any) -> list[str]:
    """Return the names of the functions and classes that a module, or a class, defines itself."""
    home = getattr(owner, "__module__", None) or getattr(owner, "__name__", None)
    return [
        name
        for name, value in vars(owner).items()
        if callable(value) and not name.startswith("_") and value.__module__ == home
    ]


def _file_of(module_name: str) -> str:
    """Return the file of a module that could not be imported, or else its name."""
    from importlib.util import find_spec

    try:
        spec = find_spec(module_name)
    except Exception:  # The package that holds it cannot be imported.
        spec = None
    return spec.origin if spec and spec.origin else module_name


@implementer(ITransformPlugin, IPlugin)
class ReferencedPlugin:
    """A plugin made of what a reference points at.

    Args:
        reference: `module:attribute`.
        name: what users type; without it, what the code declares, which loads it.
        summary: one line; without it, what the code declares, which loads it.
        streaming: as for `uppercase.transform`.
        ascii: a reference to a function, as for `uppercase.transform`.
    """

    def __init__(
        self,
        reference: str,
        *,
        name: str | None = None,
        summary: str | None = None,
        streaming: bool = False,
        ascii: str = "",
    ) -> None:
        self.reference = reference
        self._name = name
        self._summary = summary
        self._streaming = streaming
        self._ascii = ascii

    def __repr__(self) -> str:
        return f"<transform {self._name or self.reference!r} by reference {self.reference!r}>"

    @cached_property
    def target(self) -> Any:
        """The object that the reference points at; loads it."""
        return load(self.reference)

    @cached_property
    def plugin(self) -> ITransformPlugin:
        """The plugin that it is or is made into; loads it.

        Raises:
            PluginError: it cannot be loaded or breaks a rule of declarations.
        """
        target = self.target
        ascii = load(self._ascii) if self._ascii else None
        try:
            return adopt(
                target,
                name=self._name,
                summary=self._summary,
                streaming=self._streaming,
                ascii=ascii,
            )
        except PluginError as error:
            raise PluginError(
                f"{self.reference!r} cannot be used: {place_of(target)}{error}"
            ) from error

    @property
    def name(self) -> str:
        """What users type."""
        return self.plugin.name if self._name is None else self._name

    @property
    def summary(self) -> str:
        """One line for a listing."""
        return self.plugin.summary if self._summary is None else self._summary

    @property
    def parameters(self) -> Any:
        """Its arguments; loads it."""
        return self.plugin.parameters

    def build(self, **arguments: Any) -> ITransform:
        """Make the transform; loads it."""
        return self.plugin.build(**arguments)
