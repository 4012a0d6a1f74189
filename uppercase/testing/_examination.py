"""How the contract kit examines a transform: messages, what comes of calls, the search for a case.

Messages are what has broken text and stream code before. Small ones are drawn and shrunk by
hypothesis, which simplifies towards what comes first here.

A call has an outcome, whatever happens: outcomes are compared and shown here, and judged by the
laws. Where replies are awaited, cases overlap as the messages of a server's clients do.
"""

import os
import random
from asyncio import CancelledError
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from itertools import islice, product, takewhile
from time import monotonic, perf_counter
from traceback import extract_tb
from typing import Any, Final, cast

import twisted
from hypothesis import find, settings
from hypothesis import strategies as st
from hypothesis.errors import Flaky, NoSuchExample
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.task import LoopingCall

import uppercase
from uppercase import registry
from uppercase.awaiting import Waiter, is_async, start, the_reactor
from uppercase.core.values import counted
from uppercase.errors import TransformError, UserError, WrongResult, kind_of
from uppercase.interfaces import IStreamTransform, ITransform
from uppercase.limits import ASYNC_WINDOW, KIB, KIT_LARGE, SLOW_CALL

_TEXT: Final = tuple(
    text.encode()
    for text in (
        "a", "B", "1", " ", "\n", "\r\n",
        "é",  # two bytes
        "Σ",  # lower case depends on what follows
        "ß", "ŉ", "İ",  # change their length with their case
        "e\u0301",  # a letter and a combining mark
        "ﬁ", "€", "\u2028",
        "👩\u200d👩\u200d👧",  # one character to its reader
        "\0", "=", ":", ",", "aGk=", "6869",
    )
)  # fmt: skip

_NOT_UTF_8: Final = (
    b"\xff",
    b"\xc3",  # the first byte of two
    b"\xa9",  # the second of two
    b"\xf0\x9f\x98",  # three of four
    b"\xc0\x80",  # an overlong NUL
    b"\xed\xa0\x80",  # a surrogate
    b"\xf4\x90\x80\x80",  # beyond U+10FFFF
)


def _joined(*fragments: bytes, most: int = 8) -> st.SearchStrategy[bytes]:
    """Return what draws up to `most` fragments, as bytes: one draw for hypothesis, not one each."""
    known = [fragments[number % len(fragments)] for number in range(0x100)]
    return st.binary(max_size=most).map(lambda drawn: b"".join([known[each] for each in drawn]))


TEXT: Final = _joined(*_TEXT)
"""Messages that are UTF-8."""

_FRAGMENTS: Final = (*_TEXT, *_NOT_UTF_8)

CORPUS: Final = tuple(
    sorted((b"", *_FRAGMENTS, *map(b"".join, product(_FRAGMENTS, repeat=2))), key=len)
)
"""Messages that are always tried, short ones first: a fragment, two of them. What is drawn adds
longer ones."""

FEW: Final = (b"", b"a", b"B", b"1", b"\n", "é".encode(), "Σ".encode(), b"=", b"\xff", b"\xc3")
"""Messages that are always tried two by two."""

_BYTES: Final = sorted(
    (bytes([byte]) for byte in range(0x100)), key=lambda byte: (not byte.isalpha(), byte)
)

ANY: Final = st.one_of(TEXT, _joined(*_FRAGMENTS), _joined(*_BYTES, most=32))
"""Messages of any bytes."""

INVALID: Final = st.tuples(TEXT, st.sampled_from(_NOT_UTF_8), TEXT).map(b"".join)
"""Messages that are not UTF-8, most of them."""

CUTS: Final = st.integers(0, 64)
"""Where to cut, in bytes."""


def large_messages() -> Iterator[bytes]:
    """Return messages of growing length, up to `KIT_LARGE`: repetitions, then random bytes."""
    size = KIB
    while size <= KIT_LARGE:
        for unit in (b"a", b" ", b"a ", "é".encode(), "\u0301".encode(), b"\xff"):
            yield unit * (size // len(unit))
        yield random.Random(size).randbytes(size)
        size *= 4


KIT_EXAMPLES: Final = 60
"""Messages that the contract kit tries for each law beside those that it always tries: the ten
laws take well under 5 seconds, and a law that is broken at all is rarely kept by that many."""

KIT_CALL_TIME: Final = 10 * SLOW_CALL
"""What one call may take in the contract kit: ten times what a server reports as slow, so that a
busy machine breaks no law. A function that is quadratic in its message takes longer."""

KIT_WAIT: Final = 5 * KIT_CALL_TIME
"""How long the contract kit waits for a reply that is awaited. Waiting costs nobody else anything,
so it may be longer than a call; but nobody who tests waits longer than that for one message."""

KIT_SEARCH_TIME: Final = 10.0
"""How long one search for a case goes on; there are two for a law. With a reply of 0.1 s none takes
half as long, and with one of seconds a check still ends while somebody waits for it."""

_THREADS: Final = 10
"""Cases that overlap, except for coroutines: as many as the reactor's pool has threads. With more,
a call that blocks would wait for others, and seem to have no reply."""

_LOOK: Final = 0.01
"""Seconds between two looks at whether the reactor goes on while a reply is awaited."""

_SHOWN: Final = 48
"""Bytes of a message that a counter-example shows."""

_LONGEST_UNIT: Final = 8

_RAISED: Final = (Exception, SystemExit, GeneratorExit, CancelledError)
"""What code raises, if by mistake. Ctrl-C is the user's."""

_NOT_THE_AUTHORS: Final = tuple(
    os.path.join(os.path.dirname(str(package.__file__)), "") for package in (uppercase, twisted)
)

Case = tuple[Any, ...]
Strategies = tuple[st.SearchStrategy[Any], ...]
Test = Callable[..., Coroutine[Any, Any, None]]
"""Raises `Broken` where a case, its arguments, breaks a law."""


class Broken(AssertionError):
    """A law of this name is broken; `example` is the smallest case that was found."""

    def __init__(self, example: str, law: str = "") -> None:
        super().__init__(example)
        self.example = example
        self.law = law


class Unanswered(Exception):
    """A reply was awaited in vain; nothing more can be found out about the transform."""


@dataclass(frozen=True, slots=True)
class CallResult:
    """What came of one message or stream, which may have given something before it failed.

    `tail` is how much of the output `finish` gave.
    """

    output: bytes
    error: BaseException | None = None
    tail: int = 0

    @property
    def refused(self) -> bool:
        """Whether it was refused, which is not a fault; a `UnicodeError` is an accident."""
        return isinstance(self.error, ValueError | TransformError) and not isinstance(
            self.error, UnicodeError | WrongResult
        )

    def same(self, other: "CallResult") -> bool:
        """Return whether a client could tell no difference except in the wording of an error."""
        return self.output == other.output and type(self.error) is type(other.error)

    def __str__(self) -> str:
        if self.error is None:
            return f"gave {show(self.output)}"
        raised = f"raised {kind_of(self.error)}"
        return f"gave {show(self.output)} and {raised}" if self.output else raised


@dataclass(frozen=True)
class Law:
    """One law; what does not stream keeps those `of_streams`."""

    name: str
    promise: str
    verify: "Callable[[Examination], None]"
    of_streams: bool


class Examination:
    """One transform and what is tried on it.

    `make` gives a transform, a new one at each call if the target can be made anew. Messages of the
    `corpus`, and `pairs` of some, are always tried; `any` and `text` (UTF-8) draw more. The
    author's are among all of them.
    """

    def __init__(
        self,
        target: object,
        *,
        examples: Iterable[bytes] = (),
        messages: st.SearchStrategy[bytes] | None = None,
        count: int = KIT_EXAMPLES,
    ) -> None:
        self.make = registry.listing().maker(target)
        self._transform = self.make()
        self.streams: bool = IStreamTransform.providedBy(self._transform)
        given_examples = sorted(map(_given, examples), key=lambda message: (len(message), message))
        own = [st.sampled_from(given_examples)] if given_examples else []
        if messages is not None:
            own.append(messages.map(_given))
        self.any = st.one_of(ANY, *own)
        self.text = st.one_of(TEXT, *own)
        self.corpus = (*CORPUS, *given_examples)
        pairs = product((*FEW, *given_examples), repeat=2)
        self.pairs = sorted(pairs, key=lambda pair: len(pair[0]) + len(pair[1]))
        self._left_out = 0
        self._count = count
        self._drawn: dict[Strategies, list[Case]] = {}
        self._waiter = Waiter([self._transform])
        self._most = ASYNC_WINDOW if is_async(self._transform) else _THREADS
        self._unanswered: Unanswered | None = None

    @property
    def left_out(self) -> str:
        """A sentence on what has not been tried, because it took too long; "" if nothing."""
        cases = counted(self._left_out, "case was", "cases were")
        ends = f"a search for what breaks a law ends after {KIT_SEARCH_TIME:g} s"
        return f"{cases} left out, because {ends}" if self._left_out else ""

    def verify(self, law: Law) -> None:
        """Raise `Broken` for a law that is not kept, `Unanswered` where a reply never comes."""
        if self._unanswered is not None:
            raise self._unanswered
        if law.of_streams and not self.streams:
            return
        try:
            with self._waiter:
                law.verify(self)
        except Unanswered as error:
            self._unanswered = error
            raise

    def hold(self, test: Test, cases: Iterable[Case], *drawn: st.SearchStrategy[Any]) -> None:
        """Put a test to cases, then to drawn ones; raise `Broken` for the smallest it breaks at."""
        self._try(test, cases)
        # Drawn first, for all laws that ask for the same, and tried together, as it is rare that
        # one breaks a law. If one does, the same are drawn again, for hypothesis to find the
        # smallest.
        if drawn not in self._drawn:
            self._search(drawn, self._drawn.setdefault(drawn, []).append)
        try:
            self._try(test, self._drawn[drawn])
        except Broken as broken:
            seen, until = [broken], monotonic() + KIT_SEARCH_TIME

            def breaks(case: Case) -> bool:
                try:
                    if monotonic() < until:
                        self._waiter.wait_for(test(*case))
                except Broken as smaller:
                    seen.append(smaller)
                    return True
                return False

            self._search(drawn, breaks)
            raise min(seen, key=lambda each: len(each.example)) from None

    def _search(self, drawn: Strategies, suits: Callable[[Case], Any]) -> None:
        """Draw cases until one suits, and then for the smallest that does."""
        drawing = settings(max_examples=self._count, derandomize=True, database=None, deadline=None)
        # It does not suit again, or the time is over.
        with suppress(NoSuchExample, Flaky):
            find(st.tuples(*drawn), suits, settings=drawing)

    def _try(self, test: Test, cases: Iterable[Case], *, most: int | None = None) -> None:
        """Put a test to cases, `most` at a time, or else as many as may overlap.

        Raises `Broken` or `Unanswered` for the first that by itself breaks the law or has no reply.
        """
        left = iter(cases)
        until = monotonic() + KIT_SEARCH_TIME
        while batch := list(islice(left, most or self._window)):
            if monotonic() > until:
                self._left_out += len(batch)
                continue
            for case, error in self._waiter.wait_for(_try_together(test, batch)):
                if error is not None:
                    raise error
                # What breaks only beside others is for the law of calls that overlap.
                self._waiter.wait_for(test(*case))

    async def reply(self, message: bytes, transform: ITransform | None = None) -> CallResult:
        (result,) = await self.replies([message], transform)
        return result

    async def replies(
        self, messages: Sequence[bytes], transform: ITransform | None = None
    ) -> list[CallResult]:
        """Return what comes of messages; all are given before the first reply is awaited."""
        begun = [_call(transform or self._transform, message) for message in messages]
        return [came if isinstance(came, CallResult) else await came for came in begun]

    def stream(self, chunks: Iterable[bytes], transform: ITransform | None = None) -> CallResult:
        """Return what comes of one stream, fed with these chunks and then finished."""
        output = b""
        try:
            stream = cast(IStreamTransform, transform or self._transform).open_stream()
            for chunk in chunks:
                output += _bytes(stream.feed(chunk))
            tail = _bytes(stream.finish())
        except _RAISED as error:
            return CallResult(output, error)
        return CallResult(output + tail, tail=len(tail))

    @cached_property
    def _window(self) -> int:
        """How many cases overlap: where calls block, no more than have a turn within a second."""
        # Twice, as the reactor may begin to run with the first.
        blocked = min(self._waiter.wait_for(self._timed(b""))[1] for _ in range(2))
        return max(1, min(self._most, int(1 / max(blocked, 1e-3))))

    async def _timed(self, message: bytes) -> tuple[CallResult, float]:
        """Return what comes of a message, and how long at a time it kept the reactor."""
        started = perf_counter()
        begun = _call(self._transform, message)
        longest = perf_counter() - started
        if isinstance(begun, CallResult):
            return begun, longest
        if begun.called:
            return await begun, longest
        # What is awaited may block later; on asyncio it has not even begun.
        expected = perf_counter()

        def look() -> None:
            nonlocal longest, expected
            longest = max(longest, perf_counter() - expected)
            expected = perf_counter() + _LOOK

        looking = LoopingCall(look)
        looking.clock = the_reactor()
        looking.start(_LOOK)
        try:
            outcome = await begun
        finally:
            looking.stop()
        look()
        return outcome, longest

    @cached_property
    def large(self) -> list[tuple[bytes, CallResult, float]]:
        """Large messages, what came of each, and how long the call blocked; up to a slow one."""
        tried: list[tuple[bytes, CallResult, float]] = []

        async def measure(message: bytes) -> None:
            if tried and tried[-1][2] > KIT_CALL_TIME:
                return
            seconds = float("inf")
            for _ in range(3):  # Again if it was slow: something else may have run beside it.
                outcome, blocked = await self._timed(message)
                seconds = min(seconds, blocked)
                if seconds <= KIT_CALL_TIME:
                    break
            tried.append((message, outcome, seconds))

        # One by one: what happens beside others is for the law of calls alone.
        self._try(measure, zip(large_messages()), most=1)
        return tried


def _given(message: object) -> bytes:
    """Return an author's message: of another type, it would look like a fault of the transform."""
    if not isinstance(message, bytes):
        raise UserError(f"got {message!r} as a message to try; bytes are accepted, as b'hello'")
    return message


async def _try_together(test: Test, batch: list[Case]) -> list[tuple[Case, Exception | None]]:
    """Return the cases that failed, with the error of those that no other overlapped."""
    begun = [start(test(*case)) for case in batch]
    alone = sum(1 for _ in takewhile(lambda each: each.called, begun))
    outcomes: Any = await DeferredList(begun, consumeErrors=True)
    failed: list[tuple[Case, Exception | None]] = []
    for number, (fine, failure) in enumerate(outcomes):
        if not fine:
            failure.trap(Broken, Unanswered)
            failed.append((batch[number], failure.value if number < alone else None))
    return failed


def _call(transform: ITransform, message: bytes) -> CallResult | Deferred[CallResult]:
    """Call a transform now, and await its reply if it has to be awaited, for `KIT_WAIT`."""
    try:
        reply: Any = transform.transform(message)
        if not isinstance(reply, Awaitable):
            return CallResult(_bytes(reply))
    except _RAISED as error:
        return CallResult(b"", error)

    async def wait() -> CallResult:
        try:
            return CallResult(_bytes(await reply))
        except _RAISED as error:
            return CallResult(b"", error)

    def give_up(_: object, seconds: float) -> None:
        raise Unanswered(
            f"transform({show(message)}) has no reply after {seconds:g} s; see to it that what "
            "it awaits comes to an end"
        )

    started = start(wait())
    if not started.called:
        started.addTimeout(KIT_WAIT, the_reactor(), give_up)
    return started


def place_of(error: BaseException) -> str:
    """Return where it was raised, in brackets: the innermost place in the author's code, or ""."""
    for frame in reversed(extract_tb(error.__traceback__)):
        if not frame.filename.startswith(("<", *_NOT_THE_AUTHORS)):
            return f" ({frame.filename}, line {frame.lineno})"
    return ""


def _bytes(result: object) -> bytes:
    if not isinstance(result, bytes):
        raise WrongResult("?", f"it returned {type(result).__name__}, not bytes")
    return result


def show(message: bytes) -> str:
    """Return a message as Python would write it, a long one shortened."""
    if len(message) <= _SHOWN:
        return repr(message)
    for length in range(1, _LONGEST_UNIT + 1):
        unit, count = message[:length], len(message) // length
        if unit * count == message:
            return f"{unit!r} * {count}"
    return f"{message[:_SHOWN]!r}... ({len(message)} bytes)"
