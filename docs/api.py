"""Has pydoctor make the pages of the API, beside the site that Sphinx has made.

pydoctor links what is hidden too, although it writes none of it; such a link becomes its text.
What is public is a list of patterns in `pyproject.toml`, compared here with what `reference/api.md`
promises.
"""

import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Final

from pydoctor.driver import main

API: Final = Path(__file__).parent / "_build" / "api"
_LINK: Final = re.compile(r'<a\b[^>]*? href="(?:([^"#:]+)[^"]*|#(\w+))"[^>]*>(.*?)</a>', re.DOTALL)


def only_living(page: str) -> str:
    """Return a page whose links to what is not there are their text."""

    def lives(link: re.Match[str]) -> bool:
        if link[1]:
            return (API / link[1]).exists()
        return re.search(rf'\b(name|id)="{link[2]}"', page) is not None

    return _LINK.sub(lambda link: link[0] if lives(link) else link[3], page)


def missing() -> Iterator[str]:
    """Return the public names that have no page, and no place on one."""
    shown = {page.stem.rpartition(".")[2] for page in API.glob("*.html")}
    for page in API.glob("uppercase*.html"):
        shown.update(re.findall(r'name="(\w+)"', page.read_text()))
    promised = (API.parents[1] / "reference" / "api.md").read_text()
    for module in map(import_module, re.findall(r"^\| `([\w.]+)`", promised, re.MULTILINE)):
        for name in getattr(module, "__all__", ()):
            # A constant is said in words; what has two names is shown by its own.
            if getattr(getattr(module, name), "__name__", name) not in {*shown, "__version__"}:
                yield f"{module.__name__}.{name}"


if __name__ == "__main__":
    if status := main([]):
        raise SystemExit(status)
    if hidden := list(missing()):
        raise SystemExit(f"public, but hidden by pyproject.toml: {', '.join(hidden)}")
    for page in API.glob("*.html"):
        page.write_text(only_living(page.read_text()))
