"""The examples run, and the guide shows them as they are."""

import os
import re
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import pytest
from twisted.internet.threads import deferToThread

from tests.client.in_reactor import in_reactor
from tests.system.processes import ROOT, Server, connect, environment
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


def check_commands(text: str, cwd: Path, shell: dict[str, str]) -> int:
    """Type what consoles show with a `$`, and compare what is said; return how many there were."""
    commands = 0
    for block in re.findall(r"(?<!<!-- installs -->\n)```console\n(.*?)```", text, re.DOTALL):
        for typed in block.split("$ ")[1:]:
            command, _, expected = typed.partition("\n")
            ran = subprocess.run(
                ["bash", "-c", command],
                cwd=cwd,
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
    return commands


def with_free_ports(text: str, known: dict[str, str]) -> str:
    """Put free ports in the places of those of a guide."""

    def free(port: re.Match[str]) -> str:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            return known.setdefault(port[0], str(probe.getsockname()[1]))

    return re.sub(r"\b120\d\d\b", free, text)


SECTIONS = [
    pytest.param(page.name, section, id=section.partition("\n")[0])
    for page in (HOWTO / "embed-a-server.md", HOWTO / "use-asyncio.md")
    for section in page.read_text().split("\n## ")
    if "```sh\n" in section
]


@pytest.mark.needs_program("nc")
@pytest.mark.parametrize(("page", "section"), SECTIONS)
def test_the_guides_servers_answer_as_it_shows(
    page: str, section: str, tmp_path: Path, shell: dict[str, str]
) -> None:
    """The commands as they are printed, in a folder with the programs; ports but for these."""
    if "uvloop" in section:
        pytest.importorskip("uvloop")
    known: dict[str, str] = {}
    section = with_free_ports(section, known)
    for file in EXAMPLES.glob("*.py"):
        (tmp_path / file.name).write_text(with_free_ports(file.read_text(), known))
    path = os.pathsep.join([str(Path(sys.executable).parent), shell["PATH"]])
    lines = re.findall(r"```sh\n(.*?)```", section, re.DOTALL)[0].splitlines()
    with ExitStack() as stack:
        for number, line in enumerate(lines):
            log = (tmp_path / f"{number}.log").open("w+")
            stack.enter_context(log)
            # Becomes the server, so that it is this process that is ended.
            server = subprocess.Popen(
                ["bash", "-c", f"exec {line}"],
                cwd=tmp_path,
                env={**shell, "PATH": path},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
            stack.callback(server.wait, 40)
            stack.callback(server.terminate)
            deadline = time.monotonic() + 60
            while "ready" not in Path(log.name).read_text():
                assert server.poll() is None, Path(log.name).read_text()
                assert time.monotonic() < deadline, f"{line} is not ready"
                time.sleep(0.05)
        assert check_commands(section, tmp_path, {**shell, "PATH": path}) > 0
    for log_file in tmp_path.glob("*.log"):
        assert "Traceback" not in log_file.read_text(), log_file.read_text()


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
