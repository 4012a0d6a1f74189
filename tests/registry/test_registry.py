"""One registry finds transforms through three doors and names what is wrong with them."""

import io
import os
import shutil
import sys
from collections.abc import Iterator
from importlib.metadata import Distribution
from pathlib import Path
from textwrap import dedent
from typing import Any, cast

import pytest
import twisted.plugins
from twisted.internet.task import Clock
from twisted.logger import (
    ILogObserver,
    LogEvent,
    formatEvent,
    globalLogPublisher,
    textFileLogObserver,
)
from zope.interface.verify import verifyObject

from tests.conftest import LoggedErrors
from uppercase import registry
from uppercase.errors import BadArgument, NameClash, PluginError, UnknownName
from uppercase.interfaces import ITransform
from uppercase.registry import Problem, _sources
from uppercase.registry.doctor import diagnose
from uppercase.services import TCPSettings, tcp_service

SHOUT = """
    from uppercase import transform

    @transform
    def shout(text: str, *, mark: str = "!") -> str:
        '''Say it loud.'''
        return text.upper() + mark
"""

UNREADABLE = "entry points of odd 1.5: they cannot be read ("


class Project:
    """An author's folder, which is the current directory, and a folder of installed packages."""

    def __init__(self, root: Path) -> None:
        self.here = root / "here"
        self.site = root / "site"
        self.site.mkdir()
        (self.here / "twisted" / "plugins").mkdir(parents=True)

    def module(self, name: str, text: str) -> str:
        return self._write(self.here / f"{name}.py", text)

    def drop_in(self, name: str, text: str) -> str:
        return self._write(self.here / "twisted" / "plugins" / f"{name}.py", text)

    def distribution(self, name: str, entry_points: str, **modules: str) -> None:
        info = self.site / f"{name}-1.5.dist-info"
        info.mkdir()
        self._write(info / "METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.5\n")
        self._write(info / "entry_points.txt", f"[uppercase.transforms]\n{entry_points}\n")
        for module, text in modules.items():
            self._write(self.site / f"{module}.py", text)

    def problems(self, *, thorough: bool = False) -> list[Problem]:
        """Return what is wrong here, in the folder or in what is installed."""
        return [
            problem
            for problem in registry.listing(thorough=thorough).problems
            if problem.file.startswith((str(self.here), "entry point"))
        ]

    def _write(self, path: Path, text: str) -> str:
        path.write_text(dedent(text))
        return str(path)


@pytest.fixture
def project(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, logged_errors: LoggedErrors
) -> Iterator[Project]:
    made = Project(tmp_path)
    monkeypatch.chdir(made.here)
    monkeypatch.syspath_prepend(made.site)
    before = set(sys.modules)
    yield made
    for name in set(sys.modules) - before:
        path = getattr(sys.modules[name], "__file__", None) or ""
        if path.startswith(str(tmp_path)):
            del sys.modules[name]
    # Twisted logs what it cannot import; that is what these tests provoke.
    logged_errors.flush()


def only(problems: list[Problem]) -> Problem:
    (problem,) = problems
    return problem


def reply(specification: str, message: bytes) -> object:
    return registry.listing().find(specification).transform(message)


class TestThreeDoors:
    def test_a_drop_in_beside_the_current_directory_is_found(self, project: Project) -> None:
        file = project.drop_in("acme_shout", SHOUT)
        assert reply("shout", b"hi") == b"HI!"
        found = registry.listing().lookup("shout")
        assert (found.summary, found.origin) == ("Say it loud.", file)
        assert (found.kind, found.streaming) == ("text", False)
        assert [parameter.describe() for parameter in found.parameters] == [
            "mark: text, default '!'"
        ]

    def test_a_drop_in_may_import_modules_beside_it(self, project: Project) -> None:
        project.module("acme_module", SHOUT)
        project.drop_in("acme_dropin", "from acme_module import shout")
        assert reply("shout", b"hi") == b"HI!"

    def test_it_is_found_again_with_a_warm_cache(self, project: Project) -> None:
        project.drop_in("acme_warm", SHOUT)
        registry.listing()
        assert (project.here / "twisted" / "plugins" / "dropin.cache").exists()
        assert reply("shout", b"hi") == b"HI!"

    def test_an_entry_point_is_found_and_not_imported_before_it_is_asked(
        self, project: Project
    ) -> None:
        project.distribution("acme", "loud = acme_lazy:shout", acme_lazy=SHOUT)
        found = registry.listing().transforms["loud"]
        assert found.origin == "entry point of acme 1.5"
        assert "acme_lazy" not in sys.modules
        assert found.summary == "Say it loud."
        assert reply("loud:mark=?", b"hi") == b"HI?"

    def test_what_is_in_an_archive_is_found(
        self, project: Project, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        project.distribution("acme", "loud = acme_archived:shout", acme_archived=SHOUT)
        project.drop_in("acme_drop_in", "from acme_archived import shout")
        shutil.move(project.here / "twisted", project.site / "twisted")
        archive = shutil.make_archive(str(project.here / "acme"), "zip", project.site)
        shutil.rmtree(project.site)
        monkeypatch.syspath_prepend(archive)
        folders = [*twisted.plugins.__path__, os.path.join(archive, "twisted", "plugins")]
        monkeypatch.setattr(twisted.plugins, "__path__", folders)
        assert reply("loud", b"hi") == b"HI!"
        found = registry.listing(thorough=True)
        assert found.transforms["shout"].origin.startswith(archive)
        assert "twisted.plugins" not in {problem.file for problem in found.problems}

    def test_an_entry_point_of_a_project_in_the_current_directory_is_found(
        self, project: Project, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As an editable install leaves it there, where Python searches it, and elsewhere too."""
        project.module("acme_here", SHOUT)
        project.distribution("acme", "loud = acme_here:shout")
        info = project.here / "acme.egg-info"
        shutil.copytree(project.site / "acme-1.5.dist-info", info)
        (info / "METADATA").rename(info / "PKG-INFO")
        monkeypatch.syspath_prepend("")
        assert reply("loud", b"hi") == b"HI!"
        points, _ = registry.announced("uppercase.transforms")
        assert [point.name for point in points].count("loud") == 1

    def test_an_entry_point_may_name_a_plain_function(self, project: Project) -> None:
        project.distribution(
            "acme",
            "twice = acme_plain:twice",
            acme_plain="def twice(b: bytes) -> bytes: return b + b",
        )
        assert reply("twice", b"hi") == b"hihi"

    def test_a_plain_function_of_the_current_directory_is_served_by_reference(
        self, project: Project
    ) -> None:
        project.module(
            "acme_ref", "def loud(text: str, *, times: int = 1) -> str: return text.upper() * times"
        )
        assert reply("acme_ref:loud", b"hi\xff") == b"HI\xff"
        assert reply("acme_ref:loud:times=2", b"hi") == b"HIHI"
        assert registry.listing().lookup("acme_ref:loud").name == "loud"

    @pytest.mark.parametrize("door", ["reference", "drop-in"])
    def test_what_is_from_the_current_directory_may_import_from_it_when_it_is_called(
        self, project: Project, door: str
    ) -> None:
        project.module("acme_late", "def up(text: str) -> str: return text.upper()")
        lazily = """
            from uppercase import transform

            @transform
            def late(text: str) -> str:
                import acme_late
                return acme_late.up(text)
        """
        write = project.module if door == "reference" else project.drop_in
        write("acme_early", lazily)
        assert reply("acme_early:late" if door == "reference" else "late", b"a") == b"A"

    def test_the_current_directory_hides_nothing_when_what_is_from_it_is_called(
        self, project: Project
    ) -> None:
        project.module("acme_both", "def f(b: bytes) -> bytes: return b'here'")
        project.distribution("acme", "", acme_both="")
        project.module(
            "acme_calls",
            """
            def f(b: bytes) -> bytes:
                import acme_both
                return acme_both.__file__.encode()
            """,
        )
        assert reply("acme_calls:f", b"") == f"{project.site}/acme_both.py".encode()
        del sys.modules["acme_both"]
        assert reply("acme_both:f", b"") == b"here"

    def test_the_path_is_left_alone_where_nothing_is_from_the_current_directory(
        self, project: Project
    ) -> None:
        project.module("acme_unused", "")
        project.distribution("acme", "", acme_away=SHOUT)
        path = list(sys.path)
        assert reply("acme_away:shout", b"a") == b"A!"
        assert sys.path == path

    @pytest.mark.parametrize(
        ("place", "whose"), [("nowhere", b"here"), ("{here}", b"site"), ("", b"site")]
    )
    def test_the_current_directory_comes_first_unless_the_path_says_where(
        self, project: Project, monkeypatch: pytest.MonkeyPatch, place: str, whose: bytes
    ) -> None:
        for folder in (project.here, project.site):
            text = f"def f(b: bytes) -> bytes: return b'{folder.name}'"
            (folder / "acme_twice.py").write_text(text)
        monkeypatch.setattr(sys, "path", [*sys.path, place.format(here=project.here)])
        assert reply("acme_twice:f", b"") == whose

    def test_a_module_may_take_the_current_directory_from_the_path(self, project: Project) -> None:
        project.module("acme_pops", f"import sys\nsys.path.pop(0)\n{dedent(SHOUT)}")
        assert reply("acme_pops:shout", b"hi") == b"HI!"

    def test_a_reference_may_be_dotted_on_both_sides(self, project: Project) -> None:
        (project.here / "acme_pkg").mkdir()
        project.module(
            "acme_pkg/inner", "class A:\n    @staticmethod\n    def f(b: bytes) -> bytes: return b"
        )
        assert reply("acme_pkg.inner:A.f", b"hi") == b"hi"

    def test_a_hand_made_transform_and_plugin_are_found(self, project: Project) -> None:
        project.drop_in(
            "acme_hand",
            """
            from twisted.plugin import IPlugin
            from zope.interface import implementer
            from uppercase import ITransform, ITransformPlugin

            @implementer(ITransform)
            class Twice:
                def transform(self, message): return message * 2

            @implementer(ITransformPlugin, IPlugin)
            class Plugin:
                name, summary, parameters = "twice", "Twice", ()
                def build(self, **arguments): return Twice()

            twice = Plugin()
            """,
        )
        assert reply("twice", b"hi") == b"hihi"
        assert registry.listing().lookup("twice").kind == "bytes"
        assert registry.listing().lookup("twice").streaming is False

    def test_what_needs_arguments_tells_what_it_is_without_them(self, project: Project) -> None:
        """Whether it streams, and may await asyncio; of a plugin by hand, what it builds does."""
        project.module(
            "acme_needs",
            """
            from zope.interface import implementer
            from uppercase import IStreamTransform, ITransformPlugin, transform
            from uppercase.plugins import Parameter

            @transform(streaming=True)
            def declared(text: str, *, n: int) -> str: return text

            @implementer(IStreamTransform)
            class Later:
                async def transform(self, message): return message
                def open_stream(self): ...

            @implementer(ITransformPlugin)
            class Plugin:
                name, summary = "plugin", ""
                def __init__(self, *parameters): self.parameters = parameters
                def build(self, **arguments): return Later()

            plugin = Plugin()
            needs = Plugin(Parameter("n", object, choices={"one": 1}))
            """,
        )
        found = registry.listing()
        for name, streams, is_async in (
            ("declared", True, False),
            ("plugin", True, True),
            ("needs:n=one", False, True),
        ):
            assert found.is_async(f"acme_needs:{name}") is is_async
            assert found.lookup(f"acme_needs:{name.partition(':')[0]}").streaming is streams

    def test_the_built_ins_come_through_the_first_door(self) -> None:
        found = registry.listing().transforms["uppercase"]
        assert Path(found.origin).name == "uppercase_transforms.py"
        assert found.provenance == "built in"

    def test_the_list_of_the_built_ins_imports_none_of_them(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for module in ("codecs", "text"):
            monkeypatch.setitem(sys.modules, f"uppercase.transforms.{module}", None)
        listed = registry.listing().describe()
        assert "\n  uppercase        Upper case of every letter, in every script" in listed
        assert "Cannot be used" not in listed

    def test_a_built_in_has_its_faster_way(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("uppercase.transforms.text.ascii_uppercase", lambda data: b"fast")
        assert reply("uppercase", b"a") == b"fast"

    def test_a_transform_describes_itself(self, project: Project) -> None:
        project.module("acme_bare", "def shout(text: str) -> str: ...")
        found = registry.listing().lookup("acme_bare:shout")
        assert (
            found.describe() == "shout\n  works on text, needs whole messages; from acme_bare:shout"
        )
        assert found.provenance == "acme_bare:shout"
        assert registry.listing().lookup("caesar").describe() == (
            "caesar:shift=...\n"
            "  Letters shifted by a fixed distance\n"
            "  works on bytes, streams; built in\n"
            "  shift: whole number, default 13"
        )

    def test_a_summary_is_one_line(self, project: Project) -> None:
        project.module(
            "acme_lines", dedent(SHOUT).replace("@transform", "@transform(summary='a\\nb')")
        )
        assert registry.listing().lookup("acme_lines:shout").summary == "a b"

    def test_what_is_found_is_a_transform(self, project: Project) -> None:
        project.drop_in("acme_verify", SHOUT)
        assert verifyObject(ITransform, registry.listing().find("shout"))


class TestOneScan:
    def test_a_start_scans_the_doors_once_for_all_stages_and_for_the_log(
        self, project: Project, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        project.drop_in("acme_bad", "import no_such_module_xyz")
        scans = []
        scan = _sources.Scan
        monkeypatch.setattr(_sources, "Scan", lambda **said: scans.append(said) or scan(**said))  # type: ignore[func-returns-value]
        transforms = ("strip", "uppercase", "caesar:shift=3")
        reactor = Clock()
        service = tcp_service(TCPSettings(transforms=transforms, port=0), cast(Any, reactor))
        said: list[LogEvent] = []
        observer = cast(ILogObserver, said.append)
        globalLogPublisher.addObserver(observer)
        try:
            service._listening = True
            monkeypatch.setattr(service, "served", list)
            service._announce()
        finally:
            globalLogPublisher.removeObserver(observer)
        assert scans == [{"thorough": False}]
        assert "a plugin cannot be used: " in str([formatEvent(event) for event in said])


class TestSpecifications:
    @pytest.mark.parametrize(
        ("arguments", "mark"),
        [
            ("mark=?", "?"),
            ("mark=a=b", "a=b"),
            (r"mark=\:\:", "::"),
            (r"mark=C\:\\x", r"C:\x"),
            (r"mark=\d+", r"\d+"),
            ("mark=x\\", "x\\"),
            ("mark=", ""),
        ],
    )
    def test_values_may_hold_colons_and_backslashes(
        self, project: Project, arguments: str, mark: str
    ) -> None:
        project.drop_in("acme_spec", SHOUT)
        assert reply(f"shout:{arguments}", b"a") == f"A{mark}".encode()

    def test_a_typo_in_a_name_gets_the_name_that_was_meant(self) -> None:
        with pytest.raises(UnknownName) as caught:
            registry.listing().find("uppercsae")
        assert str(caught.value) == "no transform named 'uppercsae'; did you mean 'uppercase'?"
        with pytest.raises(UnknownName, match="named 'UPPERCASE'; did you mean 'uppercase'"):
            registry.listing().find("UPPERCASE")

    def test_a_typo_in_a_name_with_arguments_too(self) -> None:
        with pytest.raises(UnknownName, match=r"no transform named 'qqqq'; known are .*uppercase"):
            registry.listing().find("qqqq")
        with pytest.raises(UnknownName, match="no transform named 'caesra'; did you mean 'caesar'"):
            registry.listing().find("caesra:shift=3")

    def test_an_unknown_name_names_what_could_not_be_loaded(self, project: Project) -> None:
        file = project.drop_in("acme_broken", "import no_such_module_xyz")
        with pytest.raises(UnknownName) as caught:
            registry.listing().find("uppercsae")
        assert str(caught.value) == (
            "no transform named 'uppercsae'; did you mean 'uppercase'? (not loaded: "
            f"{file}, line 1: No module named 'no_such_module_xyz'; install it or correct the "
            "import)"
        )

    def test_of_several_that_could_not_be_loaded_the_likely_one_is_named(
        self, project: Project
    ) -> None:
        project.drop_in("acme_first", "import no_such_module_xyz")
        file = project.drop_in("acme_wanted", "1/0")
        project.drop_in("acme_yet", "1/0")
        with pytest.raises(UnknownName) as caught:
            registry.listing().find("wanted")
        assert str(caught.value).endswith(
            f" (not loaded: {file}, line 1: importing it raised ZeroDivisionError: division by "
            "zero; 2 more: uppercase transforms doctor)"
        )
        with pytest.raises(UnknownName, match=r"acme_first.py, line 1: .*; 2 more: uppercase "):
            registry.listing().find("other")

    @pytest.mark.parametrize(
        ("name", "reference"),
        [
            ("acme_mine", "acme_mine:FUNCTION"),
            ("acme_mine.py", "acme_mine:FUNCTION"),
            ("./acme_mine.py", "acme_mine:FUNCTION"),
            ("acme_mine.shout", "acme_mine:shout"),
        ],
    )
    def test_who_names_a_file_hears_how_its_functions_are_written(
        self, project: Project, name: str, reference: str
    ) -> None:
        project.module("acme_mine", SHOUT)
        with pytest.raises(UnknownName) as caught:
            registry.listing().find(name)
        assert str(caught.value) == (
            f"no transform named {name!r}; a function of acme_mine.py is written {reference}"
        )

    def test_a_typo_in_a_function_gets_the_one_that_was_meant(self, project: Project) -> None:
        text = "from os import path, remove\nclass _Own: ...\nown = _Own()\n"
        file = project.module("acme_typo", text + dedent(SHOUT))
        with pytest.raises(PluginError, match=f"{file} has no 'shuot'; did you mean 'shout'"):
            registry.listing().find("acme_typo:shuot")
        with pytest.raises(PluginError, match=r"has no 'xyz'; known are shout$"):
            registry.listing().find("acme_typo:xyz")

    def test_a_function_that_cannot_be_used_is_named_with_its_line(self, project: Project) -> None:
        file = project.module("acme_bare", "\n\ndef shout(text): return text")
        with pytest.raises(PluginError) as caught:
            registry.listing().find("acme_bare:shout")
        assert str(caught.value) == (
            f"'acme_bare:shout' cannot be used: {file}, line 3: the message of shout has no "
            "annotation; annotate it `str` for text or `bytes` for bytes"
        )

    @pytest.mark.parametrize(
        ("specification", "message"),
        [
            (
                "shout:makr=x",
                "transform 'shout': no argument named 'makr'; did you mean 'mark'? "
                "(mark: text, default '!')",
            ),
            (
                "shout:x",
                "transform 'shout': got 'x'; arguments are written key=value, as in "
                "shout:key=value",
            ),
            (
                "shout:=x",
                "transform 'shout': got '=x'; arguments are written key=value, as in "
                "shout:key=value",
            ),
            (
                "shout:mark=a:mark=b",
                "transform 'shout': argument 'mark' is given twice; give it once",
            ),
            (
                "acme_need:f",
                "transform 'f': argument 'n' is missing; write n=VALUE, where VALUE is a whole "
                "number",
            ),
            ("acme_need:f:n=x", "transform 'f': argument 'n': got 'x'; accepted is a whole number"),
        ],
    )
    def test_wrong_arguments_are_refused_with_what_is_accepted(
        self, project: Project, specification: str, message: str
    ) -> None:
        project.drop_in("acme_arguments", SHOUT)
        project.module("acme_need", "def f(text: str, *, n: int) -> str: return text")
        with pytest.raises(BadArgument) as caught:
            registry.listing().find(specification)
        assert str(caught.value) == message

    def test_lookup_takes_no_arguments(self, project: Project) -> None:
        project.drop_in("acme_lookup", SHOUT)
        with pytest.raises(BadArgument, match="a name without arguments"):
            registry.listing().lookup("shout:mark=!")

    def test_a_module_that_is_nowhere_is_an_unknown_name(self) -> None:
        with pytest.raises(UnknownName, match="no transform and no module named 'caesra'; did you"):
            registry.listing().find("caesra:f")
        with pytest.raises(UnknownName, match="named 'acme_none'; install it or run in the folder"):
            registry.listing().find("acme_none:f")

    @pytest.mark.parametrize(
        ("text", "reference", "said"),
        [
            ("", "acme_r:f", "{file} has no 'f'"),
            ("def f(x): ...", "acme_r:f", "the message of f has no annotation; annotate it `str`"),
            ("import no_such_xyz", "acme_r:f", "{file}, line 1: No module named 'no_such_xyz'"),
            ("\n1/0", "acme_r:f", "{file}, line 2: importing it raised ZeroDivisionError"),
            ("def f(:", "acme_r:f", "{file}, line 1: syntax error: invalid syntax"),
            ("raise SystemExit(3)", "acme_r:f", "{file}, line 1: it ends the program"),
            ("def __getattr__(name): exit(3)", "acme_r:f", "{file} has no 'f' (3); none is"),
            ("class LOUD: ...", "acme_r:loud", "has no 'loud'; did you mean 'LOUD'?"),
            ("exec('def f(x): ...')", "acme_r:f", "'acme_r:f' cannot be used: the message of f "),
            (
                "class A:\n def good(self): ...",
                "acme_r:A.god",
                "has no 'god'; did you mean 'good'?",
            ),
            (
                "class Mute(Exception):\n def __str__(self): 1/0\nraise Mute",
                "acme_r:f",
                "raised Mute: (its text cannot be had: ZeroDivisionError)",
            ),
            (
                "class F:\n def __init__(self): exit(3)\n def __call__(self, text: str): ...",
                "acme_r:F",
                "cannot be built: SystemExit: 3",
            ),
            (
                "class F:\n def __init__(self): raise OSError('no\\nfile')\n"
                " def __call__(self, text: str): ...",
                "acme_r:F",
                "cannot be built: OSError: no file",
            ),
            (
                "class F:\n def __init__(self): assert 0\n def __call__(self, text: str): ...",
                "acme_r:F",
                "cannot be built: AssertionError",
            ),
            ("", "acme_r:", "got 'acme_r:'; a reference is written module:function"),
            ("", "./acme_r.py:f", "got './acme_r.py:f'; {written}, here acme_r:f"),
            ("", "../here/acme_r.py:f", "got '../here/acme_r.py:f'; {written}"),
            ("", "acme_r:a b", "got 'acme_r:a b'; a reference is written module:function"),
            ("f = 3", "acme_r:f", "3 is not a transform"),
            (
                "class A:\n def __getattr__(self, name): raise OSError('no\\nrequest')\nf = A()",
                "acme_r:f",
                "cannot be used: asked what it is, it raised OSError: no request",
            ),
            (
                "class A:\n def f(self, text: str): ...",
                "acme_r:A.f",
                "line 2: A.f is a method without its object; point at an object's, or at a f",
            ),
            (
                "from functools import partial\ndef g(x): ...\nf = partial(g)",
                "acme_r:f",
                "{file}, line 2: the message of functools.partial(",
            ),
            (
                "def __getattr__(name): raise ImportError('install\\nacme[fast]')\ndef g(): ...",
                "acme_r:f",
                "{file} has no 'f' (install acme[fast]); known are g",
            ),
            ("pi = 3.14", "acme_r:pi.x", "3.14 has no 'x'; none is known"),
            ("", "builtins:str.nope", "<class 'str'> has no 'nope'; "),
        ],
    )
    def test_a_reference_that_cannot_be_served_says_why(
        self, project: Project, text: str, reference: str, said: str
    ) -> None:
        file = project.module("acme_r", text)
        with pytest.raises(PluginError) as caught:
            registry.listing().find(reference)
        written = "a reference is written module:function"
        assert said.format(file=file, written=written) in str(caught.value)
        assert not str(caught.value).endswith(": ")
        assert "Traceback" not in str(caught.value)

    def test_a_package_that_cannot_be_imported_is_named_for_its_modules(
        self, project: Project
    ) -> None:
        (project.here / "acme_torn").mkdir()
        project.module("acme_torn/__init__", "1/0")
        with pytest.raises(
            PluginError, match=r"'acme_torn.x:f' cannot be loaded: acme_torn.x: impor"
        ):
            registry.listing().find("acme_torn.x:f")


class TestBrokenPlugins:
    """One broken plugin is named with file, line and fix; everything else goes on."""

    @pytest.mark.parametrize(
        ("text", "line", "said"),
        [
            ("\nimport no_such_xyz", 2, "No module named 'no_such_xyz'; install it"),
            ("raise ImportError('odd')", 1, "odd; correct the import"),
            ("x = 1\ndef f(:", 2, "syntax error: invalid syntax"),
            ("raise SyntaxError('odd')", None, "syntax error: odd; it is not loaded"),
            (
                "def f():\n    1/0\nf()",
                2,
                "importing it raised ZeroDivisionError: division by zero",
            ),
            ("import sys\nsys.exit(3)", 2, "it ends the program"),
            (
                "from uppercase import transform\n@transform\ndef f(x): ...",
                2,
                "the message of f has no annotation; annotate it `str` for text or `bytes`",
            ),
        ],
    )
    def test_what_cannot_be_imported_is_named(
        self, project: Project, text: str, line: int | None, said: str
    ) -> None:
        file = project.drop_in("acme_bad", text)
        project.drop_in("acme_good", SHOUT)
        found = registry.listing()
        problem = only(project.problems())
        assert only(project.problems(thorough=True)) == problem
        assert (problem.file, problem.line) == (file, line)
        assert said in problem.message
        assert "\n" not in str(problem)
        assert "Traceback" in problem.traceback
        assert {"shout", "uppercase"} <= set(found.transforms)

    def test_a_fault_in_a_module_behind_the_drop_in_is_named_too(self, project: Project) -> None:
        module = project.module("acme_behind", "\nraise ValueError('no licence')")
        file = project.drop_in("acme_front", "import acme_behind")
        problem = only(project.problems())
        assert str(problem) == (
            f"{file}, line 1: importing it raised ValueError: no licence "
            f"(raised in {module}, line 2)"
        )

    @pytest.mark.parametrize("thorough", [False, True])
    @pytest.mark.parametrize(
        ("error", "said"),
        [("RuntimeError", "importing it raised RuntimeError: no"), ("SystemExit", "it ends the")],
    )
    def test_what_twisted_gives_up_at_is_named(
        self, project: Project, error: str, said: str, thorough: bool
    ) -> None:
        """Such as Flask's `request`, which fails whatever it is asked outside of a request.

        So is what was wrong before, and of what is not known then nothing is said.
        """
        broken = project.drop_in("acme_broken", "1 / 0")
        project.drop_in("acme_fine", SHOUT)
        file = project.drop_in(
            "acme_lazy",
            f"""\
            class Lazy:
                def __getattr__(self, name):
                    raise {error}("no")
            lazy = Lazy()
            """,
        )
        first, second = map(str, project.problems(thorough=thorough))
        assert first.startswith(f"{broken}, line 1: importing it raised ZeroDivisionError")
        assert second.startswith(f"{file}, line 3: {said}")

    def test_a_syntax_error_is_placed_where_it_is(self, project: Project) -> None:
        module = project.module("acme_behind", "\ndef f(:")
        project.drop_in("acme_front", "import acme_behind")
        problem = only(project.problems())
        assert (problem.file, problem.line) == (module, 2)

    def test_a_log_has_nothing_of_what_a_drop_in_raises(self, project: Project) -> None:
        """A problem's sentence takes its place."""
        project.drop_in("acme_bad", "1/0")
        written = io.StringIO()
        observer = textFileLogObserver(written)
        globalLogPublisher.addObserver(observer)
        try:
            only(project.problems())
        finally:
            globalLogPublisher.removeObserver(observer)
        assert written.getvalue() == ""

    @pytest.mark.parametrize(
        "said",
        [
            "log.msg('loaded')",
            "log.err(ValueError('unusual'))",
            "import json\ntry: json.loads('')\nexcept ValueError: log.err()",
        ],
    )
    def test_what_a_drop_in_logs_is_nothing_wrong(
        self, project: Project, logged_errors: LoggedErrors, said: str
    ) -> None:
        project.drop_in("acme_says", f"from twisted.python import log\n{said}")
        assert registry.listing().problems == []
        assert len(logged_errors) == said.count("err(")
        logged_errors.flush()

    def test_a_wrong_declaration_is_placed_in_the_authors_code(self, project: Project) -> None:
        module = project.module(
            "acme_wrong", "from uppercase import transform\n@transform\ndef f(x): ..."
        )
        file = project.drop_in("acme_imports_wrong", "import acme_wrong")
        assert str(only(project.problems())) == (
            f"{file}, line 1: the message of f has no annotation; annotate it `str` for text or "
            f"`bytes` for bytes (raised in {module}, line 2)"
        )

    @pytest.mark.parametrize("text", ["import no_such_xyz", "import os; os.nothing", "exit()"])
    @pytest.mark.parametrize("names", ["shout", "sys"])
    def test_a_module_that_broke_after_it_was_cached_is_named_once(
        self, project: Project, text: str, names: str
    ) -> None:
        """What has no transforms is imported by the doctor only."""
        project.module("acme_later", f"import sys\n{dedent(SHOUT)}")
        file = project.drop_in("acme_cached", f"from acme_later import {names}")
        registry.listing()
        for name in ("acme_later", "twisted.plugins.acme_cached"):
            del sys.modules[name]
        project.module("acme_later", text)
        assert len(project.problems()) == (names == "shout")
        problem = only(project.problems(thorough=True))
        assert (problem.file, problem.line) == (file, 1)

    def test_a_stale_cache_is_named_with_the_file_to_delete(self, project: Project) -> None:
        file = Path(project.drop_in("acme_stale", SHOUT))
        registry.listing()
        del sys.modules["twisted.plugins.acme_stale"]
        service = "from twisted.plugins.twisted_ftp import TwistedFTP as served\n"
        file.write_text(service + dedent(SHOUT).replace("def shout", "def scream"))
        _make_older(file)
        problems = project.problems(thorough=True)
        cache = file.parent / "dropin.cache"
        assert {str(problem) for problem in problems} == {
            f"{file}: shout is not what {cache} says; delete that file",
            f"{file}: scream is not what {cache} says; delete that file",
            f"{file}: served is not what {cache} says; delete that file",
        }

    @pytest.mark.parametrize(
        ("members", "said"),
        [
            ("summary, parameters = '', ()", "name"),
            ("name, summary, parameters = 3, '', ()", "has the name 3; lower-case letters"),
            ("name, summary, parameters = 'A B', '', ()", "has the name 'A B'"),
            ("name, summary = 'a', ''", "parameters"),
            ("name, summary, parameters = 'a', '', ('shift',)", "has 'shift' among its parameters"),
            (
                "from uppercase.plugins import Parameter as P; name = 'a'; summary = '';"
                " parameters = (P('n', list),)",
                "of int, float, bool or str, or with choices",
            ),
        ],
    )
    def test_a_wrong_interface_or_name_is_refused(
        self, project: Project, members: str, said: str
    ) -> None:
        file = project.drop_in("acme_shape", _plugin(members))
        found = registry.listing()
        problem = only(project.problems())
        assert problem.file == file
        assert problem.line == 5
        assert said in problem.message
        assert "uppercase" in found.transforms

    @pytest.mark.parametrize(
        ("members", "said"),
        [
            ("name, summary = 'a', ''", "p does not keep to ITransformPlugin: it has no param"),
            ("name, summary, parameters = 'a', '', ('shift',)", "p has 'shift' among its param"),
            ("name, parameters, summary = 'a', (), property(exit)", "p raised SystemExit: "),
            ("name, parameters, summary = 'a', (), property(divmod)", "p raised TypeError: "),
        ],
    )
    def test_a_wrong_interface_behind_an_entry_point_is_refused(
        self, project: Project, members: str, said: str
    ) -> None:
        project.distribution("acme", "odd = acme_odd:p", acme_odd=_plugin(members))
        place = f"'acme_odd:p' cannot be used: {project.site}/acme_odd.py, line 5: "
        assert f"{place}{said}" in registry.listing().describe()
        assert f"{place}{said}" in only(project.problems(thorough=True)).message

    def test_a_plugin_that_builds_something_else_is_refused(self, project: Project) -> None:
        project.drop_in("acme_builds", _plugin("name, summary, parameters = 'odd', '', ()"))
        with pytest.raises(PluginError, match="builds no ITransform"):
            registry.listing().find("odd")

    def test_what_is_built_need_not_even_have_a_text(self, project: Project) -> None:
        members = "name, summary, parameters = 'odd', '', ()"
        members += "\n    def __repr__(self): raise LookupError('no text')"
        code = _plugin("pass").replace("pass", members).replace("return 3", "return self")
        project.drop_in("acme_builds", code)
        with pytest.raises(PluginError, match=r"Plugin is not one: .its text cannot be had: Loo"):
            registry.listing().find("odd")

    def test_what_is_missing_for_an_interface_is_said_with_the_line(self, project: Project) -> None:
        file = project.module(
            "acme_half",
            """
            from uppercase import ITransform
            from zope.interface import implementer

            @implementer(ITransform)
            class Half:
                def transfrom(self, message): ...

            half = Half()
            """,
        )
        for name in ("Half", "half"):
            with pytest.raises(PluginError) as caught:
                registry.listing().find(f"acme_half:{name}")
            assert str(caught.value) == (
                f"transform 'half' (acme_half:{name}) builds no ITransform: {file}, line 5: Half "
                "is not one: it has no transform(message)"
            )

    def test_a_method_with_other_parameters_is_said_to_be_so(self, project: Project) -> None:
        text = _plugin("name, summary = 'a', ''")
        project.drop_in("acme_build", text.replace("(self, **arguments)", "(self)"))
        assert only(project.problems()).message == (
            "p does not keep to ITransformPlugin: it has no parameters, its build cannot be "
            "called as build(**arguments)"
        )

    def test_a_broken_entry_point_is_named_when_it_is_asked_for(self, project: Project) -> None:
        project.distribution(
            "acme", "oops = no_such_pkg:x\nfine = acme_fine:shout", acme_fine=SHOUT
        )
        project.distribution("acme_bare", "bare = acme_fine")
        project.distribution("acme_named", "Bad Name = acme_fine:shout")
        with pytest.raises(PluginError, match="got 'acme_fine'; a reference is written module:f"):
            registry.listing().find("bare")
        assert reply("fine", b"a") == b"A!"
        with pytest.raises(PluginError, match=r"^no module named 'no_such_pkg'"):
            registry.listing().find("oops")
        assert {"bare", "fine", "oops"} & set(registry.summaries()) == {"fine"}
        said, _, broken = registry.listing().describe().partition("\n\n")
        assert said.startswith("Transforms:\n  ascii-lowercase  ")
        assert "\n  fine             Say it loud.\n" in said
        assert broken == (
            "Cannot be used:\n"
            "  entry point of acme_named 1.5: Bad Name = acme_fine:shout has the name 'Bad Name'; "
            "lower-case letters, digits and single hyphens are accepted\n"
            "  bare: got 'acme_fine'; a reference is written module:function\n"
            "  oops: no module named 'no_such_pkg' for 'no_such_pkg:x'; install it or run in the "
            "folder that holds it"
        )
        problems = project.problems(thorough=True)
        assert [str(problem) for problem in problems if "acme 1.5" in problem.file] == [
            "entry point of acme 1.5: no module named 'no_such_pkg' for 'no_such_pkg:x'; install "
            "it or run in the folder that holds it"
        ]
        assert "acme_bare" in str(problems)
        assert "oops" not in registry.listing(thorough=True).transforms

    @pytest.mark.parametrize(
        ("line", "said"),
        [
            ("odd = acme-odd:f", "entry point of odd 1.5: got 'acme-odd:f'; a reference is wr"),
            ("odd = a b", "entry point of odd 1.5: got 'a b'; a reference is written mod"),
            ("odd", UNREADABLE),
        ],
    )
    def test_an_entry_point_that_is_none_hides_no_other(
        self, project: Project, line: str, said: str
    ) -> None:
        project.distribution("acme", "fine = acme_fine : shout [x]", acme_fine=SHOUT)
        project.distribution("odd", line)
        points = '[project.entry-points."uppercase.transforms"]'
        (project.here / "pyproject.toml").write_text(
            f'{points}\nodd = "x:f"\n[project]\nname = "odd"'
        )
        assert reply("fine", b"a") == b"A!"
        found, problems, lines = diagnose()
        assert "  acme 1.5: fine" in lines
        assert "fine" in found.transforms
        (problem,) = (each for each in map(str, problems) if each.startswith("entry point"))
        # From Python 3.15 on importlib.metadata reads none of them.
        assert problem.startswith(UNREADABLE if sys.version_info >= (3, 15) else said)

    def test_what_is_left_of_a_distribution_has_neither_name_nor_version(
        self, project: Project
    ) -> None:
        project.distribution("acme", "fine")
        (project.site / "acme-1.5.dist-info" / "METADATA").unlink()
        (problem,) = project.problems()
        assert problem.file == (
            f"entry points of a distribution without metadata in {project.site}"
        )

    def test_each_of_many_broken_drop_ins_is_told_of_without_a_look_at_all_others(
        self, project: Project, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for number in range(30):
            project.drop_in(f"broken{number}", "raise ValueError")
        looks, write = [], Problem.__str__
        monkeypatch.setattr(Problem, "__str__", lambda each: looks.append(each) or write(each))  # type: ignore[func-returns-value]
        assert len(project.problems()) == 30
        assert len(looks) <= 90

    def test_a_distribution_is_read_once_for_its_name(self) -> None:
        """Its metadata holds its whole README, and a start looks at each that has transforms."""
        reads = []

        class Counted(Distribution):
            def read_text(self, filename: str) -> str | None:
                reads.append(filename)
                return "Metadata-Version: 2.1\nName: acme\nVersion: 1.5\n"

            def locate_file(self, path: object) -> Any:
                raise NotImplementedError

        assert _sources.title(Counted()) == "acme 1.5"
        assert reads == ["METADATA"]

    @pytest.mark.parametrize(
        ("tail", "said"),
        [
            ("", "Plugin is a class and no instance of it is here"),
            ("plugin = Plugin()", ""),
            ("plugin = type('Better', (Plugin,), {})()", ""),
        ],
    )
    def test_a_class_without_an_instance_is_a_near_miss(
        self, project: Project, tail: str, said: str
    ) -> None:
        text = _plugin("name, summary, parameters = 'a', '', ()").replace("p = Plugin()", tail)
        file = project.drop_in("acme_class", text)
        assert project.problems() == []
        problems = project.problems(thorough=True)
        assert [(p.file, p.line) for p in problems] == ([(file, 5)] if said else [])
        assert said in "".join(map(str, problems))

    def test_a_transform_that_is_no_plugin_is_a_near_miss(self, project: Project) -> None:
        text = """
            from zope.interface import implementer
            from uppercase import ITransform

            @implementer(ITransform)
            class Twice: ...

            class Helper: ...
            """
        file = project.drop_in("acme_twice", text)
        assert str(only(project.problems(thorough=True))).startswith(
            f"{file}, line 5: Twice is a class and no instance of it is here; add one"
        )
        del sys.modules["twisted.plugins.acme_twice"]
        project.drop_in("acme_twice", f"{text}\n            twice = Twice()")
        assert str(only(project.problems(thorough=True))).startswith(
            f"{file}, line 5: twice provides ITransform but not ITransformPlugin"
        )

    def test_a_fault_of_what_is_defined_elsewhere_has_no_line(self, project: Project) -> None:
        project.module("acme_elsewhere", _plugin("name, summary, parameters = 'A B', '', ()"))
        file = project.drop_in("acme_imports", "from acme_elsewhere import p")
        problem = only(project.problems())
        assert (problem.file, problem.line) == (file, None)

    def test_a_class_from_elsewhere_is_no_near_miss(self, project: Project) -> None:
        text = _plugin("name, summary, parameters = 'a', '', ()").replace("p = Plugin()", "")
        project.module("acme_base", text)
        project.drop_in("acme_importer", "from acme_base import Plugin")
        assert project.problems(thorough=True) == []

    def test_a_plugin_without_iplugin_is_a_near_miss(self, project: Project) -> None:
        text = _plugin("name, summary, parameters = 'a', '', ()").replace(", IPlugin)", ")")
        project.drop_in("acme_no_iplugin", text)
        problem = only(project.problems(thorough=True))
        assert "@implementer(ITransformPlugin, IPlugin)" in problem.message
        assert "a" not in registry.listing().transforms

    def test_a_drop_in_hidden_by_one_of_the_same_name_is_a_near_miss(
        self, project: Project
    ) -> None:
        file = project.drop_in("uppercase_transforms", SHOUT)
        problem = only(project.problems(thorough=True))
        assert problem.file == file
        assert "has the same file name and hides it" in problem.message


class TestClashes:
    def test_two_plugins_of_one_name_are_both_named_and_only_that_name_is_refused(
        self, project: Project
    ) -> None:
        first = project.drop_in("acme_one", SHOUT)
        second = project.drop_in("acme_two", SHOUT)
        message = (
            f"2 transforms are named 'shout', in {first} and {second}; rename all but one, or "
            "serve one as module:function"
        )
        assert only(project.problems()).message == message
        with pytest.raises(NameClash) as caught:
            registry.listing().find("shout")
        assert str(caught.value) == message
        assert "uppercase" in registry.listing().transforms

    def test_a_built_in_cannot_be_replaced(self, project: Project) -> None:
        code = SHOUT.replace("@transform", "@transform(name='uppercase')")
        file = project.drop_in("acme_upper", code)
        assert reply("uppercase", b"a") == b"A"
        assert only(project.problems()).file == file

    def test_aliases_and_two_doors_to_one_object_are_no_clash(self, project: Project) -> None:
        project.distribution("acme", "shout = acme_same:shout", acme_same=SHOUT)
        project.drop_in("acme_alias", "from acme_same import shout\n_again = also = shout")
        found = registry.listing()
        assert found.problems == []
        assert reply("shout", b"a") == b"A!"

    def test_which_of_two_drop_ins_with_one_object_is_named_does_not_depend_on_the_order(
        self, project: Project
    ) -> None:
        project.module("acme_shared", SHOUT)
        first = project.drop_in("acme_a", "from acme_shared import shout")
        project.drop_in("acme_b", "from acme_shared import shout")
        assert registry.listing().lookup("shout").origin == first

    def test_one_object_of_two_drop_ins_need_not_have_a_hash(self, project: Project) -> None:
        members = "name, summary, parameters = 'shout', '', (); __hash__ = None"
        project.module("acme_shared", _plugin(members))
        for name in ("acme_a", "acme_b"):
            project.drop_in(name, "from acme_shared import p")
        assert registry.listing().lookup("shout").name == "shout"

    def test_an_entry_point_and_a_drop_in_of_one_name_clash(self, project: Project) -> None:
        project.distribution("acme", "shout = acme_other:shout", acme_other=SHOUT)
        file = project.drop_in("acme_mine", SHOUT)
        with pytest.raises(NameClash) as caught:
            registry.listing().find("shout")
        assert file in str(caught.value)
        assert "entry point of acme 1.5" in str(caught.value)

    @pytest.mark.parametrize("reference", ["acme_other:uppercase", "no_such_pkg:uppercase"])
    def test_a_built_in_keeps_its_name(self, project: Project, reference: str) -> None:
        """Whatever else is installed, what everybody has typed so far goes on working."""
        code = "def uppercase(text: str) -> str:\n    return 'mine'\n"
        project.distribution("acme", f"uppercase = {reference}", acme_other=code)
        assert reply("uppercase", b"a") == b"A"
        problem = only(project.problems())
        assert str(problem).startswith("entry point of acme 1.5: the name 'uppercase' is that of a")
        if "acme" in reference:
            assert reply("acme_other:uppercase", b"a") == b"mine"

    def test_what_cannot_be_loaded_still_claims_its_name(self, project: Project) -> None:
        project.distribution("acme", "shout = no_such_pkg:shout")
        file = project.drop_in("acme_only", SHOUT)
        with pytest.raises(NameClash, match=r"^2 transforms are named 'shout'"):
            registry.listing().find("shout")
        project.distribution("acme_too", "shout = no_such_pkg:shout")
        Path(file).unlink()
        with pytest.raises(NameClash, match=r"^2 transforms are named 'shout'"):
            registry.listing().find("shout")


def _make_older(file: Path) -> None:
    """Return a file the time that some installers give: older than the cache."""
    os.utime(file, (0, 0))


def _plugin(members: str) -> str:
    return dedent(
        f"""\
        from twisted.plugin import IPlugin
        from zope.interface import implementer
        from uppercase import ITransformPlugin

        @implementer(ITransformPlugin, IPlugin)
        class Plugin:
            {members}
            def build(self, **arguments): return 3

        p = Plugin()
        """
    )
