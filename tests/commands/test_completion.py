"""Completion and manual pages, of the command and of the services: by the shells themselves."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pexpect
import pytest

from tests.commands.command import command_file, environment, run, run_process
from uppercase.__main__ import main
from uppercase.commands.generated import COMPLETE_TWISTD, PAGES
from uppercase.lab import TCP_PRESETS, UDP_PRESETS
from uppercase.taps import tcp, together, udp
from uppercase.taps._options import TableOptions

LINES = [
    ("twistd -n uppercase-tcp -t ca", ["caesar", "casefold"]),
    ("twistd -n uppercase-tcp -t strip --transform ro", ["rot13"]),
    ("twistd -n uppercase-tcp --framing in", ["int16", "int32"]),
    ("twistd -n uppercase-tcp --framing=seg", ["segment"]),
    ("twistd -n --pidfile= uppercase-tcp --lab ", list(TCP_PRESETS)),
    ("twistd -n uppercase-udp --lab ", list(UDP_PRESETS)),
    ("twistd -n uppercase-udp --max", ["--max-amplification", "--max-output", "--max-request"]),
    ("twistd --nod", ["--nodaemon"]),
    ("twistd uppercase --ch", ["--check"]),
    ("twistd uppercase-t", ["uppercase-tcp"]),
    ("uppercase se", ["send"]),
    ("uppercase send --on-loss sk", ["skip"]),
    ("uppercase run -t ro", ["rot13"]),
    ("uppercase ping --expect ro", ["rot13"]),
    ("uppercase transforms try ca", ["caesar", "casefold"]),
    ("uppercase transforms try --framing net", ["netstring"]),
    ("uppercase fates --lab sat", ["satellite"]),
    ("uppercase grade udp-c", ["udp-client"]),
    # Files: the shell knows their names.
    ("uppercase send --ca c", ["c"]),
    ("uppercase ping --unix s", ["s"]),
    ("uppercase run -u -- python3 s", ["s"]),
    ("uppercase grade udp-client -- s", ["s"]),
]
"""What is typed, and what completes its last word."""

IN_SHELLS = [LINES[number] for number in (0, 3, 4, 9, 16)]
"""What shells do in different ways: options and their values, apart and with `=`, and commands."""


@pytest.fixture
def found() -> Iterator[dict[str, str]]:
    """Return an environment in which a shell finds the command, and twistd."""
    with command_file() as folder:
        folders = [str(folder), str(Path(sys.executable).parent), os.environ["PATH"]]
        yield environment({"PATH": os.pathsep.join(folders)})


def ask(shell: str, *arguments: str, script: str, env: dict[str, str]) -> list[str]:
    """Return the lines that a script prints in a shell."""
    program = shutil.which(shell)
    assert program is not None
    done = subprocess.run(
        [program, *arguments, "-c", script],
        capture_output=True,
        text=True,
        env=env,
        timeout=120,
        check=True,
    )
    assert done.stderr == ""
    return done.stdout.splitlines()


@pytest.mark.parametrize(("line", "values"), LINES, ids=[line for line, _ in LINES])
def test_each_kind_of_word_is_completed(
    line: str,
    values: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """By what the scripts ask, which is bash's way here."""
    variable = COMPLETE_TWISTD if line.startswith("twistd") else "_UPPERCASE_COMPLETE"
    monkeypatch.setenv(variable, "bash_complete")
    monkeypatch.setenv("COMP_WORDS", line)
    with pytest.raises(SystemExit, match="0"):
        main([])
    answers = [row.partition(",")[2] for row in capsys.readouterr().out.splitlines()]
    assert sorted(answers) == sorted(values)


@pytest.mark.needs_program("bash")
def test_bash_completes(found: dict[str, str]) -> None:
    calls = [
        f"COMP_LINE='{line}'; COMP_POINT={len(line)}; COMPREPLY=(); "
        f'_{line.split()[0]}_completion uppercase; echo "${{COMPREPLY[*]}}"'
        for line, _ in IN_SHELLS
    ]
    script = 'eval "$(uppercase completion bash)"\n' + "\n".join(calls)
    shown = ask("bash", "--norc", script=script, env=found)
    assert [sorted(line.split()) for line in shown] == [sorted(values) for _, values in IN_SHELLS]


@pytest.mark.needs_program("fish")
def test_fish_completes_and_explains(found: dict[str, str]) -> None:
    script = "uppercase completion fish | source\n" + "".join(
        f"complete -C '{line}'; echo\n" for line, _ in IN_SHELLS
    )
    shown = ask("fish", "--no-config", script=script, env=found)
    answers = "\n".join(shown).strip().split("\n\n")
    for (line, values), answer in zip(IN_SHELLS, answers, strict=True):
        offered = dict(row.split("\t") for row in answer.splitlines())
        option, equals, _ = line.rpartition(" ")[2].rpartition("=")
        assert sorted(offered) == sorted(f"{option}{equals}{value}" for value in values)
        assert all(offered.values())
        if "satellite" in offered:
            assert offered["satellite"] == UDP_PRESETS["satellite"].summary


@pytest.mark.needs_program("zsh")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # The child only executes.
def test_zsh_completes_and_explains(found: dict[str, str]) -> None:
    zsh = pexpect.spawn("zsh", ["-f", "-i"], env=found, dimensions=(60, 200), timeout=60)
    try:
        zsh.sendline(
            "PS1='%% '; unsetopt zle_bracketed_paste; autoload -U compinit; compinit -u -D"
        )
        zsh.sendline('eval "$(uppercase completion zsh)"; echo rea""dy')
        zsh.expect_exact("ready")
        zsh.send("twistd uppercase-udp --lab \t")
        zsh.expect_exact("-- a geostationary hop each way, 240 to 280 ms")
        zsh.sendcontrol("u")
        zsh.send("twistd uppercase-tcp --framing=seg\t --version\r")
        zsh.expect_exact("--framing=segment")
        zsh.expect_exact("uppercase 0.")
    finally:
        zsh.close(force=True)


def test_a_service_that_cannot_be_imported_completes_nothing_and_says_nothing(
    tmp_path: Path,
) -> None:
    drop_in = tmp_path / "twisted" / "plugins" / "acme_service.py"
    drop_in.parent.mkdir(parents=True)
    drop_in.write_text(
        "from twisted.application.service import ServiceMaker\n"
        "acme = ServiceMaker('Acme', 'no_such_module', 'It lacks something.', 'acme')\n"
    )
    asked = {"_UPPERCASE_COMPLETE_TWISTD": "bash_complete", "COMP_CWORD": "2"}
    found = environment()["PYTHONPATH"]
    for line, answer in (("twistd acme --p", b""), ("twistd -n acm", b"plain,acme\n")):
        env = {**asked, "COMP_WORDS": line, "PYTHONPATH": f"{tmp_path}{os.pathsep}{found}"}
        outcome = run_process(env=env, fresh=True)
        assert (outcome.status, outcome.stdout, outcome.stderr) == (0, answer, "")


@pytest.mark.parametrize(
    ("page", "options"),
    list(zip(PAGES[1:], (tcp.Options, udp.Options, together.Options), strict=True)),
)
def test_the_manual_page_of_a_service_has_its_options(
    page: str, options: type[TableOptions]
) -> None:
    shown = run("man", page).stdout.decode()
    assert shown.startswith(f".TH {page.upper()} 1 ")
    for section in options.sections:
        for row in section.options:
            assert f"\\-\\-{row.name.replace('-', chr(92) + '-')}" in shown
