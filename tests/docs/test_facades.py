"""What the packages offer: every public name is there, and importing the package costs nothing."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import uppercase

LAZY = [
    "uppercase",
    "uppercase.classroom",
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
        assert name in dir(module), "neither help() nor a shell's completion shows it"
    with pytest.raises(AttributeError, match=f"module '{package}' has no attribute 'nonsense'"):
        _ = module.nonsense


def test_a_package_offers_nothing_else_of_its_modules() -> None:
    assert not hasattr(uppercase, "PluginError")


@pytest.mark.parametrize("package", LAZY)
def test_importing_a_package_imports_neither_twisted_nor_the_rest_of_it(package: str) -> None:
    program = f"import sys, {package}; print([m for m in sys.modules if 'twisted' in m])"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"


BY_NAME = ("commands", "taps", "transforms")
"""Rooms of which modules are loaded by their names."""


def test_an_underscore_says_that_only_its_room_uses_a_module() -> None:
    root = Path(uppercase.__file__).parent
    files = {path.relative_to(root.parent): path for path in root.rglob("*.py")}
    modules = {".".join(path.with_suffix("").parts): path.parts[1] for path in files}
    used_outside = set()
    for path, file in files.items():
        for node in ast.walk(ast.parse(file.read_bytes())):
            if isinstance(node, ast.ImportFrom) and node.module:
                names = {node.module, *(f"{node.module}.{each.name}" for each in node.names)}
                used_outside |= {name for name in names if modules.get(name) != path.parts[1]}
    for module, room in modules.items():
        name = module.rpartition(".")[2]
        if module.count(".") < 2 or name == "__init__":
            continue
        if name.startswith("_"):
            assert module not in used_outside
        elif room not in BY_NAME:
            assert module in used_outside
