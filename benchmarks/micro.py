"""What single parts cost, without a network: framings, transforms and the dispatch of datagrams.

    python -m benchmarks.micro [--fast] [-o FILE.json]    options are pyperf's

Compare two files of results by `python -m pyperf compare_to OLD.json NEW.json`.
"""

from typing import Any

import pyperf

from uppercase.core.datagram import Destination, Origin
from uppercase.core.pipeline import Pipeline
from uppercase.core.responder import Responder
from uppercase.registry import listing
from uppercase.testing import connect

BATCH = 64


def chain(*names: str) -> Any:
    return Pipeline(listing().stages(names))


def dispatch(loops: int) -> float:
    """Time a batch of datagrams through all guards; no two are equal."""
    responder, here = Responder(chain("uppercase")), Destination("127.0.0.1", 12_000)
    origins = [Origin.of(("127.0.0.1", 40_000 + number), here) for number in range(8)] * 8
    batches = [
        [b"%0100d" % (loop * BATCH + each) for each in range(BATCH)] for loop in range(loops)
    ]
    started = pyperf.perf_counter()
    for batch in batches:
        for replies, _ in responder.exchange(batch, origins):
            responder.exchanged(replies, ())
    return float(pyperf.perf_counter() - started)


def main() -> None:
    runner = pyperf.Runner()
    runner.metadata["description"] = "parts of uppercase"
    runner.bench_time_func("datagrams, 100 B", dispatch, inner_loops=BATCH)
    for size in (100, 65_536):
        data = b"x" * size
        runner.bench_func(f"one transform, {size} B", chain("uppercase").transform, data)
        three = chain(*("uppercase",) * 3)
        runner.bench_func(f"a chain of three, {size} B", three.transform, data)
    for framing, message in (("line", b"x" * 99 + b"\n"), ("stream", b"x" * 100)):
        client = connect(framing=framing)

        def exchange(data: bytes, client: Any = client) -> None:
            client.send(data)
            client.receive()

        runner.bench_func(f"{framing}, 16 of 100 B", exchange, message * 16)


if __name__ == "__main__":
    main()
