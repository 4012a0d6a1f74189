"""`twistd uppercase-tcp`."""

from twisted.application.service import IService

from uppercase.addresses import parse_peers
from uppercase.framing import AUTO, FRAMINGS
from uppercase.limits import HANDSHAKE_TIMEOUT, MAX_LENGTH, SEND_TIMEOUT, Limits
from uppercase.services import TCPSettings, tcp_service
from uppercase.taps.options import Group, Option
from uppercase.taps.shared import ENDING, INFORMATION, TRANSFORMING, ServiceOptions, listening
from uppercase.units import parse_duration, parse_size, parse_timeout

__all__ = ["Options", "makeService"]

_FRAMING = "; ".join(f"{name}: {framing.summary}" for name, framing in FRAMINGS.items())


class Options(ServiceOptions):
    """The options of `uppercase-tcp`."""

    synopsis = "[options]"
    purpose = "Serve a transform over TCP: what a client sends comes back transformed."
    examples = (
        ("twistd -n uppercase-tcp", "upper-case for this machine, on port 12000"),
        ("twistd -n uppercase-tcp --interface='*'", "for every machine that can reach this one"),
        ("twistd -n uppercase-tcp -t strip -t reverse", "a chain of transforms, line by line"),
        (
            "twistd -n uppercase-tcp --listen=tls:12443:privateKey=key.pem:certKey=cert.pem",
            "over TLS, on every IPv4 address; :interface=127.0.0.1 at the end narrows it",
        ),
        ("twistd -n uppercase-tcp -t mymodule:shout", "a function of yours in ./mymodule.py"),
    )
    groups = (
        listening("Twisted endpoint string", "unix:/run/uppercase.sock"),
        Group(
            "Behind a proxy",
            (
                Option("proxy-from", "the proxies, as IP addresses or networks, or unix for those "
                       "who come through a UNIX socket: they must send a PROXY header (version 1 "
                       "or 2), whose address limits and logs go by, and nobody else is served",
                       "", "CIDR,...", parse_peers, None, ""),
            ),
        ),
        TRANSFORMING,
        Group(
            "How messages are framed",
            (
                Option("framing", "auto: stream if the whole chain can stream, else line; "
                       f"{_FRAMING}", "f", "NAME", str, AUTO, AUTO),
                Option("max-length", "longest message of a framing; a longer one closes the "
                       "connection", "", "SIZE", parse_size, MAX_LENGTH, "64k"),
            ),
        ),
        Group(
            "Time",
            (
                Option("handshake-timeout", "how long a TLS handshake may take", "", "DURATION",
                       parse_timeout, HANDSHAKE_TIMEOUT, "15s"),
                Option("send-timeout", "how long a client may take nothing of what it is owed "
                       "before it is cut off", "", "DURATION", parse_duration, SEND_TIMEOUT,
                       "60s"),
                ENDING,
            ),
        ),
        INFORMATION,
    )  # fmt: skip

    def make_service(self) -> IService:
        """Make the TCP service."""
        limits = Limits(
            max_length=self["max-length"],
            send_timeout=self["send-timeout"],
            handshake_timeout=self["handshake-timeout"],
        )
        return tcp_service(
            TCPSettings(
                **self.shared_settings(),
                framing=self["framing"],
                limits=limits,
                proxy_from=self["proxy-from"],
            )
        )


def makeService(options: Options) -> IService:
    """Give the service; called by twistd."""
    return options.service
