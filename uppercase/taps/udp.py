"""`twistd uppercase-udp`."""

from uppercase import lab
from uppercase.core import values
from uppercase.errors import UserError
from uppercase.limits import UDP_MAX_REQUEST, DatagramLimits
from uppercase.services import UDPService, UDPSettings
from uppercase.taps import _options, _process
from uppercase.taps._options import Option, Section

__all__ = ["Options", "makeService"]

makeService = _process.makeService

_DEFAULTS = DatagramLimits()


class Options(_process.ServiceOptions):
    """The options of `uppercase-udp`."""

    protocol = "UDP"
    purpose = "Serve a transform over UDP: each datagram comes back transformed."
    examples = (
        ("twistd -n uppercase-udp", "upper-case for this machine, on port 12000"),
        ("twistd -n uppercase-udp --interface='*'", "for every machine that can reach this one"),
        ("twistd -n uppercase-udp -t mymodule:shout", "a function of yours in ./mymodule.py"),
        (
            "twistd -n uppercase-udp --lab=udp-pinger --seed=7",
            "lose datagrams, the same ones for all",
        ),
    )
    sections = (
        _options.listening("datagram endpoint string", "udp:12000:interface=127.0.0.1"),
        _options.TRANSFORMING,
        Section(
            "What is answered",
            Option(
                "--max-request=SIZE",
                "longest request; a longer one is dropped and counted, never cut",
                parse=values.up_to(values.parse_bound, UDP_MAX_REQUEST, "no datagram is longer"),
                default=_DEFAULTS.max_request,
            ),
            Option(
                "--max-amplification=FACTOR",
                "bytes of a reply per byte of its request; 64 more "
                "than the request are always allowed",
                parse=values.parse_factor,
                default=_DEFAULTS.max_amplification,
            ),
            Option(
                "--loop-guard=N",
                "how often our own reply may come back within a second "
                "before one is dropped; 0 is off",
                parse=values.parse_count,
                default=_DEFAULTS.loop_guard,
            ),
            Option(
                "--allow-low-ports",
                "answer source ports below 1024 and 2049 too, where "
                "there are services that would answer our answer",
            ),
            Option(
                "--rate=R[:BURST]",
                "datagrams a second that one address may send, and how many at once",
                parse=values.parse_rate,
                default=(_DEFAULTS.rate, _DEFAULTS.burst),
                shown="off",
            ),
            Option("--rate-dry-run", "count what --rate would drop, and answer it"),
            Option(
                "--rcvbuf=SIZE",
                "receive buffer to ask the system for; 0 leaves its default",
                parse=values.up_to(values.parse_size, 2**31 - 1, "the system counts in 31 bits"),
                default=_DEFAULTS.receive_buffer,
                shown="4M",
            ),
        ),
        Section(
            "Lab: what happens to datagrams on purpose (a value is for requests; reply: or both: "
            "before it names the other side)",
            Option(
                "--lab=PRESET",
                f"a preset, which the options below change: {', '.join(lab.UDP_PRESETS)}",
                shown="none",
                values=lambda: {name: each.summary for name, each in lab.UDP_PRESETS.items()},
            ),
            *_options.lab_rows(lab.UDP_OPTIONS, shown="0"),
            Option(
                "--seed=N",
                "decides what happens to which datagram; `uppercase fates` prints it",
                parse=values.parse_count,
                shown="random, logged",
            ),
            Option("--per-client", "give each client's address fates of its own"),
        ),
        Section("Time", _options.ENDING),
        _options.CLASSROOM,
        *_options.PROCESS_SECTIONS,
        _options.INFORMATION,
    )

    def make_services(self) -> list[UDPService]:
        experiment, notes, key = self._lab()
        rate, burst = self["rate"]
        if self["rate-dry-run"] and not rate:
            raise UserError(
                "got --rate-dry-run without a rate to try; add one, such as --rate=200:400"
            )
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
        shared = self.shared_settings(key)
        settings = UDPSettings(**shared, limits=limits, lab=experiment, lab_notes=notes)
        return [UDPService(settings)]

    def _lab(self) -> tuple["lab.Experiment | None", list[str], str]:
        """Return the lab that the options ask for, if any, what to say about it, and its key's."""
        given = {name: self[name] for name in lab.UDP_OPTIONS if self[name] is not None}
        settings = lab.merge_settings(self["lab"], given)
        if not settings:
            for name in ("seed", "per-client"):
                if self[name] not in (None, 0):
                    raise UserError(
                        f"got --{name} without a lab; give it something to do, such as --loss=0.3"
                    )
            return None, [], ""
        seed = lab.new_seed() if self["seed"] is None else self["seed"]
        per_client = bool(self["per-client"])
        notes = [] if self["lab"] is None else [f"lab {lab.UDP_PRESETS[self['lab']]}"]
        key = lab.command_line(settings, seed=seed) + (" --client=ADDRESS" if per_client else "")
        notes.append(f"the lab is on; its answer key: uppercase fates {key}")
        return lab.make_experiment(settings, seed=seed, per_client=per_client), notes, key
