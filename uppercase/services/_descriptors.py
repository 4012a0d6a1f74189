"""How many file descriptors the process may have, and how many of them connections."""

import sys

from uppercase.limits import LEAST_SHARE_OF_DESCRIPTORS, SPARE_DESCRIPTORS

if sys.platform != "win32":
    import resource

__all__ = ["connections_possible"]


def connections_possible(wanted: int) -> int:
    """Return how many of the wanted connections the process can have.

    The soft limit of descriptors is raised to the hard one if it does not suffice.
    """
    if sys.platform == "win32":
        return wanted
    needed = wanted + SPARE_DESCRIPTORS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # macOS says that there is no hard limit, but does not take that for an answer.
    for more in (hard, needed):
        if soft == resource.RLIM_INFINITY or soft >= needed:
            return wanted
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (more, hard))
        except (OSError, ValueError):
            continue
        soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if soft == resource.RLIM_INFINITY:
        return wanted
    return min(wanted, max(soft - SPARE_DESCRIPTORS, int(soft * LEAST_SHARE_OF_DESCRIPTORS)))
