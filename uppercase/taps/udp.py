"""`twistd uppercase-udp`."""

from twisted.application.service import IService

from uppercase.limits import (
    LOOP_GUARD,
    UDP_AMPLIFICATION,
    UDP_MAX_REQUEST,
    UDP_RECEIVE_BUFFER,
    DatagramLimits,
)
from uppercase.services import UDPSettings, udp_service
from uppercase.taps.options import Group, Option
from uppercase.taps.shared import ENDING, INFORMATION, TRANSFORMING, ServiceOptions, listening
from uppercase.units import parse_count, parse_factor, parse_rate, parse_size

__all__ = ["Options", "makeService"]


class Options(ServiceOptions):
    """The options of `uppercase-udp`."""

    synopsis = "[options]"
    purpose = "Serve a transform over UDP: each datagram comes back transformed."
    examples = (
        ("twistd -n uppercase-udp", "upper-case for this machine, on port 12000"),
        ("twistd -n uppercase-udp --interface='*'", "for every machine that can reach this one"),
        ("twistd -n uppercase-udp -t mymodule:shout", "a function of yours in ./mymodule.py"),
    )
    groups = (
        listening("datagram endpoint string", "udp:12000:interface=127.0.0.1"),
        TRANSFORMING,
        Group(
            "What is answered",
            (
                Option("max-request", "longest request; a longer one is dropped and counted, "
                       "never cut", "", "SIZE", parse_size, UDP_MAX_REQUEST,
                       str(UDP_MAX_REQUEST)),
                Option("max-amplification", "bytes of a reply per byte of its request; 64 more "
                       "than the request are always allowed", "", "FACTOR", parse_factor,
                       UDP_AMPLIFICATION, "3"),
                Option("loop-guard", "how often our own reply may come back within a second "
                       "before one is dropped; 0 is off", "", "N", parse_count, LOOP_GUARD,
                       str(LOOP_GUARD)),
                Option("allow-low-ports", "answer source ports below 1024 and 2049 too, where "
                       "services are that would answer our answer"),
                Option("rate", "datagrams a second that one address may send, and how many at "
                       "once", "", "R[:BURST]", parse_rate, (0.0, 0.0), "off"),
                Option("rate-dry-run", "count what --rate would drop, and answer it"),
                Option("rcvbuf", "receive buffer to ask the system for; 0 leaves its default",
                       "", "SIZE", parse_size, UDP_RECEIVE_BUFFER, "4M"),
            ),
        ),
        Group("Time", (ENDING,)),
        INFORMATION,
    )  # fmt: skip

    def make_service(self) -> IService:
        """Make the UDP service."""
        rate, burst = self["rate"]
        limits = DatagramLimits(
            max_request=self["max-request"],
            max_amplification=self["max-amplification"],
            loop_guard=self["loop-guard"],
            allow_low_ports=bool(self["allow-low-ports"]),
            rate=rate,
            burst=burst,
            rate_dry_run=bool(self["rate-dry-run"]),
            receive_buffer=self["rcvbuf"],
        )
        return udp_service(UDPSettings(**self.shared_settings(), limits=limits))


def makeService(options: Options) -> IService:
    """Give the service; called by twistd."""
    return options.service
