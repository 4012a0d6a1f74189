"""What a server is expected to answer: the transforms that `--expect` names, applied here.

The reply to each message is worked out before it is sent, so that checking one is a comparison.
"""

from collections.abc import Callable, Sequence
from typing import Any

from uppercase.errors import UserError

Expect = Callable[[bytes], bytes]
"""Gives the reply that a message must have."""


def expectation(specs: Sequence[str], find: Callable[[str], Any] | None = None) -> Expect:
    """Return the function that says what a server with these transforms answers.

    Args:
        specs: transforms as on a command line, applied in this order.
        find: gives the transform of one spec; without it, the registry does.

    Raises:
        UserError: there is no such transform, or (on the first message) it answers asynchronously.
    """
    if find is None:
        from uppercase import registry

        find = registry.find
    chain = [(spec, find(spec)) for spec in specs]

    def expect(message: bytes) -> bytes:
        for spec, transform in chain:
            reply = transform.transform(message)
            if not isinstance(reply, bytes):
                raise UserError(
                    f"got --expect={spec}, which answers asynchronously; "
                    "one that answers at once is accepted"
                )
            message = reply
        return message

    return expect
