"""What a process of `twistd` or `twist` makes of its options: services, and what is beside them."""

import gc
import os
import re
import signal
import socket
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from functools import cached_property, partial
from itertools import chain
from math import inf
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Any, ClassVar, cast

import twisted
from twisted.application.service import IService, MultiService, Service
from twisted.logger import FileLogObserver, LogLevel
from twisted.python import usage

from uppercase import __version__
from uppercase.awaiting import choose_reactor, leave_threads, the_reactor, use_monotonic_time
from uppercase.core.events import IObserver
from uppercase.core.values import DASHES, counted, printable
from uppercase.errors import PluginError, UserError
from uppercase.limits import RECORD_BYTES, RECORD_LIMIT
from uppercase.registry import Listing, listing
from uppercase.services.base import Repeated
from uppercase.services.logs import WatchedLogFile, observer_of, say
from uppercase.taps import PASSED
from uppercase.taps._options import TableOptions

if TYPE_CHECKING:
    from uppercase.services.supervisor import Supervisor


class ProcessOptions(TableOptions, ABC):
    """The options of what one process serves.

    Parsing them makes it, so that every mistake is a usage error.

    Attributes:
        services: what is served.
        service: that, or who has workers serve it, with what the process needs beside it.
        whole: the options of the process: themselves, unless these are a part of a file.
        in_worker: a supervisor has opened the sockets, and has all that is beside the services.
        meant: the option that a word without one was meant for.
    """

    services: list[Any]
    service: IService
    meant: ClassVar[str]
    synopsis = "[options]"
    in_worker = False

    def __init__(self) -> None:
        super().__init__()
        self.whole: ProcessOptions = self

    def opt_version(self) -> None:
        print(f"uppercase {__version__} (Twisted {twisted.__version__})")
        raise SystemExit(0)

    def parseArgs(self, *words: str) -> None:
        if words:
            word = words[0]
            likely = f"{self.meant}={word}"
            if word.isdecimal():
                likely = f"a port is given as --port={word}"
            elif word.startswith(DASHES):
                likely = f"type the hyphens of --{word.strip(''.join(DASHES))}"
            elif word.startswith("uppercase-"):
                likely = "twistd uppercase serves several services at once"
            elif re.fullmatch(r"(\S*:)?[\d.*]+|localhost", word):
                likely = "where to listen is given as --interface=ADDRESS and --port=N"
            raise usage.UsageError(f"got {word!r}, which belongs to no option; {likely}")

    def postOptions(self) -> None:
        makes_process = self.whole is self and not self.in_worker
        try:
            if makes_process and not self.get("check"):
                # First: a record is begun anew, and another server may be writing it.
                check_places(self.parent)
            choose_reactor(self._awaits_asyncio())
            # Invariant: not before, as it imports the reactor.
            if not use_monotonic_time():
                say(
                    "a transform's module has scheduled calls while it was imported, so all "
                    "time-outs go by the wall clock; schedule them when the transform is called",
                    LogLevel.warn,
                )
            self.services = self.make_services()
            if makes_process:
                self.service = self.make_whole()
                choose_log(self.parent, self["log-format"])
        except (UserError, PluginError) as error:
            raise usage.UsageError(str(error)) from error

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
    def make_services(self) -> list[Any]:
        """Make the services that the options describe; a mistake raises `UserError`."""

    def make_whole(self) -> IService:
        """Put the services together with what the process needs beside them."""
        reactor = the_reactor()
        supervisor: Any = self._make_supervisor()
        ours: list[Any] = [supervisor] if supervisor else [*self.services]
        call_when_ready = supervisor.call_when_ready if supervisor else reactor.callWhenRunning
        # A full collection of what was imported would hold all clients up for 40 ms.
        call_when_ready(gc.freeze)
        for each in self.found.problems:  # Once, however many services there are.
            call_when_ready(partial(say, f"a plugin cannot be used: {each}", LogLevel.warn))
        listened = chain(*(each.settings.listen for each in self.services))
        places = (*listened, self["metrics"], self["page"])
        left = PASSED - sum(str(text).lower().startswith("systemd:") for text in places)
        if left > 0:
            notice = (
                f"nothing serves {left} of {counted(PASSED, 'socket')} from systemd, whose clients "
                "wait; --listen=systemd:domain=INET:index=0 serves the first"
            )
            call_when_ready(partial(say, notice, LogLevel.warn))
        if self["metrics"] is not None:
            # Here, as they take a tenth of a second to import.
            from uppercase.services.metrics import Measurements
            from uppercase.services.web import MetricsService

            if not supervisor:
                ours.append(Measurements(self.services, reactor))
            ours.append(MetricsService(self["metrics"], ours[-1], reactor))
        hosts, shows_key = self["page-host"] or (), bool(self["page-key"])
        if self["page"] is not None:
            from uppercase.classroom.page import PageService

            page = PageService(
                self["page"], self.services, reactor, shows_key=shows_key, hosts=hosts
            )
            ours.append(page)
        elif shows_key or hosts:
            name = "page-key" if shows_key else "page-host"
            raise UserError(f"got --{name} without a page; add one, such as --page=tcp:8080")
        if "NOTIFY_SOCKET" in os.environ:
            ours.append(Notifier(call_when_ready))
        if os.getpid() == 1:
            reactor.addSystemEventTrigger("after", "shutdown", leave_threads)
        whole = MultiService()
        for each in ours:
            each.setServiceParent(whole)
        return whole

    @property
    def _workers(self) -> int:
        if self["workers"] == 0:
            # One for each processor that this process may use.
            can_tell = hasattr(os, "sched_getaffinity")
            return len(os.sched_getaffinity(0)) if can_tell else os.cpu_count() or 1
        return self["workers"] or 1

    @property
    def has_workers(self) -> bool:
        """Whether workers serve: others, or this process is one, whatever the file says by now."""
        watched = self["workers"] is not None and self["watchdog"] is not None
        return self.in_worker or self._workers > 1 or watched

    def _make_supervisor(self) -> "Supervisor | None":
        """Return who has workers serve; None if this process serves."""
        if self["watchdog"] and self["workers"] is None:
            raise UserError("got --watchdog without workers to watch; add --workers=2")
        if not self.has_workers:
            return None
        jail = self.parent and self.parent.get("chroot")
        if jail and not os.path.exists(jail + sys.executable):
            raise _with_workers(
                f"twistd's --chroot={jail}, where there is no {sys.executable} to run them"
            )
        from uppercase.services.supervisor import Supervisor

        # Where this process runs nothing of the current folder, workers must not.
        flags = ["-I"] * sys.flags.isolated or ["-P"] * sys.flags.safe_path
        return Supervisor(
            self.services,
            the_reactor(),
            workers=self._workers,
            # Not by `-m`, for which a folder `uppercase` in the current one would be this package.
            program=[sys.executable, *flags, str(Path(__file__).with_stem("_worker"))],
            # By which a worker makes the same services.
            words=[type(self).__module__, *self.words],
            watchdog=self["watchdog"] or inf,
            measure=self["metrics"] is not None,
        )


class ServiceOptions(ProcessOptions):
    """The options of a service that serves one chain of transforms."""

    protocol: ClassVar[str]
    meant = "a transform is given as --transform"

    def opt_help_transforms(self) -> None:
        print(printable(self.found.describe(), keep="\n"))
        raise SystemExit(0)

    def opt_help_transform(self, name: str) -> None:
        try:
            print(printable(self.found.lookup(name).describe(), keep="\n"))
        except (UserError, PluginError) as error:
            raise usage.UsageError(str(error)) from error
        raise SystemExit(0)

    def transforms(self) -> Iterable[object]:
        return cast("list[str]", self["transform"])

    def shared_settings(self, lab: str) -> dict[str, Any]:
        """Return the settings that both services have; `lab` is its options as one types them."""
        if self.whole.has_workers:
            if self.protocol == "UDP" and lab:
                raise _with_workers(
                    "a lab for datagrams, whose numbers would start anew with each worker"
                )
            if self["record"] is not None or self.whole["page"] is not None:
                raise _with_workers("--record or --page, which tell of what one process sees")
        transforms = self["transform"] or ["uppercase"]
        names = printable("|".join(transforms))
        about = {"protocol": self.protocol, "transform": names, "lab": lab}
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


def _with_workers(what: str) -> UserError:
    """Return what is said of something that cannot be together with workers."""
    return UserError(f"got --workers with {what}; leave out one of them")


def makeService(options: ProcessOptions) -> IService:
    return options.service


def check_places(runner: Mapping[str, Any] | None) -> None:
    """Refuse a folder to run in and a pid file that twistd cannot have, or another server has.

    It would answer them with a traceback, and the last without the way out.
    """
    if not runner or runner.get("chroot"):
        return
    place, path = runner.get("rundir") or ".", runner.get("pidfile")
    if not (os.path.isdir(place) and os.access(place, os.X_OK)):
        got = "the current folder" if place == "." else f"--rundir={place}"
        raise UserError(
            f"got {got} to run in; an existing folder that may be entered is accepted; name "
            "one with --rundir=FOLDER before the service's name"
        )
    if not path:
        return
    folder = os.path.dirname(path) or "."
    if not os.path.isdir(folder):
        why = f"there is no folder {folder}"
    elif os.path.exists(path) and not os.path.isfile(path):
        why = "it is a folder" if os.path.isdir(path) else "it is no file"
    elif owner := _running(path):
        why = f"the server with the process number {owner} has it; remove it if that is none"
    elif os.path.exists(path) and not os.access(path, os.W_OK):
        why = "permission denied"
    else:
        try:
            # Beside it, as another server may be about to write it.
            with TemporaryFile(dir=folder) as file:
                file.write(b"%d" % os.getpid())
            return
        except OSError as error:
            if isinstance(error, PermissionError) and os.access(folder, os.W_OK):
                return  # AppArmor, or the like, may allow that very file only.
            why = str(error.strerror).lower()
    raise UserError(
        f"cannot write the pid file {path} ({why}); name another with --pidfile=FILE before "
        "the service's name, or have none with --pidfile="
    )


def _running(path: str) -> int | None:
    """Return whose number a pid file has, if that process runs; remove what is stale.

    twistd has a traceback where it may not, as of another user's file in /tmp, and takes our own
    number, of a server before that was killed in the same container, for another one that runs.
    """
    number = 0
    try:
        number = int(Path(path).read_text())
        with suppress(ProcessLookupError):
            if number != os.getpid():
                os.kill(number, 0)
                return number
        os.remove(path)
    except PermissionError:
        return number  # it, or the file, is another user's
    except (OSError, ValueError, OverflowError):
        pass
    return None


class Notifier(Service):
    """Tells systemd how the process is, for units of `Type=notify`: ready, alive, stopping.

    The protocol (sd_notify(3)) is one datagram of text. The libraries for it are one that was last
    maintained in 2017 and one that needs a compiler.
    """

    def __init__(self, call_when_ready: Callable[[Callable[[], object]], object]) -> None:
        name = os.environ["NOTIFY_SOCKET"]
        # Of Linux's abstract sockets, which begin with a null byte.
        self._address = "\0" + name[1:] if name.startswith("@") else name
        self._call_when_ready = call_when_ready
        self._beat = Repeated(partial(self._tell, "WATCHDOG=1"), the_reactor())
        watched = os.environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        self._watchdog = int(os.environ.get("WATCHDOG_USEC", 0)) / 1e6 if watched else 0.0

    def startService(self) -> None:
        super().startService()
        self._call_when_ready(self._ready)

    def stopService(self) -> None:
        """Say that a stop has begun; from here on systemd's time for it runs."""
        super().stopService()
        self._beat.end()
        self._tell("STOPPING=1")

    def _ready(self) -> None:
        self._tell("READY=1")
        if self._watchdog:
            # Twice in the time that systemd allows, as sd_watchdog_enabled(3) recommends.
            self._beat.start(self._watchdog / 2)

    def _tell(self, notice: str) -> None:
        # Whoever started us may be gone; that is no reason to stop serving.
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
            # For as long as its queue is full of others' notices: without READY=1 it would kill us.
            told.settimeout(1.0)
            told.sendto(notice.encode(), self._address)


# How `twistd` and `twist` write the log in our formats, by public options of theirs.

_twistd: Any = None  # The options of `twistd`, which calls `observer_for_twistd` without arguments.

_format = "text"


def choose_log(runner: Any, format_: str | None) -> None:
    """Settle how the log of `twistd` or `twist` will look, if one of them runs."""
    global _twistd, _format
    if runner is None:
        return
    if "fileLogObserverFactory" in runner:
        # twist has formats of its own; without a word from the user, its JSON stays.
        if format_ is not None or runner["logFormat"] == "text":
            runner["fileLogObserverFactory"] = lambda file: observer_of(file, format_ or "text")
        return
    others = [name for name in ("logger", "syslog") if runner.get(name)]
    if others and format_ is not None:
        raise UserError(
            f"got --log-format={format_} beside twistd's --{others[0]}, which has a format of its "
            "own; leave out one of them"
        )
    if not others:
        _twistd, _format = runner, format_ or "text"
        runner["logger"] = f"{__name__}.{observer_for_twistd.__name__}"


def observer_for_twistd() -> FileLogObserver:
    """Return what writes the log where twistd's options say: the places are those of twistd."""
    name, stays = _twistd["logfile"], _twistd.get("nodaemon", True)
    if name == "-" and not stays:
        sys.exit("Daemons cannot log to stdout, exiting!")
    if name == "-" or (stays and not name):
        return observer_of(sys.stdout, _format)
    path = os.path.abspath(name or "twistd.log")
    try:
        file: Any = WatchedLogFile.fromFullPath(path)
    except OSError as error:
        # A pipe, as /dev/stdout may be, has no end to go on from.
        other = "FILE, or standard output with --logfile=-," if stays else "FILE"
        sys.exit(
            f"cannot write the log file {path}: {error.strerror}; name another with "
            f"--logfile={other} before the service's name"
        )
    # As twistd's own log does: rotating it by that must not end the service.
    if signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL:
        signal.signal(signal.SIGUSR1, lambda *_: the_reactor().callFromThread(file.rotate))
    return observer_of(file, _format)
