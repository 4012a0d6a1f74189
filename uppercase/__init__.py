"""Turn a function into a TCP and UDP service.

What authors of transforms and embedders of the services import. Names load on first use (PEP 562),
so that importing the package costs next to nothing; `lazy` does the same for the packages in it.
"""

import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from typing import TYPE_CHECKING, Any

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


def lazy(package: str, public: Sequence[str], modules: Sequence[str]) -> None:
    """Have a package load its public names on first use, and `dir` and `help` know of them.

    The first of the modules that has a name is asked, and those before it are imported, so that
    the cheap ones come first. The package does not define `__getattr__` itself: of one that does,
    type checkers take any name for one that it has.
    """

    def load(name: str) -> Any:
        if name in public:
            for module in modules:
                with suppress(AttributeError):
                    return getattr(import_module(module, package), name)
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    module = vars(sys.modules[package])
    module |= {"__getattr__": load, "__dir__": lambda: sorted({*module, *public})}


lazy(__name__, __all__, [".interfaces", ".errors", ".plugins"])
