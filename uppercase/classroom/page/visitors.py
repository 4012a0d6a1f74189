"""Which requests are from the page itself: a browser also asks what foreign pages tell it to.

A foreign page can make a visitor's browser send a form to an address of this machine (CSRF), and
with a name of its own that suddenly stands for this machine (DNS rebinding) it could even read what
comes back. Against the first, whatever names an `Origin` must name the very `Host` that it asks,
and what changes something must name one. Against the second, a host is accepted as a number, which
no rebinding can be: one of loopback's, or the one at which this connection arrived. Names are
accepted if the operator gave them, besides `localhost`, which browsers do not look up.
"""

import re
from collections.abc import Collection
from typing import Final

from uppercase.core.values import host_address

_HOST: Final = re.compile(r"(?:\[([0-9a-f:.]+)\]|([a-z0-9.-]+))(?::[0-9]{1,5})?", re.ASCII)


def why_foreign(
    host: str | None,
    origin: str | None,
    *,
    arrived_at: str,
    given: Collection[str],
    changes: bool,
) -> str:
    """Return why a request is not the page's own, as a sentence; "" if it is.

    Args:
        host: its `Host`.
        origin: its `Origin`.
        arrived_at: the address of this machine that it came to; "" for a UNIX socket.
        given: names and addresses that the operator gave.
        changes: whether it does more than read.
    """
    match = _HOST.fullmatch((host or "").lower())
    name = (match[1] or match[2]).rstrip(".") if match else ""
    known = name == "localhost" or name in given or _is_ours(name, arrived_at)
    if not known:
        return (
            f"this page is not at {name[:80] or 'a host without a name'}; open it by its number, "
            "or have it started with --page-host=NAME"
        )
    if origin is None:
        return "only the page itself may do this" if changes else ""
    scheme, _, authority = origin.lower().partition("://")
    if scheme not in ("http", "https") or authority != (host or "").lower():
        return "only the page itself may ask this, and another one did"
    return ""


def is_loopback(host: str) -> bool:
    """Whether an address, or the lack of one, means this very machine."""
    number = host_address(host)
    return number is None or number.is_loopback


def _is_ours(name: str, arrived_at: str) -> bool:
    number = host_address(name)
    return number is not None and (number.is_loopback or number == host_address(arrived_at))
