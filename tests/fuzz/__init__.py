"""Laws that a fuzzer tries to break, on the command line and in small among the tests."""

import sys
from collections.abc import Callable


def run_atheris(check: Callable[[bytes], None]) -> None:
    """Fuzz with atheris, an extra of its own, with its own options."""
    import atheris

    atheris.instrument_all()
    atheris.Setup(sys.argv, check)
    atheris.Fuzz()
