"""The options that services share, and what one process makes of them."""

import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from typing import Any, ClassVar, Final

import twisted
from twisted.application.service import IService
from twisted.python import usage

from uppercase import __version__
from uppercase.awaiting import choose_reactor, the_reactor
from uppercase.core import values
from uppercase.core.events import IObserver
from uppercase.errors import PluginError, UserError
from uppercase.lab import LabOption
from uppercase.limits import DEFAULT_PORT, DRAIN, MAX_OUTPUT, MIB, RECORD_BYTES, RECORD_LIMIT
from uppercase.registry import Listing, listing, lookup, summaries
from uppercase.services.logs import FORMATS, parse_log_format
from uppercase.taps._process import accompany, check_places, choose_log, use_monotonic_time
from uppercase.taps._table import Group, Option, TableOptions

_LARGEST_OUTPUT: Final = 64 * MIB  # Four times the longest message that can be allowed.
_MOST_WORKERS: Final = 256  # A typing error must not fill the machine's memory.


def listening(endpoint: str, example: str) -> Group:
    return Group(
        "Where to listen",
        Option(
            "-p, --port=N",
            "port number; 0 takes any free one, which the ready line shows",
            parse=values.parse_port,
            shown=str(DEFAULT_PORT),
        ),
        Option(
            "-i, --interface=ADDRESS",
            "IP address of this machine, or '*' for every address, both families; may be repeated",
            shown="loopback, both families",
            many=True,
        ),
        Option(
            "-l, --listen=DESCRIPTION",
            f"{endpoint} such as {example}, instead of --port and --interface; may be repeated",
            many=True,
        ),
    )


def lab_rows(options: Mapping[str, LabOption], shown: str = "") -> Iterator[Option]:
    """Return a lab's options, as they are typed: one parser means them here and in commands."""
    for row in options.values():
        yield Option(f"--{row.name}={row.metavar}", row.text, shown=shown)


TRANSFORMING = Group(
    "What to serve",
    Option(
        "-t, --transform=NAME[:key=value...]",
        "transform, or module:function for a plain function; may be repeated: "
        "a chain, applied in the order given",
        shown="uppercase",
        values=summaries,
        many=True,
    ),
    Option(
        "--max-output=SIZE",
        "what each transform of the chain may give for one message or chunk",
        parse=values.up_to(
            values.parse_bound, _LARGEST_OUTPUT, "each client may have as much made"
        ),
        default=MAX_OUTPUT,
        shown="1M",
    ),
    Option("--help-transforms", "list the transforms that are installed, and exit", exits=True),
    Option(
        "--help-transform=NAME",
        "show one transform and its arguments, and exit",
        values=summaries,
        exits=True,
    ),
)

ENDING = Option(
    "--drain=DURATION",
    "how long SIGTERM and SIGINT wait for what is owed",
    parse=values.parse_duration,
    default=DRAIN,
    shown="10s",
)

PROCESS = Group(
    "The process",
    Option(
        "--log-format=FORMAT",
        "text, or json: one object per line, with a word for what happened and its facts",
        parse=parse_log_format,
        shown="text",
        values=lambda: dict.fromkeys(FORMATS, ""),
    ),
    Option(
        "--metrics=DESCRIPTION",
        "serve metrics for Prometheus, /healthz and /readyz, such as at tcp:9100; on loopback "
        "unless :interface= says otherwise",
        shown="off",
    ),
    Option(
        "--workers=N",
        "processes that serve, which SIGHUP replaces with fresh ones; 0: one for each processor. "
        "Each has its share of --max-connections and --max-per-address, and its own --rate",
        parse=values.up_to(values.parse_count, _MOST_WORKERS, "0 is one for each processor"),
        shown="1",
    ),
    Option(
        "--watchdog=DURATION",
        "replace a worker that has given no sign of life for that long",
        parse=values.parse_timeout,
        shown="off",
    ),
)

CLASSROOM = Group(
    "For a classroom",
    Option(
        "--record=FILE",
        "write each datagram or chunk, and what became of it, for `uppercase timeline`",
        shown="off",
    ),
    Option(
        "--record-bytes=N",
        "how many bytes of each payload the record keeps",
        parse=values.parse_count,
        shown=str(RECORD_BYTES),
    ),
    Option(
        "--record-limit=SIZE",
        "how large the record may become; it ends there, and the service goes on",
        parse=values.parse_size,
        shown="100M",
    ),
)

PAGE = Group(
    "The live page",
    Option(
        "--page=DESCRIPTION",
        "serve a page that shows what happens to each datagram or chunk, such as at tcp:8080; "
        "on loopback unless :interface= says otherwise",
        shown="off",
    ),
    Option("--page-key", "show the lab's seed and the answer key on it"),
    Option(
        "--page-host=NAME,...",
        "names by which browsers reach it; this machine's addresses and localhost need none",
        parse=values.parse_host_names,
    ),
)

PROCESS_GROUPS = (PAGE, PROCESS)  # What the options of one process are about, whatever it serves.

PROCESS_ROWS = {row.name: row for group in PROCESS_GROUPS for row in group.options}

VERSION_AND_HELP = (
    Option("--version", "show the version, and exit", exits=True),
    Option("--help", "show this help, and exit", exits=True),
)

INFORMATION = Group(
    "Information",
    Option("--log-peers", "log a line for each connection or datagram (for a classroom)"),
    *VERSION_AND_HELP,
)


class ProcessOptions(TableOptions, ABC):
    """The options of what one process serves.

    Parsing them makes it, so that every mistake is a usage error.

    Attributes:
        whole: the options of the process: themselves, unless these are a part of a file.
        in_worker: a supervisor has opened the sockets, and has all that is beside the services.
        meant: the option that a word without one was meant for.
    """

    service: IService
    meant: ClassVar[str]
    synopsis = "[options]"
    in_worker = False
    _words: Sequence[str] = ()

    def __init__(self) -> None:
        super().__init__()
        self.whole: ProcessOptions = self

    def parseOptions(self, options: list[str] | None = None) -> None:
        """Parse, and remember the words for workers, who parse them as well."""
        self._words = list(options or ())
        super().parseOptions(options)

    def opt_version(self) -> None:
        print(f"uppercase {__version__} (Twisted {twisted.__version__})")
        raise SystemExit(0)

    def parseArgs(self, *words: str) -> None:
        if words:
            meant = "a port is given as --port" if words[0].isdecimal() else self.meant
            likely = f"{meant}={words[0]}"
            if words[0].startswith("uppercase-"):
                likely = "twistd uppercase serves several services at once"
            raise usage.UsageError(f"got {words[0]!r}, which belongs to no option; {likely}")

    def postOptions(self) -> None:
        try:
            if self.whole is self and not self.in_worker:
                # First: a record is begun anew, and another server may be writing it.
                check_places(self.parent)
            choose_reactor(self._awaits_asyncio())
            # Invariant: not before, as it imports the reactor.
            use_monotonic_time()
            self.service = self.make_service()
            if self.whole is self and not self.in_worker:
                self.service = self.make_whole()
                choose_log(self.parent, self["log-format"])
        except (UserError, PluginError) as error:
            raise usage.UsageError(str(error)) from error

    def make_whole(self) -> IService:
        return accompany(self.service, self, [type(self).__module__, *self._words])

    @cached_property
    def found(self) -> Listing:
        """What the one scan of the doors, which takes milliseconds, has found."""
        return listing()

    def _awaits_asyncio(self) -> bool:
        """Whether a transform may await asyncio; found out before anything imports a reactor."""
        for wanted in self.transforms():
            # The service tells what is wrong.
            with suppress(UserError, PluginError):
                if self.whole.found.is_async(str(wanted)):
                    return True
        return False

    @abstractmethod
    def transforms(self) -> Iterable[object]:
        """Return the names of the transforms that are asked for."""

    @abstractmethod
    def make_service(self) -> IService:
        """Make the service that the options describe; a mistake raises `UserError`."""


class ServiceOptions(ProcessOptions):
    """The options of a service that serves one chain of transforms."""

    protocol: ClassVar[str]
    meant = "a transform is given as --transform"

    def opt_help_transforms(self) -> None:
        print(values.printable(self.found.describe(), keep="\n"))
        raise SystemExit(0)

    def opt_help_transform(self, name: str) -> None:
        try:
            print(values.printable(lookup(name).describe(), keep="\n"))
        except (UserError, PluginError) as error:
            raise usage.UsageError(str(error)) from error
        raise SystemExit(0)

    def transforms(self) -> Iterable[object]:
        wanted: list[str] = self["transform"]
        return wanted

    def shared_settings(self, lab: str) -> dict[str, Any]:
        """Return the settings that both services have; `lab` is its options as one types them."""
        transforms = self["transform"] or ["uppercase"]
        about = {"protocol": self.protocol, "transform": "|".join(transforms), "lab": lab}
        return {
            "transforms": tuple(transforms),
            "listen": tuple(self["listen"]),
            "port": self["port"],
            "interfaces": tuple(self["interface"]),
            "max_output": self["max-output"],
            "drain": self["drain"],
            "log_peers": bool(self["log-peers"]),
            "inherits": self.whole.in_worker,
            "observers": tuple(self._observers(about)),
            "found": self.whole.found,
        }

    def _observers(self, about: dict[str, str]) -> Iterator[IObserver]:
        """Return who watches each datagram or chunk; usually nobody."""
        head, limit = self["record-bytes"], self["record-limit"]
        if self["record"] is not None:
            from uppercase.classroom.record import open_record

            head = RECORD_BYTES if head is None else head
            limit = RECORD_LIMIT if limit is None else limit
            # Nothing is written where the options are only checked.
            file = os.devnull if self.whole.get("check") else self["record"]
            yield open_record(file, about, the_reactor(), head=head, limit=limit)
        elif head is not None or limit is not None:
            name = "record-limit" if head is None else "record-bytes"
            raise UserError(f"got --{name} without a record; add one, such as --record=FILE")
        if self.whole["page"] is not None:
            from uppercase.classroom.page import Audience

            yield Audience(about, the_reactor().seconds)


def makeService(options: ProcessOptions) -> IService:
    return options.service
