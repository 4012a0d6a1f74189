"""`uppercase transforms`: what an author needs besides an editor."""

import ast
import builtins
import contextlib
import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import termios
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from twisted.internet.threads import deferToThread
from twisted.python.filepath import FilePath

from tests.client.in_reactor import in_reactor
from tests.commands.command import Outcome, Piped, environment, run_process
from tests.packaging.environments import make_environment, needed
from uppercase.__main__ import main
from uppercase.commands.scaffold import _FILES
from uppercase.registry.doctor import diagnose
from uppercase.testing import check

SHOUT = "def shout(text: str) -> str:\n    return text.upper() + '!'\n"


def run(*arguments: str, cwd: Path, data: bytes = b"", fresh: bool = False, **env: str) -> Outcome:
    return run_process("transforms", *arguments, data=data, env=env, cwd=cwd, fresh=fresh)


class Within:
    """Runs the command in the tests' own process, for what does not depend on a fresh one."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *arguments: str) -> Outcome:
        status = main(["transforms", *arguments])
        printed = self._capsys.readouterr()
        return Outcome(status, printed.out.encode(), printed.err)


@pytest.fixture
def within(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Within]:
    """Return what runs the command in the author's folder, without a process of its own."""
    monkeypatch.chdir(here)
    # The messages that are always tried are enough; a few are drawn to see that they are.
    monkeypatch.setattr("uppercase.testing.check", partial(check, count=10))
    before = set(sys.modules)
    yield Within(capsys)
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(here)):
            del sys.modules[name]


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """Return an author's folder, with a module and nothing installed."""
    folder = tmp_path / "here"
    folder.mkdir()
    (folder / "mine.py").write_text(SHOUT)
    return folder


def drop_in(folder: Path, name: str, text: str) -> Path:
    file = folder / "twisted" / "plugins" / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


PLUGIN = """
from uppercase import transform

@transform
def {name}(text: str, *, times: int = 2) -> str:
    "Say it again."
    return text * times
"""


def test_list_tells_what_there_is_and_from_where(here: Path) -> None:
    file = drop_in(here, "acme.py", PLUGIN.format(name="again"))
    listed = run("list", cwd=here)
    assert (listed.status, listed.stderr) == (0, "")
    header, *lines = listed.stdout.decode().splitlines()
    assert header.split() == ["name", "kind", "streams", "arguments", "summary", "from"]
    assert lines[0].startswith("again            text   messages  times      Say it again. ")
    assert lines[0].endswith(str(file))
    assert [line.split()[0] for line in lines] == sorted(line.split()[0] for line in lines)


def test_list_json_is_an_object_a_line(here: Path) -> None:
    listed = run("list", "--json", cwd=here)
    objects = [json.loads(line) for line in listed.stdout.splitlines()]
    (caesar,) = (item for item in objects if item["name"] == "caesar")
    assert caesar.pop("from") == "built in"
    assert caesar == {
        "name": "caesar",
        "kind": "bytes",
        "streams": True,
        "arguments": ["shift: whole number, default 13"],
        "summary": "Letters shifted by a fixed distance",
    }


def test_list_goes_on_when_a_plugin_is_broken_and_names_it(here: Path) -> None:
    file = drop_in(here, "acme.py", "import no_such_module")
    listed = run("list", cwd=here)
    assert listed.status == 0
    assert b"\nuppercase " in listed.stdout
    assert f"cannot be used: {file}, line 1: No module named 'no_such_module'" in listed.stderr
    assert "uppercase transforms doctor" in listed.stderr
    assert "Traceback" not in listed.stderr


def test_list_names_what_is_announced_and_cannot_be_loaded(here: Path, tmp_path: Path) -> None:
    installed(tmp_path / "site", "acme", "[uppercase.transforms]\nloud = mine:whisper\n")
    packages = os.pathsep.join([environment()["PYTHONPATH"], str(tmp_path / "site")])
    listed = run("list", cwd=here, PYTHONPATH=packages)
    assert listed.status == 0
    assert b"\nuppercase " in listed.stdout
    assert "cannot be used: loud: 'mine:whisper' cannot be loaded: " in listed.stderr


def test_on_a_terminal_list_fits_its_width(here: Path) -> None:
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 80))
    with Piped("transforms", "list", stdout=theirs, cwd=here) as process:
        os.close(theirs)
        shown = b""
        with contextlib.suppress(OSError):  # Linux's way to tell of a terminal's end.
            while data := os.read(ours, 1 << 16):
                shown += data
        os.close(ours)
        assert process.finish().status == 0
    lines = shown.decode().splitlines()
    assert "uppercase" in shown.decode()
    assert max(map(len, lines)) <= 80


def test_on_a_terminal_try_answers_each_line(here: Path) -> None:
    ours, theirs = pty.openpty()
    with Piped("transforms", "try", "reverse", stdin=theirs, cwd=here) as process:
        os.close(theirs)
        os.write(ours, b"ab\ncd\n\x04")
        assert process.finish() == Outcome(0, b"ba\ndc\n", "")
    os.close(ours)


def test_show_tells_the_arguments_of_one(here: Path) -> None:
    shown = run("show", "caesar", cwd=here)
    assert shown.status == 0
    assert b"shift: whole number, default 13" in shown.stdout
    assert b"shout" in run("show", "mine:shout", cwd=here).stdout


def test_a_mistake_is_one_sentence_and_status_2(here: Path, within: Within) -> None:
    for command in ("show", "check"):
        mistaken = within(command, "ceasar")
        assert mistaken.status == 2
        assert mistaken.stderr == (
            "uppercase: no transform named 'ceasar'; did you mean 'caesar'?\n"
        )
    assert within("frobnicate").status == 2
    tried = run("try", "ceasar", cwd=here)
    assert (tried.status, tried.stderr) == (2, mistaken.stderr)


def test_try_runs_a_chain_without_a_socket(here: Path) -> None:
    tried = run("try", "strip", "caesar:shift=3", "mine:shout", cwd=here, data=b" hello\n")
    assert tried == Outcome(0, b"KHOOR!", "")


def test_try_needs_an_input(here: Path, within: Within, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    tried = within("try", "uppercase")
    assert (tried.status, tried.stdout) == (2, b"")
    assert "standard input is closed; to try nothing, use </dev/null" in tried.stderr


def test_try_streams_if_the_chain_can_and_else_takes_all_as_one_message(here: Path) -> None:
    data = os.urandom(1 << 20)
    assert run("try", "identity", "rot13", "rot13", cwd=here, data=data).stdout == data
    assert run("try", "reverse", cwd=here, data=b"a\nb\n").stdout == b"\nb\na"


def test_try_takes_each_line_for_a_message_where_it_is_asked_to(here: Path) -> None:
    tried = run("try", "reverse", "--framing=line", cwd=here, data=b"ab\r\ncd")
    assert tried == Outcome(0, b"ba\r\ndc", "")
    refused = run("try", "reverse", "--framing=lines", cwd=here)
    assert refused == Outcome(
        2, b"", "uppercase: no framing named 'lines' for a file; did you mean 'line'?\n"
    )


def test_try_ends_with_1_and_a_sentence_when_the_transform_fails(here: Path) -> None:
    tried = run("try", "hex-decode", "--framing=line", cwd=here, data=b"6869\nxyz\n")
    assert (tried.status, tried.stdout) == (1, b"hi\n")
    assert tried.stderr.startswith("uppercase: transform 'hex-decode' failed: ")
    assert tried.stderr.endswith(
        "got byte 0x78 (x) at offset 0: hexadecimal is made of 0-9, a-f and A-F\n"
    )
    assert tried.stderr.count("\n") == 1
    debugged = run("try", "hex-decode", "--debug", cwd=here, data=b"xyz")
    assert "Traceback" in debugged.stderr
    bounded = run("try", "hex-encode", "--max-output=3", cwd=here, data=b"abc")
    assert bounded.status == 1
    assert "over the limit of 3 (--max-output)" in bounded.stderr


def test_what_an_author_prints_is_seen_at_once(here: Path) -> None:
    (here / "printing.py").write_text(
        "import os, sys\n\ndef f(text: str) -> str:\n    print('here', file=sys.stderr)\n"
        "    os._exit(7)\n"
    )
    tried = run("try", "printing:f", cwd=here, data=b"hi")
    assert (tried.status, tried.stderr) == (7, "here\n")


def test_try_waits_for_awaited_replies(here: Path) -> None:
    (here / "slowly.py").write_text(
        """
from twisted.internet.task import deferLater
from uppercase import transform

async def later(text: str) -> str:
    from twisted.internet import reactor
    await deferLater(reactor, 0.01)
    return text.upper()

@transform(blocking=True)
def blocking(text: str) -> str:
    return text + "."
"""
    )
    tried = run("try", "slowly:later", "slowly:blocking", "-f", "line", cwd=here, data=b"a\nb\n")
    assert tried == Outcome(0, b"A.\nB.\n", "")


def test_try_waits_for_the_end_of_a_program(here: Path) -> None:
    """Which a reactor is told of by a signal, and this one has no handlers."""
    (here / "programs.py").write_text(
        """
from twisted.internet.utils import getProcessOutput

async def runs(text: str) -> str:
    from twisted.internet import reactor
    program = "echo done; exec >&- 2>&-; sleep 0.2"
    return (await getProcessOutput("/bin/sh", ["-c", program], reactor=reactor)).decode()
"""
    )
    with Piped("transforms", "try", "programs:runs", cwd=here) as process:
        process.stdin.close()
        assert process.wait(20) == 0
        assert process.stdout.read() == b"done\n"


@pytest.mark.parametrize("name", ["never", "hangs"])
def test_ctrl_c_ends_the_wait_for_a_reply(here: Path, name: str) -> None:
    """Of the reactor, and of a thread of its pool."""
    (here / "slowly.py").write_text(
        """
import sys
import time
from twisted.internet.task import deferLater
from uppercase import transform

async def never(text: str) -> str:
    from twisted.internet import reactor
    reactor.callLater(0.1, print, "waiting", file=sys.stderr, flush=True)
    return await deferLater(reactor, 60, str)

@transform(blocking=True)
def hangs(text: str) -> str:
    print("waiting", file=sys.stderr, flush=True)
    time.sleep(60)
    return text
"""
    )
    with Piped("transforms", "try", f"slowly:{name}", cwd=here) as process:
        process.stdin.close()
        assert process.stderr.readline() == b"waiting\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == -signal.SIGINT


def test_a_ctrl_c_that_another_thread_gets_ends_the_wait_too(here: Path) -> None:
    """As one that comes just before the wait, it does not wake the main thread."""
    (here / "slowly.py").write_text(
        """
import signal
import threading
import time
from uppercase import transform

@transform(blocking=True)
def hangs(text: str) -> str:
    time.sleep(0.1)
    signal.pthread_kill(threading.get_ident(), signal.SIGINT)
    time.sleep(60)
    return text
"""
    )
    with Piped("transforms", "try", "slowly:hangs", cwd=here) as process:
        process.stdin.close()
        assert process.wait(20) == -signal.SIGINT


def test_check_tells_of_every_law_and_ends_with_0(here: Path) -> None:
    checked = run("check", "mine:shout", cwd=here)
    assert (checked.status, checked.stderr) == (0, "")
    *laws, summary = checked.stdout.decode().splitlines()
    assert len(laws) == 10
    assert all(line.startswith("kept ") for line in laws)
    assert summary.startswith("10 of 10 laws are kept; for messages of up to 64 KiB")
    assert not (here / ".hypothesis").exists()


def test_check_needs_no_folder_for_what_is_temporary(
    within: Within, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A container may have none that can be written."""
    monkeypatch.setattr("tempfile.tempdir", "/nonexistent")
    assert within("check", "rot13").status == 0


def test_check_shows_the_smallest_case_of_a_broken_law_and_ends_with_1(
    here: Path, within: Within
) -> None:
    (here / "first.py").write_text("def first(text: str) -> str:\n    return text[0]\n")
    checked = within("check", "first:first")
    assert checked.status == 1
    lines = checked.stdout.decode().splitlines()
    assert lines[1].startswith("BROKEN  messages ")
    assert lines[2].strip().startswith("transform(b'') raised IndexError")
    assert lines[-1].startswith("9 of 10 laws are kept")


def test_check_says_what_it_left_out_and_that_a_call_held_others_up(
    within: Within, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hurried(*arguments: Any, **options: Any) -> Any:
        return replace(check(*arguments, count=1, **options), left_out="some", seconds=0.2)

    monkeypatch.setattr("uppercase.testing.check", hurried)
    *_, left_out, kept, held_up = within("check", "rot13").stdout.decode().splitlines()
    assert left_out == "some"
    assert kept.endswith("the slowest call took 200 ms")
    assert held_up.startswith("a call kept everybody else waiting for that long")


def test_check_without_its_library_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "hypothesis", None)
    monkeypatch.delitem(sys.modules, "uppercase.testing._laws")
    monkeypatch.delitem(sys.modules, "uppercase.testing._examination")
    assert main(["transforms", "check", "rot13"]) == 2
    assert "pip install 'twisted-uppercase[testing]'" in capsys.readouterr().err


def test_check_tries_the_messages_that_it_is_given(here: Path, within: Within) -> None:
    (here / "odd.py").write_text(
        "def odd(text: str) -> str:\n    return text if 'sesame' not in text else text[99]\n"
    )
    assert within("check", "odd:odd").status == 0
    assert within("check", "odd:odd", "--example", "open sesame").status == 1


def test_debug_shows_where_the_authors_code_failed(here: Path) -> None:
    (here / "mine.py").write_text("import no_such_module\n")
    plain = run("show", "mine:shout", cwd=here)
    assert plain.status == 2
    assert plain.stderr.count("\n") == 1
    assert "mine.py, line 1: No module named 'no_such_module'" in plain.stderr
    assert "Traceback" in run("show", "mine:shout", "--debug", cwd=here).stderr


def test_doctor_finds_nothing_wrong_where_nothing_is(here: Path) -> None:
    """Emacs' lock of a file that is being edited, a link to nowhere, is none of the drop-ins."""
    nowhere = run("doctor", cwd=here).stdout.decode()
    assert f"{here}/twisted/plugins: no such folder" in nowhere
    assert "/lib-dynload/" not in nowhere
    assert "(uppercase.transforms):\n  none in any distribution that is installed\n" in nowhere
    drop_in(here, "mine.py", "from typing import Any").with_name(".#mine.py").symlink_to(
        "author@machine.123"
    )
    asked = run("doctor", cwd=here)
    said = asked.stdout.decode()
    assert asked.status == 0, said + asked.stderr
    assert f"{here}/twisted/plugins: mine.py" in said
    assert "uppercase_transforms.py: ascii-lowercase, " in said
    # Where packages put their drop-ins; Twisted's own, such as cred_file.py, are not listed.
    site = re.search(r"/site-packages/twisted/plugins: (.*)", said)
    assert site is not None
    assert "cred_" not in site[1]
    assert said.endswith("Nothing is wrong.\n")


def test_doctor_tells_of_one(here: Path) -> None:
    """Where it comes from, or why it cannot be served."""
    (here / "mine.py").write_text("import no_such_module\n")
    well = run("doctor", "uppercase", cwd=here)
    assert well.status == 0
    assert re.fullmatch(
        r"uppercase can be served; it comes from .*uppercase_transforms.py\n", well.stdout.decode()
    )
    ill = run("doctor", "mine:shout", cwd=here)
    assert ill.status == 1
    assert "No module named 'no_such_module'" in ill.stdout.decode().splitlines()[0]
    assert "Searched for drop-ins:" in ill.stdout.decode()


HOSTILE = "\\x1b[2Jgone\\x07\\r\\x9b31m\\u202e"


@pytest.mark.parametrize(
    "arguments", [("doctor",), ("doctor", "--debug"), ("list",), ("show", "evil:shout")]
)
def test_nothing_of_a_plugin_reaches_the_terminal_as_a_command(
    here: Path, arguments: tuple[str, ...]
) -> None:
    """Neither what its import raises, nor its summary, nor the name of its file."""
    (here / "evil.py").write_text(f'raise ImportError("{HOSTILE}")')
    drop_in(here, "acme\x1b[31m.py", f'raise ValueError("{HOSTILE}")')
    drop_in(here, "good.py", PLUGIN.format(name="again").replace("Say", HOSTILE))
    done = run(*arguments, cwd=here)
    said = done.stdout.decode() + done.stderr
    assert "\\x1b" in said
    assert all(line.isprintable() for line in said.split("\n")), said


def test_doctor_says_when_the_current_directory_is_not_searched(here: Path) -> None:
    asked = run("doctor", cwd=here, fresh=True, PYTHONSAFEPATH="1")
    assert "not the current folder: PYTHONSAFEPATH" in asked.stdout.decode()


def test_doctor_works_in_a_folder_that_has_been_removed(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "getcwd", mock.Mock(side_effect=FileNotFoundError))
    monkeypatch.setattr(sys, "path", [place for place in sys.path if os.path.isabs(place)])
    assert "  not the current folder: it has been removed" in diagnose()[2]


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("acme.py", "import no_such_module", "acme.py, line 1: No module named 'no_such_module'"),
        ("acme.py", "def f(:", "acme.py, line 1: syntax error"),
        ("acme.py", PLUGIN.format(name="uppercase"), "the name 'uppercase' is that of a built-in"),
        ("__init__.py", "", "a package, so that Twisted looks for no drop-ins in it; delete this"),
    ],
)
def test_doctor_names_what_is_wrong_with_its_fix(
    here: Path, name: str, text: str, said: str
) -> None:
    drop_in(here, "fine.py", "")
    drop_in(here, name, text)
    asked = run("doctor", cwd=here)
    assert asked.status == 1
    assert said in asked.stdout.decode().partition("Wrong:\n")[2]
    assert "Traceback" not in asked.stdout.decode() + asked.stderr


def test_a_package_in_the_place_of_twisted_is_named(here: Path, tmp_path: Path) -> None:
    """It hides Twisted itself where the current directory comes first, as under `python -m`."""
    file = drop_in(here, "../__init__.py", "").resolve()
    hidden = run("doctor", cwd=here, fresh=True)
    assert hidden == Outcome(2, b"", f"uppercase: {file} hides Twisted; delete this file\n")
    script = tmp_path / "uppercase"
    script.write_text("from uppercase.__main__ import main\nraise SystemExit(main())\n")
    asked = subprocess.run(
        [sys.executable, str(script), "transforms", "doctor"],
        cwd=here,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert asked.returncode == 1
    assert f"  {file}: it makes {file.parent} a package" in asked.stdout


def test_a_second_twisted_on_the_path_is_nothing_wrong(here: Path) -> None:
    """As in a virtual environment that sees the system's packages."""
    for name in ("__init__.py", "_version.py", "plugins/__init__.py"):
        drop_in(here / "system", f"../{name}", "")
    code = "import sys; sys.path.append('system'); from uppercase.__main__ import main; main()"
    asked = subprocess.run(
        [sys.executable, "-c", code, "transforms", "doctor"],
        cwd=here,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert asked.stdout.endswith("Nothing is wrong.\n"), asked.stdout + asked.stderr


def test_doctor_debug_shows_tracebacks(here: Path) -> None:
    drop_in(here, "acme.py", "import no_such_module")
    assert b"Traceback" in run("doctor", "--debug", cwd=here).stdout


def test_doctor_finds_a_cache_that_an_installer_made_stale(here: Path) -> None:
    """Installers that keep old times, as uv does, replace a file behind the cache's back."""
    file = drop_in(here, "acme.py", PLUGIN.format(name="old"))
    assert run("list", cwd=here).status == 0
    written = file.stat().st_mtime
    file.write_text(PLUGIN.format(name="new"))
    os.utime(file, (written - 1000, written - 1000))
    shutil.rmtree(file.parent / "__pycache__", ignore_errors=True)
    asked = run("doctor", cwd=here)
    assert asked.status == 1
    assert f"is not what {file.parent}/dropin.cache says; delete that file" in (
        asked.stdout.decode()
    )


def test_doctor_finds_a_cache_that_cannot_be_written(here: Path) -> None:
    file = drop_in(here, "acme.py", PLUGIN.format(name="again"))
    (file.parent / "dropin.cache").mkdir()
    asked = run("doctor", cwd=here)
    assert asked.status == 1
    assert f"{file.parent}/dropin.cache: it is not up to date and cannot be written" in (
        asked.stdout.decode()
    )


def test_doctor_finds_a_cache_that_can_be_written_no_more(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(here)
    cache = drop_in(here, "acme.py", "").with_name("dropin.cache")
    cache.touch()
    os.utime(cache, (0, 0))
    monkeypatch.setattr(FilePath, "setContent", mock.Mock(side_effect=PermissionError))
    assert f"{cache}: it is not up to date and cannot be" in "\n".join(map(str, diagnose()[1]))


def test_doctor_finds_drop_ins_that_an_editable_install_hides(here: Path, tmp_path: Path) -> None:
    """Setuptools' import hook makes the modules importable and shows Twisted nothing."""
    project = tmp_path / "a project"
    drop_in(project, "acme.py", PLUGIN.format(name="again"))
    metadata = tmp_path / "site" / "acme-1.0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: acme\nVersion: 1.0\n")
    (metadata / "direct_url.json").write_text(
        json.dumps({"url": project.as_uri(), "dir_info": {"editable": True}})
    )
    packages = os.pathsep.join([environment()["PYTHONPATH"], str(metadata.parent)])
    copied = tmp_path / "copied"
    drop_in(copied, "acme.py", PLUGIN.format(name="again"))
    others = (
        "[",
        "[]",
        "{}",
        json.dumps({"url": copied.as_uri(), "dir_info": {"editable": False}}),
    )
    for number, text in enumerate(others):
        other = metadata.with_name(f"other{number}-1.0.dist-info")
        other.mkdir()
        (other / "direct_url.json").write_text(text)
    asked = run("doctor", cwd=here, PYTHONPATH=packages)
    assert asked.status == 1
    said = asked.stdout.decode()
    assert f"{project}/twisted/plugins: the editable install of acme does not show Twisted" in said
    assert f"{copied}" not in said


def installed(folder: Path, name: str, points: str, root: Path | None = None) -> None:
    """Write the metadata of an installed distribution: its entry points, and where it is edited."""
    metadata = folder / f"{name}-1.0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(points)
    if root is not None:
        origin = {"url": root.as_uri(), "dir_info": {"editable": True}}
        (metadata / "direct_url.json").write_text(json.dumps(origin))


def wrong(here: Path, site: Path) -> str:
    """Return what the doctor finds wrong with what is installed in a folder."""
    packages = os.pathsep.join([environment()["PYTHONPATH"], str(site)])
    asked = run("doctor", cwd=here, PYTHONPATH=packages)
    return asked.stdout.decode().partition("Wrong:\n")[2]


@pytest.mark.parametrize(
    "group", ["uppercase.transform", "uppercase_transforms", "upercase.transforms"]
)
def test_doctor_finds_a_mistyped_group(here: Path, tmp_path: Path, group: str) -> None:
    site = tmp_path / "site"
    installed(site, "acme", f"[{group}]\nloud = mine:shout\n[uppercase.other]\nx = mine:shout\n")
    assert wrong(here, site) == (
        f"  entry points of acme 1.0: nobody reads the group {group!r}; the group is "
        "'uppercase.transforms': correct it, and install it again\n"
    )


def test_doctor_finds_a_class_where_an_instance_belongs(here: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    installed(site, "acme", "[uppercase.transforms]\nloud = acme_loud:Loud\n")
    (site / "acme_loud.py").write_text(
        """
from zope.interface import implementer
from uppercase import ITransformPlugin

@implementer(ITransformPlugin)
class Loud:
    name = "loud"
    summary = ""
    parameters = ()
"""
    )
    assert "Loud is a class, and an instance is the plugin; use Loud()" in wrong(here, site)


PROJECT = """
[project]
name = "Acme.Loud"
version = "1.0"

[project.entry-points."uppercase.transforms"]
loud = "mine:shout"
louder = "mine:shout"
"""


@pytest.mark.parametrize("edited", [True, False])
def test_doctor_finds_entry_points_that_are_not_installed(
    here: Path, tmp_path: Path, edited: bool
) -> None:
    """Of an editable install, and of the project in the current directory."""
    project = (tmp_path / "project") if edited else here
    project.mkdir(exist_ok=True)
    (project / "pyproject.toml").write_text(PROJECT)
    site = tmp_path / "site"
    points = "[other]\nlouder = mine:shout\n[uppercase.transforms]\nloud = mine:shout\n"
    installed(site, "acme_loud", points, project if edited else None)
    (site / "mine.py").write_text(SHOUT)
    assert wrong(here, site) == (
        f"  {project}/pyproject.toml: louder: Acme.Loud was installed without this, and only what "
        f"is installed counts; install it again: pip install -e {project}\n"
    )
    (site / "acme_loud-1.0.dist-info" / "entry_points.txt").write_text(
        f"{points}louder = mine:shout\n"
    )
    assert wrong(here, site) == ""


@pytest.mark.parametrize("name", ["Acme.Loud", ""])
def test_doctor_finds_a_project_that_is_not_installed(
    here: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(here)
    (here / "pyproject.toml").write_text(PROJECT.replace("Acme.Loud", name))
    assert [problem.message for problem in diagnose()[1] if problem.file.startswith(str(here))] == [
        f"loud, louder: {name} is not installed, and only what is installed counts; install it: "
        f"pip install -e {here}"
    ]


@pytest.mark.parametrize("points", ["3", '["loud"]'])
def test_doctor_leaves_alone_what_is_no_project(
    here: Path, monkeypatch: pytest.MonkeyPatch, points: str
) -> None:
    monkeypatch.chdir(here)
    (here / "pyproject.toml").write_text(
        f'[project]\nname = "x"\nentry-points."uppercase.transforms" = {points}\n'
    )
    assert str(here) not in str(diagnose()[1])


NO_SOURCE = """
from sys import modules
from types import ModuleType
from uppercase.plugins import adopt

def make(module, file):
    def f(text: str) -> str: ...
    modules.setdefault(module, ModuleType(module)).__file__ = file
    f.__module__ = module
    return adopt(f, name=module)

built_in, lost = make("marshal", ""), make("lost", "/nowhere.py")
torn = make("torn", f"{__file__.rpartition('/')[0]}/../../torn.txt")
"""


@pytest.mark.parametrize(
    ("imports", "line"),
    [
        ("async def f() -> None:\n    from twisted.internet import reactor", None),
        ("if True:\n    from twisted.internet import reactor", 5),
        ("from twisted.internet import defer, reactor", 4),
        ("import twisted.internet.reactor", 4),
        ("try:\n    from twisted.internet.reactor import callLater\nfinally:\n    pass", 5),
        ("if TYPE_CHECKING:\n    from twisted.internet import reactor", None),
        ("def f() -> None:\n    from twisted.internet import reactor", None),
    ],
)
def test_doctor_finds_who_chooses_the_reactor(here: Path, imports: str, line: int | None) -> None:
    (here / "torn.txt").write_text("def f(:")
    (here / "chooses.py").write_text(
        "from typing import TYPE_CHECKING\nfrom uppercase import transform\n\n"
        f"{imports}\n\n@transform\n{SHOUT}"
    )
    drop_in(here, "acme.py", f"from chooses import shout\n{NO_SOURCE}")
    said = run("doctor", cwd=here).stdout.decode().partition("Wrong:\n")[2]
    if line is None:
        assert said == ""
    else:
        assert said.startswith(
            f"  {here}/chooses.py, line {line}: importing it chooses the reactor"
        )
        assert said.count("\n") == 1


def test_new_refuses_what_exists_and_what_is_no_name(here: Path, within: Within) -> None:
    (here / "taken").write_text("")
    for name, reason in {
        "taken": "a file or folder named 'taken' is here already",
        "rot13": "there is a transform named 'rot13' already",
        "Loud": "a transform's name is a letter and then lower-case letters",
        "../up": "a transform's name is a letter and then lower-case letters",
        "2fast": "a transform's name is a letter and then lower-case letters",
    }.items():
        made = within("new", name)
        assert made.status == 2
        assert reason in made.stderr
        assert made.stderr.count("\n") == 1
    assert sorted(path.name for path in here.iterdir()) == ["mine.py", "taken"]


def test_new_leaves_no_half_project_that_would_be_in_the_way(
    here: Path, within: Within, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk is full, then there is room."""
    with monkeypatch.context() as full:
        full.setitem(_FILES, "a" * 999, "LICENSE")
        made = within("new", "rot47")
    assert made.status == 2
    assert made.stderr == "uppercase: cannot write the folder 'rot47': File name too long\n"
    assert [path.name for path in here.iterdir()] == ["mine.py"]
    assert within("new", "rot47").status == 0


@in_reactor
async def test_check_calls_no_law_kept_that_it_could_not_try(
    here: Path, within: Within, monkeypatch: pytest.MonkeyPatch
) -> None:
    (here / "silent.py").write_text(
        "from twisted.internet.defer import Deferred\n"
        "async def never(text: str) -> str:\n"
        "    return await Deferred()\n"
    )
    monkeypatch.setattr("uppercase.testing._examination.KIT_WAIT", 0.1)
    checked = await deferToThread(within, "check", "silent:never")
    assert checked.status == 1
    *laws, case, last = checked.stdout.decode().splitlines()
    assert [line.split()[0] for line in laws] == ["?"] * 9 + ["BROKEN"]
    assert case.startswith("        transform(b'') has no reply after 0.1 s; ")
    assert last == "9 of 10 laws could not be tried, because a reply did not come"


@pytest.mark.long
def test_new_writes_projects_that_install_and_pass_at_once(here: Path) -> None:
    """In a virtual environment with what they ask for, as it is here; nothing is downloaded."""
    # Of the check's extra; the projects ask for it themselves.
    pytest.importorskip("mypy")
    kinds = {"pig-latin": [], "pig-later": ["--async"], "pig-flow": ["--stream"]}
    packages = needed("twisted-uppercase[testing]", "mypy", "pip", "setuptools")
    site = make_environment(here / "venv", packages, linked=True)
    python = here / "venv" / "bin" / "python"
    quiet = {"PIP_NO_INDEX": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}

    def within(*command: str, cwd: Path) -> str:
        env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        done = subprocess.run(
            [str(python), *command],
            cwd=cwd,
            env={**env, **quiet, "MYPY_CACHE_DIR": str(here / "mypy")},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    for name, kind in kinds.items():
        made = run("new", name, *kind, cwd=here)
        assert made.status == 0, made.stderr
    first, *others = (here / name for name in kinds)
    lines = "".join(file.read_text() for file in here.glob("pig-*/**/*.py")).splitlines()
    assert max(map(len, lines)) <= 88  # as black and ruff have it without settings
    said = run("doctor", cwd=first).stdout.decode()
    assert "pig-latin: uppercase-pig-latin is not installed" in said
    offline = ("--no-build-isolation", "--no-deps", "-q")
    within("-m", "pip", "install", *offline, "--editable", first.name, cwd=here)
    (record,) = site.glob("uppercase_pig_latin-*.dist-info/licenses/LICENSE")
    assert record.read_text().startswith("MIT License")

    def asked(name: str) -> tuple[dict[str, Any], str]:
        """Return what a project says, but for its name, of how it is built; and what it serves."""
        text = (here / name / "pyproject.toml").read_text()
        settings = tomllib.loads(text.replace(name, "NAME").replace(name.replace("-", "_"), "NAME"))
        points = settings["project"].pop("entry-points")["uppercase.transforms"]
        return settings, points["NAME"].replace("NAME", name.replace("-", "_"))

    for other in others:
        # To build each would show nothing more.
        assert asked(other.name)[0] == asked(first.name)[0]
        point = f"{other.name} = {asked(other.name)[1]}"
        dist = f"uppercase_{other.name.replace('-', '_')}"
        installed(site, dist, f"[uppercase.transforms]\n{point}\n")
        (site / f"{other.name}.pth").write_text(f"{other}\n")
    listed = within("-m", "uppercase", "transforms", "list", "--json", cwd=here)
    found = {item["name"]: item for item in map(json.loads, listed.splitlines())}
    # Together, by the settings that they share: what is dear is to load the libraries.
    pytest_ = ("-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "error")
    assert "36 passed" in within(*pytest_, ".", *map(str, others), cwd=first)
    assert "no issues found" in within("-m", "mypy", cwd=first)
    checked = [str(path) for project in others for path in sorted(project.rglob("*.py"))]
    assert "no issues found" in within("-m", "mypy", "--strict", *checked, cwd=here)
    for name, kind in kinds.items():
        assert found[name]["from"].startswith("entry point of ")
        assert found[name]["streams"] is (kind != ["--async"])
        assert (here / name / f"uppercase_{name.replace('-', '_')}" / "py.typed").exists()


@pytest.mark.parametrize("kind", [(), ("--async",), ("--stream",)])
def test_new_gives_no_function_a_name_that_its_files_use(
    here: Path, within: Within, kind: Sequence[str]
) -> None:
    assert within("new", "some", *kind).status == 0
    nodes = [node for file in here.rglob("*.py") for node in ast.walk(ast.parse(file.read_text()))]
    used = {node.id for node in nodes if isinstance(node, ast.Name)} & {*dir(builtins), "connect"}
    assert {"connect", "str"} <= used
    for name in used:
        assert within("new", name, *kind).status == 0
        (made,) = here.glob(f"{name}/uppercase_{name}/__init__.py")
        defined = {getattr(node, "name", "") for node in ast.walk(ast.parse(made.read_text()))}
        assert not used & defined


def test_new_writes_no_stream_that_waits(here: Path, within: Within) -> None:
    made = within("new", "both", "--async", "--stream")
    assert made == Outcome(
        2,
        b"",
        "uppercase: got --async and --stream, and a stream cannot wait; take out one of them\n",
    )
    assert not (here / "both").exists()
