"""What the packages offer: every public name is there, and importing the package costs nothing."""

import importlib
import subprocess
import sys

import pytest

LAZY = [
    "uppercase",
    "uppercase.client",
    "uppercase.lab",
    "uppercase.services",
    "uppercase.testing",
]
FACADES = [
    *LAZY,
    "uppercase.limits",
    "uppercase.plugins",
    "uppercase.registry",
]


@pytest.mark.parametrize("package", FACADES)
def test_every_public_name_is_there(package: str) -> None:
    module = importlib.import_module(package)
    for name in getattr(module, "__all__", []):
        assert getattr(module, name) is not None
    with pytest.raises(AttributeError, match=f"module '{package}' has no attribute 'nonsense'"):
        _ = module.nonsense


@pytest.mark.parametrize("package", LAZY)
def test_importing_a_package_imports_neither_twisted_nor_the_rest_of_it(package: str) -> None:
    program = f"import sys, {package}; print([m for m in sys.modules if 'twisted' in m])"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"
