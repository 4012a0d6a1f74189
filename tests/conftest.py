"""Checks that every test must pass besides its own: a clean reactor and a clean log."""

import fcntl
import gc
import os
import resource
import shutil
import signal
import sys
from collections.abc import Iterator
from contextlib import suppress
from importlib import import_module
from itertools import chain, islice
from pathlib import Path
from typing import Any, NoReturn

import hypothesis
import pytest
from _pytest.runner import runtestprotocol
from hypothesis import strategies as st
from twisted.internet import reactor
from twisted.logger import ILogObserver, LogEvent, formatEvent, globalLogPublisher
from zope.interface import implementer

# Whoever started the tests in the background has them, and all that they start, ignore these.
for _number, _handler in (
    (signal.SIGINT, signal.default_int_handler),
    (signal.SIGHUP, signal.SIG_DFL),
):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, _handler)

# Some have a thousand connections, more than usual soft limits allow: 1,024, or 256 on macOS.
_ROOM = 4096
_soft, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
if _soft != resource.RLIM_INFINITY and _soft < _ROOM:
    _most = _ROOM if _hard == resource.RLIM_INFINITY else min(_ROOM, _hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (_most, _hard))

# The tests start hundreds of programs, which without bytecode would compile the package each time.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False
# Few users have the first, and it hides what is left in a buffer; the others are a person's own.
for _name in ("PYTHONUNBUFFERED", "COLUMNS", "POSIXLY_CORRECT", "UPPERCASE_HOST", "UPPERCASE_PORT"):
    os.environ.pop(_name, None)

# Speed is not what the properties are about, and machines are shared. A change is judged by the
# same examples each time; other runs look for new ones.
hypothesis.settings.register_profile(
    "tests",
    deadline=None,
    max_examples=50,
    derandomize="CI" in os.environ,
    # No test depends on a quiet machine.
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("tests")
# What it has found out about the modules here, all that the tests start need not find out again.
os.environ["HYPOTHESIS_STORAGE_DIRECTORY"] = str(Path(__file__).parents[1] / ".hypothesis")


_LACKING = pytest.StashKey[dict[str, int]]()
"""How many tests were left out for want of each program."""


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Three a core: most tests wait, for programs to start and time-outs to pass."""
    return min(3 * (os.cpu_count() or 1), 12)


def pytest_collectstart(collector: pytest.Collector) -> None:
    """Have one worker of pytest-xdist a core import all tests, from its own on, then the others.

    Where nothing is compiled yet, all of them would else compile the same at the same time. So it
    is with what hypothesis looks up in all modules before it first draws.
    """
    worker: dict[str, Any] | None = getattr(collector.config, "workerinput", None)
    if worker is None or collector.path != Path(__file__).parent:
        return
    root, folders = collector.config.rootpath, map(Path, collector.config.args)
    found = [path.resolve() for each in folders for path in sorted(each.rglob("*/test_*.py"))]
    found = [path for path in found if path.is_relative_to(collector.path)]
    if not found:
        return
    cores = os.cpu_count() or 1
    own = len(found) * (int(worker["workerid"].removeprefix("gw")) % cores) // cores
    with found[own].open() as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        for path in (*found[own:], *found[:own]):
            # What is wrong with it, the collection says.
            with suppress(Exception, pytest.skip.Exception):
                import_module(".".join(path.relative_to(root).with_suffix("").parts))
        hypothesis.find(st.booleans(), bool)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Have what takes long begin first; leave out, but never in CI, what this machine has not got.

    A fresh machine with nothing but Python runs all but the tests of programs that it lacks, which
    it is told.
    """
    if not os.environ.get("CI"):
        _leave_out(config, items)
    _spread(items, getattr(config, "workerinput", {}).get("workercount", 1))


def _spread(items: list[pytest.Item], workers: int) -> None:
    """Have each worker begin with long tests, so that nobody waits for one at the end.

    It takes its share of all in their order, and later from those of others. Long tests of one
    file are not run beside each other, as each takes all the processor time that there is.
    """
    longs: dict[Path, list[pytest.Item]] = {}
    for item in items:
        if item.get_closest_marker("long"):
            longs.setdefault(item.path, []).append(item)
    others = iter([item for item in items if not item.get_closest_marker("long")])
    spread: list[pytest.Item] = []
    for worker in range(workers):
        share = (len(items) - len(spread)) // (workers - worker)
        first = list(chain.from_iterable(list(longs.values())[worker::workers]))
        spread += [*first, *islice(others, max(0, share - len(first)))]
    items[:] = [*spread, *others]


def _leave_out(config: pytest.Config, items: list[pytest.Item]) -> None:
    lacking: dict[str, list[pytest.Item]] = {}
    for item in items:
        for marker in item.iter_markers("needs_program"):
            if shutil.which(marker.args[0]) is None:
                lacking.setdefault(marker.args[0], []).append(item)
    left_out = {id(item) for found in lacking.values() for item in found}
    if left_out:
        config.hook.pytest_deselected(items=[item for item in items if id(item) in left_out])
        items[:] = [item for item in items if id(item) not in left_out]
        config.stash[_LACKING] = {name: len(found) for name, found in lacking.items()}


def pytest_collection_finish() -> None:
    """Leave what is there for good out of each look for garbage, of which tests have many."""
    gc.collect()
    gc.freeze()


def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
    """Let a worker of pytest-xdist tell its controller of each call and of what went wrong.

    The start, set-up, tear-down and end of each, which nobody is shown, cost more than many tests.
    """
    if not hasattr(item.config, "workerinput"):
        return None
    for report in runtestprotocol(item, log=False, nextitem=nextitem):
        if report.when == "call" or not report.passed:
            item.ihook.pytest_runtest_logreport(report=report)
    return True


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Let a worker of pytest-xdist tell its controller, which collects no tests itself."""
    output: dict[str, object] | None = getattr(session.config, "workeroutput", None)
    if output is not None:
        output["lacking"] = session.config.stash.get(_LACKING, {})


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take what a worker tells; each collects all tests, so that all tell the same."""
    # A worker that crashed tells nothing.
    if told := getattr(node, "workeroutput", {}).get("lacking"):
        node.config.stash[_LACKING] = told


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Say what was left out, and why."""
    for name, count in config.stash.get(_LACKING, {}).items():
        terminalreporter.write_line(f"{count} tests were left out: they need the program {name}")


def _busy() -> set[object]:
    """Return what the reactor still waits for, apart from its own descriptors."""
    known: Any = reactor
    selectables = {*known.getReaders(), *known.getWriters()}
    return {*(selectables - known._internalReaders), *known.getDelayedCalls()}


class LoggedErrors(list[str]):
    """The failures that were logged during a test; a test that provokes one takes it out."""

    def flush(self) -> list[str]:
        """Take out and give all failures so far."""
        taken = list(self)
        self.clear()
        return taken


@pytest.fixture(autouse=True)
def logged_errors() -> Iterator[LoggedErrors]:
    """Fail a test that leaves the reactor dirty or an error in the log.

    pytest-twisted checks neither; trial does both.
    """
    errors = LoggedErrors()

    @implementer(ILogObserver)
    def observe(event: LogEvent) -> None:
        failure = event.get("log_failure") or event.get("failure")
        if failure is not None:
            errors.append(f"{formatEvent(event)}\n{failure.getTraceback()}")

    before = _busy()
    globalLogPublisher.addObserver(observe)
    yield errors
    globalLogPublisher.removeObserver(observe)
    left = _busy() - before
    for item in left:
        cancel = getattr(item, "cancel", None)
        if cancel is not None:
            cancel()
    assert not left, f"the reactor still holds {left}"
    assert not errors, "errors were logged:\n" + "\n".join(errors)


@pytest.fixture
def said() -> Iterator[list[str]]:
    """The lines of the log."""
    lines: list[str] = []

    @implementer(ILogObserver)
    def observe(event: LogEvent) -> None:
        lines.append(formatEvent(event))

    globalLogPublisher.addObserver(observe)
    yield lines
    globalLogPublisher.removeObserver(observe)


@pytest.fixture
def awaiting_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Await as where no asyncio loop runs, whatever the reactor: a loop would have to be turned."""

    def get_running_loop() -> NoReturn:
        raise RuntimeError("no running event loop")

    monkeypatch.setattr("uppercase.awaiting.asyncio.get_running_loop", get_running_loop)
