"""`uppercase transforms`: what is installed, and what an author needs besides an editor.

Each command imports what it needs when it runs: the listing must not pay for the contract kit.
"""

import json
import os
import sys
import traceback
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from importlib.util import find_spec
from inspect import isawaitable
from shutil import get_terminal_size
from typing import TYPE_CHECKING, Any, Final

import click

from uppercase.commands import CHUNK, OK, write_all
from uppercase.commands._options import SIZE, transform_names
from uppercase.commands.group import OTHER, Command, Group, SectionOption, completer, say, section
from uppercase.core.framing import FRAMINGS, choose_framing, framing_summaries, make_framer
from uppercase.core.pipeline import Pipeline
from uppercase.core.values import printable
from uppercase.errors import FramingError, TransformError, UppercaseError, UserError, suggest
from uppercase.limits import KIB, KIT_LARGE, MAX_LENGTH, MAX_OUTPUT, MIB, SLOW_CALL

if TYPE_CHECKING:
    from uppercase.awaiting import Waiter
    from uppercase.testing import Law

_WRONG: Final = 1
"""The exit status where a law is broken, something is wrong, or a transform has failed."""

_option = section(OTHER)


class _Command(Command):
    """A command with `--debug`, which shows the traceback of whatever ends it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params.append(SectionOption(["--debug"], is_flag=True, help="Show tracebacks."))

    def invoke(self, ctx: click.Context) -> Any:
        ctx.meta["uppercase.debug"] = ctx.params.pop("debug")
        try:
            return super().invoke(ctx)
        except UppercaseError as error:
            if _debugging():
                click.echo(printable(traceback.format_exc().rstrip(), keep="\n"), err=True)
            if not isinstance(error, TransformError | FramingError):
                raise
            say(str(error))
            return _WRONG
        except ModuleNotFoundError as error:
            if not str(error.name).startswith("twisted."):
                raise
            raise UserError(
                f"{find_spec('twisted').origin} hides Twisted; delete this file"  # type: ignore[union-attr]
            ) from error


def _debugging() -> bool:
    return bool(click.get_current_context().meta["uppercase.debug"])


@click.group(cls=Group)
def transforms() -> None:
    """List transforms, try them, check them, write new ones.

    Examples:
        uppercase transforms list                 what is installed, and from where
        uppercase transforms new shout            a folder with all that a transform needs
        uppercase transforms try caesar:shift=3   run one on what is typed or piped in
        uppercase transforms check mymodule:f     does it keep the laws that a server relies on?
        uppercase transforms doctor               why is mine not found?
    """


_argument = partial(click.argument, shell_complete=completer(transform_names))
_named = _argument("name", help="A transform, or module:function.")


@transforms.command("list", cls=_Command)
@_option("--json", "as_json", bool, "Print one object per line, for each transform.")
def list_(as_json: bool) -> int:
    """List the transforms that are installed, and where each comes from.

    Examples:
        uppercase transforms list
        uppercase transforms list --json | jq -r 'select(.streams).name'
    """
    from uppercase.registry import listing

    found = listing()
    rows = []
    broken = [str(problem) for problem in found.problems]
    for transform in found.transforms.values():
        try:
            rows.append(
                {
                    "name": transform.name,
                    "kind": transform.kind.value,
                    "streams": transform.streaming,
                    "arguments": [parameter.describe() for parameter in transform.parameters],
                    "summary": transform.summary,
                    "from": transform.provenance,
                }
            )
        except UppercaseError as error:
            broken.append(f"{transform.name}: {error}")
    if as_json:
        for row in rows:
            click.echo(json.dumps(row))
    else:
        _print_table(rows)
    for problem in broken:
        say(f"cannot be used: {problem}")
    if broken:
        say("uppercase transforms doctor tells more")
    return OK


def _say(text: str) -> None:
    """Print what may have come from a plugin."""
    click.echo(printable(text, keep="\n"))


_COLUMNS: Final = ("name", "kind", "streams", "arguments", "summary", "from")


def _print_table(rows: Iterable[dict[str, Any]]) -> None:
    """Print columns; on a terminal without room for them, a paragraph for each row."""
    cells = []
    for row in rows:
        streams = "streams" if row["streams"] else "messages"
        arguments = ", ".join(text.partition(":")[0] for text in row["arguments"]) or "-"
        cells.append([*{**row, "streams": streams, "arguments": arguments}.values()])
    widths = [max(map(len, column)) for column in zip(_COLUMNS, *cells, strict=True)]
    if sys.stdout.isatty() and sum(widths) + 2 * len(widths) > get_terminal_size().columns:
        formatter = click.get_current_context().make_formatter()
        formatter.write_dl(
            (name, f"{summary} ({kind}, {streams}; arguments: {arguments}; {origin})")
            for name, kind, streams, arguments, summary, origin in cells
        )
        _say(formatter.getvalue().rstrip("\n"))
        return
    for line in ([*_COLUMNS], *cells):
        padded = (f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True))
        _say("  ".join(padded).rstrip())


@transforms.command("show", cls=_Command)
@_named
def show(name: str) -> int:
    """Show one transform: its arguments, what it works on, where it comes from.

    Examples:
        uppercase transforms show caesar
        uppercase transforms show mymodule:shout
    """
    from uppercase.registry import listing

    _say(listing().lookup(name).describe())
    return OK


@transforms.command("try", cls=_Command)
@_argument("names", nargs=-1, required=True, metavar="NAME...", help="A chain of transforms.")
@_option(
    "-f",
    "--framing",
    str,
    "What is one message: line, netstring, ...; or stream. "
    "Without it a chain that can stream does; any other gets the whole input as one message, its "
    "last line end included, or each line that is typed.",
    metavar="NAME",
    shell_complete=completer(framing_summaries),
)
@_option(
    "--max-length", SIZE.positive, "Longest message of a framing.", default=f"{MAX_LENGTH // KIB}k"
)
@_option(
    "--max-output",
    SIZE.positive,
    "Longest output for one message or chunk.",
    default=f"{MAX_OUTPUT // MIB}M",
)
def try_(names: Sequence[str], framing: str | None, max_length: int, max_output: int) -> int:
    r"""Run a chain of transforms on standard input, without a socket.

    Examples:
        printf 'hello\n' | uppercase transforms try uppercase
        uppercase transforms try strip caesar:shift=3 < in.txt > out.txt
        uppercase transforms try mymodule:reverse --framing line < in.txt
    """
    from uppercase.awaiting import Waiter
    from uppercase.registry import listing

    if sys.stdin is None:
        raise UserError("standard input is closed; to try nothing, use </dev/null")
    stages = listing().stages(names)
    chain = Pipeline(stages, max_output)
    if framing is None:
        # What is typed is whole only at Ctrl-D, and then ends with a line end that nobody meant.
        framing = "stream" if chain.streams else "line" if sys.stdin.isatty() else "whole"
    elif framing == "segment" or framing not in FRAMINGS:
        known = [name for name in FRAMINGS if name != "segment"]
        raise UserError(f"no framing named {framing!r} for a file{suggest(framing, known)}")
    else:
        choose_framing(framing, chain.streams)
    with Waiter([stage.transform for stage in stages]) as waiter:
        for output in _outputs(chain, framing, max_length, waiter):
            write_all(output)
    return OK


def _outputs(chain: Pipeline, framing: str, max_length: int, waiter: "Waiter") -> Iterator[bytes]:
    """Return what comes of standard input; a chain that can stream need not wait for its end."""

    def reply(message: bytes) -> bytes:
        replied = waiter.call(lambda: chain.transform(message))
        return waiter.wait_for(replied) if isawaitable(replied) else replied

    chunks = iter(lambda: os.read(sys.stdin.fileno(), CHUNK), b"")
    if framing == "whole":
        yield reply(b"".join(chunks))
    elif framing == "stream":
        stream = chain.open_stream()
        yield from map(stream.feed, chunks)
        yield stream.finish()
    else:
        framer = make_framer(framing, max_length=max_length)
        for chunk in chunks:
            for message, trailer in framer.feed(chunk):
                yield framer.wrap(reply(message), trailer)
        for message, trailer in framer.finish():
            yield framer.wrap(reply(message), trailer)


@transforms.command("check", cls=_Command)
@_named
@_option(
    "-e",
    "--example",
    "examples",
    str,
    "Try this message too; repeatable. A transform that refuses most messages needs some.",
    multiple=True,
    metavar="TEXT",
)
def check(name: str, examples: Sequence[str]) -> int:
    """Check that a transform keeps the laws that servers rely on.

    Where one is broken, the smallest case is shown and the exit status is 1.

    Examples:
        uppercase transforms check caesar:shift=3
        uppercase transforms check mymodule:shout
        uppercase transforms check base64-decode --example aGVsbG8=
    """
    # Hypothesis writes notes into the current folder unless it is told of another place.
    os.environ.setdefault("HYPOTHESIS_STORAGE_DIRECTORY", os.devnull)
    try:
        from uppercase.testing import LAWS
        from uppercase.testing import check as examine
    except ImportError as error:
        raise UserError(str(error)) from error
    width = max(len(law.name) for law in LAWS)

    def tell(law: "Law", verdict: str, example: str) -> None:
        click.echo(f"{verdict:<6}  {law.name:<{width}}  {law.promise}")
        if example:
            _say(f"{'':8}{example}")

    report = examine(name, examples=[os.fsencode(text) for text in examples], tell=tell)
    if report.left_out:
        _say(report.left_out)
    if report.untried:
        click.echo(
            f"{len(report.untried)} of {len(LAWS)} laws could not be tried, because a reply did "
            "not come"
        )
        return _WRONG
    click.echo(
        f"{len(LAWS) - len(report.broken)} of {len(LAWS)} laws are kept; for messages of up to "
        f"{KIT_LARGE // KIB} KiB, the output is at most {_rounded(report.growth)} times the "
        f"input, the slowest call took {_rounded(report.seconds * 1000)} ms"
    )
    if report.seconds > SLOW_CALL and "time" not in [found.law for found in report.broken]:
        click.echo(
            "a call kept everybody else waiting for that long, which a server's log names; let it "
            "await what it waits for, or say blocking=True"
        )
    return _WRONG if report.broken else OK


def _rounded(number: float) -> str:
    """Return two digits of a number, without an exponent."""
    return f"{float(f'{number:.2g}'):,.12g}"


@transforms.command("new", cls=_Command)
@click.argument("name", help="Of the transform, and of the folder.")
@_option("--async", "is_async", bool, "An async function, which may await asyncio.")
@_option("--stream", bool, "A class whose instances are streams.")
def new(name: str, is_async: bool, stream: bool) -> int:
    """Write a small project in a new folder NAME: transform, tests, README.

    Examples:
        uppercase transforms new shout            a function of a message
        uppercase transforms new lookup --async   one that waits, such as for another server
        uppercase transforms new dashes --stream  a class that keeps something from chunk to chunk
    """
    from uppercase.commands.scaffold import write_project

    for file in write_project(name, is_async=is_async, stream=stream):
        click.echo(file)
    click.echo(f"next: cd {name} && pip install -e '.[test]' && pytest", err=True)
    return OK


@transforms.command("doctor", cls=_Command)
@_argument("name", required=False, help="This one only.")
def doctor(name: str | None) -> int:
    """Tell why a transform is not found: where it was looked for, what is there, what is wrong.

    Examples:
        uppercase transforms doctor
        uppercase transforms doctor shout
    """
    from uppercase.registry.doctor import diagnose

    found, problems, lines = diagnose()
    if name is not None:
        try:
            found.find(name)
        except UppercaseError as error:
            _say(str(error))
        else:
            known = found.transforms.get(name.partition(":")[0])
            _say(f"{name} can be served" + (f"; it comes from {known.origin}" if known else ""))
            return OK
    _say("\n".join(lines))
    _say("Wrong:" if problems else "Nothing is wrong.")
    for problem in problems:
        _say(f"  {problem}")
        if problem.traceback and _debugging():
            _say(problem.traceback.rstrip())
    return OK if name is None and not problems else _WRONG
