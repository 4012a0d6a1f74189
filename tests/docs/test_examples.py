"""The examples run, and the guide shows them as they are."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from twisted.internet.threads import deferToThread

from tests.client.in_reactor import in_reactor
from tests.system.processes import ROOT, Server, connect, environment
from uppercase.testing import LAWS, check

GUIDE = (ROOT / "docs" / "howto" / "write-a-transform.md").read_text()
EXAMPLES = ROOT / "examples"


def test_the_guide_shows_the_files_as_they_are() -> None:
    shown = re.findall(r"<!-- (examples/\S+) -->\n```python\n(.*?)```", GUIDE, re.DOTALL)
    for path, text in shown:
        assert (ROOT / path).read_text() == text, path
    assert {path for path, _ in shown} == {
        f"examples/{file.name}" for file in EXAMPLES.glob("*.py")
    }


@pytest.fixture
def shell(tmp_path: Path) -> dict[str, str]:
    """Return an environment in which `uppercase` is a command."""
    script = tmp_path / "bin" / "uppercase"
    script.parent.mkdir()
    script.write_text(
        f"#!{sys.executable}\nfrom uppercase.commands.cli import main\nraise SystemExit(main())\n"
    )
    script.chmod(0o755)
    return environment(PATH=os.pathsep.join([str(script.parent), os.environ["PATH"]]))


def test_the_guides_commands_say_what_it_shows(shell: dict[str, str]) -> None:
    commands = 0
    for block in re.findall(r"```console\n(.*?)```", GUIDE, re.DOTALL):
        for text in block.split("$ ")[1:]:
            command, _, expected = text.partition("\n")
            ran = subprocess.run(
                ["bash", "-c", command],
                cwd=EXAMPLES,
                env=shell,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=60,
                check=False,
            )
            assert ran.stdout.rstrip("\n") == expected.rstrip("\n"), command
            commands += 1
    assert commands >= 6


def test_the_guide_lists_all_laws() -> None:
    assert re.findall(r"^\| `([a-z0-9-]+)` \| (.*) \|$", GUIDE, re.MULTILINE) == [
        (law.name, law.promise) for law in LAWS
    ]


def test_the_examples_own_tests_pass() -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "error", "."],
        cwd=EXAMPLES,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr


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


def test_the_readme_of_a_new_project_tells_the_truth(tmp_path: Path, shell: dict[str, str]) -> None:
    made = subprocess.run(
        "uppercase transforms new dashes && cd dashes && "
        "printf 'hello world\\n' | uppercase transforms try uppercase_dashes:dashes && "
        "grep -A1 try README.md | tail -n 1",
        shell=True,
        cwd=tmp_path,
        env=shell,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert made.stdout.splitlines()[-2:] == ["hello-world", "hello-world"]
