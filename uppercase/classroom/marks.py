"""The marks as lines, JSON, JUnit's XML, Gradescope's results, and a page to look at.

All say the same: each check, its points, and one sentence of what was expected and got. What a
program printed is text in each of them, never markup.
"""

import json
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path
from typing import Any, Final
from xml.etree import ElementTree

from uppercase.classroom.grade import Exercise, Mark
from uppercase.classroom.picture import draw_svg
from uppercase.classroom.timeline import draw_text
from uppercase.core.values import printable

_STYLE: Final = """
:root{color-scheme:light dark;font:16px/1.5 system-ui,sans-serif}
body{max-width:62rem;margin:2rem auto;padding:0 1rem;overflow-wrap:anywhere}
table{border-collapse:collapse;width:100%}
td,th{text-align:left;vertical-align:top;padding:.3rem .6rem;border-bottom:1px solid #8888}
td:nth-child(2){white-space:nowrap}.fail td:first-child{font-weight:bold}
figure{overflow-x:auto;margin:.5rem 0 2rem}
@media(max-width:40rem){thead,td:empty{display:none}td{border:0}
tr{display:grid;grid-template-columns:4rem 5rem 1fr;border-bottom:1px solid #8888}
td:nth-child(4){grid-column:1/-1}}
""".strip()


def total(marks: Sequence[Mark]) -> tuple[int, int]:
    """Return the points that were given, and those that could have been."""
    return sum(mark.points for mark in marks), sum(mark.check.points for mark in marks)


def warning(marks: Sequence[Mark]) -> str:
    """Return a warning about marks that should not be trusted, "" if there are none."""
    starved = ", ".join(mark.check.name for mark in marks if mark.starved)
    return starved and (
        "this machine has so much other work that marks may be wrong, although their checks were "
        f"repeated: {starved}; grade again when it has less"
    )


def as_lines(mark: Mark, *, timeline: bool) -> Iterator[str]:
    """Return a check's lines, with its timeline if it failed and somebody wants to see it."""
    word = "pass" if mark.passed else "FAIL"
    yield f"{word}  {mark.points}/{mark.check.points}  {mark.check.name}"
    if mark.sentence:
        yield f"           {mark.sentence}"
        if timeline:
            yield from _picture(mark)


def as_json(exercise: Exercise, marks: Sequence[Mark]) -> str:
    """Return one object."""
    had, most = total(marks)
    checks = [
        {
            "check": mark.check.name,
            "points": mark.points,
            "of": mark.check.points,
            "passed": mark.passed,
            "sentence": mark.sentence,
            "seconds": round(mark.seconds, 3),
            "starved": mark.starved,
            "timeline": "\n".join(_picture(mark)),
        }
        for mark in marks
    ]
    return json.dumps({"exercise": exercise.name, "points": had, "of": most, "checks": checks})


def as_gradescope(marks: Sequence[Mark]) -> bytes:
    """Return what Gradescope reads from `/autograder/results/results.json`."""
    tests: list[dict[str, Any]] = [
        {
            "name": mark.check.name,
            "score": mark.points,
            "max_score": mark.check.points,
            "status": "passed" if mark.passed else "failed",
            "output": "\n".join([mark.sentence, *_picture(mark)] if mark.sentence else []),
            "output_format": "text",
        }
        for mark in marks
    ]
    seconds = round(sum(mark.seconds for mark in marks), 1)
    return json.dumps({"execution_time": seconds, "tests": tests}).encode() + b"\n"


def as_junit(exercise: Exercise, marks: Sequence[Mark]) -> bytes:
    """Return the XML that CI systems show, a test case for each check."""
    suites = ElementTree.Element("testsuites")
    suite = ElementTree.SubElement(
        suites,
        "testsuite",
        name=exercise.name,
        tests=str(len(marks)),
        failures=str(sum(not mark.passed for mark in marks)),
        errors="0",
        skipped="0",
        time=f"{sum(mark.seconds for mark in marks):.3f}",
    )
    for mark in marks:
        about = {"classname": exercise.name, "name": mark.check.name}
        case = ElementTree.SubElement(suite, "testcase", about, time=f"{mark.seconds:.3f}")
        if mark.sentence:
            failure = ElementTree.SubElement(case, "failure", message=mark.sentence)
            # XML has no way to write most of what is not printable.
            failure.text = printable("\n".join(_picture(mark)), keep="\n")
    return bytes(ElementTree.tostring(suites, encoding="utf-8", xml_declaration=True))


def write_report(exercise: Exercise, marks: Sequence[Mark], folder: Path) -> None:
    """Write a page with all checks and their timelines into a folder, as one file."""
    had, most = total(marks)
    title = f"{exercise.name}: {had} of {most} points"
    rows, pictures = [], []
    for number, mark in enumerate(marks, 1):
        name = escape(mark.check.name)
        if mark.timeline is not None and mark.timeline.clients:
            pictures.append(
                f'<h2 id="check-{number}">{name}</h2><p>{escape(mark.sentence)}</p>'
                f'<figure tabindex="0">{draw_svg(mark.timeline)}</figure>'
            )
            name = f'<a href="#check-{number}">{name}</a>'
        word = "pass" if mark.passed else "fail"
        rows.append(
            f'<tr class="{word}"><td>{word}</td><td>{mark.points} of {mark.check.points}</td>'
            f"<td>{name}</td><td>{escape(mark.sentence)}</td></tr>"
        )
    (folder / "index.html").write_text(
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body>"
        f"<h1>{escape(title)}</h1><p>{escape(exercise.summary)}</p><table>"
        "<thead><tr><th>Mark</th><th>Points</th><th>Check</th><th>Expected, got</th></tr></thead>"
        f"<tbody>{''.join(rows)}</tbody></table>{''.join(pictures)}</body></html>\n",
        encoding="utf-8",
    )


def _picture(mark: Mark) -> list[str]:
    return [] if mark.timeline is None else list(draw_text(mark.timeline))
