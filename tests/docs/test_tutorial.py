"""The tutorial works as printed, chapter by chapter."""

import re
import socket
from itertools import pairwise
from pathlib import Path

import pytest

from tests.docs.follow import Reader
from tests.system.processes import ROOT
from tests.system.test_lecture import free_port

CHAPTERS = sorted((ROOT / "docs" / "tutorial").glob("*.md"))


@pytest.mark.needs_program("nc")
def test_the_tutorial_can_be_followed(tmp_path: Path) -> None:
    reader = Reader(tmp_path)
    try:
        for chapter in CHAPTERS:
            assert reader.follow(chapter, free_port(socket.SOCK_STREAM)) >= 1, chapter.name
    finally:
        reader.end()


def test_each_chapter_leads_to_the_next() -> None:
    for chapter, following in pairwise(CHAPTERS):
        assert re.search(rf"(?i)chapter\]\({following.name}\)", chapter.read_text())


def test_the_lesson_of_a_class_can_be_followed(tmp_path: Path) -> None:
    """Run, see, fix, grade: as printed, and the files are what they should be."""
    reader = Reader(tmp_path)
    try:
        page = ROOT / "docs" / "howto" / "run-a-class.md"
        assert reader.follow(page, free_port(socket.SOCK_DGRAM)) >= 7
    finally:
        reader.end()
    assert (tmp_path / "lesson.svg").read_text().startswith("<svg")
    assert (tmp_path / "lesson.pcapng").read_bytes().startswith(b"\x0a\x0d\x0d\x0a")
