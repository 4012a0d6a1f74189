"""Builds the container and runs it as its manifests say: `python -m tests.deploy.container`.

By hand, as it takes a minute, podman and root. Where no registry can be reached, the base image is
a stand-in (`--stand-in`): this machine's Python with the libraries that it needs.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.system.processes import ROOT

IMAGE = "localhost/uppercase-test"
STAND_IN = "localhost/uppercase-test-base"

# What podman would raise, which not every root may.
LIMITS = ("--ulimit=nofile=4096:4096", "--ulimit=nproc=1024:1024")

# As Kubernetes runs it.
RUN = (
    *("--read-only", "--read-only-tmpfs=false", "--cap-drop=all"),
    *("--security-opt=no-new-privileges", "--network=none", *LIMITS),
)

ASK = """
import socket, sys, time, urllib.request
end = time.monotonic() + 30
while True:
    try:
        with urllib.request.urlopen("http://127.0.0.1:9100/readyz") as page:
            print(page.read().decode().strip())
        break
    except OSError:
        assert time.monotonic() < end
        time.sleep(0.05)
with socket.create_connection(("127.0.0.1", 12000)) as client:
    client.sendall(b"tcp")
    client.shutdown(socket.SHUT_WR)
    print(client.recv(100).decode())
with socket.socket(type=socket.SOCK_DGRAM) as client:
    client.sendto(b"udp", ("127.0.0.1", 12000))
    print(client.recv(100).decode())
"""

TOUCH = "open('/opt/uppercase/touched', 'w')"


def podman(*words: str | Path, runtime: str) -> str:
    """Run podman; return what it printed."""
    command = ["podman", "--runtime", runtime, "--cgroup-manager=cgroupfs", *words]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=500)
    return done.stdout.strip()


def make_stand_in(folder: Path, runtime: str) -> None:
    """Import an image with this Python, its libraries, a shell, and packages to install."""
    root = folder / "root"
    home, base = root / "usr" / "local", Path(sys.base_prefix)
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    skipped = shutil.ignore_patterns("site-packages", "test", "__pycache__", "config-*")
    shutil.copytree(base / "lib" / version, home / "lib" / version, ignore=skipped)
    for made in (root / "bin", root / "tmp", home / "bin"):
        made.mkdir(parents=True)
    shutil.copy("/bin/sh", root / "bin" / "sh")
    shutil.copy(base / "bin" / version, home / "bin" / version)
    for name in ("python", "python3"):
        (home / "bin" / name).symlink_to(version)
    programs = [root / "bin" / "sh", home / "bin" / version, *home.rglob("*.so")]
    listed = subprocess.run(["ldd", *programs], stdout=subprocess.PIPE, text=True, check=False)
    libraries = set(re.findall(r"(/\S+) \(0x", listed.stdout))
    (libc,) = (Path(each) for each in libraries if each.endswith("/libc.so.6"))
    # What wheels for any Linux may count on.
    for name in ("dl", "gcc_s", "m", "pthread", "rt", "stdc++", "util"):
        libraries |= {str(each) for each in libc.parent.glob(f"lib{name}.so.?")}
    for library in libraries:
        (root / library[1:]).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(library, root / library[1:])
    # A copy, as setuptools leaves a folder where it has built.
    source, wheels = folder / "source", root / "wheels"
    for name in ("uppercase", "twisted"):
        shutil.copytree(ROOT / name, source / name, ignore=skipped)
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    needed = [f"{source}[tls,metrics]", "setuptools>=64", "wheel"]
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--wheel-dir", wheels, *needed],
        check=True,
    )
    archive = folder / "root.tar"
    subprocess.run(["tar", "-C", root, "-cf", archive, "."], check=True)
    changes = [f"--change=ENV {each}" for each in ("PIP_NO_INDEX=1", "PIP_FIND_LINKS=/wheels")]
    path = "--change=ENV PATH=/usr/local/bin:/bin"
    podman("import", path, *changes, archive, STAND_IN, runtime=runtime)


def check(runtime: str) -> None:
    """Run the image, ask it, look at what it may do, and stop it."""

    def run(*words: str) -> str:
        return podman(*words, runtime=runtime)

    started = time.monotonic()
    name = run("run", "--detach", *RUN, IMAGE)
    try:
        python = ("exec", name, "/opt/uppercase/bin/python", "-c")
        assert run(*python, ASK).split() == ["ready", "TCP", "UDP"]
        print(f"it answers {time.monotonic() - started:.1f} s after its start")
        status = Path(f"/proc/{run('inspect', '--format={{.State.Pid}}', name)}/status").read_text()
        assert re.search(r"^Uid:\s+10000\s", status, re.M), status
        assert re.search(r"^CapEff:\s+0+$", status, re.M), status
        refused = subprocess.run(
            ["podman", "--runtime", runtime, *python, TOUCH], capture_output=True, check=False
        )
        assert b"Read-only file system" in refused.stderr, refused.stderr
        started = time.monotonic()
        run("stop", "--time=20", name)
        print(f"it ends {time.monotonic() - started:.1f} s after SIGTERM")
        logged = subprocess.run(
            ["podman", "logs", name], capture_output=True, text=True, check=True
        )
        print(logged.stdout + logged.stderr)
        assert run("inspect", "--format={{.State.ExitCode}}", name) == "0"
        assert "Traceback" not in logged.stdout + logged.stderr
    finally:
        run("rm", "--force", name)


def main() -> None:
    """Build, run, say how large it is, and remove what was made."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stand-in", action="store_true", help="no base image from a registry")
    parser.add_argument("--runtime", default="runc", help="or crun")
    wanted = parser.parse_args()
    runtime, base = wanted.runtime, ["--build-arg", f"BASE={STAND_IN}"]
    os.chdir(ROOT)
    if wanted.stand_in:
        with tempfile.TemporaryDirectory() as folder:
            make_stand_in(Path(folder), runtime)
    built = ["build", "--file=deploy/container/Containerfile", f"--tag={IMAGE}"]
    limits = ["--network=none", *LIMITS] if wanted.stand_in else []
    podman(*built, *limits, *(base if wanted.stand_in else []), ".", runtime=runtime)
    (image,) = json.loads(podman("image", "inspect", IMAGE, runtime=runtime))
    print(f"the image has {image['Size'] / 1e6:.0f} MB")
    check(runtime)


if __name__ == "__main__":
    main()
