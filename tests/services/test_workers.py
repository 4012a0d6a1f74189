"""What of workers needs no process: the numbers they share, and one that cannot be started."""

import errno
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from itertools import count
from math import inf
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessTerminated
from twisted.internet.task import Clock
from twisted.logger import LogEvent, Logger, formatEvent, globalLogPublisher
from twisted.python.failure import Failure

from tests.system.processes import ROOT
from uppercase import taps
from uppercase.awaiting import CLEANING_UP
from uppercase.errors import CannotListen, UserError
from uppercase.limits import DatagramLimits, Limits
from uppercase.services import (
    CannotStart,
    TCPSettings,
    UDPSettings,
    _udp,
    supervisor,
    tcp_service,
    udp_service,
)
from uppercase.services._stopping import STOP_GRACE
from uppercase.services._tcp import LAST_WORD, Board
from uppercase.services.base import OpenPlace, share
from uppercase.services.supervisor import Supervisor
from uppercase.services.worker import (
    _DUMP,
    REPORTS,
    Assignment,
    State,
    Worker,
    _Commands,
    _inherit,
    _report_log,
    begin,
    report,
)
from uppercase.tcp.listening import Listener


def test_a_worker_waits_for_those_that_have_less_and_for_nobody_else() -> None:
    board = Board.make(3)
    assert not board.has_more(0, 100), "the others do not live yet"
    assert not board.has_more(1, 96)
    assert board.has_more(0, 101)
    assert not board.has_more(2, 98)
    board.clear(1)
    assert not board.has_more(0, 101)
    board.close()


@pytest.mark.parametrize("system", ["linux", "confined", "other"])
def test_a_board_is_one_memory_for_all_who_have_its_descriptor(
    system: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if system == "other":
        monkeypatch.delattr(os, "memfd_create", raising=False)
    elif system == "confined":  # As systemd.exec(5) advises with MemoryDenyWriteExecute=.
        monkeypatch.setattr(os, "memfd_create", mock.Mock(side_effect=PermissionError))
    board = Board.make(2)
    other = Board(os.dup(board.descriptor), 2)
    assert not other.has_more(1, 7)
    assert board.has_more(0, 12)
    board.close()
    other.close()


def test_shares_are_never_less_than_the_whole() -> None:
    assert [share(1000, 3), share(1, 4), share(8, 4)] == [334, 1, 2]
    for per_address, part in ((None, None), (7, 2)):
        limits = Limits(max_connections=10, max_per_address=per_address)
        tcp = tcp_service(TCPSettings(limits=limits))
        tcp.share_limits(4)
        admission = tcp.factory.admission
        assert (admission.max_connections, admission.max_per_address) == (3, part)
    udp = udp_service(UDPSettings(limits=DatagramLimits(max_outstanding=10)))
    udp.share_limits(4)
    assert udp.responder.limits.max_outstanding == 3


async def test_what_was_opened_for_workers_is_watched_until_it_is_closed(
    monkeypatch: pytest.MonkeyPatch, said: list[str]
) -> None:
    """All that the system has dropped is counted and told of."""
    dropped = count(3)
    monkeypatch.setattr(_udp, "kernel_drops", lambda _: next(dropped))
    service = udp_service(UDPSettings(port=0, interfaces=["127.0.0.1"]))
    service.open_sockets(1)
    service._look_at_kernel()
    service.close()
    assert not service._watch.running
    assert service.counts()["kernel-dropped"] == 2
    assert said[1:] == ["UDP: datagrams that the system dropped: 1 more since the last line"]


def test_what_has_no_socket_to_share_is_not_for_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as where a third party's endpoint listens."""
    monkeypatch.setattr("twisted.internet.endpoints.serverFromString", lambda *_: object())
    service = tcp_service(TCPSettings(listen=["third:party"]))
    with pytest.raises(CannotListen, match="cannot share third:party among workers: only tcp:,"):
        service.open_sockets(2)


def test_a_name_for_the_interface_is_as_good_for_workers_as_for_one_process() -> None:
    service = tcp_service(TCPSettings(listen=["tcp:0:interface=localhost"]))
    service.open_sockets(2)
    host, port = service.opened[0].sockets[0].getsockname()
    service.close()
    assert (host, port > 0) == ("127.0.0.1", True)


def test_a_port_that_is_none_is_said_to_be_none_for_workers_too() -> None:
    service = tcp_service(TCPSettings(listen=["tcp:99999"]))
    with pytest.raises(CannotListen, match="a port is a whole number"):
        service.open_sockets(2)


def test_a_worker_whose_supervisor_is_gone_ends_before_it_imports_anything_large() -> None:
    """It has the sockets, and the imports take seconds on a busy machine."""
    program = [sys.executable, "-X", "importtime", str(Path(taps.__file__).with_name("_worker.py"))]
    done = subprocess.run(
        [*program, str(os.getppid()), "uppercase.taps.tcp"], capture_output=True, check=False
    )
    assert done.returncode == 1
    assert b"ctypes" in done.stderr
    assert b"twisted" not in done.stderr


def test_a_worker_ends_when_its_supervisors_pipe_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the system kills nobody for a parent's death."""
    reading, writing = os.pipe()
    monkeypatch.setattr("uppercase.services.worker.COMMANDS", reading)
    monkeypatch.setattr(os, "_exit", mock.Mock(side_effect=SystemExit))
    os.close(writing)
    with pytest.raises(SystemExit):
        _Commands(reactor, []).doRead()
    os.close(reading)


def test_a_worker_of_another_version_says_what_helps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whose package was replaced under a running service."""
    commands, told = os.pipe()
    os.write(told, json.dumps(["of", "another", "version"]).encode() + b"\n")
    monkeypatch.setattr("uppercase.services.worker.COMMANDS", commands)
    with pytest.raises(SystemExit, match="another version by now; restart the service"):
        begin()
    for descriptor in (commands, told):
        os.close(descriptor)


@pytest.mark.parametrize(
    ("told", "who"),
    [("[778]", "Python"), ("", "uppercase"), ("{}", "uppercase"), ("7", "uppercase")],
)
def test_a_worker_of_another_version_or_python_says_so_before_all_else(told: str, who: str) -> None:
    """The modules of its supervisor's would be none for it, or it is told in another way."""
    done = subprocess.run(
        [sys.executable, "-m", "uppercase.taps._worker", str(os.getpid()), "uppercase.taps.tcp"],
        input=told,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == f"{who} has another version by now; restart the service\n"


@pytest.mark.parametrize("flags", [["-P"], ["-I"], []])
def test_workers_search_the_current_folder_only_where_their_supervisor_does(
    flags: list[str],
) -> None:
    """Or a drop-in that is there would be run by them, which `python -P` is to prevent."""
    program = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r}); from uppercase.taps.tcp import Options\n"
        "options = Options(); options.parseOptions(['--workers=2'])\n"
        "print(*next(iter(options.service)).program[1:-1])"
    )
    command = [sys.executable, *flags, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split() == flags


def test_what_others_log_in_a_worker_is_told_as_without(monkeypatch: pytest.MonkeyPatch) -> None:
    """JSON has the traceback of a failure under its key, and nothing of theirs counts as ours."""
    told: list[Any] = []
    monkeypatch.setattr("uppercase.services.worker.report", lambda _, **said: told.append(said))
    log = Logger("elsewhere", observer=_report_log)  # type: ignore[arg-type]
    try:
        raise ValueError("no")
    except ValueError:
        log.failure("it failed")
    log.warn("well", facts={"event": "ready"})
    failed, well = told
    assert failed["facts"].pop("traceback").startswith("it failed\nTraceback")
    assert failed["facts"] == well["facts"] == {"event": "log", "from": "elsewhere"}
    assert (failed["level"], well["text"]) == ("critical", "well")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_what_a_terminal_sends_to_everybody_ends_no_worker_that_only_imports(
    number: int, tmp_path: Path
) -> None:
    """Ctrl-C while workers start is one stop, and no traceback of each."""
    package = tmp_path / "twisted"
    package.mkdir()
    (package / "__init__.py").write_text(
        f"import os\nos.kill(os.getpid(), {number:d})\nraise SystemExit('it goes on')\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "uppercase.taps._worker", str(os.getpid()), "uppercase.taps.tcp"],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        input=json.dumps([sys.hexversion >> 16, str(tmp_path), *sys.path]),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == "it goes on\n"


def test_reports_of_several_threads_are_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """A transform may log in threads, and more at once than the pipe has room for."""
    readable, writable = os.pipe()
    monkeypatch.setattr("uppercase.services.worker.REPORTS", writable)

    def log() -> None:
        for _ in range(10):
            report("log", text="x" * 100_000)

    threads = [threading.Thread(target=log) for _ in range(4)]
    with open(readable, "rb") as pipe:
        for thread in threads:
            thread.start()
        lines = [pipe.readline() for _ in range(40)]
        for thread in threads:
            thread.join()
    os.close(writable)
    assert [len(json.loads(line)["text"]) for line in lines] == [100_000] * 40


class Recorder:
    """What a worker tells."""

    def __init__(self) -> None:
        self.end: Deferred[str] = Deferred()

    def ready(self, worker: Worker, served: list[list[str]]) -> None:
        raise AssertionError("it cannot be")

    def ended(self, worker: Worker, how: str) -> None:
        self.end.callback(how)


@pytest.mark.parametrize(
    "garbage",
    [
        b"\xff",
        b"[]",
        b"[" * 5000,
        b'{"report": 3}',
        b'{"report": "log"}',
        b'{"report": "log", "facts": {}, "level": "loud", "text": ""}',
        b'{"report": "log", "facts": []}',
        b'{"report": "beat"}',
        b"x" * (3 << 20),
    ],
    ids=["bytes", "list", "deep", "number", "log", "level", "facts", "beat", "endless"],
)
def test_what_is_no_report_is_said_once_and_the_next_report_is_heard(garbage: bytes) -> None:
    """A transform has written into the pipe that is its worker's."""
    said: list[str] = []

    def observe(event: LogEvent) -> None:
        said.append(formatEvent(event))

    recorder: Any = Recorder()
    worker = Worker(0, recorder)
    publisher: Any = globalLogPublisher
    publisher.addObserver(observe)
    try:
        for _ in range(2):
            worker.childDataReceived(REPORTS, garbage)
            worker.childDataReceived(REPORTS, b"\n")
        worker.silent = 7
        log = {"report": "log", "level": "info", "facts": {}, "text": "well"}
        worker.childDataReceived(REPORTS, json.dumps(log).encode() + b"\n")
    finally:
        publisher.removeObserver(observe)
    assert [text for text in said if "not a report" in text] == said[:-1] == said[:1]
    assert said[-1] == "worker 1: well"
    assert worker.silent == 0


@pytest.mark.parametrize(("number", "name"), [(9, "SIGKILL"), (40, "signal 40")])
def test_a_worker_that_any_signal_has_killed_has_ended(number: int, name: str) -> None:
    """Those for real time have no names."""
    recorder: Any = Recorder()
    worker = Worker(0, recorder)
    recorder.reactor = Clock()
    worker.processExited(Failure(ProcessTerminated(signal=number)))
    recorder.reactor.advance(1)
    assert recorder.end.result == f"killed by {name}"


def test_a_reload_does_not_serve_another_protocol_on_the_sockets() -> None:
    before = tcp_service(TCPSettings(port=7)).places()
    assignment = Assignment(0, 1, 1.0, False, "", "", [before], [[]])
    with pytest.raises(UserError, match=r"got UDP --port=7 .*, but the sockets are TCP --port=7 "):
        _inherit([udp_service(UDPSettings(port=7, inherits=True))], assignment)


def test_a_worker_has_its_share_of_limits_and_waits_for_those_who_have_less(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    board = Board.make(2)
    monkeypatch.setattr("uppercase.services.worker.BOARD", board.descriptor)
    service = tcp_service(TCPSettings(port=7, inherits=True))
    _inherit([service], Assignment(0, 2, 1.0, False, "", "", [service.places()], [[]]))
    assert service.factory.admission.max_connections == 500
    board.has_more(1, 0)
    assert service.waits is not None
    assert not service.waits()
    monkeypatch.setattr(service.factory, "connections", range(5))
    assert service.waits()
    listens = mock.Mock(return_value=Deferred())
    monkeypatch.setattr(Listener, "listen", listens)
    with socket.socket() as skt:
        service.opened = [OpenPlace("--port", [skt])]
        service.listen()
    assert service.waits in listens.call_args.args
    board.close()


def test_a_worker_has_the_time_to_end_that_one_process_has() -> None:
    """Its last replies and what coroutines clean up come before it is killed.

    So does its end before that of the supervisor, even if it says nothing, as one that was stopped.
    """
    assert LAST_WORD + CLEANING_UP < supervisor._OVERTIME
    assert supervisor._OVERTIME + _DUMP < STOP_GRACE


class Hung(Worker):
    """A worker that serves, and gives no sign of life."""

    def __init__(self, supervisor: Supervisor) -> None:
        super().__init__(0, supervisor)
        self.state = State.SERVING
        self.kills = 0

    def kill(self) -> None:
        self.kills += 1


def test_a_watchdog_counts_the_times_that_it_has_looked(
    monkeypatch: pytest.MonkeyPatch, said: list[str]
) -> None:
    """A supervisor that was stopped for a minute blames nobody; then it goes on looking.

    A worker that is found to hang is told of once, even if it takes longer to end than to be found.
    """
    clock = Clock()
    service = udp_service(UDPSettings(port=0))
    supervisor = Supervisor([service], clock, workers=1, program=["python"], watchdog=4.0)
    worker = Hung(supervisor)
    supervisor._all.add(worker)
    supervisor._watch.start(1.0, now=False)
    clock.advance(60)
    assert worker.kills == 0
    for _ in range(3):
        clock.advance(1)
        assert worker.kills == 0
    for _ in range(10):
        clock.advance(1)
        assert worker.kills == 1
    assert said == [f"{worker} hangs: no sign of life for 4 s (--watchdog); this is where:"]
    supervisor._watch.stop()


def test_a_watchdog_gives_a_worker_that_begins_its_time(
    monkeypatch: pytest.MonkeyPatch, said: list[str]
) -> None:
    """What its transform imports may wait for ever; it is replaced as often as that takes."""
    clock = Clock()
    supervisor, workers = supervisor_of(clock, monkeypatch, watchdog=4.0)
    for _ in range(7):
        worker = supervisor._current.workers[0] = Hung(supervisor)
        worker.state = State.STARTING
        supervisor._all = {worker}
        clock.pump([1] * 30)
        assert worker.kills == 0
        clock.advance(1)
        assert worker.kills == 1
        assert said[-1].startswith("worker 1 hangs: no sign of life for 30 s (--watchdog)")
        supervisor.ended(worker, "killed by SIGKILL")
        clock.advance(0)
        assert workers[0] is supervisor._current.workers[0] is not worker


class Stoppable(Clock):
    """A reactor that counts how often it was stopped."""

    stops = 0

    def stop(self) -> None:
        self.stops += 1


def supervisor_of(
    clock: Clock, monkeypatch: pytest.MonkeyPatch, watchdog: float = inf
) -> tuple[Supervisor, dict[int, Worker]]:
    """Return a supervisor of one worker, and the latest worker by its number: no process."""
    service = udp_service(UDPSettings(port=0))
    supervisor = Supervisor([service], clock, workers=1, program=["python"], watchdog=watchdog)
    workers: dict[int, Worker] = {}

    def spawn(number: int, generation: Any) -> None:
        generation.workers[number] = workers[number] = Worker(number, supervisor)

    monkeypatch.setattr(supervisor, "_spawn", spawn)
    monkeypatch.setattr("signal.signal", lambda *_: None)
    supervisor._begin()
    return supervisor, workers


def test_a_reload_before_the_first_workers_are_ready_does_not_keep_the_ready_lines_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    supervisor, workers = supervisor_of(Clock(), monkeypatch)
    called: list[str] = []
    supervisor.call_when_ready(lambda: called.append("ready"))
    supervisor.reload()
    for _ in range(2):
        workers[0].state = State.SERVING
        supervisor.ready(workers[0], [[]])
        assert called == ["ready"]
        supervisor.reload()


def test_a_worker_is_replaced_even_if_the_folder_of_the_service_is_gone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It will say that itself, and end, and so will the service then."""
    supervisor = Supervisor(
        [udp_service(UDPSettings(port=0))], Clock(), workers=1, program=["python"]
    )
    spawned: list[str] = []
    monkeypatch.setattr(Worker, "spawn", lambda *about: spawned.append(about[1].directory))
    monkeypatch.setattr("signal.signal", lambda *_: None)
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    supervisor._begin()
    gone.rmdir()
    supervisor._spawn(0, supervisor._current)
    assert spawned == [str(gone)] * 2


class Process:
    """What Twisted gives for a process: takes signals and words."""

    pid = 1

    def __init__(self) -> None:
        self.told: list[object] = []

    def signalProcess(self, number: int) -> None:
        self.told.append(number)

    def writeToChild(self, descriptor: int, data: bytes) -> None:
        self.told.append(data)


def test_a_stop_in_the_middle_of_a_reload_waits_for_nobody_who_only_begins(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The old workers serve whoever waits, and finish as ever."""
    clock = Clock()
    supervisor, workers = supervisor_of(clock, monkeypatch)
    old = workers[0]
    old.state = State.SERVING
    supervisor.ready(old, [[]])
    supervisor.reload()
    overtaken = workers[0]
    overtaken.transport = Process()
    supervisor.reload()
    assert overtaken.transport.told == [signal.SIGTERM, b"retire\n"]
    for worker in (old, workers[0]):
        worker.transport = Process()
    supervisor._all, supervisor._has_opened = {old, workers[0]}, True
    supervisor.stopService()
    assert workers[0].transport.told == [signal.SIGTERM, b"stop\n"]
    assert old.transport.told == [b"stop\n"]
    workers.clear()
    supervisor.reload()
    assert not workers, "nobody is to take over"


def test_a_worker_that_ends_during_a_reload_is_replaced_and_the_reload_goes_on(
    monkeypatch: pytest.MonkeyPatch, said: list[str]
) -> None:
    clock = Clock()
    supervisor, workers = supervisor_of(clock, monkeypatch)
    old, board = workers[0], supervisor._current.board
    old.state = State.SERVING
    supervisor.ready(old, [[]])
    supervisor.reload()
    fresh = workers.pop(0)
    assert not board.has_more(0, 7)
    supervisor.ended(old, "out of luck")
    assert min(board._counts) > 7, "nobody waits for it"
    clock.advance(0)
    replaced = workers.pop(0)
    fresh.state = State.SERVING
    supervisor.ready(fresh, [[]])
    assert said[-1] == "reloaded: served by 1 new worker; the old ones finish"
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(board.descriptor)
    supervisor.ended(replaced, "it was told to")
    clock.advance(10)
    assert not workers


def test_a_service_with_workers_is_as_ready_as_the_readiest_of_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    supervisor, workers = supervisor_of(Clock(), monkeypatch)
    assert supervisor.not_ready() == "not started"
    second = supervisor._current.workers[1] = Worker(1, supervisor)
    workers[0].state = second.state = State.SERVING
    second.not_ready = "overloaded"
    assert supervisor.not_ready() == ""
    workers[0].not_ready = "overloaded"
    assert supervisor.not_ready() == "overloaded"


def test_workers_that_hang_are_not_ready_even_if_nobody_replaces_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Clock()
    supervisor, workers = supervisor_of(clock, monkeypatch)
    workers[0].state = State.SERVING
    supervisor._all.add(workers[0])
    clock.pump([1, 1])
    assert supervisor.not_ready() == ""
    clock.advance(1)
    assert supervisor.not_ready() == "overloaded"
    workers[0]._hear({"report": "beat", "numbers": [], "not_ready": ""})
    assert supervisor.not_ready() == ""


@pytest.mark.parametrize("handler", [signal.SIG_DFL, signal.SIG_IGN])
def test_a_hangup_that_nohup_ignores_stays_ignored(
    handler: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[int] = []
    supervisor, _ = supervisor_of(Clock(), monkeypatch)
    monkeypatch.setattr("signal.getsignal", lambda _: handler)
    monkeypatch.setattr("signal.signal", lambda number, _: taken.append(number))
    supervisor._watch.end()
    supervisor._begin()
    assert taken == ([signal.SIGHUP] if handler is signal.SIG_DFL else [])


def test_a_supervisor_may_have_all_the_descriptors_that_its_workers_take() -> None:
    """Pipes to each, and twice as many in a reload, are soon more than systems begin with."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    service = udp_service(UDPSettings(port=0, interfaces=["127.0.0.1"]))
    supervisor = Supervisor([service], Clock(), workers=30, program=["python"])
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    try:
        supervisor.privilegedStartService()
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] > 256
    finally:
        supervisor._release()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_workers_that_cannot_have_all_sockets_leave_none_open() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        free, busy = (
            tcp_service(TCPSettings(port=port, interfaces=["127.0.0.1"]))
            for port in (0, taken.getsockname()[1])
        )
        supervisor = Supervisor([free, busy], Clock(), workers=2, program=["python"])
        with pytest.raises(CannotStart):
            supervisor.privilegedStartService()
    assert not free.opened


def test_nobody_is_started_for_those_who_were_replaced_by_a_reload_or_when_all_stop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Clock()
    supervisor, workers = supervisor_of(clock, monkeypatch)
    supervisor.ended(workers.pop(0), "out of luck")
    supervisor.reload()
    fresh = workers.pop(0)
    fresh.state = State.SERVING
    supervisor.ready(fresh, [[]])
    clock.advance(10)
    assert not workers
    supervisor.ended(fresh, "out of luck")
    supervisor._has_opened = True
    assert supervisor.stopService().called
    clock.advance(10)
    assert not workers


def test_workers_that_end_at_once_are_replaced_later_and_later_and_then_no_more(
    monkeypatch: pytest.MonkeyPatch, said: list[str]
) -> None:
    """One that has served for a while begins the count anew, and so does a reload."""
    clock, exits = Stoppable(), list[int]()
    monkeypatch.setattr("uppercase.services.supervisor.exit_with", exits.append)
    supervisor, workers = supervisor_of(clock, monkeypatch)

    def end(*, proven: bool = False) -> float:
        """End the worker; return after how long there is another."""
        worker, before = workers.pop(0), clock.seconds()
        if proven:
            worker.since = before
            clock.advance(2)
            before += 2
        supervisor.ended(worker, "out of luck")
        clock.advance(0)
        while not workers and clock.stops == 0:
            clock.advance(0.25)
        return clock.seconds() - before

    assert [end() for _ in range(4)] == [0, 1, 2, 4]
    assert end(proven=True) == 0
    assert [end() for _ in range(4)] == [0, 1, 2, 4]
    supervisor.reload()
    workers[0].state = State.SERVING
    supervisor.ready(workers[0], [[]])
    assert [end() for _ in range(4)] == [0, 1, 2, 4]
    assert clock.stops == 0
    # There may be more than so many, and all may end in one turn.
    sixth = supervisor._current.workers[1] = Worker(1, supervisor)
    end()
    supervisor.ended(sixth, "out of luck")
    assert clock.stops == 1
    assert exits == [3]
    assert (
        said[-1]
        == "5 workers in a row have ended as soon as they had begun; the last one: out of luck"
    )
    worker = "worker 1 has ended: out of luck; a new one is started"
    assert said[:5] == [worker, *(f"{worker} in {each} s" for each in (1, 2, 4)), worker]
    assert supervisor.snapshot()["worker_restarts",] == 13


@pytest.mark.parametrize("then", [{"state": State.ENDED}, {"since": 330.0}, None])
def test_what_keeps_workers_from_beginning_does_not_end_one_that_serves(
    then: dict[str, Any] | None, monkeypatch: pytest.MonkeyPatch, said: list[str]
) -> None:
    """Such as a file that is half written when one of two workers is killed; but a start fails."""
    clock, exits = Stoppable(), list[int]()
    monkeypatch.setattr("uppercase.services.supervisor.exit_with", exits.append)
    supervisor, workers = supervisor_of(clock, monkeypatch)
    good = supervisor._current.workers[1] = Worker(1, supervisor)
    good.state, good.since = State.SERVING, 0.0
    if then:
        supervisor._first_ready.callback(None)
    clock.advance(2)
    for _ in range(10 if then else 4):
        supervisor.ended(workers.pop(0), "out of luck")
        clock.advance(30)
    assert clock.stops == 0
    if then:
        assert said[-1] == "worker 1 has ended: out of luck; a new one is started in 30 s"
        vars(good).update(then)  # Gone, or only just begun.
    supervisor.ended(workers.pop(0), "out of luck")
    assert (clock.stops, exits) == (1, [3])


async def test_a_worker_that_cannot_be_started_has_ended() -> None:
    recorder: Any = Recorder()
    assignment = Assignment(0, 1, 1.0, False, "", "", [], [])
    worker = Worker(0, recorder)
    recorder.reactor, recorder.directory = reactor, os.getcwd()
    recorder.program, recorder.words = ["/does/not/exist"], []
    worker.spawn(assignment, [0])
    worker.end(b"stop")
    assert f"cannot be started in {os.getcwd()}: No such file" in await recorder.end
    assert worker.state is State.ENDED


async def test_a_worker_whose_pipes_cannot_be_watched_has_ended_and_its_process_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recorder: Any = Recorder()
    worker = Worker(0, recorder)
    recorder.reactor, recorder.directory = reactor, os.getcwd()
    recorder.program, recorder.words = [sys.executable, "-c", "input()"], []
    no_memory = mock.Mock(side_effect=OSError(errno.ENOMEM, "no memory"))
    with monkeypatch.context() as patch:
        patch.setattr(reactor, "addWriter", no_memory)
        worker.spawn(Assignment(0, 1, 1.0, False, "", "", [], []), [0])
    gone: Deferred[None] = Deferred()
    monkeypatch.setattr(worker, "processExited", lambda reason: gone.callback(None))
    assert "cannot be started" in await recorder.end
    await gone


@pytest.mark.parametrize("where", ["ftruncate", "memfd_create"])
def test_a_reload_for_which_there_is_no_memory_is_none(
    where: str, monkeypatch: pytest.MonkeyPatch, said: list[str]
) -> None:
    """The old workers go on, those of a reload before it finish, and the next one is as usual."""
    clock = Clock()
    supervisor, workers = supervisor_of(clock, monkeypatch)
    descriptors = {*os.listdir("/dev/fd")}
    supervisor.reload()
    with monkeypatch.context() as patch:
        patch.setattr(os, where, mock.Mock(side_effect=OSError(errno.ENOSPC, "no space")))
        patch.setattr(tempfile, "TemporaryFile", os.memfd_create)
        supervisor.reload()
    assert said == ["not reloaded, the old workers go on: no space"]
    assert {*os.listdir("/dev/fd")} <= descriptors  # The collector may close some of others.
    supervisor.reload()
    workers[0].state = State.SERVING
    supervisor.ready(workers[0], [[]])
    assert said[1].startswith("reloaded")


def test_an_old_worker_that_cannot_be_told_to_finish_keeps_no_other_from_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Clock()
    supervisor, _ = supervisor_of(clock, monkeypatch)
    worker = Worker(0, supervisor)
    worker.transport = mock.Mock()
    worker.transport.writeToChild.side_effect = OSError(errno.ENOMEM, "no memory")
    worker.end(b"retire")
    clock.advance(supervisor.patience)
    worker.transport.signalProcess.assert_called_with(signal.SIGABRT)
