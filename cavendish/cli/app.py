"""What the verbs share: the application, its consoles, common options, the progress bar, running a shard job."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from cavendish.encoders.sample import InputError
from cavendish.mixing.accounting import Accounting
from cavendish.mixing.config import Config
from cavendish.mixing.storage.place import Place, expand_user, parse_place, url_within

app = typer.Typer(
    name="cavendish",
    help="Data pipeline and trainer that teaches image generators to answer vision tasks in decodable RGB.",
    epilog="Exit codes: 0 fine; 1 the answer is no (leak found, damage found, job not finished); 2 bad input, said in "
    "one line; 130 stopped by Ctrl-C: what is finished is kept, and the same command goes on. docs/verbs has every "
    "option and every key of the configurations.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
console = Console()
errors = Console(stderr=True)
MAKE, CHECK, LEARN, LOOK = "Make data", "Check, mix and hand on", "Train and ask", "Look, plan and try"
"""Under what a verb stands in the help."""
LINE_EVERY_S = 60.0


def _say_version(wanted: bool) -> None:
    if wanted:
        say(f"cavendish {version('cavendish')}")
        raise typer.Exit


@app.callback()
def _main(
    _version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_say_version, help="Say which version this is.")
    ] = False,
) -> None:
    pass


def say(text: str) -> None:
    """Print one line as it is, however narrow the terminal: paths in it can be copied."""
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def complain(text: str) -> None:
    """Say what is wrong on stderr, as it is and in one line however narrow the terminal."""
    errors.print(text, style="red", markup=False, highlight=False, soft_wrap=True)


def here_only(parameter: typer.CallbackParam, value: Any) -> Any:
    """Refuse a URL given for what a verb reads or writes on this machine alone; `file://` is a path of it."""
    if isinstance(value, list | tuple):
        return type(value)(here_only(parameter, one) for one in value)
    url = url_within(value)
    if url is None:
        return expand_user(value) if isinstance(value, Path) else value
    if url.startswith("file://"):
        return Path("/", url.removeprefix("file://"))
    name = parameter.opts[0] if parameter.param_type_name == "option" else (parameter.name or "").upper()
    raise InputError(f"{name} {url}: has to be on this machine; copy it here first")


def place_option(text: str) -> Any:
    """Declare an option whose value is a path or a URL."""
    return typer.Option(parser=parse_place, metavar="PATH|URL", help=text)


def place_argument(text: str) -> Any:
    """Declare an argument whose value is a path or a URL."""
    return typer.Argument(parser=parse_place, metavar="PATH|URL", help=text)


ConfigPath = Annotated[
    Path,
    typer.Argument(metavar="CONFIG", callback=here_only, help="A commented YAML; examples/ has one for each verb."),
]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[KEY=VALUE]...",
        help="Settings of the configuration to change, such as scenes=100 or ratios.vision=0.05.",
    ),
]
Out = Annotated[Path, typer.Option(callback=here_only, help="The folder to write; an unfinished one is continued.")]
OutPlace = Annotated[
    Any, place_option("The folder to write, or a URL such as s3://bucket/folder; an unfinished one is continued.")
]
Data = Annotated[Path, typer.Option(callback=here_only, help="Where relative paths in the configuration start.")]
DataPlace = Annotated[Any, place_option("Where relative paths in the configuration start; may be a URL.")]
Workers = Annotated[int, typer.Option(min=1, help="Worker processes on this machine.")]
Runner = Annotated[str, typer.Option(help="A Beam runner; FnApiRunner is the embedded one.")]
Split = Annotated[
    str, typer.Option(metavar="I/N", help="Do only every Nth shard, from I: job arrays without an engine.")
]
Scheduler = Annotated[
    str, typer.Option(metavar="ADDRESS", help="Run on this dask scheduler: tcp://host:8786, or its --scheduler-file.")
]
BeamOptions = Annotated[list[str] | None, typer.Option("--beam-option", help="A further Beam option, as --name=value.")]


@contextmanager
def progress_bar(title: str) -> Iterator[Callable[..., None]]:
    """Show one line of progress; the function it gives takes (done, planned). What never began shows none."""
    if not console.is_terminal:
        with _progress_lines(title) as report:
            yield report
        return
    columns = (
        TextColumn("{task.description:<22}"), BarColumn(32), MofNCompleteColumn(), TimeElapsedColumn(),
        TextColumn("{task.fields[note]}", style="dim"),
    )  # fmt: skip
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(title, total=None, note="")

        def report(done: int, planned: int, note: str = "") -> None:
            bar.update(task, completed=done, total=planned, note=note)

        try:
            yield report
        finally:
            if bar.tasks[0].total is None:
                bar.update(task, visible=False)


@contextmanager
def _progress_lines(title: str) -> Iterator[Callable[..., None]]:
    """Tell progress to a file or a pipe: a line a minute, and one at the end."""
    started = told = time.monotonic()
    line = ""

    def report(done: int, planned: int, note: str = "") -> None:
        nonlocal told, line
        now = time.monotonic()
        line = f"{title}: {done}/{planned}, {timedelta(seconds=int(now - started))} {note}".rstrip()
        if now - told >= LINE_EVERY_S:
            told = now
            say(line)

    try:
        yield report
    finally:
        if line:
            say(line)


def engine_of(  # type: ignore[no-untyped-def]
    workers: int, runner: str, split: str, options: list[str] | None, scheduler: str = ""
):
    """Return the engine that the options of a verb ask for; a refused one is an InputError."""
    from cavendish.mixing.jobs.runners import Engine, check_engine

    if scheduler and runner == "FnApiRunner":
        runner = "DaskRunner"

    try:
        index, count = (int(part) for part in split.split("/"))
    except ValueError:
        raise InputError(f"--split {split}: write it as I/N, for example 0/8") from None
    if not 0 <= index < count:
        raise InputError(f"--split {split}: I goes from 0 to N-1")
    engine = Engine(workers, runner, (index, count), options=tuple(options or ()), scheduler=scheduler)
    check_engine(engine)
    return engine


def run_job(  # type: ignore[no-untyped-def]
    title: str, config: Config, out: Place, job, engine, data: Place | None = None
) -> None:
    """Run a shard job with progress and say what it made."""
    with progress_bar(title) as report:
        arguments = (config, out, engine, report) if data is None else (config, out, engine, report, data)
        result = job(*arguments)
    made = f"{counted(result.made, 'shard')} made, {result.already} were there already"
    if result.totals is None:
        say(f"{out}: {made}; other splits are still to be done")
        return
    records, rejected = counted(result.totals["records"], "record"), result.totals["rejected"]
    say(f"{out}: {made}; {records}, {rejected} rejected, {result.totals['bytes'] / 1e6:.1f} MB")
    accounting = Accounting.of_totals(result.totals)
    say(f"{out}: {accounting}")
    if not accounting.written:
        say_rejected(out)
    check_written(out, accounting)


def check_written(out: Place, accounting: Accounting) -> None:
    """Refuse a job that wrote nothing.

    Raises:
        InputError: no input gave a record.
    """
    if not accounting.written:
        raise InputError(f"{out}: nothing was written: {accounting}")


def say_rejected(out: Place, at_most: int = 5) -> None:
    """Say which records the shards under `out` lack, and why: the first few."""
    from cavendish.mixing.shards.dataset import committed_rows

    rejected = [rejection for row in committed_rows(out) for rejection in row.rejected]
    for rejection in rejected[:at_most]:
        say(f"  rejected {rejection.key}: {rejection.reason}")
    if len(rejected) > at_most:
        say(f"  and {len(rejected) - at_most:,} more: `rejected` in the shards' json")


def counted(count: int, noun: str) -> str:
    """Say how many of a thing there are."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
