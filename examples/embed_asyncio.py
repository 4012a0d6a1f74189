import asyncio
import logging
from signal import SIGINT, SIGTERM

from twisted.internet.asyncioreactor import AsyncioSelectorReactor
from twisted.internet.main import installReactor
from twisted.logger import STDLibLogObserver, globalLogBeginner

from uppercase.services import TCPSettings, tcp_service


async def shout(text: str) -> str:
    await asyncio.sleep(0.1)
    return text.upper() + "!"


async def main() -> None:
    logging.basicConfig(level=logging.INFO)
    globalLogBeginner.beginLoggingTo([STDLibLogObserver()], redirectStandardIO=False)
    loop = asyncio.get_running_loop()
    reactor = AsyncioSelectorReactor(loop)
    installReactor(reactor)
    reactor.startRunning(installSignalHandlers=False)
    stop = asyncio.Event()
    for number in SIGINT, SIGTERM:
        loop.add_signal_handler(number, stop.set)
    service = tcp_service(TCPSettings(transforms=[shout], port=12002))
    service.startService()
    try:
        await stop.wait()  # or whatever else your program does
    finally:
        await service.stopService().asFuture(loop)
        reactor.getThreadPool().stop()


asyncio.run(main())
