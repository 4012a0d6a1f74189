"""`twistd uppercase-tcp`."""

from collections.abc import Callable
from dataclasses import fields
from typing import Final

from uppercase.core import values
from uppercase.core.framing import AUTO, framing_summaries
from uppercase.lab import TCP_OPTIONS, TCP_PRESETS, make_tcp_lab, merge_settings
from uppercase.limits import DRAIN_QUIET, KIB, MIB, Limits
from uppercase.services import TCPService, TCPSettings
from uppercase.taps import _options, _process
from uppercase.taps._options import Option, Section

__all__ = ["Options", "makeService"]

makeService = _process.makeService

_LONGEST_MESSAGE: Final = 16 * MIB
"""Each of a thousand clients may have us hold this much, and while a message is transformed, all
others wait."""

_MOST_AWAITED: Final = 64 * KIB

_DEFAULTS = Limits()
_FRAMINGS = framing_summaries()
_LABS = {name: lab.summary for name, lab in TCP_PRESETS.items()}


def _bound(
    spelling: str, text: str, shown: str = "", parse: Callable[[str], float] = values.parse_timeout
) -> Option:
    """Return the option of a bound; every bound of `Limits` is an option of the same name."""
    name = spelling.removeprefix("--").partition("=")[0].replace("-", "_")
    return Option(spelling, text, parse=parse, default=getattr(_DEFAULTS, name), shown=shown)


class Options(_process.ServiceOptions):
    """The options of `uppercase-tcp`."""

    protocol = "TCP"
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
    sections = (
        _options.listening("Twisted endpoint string", "unix:/run/uppercase.sock"),
        Section(
            "Behind a proxy",
            Option(
                "--proxy-from=CIDR,...",
                "the proxies, as IP addresses or networks, or unix for those "
                "who come through a UNIX socket: they must send a PROXY header (version 1 "
                "or 2), whose address limits and logs go by, and nobody else is served",
                parse=values.parse_peers,
            ),
        ),
        _options.TRANSFORMING,
        Section(
            "How messages are framed",
            Option(
                "-f, --framing=NAME",
                "; ".join(map(": ".join, _FRAMINGS.items())),
                shown=AUTO,
                values=lambda: _FRAMINGS,
            ),
            _bound(
                "--max-length=SIZE",
                "longest message of a framing; a longer one closes the connection",
                "64k",
                parse=values.up_to(
                    values.parse_bound, _LONGEST_MESSAGE, "each client may have one held"
                ),
            ),
        ),
        Section(
            "Connections",
            _bound(
                "--max-connections=N",
                "how many may be open; when all are taken, the one that has been idle longest "
                "makes room, if it has been for 30 s",
                parse=values.parse_limit,
            ),
            _bound(
                "--max-per-address=N",
                "how many one IPv4 address or IPv6 /64 may have; mind classes behind one address",
                "any number",
                parse=values.parse_limit,
            ),
            _bound(
                "--async-window=N",
                "how many replies of one connection may be awaited at once, where the "
                "transform is asynchronous; at this number it is not read from",
                parse=values.up_to(
                    values.parse_limit, _MOST_AWAITED, "each client may have them awaited"
                ),
            ),
        ),
        Section(
            "Time",
            _bound(
                "--proxy-timeout=DURATION", "how long a proxy may take for its PROXY header", "5s"
            ),
            _bound("--handshake-timeout=DURATION", "how long a TLS handshake may take", "15s"),
            _bound(
                "--idle-timeout=DURATION",
                "how long a connection may neither send nor take anything",
                "10m",
            ),
            _bound(
                "--send-timeout=DURATION",
                "how long a client may take nothing of what it is owed before it is cut off",
                "60s",
            ),
            _bound(
                "--close-timeout=DURATION",
                "how long a client that has all it is owed may take to close its side",
                "5s",
            ),
            _options.ENDING,
            Option(
                "--drain-quiet=DURATION",
                "in a stop, a connection is closed once nothing was sent or taken for that long",
                parse=values.parse_duration,
                default=DRAIN_QUIET,
                shown="500ms",
            ),
        ),
        Section(
            "Lab: what TCP may do to a program, done on purpose",
            Option(
                "--lab=PRESET",
                f"options for an exercise; {'; '.join(map(': '.join, _LABS.items()))}",
                values=lambda: _LABS,
            ),
            *_options.lab_rows(TCP_OPTIONS),
        ),
        _options.CLASSROOM,
        *_options.PROCESS_SECTIONS,
        _options.INFORMATION,
    )

    def make_services(self) -> list[TCPService]:
        limits = Limits(**{each.name: self[each.name.replace("_", "-")] for each in fields(Limits)})
        preset = self["lab"]
        given = {name: self[name] for name in TCP_OPTIONS if self[name] is not None}
        texts = merge_settings(preset, given, TCP_PRESETS)
        framing = texts.pop("framing", AUTO)
        lab = make_tcp_lab(texts)
        settings = TCPSettings(
            **self.shared_settings(str(lab)),
            framing=framing if self["framing"] is None else self["framing"],
            drain_quiet=self["drain-quiet"],
            limits=limits,
            proxy_from=self["proxy-from"],
            lab=lab,
            lab_notes=[f"lab {TCP_PRESETS[preset]}"] if preset else [],
        )
        return [TCPService(settings)]
