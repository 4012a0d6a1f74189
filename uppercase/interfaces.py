"""The contracts between the framework and the code that plugs into it.

This module declares; it must not implement, and it imports neither Twisted nor anything of ours.
"""

from collections.abc import Awaitable, Iterable
from typing import Any

from zope.interface import Attribute, Interface


class ITransform(Interface):
    """One message in, its reply out."""

    def transform(message: bytes) -> bytes | Awaitable[bytes]:
        """Return the reply to one message.

        No state may be kept between calls: calls for different messages may overlap.

        Args:
            message: a whole message, 0 bytes or more, without its framing.

        Returns:
            The reply, without framing, or an awaitable of it.

        Raises:
            Exception: whatever is raised costs this message, over TCP its connection, and no more.
        """


class ITransformStream(Interface):
    """The state of one direction of one connection, fed with whatever chunks arrive."""

    def feed(data: bytes) -> bytes:
        """Take the next bytes and give all of the output that they settle.

        The chunking law: the concatenated outputs do not depend on where the input was cut.
        """

    def finish() -> bytes:
        """End the input; return the rest of the output. Called at most once."""


class IStreamTransform(ITransform):
    """A transform that also works on an endless stream, cut anywhere."""

    def open_stream() -> ITransformStream:
        """Start one stream; streams share no state."""


class IPiecewiseTransform(IStreamTransform):
    """A transform without state: its replies to a message's pieces, joined, are its reply to it.

    This holds wherever the message is cut between two characters.
    """


class ITransformPlugin(Interface):
    """What discovery finds: a transform's name and how to build it.

    A plugin is cheap: the transform's code need not be imported before `build` or `parameters`
    asks for it. An object in a `twisted/plugins` drop-in provides `twisted.plugin.IPlugin` too.
    """

    name: str = Attribute("What users type: lower-case letters, digits and hyphens.")
    summary: str = Attribute("One line for a listing.")
    parameters: Any = Attribute(
        "A sequence of `uppercase.plugins.Parameter`: what `build` accepts, in order."
    )

    def build(**arguments: Any) -> ITransform:
        """Make the transform.

        Args:
            **arguments: values by parameter name, already converted to the parameter's type.

        Raises:
            uppercase.errors.PluginError: the transform's code cannot be loaded.
            uppercase.errors.BadArgument: an argument is missing, unknown or not acceptable.
        """


class IFramer(Interface):
    """One connection's framing: splits its bytes into messages and wraps the replies."""

    one_message: bool = Attribute("Whether the conversation is over after one message's reply.")
    held: int = Attribute("Bytes of a message whose end has not come.")

    def feed(data: bytes) -> Iterable[tuple[bytes, bytes]]:
        """Take the next bytes; return each message that they complete, with its trailer.

        The result is lazy and must be used up before the next call: a caller that wants no more
        messages for now keeps it and goes on later.

        Returns:
            Pairs (message, trailer). The trailer belongs to the framing of this one message, such
            as the line ending that came with it, and goes back to `wrap` with the reply.

        Raises:
            uppercase.errors.FramingError: while iterating, after the messages before the fault.
        """

    def finish() -> Iterable[tuple[bytes, bytes]]:
        """End the input; return what is left, as `feed` does."""

    def wrap(reply: bytes, trailer: bytes) -> bytes:
        """Return the bytes that carry one reply.

        Raises:
            uppercase.errors.FramingError: the reply cannot be expressed in this framing.
        """
