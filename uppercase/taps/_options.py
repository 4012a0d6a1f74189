"""Options as tables, parsed by Twisted's `usage` and shown in sections; those that services share.

`usage` lists options in one alphabetical column, names no option when a value is bad and knows no
near misses. Here a table row is the one place that says an option's name, default and meaning.
"""

import os
import re
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar, Final, NamedTuple

from twisted.application import app
from twisted.python import usage

from uppercase.core import values
from uppercase.errors import PluginError, UserError, suggest
from uppercase.lab import LabOption
from uppercase.limits import DEFAULT_PORT, DRAIN, MAX_OUTPUT, MIB, RECORD_BYTES
from uppercase.registry import summaries
from uppercase.services.logs import FORMATS, escape_what_lacks, parse_log_format

_COLUMN: Final = 30
_WIDTH: Final = 100
_UNKNOWN: Final = r"option (--?)(\S+) not recognized"

_HABITS: Final = {
    **dict.fromkeys(("host", "bind", "address"), "where to listen is --interface=ADDRESS"),
    "udp": "UDP is what uppercase-udp serves",
    "u": "UDP is what uppercase-udp serves, and a user is given before the service: twistd -u USER",
    **dict.fromkeys(("ssl", "tls"), "TLS (TCP) is --listen=tls:PORT:privateKey=FILE:certKey=FILE"),
}
"""What other programs, and our own client, call what is something else here."""

_LARGEST_OUTPUT: Final = 64 * MIB  # Four times the longest message that can be allowed.
_MOST_WORKERS: Final = 256  # A typing error must not fill the machine's memory.


class Option(NamedTuple):
    """One option.

    Attributes:
        spelling: how it is written: `--name`, or `-n, --name=VALUE` with a letter and a value.
        parse: makes the value of the text, raising `UserError`.
        many: it may be repeated; its values are a list of texts.
        default: its value if it is not given.
        shown: the default as the help shows it, where that is not the bare number.
        values: gives what a shell offers for its value, each with what it means.
        exits: it only prints something; a file of settings cannot have it.
    """

    spelling: str
    text: str
    parse: Callable[[str], Any] = str
    default: Any = None
    shown: str = ""
    values: Callable[[], Mapping[str, str]] | None = None
    exits: bool = False
    many: bool = False

    @property
    def name(self) -> str:
        return self.spelling.partition("--")[2].partition("=")[0]

    @property
    def short(self) -> str | None:
        return None if self.spelling.startswith("--") else self.spelling[1]

    @property
    def takes_value(self) -> bool:
        return "=" in self.spelling

    def described(self) -> str:
        shown = self.shown if self.shown or self.default is None else f"{self.default:.15g}"
        return f"{self.text} [default: {shown}]" if shown else self.text

    def coerce(self, text: str) -> Any:
        """Make the value; a mistake names the option."""
        try:
            return self.parse(text)
        except (UserError, PluginError) as error:
            raise usage.UsageError(f"--{self.name}: {error}") from error


class Section:
    def __init__(self, title: str, *options: Option) -> None:
        self.title = title
        self.options = options


class TableOptions(usage.Options):
    """Options that are declared by sections of rows; the help begins with a purpose and examples.

    Attributes:
        rows: all of them by name.
        words: what was parsed; a worker parses it as well.
    """

    sections: ClassVar[tuple[Section, ...]] = ()
    rows: ClassVar[Mapping[str, Option]] = {}
    purpose: ClassVar[str] = ""
    examples: ClassVar[tuple[tuple[str, str], ...]] = ()
    optParameters: ClassVar[list[list[Any]]] = []
    optFlags: ClassVar[list[list[Any]]] = []

    def __init_subclass__(cls) -> None:
        """Hand the rows to `usage` in its own form."""
        cls.rows = {row.name: row for section in cls.sections for row in section.options}
        cls.optParameters, cls.optFlags = [], []
        for row in cls.rows.values():
            if row.many:
                for name in filter(None, (row.name, row.short)):
                    setattr(cls, f"opt_{name}", _adder(row.name))
            elif hasattr(cls, f"opt_{row.name.replace('-', '_')}"):
                pass  # `usage` calls that
            elif row.takes_value:
                said = [row.name, row.short, row.default, row.text, row.coerce]
                cls.optParameters.append(said)
            else:
                cls.optFlags.append([row.name, row.short, row.text])

    def __init__(self) -> None:
        usage.Options.__init__(self)
        self.update({row.name: [] for row in self.rows.values() if row.many})

    def parseOptions(self, options: list[str] | None = None) -> None:
        """Parse; under `twistd` and `twist` a mistake ends the program with one sentence.

        Theirs is the whole help, with the sentence before or after it.
        """
        self.words = list(options or ())
        parent: Any = self.parent
        if parent is not None:
            escape_what_lacks(sys.stdout)
        try:
            usage.Options.parseOptions(self, options)
        except usage.UsageError as error:
            unknown = re.fullmatch(_UNKNOWN, str(error))
            text = self._explain_unknown(unknown[1] + unknown[2]) if unknown else str(error)
            if parent is None:
                raise usage.UsageError(text) from error
            twistd = isinstance(parent, app.ServerOptions)
            command = f"{'twistd' if twistd else 'twist'} {parent.subCommand}"
            # Where the program itself writes its usage errors; at once, for a reader of one line.
            (sys.stdout if twistd else sys.stderr).write(
                f"{command}: {values.printable(values.shortened(text))}\ntry '{command} --help'\n"
            )
            raise SystemExit(1 if twistd else os.EX_USAGE) from error

    def _explain_unknown(self, option: str) -> str:
        parent: Any = self.parent
        name = option.lstrip("-")
        if name in _HABITS:
            return f"no option named {option}; {_HABITS[name]}"
        if parent is not None:
            if name in parent.synonyms:
                program = "twistd" if isinstance(parent, app.ServerOptions) else "twist"
                return (
                    f"{option} is an option of {program} itself; give it before the service, as in "
                    f"{program} {option} ... {parent.subCommand}"
                )
            owners = [
                service
                for service, _, make, _ in parent.subCommands
                if service.startswith("uppercase") and option in make()._spellings()
            ]
            if owners:
                file = "; a file has it: --config=FILE" if "--config" in self._spellings() else ""
                return (
                    f"{option} belongs to {' and '.join(owners)}, not to {parent.subCommand}{file}"
                )
        from difflib import get_close_matches

        # Without the dashes, which all have. All that is known would be thirty names.
        close = [f"--{each}" for each in get_close_matches(name, self.rows, n=1)]
        return f"no option named {option}" + (suggest(option, close) if close else "")

    def _spellings(self) -> list[str]:
        letters = (row.short for row in self.rows.values())
        return [f"--{name}" for name in self.rows] + [f"-{letter}" for letter in letters if letter]

    def getUsage(self, width: int | None = None) -> str:
        width = width or min(shutil.get_terminal_size((_WIDTH, 0)).columns, _WIDTH)
        # The synopsis is printed before this, by whoever asks for the help.
        lines = ["", *_wrapped(self.purpose, width), "", "Examples:"]
        for command, meaning in self.examples:
            lines += [f"  {command}", *_wrapped(meaning, width, 6)]
        for section in self.sections:
            lines += ["", *_wrapped(f"{section.title}:", width)]
            for row in section.options:
                lines += _help_lines(row, width)
        return "\n".join(lines) + "\n"


def _adder(name: str) -> Callable[[TableOptions, str], None]:

    def add(self: TableOptions, value: str) -> None:
        self[name].append(value)

    return add


def _wrapped(text: str, width: int, indent: int = 0) -> list[str]:
    margin = " " * indent
    return textwrap.wrap(
        text, width, initial_indent=margin, subsequent_indent=margin, break_on_hyphens=False
    )


def _help_lines(row: Option, width: int) -> Iterator[str]:
    first = f"  {row.spelling if row.short else f'    {row.spelling}'}"
    # In a narrow terminal a column of its own would leave none for the text.
    column = _COLUMN if width >= 2 * _COLUMN else 8
    text = _wrapped(row.described(), width, column)
    if len(first) < column:
        yield f"{first:<{column}}{text.pop(0).lstrip()}"
    else:
        yield first
    yield from text


def listening(endpoint: str, example: str) -> Section:
    return Section(
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
            f"{endpoint} such as {example}, instead of the default address; may be repeated",
            many=True,
        ),
    )


def lab_rows(options: Mapping[str, LabOption], shown: str = "") -> Iterator[Option]:
    """Return a lab's options, as they are typed: one parser means them here and in commands."""
    for row in options.values():
        yield Option(f"--{row.name}={row.metavar}", row.text, shown=shown)


TRANSFORMING = Section(
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

PROCESS = Section(
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
        "TCP's --max-connections and --max-per-address are shared among them; each has UDP's "
        "--rate for itself",
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

CLASSROOM = Section(
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

PAGE = Section(
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

PROCESS_SECTIONS = (PAGE, PROCESS)  # What the options of one process are about, whatever it serves.

PROCESS_ROWS = {row.name: row for section in PROCESS_SECTIONS for row in section.options}

VERSION_AND_HELP = (
    Option("--version", "show the version, and exit", exits=True),
    Option("--help", "show this help, and exit", exits=True),
)

INFORMATION = Section(
    "Information",
    Option("--log-peers", "log a line for each connection or datagram (for a classroom)"),
    *VERSION_AND_HELP,
)
