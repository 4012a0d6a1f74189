"""The commands for a class: `uppercase fates`, `run`, `timeline` and `grade`.

`uppercase.lab` and `uppercase.classroom` do the work, and are imported when it is asked for. The
lab's options are passed on as they were typed, as in the services, so that equal options give equal
fates.
"""

import signal
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any, Final

import click

from uppercase import lab as labs
from uppercase.commands import NETWORK, OK, _options, foreground, running
from uppercase.commands._options import ANY_PATH, COUNT, DURATION, FILE, PORT
from uppercase.commands.group import Command, Function, completer, say, section
from uppercase.core.values import host_address
from uppercase.errors import UserError, install

_FATES: Final = 20
"""Lines of an answer key: what fits on a screen or a sheet of paper."""

OVERTIME: Final = 124
"""The exit status of a program that was killed, as in timeout(1)."""

_JOBS: Final = 8
"""A check mostly waits: this many cost one core little, and hardly any memory."""

_PICTURES: Final = (".svg", ".pdf", ".png", ".txt", ".pcapng")
_ACCEPTED: Final = ".svg, .pdf, .png, .txt or .pcapng"

_lab, _key, _service = section("Lab"), section("Key"), section("Service")
_exercise, _drawing, _output = section("Exercise"), section("Picture"), section("Output")


class _Picture(click.Path):
    """A file whose name says its format; what would need a missing library is refused at once."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        path: Any = super().convert(value, param, ctx)
        if path.suffix.lower() not in _PICTURES:
            raise UserError(f"got {path}; a name that ends in {_ACCEPTED} is accepted")
        if path.suffix.lower() in (".pdf", ".png"):
            _options.require_matplotlib(
                f"a {path.suffix} needs matplotlib: {install('plots')}, or write a .svg"
            )
        return path


_PICTURE: Final = _Picture(dir_okay=False, path_type=Path)
_ANY_PORT: Final[Any] = {"default": 0, "show_default": "any free one"}
_program = partial(
    click.argument,
    "command",
    nargs=-1,
    type=ANY_PATH,
    metavar="-- COMMAND ARG...",
    help="The program.",
)


def _preset(text: str, *kinds: Any) -> Callable[[Function], Function]:
    known = {name: lab.summary for kind in kinds for name, lab in kind.items()}
    complete = completer(lambda: known)
    return _lab("--lab", str, text, metavar="PRESET", shell_complete=complete)


@click.command("fates", cls=Command)
@_lab("--seed", COUNT, "The server's --seed; required.")
@_preset(f"A preset: {', '.join(labs.UDP_PRESETS)}.", labs.UDP_PRESETS)
@_options.lab(labs.UDP_OPTIONS)
@_key("-n", "number", COUNT.positive, "How many datagrams.", default=_FATES)
@_key(
    "--client",
    str,
    "The client's address, for a server that was started with --per-client.",
    metavar="ADDRESS",
)
def fates(
    seed: int | None, lab: str | None, number: int, client: str | None, **options: str | None
) -> None:
    """Print what the server's lab does to a client's datagrams, one per line.

    A value is for requests; reply: or both: before it names the other side, a comma joins two.

    Examples:
        uppercase fates --seed 7 --loss 0.3 -n 20        which of 20 requests are lost
        uppercase fates --seed 7 --lab udp-pinger        a preset
        uppercase fates --seed 7 --loss request:0.1,reply:0.2
    """
    if seed is None:
        raise UserError("got no --seed; the server prints its own when it starts: --seed=N")
    host = ""
    if client is not None:
        if (address := host_address(client)) is None:
            raise UserError(f"got --client={client}; an IP address without a port is accepted")
        # As a service writes it: the draws depend on its spelling.
        host = "".join([str(address), *client.partition("%")[1:]])
    settings = labs.merge_settings(lab, _given(options))
    experiment = labs.make_experiment(settings, seed=seed, per_client=client is not None)
    for row in labs.answer_key(experiment, number, host=host):
        click.echo(str(row))


def _given(options: dict[str, str | None]) -> dict[str, str]:
    """Return the lab's options that were typed, by their names."""
    return {name.replace("_", "-"): text for name, text in options.items() if text is not None}


# What follows the program is the program's, as in timeout(1), even without `--`.
@click.command("run", cls=Command, context_settings={"allow_interspersed_args": False})
@_service("-u", "--udp", bool, "UDP; without it, TCP.")
@_service(
    "-t",
    "--transform",
    "transforms",
    str,
    "The transform to serve; repeat it for a chain.",
    metavar="NAME",
    multiple=True,
    shell_complete=completer(_options.transform_names),
    default=("uppercase",),
)
@_service("--port", PORT, "The service's port, for programs that have a fixed one.", **_ANY_PORT)
@_lab("--seed", COUNT, "Decides what happens to which datagram.", show_default="random")
@_preset("A preset, which the options change.", labs.TCP_PRESETS, labs.UDP_PRESETS)
@_options.lab({**labs.TCP_OPTIONS, **labs.UDP_OPTIONS})
@section("Program")(
    "--timeout",
    DURATION.positive,
    "Kill the program, and all that it has started, after this.",
    default="5m",
)
@_output("--timeline", _PICTURE, f"Write the timeline to this file too, as {_ACCEPTED}.")
@_output("--record", FILE, "Write the record to this file, as the services do.")
@_program(required=True)
def run(
    udp: bool,
    transforms: tuple[str, ...],
    port: int,
    seed: int | None,
    lab: str | None,
    timeout: float,
    timeline: Path | None,
    record: Path | None,
    command: tuple[str, ...],
    **options: str | None,
) -> int:
    """Run a program against a service of its own; print what the network did.

    {host} and {port} in its arguments are the service's, and so are UPPERCASE_HOST and
    UPPERCASE_PORT in its environment. The exit status is the program's, 124 after --timeout. The
    timeline goes to standard error.

    Examples:
        uppercase run -- python3 TCPClient.py {host} {port}
        uppercase run -u --loss 0.3 --seed 7 -- python3 UDPClient.py {host} {port}
        uppercase run -u --port 12000 -- python3 UDPClient.py    a program with a fixed port
    """
    from uppercase.classroom.captive import HOST, ObservedService
    from uppercase.classroom.picture import save_timeline
    from uppercase.classroom.record import look_for_writer
    from uppercase.classroom.timeline import Timeline, draw_text

    _refuse_unwritable(timeline, record)
    if record is not None:
        look_for_writer(record)
    given = _given(options)
    of_tcp = {*labs.TCP_OPTIONS, *labs.TCP_PRESETS}
    of_udp = {*labs.UDP_OPTIONS, *labs.UDP_PRESETS}
    if foreign := {*given, lab or ""} & (of_tcp - of_udp if udp else of_udp - of_tcp):
        fix = "TCP only; leave out" if udp else "UDP only; add"
        raise UserError(f"got {min(foreign)}, which is for {fix} -u")
    service = ObservedService(
        udp=udp, transforms=transforms, port=port, lab=lab, options=given, seed=seed
    )
    _leave_nobody_behind()
    with running(), service:
        status = _run_in_terminal(command, service.port, timeout)
    if status is None:
        say(f"the program was killed after {timeout:g} s (--timeout); it did not end")
        status = OVERTIME
    drawn = Timeline.of(*service.seen())
    click.echo("\n".join(draw_text(drawn)), err=True)
    if not drawn.clients:
        say(
            f"the program sent nothing to {'UDP' if udp else 'TCP'} {HOST}:{service.port}; "
            "{host} and {port} among its arguments tell it where, and --port is for a program "
            "with a fixed port"
        )
    _save(record, lambda path: path.write_bytes(service.record()))
    _save(timeline, partial(save_timeline, drawn))
    return status


@click.command("timeline", cls=Command)
@click.argument(
    "record",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="What a service's --record=FILE wrote.",
)
@_drawing("--client", str, "Only this client.", metavar="ADDRESS")
@_drawing(
    "-o",
    "--output",
    _PICTURE,
    f"Write the timeline to this file, as {_ACCEPTED}; without it, print it as text.",
)
def timeline(record: Path, client: str | None, output: Path | None) -> None:
    """Draw what a service did: an arrow for each datagram, time downward.

    Examples:
        uppercase timeline record.jsonl                    as text
        uppercase timeline record.jsonl -o lesson.svg      as a picture
        uppercase timeline record.jsonl -o lesson.pcapng   for Wireshark
        uppercase timeline record.jsonl --client 192.0.2.20
    """
    from uppercase.classroom.picture import save_timeline
    from uppercase.classroom.record import read_record
    from uppercase.classroom.timeline import Timeline, draw_text

    with record.open("rb") as file:
        about, rows, problem = read_record(file, str(record))
    drawn = Timeline.of(about, rows, client or "")
    _save(output, partial(save_timeline, drawn))
    if output is None:
        click.echo("\n".join(draw_text(drawn)))
    if problem:
        say(problem)


def _run_in_terminal(command: Sequence[str], port: int, seconds: float) -> int | None:
    """Run a program with our own standard streams; return its status as a shell reports it.

    Where standard input is a terminal, the program has it, as a shell's foreground job does: it
    reads the keyboard, and Ctrl-C and Ctrl-Z are for it. After `seconds` it is killed: None.
    """
    from uppercase.classroom.captive import NO_INTERPRETER, Program

    try:
        program = Program(command, port, limits=None)
    except OSError as error:
        there = isinstance(error, FileNotFoundError) and Path(command[0]).exists()
        why = NO_INTERPRETER if there else error.strerror
        raise UserError(f"cannot run {command[0]}: {why}") from error
    with program, foreground(program.process.pid):
        status = program.wait(seconds)
    return 128 - status if status is not None and status < 0 else status


def _leave_nobody_behind() -> None:
    """Have signals interrupt us as Ctrl-C does, so that programs are killed; not ignored ones."""
    from uppercase.classroom.captive import KILLED_WITHIN

    killing_until = 0.0

    def interrupt(*_: object) -> None:
        nonlocal killing_until
        # Another one would interrupt that, and a terminal that is closed sends it twice.
        if monotonic() > killing_until:
            killing_until = monotonic() + KILLED_WITHIN
            raise KeyboardInterrupt

    for number in signal.SIGINT, signal.SIGTERM, signal.SIGHUP:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, interrupt)
    # Ignored, as by some of those who start others, it would hide how a program has ended.
    if signal.getsignal(signal.SIGCHLD) is signal.SIG_IGN:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)


def _refuse_unwritable(*files: Path | None) -> None:
    """Refuse files that could not be written in the end; what a program did is not repeated."""
    for file in files:
        if file is not None and not file.parent.is_dir():
            raise UserError(f"cannot write {file}: there is no folder {file.parent}")
        _save(file, _options.try_to_write)


def _save(path: Path | None, write: Callable[[Path], object]) -> None:
    """Write a file if one is wanted; if the system refuses, say so in a sentence."""
    try:
        if path is not None:
            write(path)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from error


def _exercises() -> dict[str, str]:
    from uppercase.classroom.exercises import find_exercises

    return {name: each.summary for name, each in find_exercises()[0].items()}


class _Grade(Command):
    """Takes its own options after the exercise, so a program's need a `--` before them."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            if error.possibilities:
                raise
            hint = "; where it is the program's, put -- before the program"
            ctx.fail(error.format_message().removesuffix(".") + hint)


@click.command("grade", cls=_Grade)
@_exercise("--list", "listed", bool, "List the exercises.")
@_exercise("--port", PORT, "The port, for programs that have a fixed one.", **_ANY_PORT)
@_exercise("--jobs", COUNT.positive, "Checks at once; one with --port.", default=_JOBS)
@_output("--timelines", bool, "Show each failed check's timeline.")
@_output("--json", "as_json", bool, "Print one JSON object instead of lines.")
@_output("--junit", FILE, "Write JUnit's XML too, for CI systems.")
@_output("--gradescope", FILE, "Write Gradescope's results.json too.")
@_output(
    "--report",
    click.Path(file_okay=False, path_type=Path),
    "Write a page with the timelines into this folder too.",
    metavar="DIR",
)
@click.argument(
    "exercise",
    required=False,
    metavar="EXERCISE",
    help="One of --list, or a TOML file.",
    shell_complete=completer(_exercises),
)
@_program()
def grade(
    listed: bool,
    port: int,
    jobs: int,
    timelines: bool,
    as_json: bool,
    junit: Path | None,
    gradescope: Path | None,
    report: Path | None,
    exercise: str | None,
    command: tuple[str, ...],
) -> int:
    """Grade a program: each check, its points, and what was expected and got.

    {host} and {port} in its arguments, UPPERCASE_HOST and UPPERCASE_PORT in its environment, say
    where to serve or whom to ask. The exit status is 0 if all checks pass, else 1.

    Examples:
        uppercase grade --list
        uppercase grade udp-client -- python3 UDPClient.py {host} {port}
        uppercase grade tcp-server --port 12000 -- python3 TCPServer.py
        uppercase grade lab3.toml --report marks -- java Client {host} {port}
    """
    from uppercase.classroom import marks as outputs
    from uppercase.classroom.exercises import find_exercise
    from uppercase.classroom.grade import Mark, Trial
    from uppercase.classroom.grade import grade as examine

    if listed:
        return _list()
    if exercise is None or not command:
        raise UserError("got no program; uppercase grade EXERCISE -- COMMAND ARG... is accepted")
    wanted = find_exercise(exercise)
    _save(report, partial(Path.mkdir, parents=True, exist_ok=True))
    _refuse_unwritable(junit, gradescope, report and report / "index.html")
    marks: list[Mark] = []
    _leave_nobody_behind()
    with running():
        for mark in examine(wanted, Trial(command, port), jobs):
            marks.append(mark)
            if not as_json:
                click.echo("\n".join(outputs.as_lines(mark, timeline=timelines)))
    had, most = outputs.total(marks)
    click.echo(outputs.as_json(wanted, marks) if as_json else f"{had} of {most} points")
    if warning := outputs.warning(marks):
        say(warning)
    _save(junit, lambda path: path.write_bytes(outputs.as_junit(wanted, marks)))
    _save(gradescope, lambda path: path.write_bytes(outputs.as_gradescope(marks)))
    _save(report, partial(outputs.write_report, wanted, marks))
    return OK if had == most else NETWORK


def _list() -> int:
    """Print the exercises, and a sentence for each broken one."""
    from uppercase.classroom.exercises import find_exercises

    found, broken = find_exercises()
    for name, each in found.items():
        points = sum(check.points for check in each.checks)
        click.echo(f"{name:<14} {points:>3}  {each.summary}")
    for sentence in broken.values():
        say(sentence)
    return OK
