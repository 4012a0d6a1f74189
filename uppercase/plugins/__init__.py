"""How a function or a class becomes a plugin: decorated, it is one.

For example::

    @transform(summary="Shift letters by a fixed distance")
    def caesar(text: str, *, shift: int = 13) -> str: ...

`@transform` takes a function of one message, `@stream_transform` a class with `feed` and `finish`;
`adopt` makes the same of an object that carries no decorator. The annotation `str` or `bytes` says
what the code works on, keyword-only parameters are its arguments. What breaks these rules raises
`PluginError` where it is declared. This module reads signatures; it must neither call the author's
code nor import the reactor.
"""

import inspect
import re
import typing
from collections.abc import Awaitable, Callable
from enum import Enum
from functools import partial
from types import NoneType, UnionType
from typing import Any, Concatenate, Final, ParamSpec, Protocol, TypeVar, overload

from uppercase.errors import PluginError, text_of
from uppercase.interfaces import IStreamTransform, ITransform, ITransformPlugin
from uppercase.plugins.declared import (
    ACCEPTED,
    REQUIRED,
    AsyncTransform,
    DeclaredTransform,
    Kind,
    MessageTransform,
    Parameter,
    Stream,
    StreamableTransform,
    StreamTransform,
    ThreadedTransform,
)

__all__ = ["Parameter", "adopt", "stream_transform", "transform"]

P = ParamSpec("P")
TextReply = TypeVar("TextReply", bound=str | Awaitable[str])
BytesReply = TypeVar("BytesReply", bound=bytes | Awaitable[bytes])
S = TypeVar("S", bound=Stream[str] | Stream[bytes])
C = TypeVar(
    "C",
    bound=Callable[[str], str | Awaitable[str]] | Callable[[bytes], bytes | Awaitable[bytes]],
)

_ANNOTATIONS: Final = "int, float, bool, str, a Literal, an Enum, or one of these `| None`"
_NAME: Final = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_HUMP: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


class _FunctionDecorator(Protocol):
    """`@transform` and `@transform(...)`: what they accept and give, for type checkers."""

    @overload
    def __call__(
        self, target: Callable[Concatenate[str, P], TextReply], /
    ) -> DeclaredTransform[Concatenate[str, P], TextReply]: ...
    @overload
    def __call__(
        self, target: Callable[Concatenate[bytes, P], BytesReply], /
    ) -> DeclaredTransform[Concatenate[bytes, P], BytesReply]: ...
    @overload
    def __call__(self, target: Callable[P, C], /) -> DeclaredTransform[P, C]: ...
    @overload
    def __call__(
        self,
        *,
        name: str | None = None,
        summary: str | None = None,
        streaming: bool = False,
        blocking: bool = False,
        ascii: Callable[..., bytes] | None = None,
    ) -> "_FunctionDecorator": ...


def _typed(function: Any) -> _FunctionDecorator:
    """Tell type checkers of the overloads, which a function would repeat one by one."""
    decorator: _FunctionDecorator = function
    return decorator


@_typed
def transform(
    target: Any = None,
    /,
    *,
    name: str | None = None,
    summary: str | None = None,
    streaming: bool = False,
    blocking: bool = False,
    ascii: Callable[..., bytes] | None = None,
) -> Any:
    """Declare a function of one message, or a class whose instances are called with one.

    Args:
        target: it has one positional parameter, annotated `str` or `bytes`, and gives the same
            type, or an awaitable of it.
        name: what users type; without it, the function's name with hyphens.
        summary: one line; without it, the first line of the docstring.
        streaming: declares f(a + b) == f(a) + f(b) for text cut between characters, so that it can
            answer an endless stream chunk by chunk.
        blocking: run each call in the reactor's thread pool.
        ascii: for text, a function of bytes with the same arguments that gives the same result
            for pure ASCII, faster.

    Raises:
        PluginError: the declaration breaks a rule.
    """
    if target is None:
        given = {"streaming": streaming, "blocking": blocking, "ascii": ascii}
        return partial(transform, name=name, summary=summary, **given)
    owner = _owner(target)
    function, kind, parameters = _read(target, owner)
    # An object's own `__call__`; a function's says nothing.
    is_async = any(map(inspect.iscoroutinefunction, (function, function.__call__)))
    made = _adapter(owner, is_async, streaming, blocking)
    if ascii is not None and (kind is Kind.BYTES or blocking):
        raise PluginError(f"{owner} has ascii=, which is for text that does not block; take it out")
    chosen = _name(target, name)

    def make(arguments: dict[str, Any]) -> ITransform:
        call: Any = target(**arguments) if inspect.isclass(target) else _bound(target, arguments)
        fast = None if ascii is None else _bound(ascii, arguments)
        return made(chosen, kind, call, fast)

    said = _summary(target, summary)
    return DeclaredTransform(target, make, chosen, said, kind, parameters, streaming, is_async)


def _adapter(owner: str, is_async: bool, streaming: bool, blocking: bool) -> type[MessageTransform]:
    if is_async and (streaming or blocking):
        flag = "streaming" if streaming else "blocking"
        raise PluginError(f"{owner} is async and cannot be {flag} as well; take out {flag}=True")
    if streaming and blocking:
        raise PluginError(
            f"{owner} is blocking and cannot be streaming as well; take out one of the two"
        )
    if is_async:
        return AsyncTransform
    if blocking:
        return ThreadedTransform
    return StreamableTransform if streaming else MessageTransform


@overload
def stream_transform(target: Callable[P, S], /) -> DeclaredTransform[P, S]: ...
@overload
def stream_transform(
    *, name: str | None = None, summary: str | None = None
) -> Callable[[Callable[P, S]], DeclaredTransform[P, S]]: ...


def stream_transform(
    target: Any = None, /, *, name: str | None = None, summary: str | None = None
) -> Any:
    """Declare a class, or a function annotated with one, whose instances are streams.

    Each stream is an instance of its own. The parameter of `feed` is annotated `str` (text, cut
    between characters) or `bytes`; both `feed` and `finish` give the same type. The keyword-only
    parameters of what makes a stream are the arguments. Without a name it is the class's, in lower
    case with hyphens, without a summary the first line of the docstring.

    Raises:
        PluginError: the declaration breaks a rule.
    """
    if target is None:
        return partial(stream_transform, name=name, summary=summary)
    owner = _owner(target)
    signature = signature_of(target, owner)
    made: Any = target if inspect.isclass(target) else signature.return_annotation
    feed = getattr(made, "feed", None)
    if not callable(feed) or not callable(getattr(made, "finish", None)):
        raise PluginError(
            f"{owner} makes nothing with both feed and finish; declare a class that has them, or "
            "annotate the function's result with one"
        )
    feed_owner = f"{made.__name__}.feed"
    if inspect.iscoroutinefunction(feed) or inspect.iscoroutinefunction(made.finish):
        raise PluginError(f"{made.__name__} has async methods, and a stream cannot wait; use def")
    kind = _kind(signature_of(feed, feed_owner), 1, feed_owner)
    chosen = _name(target, name)

    def make(arguments: dict[str, Any]) -> ITransform:
        # One is made and dropped, so that arguments it refuses are refused here.
        target(**arguments)
        return StreamTransform(chosen, kind, _bound(target, arguments))

    parameters = parameters_of(signature, owner)
    said = _summary(target, summary)
    return DeclaredTransform(target, make, chosen, said, kind, parameters, streaming=True)


def adopt(
    target: Any,
    *,
    name: str | None = None,
    summary: str | None = None,
    streaming: bool = False,
    ascii: Callable[..., bytes] | None = None,
) -> ITransformPlugin:
    """Make a plugin of what a reference points at; what is declared of it is as for `transform`.

    That is a plugin, which is taken as it is; an `ITransform`, or a class of them; what
    `stream_transform` or `transform` accepts.

    Raises:
        PluginError: it is none of these, or its declaration breaks a rule.
    """
    is_class, owner = inspect.isclass(target), _owner(target)
    kept = [
        each
        for each in (ITransformPlugin, ITransform, IStreamTransform)
        if (each.implementedBy if is_class else each.providedBy)(target)
    ]
    if ITransformPlugin in kept:
        if is_class:
            raise PluginError(f"{owner} is a class, and an instance is the plugin; use {owner}()")
        plugin: ITransformPlugin = target
        return plugin
    if ITransform in kept:
        signature = signature_of(target, owner) if is_class else inspect.Signature()
        return DeclaredTransform(
            target if is_class else type(target),
            (lambda arguments: target(**arguments)) if is_class else (lambda _: target),
            name=_name(target, name),
            summary=_summary(target, summary),
            kind=Kind.BYTES,
            parameters=parameters_of(signature, owner),
            streaming=IStreamTransform in kept,
            is_async=inspect.iscoroutinefunction(getattr(target, "transform", None)),
        )
    if is_class and hasattr(target, "feed"):
        if streaming or ascii is not None:
            raise PluginError(
                f"{owner} is a stream class, which needs neither streaming nor ascii; take them out"
            )
        return stream_transform(target, name=name, summary=summary)  # type: ignore[call-overload, no-any-return]
    if not callable(target):
        raise PluginError(
            f"{target!r} is not a transform; point at a function, a class, or an object that "
            "provides ITransform"
        )
    return transform(  # type: ignore[call-overload, no-any-return]
        target, name=name, summary=summary, streaming=streaming, ascii=ascii
    )


def _bound(target: Callable[..., Any], arguments: dict[str, Any]) -> Callable[..., Any]:
    return partial(target, **arguments) if arguments else target


def _owner(target: Any) -> str:
    return str(getattr(target, "__qualname__", None) or repr(target))


def fault_of_name(name: object, label: str) -> str | None:
    """Say what keeps users from typing the name of a thing; nothing if it is fine."""
    if isinstance(name, str) and _NAME.fullmatch(name):
        return None
    accepted = "lower-case letters, digits and single hyphens are accepted"
    return f"{label} has the name {name!r}; {accepted}"


def _named(target: Any) -> Any:
    """Return what the name and the summary are from: an object has those of its class."""
    named = target.func if isinstance(target, partial) else target
    return named if hasattr(named, "__name__") else type(named)


def _name(target: Any, given: str | None) -> str:
    name = given
    if name is None:
        name = _HUMP.sub("-", _named(target).__name__).replace("_", "-").lower()
    if fault := fault_of_name(name, _owner(target)):
        raise PluginError(f"{fault}: give it with name=")
    return name


def _summary(target: Any, given: str | None) -> str:
    if given is not None:
        return given
    return (inspect.getdoc(_named(target)) or "").partition("\n")[0]


def _read(target: Any, owner: str) -> tuple[Any, Kind, tuple[Parameter, ...]]:
    """Return the function that takes the message, its kind, and the target's arguments."""
    if not callable(target):
        hint = f"; a name is given as name={owner}" if isinstance(target, str) else ""
        raise PluginError(f"{owner} is neither a function nor a class; declare one of these{hint}")
    signature = signature_of(target, owner)
    if not inspect.isclass(target):
        return target, _kind(signature, 0, owner), parameters_of(signature, owner, positional=1)
    if not any("__call__" in vars(base) for base in target.__mro__):
        raise PluginError(f"{owner} has no __call__; define one that takes the message")
    called = f"{owner}.__call__"
    call_signature = signature_of(target.__call__, called)
    kind = _kind(call_signature, 1, called)
    if parameters_of(call_signature, called, positional=2):
        raise PluginError(f"{called} has arguments of its own; move them to __init__")
    return target.__call__, kind, parameters_of(signature, owner)


def _kind(signature: inspect.Signature, position: int, owner: str) -> Kind:
    positional = positional_of(signature)
    if position >= len(positional):
        raise PluginError(
            f"{owner} takes no message; give it one positional parameter, annotated `str` or "
            "`bytes`"
        )
    annotation = positional[position].annotation
    if annotation in (str, bytes):
        return Kind.TEXT if annotation is str else Kind.BYTES
    if positional[position].name in ("self", "cls"):
        raise PluginError(
            f"{owner} is a method without its object; point at an object's, or at a function"
        )
    got = (
        "has no annotation"
        if annotation is inspect.Parameter.empty
        else f"is annotated {inspect.formatannotation(annotation)}"
    )
    raise PluginError(
        f"the message of {owner} {got}; annotate it `str` for text or `bytes` for bytes"
    )


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
    signature: inspect.Signature, owner: str, *, positional: int = 0
) -> tuple[Parameter, ...]:
    """Read a transform's arguments: the keyword-only parameters of a signature."""
    extra = positional_of(signature)[positional:]
    if extra:
        raise PluginError(
            f"{owner} takes {extra[0].name!r} by position; arguments are keyword-only: write "
            f"`*, {extra[0]}`{'' if positional else ', or kw_only=True for a dataclass'}"
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
    if typing.get_origin(annotation) is typing.Literal:
        # One with None among its values means the others `| None`, says typing.
        values = [value for value in typing.get_args(annotation) if value is not None]
        choices = {_text_of(value): value for value in values}
        every_is_text = all(isinstance(value, str | int) for value in values)
        if choices and every_is_text and len(choices) == len(values):
            return Parameter(item.name, object, item.default, choices)
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        choices = {_text_of(member): member for member in annotation}
        if choices and len(choices) == len(annotation):
            return Parameter(item.name, annotation, item.default, choices)
    raise PluginError(
        f"{owner} annotates its argument {item.name!r} with "
        f"{inspect.formatannotation(item.annotation)}, which cannot be given as text; use "
        f"{_ANNOTATIONS}"
    )


def _plain(annotation: Any) -> Any:
    """Return T for `Annotated[T, ...]` and for `T | None`, as there is no text for None."""
    if typing.get_origin(annotation) is typing.Annotated:
        return _plain(typing.get_args(annotation)[0])
    if typing.get_origin(annotation) in (typing.Union, UnionType):
        rest = [item for item in typing.get_args(annotation) if item is not NoneType]
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
