"""The contract kit as a class for pytest: one test for each law."""

import inspect
import warnings
from collections.abc import Sequence
from functools import cache
from typing import Any, ClassVar

from hypothesis.strategies import SearchStrategy
from twisted.internet.defer import Deferred

from uppercase.awaiting import is_in_reactor
from uppercase.testing._examination import Broken, Examination, Unanswered
from uppercase.testing._laws import LAWS

_LAWS = {law.name: law for law in LAWS}


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
    messages: ClassVar[SearchStrategy[bytes] | None] = None

    def test_bytes_come_out_for_bytes(self) -> Deferred[None] | None:
        """Text in, text out that UTF-8 can hold; bytes in, bytes out."""
        return self._verify("bytes")

    def test_a_message_of_any_size_is_answered_or_refused(self) -> Deferred[None] | None:
        """Empty, 1 byte, 64 KiB; to refuse is to raise `ValueError` or `TransformError`."""
        return self._verify("messages")

    def test_bytes_that_are_not_utf_8_are_answered_or_refused(self) -> Deferred[None] | None:
        """A peer may send anything."""
        return self._verify("invalid-utf-8")

    def test_the_same_message_has_the_same_reply(self) -> Deferred[None] | None:
        """Also from another instance."""
        return self._verify("determinism")

    def test_no_call_leaves_anything_behind(self) -> Deferred[None] | None:
        """Calls may overlap where replies are awaited."""
        return self._verify("calls")

    def test_streams_share_nothing(self) -> Deferred[None] | None:
        """Each connection has a stream of its own."""
        return self._verify("connections")

    def test_cuts_do_not_matter(self) -> Deferred[None] | None:
        """TCP cuts a stream anywhere, also within a character."""
        return self._verify("cuts")

    def test_a_stream_can_end_at_any_time(self) -> Deferred[None] | None:
        """Before its first byte, by a failure, or because the client has gone."""
        return self._verify("reuse")

    def test_the_output_is_bounded(self) -> Deferred[None] | None:
        """By the default of `--max-output`, for 64 KiB of input."""
        return self._verify("growth")

    def test_a_call_is_quick(self) -> Deferred[None] | None:
        """Nobody else is served meanwhile, unless it is `blocking`."""
        return self._verify("time")

    def _verify(self, name: str) -> Deferred[None] | None:
        """Verify a law, in a thread where this is the reactor's, as with pytest-twisted."""
        if not is_in_reactor():
            self._judge(name)
            return None
        from twisted.internet.threads import deferToThread

        return deferToThread(self._judge, name)

    def _judge(self, name: str) -> None:
        # Imported here: what runs this is pytest, and nothing else of the kit needs it.
        import pytest

        law = _LAWS[name]
        contract: Any = type(self)
        examination = _examination(contract)
        left_out = examination.left_out
        try:
            examination.verify(name, law.verify)
        except Broken as broken:
            case = broken.example
        except Unanswered as error:
            case = str(error)
        else:
            if examination.left_out != left_out:
                warnings.warn(examination.left_out, stacklevel=1)
            return
        pytest.fail(f"{law.promise}: {case}", pytrace=False)


@cache
def _examination(contract: Any) -> Examination:
    """Return the examination that all tests of a subclass share."""
    # Not by the dot: a plain function would become a method.
    target = inspect.getattr_static(contract, "transform", None)
    if isinstance(target, staticmethod):
        target = target.__func__
    specification = getattr(contract, "specification", None)
    if (target is None) == (specification is None):
        raise TypeError(f"{contract.__name__} needs either specification or transform")
    return Examination(
        specification if target is None else target,
        examples=contract.examples,
        messages=contract.messages,
    )
