"""Runs the tests on the Pythons, Twisteds and reactors that are supported: `make matrix`.

uv fetches the Pythons and makes an environment for each. Prints a table; `--write FILE` puts it
into a page. A Python that cannot be fetched is a row, too, and the exit status is 1.
"""

import argparse
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

ROOT = Path(__file__).parents[1]
PYTHONS = ("3.11", "3.12", "3.13", "3.14", "3.15")
OLDEST = ("twisted==24.7.0", "zope.interface==6.2")
"""`install_requires` says so as well."""

ROOMS = ("tests/tcp", "tests/udp", "tests/client", "tests/services")
"""What runs in the process of the tests, and so on the reactor that this has."""

_OURS = "import twisted.internet.default as it, twisted.internet.{0} as of; it.install = of.install"
_REACTORS = {
    "poll": (_OURS.format("pollreactor"), "default"),
    "select": (_OURS.format("selectreactor"), "default"),
    "asyncio": ("from twisted.internet.asyncioreactor import install; install()", "asyncio"),
    "asyncio on uvloop": (
        "import uvloop; from twisted.internet.asyncioreactor import install; "
        "install(uvloop.new_event_loop())",
        "asyncio",
    ),
}
"""What is executed first, and the `--reactor` of pytest-twisted, which knows no other names."""


@dataclass(frozen=True, slots=True)
class Row:
    """A combination, and what became of it."""

    python: str
    twisted: str
    reactor: str
    tests: str
    result: str


def environment(python: str, pins: Sequence[str]) -> Path:
    """Return the interpreter of an environment with our package and what its tests need.

    Raises:
        CalledProcessError: this Python or what is pinned cannot be had.
    """
    folder = ROOT / "build" / "matrix" / f"{python}-{'oldest' if pins else 'newest'}"
    uv = [sys.executable, "-m", "uv", "--quiet"]
    interpreter = folder / "bin" / "python"
    subprocess.run([*uv, "venv", "--clear", "--seed", "--python", python, folder], check=True)
    wanted = ["--editable", f"{ROOT}[tls,test]", *pins]
    subprocess.run([*uv, "pip", "install", "--python", str(interpreter), *wanted], check=True)
    return interpreter


def answer(interpreter: Path, statement: str) -> str:
    """Return what a statement prints."""
    command = [str(interpreter), "-c", statement]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def tested(interpreter: Path, reactor: str, everything: bool) -> Row:
    """Run all tests, or those of the rooms; on another reactor than Twisted's choice only these."""
    start, known = _REACTORS.get(reactor, ("", "default"))
    everything = everything and reactor not in _REACTORS
    scope = ("--numprocesses=auto", "--dist=worksteal") if everything else ROOMS
    program = f"{start}\nimport sys, pytest; sys.exit(pytest.main(sys.argv[1:]))"
    options = ("-q", "-p", "no:cacheprovider", f"--reactor={known}")
    command = [str(interpreter), "-c", program, *options, *scope]
    done = subprocess.run(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    (interpreter.parent / f"{reactor}.log").write_text(done.stdout)
    summary = re.findall(r"(\d+) (passed|failed|skipped|errors?)", done.stdout[-300:])
    said = ", ".join(f"{count} {word}" for count, word in summary) or f"status {done.returncode}"
    return Row(
        answer(interpreter, "import platform; print(platform.python_version())"),
        answer(interpreter, "import twisted; print(twisted.__version__)"),
        reactor,
        "all" if everything else "rooms",
        said,
    )


def rows(everything: bool) -> list[Row]:
    """Return a row for each combination, printed as it is known."""
    done: list[Row] = []

    def add(row: Row) -> None:
        done.append(row)
        print(*(getattr(row, name) for name in Row.__slots__), sep=" | ", flush=True)

    combinations = [(python, ()) for python in PYTHONS] + [(PYTHONS[0], OLDEST)]
    for python, pins in combinations:
        try:
            interpreter = environment(python, pins)
        except subprocess.CalledProcessError:
            add(
                Row(
                    python,
                    "oldest" if pins else "newest",
                    "epoll",
                    "none",
                    "not run: it could not be had",
                )
            )
            continue
        add(tested(interpreter, "epoll", everything))
        if python == PYTHONS[0]:
            for reactor in _REACTORS:
                add(tested(interpreter, reactor, everything))
    return done


def page(table: list[Row]) -> str:
    """Return the page that shows a table."""
    lines = [
        "# What was run",
        "",
        f"`make matrix` made this table on {date.today()}. *all* are all tests, *rooms* those that",
        f"run on the reactor of their own process: {', '.join(f'`{room}`' for room in ROOMS)}.",
        "",
        "| Python | Twisted | reactor | tests | result |",
        "| --- | --- | --- | --- | --- |",
        *(f"| {r.python} | {r.twisted} | {r.reactor} | {r.tests} | {r.result} |" for r in table),
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run the matrix."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", metavar="FILE", type=Path, help="the page to write")
    parser.add_argument("--rooms", action="store_true", help="no tests but those of the rooms")
    arguments = parser.parse_args()
    table = rows(not arguments.rooms)
    if arguments.write:
        arguments.write.write_text(page(table))
    sys.exit(not all(re.fullmatch(r"\d+ passed(, \d+ skipped)?", row.result) for row in table))


if __name__ == "__main__":
    main()
