"""A transform that was found; its code may be named by a string, and imported when asked for."""

import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import cached_property
from importlib import import_module
from typing import Any, Final

from zope.interface.exceptions import Invalid
from zope.interface.verify import verifyObject

from uppercase.errors import BadArgument, PluginError, UppercaseError, suggest
from uppercase.interfaces import IStreamTransform, ITransform, ITransformPlugin
from uppercase.plugins.adapters import Kind
from uppercase.plugins.declare import adopt
from uppercase.plugins.parameters import Parameter, convert_arguments
from uppercase.registry.problems import NoSuchModule, from_exception, place_of, violations


@contextmanager
def current_directory() -> Iterator[str | None]:
    """Make the modules of the current directory importable for a while, before all others.

    `python -m` and gunicorn do so; scripts such as twistd do not. Gives the directory, or None
    where it is not searched: PYTHONSAFEPATH and `python -P` switch it off here as they do there.
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
    """Import what a reference, `module:attribute`, points at; both may be dotted."""
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
                    f"no module named {missing!r} for {reference!r}; install it or run in the "
                    "directory that holds it",
                ) from error
            problem = from_exception(error, _file_of(module_name))
            raise PluginError(f"{reference!r} cannot be loaded: {problem}") from error
    for name in path.split("."):
        try:
            found = getattr(found, name)
        except Exception as error:
            where = getattr(found, "__file__", None) or repr(found)
            raise PluginError(
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


_BUILT_INS: Final = "uppercase.transforms."
"""Where the code of the built-in transforms is."""


class Found:
    """A transform that was found: its name, its origin, and a plugin or a reference to its code.

    The origin is its file, the entry point and its distribution, or the reference. What is not
    known before the code is loaded is a property; it loads it, and may raise `PluginError`. What is
    known of a reference is `declared`, as for `uppercase.transform`: name, summary, streaming; and
    ascii, which is a reference, too.
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
        self._plugin = plugin
        self._declared = declared

    @cached_property
    def target(self) -> Any:
        """The object that it is about: what the reference points at, or the plugin."""
        return self._plugin if self._plugin is not None else load(self.reference)

    @cached_property
    def plugin(self) -> ITransformPlugin:
        """The plugin that it is or is made into."""
        if self._plugin is not None:
            return self._plugin
        target, ascii = self.target, self._declared.get("ascii")
        try:
            return adopt(target, **{**self._declared, "ascii": load(ascii) if ascii else None})
        except PluginError as error:
            raise PluginError(
                f"{self.reference!r} cannot be used: {place_of(target)}{error}"
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
        return str(self._declared.get("summary") or self.plugin.summary)

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        return tuple(self.plugin.parameters)

    @property
    def kind(self) -> Kind:
        """What its code works on; what does not say so takes the bytes as they are."""
        return getattr(self.plugin, "kind", Kind.BYTES)

    @property
    def streaming(self) -> bool:
        """Whether it works on an endless stream."""
        declared: bool | None = getattr(self.plugin, "streaming", None)
        if declared is None:
            # Nothing but the transform itself tells, where one can be made without arguments.
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
            f"  {self.summary}",
            f"  works on {self.kind.value}, {streams}; {source}",
        ]
        lines += [f"  {parameter.describe()}" for parameter in self.parameters]
        return "\n".join(lines)

    def build(self, texts: Iterable[tuple[str, str]] = ()) -> ITransform:
        """Make the transform; see `Listing.find`."""
        try:
            arguments = convert_arguments(self.parameters, texts)
            made: Any = self.plugin.build(**arguments)
            verifyObject(ITransform, made)
        except BadArgument as error:
            raise BadArgument(f"transform {self.name!r}: {error}") from error
        except UppercaseError:
            raise
        except Invalid as error:
            raise PluginError(
                f"transform {self.name!r} ({self.origin}) builds no ITransform: {place_of(made)}"
                f"{type(made).__name__} is none: {violations(error)}"
            ) from error
        except Exception as error:
            raise PluginError(
                f"transform {self.name!r} ({self.origin}) cannot be built: "
                f"{type(error).__name__}: {' '.join(str(error).split())}"
            ) from error
        transform: ITransform = made
        return transform
