"""What people install: the wheel, an editable checkout, and what an uninstallation leaves."""

import sys
import zipfile
from pathlib import Path

import pytest

from tests.packaging.environments import make_environment, needed
from tests.packaging.installed import DROPINS, check_nothing_is_left, check_services, python, run

ROOT = Path(__file__).parents[2]


def pip(folder: Path, *arguments: str | Path) -> None:
    """Let this environment's pip work on another one, which then needs none of its own."""
    interpreter = python(folder)
    command = (sys.executable, "-m", "pip", "--python", interpreter, "--disable-pip-version-check")
    run(*command, *arguments, cwd=folder)


def install(folder: Path, *what: str | Path) -> None:
    """Install this as people do; all that it needs is there."""
    offline = ("--no-index", "--no-build-isolation")
    pip(folder, "install", "-q", *offline, "--no-compile", "--no-warn-conflicts", *what)


def checkout(folder: Path) -> Path:
    """Copy what git tracks, so that no left-over gets in and other tests see nothing change."""
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
    for cache in folder.glob("lib/python*/site-packages/twisted/plugins/dropin.cache"):
        cache.unlink()
    program = (
        "import sys; from twisted.scripts.twistd import run; sys.argv[1:] = ['--help']\n"
        "try: run()\n"
        "except SystemExit: pass\n"
        "print([m for m in sys.modules if m.split('.')[0] == 'uppercase' "
        "or m == 'twisted.internet.reactor'])"
    )
    for _ in range(2):
        shown = run(python(folder), "-c", program, cwd=folder)
        assert "uppercase-tcp" in shown
        assert shown.splitlines()[-1] == "[]"


@pytest.mark.long
def test_a_wheel_and_a_checkout_serve_from_any_directory_and_leave_twisted_intact(
    tmp_path: Path,
) -> None:
    """The wheel holds the package and the drop-ins and nothing else, and no more is left of it.

    The checkout is installed in pip's default mode; setuptools decides by a heuristic how.
    """
    source, target, folder, work = (
        tmp_path / name for name in ("source", "wheel", "environment", "work")
    )
    build = (sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", target)
    run(*build, checkout(source), cwd=ROOT)
    (wheel,) = target.iterdir()
    check_contents(wheel)
    make_environment(folder, needed("twisted-uppercase", "setuptools") - {"twisted-uppercase"})
    install(folder, wheel)
    work.mkdir()
    check_services(folder, work)
    check_listing(folder)
    pip(folder, "uninstall", "-qy", "twisted-uppercase")
    check_nothing_is_left(folder)
    install(folder, "--editable", source)
    shown = run(folder / "bin" / "twistd", "--help", cwd=folder)
    assert "uppercase-tcp" in shown
    assert "uppercase-udp" in shown
