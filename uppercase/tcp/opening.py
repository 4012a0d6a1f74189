"""How listening sockets are opened, and how those are served that another process has opened.

The shorthands (`--port`, `--interface`) have sockets of their own, because Twisted's TCP endpoints
leave IPV6_V6ONLY alone, so that `*` could not mean both families.

The kernel lets one listen at addresses that nobody can connect to. And it refuses the name of a
UNIX socket that is there already, whether somebody listens or not: a program that was killed leaves
one behind. Such a name is only removed where it is a socket, and a connection to it is refused.
"""

import os
import socket
import stat
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, NamedTuple

from twisted.internet.address import UNIXAddress
from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort, IProtocolFactory, IStreamServerEndpoint
from twisted.internet.protocol import Factory
from twisted.internet.unix import Server
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.python.lockfile import FilesystemLock
from zope.interface import implementer

from uppercase.core.values import cannot_listen, family_of, printable_address
from uppercase.errors import CannotListen
from uppercase.limits import MAX_PORT
from uppercase.tcp.kernel import refuse_group

BACKLOG: Final = 1024
"""Connections that wait to be accepted. With Twisted's 50, a class of 200 that connects while the
server is busy for a second sees 149 of them wait for TCP's retransmission."""


def bind(host: str, port: int, backlog: int = BACKLOG, *, one_family: bool = True) -> socket.socket:
    """Return a listening socket; of `::` it may be one of both families.

    Raises:
        CannotListen: one sentence with the likely fix.
    """
    skt = None
    try:
        family = family_of(host)
        # The host may be a name, or have a scope; the port is checked by `bind` alone.
        address, _, *scope = socket.getaddrinfo(host, 0, family, socket.SOCK_STREAM)[0][4]
        skt = socket.socket(family, socket.SOCK_STREAM)
        if os.name == "posix":
            skt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6 and one_family:
            skt.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        skt.bind((address, port, *scope))
        refuse_group(str(address))
        skt.listen(backlog)
        skt.setblocking(False)
    except (OSError, OverflowError) as error:
        if skt is not None:
            skt.close()
        if isinstance(error, OverflowError):
            raise  # The port is none; who knows what was written says so.
        raise cannot_listen("TCP", printable_address(host, port), error) from error
    return skt


@implementer(IListeningPort)
class InheritedUNIXPort:
    """A listening UNIX socket whose name and mode belong to the process that has opened it.

    Twisted's own port sets the mode and the backlog anew, and unlinks the name when it stops. This
    one has what an `Acceptor` needs to accept in its place.
    """

    transport = Server
    sessionno = 0

    def __init__(self, skt: socket.socket, factory: IProtocolFactory) -> None:
        self._socket = skt
        self.factory = factory

    def startListening(self) -> None:
        self.factory.doStart()

    def stopListening(self) -> Deferred[None]:
        self._socket.close()
        self.factory.doStop()
        return succeed(None)

    def getHost(self) -> UNIXAddress:
        return UNIXAddress(self._socket.getsockname())

    def fileno(self) -> int:
        return self._socket.fileno()

    def logPrefix(self) -> str:
        return type(self.factory).__name__


class Opened(NamedTuple):
    """A listening socket that nobody serves yet.

    Attributes:
        socket: does not block.
        release: closes it; who still has it goes on listening, but nobody finds it by its name.
    """

    socket: socket.socket
    release: Callable[[], None]


class _Opener:
    """Stands for a reactor where endpoints are to be opened and not served.

    Endpoints call these methods, which are those of `IReactorTCP`, `IReactorUNIX` and
    `IReactorSocket`; what they give is an `Opened` instead of a port.
    """

    def listenTCP(self, port: int, factory: object, backlog: int, interface: str) -> Opened:  # noqa: N802
        skt = bind(interface or "0.0.0.0", port, backlog, one_family=False)
        return Opened(skt, skt.close)

    def listenUNIX(  # noqa: N802
        self,
        address: str,
        factory: object,
        backlog: int,
        mode: int,
        wantPID: bool,  # noqa: N803
    ) -> Opened:
        path = os.fsdecode(address)
        lock = FilesystemLock(f"{path}.lock") if wantPID else None
        skt = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            if lock is not None and not lock.lock():
                raise locked(path)
            if lock is not None and not lock.clean and _is_socket(path):
                os.remove(path)  # Left by a program that was killed.
            remove_leftover(path)
            skt.bind(path)
            os.chmod(path, mode)
            skt.listen(backlog)
        except OSError as error:
            skt.close()
            if lock is not None and lock.locked:
                lock.unlock()
            raise cannot_listen("UNIX", path, error) from error

        def release() -> None:
            skt.close()
            if _is_socket(path):
                os.remove(path)
            if lock is not None:
                lock.unlock()

        return Opened(skt, release)

    def adoptStreamPort(self, descriptor: int, family: int, factory: object) -> Opened:  # noqa: N802
        # The endpoint closes the descriptor that it has.
        skt = socket.socket(fileno=os.dup(descriptor))
        return Opened(skt, skt.close)


def _is_socket(path: str) -> bool:
    try:
        return stat.S_ISSOCK(os.stat(path).st_mode)
    except OSError:
        return False


OPENER: Final[Any] = _Opener()
"""What `listener_of_string` is given for a reactor by whoever opens sockets for other processes."""


def open_endpoint(description: str, endpoint: IStreamServerEndpoint) -> Opened:
    """Open an endpoint that was made with `OPENER`.

    Raises:
        CannotListen: it could not be had, or is of a kind that has no socket to share.
    """
    results: list[Any] = []
    maybeDeferred(endpoint.listen, Factory()).addBoth(results.append)
    result = results[0] if results else None
    if isinstance(result, Opened):
        result.socket.setblocking(False)
        return result
    if isinstance(result, Failure) and result.check(CannotListen, OSError, OverflowError):
        raise listen_error(description, result)
    raise CannotListen(
        f"cannot share {description} among workers: only tcp:, tcp6:, tls:, unix: and systemd: "
        "endpoints have a socket to share; leave out --workers"
    )


@implementer(IStreamServerEndpoint)
class SocketEndpoint:
    """The endpoint of a listening socket, which is the port's from then on.

    Over TCP as Twisted's `AdoptedStreamServerEndpoint`, whose module brings in what its TLS needs:
    a sixth of the time in which a service starts.
    """

    def __init__(self, reactor: Any, skt: socket.socket) -> None:
        self._reactor = reactor
        self._socket = skt

    def listen(self, factory: IProtocolFactory) -> Deferred[IListeningPort]:
        skt = self._socket
        skt.setblocking(False)
        if skt.family == socket.AF_UNIX:
            unix = InheritedUNIXPort(skt, factory)
            unix.startListening()
            return succeed(unix)
        port = maybeDeferred(self._reactor.adoptStreamPort, skt.fileno(), skt.family, factory)
        # The reactor has a descriptor of its own, or none.
        skt.close()
        return port


def open_port(
    endpoint: IStreamServerEndpoint, factory: IProtocolFactory
) -> Deferred[IListeningPort]:
    """Listen at an endpoint; fails with `CannotListen` where nobody could connect."""

    def try_again(failure: Failure) -> Any:
        error = failure.value
        if (
            isinstance(error, CannotListenError)
            and isinstance(error.socketError, OSError)
            # A UNIX socket's port is its path.
            and isinstance(error.port, bytes | str)
        ):
            path = os.fsdecode(error.port)
            # Twisted keeps the lock of ours where it cannot bind.
            with suppress(OSError):
                if os.readlink(f"{path}.lock") == str(os.getpid()):
                    os.remove(f"{path}.lock")
            if remove_leftover(path):
                return endpoint.listen(factory)
        return failure

    listening: Deferred[IListeningPort] = endpoint.listen(factory)
    return listening.addErrback(try_again).addCallback(_check)


def _check(port: IListeningPort) -> IListeningPort:
    address: Any = port.getHost()
    try:
        if hasattr(address, "host"):
            refuse_group(address.host)
    except OSError as error:
        port.stopListening()
        place = printable_address(address.host, address.port)
        raise cannot_listen("TCP", place, error) from error
    return port


def remove_leftover(path: str) -> bool:
    """Remove the name of a UNIX socket where nobody listens; tell whether it was one."""
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode) or not _refuses(path):
            return False
        os.remove(path)
    except OSError:
        return False
    Logger("uppercase").info(
        "removed the socket {path}, which a program that was killed has left", path=path
    )
    return True


def listen_error(description: str, failure: Failure) -> CannotListen:
    """Say in one sentence why an endpoint could not listen."""
    error = failure.value
    if isinstance(error, CannotListen):
        return error
    if isinstance(error, CannotListenError):
        address = printable_address(error.interface or "0.0.0.0", error.port)
        if isinstance(error.socketError, OSError):
            if not isinstance(error.port, int):
                return cannot_listen("UNIX", os.fsdecode(error.port), error.socketError)
            return cannot_listen("TCP", address, error.socketError)
        if not isinstance(error.port, int):
            return locked(os.fsdecode(error.port))
    if isinstance(error, OverflowError):
        return CannotListen(
            f"cannot listen on {description}: a port is a whole number from 0 to {MAX_PORT}"
        )
    if isinstance(error, OSError) and description.startswith("unix:"):
        # Of the lock, which comes first.
        return cannot_listen("UNIX", description.removeprefix("unix:"), error)
    why = getattr(error, "strerror", None) or error
    return CannotListen(f"cannot listen on {description}: {why}")


def locked(path: str) -> CannotListen:
    """Say that another process has the lock beside a UNIX socket's name, or seems to."""
    return CannotListen(
        f"cannot listen on UNIX {path}: another program does already, as {path}.lock says; stop it "
        "or choose another name, or remove both files if nothing of that number serves"
    )


def _refuses(path: str) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        # One that listens, and is too busy to accept, must not hold us up.
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            return True
        except OSError:
            return False
    return False
