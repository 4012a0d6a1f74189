"""`uppercase grade` as a command: marks of the lecture's programs, outputs, exercises of others."""

import json
import re
import socket
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from tests.commands.command import run, run_process
from tests.system.test_lecture import LECTURE

GONE = "survives clients that go away"


def graded(exercise: str, path: Path, *options: str) -> tuple[int, dict[str, str]]:
    """Return the exit status, and what was wrong by check."""
    status, marks = marked(exercise, path, *options)
    checks = marks["checks"]
    return status, {each["check"]: each["sentence"] for each in checks if not each["passed"]}


def marked(exercise: str, path: Path, *options: str) -> tuple[int, dict[str, Any]]:
    """Return the exit status, and the marks as JSON has them."""
    words = ["grade", "--json", *options, exercise, "--", sys.executable, str(path), "{port}"]
    done = run_process(*words)
    return done.status, json.loads(done.stdout)


def lecture(name: str, folder: Path) -> Path:
    """Write a program of the lecture that takes its port from the command line."""
    text = (LECTURE / name).read_text().replace("12000", "int(__import__('sys').argv[1])")
    path = folder / name
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("exercise", "name", "points", "failed"),
    [
        (
            "tcp-server",
            "tcp_server.py",
            (9, 12),
            {"answers 100,000 bytes", "survives what is not text", GONE},
        ),
        (
            "udp-server",
            "udp_server.py",
            (8, 10),
            {"answers 8,000 bytes", "survives what is not text"},
        ),
        ("tcp-client", "tcp_client.py", (6, 7), {"takes a reply in pieces"}),
        ("udp-client", "udp_client.py", (6, 7), {"ends without a reply"}),
    ],
)
def test_the_lectures_programs(
    exercise: str, name: str, points: tuple[int, int], failed: set[str], tmp_path: Path
) -> None:
    """With six seconds for each: the UDP client waits for ever."""
    toml = tmp_path / "patient.toml"
    toml.write_text(f"base = '{exercise}'\n[options]\nseconds = 6\n")
    status, marks = marked(str(toml), lecture(name, tmp_path))
    wrong = {each["check"]: each["sentence"] for each in marks["checks"] if not each["passed"]}
    assert set(wrong) == failed, wrong
    # As `docs/reference/record.md` has it.
    assert (status, marks["points"], marks["of"]) == (1, *points)


def test_a_server_on_the_wrong_port(tmp_path: Path) -> None:
    path = tmp_path / "server.py"
    path.write_text("import sys; sys.exit('no port for me')")
    status, wrong = graded("udp-server", path)
    assert (status, len(wrong)) == (1, 7)
    assert all("nobody listens there (--port is" in sentence for sentence in wrong.values())
    assert all(sentence.endswith("no port for me") for sentence in wrong.values())


def test_a_server_that_does_not_start_is_tried_once_where_checks_follow_each_other(
    tmp_path: Path,
) -> None:
    path = tmp_path / "server.py"
    path.write_text("open('starts', 'a').write('x'); import sys; sys.exit('no port for me')")
    with socket.socket(type=socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    words = [f"--port={port}", "udp-server", "--", sys.executable, str(path)]
    done = run_process("grade", "--json", *words, cwd=tmp_path)
    sentences = [each["sentence"] for each in json.loads(done.stdout)["checks"]]
    assert len(sentences) == 7
    assert {each.endswith("no port for me") for each in sentences} == {True}
    assert (tmp_path / "starts").read_text() == "x"


def test_a_failed_check_shows_its_timeline_where_it_is_wanted(tmp_path: Path) -> None:
    path = tmp_path / "client.py"
    path.write_text(
        "import socket, sys\n"
        "socket.socket(type=socket.SOCK_DGRAM).sendto(b'hi', ('127.0.0.1', int(sys.argv[1])))"
    )
    words = ["udp-client", "--", sys.executable, str(path), "{port}"]
    assert b'-- 1 "hi" --' in run_process("grade", "--timelines", *words).stdout
    done = run_process("grade", "--junit=/dev/full", *words)
    assert b'"hi" --' not in done.stdout
    assert "cannot write /dev/full: No space left on device" in done.stderr


def test_a_port_that_somebody_has_is_nobodys_mistake_but_ours() -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as other:
        other.bind(("127.0.0.1", 0))
        port = f"--port={other.getsockname()[1]}"
        grading = run_process("grade", port, "udp-server", "--", "true")
        running = run_process("run", "-u", port, "--", "true")
    assert "another program has it" in grading.stderr
    assert "cannot listen on UDP 127.0.0.1" in running.stderr
    assert (grading.status, running.status) == (2, 2)


def test_a_client_that_sends_nothing_gets_no_points_for_its_end(tmp_path: Path) -> None:
    path = tmp_path / "client.py"
    path.write_text("import sys; sys.exit('no socket for me')")
    status, wrong = graded("udp-client", path)
    assert (status, len(wrong)) == (1, 4)
    assert all("no socket for me" in wrong[name] for name in wrong if "sends" not in name)


def test_what_a_program_prints_reaches_the_terminal_as_text(tmp_path: Path) -> None:
    """And so does the name of a file, which may be no text."""
    toml = tmp_path / "\udcff.toml"
    toml.write_text("base = 'udp-client'\n[points]\n'sends the line' = 0\n'prints the reply' = 0\n")
    program = "import sys; sys.exit('\\33]0;mine\\7')"
    words = ("--report", str(tmp_path), "--", sys.executable, "-c", program)
    done = run_process("grade", str(toml), *words)
    assert "got nothing and, on standard error, \\x1b]0;mine\\x07\n" in done.stdout.decode()
    assert "\\udcff: 0 of 2 points" in (tmp_path / "index.html").read_text()


def test_the_exercises_are_listed() -> None:
    done = run_process("grade", "--list")
    assert done.status == 0
    names = [line.split()[0] for line in done.stdout.decode().splitlines()]
    assert names[:6] == [
        "tcp-server", "udp-server", "tcp-client", "udp-client", "udp-pinger", "stop-and-wait",
    ]  # fmt: skip


class Page(HTMLParser):
    """What a page refers to, and its text."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [value or "" for name, value in attributes if name in ("href", "src")]


def test_the_outputs_say_the_same(tmp_path: Path) -> None:
    """JUnit's XML, Gradescope's results and the page, which needs nothing but itself."""
    path = tmp_path / "client.py"
    # What a program prints is no markup.
    path.write_text(
        lecture("udp_client.py", tmp_path).read_text().replace(".decode()", " and b'<script>'")
    )
    junit, results, report = tmp_path / "junit.xml", tmp_path / "results.json", tmp_path / "report"
    written = ["--junit", str(junit), "--gradescope", str(results), "--report", str(report)]
    toml = tmp_path / "quick.toml"
    # As some editors begin a file, and with a text that XML cannot hold.
    toml.write_text(
        "\ufeffbase = 'udp-client'\n[points]\n'ends without a reply' = 0\n"
        "[texts]\n'sends the line' = \"3a:\\u001b sends\"\n",
        encoding="utf-8",
    )
    status, wrong = graded(str(toml), path, *written)
    assert (status, list(wrong)) == (1, ["prints the reply"])

    suite = ElementTree.parse(junit).getroot()[0]
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("3", "1", "0")
    failures = {case.get("name"): case.find("failure") for case in suite}
    failure = failures["prints the reply"]
    assert failure is not None
    assert failure.get("message") == wrong["prints the reply"]
    assert "hello world" in (failure.text or "")

    tests = json.loads(results.read_text())["tests"]
    assert [(each["score"], each["max_score"]) for each in tests] == [(2, 2), (0, 3), (1, 1)]
    assert [each["status"] for each in tests] == ["passed", "failed", "passed"]
    assert tests[1]["output"].startswith(wrong["prints the reply"])

    page = Page()
    text = (report / "index.html").read_text()
    page.feed(text)
    assert page.tags.count("svg") == 3
    # Pictures are wider than a phone: a keyboard scrolls what it reaches, in each browser.
    assert text.count('<figure tabindex="0"><svg') == 3
    assert not {"script", "img", "link", "iframe"} & set(page.tags)
    assert all(link.startswith("#") for link in page.links)
    assert "&lt;script&gt;" in text
    assert [each.name for each in report.iterdir()] == ["index.html"]


NOTHING = """
base = "udp-client"
[points]
"sends the line" = 0
"prints the reply" = 0
"ends with status 0" = 0
"ends without a reply" = 0
"""

TOML = """
base = "udp-client"
summary = "exercise 3"
[points]
"prints the reply" = 5
"ends with status 0" = 0
"ends without a reply" = 0
[texts]
"sends the line" = "3a: sends the line"
[options]
seconds = 20
"""


def test_a_toml_file_sets_points_texts_and_options(tmp_path: Path) -> None:
    (tmp_path / "lab3.toml").write_text(TOML)
    program = str(lecture("udp_client.py", tmp_path))
    words = ["grade", str(tmp_path / "lab3.toml"), "--", sys.executable, program, "{port}"]
    done = run_process(*words)
    assert done.stdout.decode().splitlines() == [
        "pass  2/2  3a: sends the line",
        "pass  5/5  prints the reply",
        "7 of 7 points",
    ]
    assert done.status == 0


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("base = 'udp'", "base is 'udp'; one of tcp-server, udp-server"),
        ("summary = 'x'", "base is ''; one of tcp-server, udp-server"),
        ("base = [", "is not TOML"),
        ("a = " + "[" * 5000, "is not TOML: maximum recursion"),
        ("base = 'udp-client'\npoint = 3", "has 'point'; did you mean"),
        ("base = 'udp-client'\npoints = 3", "points is 3; a table is accepted"),
        ("base = 'udp-client'\n[points]\n'sends a line' = 3", "has no check 'sends a line'"),
        ("base = 'udp-client'\n[points]\n'sends the line' = -3", "a whole number is accepted"),
        (NOTHING, "got 0 points for each check"),
        ("base = 'udp-client'\n[options]\nsecond = 3", "no option 'second'; did you mean"),
        ("base = 'udp-client'\n[options]\nseconds = 'x'", "seconds: got 'x'; float is accepted"),
        # Each program would lose all points.
        *(
            (f"base = 'udp-pinger'\n[options]\n{option}", "a positive number is accepted")
            for option in ("seconds = 0", "seconds = nan", "quiet = -1", "pings = 0")
        ),
    ],
)
def test_a_mistake_in_a_toml_file_is_one_sentence(text: str, sentence: str, tmp_path: Path) -> None:
    (tmp_path / "lab3.toml").write_text(text)
    done = run("grade", str(tmp_path / "lab3.toml"), "--", "true")
    assert done.status == 2
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr


PLUGIN = """
from uppercase.classroom.grade import Trial, Wrong, check, exercise

@exercise("greeter", "says hello")
class Greeter:
    word: str = "hello"

    @check("greets", points=2)
    def greets(self, trial: Trial) -> None:
        run = trial.client(True, "", seconds=30.0)
        if self.word not in run.output:
            raise Wrong(f"expected {self.word!r}, got {run.output!r}")

@exercise("faulty", "its check is broken")
class Faulty:
    @check("divides")
    def divides(self, trial: Trial) -> None:
        1 / 0

@exercise("quitting", "its check ends everything")
class Quitting:
    @check("quits")
    def quits(self, trial: Trial) -> None:
        raise SystemExit

@exercise("empty", "has no check")
class Empty:
    pass

number = 7
"""


@pytest.fixture
def plugins(tmp_path: Path) -> dict[str, str]:
    """Install a package with exercises, of which some are broken; return the environment."""
    folder = tmp_path / "site"
    info = folder / "greeting-1.0.dist-info"
    info.mkdir(parents=True)
    (folder / "greeting.py").write_text(PLUGIN)
    (folder / "worth.py").write_text(PLUGIN.replace("points=2", "points='2'"))
    (folder / "ending.py").write_text("raise SystemExit('\\x1b[2J')\n")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: greeting\nVersion: 1.0\n")
    entries = {
        "greeter": "greeting:Greeter",
        "faulty": "greeting:Faulty",
        "quitting": "greeting:Quitting",
        "empty": "greeting:Empty",
        "number": "greeting:number",
        "missing": "no_such_module:x",
        "ending": "ending:x",
        "worth": "worth:Greeter",
        "udp-client": "greeting:Greeter",
    }
    odd = folder / "odd-1.5.dist-info"
    odd.mkdir()
    (odd / "METADATA").write_text("Metadata-Version: 2.1\nName: odd\nVersion: 1.5\n")
    (odd / "entry_points.txt").write_text("[others]\nno value\n")
    lines = "".join(f"{name} = {value}\n" for name, value in entries.items())
    (info / "entry_points.txt").write_text(f"[uppercase.exercises]\n{lines}")
    # Another package has one of the names, too, and one is found in two places.
    for place, name, what in (
        (folder, "first", "twice = greeting:Greeter"),
        (folder, "second", "twice = greeting:Faulty"),
        (folder, "third", "seen = greeting:Greeter"),
        (tmp_path, "third", "seen = greeting:Greeter"),
    ):
        info = place / f"{name}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[uppercase.exercises]\n{what}\n")
    root = Path(__file__).parents[2]
    return {"PYTHONPATH": f"{root}:{folder}:{tmp_path}"}


def test_another_packages_exercise_is_graded(plugins: dict[str, str]) -> None:
    words = ["grade", "greeter", "--", sys.executable, "-c"]
    assert run_process(*words, "print('hello')", env=plugins).status == 0
    done = run_process(*words, "print('bye')", env=plugins)
    assert done.status == 1
    assert "expected 'hello', got 'bye\\n'" in done.stdout.decode()


def test_a_broken_exercise_is_a_sentence_and_the_others_are_there(
    plugins: dict[str, str],
) -> None:
    """So is one that two packages have: chance would decide by which a program is graded."""
    done = run_process("grade", "--list", env=plugins)
    assert done.status == 0
    for name in ("greeter", "seen"):
        assert re.search(f"(?m)^{name} +2  says hello$", done.stdout.decode())
    # Ours stay, whoever has their names.
    assert re.search("(?m)^udp-client +[0-9]+  (?!says hello)", done.stdout.decode())
    assert "Traceback" not in done.stderr
    for words in (
        "number (greeting:number, uppercase.exercises) is int; a class with @exercise",
        "empty (greeting:Empty, uppercase.exercises) has no check",
        "missing (no_such_module:x, uppercase.exercises) cannot be loaded: ModuleNotFoundError",
        "ending (ending:x, uppercase.exercises) cannot be loaded: SystemExit: \\x1b[2J",
        "udp-client (greeting:Greeter, uppercase.exercises): the name is taken",
        "worth (worth:Greeter, uppercase.exercises) cannot be loaded: UserError: points of "
        "'greets': got '2'; a whole number is accepted",
        "entry points of odd 1.5: they cannot be read (",
    ):
        assert words in done.stderr
    for name, why in (("missing", "cannot be loaded"), ("twice", "the name is taken")):
        done = run_process("grade", name, "--", "true", env=plugins)
        assert done.status == 2
        assert why in done.stderr


def test_a_check_that_fails_by_itself_is_not_the_programs_fault(plugins: dict[str, str]) -> None:
    done = run_process("grade", "faulty", "--", "true", env=plugins)
    assert done.status == 2
    assert "'divides' of faulty failed by itself, not the program: ZeroDivision" in done.stderr
    assert "Traceback" not in done.stderr
    done = run_process("grade", "quitting", "--", "true", env=plugins)
    assert done.status == 2
    assert "'quits' of quitting failed by itself, not the program: SystemExit\n" in done.stderr


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["x", "--", "y"], "no exercise"),
        ([], "no program"),
        (["udp-client", "--junit", "no/x.xml", "--", "true"], "there is no folder no"),
        (["udp-client", "python3", "-c", "1"], "'-c'; where it is the program's, put -- before"),
        (["udp-client", "--timeline", "--", "true"], "Did you mean '--timelines'?"),
        (["none.toml", "--", "y"], "cannot read none.toml"),
    ],
)
def test_a_mistake_is_one_sentence(words: list[str], sentence: str) -> None:
    done = run("grade", *words)
    assert done.status == 2
    assert sentence in done.stderr
