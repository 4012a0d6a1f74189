"""Types what README, tutorial and guides print, as who has just cloned the repository.

`make newcomer` runs it. The clone has an environment of its own, made by `make serve`'s own rule.
The pages use port 12000 and leave it for a minute in a state in which it cannot be had again, so
each page has a network of its own where the system lets us make one (a user's namespace), and
elsewhere waits for its end.
"""

import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from errno import EADDRINUSE
from pathlib import Path

from tests.docs.follow import Reader
from tests.system.processes import ROOT
from uppercase.limits import DEFAULT_PORT

PAGES = [
    Path("README.md"),
    *sorted(path.relative_to(ROOT) for path in ROOT.glob("docs/tutorial/*.md")),
    Path("docs/howto/write-a-transform.md"),
    Path("docs/howto/embed-a-server.md"),
    Path("docs/howto/embed-the-client.md"),
    Path("docs/howto/use-asyncio.md"),
    Path("docs/howto/run-a-class.md"),
]
INSTALLS = re.compile(
    r"^<!-- installs -->\n```console\n\$ pip install '?([^'\n]+)'?$", re.MULTILINE
)
_NAMESPACE = (
    "unshare",
    "--map-root-user",
    "--net",
    "sh",
    "-c",
    'ip link set lo up && exec "$@"',
    "sh",
)


def own_network() -> tuple[str, ...]:
    """Return what starts a command in a network of its own, or nothing where there is no such."""
    if shutil.which("unshare") is None:
        return ()
    tried = subprocess.run([*_NAMESPACE, "true"], capture_output=True, check=False)
    return _NAMESPACE if tried.returncode == 0 else ()


def wait_for_port() -> None:
    """Return once the lecture's servers can have their port."""
    deadline = time.monotonic() + 90
    while True:
        try:
            with socket.socket() as tried:
                tried.bind(("", DEFAULT_PORT))
        except OSError as error:
            if error.errno != EADDRINUSE or time.monotonic() > deadline:
                raise
            time.sleep(1)
        else:
            return


def without_ours() -> dict[str, str]:
    """Return the environment of who has no environment of Python's yet."""
    ours = str(Path(sys.executable).parent)
    path = os.pathsep.join(part for part in os.environ["PATH"].split(os.pathsep) if part != ours)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    return {**kept, "PATH": path, "VIRTUAL_ENV": ""}


def follow(page: Path, clone: Path, folder: Path) -> None:
    """Follow one page; README's in the clone, the tutorial's in a folder of the reader's."""
    root = page.name == "README.md"
    reader = Reader(clone if root else folder, clone / ".venv" / "bin", known=not root)
    try:
        print(f"{page}: {reader.follow(clone / page)} commands")
    finally:
        reader.end()


def main() -> None:
    """Clone what is committed, install it, and follow each page."""
    if sys.argv[1:]:
        page, clone, folder = map(Path, sys.argv[1:])
        follow(page, clone, folder)
        return
    network = own_network()
    with tempfile.TemporaryDirectory() as temporary:
        clone, folder = Path(temporary, "uppercase"), Path(temporary, "lesson")
        folder.mkdir()
        subprocess.run(["git", "clone", "-q", str(ROOT), str(clone)], check=True)
        subprocess.run(["make", "-s", ".venv/serving"], cwd=clone, env=without_ours(), check=True)
        text = "".join((ROOT / page).read_text() for page in PAGES)
        wanted = (
            one.replace("twisted-uppercase", str(clone)) for one in set(INSTALLS.findall(text))
        )
        pip = clone / ".venv" / "bin" / "pip"
        subprocess.run([pip, "install", "-q", "--no-compile", *wanted], check=True)
        for page in PAGES:
            if not network:
                wait_for_port()
            follower = [sys.executable, "-m", "tests.docs.newcomer", page, clone, folder]
            subprocess.run([*network, *map(str, follower)], cwd=ROOT, check=True)


if __name__ == "__main__":
    main()
