"""The tutorial is one text; `make newcomer` does what it says."""

import re
from itertools import pairwise

from tests.system.processes import ROOT

CHAPTERS = sorted((ROOT / "docs" / "tutorial").glob("*.md"))


def test_each_chapter_leads_to_the_next() -> None:
    for chapter, following in pairwise(CHAPTERS):
        assert re.search(rf"(?i)chapter\]\({following.name}\)", chapter.read_text())
