"""`uppercase grade`: the lecture's programs get the marks they deserve, wrong ones theirs."""

import json
import sys
from pathlib import Path

import pytest

from tests.commands.command import command_line, run_process
from tests.system.processes import run
from tests.system.test_lecture import LECTURE

SERVER = """
import socket, sys
server = socket.create_server(("127.0.0.1", int(sys.argv[1])))
while True:
    skt, _ = server.accept()
    try:
        while data := skt.recv(65536):
            REPLY
    except OSError:
        pass
    skt.close()
"""

RIGHT = "skt.sendall(data.upper())"


def graded(exercise: str, path: Path) -> tuple[int, dict[str, str]]:
    """Return the exit status, and what was wrong by check."""
    words = ["grade", "--json", exercise, "--", sys.executable, str(path), "{port}"]
    done = run(command_line(*words), seconds=200)
    checks = json.loads(done.stdout)["checks"]
    return done.returncode, {
        each["check"]: each["sentence"] for each in checks if not each["passed"]
    }


def lecture(name: str, folder: Path) -> Path:
    """Write a program of the lecture that takes its port from the command line."""
    text = (LECTURE / name).read_text().replace("12000", "int(__import__('sys').argv[1])")
    path = folder / name
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("exercise", "name", "failed"),
    [
        ("tcp-server", "tcp_server.py", {"answers 100,000 bytes", "survives what is no text"}),
        ("udp-server", "udp_server.py", {"answers 8,000 bytes", "survives what is no text"}),
        ("tcp-client", "tcp_client.py", {"takes a reply in pieces"}),
        ("udp-client", "udp_client.py", {"ends without a reply"}),
    ],
)
def test_the_lectures_programs(exercise: str, name: str, failed: set[str], tmp_path: Path) -> None:
    status, wrong = graded(exercise, lecture(name, tmp_path))
    assert set(wrong) == failed
    assert status == 1


ALL = {
    "answers without a newline",
    "keeps a newline",
    "serves many clients in turn",
    "answers a half-closed client",
    "takes non-ASCII text",
    "answers 100,000 bytes",
    "survives what is no text",
}


@pytest.mark.parametrize(
    ("reply", "failed", "word"),
    [
        (RIGHT, set(), ""),
        # Swapped bytes.
        ("skt.sendall(data.upper()[::-1])", ALL, "got 'DLROW OLLEH'"),
        ("skt.sendall(data.upper().rstrip(b'\\n'))", {"keeps a newline"}, "nothing for 5 s"),
        ("pass", ALL, "nothing for 5 s"),
        # Never closing.
        (f"{RIGHT}; import time; time.sleep(600)", ALL - {"answers without a newline"}, ""),
    ],
    ids=["right", "swapped", "no-newline", "silent", "never-closing"],
)
def test_a_server(reply: str, failed: set[str], word: str, tmp_path: Path) -> None:
    path = tmp_path / "server.py"
    path.write_text(SERVER.replace("REPLY", reply))
    status, wrong = graded("tcp-server", path)
    assert status == (1 if failed else 0)
    if "never" not in reply and "sleep" not in reply:
        # The last bytes of the long message may be cut at a newline too.
        assert set(wrong) - {"answers 100,000 bytes"} == failed - {"answers 100,000 bytes"}
    else:
        assert {"serves many clients in turn", "answers a half-closed client"} <= set(wrong)
    assert not wrong or any(word in sentence for sentence in wrong.values())


def test_a_server_on_the_wrong_port(tmp_path: Path) -> None:
    path = tmp_path / "server.py"
    path.write_text("import sys; sys.exit('no port for me')")
    status, wrong = graded("udp-server", path)
    assert (status, len(wrong)) == (1, 7)
    assert all("nobody listens there" in sentence for sentence in wrong.values())
    assert all(sentence.endswith("no port for me") for sentence in wrong.values())


def test_the_exercises_are_listed() -> None:
    done = run_process("grade", "--list")
    assert done.status == 0
    names = {line.split()[0] for line in done.stdout.decode().splitlines()}
    assert {"tcp-server", "udp-server", "tcp-client", "udp-client", "udp-pinger"} <= names


def test_gradescope_gets_its_results(tmp_path: Path) -> None:
    path, results = lecture("tcp_client.py", tmp_path), tmp_path / "results.json"
    words = ["grade", "--gradescope", str(results), "tcp-client", "--", sys.executable, str(path)]
    assert run_process(*words, "{port}").status == 1
    scores = [
        (each["score"], each["max_score"]) for each in json.loads(results.read_text())["tests"]
    ]
    assert scores == [(2, 2), (3, 3), (1, 1), (0, 1)]


@pytest.mark.parametrize(
    ("words", "sentence"), [(["x", "--", "y"], "no exercise"), ([], "no program")]
)
def test_a_mistake_is_one_sentence(words: list[str], sentence: str) -> None:
    done = run_process("grade", *words)
    assert done.status == 2
    assert sentence in done.stderr
