"""From frozen settings to a running service; also the way to embed one.

    from uppercase.services import TCPSettings, tcp_service
    service = tcp_service(TCPSettings(transforms=("reverse",), port=0))
    service.setServiceParent(application)

`tcp_factory` and `udp_protocol` serve on endpoints and ports of the caller's own. Everything that
can be wrong with settings is found when the service is made, before anything listens. Command lines
are for the taps. What serves loads on first use: a TCP service does without what serves UDP.
"""

from typing import TYPE_CHECKING

from uppercase import lazy

if TYPE_CHECKING:
    from uppercase.services._stopping import CannotStart
    from uppercase.services._tcp import TCPService, TCPSettings, tcp_factory, tcp_service
    from uppercase.services._udp import UDPService, UDPSettings, udp_protocol, udp_service
    from uppercase.services.base import Settings

__all__ = [
    "CannotStart",
    "Settings",
    "TCPService",
    "TCPSettings",
    "UDPService",
    "UDPSettings",
    "tcp_factory",
    "tcp_service",
    "udp_protocol",
    "udp_service",
]

lazy(__name__, __all__, ["._stopping", ".base", "._tcp", "._udp"])
