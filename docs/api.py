"""Has pydoctor make the pages of the API, beside the site that Sphinx has made.

pydoctor links what is hidden too, although it writes none of it; such a link becomes its text.
"""

import re
from pathlib import Path
from typing import Final

from pydoctor.driver import main

API: Final = Path(__file__).parent / "_build" / "api"
_LINK: Final = re.compile(r'<a\b[^>]*? href="(?:([^"#:]+)[^"]*|#_\w+)"[^>]*>(.*?)</a>', re.DOTALL)


def only_living(link: re.Match[str]) -> str:
    """Return a link as it is if there is such a page, else its text."""
    return link[0] if link[1] and (API / link[1]).exists() else link[2]


if __name__ == "__main__":
    if status := main([]):
        raise SystemExit(status)
    for page in API.glob("*.html"):
        page.write_text(_LINK.sub(only_living, page.read_text()))
