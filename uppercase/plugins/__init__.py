"""How a function or a class becomes a plugin: its declaration, its arguments, its adapters.

What an author imports who writes a plugin by hand. Names load on first use.
"""

from typing import TYPE_CHECKING

from uppercase._facade import lazy

if TYPE_CHECKING:
    from uppercase.plugins.declare import adopt, stream_transform, transform
    from uppercase.plugins.parameters import Parameter

__all__ = ["Parameter", "adopt", "stream_transform", "transform"]

__getattr__ = lazy(__name__, __all__, [".declare"])
