"""The exercises: those of the lecture, those that other packages announce, those in TOML files.

Another package's is what `@exercise` made, behind an entry point of the group
`uppercase.exercises`. A broken one is a sentence, and does not keep the others away.
"""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from uppercase.classroom.exercises._clients import CLIENTS
from uppercase.classroom.exercises._servers import SERVERS
from uppercase.classroom.grade import Exercise
from uppercase.core.values import printable
from uppercase.errors import UnknownName, UserError, kind_of, suggest
from uppercase.registry import announced

GROUP: Final = "uppercase.exercises"

_KEYS: Final = {"base": str, "summary": str, "points": dict, "texts": dict, "options": dict}


def find_exercises() -> tuple[Mapping[str, Exercise], Mapping[str, str]]:
    """Return all exercises by name, and a sentence for each that is broken."""
    ours = {each.name: each for each in (*SERVERS, *CLIENTS)}
    found: dict[str, Exercise] = {**ours}
    points, problems = announced(GROUP)
    broken = {each.file: str(each) for each in problems}
    for entry in points:
        origin = f"{entry.name} ({entry.value}, {GROUP})"
        try:
            loaded = entry.load()
        except (Exception, SystemExit) as error:
            broken[entry.name] = f"{origin} cannot be loaded: {kind_of(error)}"
            continue
        if not isinstance(loaded, Exercise):
            broken[entry.name] = (
                f"{origin} is {type(loaded).__name__}; a class with @exercise is accepted"
            )
        elif not loaded.checks:
            broken[entry.name] = f"{origin} has no check; methods with @check are accepted"
        # A distribution may be found twice, as one that is installed in editable mode.
        elif found.setdefault(entry.name, loaded) is not loaded:
            broken[entry.name] = f"{origin}: the name is taken; another one is accepted"
    # Of several with one name, chance would decide by which a program is graded.
    return {name: found[name] for name in found if name in ours or name not in broken}, broken


def find_exercise(name: str) -> Exercise:
    """Return an exercise by its name, or of a TOML file."""
    found, broken = find_exercises()
    if name.endswith(".toml"):
        return _read(Path(name), found)
    if name in found:
        return found[name]
    if name in broken:
        raise UserError(broken[name])
    raise UnknownName(f"no exercise named {name!r}{suggest(name, found)}")


def _read(path: Path, known: Mapping[str, Exercise]) -> Exercise:
    """Return the exercise of a TOML file: one of the others, with what the file changes."""
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not TOML: {error}") from error
    for key, value in table.items():
        if key not in _KEYS:
            raise UserError(
                f"{path} has {key!r}{suggest(key, _KEYS)}; the keys are {', '.join(_KEYS)}"
            )
        if not isinstance(value, _KEYS[key]):
            kind = "a table" if _KEYS[key] is dict else "a text"
            raise UserError(f"{path}: {key} is {value!r}; {kind} is accepted")
    base = table.pop("base", "")
    if base not in known:
        raise UserError(f"{path}: base is {base!r}; one of {', '.join(known)} is accepted")
    try:
        return known[base].changed(printable(path.stem), **table)
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
