"""Tries a release to the last step before its upload: `make release`.

Builds both files, has twine look at them, installs each on each supported Python (uv brings those),
asks the services, and uninstalls. It must not publish or tag anything.
"""

import subprocess
import sys
import tarfile
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.matrix import PYTHONS
from tests.packaging.installed import check_nothing_is_left, check_services, run

ROOT = Path(__file__).parents[2]
UV = (sys.executable, "-m", "uv", "--quiet")


def check_source(artefact: Path) -> None:
    """Compare a source distribution with what git tracks: neither less nor a build's left-over."""
    tracked = set(run("git", "ls-files", cwd=ROOT).splitlines())
    with tarfile.open(artefact) as archive:
        names = {each.name.partition("/")[2] for each in archive.getmembers() if each.isfile()}
    made = {name for name in names - tracked if name != "PKG-INFO" and ".egg-info/" not in name}
    assert not made, f"{artefact.name} has what git does not track: {sorted(made)}"
    left_out = {name for name in tracked - names if not name.startswith(".")}
    assert not left_out, f"{artefact.name} lacks what git tracks: {sorted(left_out)}"


def try_on(version: str, artefact: Path, work: Path) -> None:
    """Install a file on a Python, ask the services, uninstall."""
    folder = work / f"{version}-{artefact.suffix}"
    subprocess.run([*UV, "venv", "--no-project", "--python", version, folder], check=True)
    run(*UV, "pip", "install", "--python", folder, artefact, cwd=work)
    check_services(folder, work)
    run(*UV, "pip", "uninstall", "--python", folder, "twisted-uppercase", cwd=work)
    check_nothing_is_left(folder)


def main() -> None:
    """Try all; the status is 1 if a Python cannot be had."""
    dist = Path(sys.argv[1]).resolve()
    run(sys.executable, "-m", "build", "--outdir", dist, ROOT, cwd=ROOT)
    artefacts = sorted(dist.iterdir())
    print(run(sys.executable, "-m", "twine", "check", "--strict", *artefacts, cwd=ROOT))
    check_source(next(dist.glob("*.tar.gz")))
    missing = 0
    with TemporaryDirectory() as temporary:
        for version in PYTHONS:
            for artefact in artefacts:
                try:
                    try_on(version, artefact, Path(temporary))
                except subprocess.CalledProcessError:
                    print(f"Python {version}: cannot be had here", flush=True)
                    missing += 1
                    break
                print(f"Python {version}: {artefact.name} serves, and leaves nothing", flush=True)
    sys.exit(bool(missing))


if __name__ == "__main__":
    main()
