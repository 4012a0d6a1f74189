"""The program of a worker: `python -m uppercase.taps._worker SERVICE OPTION...`.

Only a supervisor starts it; see `uppercase.services._worker`.
"""

import sys
from collections.abc import Sequence
from typing import Any

from twisted.application.service import MultiService
from twisted.python import usage
from twisted.python.reflect import namedModule

from uppercase.errors import UserError
from uppercase.services._base import TransformService
from uppercase.services._worker import begin, run


def make_services(tap: str, words: Sequence[str]) -> Sequence[TransformService]:
    """Make the services that a command line describes."""
    options: Any = namedModule(tap).Options()
    options.is_part = options.inherits = True
    try:
        options.parseOptions(list(words))
    except usage.UsageError as error:
        raise UserError(str(error)) from error
    service = options.service
    return list(service) if isinstance(service, MultiService) else [service]


if __name__ == "__main__":
    assignment = begin()
    sys.exit(run(assignment, lambda: make_services(sys.argv[1], sys.argv[2:])))
