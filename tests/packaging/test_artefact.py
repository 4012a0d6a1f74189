"""What people install: the wheel, an editable checkout, and what an uninstallation leaves."""

import sys
import zipfile
from pathlib import Path

import pytest

from tests.packaging.environments import make_environment, needed
from tests.packaging.installed import DROPINS, check_nothing_is_left, check_services, python, run

ROOT = Path(__file__).parents[2]


_BUILD = """\
import sys
from setuptools import build_meta
_, wheels, edited = sys.argv  # Which these change.
build_meta.build_wheel(wheels)
build_meta.build_editable(edited)
"""
"""What installers have setuptools do, in one process."""


def pip(folder: Path, *arguments: str | Path) -> None:
    """Let an environment's pip work on it."""
    run(python(folder), "-m", "pip", "--disable-pip-version-check", *arguments, cwd=folder)


def checkout(folder: Path) -> Path:
    """Copy what git tracks, so that no left-over gets in and other tests see nothing change."""
    if not (ROOT / ".git").exists():
        pytest.skip("this is no checkout of git's")
    tracked = run("git", "ls-files", "-z", "-co", "--exclude-standard", cwd=ROOT).split("\0")
    for name in filter(None, tracked):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes((ROOT / name).read_bytes())
    return folder


def check_contents(wheel: Path) -> None:
    """An __init__.py under twisted/ would replace Twisted's own and destroy it."""
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {name for name in names if name.startswith("twisted/")} == DROPINS
    assert "uppercase/py.typed" in names
    templates = (ROOT / "uppercase/commands/scaffold").glob("*.in")
    assert names >= {f"uppercase/commands/scaffold/{template.name}" for template in templates}
    others = {name.split("/")[0] for name in names} - {"twisted", "uppercase"}
    assert [name for name in others if not name.endswith(".dist-info")] == []


def check_listing(folder: Path) -> None:
    """Listing commands imports nothing but the drop-ins, with a cold cache and with a warm one."""
    (plugins,) = folder.glob("lib/python*/site-packages/twisted/plugins")
    cache = plugins / "dropin.cache"
    cache.unlink(missing_ok=True)
    program = (
        "import sys; from twisted.scripts.twistd import run; sys.argv[1:] = ['--help']\n"
        "try: run()\n"
        "except SystemExit: pass\n"
        "print([m for m in sys.modules if m.split('.')[0] == 'uppercase' "
        "or m == 'twisted.internet.reactor'])"
    )
    for warm in (False, True):
        assert cache.exists() is warm
        shown = run(python(folder), "-c", program, cwd=folder)
        assert "uppercase-tcp" in shown
        assert shown.splitlines()[-1] == "[]"


@pytest.mark.long
def test_a_wheel_and_a_checkout_serve_from_any_directory_and_leave_twisted_intact(
    tmp_path: Path,
) -> None:
    """The wheel holds the package and the drop-ins and nothing else, and no more is left of it.

    Of the checkout, setuptools decides by a heuristic how it is installed.
    """
    source, wheels, edited, folder, work = (
        tmp_path / name for name in ("source", "wheels", "edited", "environment", "work")
    )
    for each in wheels, edited, work:
        each.mkdir()
    run(sys.executable, "-c", _BUILD, wheels, edited, cwd=checkout(source))
    (wheel,) = wheels.iterdir()
    check_contents(wheel)
    site = make_environment(folder, needed("twisted-uppercase", "pip") - {"twisted-uppercase"})
    pip(folder, "install", "-q", "--no-index", "--no-compile", wheel)
    check_services(folder, work)
    check_listing(folder)
    pip(folder, "uninstall", "-qy", "twisted-uppercase")
    check_nothing_is_left(folder)
    (wheel,) = edited.iterdir()
    zipfile.ZipFile(wheel).extractall(site)
    shown = run(folder / "bin" / "twistd", "--help", cwd=folder)
    assert "uppercase-tcp" in shown
    assert "uppercase-udp" in shown
