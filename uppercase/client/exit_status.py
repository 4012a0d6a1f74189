"""The exit statuses that scripts rely on; finer reasons are for messages and for `--json`."""

from typing import Final

__all__ = ["INTERRUPTED", "NETWORK", "OK", "USAGE"]

OK: Final = 0
"""Everything was answered as expected."""

NETWORK: Final = 1
"""A network outcome: refused, timed out, too many lost; or a wrong reply."""

USAGE: Final = 2
"""A mistake on the command line, or a local error."""

INTERRUPTED: Final = 130
"""Ctrl-C ended it before there was a result: 128 + SIGINT, as shells have it."""
