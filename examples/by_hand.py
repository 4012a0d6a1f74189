from typing import Any

from twisted.plugin import IPlugin
from zope.interface import implementer

from uppercase import ITransform, ITransformPlugin
from uppercase.plugins import Parameter


@implementer(ITransform)
class Repeat:
    def __init__(self, times: int) -> None:
        self.times = times

    def transform(self, message: bytes) -> bytes:
        return message * self.times


@implementer(ITransformPlugin, IPlugin)
class RepeatPlugin:
    name = "repeat"
    summary = "A message several times"
    parameters = (Parameter("times", int, default=2),)

    def build(self, **arguments: Any) -> ITransform:
        return Repeat(**arguments)


repeat = RepeatPlugin()
