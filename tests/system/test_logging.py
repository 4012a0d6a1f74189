"""The log as operators have it: formats under both runners, and a file that logrotate renames."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.system.processes import READY, Server, connect, ended, environment, refused, tool


@pytest.mark.parametrize("runner", ["twistd", "twist"])
def test_json_is_an_object_a_line(runner: str) -> None:
    options = ["uppercase-tcp", "--port=0", "--log-format=json", "--log-peers"]
    with Server(*options, runner=runner) as server:
        connect(server.port).close()
        server.wait_for_log('"event": "closed"')
        lines = [json.loads(line) for line in server.log().splitlines()]
    words = [line["event"] for line in lines if line["event"] != "log"]
    assert words == ["ready", "ready", "opened", "closed"]
    assert lines[-1]["outcome"] == "finished"


@pytest.mark.parametrize("workers", [[], ["--workers=1", "--watchdog=80s"]])
def test_json_is_utf_8_whatever_the_locale(tmp_path: Path, workers: list[str]) -> None:
    """Its readers stop at a line that is none; and what a transform prints is no fault of it."""
    (tmp_path / "loud.py").write_text(
        "def loud(text: str, *, mark: str) -> str:\n"
        "    print('\\xe9 \\U0001f600 it is')\n"
        "    return text\n"
    )
    options = ["uppercase-tcp", "--port=0", "--log-format=json", "-t", "loud:loud:mark=\udcff"]
    # As it is for users: what a worker prints is not held back until there is more of it.
    surroundings = {"PYTHONIOENCODING": "ascii", "PYTHONUNBUFFERED": ""}
    with Server(*options, *workers, cwd=tmp_path, env=surroundings) as server:
        with connect(server.port) as client:
            client.sendall(b"hello\n")
        server.wait_for_log(" it is")
        texts = [json.loads(line)["text"] for line in server.log().splitlines()]
    for said in ("(loud:loud:mark=\\udcff; framing line)", "\xe9 \U0001f600 it is"):
        assert any(text.endswith(said) for text in texts), said


def test_a_format_needs_a_place_that_takes_it() -> None:
    said = refused("--syslog", "uppercase-tcp", "--log-format=json")
    assert "got --log-format=json beside twistd's --syslog" in said
    daemon = [tool("twistd"), "--pidfile=", "--logfile=-", "uppercase-tcp", "--port=0"]
    assert ended(daemon, None) == (1, "Daemons cannot log to stdout, exiting!\n")
    said = refused("uppercase-tcp", "--log-format=yaml")
    assert "--log-format: no format named 'yaml'; known are json, text" in said


def test_logrotate_needs_no_signal_and_sigusr1_rotates_as_ever(tmp_path: Path) -> None:
    """With a daemon, which also shows that the file survives its parent.

    Whoever starts it has closed its standard input, as scripts do.
    """
    path, pid = tmp_path / "service.log", tmp_path / "service.pid"
    options = ["uppercase-tcp", "--port=0", "--interface=127.0.0.1", "--log-peers"]
    subprocess.run(
        [tool("twistd"), f"--logfile={path}", f"--pidfile={pid}", *options],
        cwd=tmp_path,
        env=environment(),
        timeout=60,
        check=True,
        preexec_fn=lambda: os.close(0),
    )
    number = int(pid.read_text())
    try:
        log = wait_for(path, "can reach it")
        found = READY.search(log)
        assert found, log
        port = int(found[2].rpartition(":")[2])
        path.rename(tmp_path / "service.log.old")
        connect(port).close()
        assert "starting up" not in wait_for(path, " closed: ")
        os.kill(number, signal.SIGUSR1)
        wait_for(tmp_path / "service.log.1", " closed: ")
        connect(port).close()
        wait_for(path, " closed: ")
    finally:
        os.kill(number, signal.SIGTERM)
    wait_for(path, "Server Shut Down")


def wait_for(path: Path, text: str) -> str:
    """Wait until a file has a text; return all of it."""
    deadline = time.monotonic() + 30
    while not (path.exists() and text in path.read_text()):
        assert time.monotonic() < deadline, f"no {text!r} in {path}"
        time.sleep(0.02)
    return path.read_text()
