"""How listening sockets are opened, and ports for them, whichever process has opened them.

Twisted parses the endpoint strings, but its own sockets would not do: they leave IPV6_V6ONLY alone,
so that `*` could not mean both families, and other processes cannot serve them.

The kernel lets one listen at addresses that nobody can connect to. And it refuses the name of a
UNIX socket that is there already, even if nobody listens: a program that was killed leaves it
behind. Such a name is only removed if it is a socket's, and a connection to it is refused.
"""

import atexit
import errno
import os
import socket
import stat
from contextlib import ExitStack, suppress
from typing import Any, Final

from twisted.internet import tcp, unix
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort, IProtocolFactory, IStreamServerEndpoint
from twisted.internet.protocol import Factory
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.python.lockfile import FilesystemLock

from uppercase.core.values import cannot_listen, family_of, printable_address
from uppercase.errors import CannotListen
from uppercase.limits import MAX_PORT
from uppercase.tcp.kernel import refuse_group

BACKLOG: Final = 1024
"""Connections that may wait to be accepted. With Twisted's 50, 149 of a class of 200 that connects
while the server is busy for a second have to wait for TCP's retransmission."""


def bind(host: str, port: int, backlog: int = BACKLOG, *, one_family: bool = True) -> socket.socket:
    """Return a listening socket; for `::` it may serve both families.

    Raises:
        CannotListen: one sentence with the likely fix.
    """
    if host == "*":  # The C library would take it for loopback's.
        every = r"0.0.0.0 is every IPv4 address of this machine, and \:\: every address"
        raise CannotListen(f"got interface=*, but an endpoint has one address; {every}")
    try:
        family = family_of(host)
        # The host may be a name, or have a scope; only `bind` checks the port.
        address, _, *scope = socket.getaddrinfo(host.encode(), 0, family, socket.SOCK_STREAM)[0][4]
        with ExitStack() as opened:
            skt = opened.enter_context(socket.socket(family, socket.SOCK_STREAM))
            skt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6 and one_family:
                skt.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            # An OverflowError says that it is no such number: who knows what was written says so.
            skt.bind((address, port, *scope))
            refuse_group(str(address))
            skt.listen(backlog)
            opened.pop_all()
    except OSError as error:
        raise cannot_listen("TCP", printable_address(host, port), error) from error
    return skt


class _NamedSocket(socket.socket):
    """A UNIX socket; what it holds, such as its name, goes with it.

    Processes that still have it go on listening.
    """

    def __init__(self) -> None:
        super().__init__(socket.AF_UNIX, socket.SOCK_STREAM)
        self.held = ExitStack()

    def close(self) -> None:
        # First: until the socket is closed, no other file has the number of its name.
        self.held.close()
        super().close()


class _Opener:
    """Stands for a reactor where Twisted's endpoints are to be opened and not served.

    They call these methods, which are those of `IReactorTCP`, `IReactorUNIX` and `IReactorSocket`
    but return a listening socket instead of a port.
    """

    def listenTCP(self, port: int, factory: object, backlog: int, interface: str) -> socket.socket:
        return bind(interface or "0.0.0.0", port, backlog, one_family=False)

    def listenUNIX(
        self, address: str, factory: object, backlog: int, mode: int, wantPID: bool
    ) -> socket.socket:
        path, ours = os.fsdecode(address), os.getpid()
        with ExitStack() as opened:
            try:
                skt = opened.enter_context(_NamedSocket())
                # Others may have removed its names, or not allow us to.
                skt.held.enter_context(suppress(OSError, ValueError))
                if wantPID:
                    skt.held.callback(_lock(path).unlock)
                _remove_leftover(path)
                skt.bind(path)
                skt.held.callback(_remove, path, os.lstat(path))
                os.chmod(path, mode)
                skt.listen(backlog)
            except OSError as error:
                raise cannot_listen("UNIX", path, error) from error
            opened.pop_all()

        def end() -> None:
            # The end of a process that it has forked is none of ours.
            if os.getpid() == ours:
                skt.close()

        # Where another service cannot start, the program ends without a stop.
        atexit.register(end)
        skt.held.callback(atexit.unregister, end)
        return skt

    def adoptStreamPort(self, descriptor: int, family: int, factory: object) -> socket.socket:
        # The endpoint closes the descriptor that it has.
        skt = socket.socket(fileno=os.dup(descriptor))
        listens = skt.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        if not listens or skt.type != socket.SOCK_STREAM:  # Others' messages would be cut.
            skt.close()
            raise CannotListen(
                f"got file descriptor {descriptor}, which is no stream socket that listens: "
                "ListenStream= and Accept=no are needed in a systemd socket unit"
            )
        return skt


OPENER: Final[Any] = _Opener()


def open_endpoint(description: str, endpoint: IStreamServerEndpoint) -> socket.socket:
    """Open an endpoint that was made with `OPENER`, or raise `CannotListen`."""
    results: list[Any] = []
    endpoint.listen(Factory()).addBoth(results.append)
    opened: socket.socket | Failure = results[0]
    if isinstance(opened, Failure):
        raise listen_error(description, opened)
    return opened


class _UNIXPort(unix.Port):
    """A port for a UNIX socket whose name and mode are up to whatever has opened it.

    Twisted's own sets the mode again, and removes the name when it stops, even if it is systemd's.
    """

    _shouldShutdown = False  # Other processes may serve it.

    def __init__(self, skt: socket.socket, factory: IProtocolFactory, reactor: Any) -> None:
        super().__init__(skt.getsockname(), factory, reactor=reactor)
        self.socket = skt
        self.fileno = self.socket.fileno  # type: ignore[method-assign] # as Twisted's

    def startListening(self) -> None:
        """Do what Twisted's does, except to the socket; accepting is up to an `Acceptor`."""
        factory: Any = self.factory
        factory.doStart()
        self.connected = True

    def stopListening(self, *reason: Any) -> Any:
        ended = self.loseConnection(*reason)  # type: ignore[no-untyped-call]
        self.socket.close()  # At once, as its name goes with it.
        return ended

    def connectionLost(self, reason: Failure) -> None:
        tcp.Port.connectionLost(self, reason)


def port_of(skt: socket.socket, factory: IProtocolFactory, reactor: Any) -> IListeningPort:
    """Return the port of a listening socket, which belongs to it from then on."""
    if skt.family == socket.AF_UNIX:
        port = _UNIXPort(skt, factory, reactor)
        port.startListening()
        return port
    # As Twisted's `AdoptedStreamServerEndpoint`, whose module brings in what its TLS needs: a sixth
    # of the time in which a service starts. The port has a descriptor of its own.
    with skt:
        adopted: IListeningPort = reactor.adoptStreamPort(skt.fileno(), skt.family, factory)
    return adopted


def _remove(path: str, ours: os.stat_result) -> None:
    """Remove the name of a socket, if it is still ours."""
    if os.path.samestat(os.lstat(path), ours):
        os.remove(path)


def _remove_leftover(path: str) -> None:
    """Remove the name of a UNIX socket, if it is one, and if nobody listens there."""
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode) or not _refuses(path):
            return
        os.remove(path)
    except OSError:
        return
    Logger("uppercase").info(
        "removed the socket {path}, which a program that was killed has left", path=path
    )


def listen_error(description: str, failure: Failure) -> CannotListen:
    """Say in one sentence why an endpoint could not listen."""
    error = failure.value
    if isinstance(error, CannotListen):
        return error
    if isinstance(error, CannotListenError):
        error = error.socketError  # from an endpoint that is not ours
    why = getattr(error, "strerror", None) or error
    if name := getattr(error, "filename", None):
        why = f"{why}: {name}"  # Such as /dev/null in a jail, which Twisted opens.
    if isinstance(error, OverflowError):
        why = f"a port is a whole number from 0 to {MAX_PORT}, and a backlog one of 31 bits"
    return CannotListen(f"cannot listen on {description}: {why}")


def _lock(path: str) -> FilesystemLock:
    """Take the lock beside a UNIX socket's name, or say who has it, or seems to."""
    lock = FilesystemLock(f"{path}.lock")
    with suppress(OSError):
        # Of a program that was killed: all that a container runs may have the same number.
        if os.readlink(lock.name) == str(os.getpid()) and _refuses(path):
            os.remove(lock.name)
    try:
        if lock.lock():
            return lock
    except PermissionError:
        if not os.path.islink(lock.name):
            raise
        # It is another user's.
    raise CannotListen(
        f"cannot listen on UNIX {path}: another program does already, as {path}.lock says; stop it "
        "or choose another name, or remove both files if no process of that number serves"
    )


def _refuses(path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        # A program that listens but is too busy to accept must not hold us up.
        probe.setblocking(False)
        return probe.connect_ex(path) == errno.ECONNREFUSED
