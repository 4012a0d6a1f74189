"""Turn a function into a TCP and UDP service.

What authors of transforms and embedders of the services import. Names load on first use, so that
importing the package costs next to nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from uppercase.declare import stream_transform, transform
    from uppercase.errors import Rejected
    from uppercase.interfaces import (
        IStreamTransform,
        ITransform,
        ITransformPlugin,
        ITransformStream,
    )

__version__ = "0.1.0"

_HOMES: dict[str, str] = {
    "IStreamTransform": "interfaces",
    "ITransform": "interfaces",
    "ITransformPlugin": "interfaces",
    "ITransformStream": "interfaces",
    "Rejected": "errors",
    "stream_transform": "declare",
    "transform": "declare",
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
    """Load a public name from its module (PEP 562)."""
    try:
        home = _HOMES[name]
    except KeyError:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None
    return getattr(import_module(f"{__name__}.{home}"), name)
