"""All plugins together: the listing, and the way from what a user writes to a transform."""

import os
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

from zope.interface.exceptions import Invalid
from zope.interface.verify import verifyObject

from uppercase.core.values import split_escaped, unescape
from uppercase.errors import (
    BadArgument,
    NameClash,
    PluginError,
    UnknownName,
    UppercaseError,
    suggest,
)
from uppercase.interfaces import IStreamTransform, ITransform, ITransformPlugin
from uppercase.plugins.adapters import Kind
from uppercase.plugins.parameters import Parameter, convert_arguments
from uppercase.registry import _entry_points as entry_points
from uppercase.registry import _sources as dropins
from uppercase.registry.problems import (
    Fault,
    NoSuchModule,
    Problem,
    from_exception,
    place_of,
    violations,
)
from uppercase.registry.references import ReferencedPlugin

__all__ = ["Found", "Listing", "find", "listing", "lookup", "maker"]


@dataclass(frozen=True, slots=True)
class Found:
    """A plugin and where it comes from.

    What a plugin does not say before its code is loaded is a property here, and may raise
    `PluginError`.

    Attributes:
        name: what users type.
        plugin: the plugin.
        origin: its file, the entry point and its distribution, or the reference.
    """

    name: str
    plugin: ITransformPlugin
    origin: str

    @property
    def summary(self) -> str:
        """One line for a listing."""
        return self.plugin.summary

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """Its arguments."""
        return tuple(self.plugin.parameters)

    @property
    def kind(self) -> Kind:
        """What its code works on; what does not say so takes the bytes as they are."""
        return getattr(self._loaded, "kind", Kind.BYTES)

    @property
    def streaming(self) -> bool:
        """Whether it works on an endless stream."""
        declared: bool | None = getattr(self._loaded, "streaming", None)
        if declared is None:
            # Nothing but the transform itself tells, where one can be made without arguments.
            needs = any(parameter.required for parameter in self.parameters)
            return not needs and IStreamTransform.providedBy(self.build())
        return declared

    @property
    def _loaded(self) -> ITransformPlugin:
        plugin = self.plugin
        return plugin.plugin if isinstance(plugin, ReferencedPlugin) else plugin

    def build(self, texts: Iterable[tuple[str, str]] = ()) -> ITransform:
        """Make the transform.

        Args:
            texts: arguments as a user writes them, pairs of name and value.

        Raises:
            BadArgument: an argument is unknown, missing or not acceptable.
            PluginError: the code cannot be loaded or makes no transform.
        """
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


@dataclass(frozen=True, slots=True)
class Listing:
    """All that was found.

    Attributes:
        transforms: by name, in order of names.
        problems: what is wrong, clashes included.
        clashes: for each name that is refused, the sentence that says why.
        folders: the `twisted/plugins` folders that were searched, in order.
    """

    transforms: dict[str, Found]
    problems: list[Problem]
    clashes: dict[str, str]
    folders: list[str]


def listing(*, thorough: bool = False) -> Listing:
    """Find all plugins that are announced, through the first two doors.

    Args:
        thorough: also import all drop-ins and what the entry points name, so that whatever is
            wrong with them is among the problems.
    """
    scanned = dropins.scan(thorough=thorough)
    announced, problems = entry_points.scan()
    problems = [*scanned.problems, *problems]
    by_name: dict[str, list[Found]] = {}
    for plugin, origin in [*scanned.plugins, *announced]:
        problem = _loading_problem(plugin, origin) if thorough else None
        if problem is None:
            by_name.setdefault(plugin.name, []).append(Found(plugin.name, plugin, origin))
        else:
            problems.append(problem)
    transforms: dict[str, Found] = {}
    clashes: dict[str, str] = {}
    for name, claims in sorted(by_name.items()):
        distinct = _distinct(claims)
        if len(distinct) > 1:
            origins = " and ".join(sorted({claim.origin for claim in distinct}))
            message = (
                f"{len(distinct)} transforms are named {name!r}, in {origins}; rename all but one"
            )
            clashes[name] = message
            problems.append(Problem(Fault.CLASH, distinct[0].origin, None, message))
        elif distinct:
            transforms[name] = distinct[0]
    return Listing(transforms, problems, clashes, scanned.folders)


def _loading_problem(plugin: ITransformPlugin, origin: str) -> Problem | None:
    if isinstance(plugin, ReferencedPlugin):
        try:
            _ = plugin.plugin
        except PluginError as error:
            return from_exception(error, origin)
    return None


def _distinct(claims: list[Found]) -> list[Found]:
    """Drop repeats of one plugin; what several doors announce has to be loaded to see that.

    Twisted's order depends on its cache, so the origins decide which of the repeats stays.
    """
    if len(claims) == 1:
        return claims
    by_origin = sorted(claims, key=lambda claim: claim.origin, reverse=True)
    return list({id(_target(claim.plugin)): claim for claim in by_origin}.values())


def _target(plugin: ITransformPlugin) -> object:
    """Return the object that a plugin is about; what cannot be loaded is like nothing else."""
    if isinstance(plugin, ReferencedPlugin):
        try:
            return plugin.target
        except PluginError:
            return plugin
    return plugin


def lookup(name: str) -> Found:
    """Find a plugin by its name or by reference, `module:function`.

    Raises:
        UnknownName: there is none.
        NameClash: there are several of this name.
        PluginError: the reference cannot be loaded.
    """
    found, rest = _resolve(name)
    if rest:
        raise BadArgument(f"got {name!r}; a name without arguments is expected here")
    return found


def find(specification: str) -> ITransform:
    r"""Make the transform that a user asks for.

    Args:
        specification: `name[:key=value...]` or `module:function[:key=value...]`. In a value, `\:`
            stands for a colon and `\\` for a backslash.

    Raises:
        UnknownName: nothing has this name.
        BadArgument: an argument is unknown, missing or not acceptable.
        NameClash: several plugins have this name.
        PluginError: the code cannot be loaded.
    """
    return maker(specification)()


def maker(specification: str) -> Callable[[], ITransform]:
    """Return what makes the transform that a user asks for, a new one at each call.

    Args:
        specification: as for `find`, and with its exceptions.
    """
    found, rest = _resolve(specification)
    return partial(found.build, _pairs(found.name, rest))


def _resolve(specification: str) -> tuple[Found, list[str]]:
    """Return the plugin and the segments that follow its name."""
    name, *rest = split(specification)
    known = listing()
    if name in known.transforms:
        return known.transforms[name], rest
    if name in known.clashes:
        raise NameClash(known.clashes[name])
    if not rest or "=" in rest[0]:
        raise UnknownName(_unknown(name, known))
    plugin = ReferencedPlugin(f"{name}:{rest[0]}")
    try:
        return Found(plugin.name, plugin, f"{name}:{rest[0]}"), rest[1:]
    except NoSuchModule as error:
        raise UnknownName(_unknown(name, known, "no transform and no module")) from error


def _unknown(name: str, known: Listing, missing: str = "no transform") -> str:
    module, _, rest = name.removesuffix(".py").partition(".")
    if not sys.flags.safe_path and os.path.isfile(f"{module}.py"):
        hint = f"; a function of {module}.py is written {module}:{rest or 'FUNCTION'}"
    else:
        hint = suggest(name, known.transforms)
    text = f"{missing} named {name!r}{hint}"
    broken = [str(problem) for problem in known.problems if problem.fault is not Fault.CLASH]
    if len(broken) > 1:
        likely = next((sentence for sentence in broken if name in sentence), broken[0])
        broken = [likely, f"{len(broken) - 1} more: uppercase transforms doctor"]
    return f"{text} (not loaded: {'; '.join(broken)})" if broken else text


def split(specification: str) -> list[str]:
    r"""Split at each colon; `\:` stands for a colon and `\\` for a backslash."""
    return [unescape(field, only=":\\") for field in split_escaped(specification)]


def _pairs(name: str, segments: list[str]) -> list[tuple[str, str]]:
    pairs = []
    for segment in segments:
        key, equals, value = segment.partition("=")
        if not equals or not key:
            raise BadArgument(
                f"transform {name!r}: got {segment!r}; arguments are written key=value, as in "
                f"{name}:key=value"
            )
        pairs.append((key, value))
    return pairs
