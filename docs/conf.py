"""How Sphinx makes a site of these pages: `make docs`.

The pages are plain Markdown that reads well without Sphinx; which of them belongs where is in
`README.md`. What code can say is made here, by `pages`.
"""

import json
import sys
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

import uppercase

DOCS = Path(__file__).parent
sys.path.insert(0, str(DOCS))
import pages  # noqa: E402

project = "uppercase"
author = "The uppercase contributors"
version = release = uppercase.__version__
extensions = ["myst_parser", "sphinx_external_toc"]
external_toc_path = "_toc.yml"
exclude_patterns = ["_build", "README.md"]
myst_heading_anchors = 4
# What is indented is typed or printed; Python says so.
highlight_language = "none"
html_theme = "furo"
html_title = f"uppercase {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_copyright = False
# No font, script or picture comes from elsewhere, so the pages work without a network.
html_theme_options = {"top_of_page_buttons": []}


def write_pages(app: Sphinx) -> None:
    """Write what is made of other things; the index has the name that a site's first page has."""
    (DOCS / "options.md").write_text(pages.options_page())
    # YAML, too.
    (DOCS / "_toc.yml").write_text(json.dumps(pages.contents()))
    (DOCS / "index.md").write_text((DOCS / "README.md").read_text())


def level_captions(app: Sphinx, page: str, template: str, context: dict[str, Any], *_: Any) -> None:
    """Say on which level the sidebar's captions are headings, which Sphinx leaves out."""
    tree = context["furo_navigation_tree"]
    context["furo_navigation_tree"] = tree.replace('"heading"', '"heading" aria-level="2"')


def setup(app: Sphinx) -> None:
    """Have the page made before the others are read."""
    app.connect("config-inited", lambda app, config: write_pages(app))
    # After the theme has made the sidebar.
    app.connect("html-page-context", level_captions, priority=900)
