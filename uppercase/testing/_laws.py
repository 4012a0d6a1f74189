"""The laws that every transform keeps, each with a search for the smallest case that breaks it.

`check` examines a transform by all of them, `TransformContract` is a test for pytest of each.

A transform may refuse a message by raising `ValueError` or `TransformError`. To refuse is an
outcome like any other: the laws ask that it be the same each time. Any other exception is a fault.
"""

import inspect
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, ClassVar, Final

from twisted.internet.defer import Deferred

from uppercase.awaiting import is_in_reactor
from uppercase.errors import UppercaseError, UserError, WrongResult, install

try:
    from hypothesis import strategies as st
except ModuleNotFoundError as error:
    raise ImportError(
        f"the contract kit needs hypothesis; install it with: {install('testing')}"
    ) from error
from uppercase.limits import MAX_OUTPUT
from uppercase.testing._examination import (
    CUTS,
    INVALID,
    KIT_CALL_TIME,
    KIT_EXAMPLES,
    Broken,
    CallResult,
    Examination,
    Law,
    Unanswered,
    place_of,
    show,
)
from uppercase.testing._memory import pieces

_CUTS: Final = 256
"""How many of a long example's cuts are tried, evenly spread; of a shorter one, all."""


@dataclass(frozen=True)
class Report:
    """What an examination found.

    Attributes:
        broken: the laws that are not kept, in order.
        growth: the longest output for a large message, as a multiple of its length.
        seconds: the longest that a call blocked, for a large message.
        untried: names of laws that could not be tried, because a reply was awaited in vain.
        left_out: a sentence on what was not tried, because it took too long; "" if nothing.
    """

    broken: tuple[Broken, ...]
    growth: float = 0.0
    seconds: float = 0.0
    untried: tuple[str, ...] = ()
    left_out: str = ""


def check(
    target: object,
    *,
    examples: Iterable[bytes] = (),
    messages: st.SearchStrategy[bytes] | None = None,
    count: int = KIT_EXAMPLES,
    tell: Callable[[Law, str, str], object] = lambda *_: None,
) -> Report:
    """Examine a transform.

    It is a specification such as `caesar:shift=3` or `module:function`, a decorated or plain
    function or class, a plugin, or an `ITransform`. The examples, what it is made for, are always
    tried; `count` messages are drawn for each search, from the strategy `messages` too. `tell` is
    called with each law as soon as it is verified, with `kept`, `BROKEN` or `?` (not tried), and
    with the case that breaks it.

    Raises:
        uppercase.errors.UserError: the specification is wrong.
        uppercase.errors.PluginError: the transform cannot be loaded.
    """
    examined = Examination(target, examples=examples, messages=messages, count=count)
    broken, untried = [], []
    for law in LAWS:
        verdict, example = "kept", ""
        try:
            examined.verify(law)
        except Broken as found:
            verdict, example = "BROKEN", found.example
        except Unanswered as error:  # From here on each law raises it.
            verdict, example = ("BROKEN", str(error)) if law is _time else ("?", "")
        if verdict == "BROKEN":
            broken.append(Broken(example, law.name))
        elif verdict == "?":
            untried.append(law.name)
        tell(law, verdict, example)
    if untried:
        return Report(tuple(broken), untried=tuple(untried))
    return Report(
        tuple(broken),
        max((len(came.output) / len(message) for message, came, _ in examined.large), default=0),
        max((seconds for _, _, seconds in examined.large), default=0),
        left_out=examined.left_out,
    )


def _law(
    name: str, promise: str, *, of_streams: bool = False
) -> Callable[[Callable[[Examination], None]], Law]:
    """Return the decorator that makes a law of what verifies it."""
    return lambda verify: Law(name, promise, verify, of_streams)


async def _ways(examined: Examination, message: bytes) -> list[tuple[str, CallResult]]:
    """Return what comes of a message by each way of giving it."""
    ways = [(f"transform({show(message)})", await examined.reply(message))]
    if examined.streams:
        ways.append((f"feed({show(message)}) + finish()", examined.stream([message])))
    return ways


@_law("bytes", "bytes in, bytes out; text in, text out that UTF-8 can hold")
def _bytes(examined: Examination) -> None:
    async def is_bytes(message: bytes) -> None:
        for call, outcome in await _ways(examined, message):
            if isinstance(outcome.error, WrongResult):
                raise Broken(f"{call}: {outcome.error.reason}")

    examined.hold(is_bytes, zip(examined.corpus), examined.any)


def _answered(examined: Examination, *, utf_8: bool) -> None:
    """Search, among the messages that are UTF-8 or those that are not, for one that fails."""

    def accept(call: str, outcome: CallResult) -> None:
        error = outcome.error
        if error is not None and not outcome.refused and not isinstance(error, WrongResult):
            hint = "raise ValueError where a message is refused"
            raise Broken(f"{call} {outcome}{place_of(error)}; {hint}")

    async def is_answered(message: bytes) -> None:
        for call, outcome in await _ways(examined, message):
            accept(call, outcome)

    messages = (b"", *(bytes([byte]) for byte in range(0x100)), *examined.corpus)
    suitable = (message for message in messages if _is_utf_8(message) is utf_8)
    examined.hold(is_answered, zip(suitable), examined.text if utf_8 else INVALID)
    for message, outcome, _ in examined.large:
        if _is_utf_8(message) is utf_8:
            accept(f"transform({show(message)})", outcome)


def _is_utf_8(message: bytes) -> bool:
    try:
        message.decode()
    except UnicodeDecodeError:
        return False
    return True


_messages = _law("messages", "a message of any size is answered or refused: 0, 1, 65,536 bytes")(
    partial(_answered, utf_8=True)
)
_invalid = _law("invalid-utf-8", "bytes that are not UTF-8 are answered or refused")(
    partial(_answered, utf_8=False)
)


@_law("determinism", "the same message has the same reply")
def _determinism(examined: Examination) -> None:
    async def is_the_same(message: bytes) -> None:
        first = await examined.reply(message, examined.make())
        second = await examined.reply(message, examined.make())
        if not first.same(second):
            raise Broken(f"transform({show(message)}) {first}; the next time it {second}")

    examined.hold(is_the_same, zip(examined.corpus), examined.any)


@_law("calls", "no call leaves anything behind for the next")
def _calls(examined: Examination) -> None:
    async def are_untouched(one: bytes, other: bytes) -> None:
        alone = [await examined.reply(message, examined.make()) for message in (one, other)]
        # Replies that are awaited overlap.
        first, second = await examined.replies([one, other], examined.make())
        await compare(other, second, alone[1], f"after transform({show(one)})")
        await compare(one, first, alone[0], f"awaited while transform({show(other)}) is called")

    async def compare(message: bytes, outcome: CallResult, alone: CallResult, when: str) -> None:
        if not outcome.same(alone) and await _is_stable(examined, message, alone):
            raise Broken(f"{when}, transform({show(message)}) {outcome}; alone it {alone}")

    examined.hold(are_untouched, examined.pairs, examined.any, examined.any)


async def _is_stable(examined: Examination, message: bytes, before: CallResult) -> bool:
    """Return whether a reply is still what it was; if not, determinism is broken."""
    return (await examined.reply(message, examined.make())).same(before)


@_law("connections", "streams that are open at once share nothing", of_streams=True)
def _connections(examined: Examination) -> None:
    async def are_apart(other: bytes, message: bytes, cut: int) -> None:
        chunks = message[:cut], message[cut:]
        alone = examined.stream(chunks, examined.make())
        other_alone = examined.stream([other], examined.make())
        transform: Any = examined.make()
        second = other_alone

        def meanwhile() -> Iterator[bytes]:
            nonlocal second
            yield chunks[0]
            second = examined.stream([other], transform)
            yield chunks[1]

        compare(chunks, examined.stream(meanwhile(), transform), alone, other)
        compare((other,), second, other_alone, message[:cut])

    def compare(
        chunks: Sequence[bytes], outcome: CallResult, alone: CallResult, neighbour: bytes
    ) -> None:
        if not outcome.same(alone) and examined.stream(chunks, examined.make()).same(alone):
            raise Broken(
                f"{_feeds(chunks)} + finish() {outcome} while another stream is open that was fed "
                f"{show(neighbour)}; alone it {alone}"
            )

    cases = ((other, message, len(message) // 2) for other, message in examined.pairs)
    examined.hold(are_apart, cases, examined.any, examined.any, CUTS)


@_law("cuts", "a stream's output does not depend on where it was cut", of_streams=True)
def _cuts(examined: Examination) -> None:
    async def at_every_cut(message: bytes) -> None:
        whole = examined.stream([message])
        reply = await examined.reply(message)
        if not _is_one_outcome(reply, whole):
            if await _is_stable(examined, message, reply):
                raise Broken(
                    f"transform({show(message)}) != feed({show(message)}) + finish(): the first "
                    f"{reply}, the second {whole}"
                )
            return
        for cut in range(1, len(message), 1 + len(message) // _CUTS):
            compare(whole, (message[:cut], message[cut:]))
        compare(whole, [b"", *pieces(message, range(len(message))), b""])

    async def at_some_cuts(message: bytes, cuts: list[int]) -> None:
        compare(examined.stream([message]), pieces(message, cuts) or [message])

    def compare(whole: CallResult, chunks: Sequence[bytes]) -> None:
        outcome = examined.stream(chunks)
        message = b"".join(chunks)
        if _is_one_outcome(whole, outcome) or not examined.stream([message]).same(whole):
            return
        end = " + finish()" if whole.tail or outcome.tail else ""
        raise Broken(
            f"{_feeds(chunks)}{end} != feed({show(message)}){end}: the first {outcome}, the "
            f"second {whole}"
        )

    examined.hold(at_every_cut, zip(examined.corpus), examined.any)
    examined.hold(at_some_cuts, (), examined.any, st.lists(CUTS, max_size=8))


def _is_one_outcome(one: CallResult, other: CallResult) -> bool:
    """Return whether two ways of cutting a stream came to the same.

    Of a stream that is refused, clients may have had more or less before the refusal.
    """
    if one.refused and other.refused:
        return one.output.startswith(other.output) or other.output.startswith(one.output)
    return one.same(other)


def _feeds(chunks: Sequence[bytes]) -> str:
    return " + ".join(f"feed({show(chunk)})" for chunk in chunks)


@_law("reuse", "a stream can end at once, or never; the next one works", of_streams=True)
def _reuse(examined: Examination) -> None:
    async def ends_at_once() -> None:
        empty, reply = examined.stream([]), await examined.reply(b"")
        if not empty.same(reply) and await _is_stable(examined, b"", reply):
            raise Broken(f"finish() with nothing fed {empty}; transform(b'') {reply}")

    async def goes_on(left: bytes, message: bytes) -> None:
        alone = examined.stream([message], examined.make())
        transform: Any = examined.make()

        def leave() -> Iterator[bytes]:
            yield left
            raise ConnectionError("the client is gone")

        gone = examined.stream(leave(), transform)
        after = examined.stream([message], transform)
        if not after.same(alone) and examined.stream([message], examined.make()).same(alone):
            ended = "never finished" if isinstance(gone.error, ConnectionError) else "failed"
            raise Broken(
                f"after a stream that was fed {show(left)} and {ended}, feed({show(message)}) + "
                f"finish() {after}; alone it {alone}"
            )

    examined.hold(ends_at_once, [()])
    examined.hold(goes_on, examined.pairs, examined.any, examined.any)


@_law("growth", "the output for 64 KiB stays below --max-output")
def _growth(examined: Examination) -> None:
    for message, outcome, _ in examined.large:
        if len(outcome.output) > MAX_OUTPUT:
            raise Broken(
                f"transform({show(message)}) gave {len(outcome.output):,} bytes; servers send "
                f"at most {MAX_OUTPUT:,} (--max-output)"
            )


@_law("time", "a call keeps nobody else waiting, and its reply comes")
def _time(examined: Examination) -> None:
    for message, _, seconds in examined.large:
        if seconds > KIT_CALL_TIME:
            raise Broken(
                f"transform({show(message)}) took {seconds:.1f} s, in which a server serves nobody "
                f"else; {KIT_CALL_TIME:g} s is the most, blocking=True runs a function in a thread"
            )


LAWS: Final = (
    *(_bytes, _messages, _invalid, _determinism, _calls),
    *(_connections, _cuts, _reuse, _growth, _time),
)
"""All laws, in the order in which they are verified."""


def _test_of(law: Law) -> Callable[["TransformContract"], Deferred[None] | None]:
    """Return the test of a law, which is verified in a thread where this is the reactor's."""

    def test(self: "TransformContract") -> Deferred[None] | None:
        if not is_in_reactor():
            _judge(law, type(self))
            return None
        # As with pytest-twisted, which waits for what a test returns.
        from twisted.internet.threads import deferToThread

        return deferToThread(_judge, law, type(self))

    test.__doc__ = law.promise
    return test


class TransformContract:
    """Subclass it in a test module; pytest then tests one law after the other.

        class TestCaesar(TransformContract):
            specification = "caesar:shift=3"
            examples = (b"hello", b"xyz")

    Attributes:
        specification: the transform as on a command line, `name:key=value` or `module:function`.
        transform: instead of it, a decorated or plain function or class, or an `ITransform`.
        examples: messages that are always tried. A transform that refuses most messages needs
            some that it takes, or the laws are hardly put to the test.
        messages: a hypothesis strategy that draws more of them.
    """

    specification: ClassVar[str]
    transform: ClassVar[Any]
    examples: ClassVar[Sequence[bytes]] = ()
    messages: ClassVar[st.SearchStrategy[bytes] | None] = None

    test_bytes_come_out_for_bytes = _test_of(_bytes)
    test_a_message_of_any_size_is_answered_or_refused = _test_of(_messages)
    test_bytes_that_are_not_utf_8_are_answered_or_refused = _test_of(_invalid)
    test_the_same_message_has_the_same_reply = _test_of(_determinism)
    test_no_call_leaves_anything_behind = _test_of(_calls)
    test_streams_share_nothing = _test_of(_connections)
    test_cuts_do_not_matter = _test_of(_cuts)
    test_a_stream_can_end_at_any_time = _test_of(_reuse)
    test_the_output_is_bounded = _test_of(_growth)
    test_a_call_is_quick = _test_of(_time)


def _judge(law: Law, contract: Any) -> None:
    """Fail with one sentence where a law is broken, or the contract is wrong."""
    # Imported here: what runs this is pytest, and nothing else of the kit needs it.
    import pytest

    try:
        examination = _examination(contract)
        left_out = examination.left_out
        examination.verify(law)
    except (Broken, Unanswered) as error:
        sentence = f"{law.promise}: {error}"
    except UppercaseError as error:
        sentence = str(error)
    else:
        if examination.left_out != left_out:
            warnings.warn(examination.left_out, stacklevel=1)
        return
    pytest.fail(sentence, pytrace=False)


@cache
def _examination(contract: Any) -> Examination:
    """Return the examination that all tests of a subclass share."""
    # Not by the dot: a plain function would become a method.
    target = inspect.getattr_static(contract, "transform", None)
    if isinstance(target, staticmethod):
        target = target.__func__
    specification = getattr(contract, "specification", None)
    if (target is None) == (specification is None):
        raise UserError(f"{contract.__name__} needs either specification or transform")
    wanted = specification if target is None else target
    return Examination(wanted, examples=contract.examples, messages=contract.messages)
