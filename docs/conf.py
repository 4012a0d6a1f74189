"""How Sphinx makes a site of these pages: `make docs`.

The pages are plain Markdown that reads well without Sphinx; which of them belongs where is in
`_toc.yml`. One page is made here: what each command says under `--help`.
"""

import os
import subprocess
import sys
from pathlib import Path

from sphinx.application import Sphinx

import uppercase

DOCS = Path(__file__).parent
ROOT = DOCS.parent
COMMANDS = (
    "twistd uppercase-tcp",
    "twistd uppercase-udp",
    "twistd uppercase",
    "uppercase",
    "uppercase send",
    "uppercase ping",
    "uppercase bench",
    "uppercase fates",
    "uppercase transforms",
)

project = "uppercase"
author = "The uppercase contributors"
version = release = uppercase.__version__
extensions = ["myst_parser", "sphinx_external_toc"]
external_toc_path = "_toc.yml"
exclude_patterns = ["_build"]
myst_heading_anchors = 4
html_theme = "furo"
html_title = f"uppercase {release}"
html_copy_source = False
html_show_copyright = False
# No font, script or picture comes from elsewhere, so the pages work without a network.
html_theme_options = {"top_of_page_buttons": []}


def help_of(command: str) -> str:
    """Return what a command says of itself on 100 columns."""
    program, *arguments = command.split()
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    return subprocess.run(
        [str(Path(sys.executable).parent / program), *arguments, "--help"],
        env={**os.environ, "COLUMNS": "100", "NO_COLOR": "1", "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=True,
    ).stdout


def write_options(app: Sphinx) -> None:
    """Write the page of options from the programs themselves."""
    page = ["# Options", "What each command says under `--help`."]
    page += [f"## `{command}`\n\n```text\n{help_of(command)}```" for command in COMMANDS]
    (DOCS / "options.md").write_text("\n\n".join(page) + "\n")


def setup(app: Sphinx) -> None:
    """Have the page made before the others are read."""
    app.connect("config-inited", lambda app, config: write_options(app))
