"""Arguments are read from signatures and converted from what users write."""

import enum
from collections.abc import Callable
from typing import Annotated, Any, Literal

import pytest

from uppercase.errors import BadArgument, PluginError
from uppercase.plugins import Parameter, parameters_of, signature_of
from uppercase.plugins.declared import REQUIRED, convert_arguments, require_arguments


class Colour(enum.Enum):
    DEEP_RED = 1
    BLUE = 2


class Twins(enum.Enum):
    DEEP_RED = 1
    deep_red = 2


class Mixed(str, enum.Enum):  # noqa: UP042
    LOUD = "loud"


class Form(enum.StrEnum):
    COMPOSED = "NFC"
    DECOMPOSED = "NFD"


def read(function: Callable[..., Any], positional: int = 0) -> tuple[Parameter, ...]:
    return parameters_of(signature_of(function, "f"), "f", positional=positional)


def read_one(annotation: Any, default: Any = REQUIRED) -> Parameter:
    def f(*, x: Any) -> None: ...

    f.__annotations__["x"] = annotation
    f.__kwdefaults__ = {} if default is REQUIRED else {"x": default}
    (parameter,) = read(f)
    return parameter


@pytest.mark.parametrize(
    ("annotation", "text", "value"),
    [
        (int, "-13", -13),
        (int, "+7", 7),
        (float, "0.5", 0.5),
        (float, "1e3", 1000.0),
        (str, "a=b c", "a=b c"),
        (str, "", ""),
        (bool, "true", True),
        (bool, "yes", True),
        (bool, "On", True),
        (bool, "1", True),
        (bool, "false", False),
        (bool, "off", False),
        (bool, "NO", False),
        (bool, "0", False),
        (Literal["NFC", "NFD"], "NFD", "NFD"),
        (Literal[1, 2], "2", 2),
        (Literal[True, "auto"], "true", True),
        (Colour, "deep-red", Colour.DEEP_RED),
        (Form, "NFC", Form.COMPOSED),
        (int | None, "3", 3),
        (Annotated[int, "how far"], "3", 3),
        (Annotated[int | None, "how far"], "3", 3),
        (Annotated[int, "how far"] | None, "3", 3),
        (Literal["a", "b"] | None, "b", "b"),
        ("int", "3", 3),
    ],
)
def test_a_text_becomes_a_value_of_the_annotated_type(
    annotation: Any, text: str, value: object
) -> None:
    converted = read_one(annotation).convert(text)
    assert converted == value
    assert type(converted) is type(value)


@pytest.mark.parametrize(
    ("annotation", "text", "message"),
    [
        (int, "x", "argument 'x': got 'x'; accepted is a whole number"),
        (int, "1.5", "argument 'x': got '1.5'; accepted is a whole number"),
        (int, " 1", "argument 'x': got ' 1'; accepted is a whole number"),
        (int, "1_000", "argument 'x': got '1_000'; accepted is a whole number"),
        (float, "nan", "argument 'x': got 'nan'; accepted is a number"),
        (float, "fast", "argument 'x': got 'fast'; accepted is a number"),
        (bool, "maybe", "argument 'x': got 'maybe'; accepted is true or false"),
        (Literal["a", "b"], "c", "argument 'x': got 'c'; accepted is one of a, b"),
        (Colour, "BLUE", "argument 'x': got 'BLUE'; accepted is one of deep-red, blue"),
    ],
)
def test_what_does_not_convert_is_refused_with_what_is_accepted(
    annotation: Any, text: str, message: str
) -> None:
    with pytest.raises(BadArgument) as caught:
        read_one(annotation).convert(text)
    assert str(caught.value) == message


def test_a_number_too_long_to_convert_is_refused() -> None:
    with pytest.raises(BadArgument):
        read_one(int).convert("9" * 10_000)


@pytest.mark.parametrize(
    ("annotation", "default", "line"),
    [
        (int, 13, "x: whole number, default 13"),
        (int, REQUIRED, "x: whole number, required"),
        (str, "a b", "x: text, default 'a b'"),
        (bool, False, "x: true or false, default false"),
        (Form, Form.COMPOSED, "x: one of NFC, NFD, default NFC"),
        (Colour, Colour.DEEP_RED, "x: one of deep-red, blue, default deep-red"),
        (Mixed, Mixed.LOUD, "x: one of loud, default loud"),
        (Literal[8, 16], 16, "x: one of 8, 16, default 16"),
        (float, 0.5, "x: number, default 0.5"),
        (Literal[1, True], True, "x: one of 1, true, default true"),
        (str | None, None, "x: text, optional"),
        (Literal["a", None], None, "x: one of a, optional"),
    ],
)
def test_a_parameter_describes_itself_in_a_line(annotation: Any, default: Any, line: str) -> None:
    assert read_one(annotation, default).describe() == line


def test_only_keyword_only_parameters_are_arguments_in_their_order() -> None:
    def f(text: str, *, b: int, a: float = 0.5) -> None: ...

    assert [parameter.name for parameter in read(f, positional=1)] == ["b", "a"]


def no_annotation(*, x) -> None: ...  # type: ignore[no-untyped-def]  # noqa: ANN001
def a_list(*, x: list[int]) -> None: ...
def a_union(*, x: int | str) -> None: ...
def literal_bytes(*, x: Literal[b"a"]) -> None: ...
def ambiguous(*, x: Literal[1, "1"]) -> None: ...
def ambiguous_enum(*, x: Twins) -> None: ...
def empty_enum(*, x: enum.Enum) -> None: ...
def only_none(*, x: Literal[None]) -> None: ...
def some_bytes(*, x: bytes) -> None: ...
def extra(text: str, shift: int = 13) -> None: ...
def many(*texts: str) -> None: ...
def anything(**options: int) -> None: ...
def nonsense(*, x: "int | 3") -> None: ...  # type: ignore[valid-type]
def unresolved(*, x: "Nowhere") -> None: ...  # type: ignore[name-defined]  # noqa: F821


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (no_annotation, "no annotation for its argument 'x'"),
        (a_list, "'x' with list[int], which cannot be given as text; use int, float"),
        (a_union, "'x' with int | str"),
        (literal_bytes, "cannot be given as text"),
        (ambiguous, "cannot be given as text"),
        (ambiguous_enum, "cannot be given as text"),
        (empty_enum, "cannot be given as text"),
        (only_none, "cannot be given as text"),
        (some_bytes, "'x' with bytes, which cannot be given as text"),
        (extra, "write `*, shift: int = 13`"),
        (many, "f takes '*texts: str'; name each argument"),
        (anything, "f takes '**options: int'; name each argument"),
        (nonsense, "f has no signature that can be read"),
        (unresolved, "cannot be resolved (name 'Nowhere' is not defined); import or define"),
    ],
)
def test_what_users_could_not_give_is_refused_with_what_to_write(
    function: Callable[..., Any], said: str
) -> None:
    with pytest.raises(PluginError) as caught:
        read(function, positional=1 if function is extra else 0)
    assert said in str(caught.value)


SHIFT = Parameter("shift", int, 13)
MARK = Parameter("end_mark", str)


def test_arguments_are_converted_by_name_and_hyphens_stand_for_underscores() -> None:
    given = [("end-mark", "!"), ("shift", "3")]
    assert convert_arguments((SHIFT, MARK), given) == {"end_mark": "!", "shift": 3}


@pytest.mark.parametrize(
    ("parameters", "given", "message"),
    [
        (
            (SHIFT,),
            [("shfit", "3")],
            "no argument named 'shfit'; did you mean 'shift'? (shift: whole number, default 13)",
        ),
        (
            (SHIFT,),
            [("q", "3")],
            "no argument named 'q'; accepted are shift: whole number, default 13",
        ),
        ((), [("shift", "3")], "got argument 'shift'; no arguments are accepted"),
        (
            (SHIFT,),
            [("shift", "3"), ("shift", "4")],
            "argument 'shift' is given twice; give it once",
        ),
        (
            (SHIFT, MARK),
            [],
            "argument 'end_mark' is missing; write end_mark=VALUE, where VALUE is text",
        ),
    ],
)
def test_wrong_arguments_are_refused_with_what_is_accepted(
    parameters: tuple[Parameter, ...], given: list[tuple[str, str]], message: str
) -> None:
    with pytest.raises(BadArgument) as caught:
        convert_arguments(parameters, given)
    assert str(caught.value) == message


def test_values_by_name_are_checked_too() -> None:
    require_arguments((SHIFT, MARK), {"end_mark": "!"})
    with pytest.raises(BadArgument, match="is missing"):
        require_arguments((SHIFT, MARK), {})
    with pytest.raises(BadArgument, match="no argument named 'other'"):
        require_arguments((SHIFT, MARK), {"end_mark": "!", "other": 1})
