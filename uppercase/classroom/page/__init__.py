"""The live page: what the network does to each datagram, on the projector, while it happens.

An `Audience` observes one service, as a `Recorder` does, and makes arrows of its events by the same
code; so the page, the record and the answer key agree. `PageService` serves them to browsers.
"""

from uppercase.classroom.page.audience import Audience
from uppercase.classroom.page.service import PageService

__all__ = ["Audience", "PageService"]
