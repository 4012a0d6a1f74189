"""What a service says when it starts."""

from collections.abc import Iterator, Sequence

import pytest
from twisted.logger import ILogObserver, LogEvent, formatEvent, globalLogPublisher
from zope.interface import implementer

from uppercase.services import UDPSettings, udp_service


@pytest.fixture
def said() -> Iterator[list[str]]:
    lines: list[str] = []

    @implementer(ILogObserver)
    def observe(event: LogEvent) -> None:
        lines.append(formatEvent(event))

    globalLogPublisher.addObserver(observe)
    yield lines
    globalLogPublisher.removeObserver(observe)


@pytest.mark.parametrize(("listen", "is_said"), [([], True), (["udp:0"], False)])
async def test_that_nobody_else_can_reach_it_is_said_where_it_is_true(
    listen: Sequence[str], is_said: bool, said: list[str]
) -> None:
    service = udp_service(UDPSettings(port=0, interfaces=["127.0.0.1"], listen=listen))
    service.startService()
    await service.stopService()
    assert any("only this machine can reach it" in line for line in said) is is_said
