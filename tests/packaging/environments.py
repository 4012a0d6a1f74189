"""Virtual environments with packages as they are here: nothing is downloaded, built or compiled."""

import re
import shutil
import sys
import sysconfig
import venv
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement


def installed(name: str) -> metadata.Distribution:
    """Return what is installed, and not what a build has left in the checkout."""
    (found,) = metadata.distributions(name=name, path=[sysconfig.get_path("purelib")])
    return found


def needed(*requirements: str) -> set[str]:
    """Return the names of packages and of all that they need, as they say themselves."""
    left = [Requirement(each) for each in requirements]
    seen: set[tuple[str, str]] = set()
    while left:
        wanted = left.pop()
        for extra in {"", *wanted.extras} - {extra for name, extra in seen if name == wanted.name}:
            seen.add((wanted.name, extra))
            found = map(Requirement, installed(wanted.name).requires or ())
            left += [
                each for each in found if not each.marker or each.marker.evaluate({"extra": extra})
            ]
    return {name for name, _ in seen}


def make_environment(folder: Path, packages: set[str], *, linked: bool = False) -> Path:
    """Make a virtual environment without pip; return its folder of packages.

    Packages that are copied, and not linked, may be changed there.
    """
    venv.create(folder)
    (site,) = folder.glob("lib/python*/site-packages")
    for name in packages:
        found = installed(name)
        for part in {file.parts[0] for file in found.files or ()} - {"..", "__pycache__"}:
            source, target = Path(str(found.locate_file(part))), site / part
            if target.exists():
                continue
            if linked:
                target.symlink_to(source)
            elif source.is_dir():
                # Other tests may import from there, which writes files under names for a moment.
                shutil.copytree(source, target, ignore=shutil.ignore_patterns("*.pyc.*"))
            else:
                shutil.copy2(source, target)
        if not linked:
            _copy_scripts(found, folder, site)
    return site


def _copy_scripts(found: metadata.Distribution, folder: Path, site: Path) -> None:
    """Copy a package's commands, which begin with the path of their interpreter."""
    for file in found.files or ():
        if file.parts[0] == ".." and file.parent.name == "bin":
            ours = Path(str(file.locate()))
            script = folder / "bin" / file.name
            script.write_text(ours.read_text().replace(sys.prefix, str(folder)))
            shutil.copymode(ours, script)
        elif file.name == "RECORD":
            # Which they are no longer as in.
            record = site / file
            record.write_text(re.sub(r"(?m)^(\.\./.*),sha256=.*$", r"\1,,", record.read_text()))
