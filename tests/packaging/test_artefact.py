"""What people install: the wheel, an editable checkout, and what an uninstallation leaves."""

import sys
import venv
import zipfile
from pathlib import Path

import pytest

from tests.packaging.installed import DROPINS, check_nothing_is_left, check_services, python, run

ROOT = Path(__file__).parents[2]


def pip(folder: Path, *arguments: str | Path) -> None:
    """Let this environment's pip work on another one, which then needs none of its own."""
    interpreter = python(folder)
    command = (sys.executable, "-m", "pip", "--python", interpreter, "--disable-pip-version-check")
    run(*command, *arguments, cwd=folder)


def install(folder: Path, *what: str | Path) -> None:
    """Make a virtual environment with this in it."""
    venv.create(folder)
    pip(folder, "install", "-q", "--no-compile", *what)


def checkout(folder: Path) -> Path:
    """Copy what git tracks, so that no left-over gets in and other tests see nothing change."""
    tracked = run("git", "ls-files", "-z", "-co", "--exclude-standard", cwd=ROOT).split("\0")
    for name in filter(None, tracked):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes((ROOT / name).read_bytes())
    return folder


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source = checkout(tmp_path_factory.mktemp("source"))
    target = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "build", "--wheel", "--outdir", target, source, cwd=target)
    return next(target.glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with nothing but the wheel and what it needs."""
    folder = tmp_path_factory.mktemp("environment")
    install(folder, wheel)
    return folder


def test_the_wheel_holds_the_package_and_the_drop_ins_and_nothing_else(wheel: Path) -> None:
    """An __init__.py under twisted/ would replace Twisted's own and destroy it."""
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {name for name in names if name.startswith("twisted/")} == DROPINS
    assert "uppercase/py.typed" in names
    templates = (ROOT / "uppercase/commands/scaffold").iterdir()
    assert names >= {f"uppercase/commands/scaffold/{template.name}" for template in templates}
    others = {name.split("/")[0] for name in names} - {"twisted", "uppercase"}
    assert [name for name in others if not name.endswith(".dist-info")] == []


def test_both_services_run_from_the_wheel_in_any_directory(installed: Path, tmp_path: Path) -> None:
    check_services(installed, tmp_path)


def test_uninstalling_leaves_twisted_intact(
    wheel: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Every file of Twisted's own record still has its hash, and no drop-in of ours is left."""
    folder = tmp_path_factory.mktemp("environment")
    install(folder, wheel)
    run(folder / "bin" / "twistd", "--help", cwd=folder)
    pip(folder, "uninstall", "-qy", "twisted-uppercase")
    check_nothing_is_left(folder)


def test_an_editable_install_is_found_from_any_directory(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """In pip's default mode; setuptools decides by a heuristic how it does that."""
    folder = tmp_path_factory.mktemp("environment")
    install(folder, "--editable", checkout(tmp_path_factory.mktemp("checkout")))
    shown = run(folder / "bin" / "twistd", "--help", cwd=folder)
    assert "uppercase-tcp" in shown
    assert "uppercase-udp" in shown


def test_listing_commands_imports_nothing_but_the_drop_ins(installed: Path) -> None:
    """With a cold cache, which imports all drop-ins, and with a warm one."""
    for cache in installed.glob("lib/python*/site-packages/twisted/plugins/dropin.cache"):
        cache.unlink()
    program = (
        "import sys; from twisted.scripts.twistd import run; sys.argv[1:] = ['--help']\n"
        "try: run()\n"
        "except SystemExit: pass\n"
        "print([m for m in sys.modules if m.split('.')[0] == 'uppercase' "
        "or m == 'twisted.internet.reactor'])"
    )
    for _ in range(2):
        shown = run(python(installed), "-c", program, cwd=installed)
        assert "uppercase-tcp" in shown
        assert shown.splitlines()[-1] == "[]"
