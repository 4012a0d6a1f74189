"""Packages that import nothing until one of their public names is used (PEP 562)."""

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any


def lazy(package: str, public: Sequence[str], modules: Sequence[str]) -> Callable[[str], Any]:
    """Return a package's `__getattr__`, which loads its public names on first use.

    The first of the modules that has a name is asked, and those before it are imported, so that
    the cheap ones come first.
    """

    def load(name: str) -> Any:
        if name in public:
            for module in modules:
                try:
                    return getattr(import_module(module, package), name)
                except AttributeError:
                    continue
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    return load
