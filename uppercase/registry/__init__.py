"""Where transforms come from: one registry with three doors.

1. Drop-ins in `twisted/plugins/`, installed or beside the current directory; the built-ins too.
2. The entry-point group `uppercase.transforms`.
3. References, `module:function`, to code that nothing announces.

    find("caesar:shift=3").transform(b"abc")

A broken plugin is a `Problem` in the listing and never stops the others. The order in which
things are found decides nothing: two plugins of one name are refused. This package must not import
the reactor. Names load on first use.
"""

from typing import TYPE_CHECKING

from uppercase._facade import lazy

if TYPE_CHECKING:
    from uppercase.registry.catalogue import Listing, find, listing, lookup, summaries
    from uppercase.registry.found import Found, Problem

__all__ = ["Found", "Listing", "Problem", "find", "listing", "lookup", "summaries"]

__getattr__ = lazy(__name__, __all__, [".catalogue"])
