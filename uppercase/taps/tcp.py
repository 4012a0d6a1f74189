"""`twistd uppercase-tcp`."""

from functools import partial

from twisted.application.service import IService

from uppercase.core.framing import AUTO, FRAMINGS
from uppercase.core.values import (
    parse_limit,
    parse_peers,
    parse_size,
    parse_timeout,
)
from uppercase.lab import TCP_OPTIONS, TCP_PRESETS, TCPLab, find_preset
from uppercase.limits import (
    ASYNC_WINDOW,
    CLOSE_TIMEOUT,
    HANDSHAKE_TIMEOUT,
    IDLE_TIMEOUT,
    MAX_CONNECTIONS,
    MAX_LENGTH,
    PROXY_TIMEOUT,
    SEND_TIMEOUT,
    Limits,
)
from uppercase.services import TCPSettings, tcp_service
from uppercase.taps._options import Group, Option
from uppercase.taps._shared import ENDING, INFORMATION, TRANSFORMING, ServiceOptions, listening

__all__ = ["Options", "makeService"]

_FRAMING = "; ".join(f"{name}: {framing.summary}" for name, framing in FRAMINGS.items())
_LABS = "; ".join(f"{name}: {lab.summary}" for name, lab in TCP_PRESETS.items())


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
                       f"{_FRAMING}", "f", "NAME", str, None, AUTO),
                Option("max-length", "longest message of a framing; a longer one closes the "
                       "connection", "", "SIZE", parse_size, MAX_LENGTH, "64k"),
            ),
        ),
        Group(
            "Connections",
            (
                Option("max-connections", "how many may be open; when all are taken, the one that "
                       "has been idle longest makes room, if it has been for 30 s", "", "N",
                       parse_limit, MAX_CONNECTIONS, str(MAX_CONNECTIONS)),
                Option("max-per-address", "how many one IPv4 address or IPv6 /64 may have; mind "
                       "classes behind one address", "", "N", parse_limit, None, "any number"),
                Option("async-window", "how many replies of one connection may be awaited at once, "
                       "where the transform is asynchronous; at this number it is not read from",
                       "", "N", parse_limit, ASYNC_WINDOW, str(ASYNC_WINDOW)),
            ),
        ),
        Group(
            "Time",
            (
                Option("proxy-timeout", "how long a proxy may take for its PROXY header", "",
                       "DURATION", parse_timeout, PROXY_TIMEOUT, "5s"),
                Option("handshake-timeout", "how long a TLS handshake may take", "", "DURATION",
                       parse_timeout, HANDSHAKE_TIMEOUT, "15s"),
                Option("idle-timeout", "how long a connection may neither send nor take anything",
                       "", "DURATION", parse_timeout, IDLE_TIMEOUT, "10m"),
                Option("send-timeout", "how long a client may take nothing of what it is owed "
                       "before it is cut off", "", "DURATION", parse_timeout, SEND_TIMEOUT, "60s"),
                Option("close-timeout", "how long a client that has all it is owed may take to "
                       "close its side", "", "DURATION", parse_timeout, CLOSE_TIMEOUT, "5s"),
                ENDING,
            ),
        ),
        Group(
            "Lab: what TCP may do to a program, done on purpose",
            (
                Option("lab", f"options for an exercise; {_LABS}", "", "PRESET",
                       partial(find_preset, presets=TCP_PRESETS), None),
                *(Option(row.name, row.text, "", row.metavar, row.parse, None)
                  for row in TCP_OPTIONS.values()),
            ),
        ),
        INFORMATION,
    )  # fmt: skip

    def make_service(self) -> IService:
        """Make the TCP service."""
        limits = Limits(
            max_length=self["max-length"],
            async_window=self["async-window"],
            close_timeout=self["close-timeout"],
            send_timeout=self["send-timeout"],
            idle_timeout=self["idle-timeout"],
            max_connections=self["max-connections"],
            max_per_address=self["max-per-address"],
            handshake_timeout=self["handshake-timeout"],
            proxy_timeout=self["proxy-timeout"],
        )
        if self["lab"] is not None:
            print(f"lab {self['lab']}")
        lab = {} if self["lab"] is None else dict(self["lab"].settings)
        framing = self["framing"] or lab.pop("framing", AUTO)
        values = {name: TCP_OPTIONS[name].parse(text) for name, text in lab.items()}
        values.update({name: self[name] for name in TCP_OPTIONS if self[name] is not None})
        return tcp_service(
            TCPSettings(
                **self.shared_settings(),
                framing=framing,
                limits=limits,
                proxy_from=self["proxy-from"],
                lab=TCPLab(**{name.replace("-", "_"): value for name, value in values.items()}),
            )
        )


def makeService(options: Options) -> IService:
    """Return the service; called by twistd."""
    return options.service
