"""What the contract kit tries, and how hard."""

from typing import Final

from uppercase.limits.shared import SLOW_CALL
from uppercase.limits.tcp import MAX_LENGTH

__all__ = [
    "KIT_CALL_TIME",
    "KIT_EXAMPLES",
    "KIT_LARGE",
]

KIT_EXAMPLES: Final = 60
"""Messages that the contract kit tries for each law beside those that it always tries: the nine
laws take well under 5 seconds, and a law that is broken at all is rarely kept by so many."""

KIT_LARGE: Final = MAX_LENGTH
"""The largest message that the contract kit tries: the largest that a framed conversation has."""

KIT_CALL_TIME: Final = 10 * SLOW_CALL
"""What one call may take in the contract kit: ten times what a server reports as slow, so that a
busy machine breaks no law. A function that is quadratic in its message takes longer."""
