"""How a function or a class becomes a plugin: its declaration, its arguments, its adapters.

What an author imports who writes a plugin by hand. Names load on first use.
"""

from typing import TYPE_CHECKING, Any

from uppercase._facade import load

if TYPE_CHECKING:
    from uppercase.plugins.declare import adopt, stream_transform, transform
    from uppercase.plugins.parameters import Parameter

_HOMES: dict[str, str] = {
    "Parameter": "uppercase.plugins.parameters",
    "adopt": "uppercase.plugins.declare",
    "stream_transform": "uppercase.plugins.declare",
    "transform": "uppercase.plugins.declare",
}

__all__ = ["Parameter", "adopt", "stream_transform", "transform"]


def __getattr__(name: str) -> Any:
    """Load a public name from its module."""
    return load(__name__, _HOMES, name)
