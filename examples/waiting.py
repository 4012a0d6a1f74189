import time

from twisted.internet.task import deferLater

from uppercase import transform


@transform
async def later(text: str, *, seconds: float = 0.1) -> str:
    """Answer after a while; others are served meanwhile."""
    from twisted.internet import reactor

    return await deferLater(reactor, seconds, text.upper)


@transform(blocking=True)
def slowly(text: str, *, seconds: float = 0.1) -> str:
    """Do the same by code that blocks, in a thread."""
    time.sleep(seconds)
    return text.upper()
