"""Turn a function into a TCP and UDP service.

What authors of transforms and embedders of the services import. Names load on first use, so that
importing the package costs next to nothing.
"""

from typing import TYPE_CHECKING, Any

from uppercase._facade import load

if TYPE_CHECKING:
    from uppercase.errors import Rejected
    from uppercase.interfaces import (
        IStreamTransform,
        ITransform,
        ITransformPlugin,
        ITransformStream,
    )
    from uppercase.plugins.declare import stream_transform, transform

__version__ = "0.1.0"

_HOMES: dict[str, str] = {
    "IStreamTransform": "uppercase.interfaces",
    "ITransform": "uppercase.interfaces",
    "ITransformPlugin": "uppercase.interfaces",
    "ITransformStream": "uppercase.interfaces",
    "Rejected": "uppercase.errors",
    "stream_transform": "uppercase.plugins.declare",
    "transform": "uppercase.plugins.declare",
}

__all__ = [
    "IStreamTransform",
    "ITransform",
    "ITransformPlugin",
    "ITransformStream",
    "Rejected",
    "__version__",
    "stream_transform",
    "transform",
]


def __getattr__(name: str) -> Any:
    """Load a public name from its module."""
    return load(__name__, _HOMES, name)
