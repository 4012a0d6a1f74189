"""The laws that every transform keeps, each with a search for the smallest case that breaks it.

A transform may refuse a message by raising `ValueError` or `TransformError`. To refuse is an
outcome like any other: the laws ask that it be the same each time. Any other exception is a fault.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, Final

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.errors import Flaky

from uppercase.errors import WrongResult
from uppercase.limits import KIT_CALL_TIME, KIT_EXAMPLES, MAX_OUTPUT
from uppercase.testing.messages import ANY, CUTS, INVALID, NOT_UTF_8, TEXT, large_messages
from uppercase.testing.subject import Outcome, Subject, show

__all__ = ["LAWS", "Broken", "Examination", "Law", "Report", "check"]


_CUTS: Final = 256
"""How many of a long example's cuts are tried, evenly spread; of a shorter one, all."""


class Broken(AssertionError):
    """A law is broken.

    Attributes:
        law: its name.
        example: the smallest case that was found.
    """

    def __init__(self, example: str, law: str = "") -> None:
        super().__init__(example)
        self.example = example
        self.law = law


@dataclass(frozen=True)
class Law:
    """One law.

    Attributes:
        name: a few words, joined by hyphens.
        promise: what it says.
        verify: raises `Broken` where a transform does not keep it.
    """

    name: str
    promise: str
    verify: Callable[["Examination"], None]


@dataclass(frozen=True)
class Report:
    """What an examination found.

    Attributes:
        broken: the laws that are not kept, in order.
        growth: the longest output for a large message, as a multiple of its length.
        seconds: the longest that a call blocked, for a large message.
    """

    broken: tuple[Broken, ...]
    growth: float
    seconds: float


class Examination:
    """One transform and what is tried on it.

    Args:
        target: see `Subject`.
        examples: messages that are always tried, besides those of the kit.
        messages: a hypothesis strategy for messages, besides that of the kit.
        count: how many messages are drawn for each search.
    """

    def __init__(
        self,
        target: object,
        *,
        examples: Iterable[bytes] = (),
        messages: st.SearchStrategy[bytes] | None = None,
        count: int = KIT_EXAMPLES,
    ) -> None:
        self.subject = Subject(target)
        self._count = count
        given_examples = sorted(examples, key=lambda message: (len(message), message))
        self._own = [st.sampled_from(given_examples)] if given_examples else []
        self._examples: Sequence[bytes] = given_examples
        if messages is not None:
            self._own.append(messages)

    @property
    def any(self) -> st.SearchStrategy[bytes]:
        """Messages of any bytes, the author's among them."""
        return st.one_of(ANY, *self._own)

    @property
    def text(self) -> st.SearchStrategy[bytes]:
        """Messages that are UTF-8, and the author's."""
        return st.one_of(TEXT, *self._own)

    def fixed(self, messages: Iterable[bytes], test: Callable[[bytes], None]) -> None:
        """Run a test on messages that are always tried, the author's examples after them."""
        for message in (*messages, *self._examples):
            test(message)

    def search(self, test: Callable[..., None], *drawn: st.SearchStrategy[Any]) -> None:
        """Run a test on what is drawn; raise `Broken` for the smallest case that breaks it."""
        seen: list[Broken] = []

        def run(values: tuple[Any, ...]) -> None:
            try:
                test(*values)
            except Broken as broken:
                seen.append(broken)
                raise

        try:
            settings(
                max_examples=self._count,
                derandomize=True,
                database=None,
                deadline=None,
                report_multiple_bugs=False,
                suppress_health_check=list(HealthCheck),
            )(given(st.tuples(*drawn))(run))()
        except Flaky:
            # The case did not break the law again: what was seen is all there is.
            if not seen:
                raise
            raise min(seen, key=lambda broken: len(broken.example)) from None

    @cached_property
    def large(self) -> list[tuple[bytes, Outcome, float]]:
        """Large messages with what came of each and how long it took, up to one that is slow."""
        tried = []
        for message in large_messages():
            outcome, seconds = self.subject.timed(message)
            if seconds > KIT_CALL_TIME:
                seconds = min(seconds, self.subject.timed(message)[1])
            tried.append((message, outcome, seconds))
            if seconds > KIT_CALL_TIME:
                break
        return tried

    def verify(self, law: Law) -> None:
        """Verify one law.

        Raises:
            Broken: it is not kept.
        """
        try:
            law.verify(self)
        except Broken as broken:
            raise Broken(broken.example, law.name) from None

    def report(self) -> Report:
        """Verify all laws."""
        broken = []
        for law in LAWS:
            try:
                self.verify(law)
            except Broken as found:
                broken.append(found)
        return Report(
            tuple(broken),
            max(len(outcome.output) / len(message) for message, outcome, _ in self.large),
            max(seconds for _, _, seconds in self.large),
        )


def check(
    target: object,
    *,
    examples: Iterable[bytes] = (),
    messages: st.SearchStrategy[bytes] | None = None,
    count: int = KIT_EXAMPLES,
) -> Report:
    """Examine a transform.

    Args:
        target: a specification such as `caesar:shift=3` or `module:function`, a decorated or plain
            function or class, a plugin, or an `ITransform`.
        examples: messages that are always tried: what the transform is made for.
        messages: a hypothesis strategy that draws more of them.
        count: how many messages are drawn for each search.

    Raises:
        uppercase.errors.UserError: the specification is wrong.
        uppercase.errors.PluginError: the transform cannot be loaded.
    """
    return Examination(target, examples=examples, messages=messages, count=count).report()


def _bytes(examined: Examination) -> None:
    subject = examined.subject

    def is_bytes(message: bytes) -> None:
        ways = {f"transform({show(message)})": subject.reply(message)}
        if subject.streams:
            ways[f"feed({show(message)}) + finish()"] = subject.stream([message])
        for call, outcome in ways.items():
            if isinstance(outcome.error, WrongResult):
                raise Broken(f"{call}: {outcome.error.reason}")

    examined.fixed((b"",), is_bytes)
    examined.search(is_bytes, examined.any)


def _answered(subject: Subject) -> Callable[[bytes], None]:
    def is_answered(message: bytes) -> None:
        _judge(f"transform({show(message)})", subject.reply(message))
        if subject.streams:
            _judge(f"feed({show(message)}) + finish()", subject.stream([message]))

    return is_answered


def _judge(call: str, outcome: Outcome) -> None:
    if outcome.error is None or outcome.refused or isinstance(outcome.error, WrongResult):
        return
    raise Broken(f"{call} {outcome}; raise ValueError where a message is refused")


def _messages(examined: Examination) -> None:
    is_answered = _answered(examined.subject)
    examined.fixed((b"", *(bytes([byte]) for byte in range(0x80))), is_answered)
    examined.search(is_answered, examined.text)
    for message, outcome, _ in examined.large:
        if _is_utf_8(message):
            _judge(f"transform({show(message)})", outcome)


def _invalid_utf_8(examined: Examination) -> None:
    is_answered = _answered(examined.subject)
    examined.fixed((*NOT_UTF_8, *(bytes([byte]) for byte in range(0x80, 0x100))), is_answered)
    examined.search(is_answered, INVALID)
    for message, outcome, _ in examined.large:
        if not _is_utf_8(message):
            _judge(f"transform({show(message)})", outcome)


def _is_utf_8(message: bytes) -> bool:
    try:
        message.decode()
    except UnicodeDecodeError:
        return False
    return True


def _determinism(examined: Examination) -> None:
    subject = examined.subject

    def is_the_same(message: bytes) -> None:
        first = subject.reply(message, subject.make())
        second = subject.reply(message, subject.make())
        if not first.same(second):
            raise Broken(f"transform({show(message)}) {first}; the next time it {second}")

    examined.search(is_the_same, examined.any)


def _calls(examined: Examination) -> None:
    subject = examined.subject

    def is_untouched(other: bytes, message: bytes) -> None:
        alone = subject.reply(message, subject.make())
        transform = subject.make()
        finish_other = subject.begin(other, transform)
        after = subject.reply(message, transform)
        finish_other()
        if not after.same(alone) and _is_stable(subject, message, alone):
            raise Broken(
                f"after transform({show(other)}), transform({show(message)}) {after}; without it "
                f"{alone}"
            )

    examined.search(is_untouched, examined.any, examined.any)


def _is_stable(subject: Subject, message: bytes, before: Outcome) -> bool:
    """Tell whether a reply is still what it was; if not, that is determinism's matter."""
    return subject.reply(message, subject.make()).same(before)


def _connections(examined: Examination) -> None:
    subject = examined.subject
    if not subject.streams:
        return

    def are_apart(other: bytes, message: bytes, cut: int) -> None:
        chunks = message[:cut], message[cut:]
        alone = subject.stream(chunks, subject.make())
        transform: Any = subject.make()

        def meanwhile() -> Iterable[bytes]:
            yield chunks[0]
            subject.stream([other], transform)
            yield chunks[1]

        among = subject.stream(meanwhile(), transform)
        if not among.same(alone) and subject.stream(chunks, subject.make()).same(alone):
            raise Broken(
                f"{_feeds(chunks)} {among} when another stream is fed {show(other)} between the "
                f"two; alone it {alone}"
            )

    examined.search(are_apart, examined.any, examined.any, CUTS)


def _cuts(examined: Examination) -> None:
    subject = examined.subject
    if not subject.streams:
        return

    def at_every_cut(message: bytes) -> None:
        whole = subject.stream([message])
        reply = subject.reply(message)
        if not _is_one_outcome(reply, whole):
            if _is_stable(subject, message, reply):
                raise Broken(
                    f"transform({show(message)}) != feed({show(message)}) + finish(): the first "
                    f"{reply}, the second {whole}"
                )
            return
        for cut in range(1, len(message), 1 + len(message) // _CUTS):
            compare(whole, (message[:cut], message[cut:]))
        compare(whole, [message[i : i + 1] for i in range(len(message))])
        compare(whole, (b"", message, b""))

    def at_some_cuts(message: bytes, cuts: list[int]) -> None:
        places = sorted({0, len(message), *(cut for cut in cuts if cut < len(message))})
        chunks = [message[start:end] for start, end in pairwise(places)]
        compare(subject.stream([message]), chunks)

    def compare(whole: Outcome, chunks: Sequence[bytes]) -> None:
        outcome = subject.stream(chunks)
        if _is_one_outcome(whole, outcome):
            return
        message = b"".join(chunks)
        if subject.stream([message]).same(whole):
            end = " + finish()" if whole.tail or outcome.tail else ""
            raise Broken(
                f"{_feeds(chunks)}{end} != feed({show(message)}){end}: the first {outcome}, the "
                f"second {whole}"
            )

    examined.fixed((), at_every_cut)
    examined.search(at_every_cut, examined.any)
    examined.search(at_some_cuts, examined.any, st.lists(CUTS, max_size=8))


def _is_one_outcome(one: Outcome, other: Outcome) -> bool:
    """Tell whether two ways of cutting a stream came to the same.

    Of a stream that is refused, clients may have had more or less before the refusal.
    """
    if one.refused and other.refused:
        return one.output.startswith(other.output) or other.output.startswith(one.output)
    return one.same(other)


def _feeds(chunks: Sequence[bytes]) -> str:
    return " + ".join(f"feed({show(chunk)})" for chunk in chunks)


def _reuse(examined: Examination) -> None:
    subject = examined.subject
    if not subject.streams:
        return
    empty, reply = subject.stream([]), subject.reply(b"")
    if not empty.same(reply):
        raise Broken(f"finish() with nothing fed {empty}; transform(b'') {reply}")

    def goes_on(left: bytes, message: bytes) -> None:
        alone = subject.stream([message], subject.make())
        transform: Any = subject.make()

        def leave() -> Iterable[bytes]:
            yield left
            raise ConnectionError("the client is gone")

        gone = subject.stream(leave(), transform)
        after = subject.stream([message], transform)
        if not after.same(alone) and subject.stream([message], subject.make()).same(alone):
            ended = "never finished" if isinstance(gone.error, ConnectionError) else "failed"
            raise Broken(
                f"after a stream that was fed {show(left)} and {ended}, feed({show(message)}) + "
                f"finish() {after}; without it {alone}"
            )

    examined.search(goes_on, examined.any, examined.any)


def _growth(examined: Examination) -> None:
    for message, outcome, _ in examined.large:
        if len(outcome.output) > MAX_OUTPUT:
            raise Broken(
                f"transform({show(message)}) gave {len(outcome.output):,} bytes; servers send "
                f"{MAX_OUTPUT:,} at the most (--max-output)"
            )


def _time(examined: Examination) -> None:
    message, _, seconds = max(examined.large, key=lambda tried: tried[2])
    if seconds > KIT_CALL_TIME:
        raise Broken(
            f"transform({show(message)}) took {seconds:.1f} s, in which a server serves nobody "
            f"else; {KIT_CALL_TIME:g} s is the most, blocking=True runs it in a thread"
        )


LAWS: Final = (
    Law("bytes", "bytes in, bytes out; text in, text out that UTF-8 can hold", _bytes),
    Law("messages", "a message of any size is answered or refused: 0, 1, 65,536 bytes", _messages),
    Law("invalid-utf-8", "bytes that are not UTF-8 are answered or refused", _invalid_utf_8),
    Law("determinism", "the same message has the same reply", _determinism),
    Law("calls", "no call leaves anything behind for the next", _calls),
    Law("connections", "streams that are open at once share nothing", _connections),
    Law("cuts", "a stream's output does not depend on where it was cut", _cuts),
    Law("reuse", "a stream can end at once, or never; the next one works", _reuse),
    Law("growth", "the output for 64 KiB stays below --max-output", _growth),
    Law("time", "a call does not keep everybody else waiting", _time),
)
"""All laws, in the order in which they are verified."""
