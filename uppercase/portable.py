"""The one switch between what only some systems have and what runs everywhere.

With `UPPERCASE_PORTABLE=1` in the environment TCP and UDP go the ways of systems that have neither
epoll nor recvmmsg: for comparison, and for tests that both ways come to the same.
"""

import os
from typing import Final

PORTABLE: Final = bool(os.environ.get("UPPERCASE_PORTABLE"))
"""Whether nothing is used that only some systems have."""
