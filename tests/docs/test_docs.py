"""The documentation as a whole: links lead somewhere, pages are found, and nothing is missing."""

import re
from dataclasses import fields
from pathlib import Path

from uppercase.core.events import Outcome, RefusalReason
from uppercase.limits import Limits

ROOT = Path(__file__).parents[2]
UNITS = {"": 1, "KiB": 1024, "s": 1, "min": 60}
PAGES = sorted([*ROOT.glob("*.md"), ROOT / "docs" / "README.md", *ROOT.glob("docs/*/*.md")])


def links(page: Path) -> set[Path]:
    """Return the files that a page links to."""
    found = re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text())
    return {(page.parent / link).resolve() for link in found}


def test_every_link_leads_to_a_file() -> None:
    missing = {page.name: link for page in PAGES for link in links(page) if not link.exists()}
    assert missing == {}


def test_every_page_is_in_the_index() -> None:
    index = ROOT / "docs" / "README.md"
    assert index.resolve() in links(ROOT / "README.md")
    assert set(ROOT.glob("docs/*/*.md")) == {page for page in links(index) if "docs" in page.parts}


def test_every_end_and_refusal_of_a_connection_is_explained() -> None:
    page = (ROOT / "docs/topics/reliability.md").read_text()
    explained = re.findall(r"^\| `([a-z][a-z-]+)` \| \w", page, re.M)
    assert sorted(explained) == sorted([*Outcome, *RefusalReason])


def test_every_limit_of_tcp_is_explained() -> None:
    """With its option and its default."""
    page = (ROOT / "docs/topics/reliability.md").read_text()
    rows = dict(re.findall(r"^\| `--([a-z-]+)` \| ([^|]+) \| \w", page, re.M))
    for field in fields(Limits):
        stated = rows[field.name.replace("_", "-")].partition(", at most")[0].replace(",", "")
        if field.default is None:
            assert stated == "any number"
        else:
            number, _, unit = stated.partition(" ")
            assert int(number) * UNITS[unit] == field.default, field.name


def test_who_puts_nginx_before_a_service_is_told_what_half_closes_need() -> None:
    for place in ("deploy/nginx/nginx.conf", "docs/topics/tls-and-proxy.md"):
        assert "proxy_half_close on;" in (ROOT / place).read_text()


def test_the_readme_shows_the_plugin_that_the_examples_hold() -> None:
    """The tests run the examples."""
    shown = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert shown
    namespace: dict[str, object] = {}
    exec(shown[1], namespace)
    shout = namespace["shout"]
    assert callable(shout)
    assert shout("hello") == "HELLO!"


def test_the_readme_has_the_commands_that_serve_and_test_and_there_is_what_pages_make() -> None:
    known = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    typed = {page: re.findall(r"(?:`|^\$ )make ([a-z]+)", page.read_text(), re.M) for page in PAGES}
    assert {"serve", "test"} <= set(typed[ROOT / "README.md"])
    assert {page: set(names) - known for page, names in typed.items() if set(names) - known} == {}
