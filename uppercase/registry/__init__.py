"""Where transforms come from: one registry with three doors.

1. Drop-ins in `twisted/plugins/`, installed or beside the current directory; the built-ins too.
2. The entry-point group `uppercase.transforms`.
3. References, `module:function`, to code that nothing announces.

    listing().find("caesar:shift=3").transform(b"abc")

A broken plugin is a `Problem` in the listing and never stops the others. The order in which
things are found decides nothing: two plugins with the same name are refused. This package must not
import the reactor.
"""

import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from itertools import chain
from typing import NamedTuple

from uppercase.core.pipeline import Stage
from uppercase.core.values import printable, split_escaped, unescape
from uppercase.errors import BadArgument, NameClash, PluginError, UnknownName, UserError, suggest
from uppercase.interfaces import ITransform, ITransformPlugin
from uppercase.plugins import adopt
from uppercase.registry import _sources
from uppercase.registry._found import Found, NoSuchModule, Problem, from_exception
from uppercase.registry._sources import announced

__all__ = ["Found", "Listing", "Problem", "announced", "listing", "summaries"]


class Listing(NamedTuple):
    """All that one scan of the doors found, and what it knows of what a user writes.

    The transforms are in order of their names, the `twisted/plugins` folders in that of the search.
    `clashes` is what is wrong with each name that several plugins have, `broken` all the rest.
    """

    transforms: dict[str, Found]
    clashes: dict[str, list[Problem]]
    broken: list[Problem]
    folders: list[str]

    @property
    def problems(self) -> list[Problem]:
        return [*self.broken, *chain.from_iterable(self.clashes.values())]

    def lookup(self, name: str) -> Found:
        """Find a transform by its name or by reference, `module:function`; fails as `find`."""
        found, rest = self._resolve(name)
        if rest:
            raise BadArgument(f"got {name!r}; a name without arguments is expected here")
        return found

    def find(self, wanted: object) -> ITransform:
        r"""Make the transform that somebody asks for.

        It is asked for as `name[:key=value...]` or `module:function[:key=value...]`; in a value,
        `\:` stands for a colon and `\\` for a backslash. Or it is a decorated or plain function or
        class, a plugin, an `ITransform`.

        Raises:
            UnknownName: nothing has this name.
            BadArgument: an argument is unknown, missing or not acceptable.
            NameClash: several plugins have this name.
            PluginError: the code cannot be loaded, or is not a transform.
        """
        return self.maker(wanted)()

    def maker(self, wanted: object) -> Callable[[], ITransform]:
        """Return what makes the transform that somebody asks for, a new one at each call."""
        if isinstance(wanted, str):
            found, rest = self._resolve(wanted)
            return partial(found.build, rest)
        if ITransform.providedBy(wanted) and not ITransformPlugin.providedBy(wanted):
            return lambda: wanted
        return Found("this program", adopt(wanted)).build

    def is_async(self, wanted: str) -> bool:
        """Return whether what somebody asks for is a coroutine function; make it only if needed."""
        found, rest = self._resolve(wanted)
        declared: bool | None = getattr(found.plugin, "is_async", None)
        if declared is None:
            # Only the transform itself tells. Imported here: it takes tens of milliseconds.
            from uppercase.awaiting import is_async

            return is_async(found.build(rest))
        return declared

    def stages(self, wanted: Sequence[object]) -> list[Stage]:
        """Make a chain's transforms, each with the name that errors and logs use."""
        if isinstance(wanted, str) or not wanted:
            raise UserError(
                f"got {wanted!r} as transforms; a list is accepted, such as ['uppercase']"
            )
        return [Stage(_name(each), self.find(each)) for each in wanted]

    def _resolve(self, specification: str) -> tuple[Found, list[str]]:
        """Return what has this name, and the segments that follow the name."""
        name, *rest = (unescape(field, ":\\") for field in split_escaped(specification))
        if name in self.transforms:
            return self.transforms[name], rest
        if name in self.clashes:
            raise NameClash(self.clashes[name][0].message)
        if not rest or "=" in rest[0]:
            raise UnknownName(self._unknown(name))
        reference = f"{name}:{rest[0]}"
        found = Found(reference, reference=reference)
        try:
            _ = found.plugin
        except NoSuchModule as error:
            where = "; install it or run in the folder that holds it"
            raise UnknownName(self._unknown(name, "no transform and no module", where)) from error
        return found, rest[1:]

    def _unknown(self, name: str, missing: str = "no transform", where: str = "") -> str:
        module, _, rest = name.removeprefix("./").removesuffix(".py").partition(".")
        if os.path.isfile(f"{module}.py"):
            hint = f"; a function of {module}.py is written {module}:{rest or 'FUNCTION'}"
            if sys.flags.safe_path:
                hint = "; PYTHONSAFEPATH or python -P excludes the current folder"
        else:
            hint = suggest(name, self.transforms)
            hint = where if where and not hint.endswith("?") else hint
        text = f"{missing} named {name!r}{hint}"
        broken = [str(problem) for problem in self.broken]
        if len(broken) > 1:
            likely = next((sentence for sentence in broken if name in sentence), broken[0])
            broken = [likely, f"{len(broken) - 1} more: uppercase transforms doctor"]
        return f"{text} (not loaded: {'; '.join(broken)})" if broken else text

    def describe(self) -> str:
        """Return a line for each transform, then one for each that cannot be used and why."""
        width = max((len(name) for name in self.transforms), default=0)
        lines, broken = ["Transforms:"], [*map(str, self.problems)]
        for name, found in self.transforms.items():
            try:
                lines.append(f"  {name:<{width}}  {found.summary}")
            except PluginError as error:
                broken.append(f"{name}: {error}")
        if broken:
            lines += ["", "Cannot be used:", *(f"  {each}" for each in broken)]
        return "\n".join(lines)


def listing(*, thorough: bool = False) -> Listing:
    """Find all plugins that are announced, through the first two doors.

    A thorough one imports all drop-ins and what the entry points name, so that whatever is wrong
    with them is among the problems.
    """
    scanned = _sources.Scan(thorough=thorough)
    by_name: dict[str, list[Found]] = {}
    for found in scanned.transforms:
        try:
            if thorough:
                _ = found.plugin
        except PluginError as error:
            scanned.note(from_exception(error, found.origin))
        else:
            by_name.setdefault(found.name, []).append(found)
    transforms: dict[str, Found] = {}
    clashes: dict[str, list[Problem]] = {}
    for name, claims in sorted(by_name.items()):
        distinct = _distinct(claims)
        built_in = [claim for claim in distinct if claim.built_in]
        if built_in:
            # A name that everybody knows must not stop working because of what else is installed.
            message = (
                f"the name {name!r} is that of a built-in transform, which keeps it; rename this "
                "one, or serve it as module:function"
            )
            clashes[name] = [
                Problem(other.origin, message) for other in distinct if other not in built_in
            ]
            transforms[name] = built_in[0]
        elif len(distinct) > 1:
            count, origins = len(distinct), " and ".join(sorted({each.origin for each in distinct}))
            message = (
                f"{count} transforms are named {name!r}, in {origins}; rename all but one, or "
                "serve one as module:function"
            )
            clashes[name] = [Problem(distinct[0].origin, message)]
        else:
            transforms[name] = distinct[0]
    return Listing(transforms, clashes, [*scanned.problems.values()], scanned.folders)


def _name(wanted: object) -> str:
    """Return what errors and logs call a transform: as a user wrote it, or its own name."""
    name = wanted if isinstance(wanted, str) else getattr(wanted, "name", None)
    return printable(str(name or getattr(wanted, "__name__", None) or type(wanted).__name__))


def _distinct(claims: list[Found]) -> list[Found]:
    """Drop repeats of one plugin; what several doors announce has to be loaded to see that.

    Twisted's order depends on its cache, so the origins decide which of the repeats stays.
    """
    if len(claims) == 1:
        return claims
    by_origin = sorted(claims, key=lambda claim: claim.origin, reverse=True)
    return list({id(_target(claim)): claim for claim in by_origin}.values())


def _target(found: Found) -> object:
    """Return the object that it is about; what cannot be loaded equals nothing else."""
    with suppress(PluginError):
        return found.target
    return found


def summaries() -> dict[str, str]:
    """Scan, and return what each transform that can be used does, by its name."""
    found = {}
    for name, transform in listing().transforms.items():
        with suppress(PluginError):
            found[name] = transform.summary
    return found
