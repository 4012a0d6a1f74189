"""Turn a function into a TCP and UDP service.

What authors of transforms and embedders of the services import. Names load on first use, so that
importing the package costs next to nothing.
"""

from typing import TYPE_CHECKING

from uppercase._facade import lazy

if TYPE_CHECKING:
    from uppercase.errors import Rejected
    from uppercase.interfaces import (
        IStreamTransform,
        ITransform,
        ITransformPlugin,
        ITransformStream,
    )
    from uppercase.plugins import stream_transform, transform

__version__ = "0.1.0"

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

__getattr__ = lazy(__name__, __all__, [".interfaces", ".errors", ".plugins"])
