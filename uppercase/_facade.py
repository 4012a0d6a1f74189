"""Packages that import nothing until one of their public names is used (PEP 562)."""

from collections.abc import Mapping
from importlib import import_module
from typing import Any


def load(package: str, homes: Mapping[str, str], name: str) -> Any:
    """Return a public name of a package; for its module-level `__getattr__`.

    Args:
        package: whose name it is.
        homes: the module of each public name.
        name: what is asked for.

    Raises:
        AttributeError: the package has no such name.
    """
    try:
        home = homes[name]
    except KeyError:
        raise AttributeError(f"module {package!r} has no attribute {name!r}") from None
    return getattr(import_module(home), name)
