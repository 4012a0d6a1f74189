"""A transform's arguments: read from a signature, described for help, converted from text.

The keyword-only parameters of an author's function or class are the arguments that users write as
`name:key=value`. This module reads signatures and converts values: an author's mistake raises
`PluginError`, a user's `BadArgument`. It must not call the author's code.
"""

import inspect
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from difflib import get_close_matches
from enum import Enum
from types import NoneType, UnionType
from typing import Annotated, Any, Final, Literal, NamedTuple, Union, get_args, get_origin

from uppercase.errors import BadArgument, PluginError, text_of

REQUIRED: Final[Any] = inspect.Parameter.empty
"""The default of a parameter that has none."""

_BOOLEANS: Final = {
    "true": True, "yes": True, "on": True, "1": True,
    "false": False, "no": False, "off": False, "0": False,
}  # fmt: skip
ACCEPTED: Final = {int: "whole number", float: "number", str: "text", bool: "true or false"}
_ANNOTATIONS: Final = "int, float, bool, str, a Literal, an Enum, or one of these `| None`"


class Parameter(NamedTuple):
    """One argument of a transform; users write its name before the `=`.

    Its type is int, float, bool, str, an Enum class, or object for a Literal; these two have
    `choices`, the value for each accepted text. Without a default it is `REQUIRED`.
    """

    name: str
    type: type
    default: Any = REQUIRED
    choices: Mapping[str, Any] | None = None

    @property
    def required(self) -> bool:
        return self.default is REQUIRED

    @property
    def accepts(self) -> str:
        if self.choices is not None:
            return f"one of {', '.join(self.choices)}"
        return ACCEPTED[self.type]

    @property
    def _phrase(self) -> str:
        return f"a {self.accepts}" if self.accepts.endswith("number") else self.accepts

    def describe(self) -> str:
        """Return one line for help, such as `shift: whole number, default 13`."""
        return f"{self.name}: {self.accepts}, {self._describe_default()}"

    def _describe_default(self) -> str:
        if self.required:
            return "required"
        if self.default is None:
            return "optional"
        for text, value in (self.choices or {}).items():
            if type(value) is type(self.default) and value == self.default:
                return f"default {text}"
        if isinstance(self.default, bool):
            return f"default {str(self.default).lower()}"
        return f"default {self.default!r}" if self.type is str else f"default {self.default}"

    def convert(self, text: str) -> Any:
        """Return the value that a text stands for."""
        try:
            return self._convert(text)
        except (ValueError, KeyError):
            raise BadArgument(
                f"argument {self.name!r}: got {text!r}; accepted is {self._phrase}"
            ) from None

    def _convert(self, text: str) -> Any:
        if self.choices is not None:
            return self.choices[text]
        if self.type is bool:
            return _BOOLEANS[text.lower()]
        if self.type is int:
            if not re.fullmatch(r"[+-]?[0-9]+", text, re.ASCII):
                raise ValueError(text)
            return int(text)
        if self.type is float:
            number = float(text)
            if not math.isfinite(number):
                raise ValueError(text)
            return number
        return text


def signature_of(target: Callable[..., Any], owner: str) -> inspect.Signature:
    """Return a callable's signature with its annotations resolved."""
    try:
        return inspect.signature(target, eval_str=True)
    except (ValueError, TypeError):
        raise PluginError(
            f"{owner} has no signature that can be read; wrap it in a function with annotations"
        ) from None
    except Exception as error:
        raise PluginError(
            f"{owner} has an annotation that cannot be resolved ({text_of(error)}); import or "
            "define what it names at module level, not only under TYPE_CHECKING"
        ) from error


def positional_of(signature: inspect.Signature) -> list[inspect.Parameter]:
    """Return the parameters that may be given by position."""
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return [item for item in signature.parameters.values() if item.kind in kinds]


def parameters_of(
    signature: inspect.Signature, owner: str, *, positional: int
) -> tuple[Parameter, ...]:
    """Read a transform's arguments: the keyword-only parameters of a signature."""
    extra = positional_of(signature)[positional:]
    if extra:
        raise PluginError(
            f"{owner} takes {extra[0].name!r} by position; arguments are keyword-only: write "
            f"`*, {extra[0]}`"
        )
    found = []
    for item in signature.parameters.values():
        if item.kind in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD):
            raise PluginError(
                f"{owner} takes {str(item)!r}; name each argument as a keyword-only parameter "
                "with an annotation, such as `*, shift: int = 13`"
            )
        if item.kind is inspect.Parameter.KEYWORD_ONLY:
            found.append(_parameter(item, owner))
    return tuple(found)


def _parameter(item: inspect.Parameter, owner: str) -> Parameter:
    if item.annotation is REQUIRED:
        raise PluginError(
            f"{owner} has no annotation for its argument {item.name!r}; give it one of "
            f"{_ANNOTATIONS}"
        )
    annotation = _plain(item.annotation)
    if annotation in ACCEPTED:
        return Parameter(item.name, annotation, item.default)
    if get_origin(annotation) is Literal:
        values = get_args(annotation)
        choices = {_text_of(value): value for value in values}
        if all(isinstance(value, str | int) for value in values) and len(choices) == len(values):
            return Parameter(item.name, object, item.default, choices)
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        choices = {_text_of(member): member for member in annotation}
        if len(choices) == len(annotation):
            return Parameter(item.name, annotation, item.default, choices)
    raise PluginError(
        f"{owner} annotates its argument {item.name!r} with "
        f"{inspect.formatannotation(item.annotation)}, which cannot be given as text; use "
        f"{_ANNOTATIONS}"
    )


def _plain(annotation: Any) -> Any:
    """Return T for `Annotated[T, ...]` and for `T | None`, as there is no text for None."""
    if get_origin(annotation) is Annotated:
        return _plain(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        rest = [item for item in get_args(annotation) if item is not NoneType]
        if len(rest) == 1:
            return _plain(rest[0])
    return annotation


def _text_of(value: object) -> str:
    """Return the text that stands for a choice."""
    if isinstance(value, str):
        return str(value.value) if isinstance(value, Enum) else value
    if isinstance(value, Enum):
        return value.name.lower().replace("_", "-")
    return str(value).lower()


def convert_arguments(
    parameters: Sequence[Parameter], given: Iterable[tuple[str, str]]
) -> dict[str, Any]:
    """Convert what a user wrote; hyphens in a name stand for underscores."""
    known = {parameter.name: parameter for parameter in parameters}
    values: dict[str, Any] = {}
    for written, text in given:
        name = written.replace("-", "_")
        if name not in known:
            raise _unknown(written, parameters)
        if name in values:
            raise BadArgument(f"argument {name!r} is given twice; give it once")
        values[name] = known[name].convert(text)
    require_arguments(parameters, values)
    return values


def require_arguments(parameters: Sequence[Parameter], values: Mapping[str, Any]) -> None:
    """Check that values by name are for known arguments and none is missing."""
    known = {parameter.name for parameter in parameters}
    for name in values:
        if name not in known:
            raise _unknown(name, parameters)
    for parameter in parameters:
        if parameter.required and parameter.name not in values:
            raise BadArgument(
                f"argument {parameter.name!r} is missing; write {parameter.name}=VALUE, where "
                f"VALUE is {parameter._phrase}"
            )


def _unknown(name: str, parameters: Sequence[Parameter]) -> BadArgument:
    if not parameters:
        return BadArgument(f"got argument {name!r}; no arguments are accepted")
    accepted = "; ".join(parameter.describe() for parameter in parameters)
    close = get_close_matches(name, [parameter.name for parameter in parameters], n=1)
    if close:
        return BadArgument(f"no argument named {name!r}; did you mean {close[0]!r}? ({accepted})")
    return BadArgument(f"no argument named {name!r}; accepted are {accepted}")
