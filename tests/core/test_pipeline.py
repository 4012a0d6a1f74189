"""Several transforms as one: order, streaming, faults and bounds."""

import asyncio
import gc
import signal
import sys
import time
import tracemalloc
import weakref
from collections.abc import Awaitable, Callable
from functools import partial
from math import inf
from types import SimpleNamespace

import pytest
from zope.interface import implementer
from zope.interface.verify import verifyObject

from uppercase.core.pipeline import Pipeline, Stage
from uppercase.errors import OutputTooLong, Rejected, TransformError, WrongResult
from uppercase.interfaces import IStreamTransform, ITransform, ITransformStream
from uppercase.registry import listing


@implementer(ITransform)
class Message:
    """A transform made of whatever callable a test needs."""

    def __init__(self, function: object) -> None:
        self.transform = function


@implementer(ITransformStream)
class Buffering:
    """Holds everything back to its end, and brackets it."""

    def __init__(self) -> None:
        self.held = b""

    def feed(self, data: bytes) -> bytes:
        self.held += data
        return b""

    def finish(self) -> bytes:
        return b"<" + self.held + b">"


@implementer(IStreamTransform)
class Bracketing:
    def transform(self, message: bytes) -> bytes:
        return b"<" + message + b">"

    def open_stream(self) -> ITransformStream:
        return Buffering()


def message_stage(function: object, name: str = "tested") -> Stage:
    return Stage(name, Message(function))


def fails(message: bytes) -> bytes:
    raise ValueError("no vowels")


class Held:
    """Something that a function has in a variable."""


class Mute(BaseException):
    """An exception that cannot even say what it is about."""

    def __str__(self) -> str:
        raise KeyboardInterrupt


class Own(TransformError):
    """An author's, that does not do what ours does."""

    def __init__(self, text: str) -> None:
        Exception.__init__(self, text)


def raises(error: Callable[[], BaseException]) -> object:
    """Return a function that raises it."""

    def function(message: bytes) -> bytes:
        raise error()

    return function


def sleeps(message: bytes) -> bytes:
    time.sleep(1.01)
    return message


class Unnoted(Exception):
    """One that cannot be described before Python 3.13: tracebacks ask for its notes."""

    @property
    def __notes__(self) -> list[str]:  # type: ignore[override]
        raise OSError("no notes")


class Unaskable(Exception):
    """One that tells nothing of itself."""

    def __getattribute__(self, name: str) -> object:
        raise RuntimeError(f"no {name}")


class Measuring(bytes):
    """Bytes that count something else, and are no key."""

    def __len__(self) -> int:
        return 50

    def __eq__(self, other: object) -> bool:
        return bytes(self) == other

    __hash__ = None  # type: ignore[assignment]


class Unbound:
    """As the proxies of web frameworks are outside of a request."""

    @property
    def __class__(self) -> type:
        raise RuntimeError("unbound")

    @__class__.setter
    def __class__(self, kind: type) -> None: ...


def exits(message: bytes) -> bytes:
    sys.exit(3)


def test_stages_apply_in_the_order_given() -> None:
    pipeline = Pipeline(
        [message_stage(lambda m: m + b"1", "one"), message_stage(lambda m: m + b"2", "two")]
    )
    assert pipeline.transform(b"0") == b"012"
    assert pipeline.name == "one | two"
    verifyObject(ITransform, pipeline)


def test_a_chain_streams_only_if_every_stage_does() -> None:
    bracketing = Stage("brackets", Bracketing())
    assert Pipeline([bracketing, bracketing]).streams
    assert not Pipeline([bracketing, message_stage(bytes.upper)]).streams


def test_what_a_stage_gives_at_its_end_goes_through_the_stages_behind_it() -> None:
    pipeline = Pipeline([Stage("a", Bracketing()), Stage("b", Bracketing())])
    assert IStreamTransform.providedBy(pipeline)
    stream = pipeline.open_stream()
    assert stream.feed(b"x") + stream.feed(b"y") == b""
    assert stream.finish() == b"<<xy>>" == pipeline.transform(b"xy")


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (fails, "ValueError: no vowels"),
        (exits, "SystemExit: 3"),
        (raises(GeneratorExit), "GeneratorExit"),
        (raises(Mute), "Mute: (its text cannot be had: KeyboardInterrupt)"),
        (raises(Unnoted), "OSError: no notes" if sys.version_info < (3, 13) else "Unnoted"),
        (raises(Unaskable), "RuntimeError: no __class__"),
        (raises(Rejected), "Rejected"),
        (raises(partial(Own, "no vowels")), "no vowels"),
        (raises(partial(Own, text="no vowels")), "Own"),
        (lambda message: Unbound(), "RuntimeError: unbound"),
        (lambda message: None, "it returned NoneType, not bytes"),
        (lambda message: "text", "it returned str, not bytes"),
    ],
)
def test_a_fault_names_the_stage_and_what_went_wrong(function: object, reason: str) -> None:
    pipeline = Pipeline([message_stage(bytes.upper, "fine"), message_stage(function)])
    with pytest.raises(TransformError) as caught:
        pipeline.transform(b"x")
    assert str(caught.value) == f"transform 'tested' failed: {reason}"


def test_an_authors_failure_has_all_that_ours_has() -> None:
    failure = Own("no vowels")
    assert failure.traceback is None
    assert str(failure) == "transform '?' failed: no vowels"


def test_a_reply_is_bytes_itself_however_it_was_asked_for() -> None:
    """A subclass may have another length than the kernel sends, and be no key of a table."""

    async def later(message: bytes) -> bytes:
        return Measuring(message)

    stages = message_stage(Measuring), message_stage(later)
    at_once, awaited = (Pipeline([stage]) for stage in stages)
    stream = Bracketing()
    stream.open_stream = lambda: SimpleNamespace(  # type: ignore[method-assign, assignment, return-value]
        feed=Measuring, finish=lambda: Measuring(b"")
    )
    streamed = Pipeline([Stage("streamed", stream)])
    assert IStreamTransform.providedBy(streamed)
    reply, opened = awaited.transform(b"hello"), streamed.open_stream()
    assert isinstance(reply, Awaitable)
    run: list[bytes] = []
    found = [
        at_once.transform(b"hello"),
        at_once.answer_run([b"hello"], run, 64, inf),
        asyncio.run(_awaited(reply)),
        opened.feed(b"hello"),
        opened.settle(0.0, Measuring(b"hello"), None),  # type: ignore[attr-defined]
        opened.finish() + b"hello",
    ]
    assert [(type(each), each) for each in [*found, *run]] == [(bytes, b"hello")] * 6


def test_what_a_stream_gives_is_not_asked_what_it_is() -> None:
    stream = Bracketing()
    stream.open_stream = lambda: SimpleNamespace(  # type: ignore[method-assign, assignment, return-value]
        feed=lambda data: Unbound(), finish=bytes
    )
    streamed = Pipeline([Stage("streamed", stream)])
    assert IStreamTransform.providedBy(streamed)
    with pytest.raises(WrongResult, match="returned Unbound, not bytes"):
        streamed.open_stream().feed(b"hello")


def test_what_ends_commands_is_a_fault_of_the_transform_where_a_reactor_hears_ctrl_c(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    handler = "uppercase.core.pipeline.getsignal"
    pipeline = Pipeline([message_stage(raises(KeyboardInterrupt))])
    monkeypatch.setattr(handler, lambda number: signal.default_int_handler)
    with pytest.raises(KeyboardInterrupt):
        pipeline.transform(b"x")
    with pytest.raises(TransformError, match="ValueError: no vowels"):
        Pipeline([message_stage(fails)]).transform(b"x")
    monkeypatch.setattr(handler, lambda number: "the reactor's")
    with pytest.raises(TransformError, match=r"'tested' failed: KeyboardInterrupt$"):
        pipeline.transform(b"x")


@pytest.mark.parametrize("function", [fails, lambda message: None])
def test_a_failure_that_is_returned_leaves_nothing_for_the_collector(function: object) -> None:
    """Which rarely comes by: what a flood of bad datagrams leaves would be in memory until then."""
    pipeline = Pipeline([message_stage(function)])
    gc.collect()
    gc.disable()
    try:
        for _ in range(2):
            assert isinstance(pipeline.outcome(b"x"), TransformError)
            assert isinstance(pipeline.answer_run([b"x"], [], 0, inf), TransformError)
        assert gc.collect() == 0
    finally:
        gc.enable()


@pytest.mark.parametrize("first_is", ["cause", "context", "one of several"])
def test_a_failure_keeps_nothing_of_what_the_transform_was_at_work_on(first_is: str) -> None:
    """A traceback would keep the frames, and they the message, for as long as the failure lives."""
    held: list[weakref.ref[Held]] = []

    def work() -> None:
        working_on = Held()
        held.append(weakref.ref(working_on))
        raise KeyError("first")

    def function(message: bytes) -> bytes:
        try:
            work()
        except KeyError as error:
            first = error
            if first_is == "context":
                raise ValueError("then")  # noqa: B904
        if first_is == "cause":
            raise ValueError("then") from first
        raise ExceptionGroup("then", [first])

    with pytest.raises(TransformError) as caught:
        Pipeline([message_stage(function)]).transform(b"x")
    assert [each() for each in held] == [None]
    assert caught.value.traceback is not None
    shown = "".join(caught.value.traceback.format())
    assert ": then" in shown
    assert "KeyError: 'first'" in shown


def test_a_failure_may_be_behind_itself() -> None:
    def function(message: bytes) -> bytes:
        first, then = KeyError("first"), ValueError("then")
        first.__cause__ = then
        raise then from first

    with pytest.raises(TransformError, match="ValueError: then"):
        Pipeline([message_stage(function)]).transform(b"x")


@pytest.mark.parametrize("explicit", [True, False])
def test_what_a_fault_quotes_is_cut_wherever_it_is_kept(explicit: bool) -> None:
    """A hundred failures of 64 KiB each would keep 26 MiB; what is behind them is still shown."""

    def function(message: bytes) -> bytes:
        try:
            raise KeyError("behind it")
        except KeyError as error:
            if explicit:
                raise ValueError(message) from error
            raise ValueError(message)  # noqa: B904

    with pytest.raises(TransformError) as caught:
        Pipeline([message_stage(function)]).transform(bytes(1 << 16))
    assert caught.value.traceback is not None
    shown = "".join(caught.value.traceback.format())
    assert "KeyError: 'behind it'" in shown
    assert shown.splitlines()[-1].startswith(r"ValueError: b'\x00\x00")
    assert len(shown) < 3000 > len(str(caught.value))


def test_a_syntax_error_that_quotes_much_is_shown_too() -> None:
    """Traceback and text of it are made of more than what it says."""

    def function(message: bytes) -> bytes:
        raise SyntaxError(message.decode())

    with pytest.raises(TransformError, match=r"'tested' failed: SyntaxError: x{1000}…$") as caught:
        Pipeline([message_stage(function)]).transform(b"x" * 2000)
    assert caught.value.traceback is not None
    assert "SyntaxError: x" in "".join(caught.value.traceback.format())


def test_the_output_of_each_stage_is_bounded() -> None:
    """An expansion in the middle counts, even where a later stage makes it small again."""
    pipeline = Pipeline(
        [message_stage(lambda m: m * 11, "grow"), message_stage(lambda m: m[:1], "shrink")],
        max_output=10,
    )
    with pytest.raises(
        OutputTooLong, match=r"'grow' failed: its output of 11 bytes .* limit of 10"
    ):
        pipeline.transform(b"x")


def test_a_stream_is_bounded_by_chunk_and_at_its_end() -> None:
    pipeline = Pipeline([Stage("brackets", Bracketing())], max_output=4)
    assert IStreamTransform.providedBy(pipeline)
    stream = pipeline.open_stream()
    stream.feed(b"abc")
    with pytest.raises(OutputTooLong):
        stream.finish()


@pytest.mark.parametrize("opened", [None, SimpleNamespace(feed=bytes.upper)])
def test_what_is_no_stream_is_the_fault_of_the_stage_that_opens_it(opened: object) -> None:
    """A connection fails by it, as by any other fault, and not the service."""
    bracketing = Bracketing()
    bracketing.open_stream = lambda: opened  # type: ignore[method-assign,assignment,return-value]
    pipeline = Pipeline([Stage("mine", bracketing)])
    assert IStreamTransform.providedBy(pipeline)
    with pytest.raises(TransformError, match=r"'mine' failed: AttributeError: .* 'f(eed|inish)'"):
        pipeline.open_stream()


def test_an_asynchronous_stage_makes_the_reply_awaitable() -> None:
    async def slow(message: bytes) -> bytes:
        await asyncio.sleep(0)
        return message + b"!"

    pipeline = Pipeline([message_stage(slow), message_stage(bytes.upper), message_stage(slow)])
    reply = pipeline.transform(b"x")
    assert isinstance(reply, Awaitable)

    async def wait() -> bytes:
        return await reply

    assert asyncio.run(wait()) == b"X!!"


def test_an_asynchronous_stage_is_guarded_like_any_other() -> None:
    async def wrong(message: bytes) -> object:
        return 7

    async def breaks(message: bytes) -> bytes:
        raise KeyError("gone")

    class MuteError(RuntimeError):
        def __str__(self) -> str:
            raise KeyError

    async def says_nothing(message: bytes) -> bytes:
        raise MuteError

    async def too_late(message: bytes) -> bytes:
        raise TimeoutError

    for function, reason in (
        (wrong, "it returned int, not bytes"),
        (breaks, "KeyError: 'gone'"),
        (says_nothing, "MuteError: (its text cannot be had: KeyError)"),
        (too_late, "TimeoutError"),
    ):
        reply = Pipeline([message_stage(function)]).transform(b"x")
        assert isinstance(reply, Awaitable)

        async def wait(reply: Awaitable[bytes] = reply) -> bytes:
            return await reply

        with pytest.raises(TransformError) as caught:
            asyncio.run(wait())
        assert caught.value.reason == reason


def test_a_call_that_blocks_is_reported_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    # Longer than a busy machine keeps the quick one waiting.
    monkeypatch.setattr("uppercase.core.pipeline.SLOW_CALL", 1.0)
    told: list[tuple[str, float]] = []

    def sleeps_and_fails(message: bytes) -> bytes:
        raise ValueError(sleeps(message))

    pipeline = Pipeline(
        [
            message_stage(bytes.upper, "quick"),
            message_stage(sleeps, "sleepy"),
            message_stage(sleeps_and_fails, "broken"),
        ],
        on_slow=lambda name, seconds: told.append((name, seconds)),
    )
    with pytest.raises(TransformError):
        pipeline.transform(b"x")
    with pytest.raises(TransformError):
        Pipeline([message_stage(fails)], on_slow=lambda *said: told.append(said)).transform(b"")
    assert [name for name, _ in told] == ["sleepy", "broken"]
    assert min(seconds for _, seconds in told) >= 1.0


def test_a_coroutine_that_blocks_is_reported_and_one_that_waits_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 0.0
    monkeypatch.setattr("uppercase.core.pipeline.perf_counter", lambda: now)
    told: list[tuple[str, float]] = []

    def go_by(seconds: float) -> None:
        nonlocal now
        now += seconds

    async def waits(message: bytes) -> bytes:
        asyncio.get_running_loop().call_soon(go_by, 9.0)
        await asyncio.sleep(0)
        return message

    async def blocks(message: bytes) -> bytes:
        await waits(message)
        go_by(1.5)
        return message

    async def blocks_and_fails(message: bytes) -> bytes:
        go_by(2.0)
        raise ValueError

    stages = [message_stage(each, each.__name__) for each in (waits, blocks, blocks_and_fails)]
    chain = Pipeline(stages, on_slow=lambda *call: told.append(call))
    with pytest.raises(TransformError):
        asyncio.run(_awaited(chain.transform(b"x")))  # type: ignore[arg-type]
    assert told == [("blocks", 1.5), ("blocks_and_fails", 2.0)]


def test_a_fault_bears_the_name_that_users_wrote_not_that_of_the_code() -> None:
    def wrong(message: bytes) -> bytes:
        raise WrongResult("shout", "it returned int; str is expected")

    async def late(message: bytes) -> bytes:
        return wrong(message)

    chain = Pipeline([message_stage(wrong, "mine:shout:mark=x")])
    with pytest.raises(WrongResult) as caught:
        chain.transform(b"")
    assert str(caught.value) == (
        "transform 'mine:shout:mark=x' failed: it returned int; str is expected"
    )
    awaited = Pipeline([message_stage(late, "mine:late")]).transform(b"")
    assert isinstance(awaited, Awaitable)
    with pytest.raises(WrongResult, match="transform 'mine:late' failed"):
        asyncio.run(_awaited(awaited))


async def _awaited(awaitable: Awaitable[bytes]) -> bytes:
    return await awaitable


def _odd(message: bytes) -> object:
    if message == b"raise":
        raise ValueError(message)
    if message == b"stop":
        raise StopIteration
    return {b"none": None, b"long": bytes(50), b"longer": bytes(200)}.get(message, message)


@pytest.mark.parametrize("chained", [1, 2])
@pytest.mark.parametrize("last", [b"raise", b"stop", b"none", b"long", b"longer", b"ordinary"])
def test_a_run_of_messages_ends_with_what_one_alone_would_get(last: bytes, chained: int) -> None:
    """Of one stage as of several: a reply far longer than its message ends it too."""
    names = ("odd", "again")[:chained]
    pipeline = Pipeline([Stage(name, Message(_odd)) for name in names], 100)
    replies: list[bytes] = []
    found = pipeline.answer_run([b"one", b"two", last, b"four"], replies, 10, inf)
    alone: object
    try:
        alone = pipeline.transform(last)
    except TransformError as error:
        alone = error
    ended = [b"one", b"two"]
    if last == b"ordinary":
        assert (found, replies) == (None, [*ended, last, b"four"])
    else:
        assert (type(found), str(found), replies) == (type(alone), str(alone), ended)


def test_a_run_is_awaited_from_its_first_asynchronous_reply_on() -> None:
    async def later(message: bytes) -> bytes:
        return message.upper()

    pipeline = Pipeline([Stage("later", Message(later))])
    replies: list[bytes] = []
    found = pipeline.answer_run([b"one", b"two"], replies, 10, inf)
    assert isinstance(found, Awaitable)
    assert (asyncio.run(_awaited(found)), replies) == (b"ONE", [])


def test_a_slow_call_is_reported_once_in_a_run_and_where_its_result_is_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 0.0
    monkeypatch.setattr("uppercase.core.pipeline.perf_counter", lambda: now)
    told: list[str] = []

    def nap(message: bytes) -> bytes:
        nonlocal now
        now += 0.2 * len(message)
        return message

    def on_slow(name: str, seconds: float) -> None:
        told.append(f"{name} {seconds:.1f}")

    pipeline = Pipeline([Stage("nap", Message(nap))], on_slow=on_slow)
    replies: list[bytes] = []
    assert pipeline.answer_run([b"", b"1", b""], replies, 0, inf) is None
    assert (told, replies) == (["nap 0.2"], [b"", b"1", b""])
    forgets = Pipeline([message_stage(lambda m: nap(m) and None, "late")], on_slow=on_slow)
    assert isinstance(forgets.outcome(b"22"), WrongResult)
    assert told == ["nap 0.2", "late 0.4"]


def test_a_chain_holds_no_more_than_a_few_times_what_its_stages_give() -> None:
    """One letter of three bytes is 33 in another form: eleven times the message, at each stage."""
    names = ["normalize:form=NFKD", "normalize:form=NFKD", "uppercase", "reverse"]
    chain = Pipeline(listing().stages(names))
    message = "\ufdfa".encode() * (65_535 // 3)
    chain.transform(message)
    tracemalloc.start()
    try:
        reply = chain.transform(message)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert isinstance(reply, bytes)
    assert len(reply) == 11 * len(message)
    assert peak < 16 * len(reply)
