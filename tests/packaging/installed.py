"""What an environment with the package in it has to do, and one without it again.

The tests look at it for the running Python, and `make release` for all that are supported.
"""

import base64
import csv
import hashlib
import os
import subprocess
from pathlib import Path

DROPINS = {"twisted/plugins/uppercase_services.py", "twisted/plugins/uppercase_transforms.py"}

_PROBE = """\
import re, socket, subprocess, sys, time
kind, twistd = sys.argv[1:]
log = open(kind + '.log', 'w+')
server = subprocess.Popen([twistd, '-n', '--pidfile=', kind, '--port=0'], stdout=log, stderr=log)
try:
    for _ in range(3000):
        log.seek(0)
        found = re.search(r'ready to receive: \\w+ 127.0.0.1:(\\d+)', log.read())
        if found: break
        time.sleep(0.02)
    udp = kind.endswith('udp')
    client = socket.socket(type=socket.SOCK_DGRAM if udp else socket.SOCK_STREAM)
    client.settimeout(60)
    client.connect(('127.0.0.1', int(found[1])))
    client.send(b'hello')
    print(client.recv(1024).decode())
    client.close()
finally:
    server.terminate(); server.wait()
"""
"""Asks a service that it starts; in the environment's own Python, so that nothing of ours helps."""


def python(folder: Path) -> Path:
    """Return the interpreter of a virtual environment."""
    return folder / "bin" / "python"


def run(*command: str | Path, cwd: Path) -> str:
    """Run a command outside the checkout and without its paths."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(
        command, cwd=cwd, env=env, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, f"{command}:\n{done.stdout}{done.stderr}"
    return done.stdout


def check_services(folder: Path, work: Path) -> None:
    """Have both services of an environment answer, from any directory."""
    for kind in ("uppercase-tcp", "uppercase-udp"):
        twistd = folder / "bin" / "twistd"
        assert run(python(folder), "-c", _PROBE, kind, twistd, cwd=work) == "HELLO\n"


def check_nothing_is_left(folder: Path) -> None:
    """Compare each file of Twisted's own record with its hash, and look for drop-ins of ours."""
    site = next(folder.glob("lib/python*/site-packages"))
    record = next(site.glob("[Tt]wisted-*.dist-info")) / "RECORD"
    for name, digest, _ in csv.reader(record.read_text().splitlines()):
        if digest:
            algorithm, _, expected = digest.partition("=")
            found = hashlib.new(algorithm, (site / name).read_bytes()).digest()
            assert base64.urlsafe_b64encode(found).rstrip(b"=").decode() == expected, name
    assert not [name for name in DROPINS if (site / name).exists()]
    assert "uppercase" not in run(folder / "bin" / "twistd", "--help", cwd=folder)
