"""Opens ports: what should have hindered one is refused, what need not hinder it is removed.

The kernel lets one listen at addresses that nobody can connect to. And it refuses the name of a
UNIX socket that is there already, whether somebody listens or not: a program that was killed leaves
one behind. Such a name is only removed where it is a socket, and a connection to it is refused.
"""

import os
import socket
import stat
from contextlib import suppress
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort, IProtocolFactory, IStreamServerEndpoint
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from uppercase.core.values import cannot_listen, printable_address
from uppercase.errors import CannotListen
from uppercase.tcp.kernel import refuse_group


@implementer(IStreamServerEndpoint)
class SocketEndpoint:
    """The endpoint of a listening socket, which is the reactor's from then on.

    As Twisted's `AdoptedStreamServerEndpoint`, whose module brings in all of TLS: a quarter of the
    time in which a service starts.

    Args:
        reactor: adopts the socket.
        skt: the socket.
    """

    def __init__(self, reactor: Any, skt: socket.socket) -> None:
        self._reactor = reactor
        self._socket = skt

    def listen(self, factory: IProtocolFactory) -> Deferred[IListeningPort]:
        """Serve the socket."""
        skt = self._socket
        skt.setblocking(False)
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
            and remove_leftover(os.fsdecode(error.port))
        ):
            _unlock(os.fsdecode(error.port))
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


def _unlock(path: str) -> None:
    """Give up the lock of ours that Twisted keeps where it cannot bind."""
    with suppress(OSError):
        if os.readlink(f"{path}.lock") == str(os.getpid()):
            os.remove(f"{path}.lock")


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
