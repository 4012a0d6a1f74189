"""What metrics measure, how processes' numbers add up, and what the page answers."""

import json
import re
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from errno import EADDRINUSE
from pathlib import Path
from types import FrameType, SimpleNamespace
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError, ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.threads import deferToThread
from twisted.python import usage
from twisted.python.failure import Failure

from tests.system.processes import receive_all
from tests.udp.helpers import answer, answer_batch, datagram
from uppercase.core.events import (
    AcceptFailed,
    Dropped,
    DropReason,
    Incomplete,
    RefusalReason,
    Refused,
)
from uppercase.core.pipeline import Pipeline, Stage
from uppercase.errors import UserError
from uppercase.registry import listing
from uppercase.services import TCPSettings, UDPSettings, tcp_service, udp_service
from uppercase.services.metrics import (
    FAMILIES,
    LAG_LOOK,
    Histogram,
    Measured,
    Measurements,
    Snapshot,
    add_up,
    exposition,
)
from uppercase.services.web import MetricsService, on_loopback
from uppercase.taps import tcp, udp

ROOT = Path(__file__).parents[2]


def measured_udp(*transforms: str, clock: Any = None) -> tuple[Any, Measurements]:
    service = udp_service(UDPSettings(transforms=transforms or ("uppercase",)), clock)
    return service, Measurements([service], clock or reactor)


def shown(measurements: Measurements) -> dict[tuple[str, ...], float]:
    """Return what Prometheus reads: by name and values of labels."""
    text = exposition(measurements.snapshot()).decode()
    return {
        (sample.name.removeprefix("uppercase_"), *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_messages_and_bytes_are_those_of_the_whole_chain_and_seconds_of_each_transform() -> None:
    service, measurements = measured_udp("strip", "hex-encode")
    answer_batch(service.responder, [datagram(b" ab "), datagram(b"c")])
    numbers = shown(measurements)
    assert numbers["messages_total", "udp"] == 2
    assert numbers["message_bytes_total", "in", "udp"] == 5
    assert numbers["message_bytes_total", "out", "udp"] == 6
    assert numbers["datagrams_received_total", "udp"] == 2
    for transform in ("strip", "hex-encode"):
        assert numbers["transform_seconds_count", "udp", transform] == 2
        assert 0 < numbers["transform_seconds_sum", "udp", transform] < 1
        assert numbers["transform_seconds_bucket", "10.0", "udp", transform] == 2


def test_what_may_happen_is_there_from_the_start_and_what_happens_is_told_by_its_reason() -> None:
    service, measurements = measured_udp("base64-decode", clock=Clock())
    before = shown(measurements)
    assert before["datagrams_dropped_total", "failed", "udp"] == 0
    assert before["transform_failures_total", "udp", "base64-decode"] == 0
    answer(service.responder, datagram(b"no base64!"))
    after = shown(measurements)
    assert after["datagrams_dropped_total", "failed", "udp"] == 1
    assert after["transform_failures_total", "udp", "base64-decode"] == 1
    assert after["transform_seconds_count", "udp", "base64-decode"] == 1


def test_streams_are_measured_too_and_stay_streams() -> None:
    service = tcp_service(TCPSettings(transforms=["base64-encode"]))
    measurements = Measurements([service], reactor)
    chain: Any = service.chain
    stream = chain.open_stream()
    assert stream.feed(b"abcd") + stream.finish() == b"YWJjZA=="
    # The log's alone.
    service.counters.notify(Incomplete("192.0.2.7:5", 3))
    numbers = shown(measurements)
    assert numbers["messages_total", "tcp"] == 1
    assert numbers["message_bytes_total", "out", "tcp"] == 8
    assert not [key for key in numbers if "lab_actions_total" in key]


async def test_an_awaited_reply_is_measured_when_it_comes() -> None:
    waiting: Deferred[bytes] = Deferred()

    class Awaited:
        def transform(self, message: bytes) -> Any:
            return waiting

    took = Histogram()
    measured = Measured(Awaited(), took)  # type: ignore[arg-type]
    chain = Pipeline([Stage("mine", measured)])
    reply: Any = Deferred.fromCoroutine(chain.transform(b"x"))  # type: ignore[arg-type]
    assert dict(took.numbers())["+Inf",] == 0
    waiting.callback(b"reply")
    assert await reply == b"reply"
    assert dict(took.numbers())["+Inf",] == 1
    assert (measured.messages, measured.received, measured.sent) == (1, 1, 5)


def test_nothing_is_measured_where_there_are_no_metrics() -> None:
    """The chain has the very transforms; a library that metrics need is not loaded."""
    service: Any = udp_service(UDPSettings())
    assert type(service.chain._stages[0].transform) is type(listing().find("uppercase"))


def calls_of(run: Callable[[], object]) -> Counter[str]:
    """Return how many Python functions of each module a call runs."""
    calls: Counter[str] = Counter()

    def count(frame: FrameType, event: str, _: object) -> None:
        if event == "call":
            calls[frame.f_globals["__name__"]] += 1

    sys.setprofile(count)
    try:
        run()
    finally:
        sys.setprofile(None)
    return calls


def test_a_request_runs_no_line_of_what_was_not_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Metrics, workers, records, pages and the log stand beside the way of a byte, not in it."""
    from tests.tcp.memory import Wire

    # A busy machine would be told of.
    monkeypatch.setattr("uppercase.core.pipeline.SLOW_CALL", 1e9)
    made: list[Any] = [tap.Options() for tap in (tcp, udp)]
    for options in made:
        options.parseOptions([])
    factory, responder = made[0].services[0].factory, made[1].services[0].responder
    connection, wire = factory.buildProtocol(None), Wire()
    wire.protocol = connection
    connection.makeConnection(wire)
    connection.dataReceived(b"hello")

    def ask() -> None:
        for _ in range(10):
            connection.dataReceived(b"hello")
            answer_batch(responder, [datagram(b"hello")])

    calls = calls_of(ask)
    assert wire.take() == b"HELLO" * 11
    assert calls["uppercase.tcp.connection"] >= 10, calls
    assert calls["uppercase.core.responder"] >= 10, calls
    rooms = ("services", "taps", "classroom", "lab", "core.events")
    beside = (*(f"uppercase.{room}" for room in rooms), "prometheus_client", "twisted.logger")
    assert not [name for name in calls if name.startswith(beside)]
    connection.connectionLost(Failure(ConnectionDone()))


def test_a_service_alone_loads_nothing_of_what_was_not_asked_for() -> None:
    program = (
        "import sys; from uppercase.taps.tcp import Options; "
        "Options().parseOptions([]); print(*sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT
    )
    loaded = set(done.stdout.split())
    room = "uppercase.services."
    assert f"{room}_tcp" in loaded
    for part in ("supervisor", "worker", "metrics", "web", "_udp"):
        assert f"{room}{part}" not in loaded
    others = {"importlib.metadata", "prometheus_client", "twisted.web", "uppercase.tcp._proxy"}
    assert not {*others, "uppercase.core.responder", "uppercase.udp"} & loaded


def test_numbers_of_processes_add_up_after_a_way_through_json() -> None:
    (one, first), (two, second) = measured_udp(), measured_udp()
    answer(one.responder, datagram(b"a"))
    answer_batch(two.responder, [datagram(b"b"), datagram(b"c")])
    wired = [json.loads(json.dumps(list(each.snapshot().items()))) for each in (first, second)]
    total = add_up({tuple(key): number for key, number in each} for each in wired)
    assert total["messages", "udp"] == 3
    assert total["transform_seconds", "udp", "uppercase", "+Inf"] == 3
    assert total["datagrams_dropped", "udp", "loop"] == 0
    assert b'uppercase_messages_total{service="udp"} 3.0' in exposition(total)


def test_what_a_worker_of_a_later_version_counts_is_left_out() -> None:
    """It took the place of one that has ended since the package was replaced."""
    ours: Snapshot = {("workers",): 2.0}
    assert exposition({("later", "tcp"): 1.0, **ours}) == exposition(ours)


def marked(text: str, *, mark: str) -> str:
    return text + mark


def test_an_argument_that_is_no_text_is_escaped() -> None:
    _, measurements = measured_udp(f"{__name__}:marked:mark=\udcff")
    assert ("slow_calls_total", "udp", f"{__name__}:marked:mark=\\udcff") in shown(measurements)


def test_every_family_is_documented_with_its_labels() -> None:
    page = (ROOT / "docs" / "reference" / "metrics.md").read_text()
    rows = re.findall(r"^\| `uppercase_(\w+)` \| (\w+) \| (.*?) \|", page, re.M)
    suffix = {"counter": "_total"}
    assert rows == [
        (
            each.name + suffix.get(each.kind, ""),
            each.kind,
            ", ".join(f"`{label}`" for label in each.labels),
        )
        for each in FAMILIES
    ]


@pytest.mark.parametrize(
    "event",
    [
        Refused("x", RefusalReason.FULL, ""),
        AcceptFailed("EMFILE", ""),
        Dropped("x", DropReason.OVERLOADED),
    ],
)
def test_who_has_to_send_somebody_away_is_not_ready_for_a_while(event: Any) -> None:
    clock = Clock()
    service, measurements = measured_udp(clock=clock)
    service._listening = True
    measurements.startService()
    assert measurements.not_ready() == ""
    service.notify(event)
    clock.advance(LAG_LOOK)
    assert measurements.not_ready() == "overloaded"
    for _ in range(12):
        clock.advance(LAG_LOOK)
    assert measurements.not_ready() == ""
    measurements.stopService()


def test_a_late_event_loop_is_seen_and_counts_as_overload() -> None:
    clock = Clock()
    service, measurements = measured_udp(clock=clock)
    service._listening = True
    measurements.startService()
    clock.advance(LAG_LOOK + 2)
    assert measurements.not_ready() == "overloaded"
    numbers = shown(measurements)
    assert numbers["event_loop_lag_seconds_bucket", "1.0"] == 0
    assert numbers["event_loop_lag_seconds_bucket", "3.0"] == 1
    measurements.stopService()


def test_a_service_that_has_not_started_is_not_ready() -> None:
    assert measured_udp()[1].not_ready() == "not started"


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("9100", "tcp:9100:interface=127.0.0.1"),
        ("tcp:9100", "tcp:9100:interface=127.0.0.1"),
        ("tcp6:9100", r"tcp6:9100:interface=\:\:1"),
        ("TCP6:9100", r"TCP6:9100:interface=\:\:1"),
        ("tcp:9100:interface=0.0.0.0", "tcp:9100:interface=0.0.0.0"),
        ("tcp:9100:192.0.2.1", "tcp:9100:192.0.2.1"),
        (r"tcp6:9100:50:\:\:", r"tcp6:9100:50:\:\:"),
        ("unix:/run/metrics", "unix:/run/metrics"),
    ],
)
def test_metrics_are_on_loopback_unless_told_otherwise(given: str, meant: str) -> None:
    assert on_loopback(given) == meant


@pytest.fixture
def late(monkeypatch: pytest.MonkeyPatch) -> Deferred[Any]:
    """Return what fires when an endpoint of a third party listens: it waits for something first."""
    listening: Deferred[Any] = Deferred()
    listener = SimpleNamespace(context=None, description="late:1", listen=lambda *_: listening)
    monkeypatch.setattr("uppercase.services.web.listener_of_string", lambda *_: listener)
    return listening


async def test_metrics_are_opened_with_privileges_once_for_each_start() -> None:
    """So that `twistd --uid` can serve them on a port below 1024."""
    service = MetricsService("0", measured_udp()[1], reactor)
    for _ in range(2):
        service.privilegedStartService()
        port = service.port
        assert port is not None
        service.startService()
        assert service.port is port
        await service.stopService()


@pytest.mark.parametrize(
    ("sent", "status"), [(b"GET /healthz HTTP/1.0\r\n\r\n", b"200 OK"), (b"GET /hea", b"")]
)
async def test_whoever_closes_its_side_is_answered_and_let_go(sent: bytes, status: bytes) -> None:
    """As by `nc -N`; at the deadline its connection would be reset."""
    service = MetricsService("0", measured_udp()[1], reactor)
    service.startService()
    port: Any = service.port

    def ask() -> bytes:
        with socket.create_connection(("127.0.0.1", port.getHost().port), timeout=10) as client:
            client.sendall(sent)
            client.shutdown(socket.SHUT_WR)
            return receive_all(client)

    assert status in await deferToThread(ask)
    await service.stopService()


def test_metrics_that_have_not_opened_by_the_end_open_no_more(
    late: Deferred[Any], said: list[str]
) -> None:
    service = MetricsService("late:1", measured_udp()[1], Clock())
    service.startService()
    service.stopService()
    assert late.called
    assert said == []


def test_metrics_that_cannot_be_served_end_the_program_however_late_that_is_known(
    late: Deferred[Any], said: list[str]
) -> None:
    clock: Any = Clock()
    stopped: list[bool] = []
    clock.stop = lambda: stopped.append(True)
    service = MetricsService("late:1", measured_udp()[1], clock)
    service.startService()
    assert (said, stopped) == ([], [])
    late.errback(CannotListenError(None, 1, OSError(EADDRINUSE, "it is in use")))
    assert said[-1].startswith("cannot listen on")
    assert stopped


def test_a_missing_library_and_a_bad_description_are_sentences(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source = measured_udp()[1]
    with pytest.raises(UserError, match="but metrics are served without TLS; use a loopback"):
        MetricsService("tls:9100:privateKey=that-nobody-has-made-yet.pem", source, reactor)
    with pytest.raises(UserError, match="got 'nope:1', which is not an endpoint string"):
        MetricsService("nope:1", source, reactor)
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    options: Any = udp.Options()
    with pytest.raises(usage.UsageError, match=r"pip install 'twisted-uppercase\[metrics\]'"):
        options.parseOptions(["--metrics=9100"])
