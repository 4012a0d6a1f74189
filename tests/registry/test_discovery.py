"""Looking for plugins costs little, disturbs nobody and prints nothing.

Each test runs a process of its own, with private `twisted/plugins` folders and hence caches.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest

import uppercase

PACKAGE = Path(uppercase.__file__).parent


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """Return a folder in which the package and its drop-ins are as if installed."""
    folder = tmp_path / "installed"
    shutil.copytree(
        PACKAGE.parent / "twisted" / "plugins",
        folder / "twisted" / "plugins",
        ignore=shutil.ignore_patterns("dropin.cache", "__pycache__"),
    )
    (folder / "uppercase").symlink_to(PACKAGE)
    return folder


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """Return an author's folder, which is the current directory of what `run` runs."""
    folder = tmp_path / "here"
    (folder / "twisted" / "plugins").mkdir(parents=True)
    return folder


def run(
    code: str, installed: Path, here: Path, *options: str
) -> "subprocess.CompletedProcess[str]":
    """Run code as a console script runs it: the current directory is not on `sys.path`."""
    script = here.parent / "script" / "run.py"
    script.parent.mkdir(exist_ok=True)
    script.write_text(dedent(code))
    return subprocess.run(
        [sys.executable, *options, str(script)],
        cwd=here,
        env={**os.environ, "PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )


def test_the_registry_leaves_the_choice_of_the_reactor_alone(installed: Path, here: Path) -> None:
    (here / "mine.py").write_text("def f(text: str) -> str: return text")
    ran = run(
        """
        import sys
        from uppercase import registry, stream_transform, transform

        @transform
        async def later(text: str) -> str:
            return text

        registry.listing()
        assert registry.listing().find("mine:f").transform(b"abc") == b"abc"
        print([name for name in sys.modules if name == "twisted.internet.reactor"])
        """,
        installed,
        here,
    )
    assert ran.stdout == "[]\n"


def test_a_broken_drop_in_prints_no_traceback(installed: Path, here: Path) -> None:
    (here / "twisted" / "plugins" / "acme_bad.py").write_text("import no_such_module_xyz")
    ran = run(
        """
        from uppercase import registry
        for thorough in (False, True):
            print([p.message for p in registry.listing(thorough=thorough).problems
                   if "acme_bad" in p.file])
        """,
        installed,
        here,
    )
    assert (
        ran.stdout
        == "[\"No module named 'no_such_module_xyz'; install it or correct the import\"]\n" * 2
    )
    assert ran.stderr == ""


def test_the_import_path_is_as_before_after_a_search(installed: Path, here: Path) -> None:
    (here / "twisted" / "plugins" / "acme.py").write_text("")
    ran = run(
        """
        import sys
        import twisted.plugins
        from uppercase import registry
        before = [*sys.path], [*twisted.plugins.__path__]
        found = registry.listing()
        assert ([*sys.path], [*twisted.plugins.__path__]) == before
        print(found.folders[-1])
        """,
        installed,
        here,
    )
    assert ran.stdout == f"{here / 'twisted' / 'plugins'}\n"


def test_a_module_of_the_current_folder_is_nobody_else_s(installed: Path, tmp_path: Path) -> None:
    """A student's `queue.py` is neither Python's nor does it run with a teacher's rights."""
    for name in (*sys.stdlib_module_names, "attr", "stringzilla"):
        (tmp_path / f"{name}.py").write_text(f"raise SystemExit('took {name}')")
    (installed / "twisted" / "plugins" / "acme.py").write_text("import sched")
    code = """
        from uppercase import registry
        found = registry.listing()
        print(found.find("uppercase").transform(b"abc"), *found.problems)
        """
    assert run(code, installed, tmp_path).stdout == "b'ABC'\n"


def test_safe_path_leaves_the_current_directory_out(installed: Path, here: Path) -> None:
    (here / "twisted" / "plugins" / "acme.py").write_text("raise SystemExit")
    (here / "mine.py").write_text("def f(text: str) -> str: return text")
    code = """
        from uppercase import errors, registry
        for wanted in ("mine:f", "mine"):
            try:
                registry.listing().find(wanted)
            except errors.UnknownName as error:
                print(error)
        """
    safe = run(code, installed, here, "-P").stdout
    why = "; PYTHONSAFEPATH or python -P excludes the current folder"
    assert safe == (
        f"no transform and no module named 'mine'{why}\nno transform named 'mine'{why}\n"
    )
    assert run(code, installed, here).stdout.startswith("no transform named 'mine'; a function of")


def test_a_package_of_the_current_directory_is_not_taken_for_a_folder_of_drop_ins(
    installed: Path, here: Path
) -> None:
    (here / "twisted" / "plugins" / "__init__.py").write_text("")
    (here / "twisted" / "plugins" / "acme.py").write_text("raise SystemExit")
    code = "from uppercase import registry; print(registry.listing().problems)"
    assert run(code, installed, here).stdout == "[]\n"


def test_built_ins_that_an_installation_hides_are_a_problem(installed: Path, here: Path) -> None:
    (installed / "twisted" / "plugins" / "uppercase_transforms.py").unlink()
    code = """
        import sys
        sys.modules["twisted.plugins.uppercase_transforms"] = None
        from uppercase import registry
        print(registry.listing().describe())
        """
    said = run(code, installed, here).stdout
    assert said.startswith("Transforms:\n\nCannot be used:\n")
    assert "the drop-in of the built-in transforms is in no twisted/plugins folder" in said


def test_the_same_names_are_found_with_a_cold_and_a_warm_cache(installed: Path, here: Path) -> None:
    code = "from uppercase import registry; print(*registry.listing().transforms)"
    cold = run(code, installed, here).stdout
    assert "uppercase" in cold.split()
    assert (installed / "twisted" / "plugins" / "dropin.cache").exists()
    assert run(code, installed, here).stdout == cold


def test_an_upgrade_shows_all_built_ins_though_the_cache_is_out_of_date(
    installed: Path, here: Path
) -> None:
    """Some installers give files an old time, and Twisted then believes its cache."""
    code = "from uppercase import registry; print(*registry.listing().transforms)"
    run(code, installed, here)
    file = installed / "twisted" / "plugins" / "uppercase_transforms.py"
    file.write_text(file.read_text() + "new = TransformByName('brand-new', 'm:f', 'New')\n")
    os.utime(file, (0, 0))
    assert "brand-new" in run(code, installed, here).stdout.split()


def test_twisteds_own_drop_ins_are_not_examined(installed: Path, here: Path) -> None:
    """They are in order, and what they import costs a second."""
    code = """
        import sys
        from uppercase import registry
        registry.listing(thorough=True)
        print([name for name in sys.modules if name.startswith("twisted.plugins.twisted_")])
        """
    run(code, installed, here)  # Where there was no cache yet, Twisted itself has imported them.
    assert run(code, installed, here).stdout == "[]\n"
