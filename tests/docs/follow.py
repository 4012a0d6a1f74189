"""Follows a page as a reader does: saves its files, starts its servers, types its commands.

What a page has to say for that is in comments before its blocks, which readers do not see:

    <!-- file: PATH -->    the Python block is that file; a copy of it is saved under its name
    <!-- save: NAME -->    the Python block is saved under that name
    <!-- installs -->      was done before: what is followed has no network but its own
    <!-- server -->        the command goes on in the first terminal, after what went on there was
                           ended; each line of a block for `sh` has a terminal of its own
    <!-- stop -->          that server is ended first
    <!-- typed: TEXT -->   is typed at the prompt of the command
    <!-- dialogue: TEXT -->  the same with a program that then waits for more: Ctrl-C ends it

A `.` command (`. .venv/bin/activate`) counts for those that follow, as in a terminal.

In what a page shows, `…` stands for anything within a line.
"""

import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pexpect

from tests.system.processes import ROOT, START_TIMEOUT, environment, restore_signals

_BLOCK = re.compile(
    r"(?:^<!-- (\w+)(?:: (.*?))? -->\n)?^```(python|console|sh)\n(.*?)^```",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Block:
    """A block of a page: what its comment says, its language and its text."""

    word: str
    value: str
    language: str
    text: str


def blocks(page: Path) -> Iterator[Block]:
    """Return the blocks of a page that are for Python, for a terminal or for a shell."""
    for word, value, language, text in _BLOCK.findall(page.read_text()):
        yield Block(word, value, language, text)


class Reader:
    """Who follows a page in a folder.

    Args:
        folder: where they work; files stay from page to page.
        programs: where the commands are.
        known: whether the shell finds them before a page activates an environment.
    """

    def __init__(self, folder: Path, programs: Path, known: bool) -> None:
        self._folder = folder
        self._known = known
        self._programs = programs
        self._activation = ""
        self._servers: list[pexpect.spawn[str]] = []

    def follow(self, page: Path) -> int:
        """Do all that a page says; return how many commands it had."""
        commands = 0
        for block in blocks(page):
            if block.language == "python":
                self._take(block)
            elif block.language == "sh":
                if block.word == "server":
                    commands += self._serve(block)
            elif block.word != "installs":
                commands += self._type(block)
        return commands

    def _take(self, block: Block) -> None:
        if block.word == "save":
            (self._folder / block.value).write_text(block.text)
        if block.word != "file":
            return
        source = ROOT / block.value
        assert source.read_text() == block.text, f"the page shows {block.value} as it was"
        (self._folder / source.name).write_text(block.text)

    def _environment(self) -> dict[str, str]:
        ours = str(Path(sys.executable).parent)
        parts = [part for part in os.environ["PATH"].split(os.pathsep) if part != ours]
        path = os.pathsep.join([str(self._programs)] * self._known + parts)
        return environment(PATH=path, TERM="dumb", COLUMNS="200")

    def _start(self, command: str) -> "pexpect.spawn[str]":
        return pexpect.spawn(
            "bash",
            ["-c", self._activation + command],
            cwd=str(self._folder),
            env=self._environment(),
            encoding="utf-8",
            timeout=START_TIMEOUT,
            preexec_fn=restore_signals,
        )

    def _serve(self, block: Block) -> int:
        self.end()
        for command in block.text.splitlines():
            self._servers.append(self._start(command))
            self._servers[-1].expect("ready")
        return len(self._servers)

    def _type(self, block: Block) -> int:
        if block.word in ("server", "stop"):
            self.end()
        steps = re.findall(r"^\$ (.*\n(?:(?!\$ ).*\n)*)", block.text, re.MULTILINE)
        for step in steps:
            command, _, shown = step.partition("\n")
            if command.startswith(". "):
                self._activation = command.partition("#")[0].strip() + " && "
                continue
            child = self._start(command)
            if block.word == "server":
                self._servers.append(child)
                see(child, shown)
                continue
            if block.word == "dialogue":
                self._talk(child, block.value, shown)
                continue
            if block.word == "typed":
                child.expect_exact(shown.split(block.value)[0])
                child.sendline(block.value)
                shown = shown.partition(block.value)[2].lstrip("\n")
            child.expect(pexpect.EOF)
            said = (child.before or "").replace("\r\n", "\n")
            # Clients say so where a machine is so busy that it takes a while.
            said = re.sub(r"uppercase: connecting to .* \.\.\.\n", "", said)
            if block.word == "typed":
                said = said.removeprefix(block.value).lstrip("\n")
            child.close()
            assert re.fullmatch(pattern(shown.rstrip()), said.rstrip()), (
                f"$ {command}\n{said}\ninstead of\n{shown}"
            )
        return len(steps)

    def _talk(self, child: "pexpect.spawn[str]", typed: str, shown: str) -> None:
        child.sendline(typed)
        see(child, shown)
        child.sendintr()
        child.expect(pexpect.EOF)
        child.close()

    def end(self) -> None:
        """End the servers."""
        while self._servers:
            server = self._servers.pop()
            server.sendintr()
            server.expect(pexpect.EOF)
            server.close()


def see(child: "pexpect.spawn[str]", shown: str) -> None:
    """Wait for each line that a page shows."""
    for line in shown.splitlines():
        # A dot is any character in a pattern that pexpect compiles, and in ours no newline.
        child.expect(re.compile(pattern(line)))


def pattern(shown: str) -> str:
    """Return a pattern for what a page shows; spaces behind a `…` are there for its columns."""
    return re.sub(r"…(?:\\ )*", ".*", re.escape(shown))
