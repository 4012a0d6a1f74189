"""What the laws of the contract kit share: a law, a case that breaks it, the search for one."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.errors import Flaky

from uppercase.limits import KIT_CALL_TIME, KIT_EXAMPLES
from uppercase.testing._messages import ANY, CORPUS, FEW, TEXT, large_messages
from uppercase.testing._subject import CallResult, Subject


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

    @cached_property
    def corpus(self) -> tuple[bytes, ...]:
        """Messages that are always tried, the author's examples after those of the kit."""
        return (*CORPUS, *self._examples)

    @cached_property
    def pairs(self) -> list[tuple[bytes, bytes]]:
        """Pairs of messages that are always tried."""
        messages = (*FEW, *self._examples)
        pairs = [(one, other) for one in messages for other in messages]
        return sorted(pairs, key=lambda pair: len(pair[0]) + len(pair[1]))

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
    def large(self) -> list[tuple[bytes, CallResult, float]]:
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
            Unanswered: it cannot be verified.
        """
        try:
            with self.subject.waiter:
                law.verify(self)
        except Broken as broken:
            raise Broken(broken.example, law.name) from None
