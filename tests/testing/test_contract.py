"""The contract kit: every law can be broken, the case shown is the smallest, and ours keep all."""

import asyncio
import re
import subprocess
import sys
import time
from collections.abc import Awaitable
from pathlib import Path
from typing import Any, cast
from unittest import mock

import pytest
from hypothesis import strategies as st
from twisted.internet import defer
from twisted.internet.threads import deferToThread

from tests.client.in_reactor import in_reactor
from tests.system.processes import environment
from tests.testing import broken
from uppercase import registry, stream_transform, transform
from uppercase.errors import BadArgument, UnknownName, UserError
from uppercase.testing import LAWS, Law, Report, TransformContract, _examination, check

QUICK = 10
"""Drawn messages for each search, where the messages that are always tried are enough."""


def checked(target: object, **options: Any) -> Report:
    """Check where the short ones of the messages that are always tried are enough, too."""
    with mock.patch.object(_examination, "CORPUS", _examination.CORPUS[:200]):
        return check(target, count=QUICK, **options)


BROKEN = [
    (broken.GivesText(), "bytes", r"transform(b'B'): it returned str, not bytes"),
    (
        broken.half_a_pair,
        "bytes",
        r"transform(b'\xe2\x82\xac'): its result holds '\ud83d', which UTF-8 cannot hold",
    ),
    (
        broken.first_letter,
        "messages",
        "transform(b'') raised IndexError: string index out of range (PLACE); "
        "raise ValueError where a message is refused",
    ),
    (
        broken.strictly_utf_8,
        "invalid-utf-8",
        r"transform(b'\x80') raised UnicodeDecodeError: 'utf-8' codec can't decode byte 0x80 in "
        "position 0: invalid start byte (PLACE); raise ValueError where a message is refused",
    ),
    (broken.numbered, "determinism", "transform(b'') gave b'N '; the next time it gave b'N '"),
    (
        broken.NumbersMessages(),
        "determinism",
        "transform(b'') gave b'N '; the next time it gave b'N '",
    ),
    (
        broken.CountsItsCalls,
        "calls",
        "after transform(b''), transform(b'') gave b'N '; alone it gave b'N '",
    ),
    (
        broken.SharedRest,
        "connections",
        "feed(b'') + feed(b'') + finish() gave b'a' while another stream is open that was fed "
        "b'a'; alone it gave b''",
    ),
    (
        broken.DecodesChunks,
        "cuts",
        r"feed(b'\xc3') + feed(b'\xa9') != feed(b'\xc3\xa9'): the first gave "
        r"b'\xef\xbf\xbd\xef\xbf\xbd', the second gave b'\xc3\xa9'",
    ),
    (
        broken.title,
        "cuts",
        "feed(b'a') + feed(b'a') != feed(b'aa'): the first gave b'AA', the second gave b'Aa'",
    ),
    (
        broken.TwoMinds(),
        "cuts",
        "transform(b'a') != feed(b'a') + finish(): the first gave b'A', the second gave b'a'",
    ),
    (
        broken.NeedsInput,
        "reuse",
        "finish() with nothing fed raised AttributeError: 'NeedsInput' object has no attribute "
        "'fed'; transform(b'') gave b'.'",
    ),
    (
        broken.hundredfold,
        "growth",
        "transform(b'a' * 16384) gave 1,638,400 bytes; servers send at most 1,048,576 "
        "(--max-output)",
    ),
    (
        broken.quadratic,
        "time",
        "transform(b'a' * 16384) took 1.1 s, in which a server serves nobody else; 1 s is the "
        "most, blocking=True runs it in a thread",
    ),
]


@pytest.mark.parametrize(("target", "law", "case"), BROKEN, ids=[case[1] for case in BROKEN])
def test_a_broken_law_is_named_with_the_smallest_case(target: object, law: str, case: str) -> None:
    """And the other laws are kept: one mistake does not look like several."""
    report = checked(target)
    assert [found.law for found in report.broken] == [law]
    example = re.sub(r"\(/.+?broken\.py, line \d+\)", "(PLACE)", report.broken[0].example)
    assert re.sub(r"'\d+ '", "'N '", example) == case or law == "time"


def examine(test: _examination.Test, count: int) -> None:
    law = Law("", "", lambda examined: examined.hold(test, (), st.integers(0, 1000)), False)
    _examination.Examination("uppercase", count=count).verify(law)


@pytest.mark.parametrize(("limit", "smallest"), [(10.0, True), (0.0, False)])
def test_the_smallest_of_what_is_drawn_is_shown(
    limit: float, smallest: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or else, when the time is over, the first."""

    async def holds(number: int) -> None:
        if number > 70:
            monkeypatch.setattr(_examination, "KIT_SEARCH_TIME", limit)
            raise _examination.Broken("x" * number)

    with pytest.raises(_examination.Broken) as caught:
        examine(holds, 100)
    assert (len(caught.value.example) == 71) is smallest


@pytest.mark.parametrize("times", [1, 2])
def test_a_law_that_is_broken_now_and_then_is_broken(times: int) -> None:
    """Although hypothesis does not find it broken again, or not twice."""
    left = iter(range(times))

    async def holds(_: int) -> None:
        for _ in left:
            raise _examination.Broken("?")

    with pytest.raises(_examination.Broken):
        examine(holds, 1)


def test_as_many_cases_are_drawn_as_were_asked_for() -> None:
    seen = set()

    async def holds(number: int) -> None:
        seen.add(number)

    examine(holds, 7)
    assert len(seen) == 7


def test_an_error_has_its_place_in_a_file_of_the_author() -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        exec("1 / 0")
    assert _examination.place_of(caught.value).startswith(f" ({__file__}, line ")
    assert _examination.place_of(ValueError()) == ""


def test_every_law_has_a_transform_that_breaks_it() -> None:
    assert {law for _, law, _ in BROKEN} == {law.name for law in LAWS}


def test_what_a_vanished_client_leaves_behind_is_found() -> None:
    report = checked(broken.TakesOver)
    assert report.broken[-1].law == "reuse"
    assert report.broken[-1].example == (
        "after a stream that was fed b'a' and never finished, feed(b'') + finish() gave b'a'; "
        "alone it gave b''"
    )


@pytest.mark.parametrize("name", registry.listing().transforms)
def test_the_built_in_transforms_keep_all_laws(name: str) -> None:
    examples = {"base64-decode": [b"aGVsbG8=", b"aGk=\r\naGk="], "hex-decode": [b"68 69\n"]}
    report = check(name, examples=examples.get(name, ()), count=QUICK)
    assert report.broken == ()


def test_a_report_tells_growth_and_time() -> None:
    report = checked("hex-encode")
    assert report.growth == 2.0
    assert 0 < report.seconds < 1


@pytest.mark.parametrize("kind", [SystemExit, GeneratorExit, asyncio.CancelledError])
def test_whatever_code_raises_breaks_a_law(kind: type[BaseException]) -> None:
    @transform
    def raises(text: str) -> str:
        raise kind

    @transform
    def awaits(text: str) -> Awaitable[str]:
        return defer.fail(kind())

    for each in (raises, awaits):
        found = checked(each).broken[0]
        assert found.example.startswith(f"transform(b'') raised {kind.__name__}")


def test_a_drawn_message_shows_what_none_of_the_usual_ones_does() -> None:
    @transform
    def unlucky(text: str) -> str:
        return text if "13" not in text else text[20]

    assert checked(unlucky).broken == ()
    (found,) = checked(unlucky, messages=st.just(b"13")).broken
    assert found.example.startswith("transform(b'13') raised IndexError")
    (found,) = checked(unlucky, examples=[b"4 and 13"]).broken
    assert found.example.startswith("transform(b'4 and 13') raised IndexError")


def test_a_message_may_be_refused_but_always_or_never() -> None:
    @transform
    class Fickle:
        def __init__(self) -> None:
            self.refusals = 0

        def __call__(self, text: str) -> str:
            if text == "=":
                self.refusals += 1
            if text == "a" and self.refusals:
                raise ValueError("no more")
            if text == "=":
                raise ValueError("got a =")
            return text

    (found,) = checked(Fickle).broken
    assert found.law == "calls"
    assert found.example == (
        "after transform(b'='), transform(b'a') raised ValueError: no more; alone it gave b'a'"
    )


def test_a_stream_that_refuses_at_some_cuts_only_breaks_the_law() -> None:
    @stream_transform
    class Impatient:
        def feed(self, data: bytes) -> bytes:
            if data[:1] == b"\n":
                raise ValueError("a line feed comes first")
            return data

        def finish(self) -> bytes:
            return b""

    report = checked(Impatient)
    assert [found.law for found in report.broken] == ["cuts"]
    assert report.broken[0].example == (
        r"feed(b'\r') + feed(b'\n') != feed(b'\r\n'): the first gave b'\r' and raised ValueError: "
        r"a line feed comes first, the second gave b'\r\n'"
    )


@transform
async def later(text: str) -> str:
    from twisted.internet import reactor
    from twisted.internet.task import deferLater

    await deferLater(reactor, 0)
    return text.upper()


class TestLater(TransformContract):
    """With pytest-twisted, a test of a law is a thread's, for which the reactor goes on."""

    transform = later


@transform
def deferred(text: str) -> "defer.Deferred[str]":
    return defer.succeed(text)


class Overlapping:
    """Calls that overlap get at each other's message."""

    async def __call__(self, text: str) -> str:
        from twisted.internet import reactor
        from twisted.internet.task import deferLater

        self.text = text
        await deferLater(reactor, 0)
        return self.text


class Single:
    """It takes one call at a time."""

    busy = False

    async def __call__(self, text: str) -> str:
        from twisted.internet import reactor
        from twisted.internet.task import deferLater

        if self.busy:
            raise RuntimeError("busy")
        self.busy = True
        await deferLater(reactor, 0)
        self.busy = False
        return text


@in_reactor
async def test_awaited_replies_are_waited_for() -> None:
    """In another thread than the reactor's, which runs these tests: that one must not wait."""
    report = await deferToThread(checked, deferred)
    assert report.broken == ()


def test_a_check_does_not_wait_in_the_thread_of_the_reactor() -> None:
    with pytest.raises(RuntimeError, match=r"await deferToThread\(check, "):
        check(later)


@pytest.mark.parametrize(
    "call",
    [
        "check(later, count=1)",
        "await to_thread(check, later, count=1)",
        "check(transform(blocking=True)(slowly), count=1)",
    ],
)
def test_a_check_waits_beside_a_loop_that_runs_or_where_there_is_none(call: str) -> None:
    """As in an asynchronous test of asyncio's."""
    program = f"""if True:
        from asyncio import run, sleep, to_thread
        from uppercase.testing import check
        from uppercase import transform
        def slowly(data: bytes) -> bytes:
            return data
        async def later(data: bytes) -> bytes:
            await sleep(0)
            return data
        async def test():
            assert not ({call}).broken
        run(test())
    """
    command = [sys.executable, "-c", program]
    done = subprocess.run(
        command, env=environment(), capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


@in_reactor
async def test_calls_that_overlap_must_not_meet() -> None:
    report = await deferToThread(checked, Overlapping)
    (found,) = report.broken
    assert found.law == "calls"
    assert found.example == (
        "awaited while transform(b'a') is called, transform(b'') gave b'a'; alone it gave b''"
    )


@in_reactor
async def test_what_fails_beside_others_only_breaks_the_law_of_calls_only() -> None:
    report = await deferToThread(checked, Single)
    assert [(found.law, found.example) for found in report.broken] == [
        (
            "calls",
            "after transform(b''), transform(b'') raised RuntimeError: busy; alone it gave b''",
        )
    ]


class Counting:
    """It knows how many of its calls were under way at once."""

    most = 0
    now = 0

    async def __call__(self, text: str) -> str:
        from twisted.internet import reactor
        from twisted.internet.task import deferLater

        cls = type(self)
        cls.now += 1
        cls.most = max(cls.most, cls.now)
        await deferLater(reactor, 0)
        cls.now -= 1
        return text


@in_reactor
async def test_replies_of_many_messages_are_awaited_at_once() -> None:
    """So a transform that waits 0.1 s for each is checked within a minute."""
    report = await deferToThread(checked, Counting)
    assert report.broken == ()
    assert Counting.most >= 10


@pytest.mark.parametrize("limit", [0.0, 10.0])
def test_what_would_take_too_long_is_left_out_and_said(
    limit: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("uppercase.testing._examination.KIT_SEARCH_TIME", limit)
    said = check("rot13", count=1).left_out
    if limit:
        assert said == ""
    else:
        assert re.fullmatch(r"\d+ cases were left out, because .* ends after 0 s", said)


def unchanged(data: bytes) -> bytes:
    return data


@in_reactor
async def test_a_test_of_a_law_warns_of_what_was_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """And takes a static method for what it is."""
    monkeypatch.setattr("uppercase.testing._examination.KIT_SEARCH_TIME", 0.0)

    class Contract(TransformContract):
        transform = staticmethod(unchanged)

    with pytest.warns(UserWarning, match="cases were left out, because"):
        await cast(Any, Contract().test_the_same_message_has_the_same_reply())


@in_reactor
async def test_a_wrong_subclass_fails_with_one_sentence() -> None:
    class Neither(TransformContract):
        pass

    class Both(TransformContract):
        specification = "rot13"
        transform = broken.title

    class Mistyped(TransformContract):
        specification = "ceasar"

    for contract, sentence in (
        (Neither, "Neither needs either specification or transform"),
        (Both, "Both needs either specification or transform"),
        (Mistyped, "no transform named 'ceasar'; did you mean 'caesar'?"),
    ):
        with pytest.raises(pytest.fail.Exception) as failed:
            await cast(Any, contract().test_a_call_is_quick())
        assert failed.value.msg == sentence
        assert not failed.value.pytrace


@transform
async def unless_a(text: str) -> str:
    if text == "a":
        await defer.Deferred()
    return text


@in_reactor
async def test_a_reply_that_never_comes_ends_the_check_in_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And what was not tried is not called kept."""
    monkeypatch.setattr("uppercase.testing._examination.KIT_WAIT", 0.1)
    report = await deferToThread(checked, unless_a)
    assert [(found.law, found.example) for found in report.broken] == [
        (
            "time",
            "transform(b'a') has no reply after 0.1 s; see to it that what it awaits comes to an "
            "end",
        )
    ]
    assert report.untried == tuple(law.name for law in LAWS if law.name != "time")


@in_reactor
async def test_a_reply_that_never_comes_fails_each_test_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Unless(TransformContract):
        transform = unless_a

    monkeypatch.setattr("uppercase.testing._examination.KIT_WAIT", 0.1)
    for name in ("test_bytes_come_out_for_bytes", "test_a_call_is_quick"):
        with pytest.raises(pytest.fail.Exception, match=r"transform\(b'a'\) has no reply after 0"):
            await getattr(Unless(), name)()


WITHOUT_TWISTED = f"""
from tests.testing import broken
from uppercase import transform
from uppercase.testing import TransformContract, _examination, check

_examination.Examination.__init__.__kwdefaults__["count"] = {QUICK}

class TestBroken(TransformContract):
    transform = broken.DecodesChunks

def plain(text: str) -> str:
    return text[::-1]

class TestPlain(TransformContract):
    transform = plain
    examples = (b"hello",)

@transform(blocking=True)
def blocking(text: str) -> str:
    return text.upper()

def test_threads_are_as_before(monkeypatch) -> None:
    from twisted.internet import reactor
    monkeypatch.setattr(_examination, "CORPUS", (b"", b"a"))
    pool = reactor.getThreadPool()
    before = pool.threadFactory
    for _ in range(2):
        assert check(blocking, count=1).broken == ()
        assert pool.threadFactory is before
    assert all(thread.daemon for thread in pool.threads)
    assert pool.threads
"""


def test_a_subclass_has_a_test_for_each_law_that_fails_with_one_sentence(tmp_path: Path) -> None:
    """Without pytest-twisted, as in a project that does not use it.

    And a blocking transform is called in the threads of a reactor that does not run already: they
    are as before, and let the tests end.
    """
    (tmp_path / "test_it.py").write_text(WITHOUT_TWISTED)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:twisted"],
        cwd=tmp_path,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=False,
    )
    assert "1 failed, 20 passed" in done.stdout
    assert (
        "a stream's output does not depend on where it was cut: "
        r"feed(b'\xc3') + feed(b'\xa9') != feed(b'\xc3\xa9'): the first gave"
    ) in done.stdout
    assert "Traceback" not in done.stdout
    assert "uppercase/testing" not in done.stdout


def test_the_tests_of_a_law_bear_its_name_and_say_what_it_is() -> None:
    tests = [name for name in vars(TransformContract) if name.startswith("test_")]
    assert len(tests) == len(LAWS)


def test_a_mistake_in_what_to_check_is_told_as_on_the_command_line() -> None:
    with pytest.raises(UnknownName, match="did you mean 'caesar'"):
        check("ceasar")
    with pytest.raises(BadArgument, match="whole number"):
        check("caesar:shift=x")


@pytest.mark.parametrize("given", [{"examples": ["hi"]}, {"messages": st.just("hi")}])
def test_a_message_that_is_not_bytes_is_no_fault_of_the_transform(given: Any) -> None:
    told = "got 'hi' as a message to try; bytes are accepted, as b'hello'"
    with pytest.raises(UserError, match=told):
        check("identity", count=QUICK, **given)


@transform
async def holds_up(text: str) -> str:
    from twisted.internet import reactor
    from twisted.internet.task import deferLater

    await deferLater(reactor, 0)
    time.sleep(0.03)
    return text


@in_reactor
async def test_a_coroutine_that_blocks_keeps_others_waiting_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As does one that calls what it should await; each law is told of once it is verified."""
    for name, quick in ("KIT_SEARCH_TIME", 0.05), ("KIT_CALL_TIME", 0.02), ("ASYNC_WINDOW", 1):
        monkeypatch.setattr(f"uppercase.testing._examination.{name}", quick)
    monkeypatch.setattr("uppercase.testing._laws.KIT_CALL_TIME", 0.02)
    told: list[tuple[str, str, str]] = []

    def tell(law: Law, verdict: str, example: str) -> None:
        told.append((law.name, verdict, example))

    report = await deferToThread(check, holds_up, count=1, tell=tell)
    (broken,) = report.broken
    assert told[-1] == ("time", "BROKEN", broken.example)
    assert "in which a server serves nobody else" in broken.example
    assert [verdict for _, verdict, _ in told[:-1]] == ["kept"] * (len(LAWS) - 1)
