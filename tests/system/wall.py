"""A wall clock that a test can set under a server."""

import os
from pathlib import Path

SHIFTED = """
import os, time
real = time.time
def shifted():
    with open(os.environ["CLOCK_SHIFT"]) as file:
        return real() + float(file.read() or 0)
time.time = shifted
"""


class Wall:
    """The wall's clock of a server, which a test can set."""

    def __init__(self, folder: Path) -> None:
        (folder / "sitecustomize.py").write_text(SHIFTED)
        self._file = folder / "shift"
        self._file.write_text("0")
        path = os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH", "")]))
        self.env = {"CLOCK_SHIFT": str(self._file), "PYTHONPATH": f"{path}{os.pathsep}{Path.cwd()}"}

    def set_by(self, seconds: float) -> None:
        """Set it forward, or back."""
        fresh = self._file.with_suffix(".new")
        fresh.write_text(str(seconds))
        fresh.rename(self._file)
