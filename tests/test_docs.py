"""The documentation as a whole: every link leads somewhere, and every page can be found."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])


def links(page: Path) -> set[Path]:
    """Give the files that a page links to."""
    found = re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text())
    return {(page.parent / link).resolve() for link in found}


def test_every_link_leads_to_a_file() -> None:
    missing = {page.name: link for page in PAGES for link in links(page) if not link.exists()}
    assert missing == {}


def test_every_page_is_in_the_index() -> None:
    index = ROOT / "docs" / "README.md"
    assert index.resolve() in links(ROOT / "README.md")
    assert set(ROOT.glob("docs/*/*.md")) == {page for page in links(index) if "docs" in page.parts}


def test_the_readme_shows_the_plugin_that_the_examples_hold() -> None:
    """The tests run the examples."""
    shown = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert shown
    namespace: dict[str, object] = {}
    exec(shown[1], namespace)
    shout = namespace["shout"]
    assert callable(shout)
    assert shout("hello") == "HELLO!"
