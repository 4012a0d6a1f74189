"""The examples run, and the guide shows them as they are."""

import json
import re
from pathlib import Path

import pytest
from twisted.internet.threads import deferToThread

from tests.client.in_reactor import in_reactor
from tests.commands.command import run_process
from tests.matrix import PYTHONS
from tests.system.processes import ROOT, Server, connect
from uppercase.testing import LAWS, check

HOWTO = ROOT / "docs" / "howto"
GUIDE = (HOWTO / "write-a-transform.md").read_text()
EXAMPLES = ROOT / "examples"


def test_the_guides_show_the_files_as_they_are() -> None:
    shown = [
        found
        for page in HOWTO.glob("*.md")
        for found in re.findall(
            r"<!-- file: (examples/\S+) -->\n```python\n(.*?)```", page.read_text(), re.S
        )
    ]
    for path, text in shown:
        assert (ROOT / path).read_text() == text, path
    # The solutions of exercises have a folder of their own, and are not for showing.
    assert {path for path, _ in shown if path.count("/") == 1} == {
        f"examples/{file.name}" for file in EXAMPLES.glob("*.py")
    }


def test_the_guide_lists_all_laws() -> None:
    assert re.findall(r"^\| `([a-z0-9-]+)` \| (.*) \|$", GUIDE, re.MULTILINE) == [
        (law.name, law.promise) for law in LAWS
    ]


@pytest.mark.parametrize(
    "specification",
    [
        "rotate:caesar:shift=3",
        "line_numbers:LineNumbers",
        "waiting:later:seconds=0",
        "by_hand:repeat:times=3",
    ],
)
@in_reactor
async def test_the_examples_keep_the_laws(
    specification: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(EXAMPLES)
    report = await deferToThread(check, specification, count=10)
    assert report.broken == ()


def test_a_function_in_the_current_directory_is_served() -> None:
    """With nothing installed but us, under the real twistd."""
    options = ("uppercase-tcp", "--port=0", "--transform", "mymodule:shout")
    with Server(*options, cwd=EXAMPLES) as server, connect(server.port) as client:
        client.sendall(b"hello\n")
        assert client.recv(1024) == b"HELLO!\n"


# The design's own example, with a body.
THREE_LINES = """\
from uppercase import transform

@transform(summary="Shift letters by a fixed distance")
def shifted(text: str, *, shift: int = 13) -> str: return "".join(chr(ord(c) + shift) for c in text)
"""


def test_three_lines_in_a_drop_in_beside_the_current_directory_are_a_plugin(tmp_path: Path) -> None:
    file = tmp_path / "twisted" / "plugins" / "acme.py"
    file.parent.mkdir(parents=True)
    file.write_text(THREE_LINES)
    options = ("uppercase-tcp", "--port=0", "--transform", "shifted:shift=1", "-t", "uppercase")
    with Server(*options, cwd=tmp_path) as server, connect(server.port) as client:
        client.sendall(b"HAL\n")
        assert client.recv(1024) == b"IBM\n"


def test_a_new_project_is_tested_with_all_pythons_and_its_readme_tells_the_truth(
    tmp_path: Path,
) -> None:
    assert run_process("transforms", "new", "dashes", cwd=tmp_path).status == 0
    project = tmp_path / "dashes"
    command = ("transforms", "try", "uppercase_dashes:dashes")
    tried = run_process(*command, data=b"hello world\n", cwd=project).stdout.decode()
    (shown,) = re.findall(r"^\$ .* try .*\n(.*\n)", (project / "README.md").read_text(), re.M)
    assert tried == shown == "hello-world\n"
    workflow = (project / ".github" / "workflows" / "test.yml").read_text()
    assert f"python: {json.dumps(PYTHONS)}" in workflow
