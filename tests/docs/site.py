"""Checks the site that `make docs` has built, without a network: links, anchors, pictures.

It must not know how the pages were made: it reads the folder as a browser would.
"""

import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

_FETCHED = {"img": "src", "script": "src", "link": "href", "iframe": "src"}
"""What a browser gets by itself, and would get from elsewhere."""


@dataclass
class Page(HTMLParser):
    """What a page leads to, shows, and can be led to."""

    path: Path
    anchors: set[str] = field(default_factory=set)
    links: set[str] = field(default_factory=set)
    faults: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()
        self.feed(self.path.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.anchors.update(filter(None, (given.get("id"), given.get("name"))))
        if tag == "img" and not given.get("alt"):
            self.faults.append(f"the picture {given.get('src')} has no text alternative")
        if given.get("role") == "heading" and "aria-level" not in given:
            self.faults.append(f"a {tag} is a heading of no level")
        address = given.get(_FETCHED.get(tag, "href"))
        if not address:
            return
        parts = urlsplit(address)
        if not (parts.scheme or parts.netloc):
            self.links.add(address)
        elif tag in _FETCHED and parts.scheme != "data" and given.get("rel") != "canonical":
            self.faults.append(f"{address} is fetched from elsewhere")


def targets(page: Page) -> Iterator[tuple[str, Path, str]]:
    """Return each link of a page with the file and the anchor that it leads to."""
    for link in page.links:
        parts = urlsplit(link)
        path = (page.path.parent / unquote(parts.path)).resolve() if parts.path else page.path
        yield link, path / "index.html" if path.is_dir() else path, unquote(parts.fragment)


def faults(site: Path) -> Iterator[str]:
    """Return a sentence for each fault of a site."""
    pages = {path: Page(path) for path in sorted(site.resolve().rglob("*.html"))}
    reached = set()
    waiting = [site.resolve() / "index.html"]
    while waiting:
        path = waiting.pop()
        if path in pages and path not in reached:
            reached.add(path)
            waiting += [target for _, target, _ in targets(pages[path])]
    for path, page in pages.items():
        name = path.relative_to(site.resolve())
        for fault in page.faults:
            yield f"{name}: {fault}"
        # Some of pydoctor's pages are for its own scripts.
        if path not in reached and name.parts[0] != "api":
            yield f"{name}: no link leads here"
        for link, target, anchor in targets(page):
            if not target.exists():
                yield f"{name}: {link} leads nowhere"
            elif anchor and target in pages and anchor not in pages[target].anchors:
                yield f"{name}: {link} leads to a page without this anchor"


def main() -> None:
    """Print the faults; the status is 1 if there are any."""
    found = list(faults(Path(sys.argv[1])))
    print(*found, sep="\n", end="\n" if found else "")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
