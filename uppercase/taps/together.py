"""`twistd uppercase`: several services in one process, as a TOML file says.

A table of the file holds the options of one service under their names on the command line. They are
parsed by the very options of `uppercase-tcp` and `uppercase-udp`: nothing is known twice.
"""

import sys
import tomllib
from collections.abc import Iterable, Mapping
from typing import Any, Final

from twisted.application.service import IService
from twisted.logger import LogLevel, capturedLogs
from twisted.python import usage

from uppercase.errors import BadArgument, UserError, suggest
from uppercase.services.logs import observer_of
from uppercase.taps import _options, _process, tcp, udp
from uppercase.taps._options import Option, Section

__all__ = ["Options", "makeService"]

makeService = _process.makeService

_PROTOCOLS: Final[Mapping[str, Any]] = {"tcp": tcp.Options, "udp": udp.Options}

_LARGEST_FILE: Final = 1 << 20
"""Bytes; thousands of services fit. It keeps `/dev/zero` and the like from filling the memory."""

_BOTH: Final = {name: {"protocol": name} for name in _PROTOCOLS}
"""What is served where no file says otherwise."""


class Options(_process.ProcessOptions):
    """The options of `uppercase`."""

    meant = "a file is given as --config"
    purpose = (
        "Serve transforms over TCP and UDP in one process, as a file says; without one, "
        "upper-case over both on port 12000."
    )
    examples = (
        ("twistd -n uppercase", "both services for this machine, on port 12000"),
        (
            "twistd -n uppercase --config=services.toml",
            'its services, such as [services.pinger] with protocol = "udp", lab = "udp-pinger"',
        ),
        ("twistd -n uppercase --config=services.toml --check", "say what is wrong with the file"),
    )
    sections = (
        Section(
            "What to serve",
            Option(
                "-c, --config=FILE",
                "TOML file with a table [services.NAME] for each service: protocol, and the "
                "options of uppercase-tcp or uppercase-udp by their names",
            ),
            Option("--check", "say whether the file is right, and exit", exits=True),
        ),
        *_options.PROCESS_SECTIONS,
        Section("Information", *_options.VERSION_AND_HELP),
    )

    def postOptions(self) -> None:
        with capturedLogs() as self._logged:
            super().postOptions()

    def transforms(self) -> Iterable[object]:
        path = self["config"]
        if path is None and self["check"]:
            raise UserError("got --check without a file to check; add --config=FILE")
        self._tables: Mapping[str, Any] = _BOTH if path is None else self._read(path)
        for table in self._tables.values():
            wanted: Any = table.get("transform", []) if isinstance(table, dict) else []
            yield from wanted if isinstance(wanted, list) else [wanted]

    def make_services(self) -> list[Any]:
        """Make the services of the file, each named after its table."""
        path = self["config"] or ""
        services: list[Any] = []
        owners: dict[tuple[str, int, str], str] = {}
        for name, table in self._tables.items():
            if not isinstance(table, dict):
                raise UserError(
                    f"{path}: got {table!r} for services.{name}, which must be a table; one of a "
                    "service begins with a line such as [services.lecture]"
                )
            where = f"{path}, [services.{name}]"
            service = self._make_part(dict(table), where)
            protocol, port = service.protocol, service.settings.port_number()
            # Only what is sure is told before the start.
            for host in service.settings.hosts() if port else ():
                owner = owners.setdefault((protocol, port, host), name)
                if owner != name:
                    raise UserError(
                        f"{where}: {protocol} port {port} belongs to [services.{owner}] already; "
                        "give it another port"
                    )
            service.setName(name)
            services.append(service)
        return services

    def make_whole(self) -> IService:
        """Make the process; where only a check was asked for, say that it can be, and exit."""
        path = self["config"]
        try:
            whole = super().make_whole()
        except UserError as error:
            raise UserError(f"{path}: {error}" if path else str(error)) from error
        if self["check"]:
            show = observer_of(sys.stdout, "text")
            for event in self._logged:
                if event["log_level"] >= LogLevel.warn:  # Such as of a certificate's dates.
                    show(event)
            names = ", ".join(f"{each.name} ({each.protocol})" for each in self.services)
            print(f"{path} is right: {names}")
            raise SystemExit(0)
        return whole

    def _make_part(self, table: dict[str, Any], where: str) -> Any:
        protocol = table.pop("protocol", None)
        if protocol is None:
            raise UserError(f'{where}: no protocol; add protocol = "tcp" or protocol = "udp"')
        if protocol not in list(_PROTOCOLS):
            known = suggest(str(protocol), _PROTOCOLS)
            raise UserError(f"{where}, protocol: no protocol named {protocol!r}{known}")
        options = _PROTOCOLS[protocol]()
        options.whole = self
        rows = _rows(protocol)
        words: list[str] = []
        for key, value in table.items():
            if key not in rows:
                raise UserError(f"{where}: no key named {key!r}{_likely_key(key, protocol, rows)}")
            try:
                words += _words(rows[key], value)
            except BadArgument as error:
                raise UserError(f"{where}, {key}: {error}") from error
        try:
            options.parseOptions(words)
        except usage.UsageError as error:
            # Of one option: `--port: got ...`; else of what several make together.
            option, _, rest = str(error).partition(": ")
            key = option.removeprefix("--")
            text = f"{where}, {key}: {rest}" if key in table else f"{where}: {error}"
            raise UserError(text) from error
        return options.services[0]

    def _read(self, path: str) -> dict[str, Any]:
        """Take the options of the process from a file; return its tables of services."""
        content = _load(path)
        services = content.pop("services", None)
        rows = _options.PROCESS_ROWS
        for key, value in content.items():
            if key not in rows:
                known = suggest(key, ["services", *rows])
                if key == "protocol" or any(key in _rows(each) for each in _PROTOCOLS):
                    known = "; it is a service's: put it below a line such as [services.lecture]"
                raise UserError(f"{path}: no table or key named {key!r}{known}")
            row = rows[key]
            # The command line decides where both say something.
            if self[key] is not None and (row.takes_value or self[key]):
                continue
            try:
                words = _words(row, value)
                self[key] = row.parse(str(value)) if row.takes_value else len(words)
            except UserError as error:
                raise UserError(f"{path}, {key}: {error}") from error
        if not (isinstance(services, dict) and services):
            raise UserError(
                f'{path}: it has no service; add a table [services.lecture] with protocol = "tcp"'
            )
        return services


def _load(path: str) -> dict[str, Any]:
    try:
        with open(path, "rb") as file:
            data = file.read(_LARGEST_FILE + 1)
        if len(data) > _LARGEST_FILE:
            raise UserError(f"{path} has more than {_LARGEST_FILE} bytes; is it the right file?")
        # Digits stay as they are written: Python's own form of a small number has an exponent.
        text = data.decode("utf-8-sig")
        content = tomllib.loads(text, parse_float=lambda digits: digits.replace("_", ""))
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: it is not UTF-8, as TOML is ({error})") from error
    except tomllib.TOMLDecodeError as error:
        quotes = (
            '; text is in quotes, as in protocol = "tcp"' if "Invalid value" in str(error) else ""
        )
        raise UserError(f"{path} is not TOML: {error}{quotes}") from error
    except RecursionError as error:
        raise UserError(f"{path}: its values are nested too deeply") from error
    # Of a number with thousands of digits.
    except ValueError as error:
        raise UserError(f"{path}: it has a value that cannot be used ({error})") from error
    return content


def _rows(protocol: str) -> dict[str, Option]:
    whole = _options.PROCESS_ROWS
    rows: Mapping[str, Option] = _PROTOCOLS[protocol].rows
    return {name: row for name, row in rows.items() if name not in whole and not row.exits}


def _likely_key(key: str, protocol: str, rows: Mapping[str, Option]) -> str:
    if key in _options.PROCESS_ROWS:
        return "; it is the whole process's: put it above every table"
    for other in _PROTOCOLS:
        if key in _rows(other):
            return f'; it belongs to protocol = "{other}"'
    return suggest(key, rows)


def _words(row: Option, value: object) -> list[str]:
    """Return the words of a command line that say the same as a value of the file."""
    if not row.takes_value:
        if not isinstance(value, bool):
            raise BadArgument(f"got {value!r}; accepted are true and false")
        return [f"--{row.name}"] if value else []
    values = value if isinstance(value, list) and row.many else [value]
    for each in values:
        if isinstance(each, bool) or not isinstance(each, str | int):
            several = " or a list of them" if row.many else ""
            raise BadArgument(f"got {each!r}; accepted is a string or a number{several}")
    return [f"--{row.name}={each}" for each in values]
