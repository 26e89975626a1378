"""The verb that locks mixtures, and looks into locks: mix."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from cavendish.cli.app import CHECK, DataPlace, Overrides, app, console, counted, here_only, say
from cavendish.encoders.sample import InputError
from cavendish.mixing.storage.place import make_folder, parent_of, parse_place

if TYPE_CHECKING:
    from cavendish.mixing.lock import Lock


@app.command(rich_help_panel=CHECK)
def mix(
    context: typer.Context,
    mixture: Annotated[
        Path | None, typer.Argument(callback=here_only, help="A mixture file; examples/mixture.yaml explains it.")
    ] = None,
    override: Overrides = None,
    out: Annotated[
        Any, typer.Option(parser=parse_place, metavar="PATH|URL", help="Where to write the lock file.")
    ] = None,
    data: DataPlace = Path(),
    preview: Annotated[
        Any,
        typer.Option(
            parser=parse_place,
            metavar="PATH|URL",
            help="Also write a page of what it deals, as the trainer gets it.",
        ),
    ] = None,
    size: Annotated[int, typer.Option(min=16, help="Side of the pictures in the preview, in pixels.")] = 64,
    stats: Annotated[
        Any,
        typer.Option(
            parser=parse_place, metavar="PATH|URL", help="Look into a lock that is there, instead of making one."
        ),
    ] = None,
    simulate: Annotated[
        str | None, typer.Option(help="Account for so many examples, 1e9 for example, without drawing one.")
    ] = None,
    diff: Annotated[
        tuple[Path, Path] | None,
        typer.Option(callback=here_only, help="Say what changed between two locks, instead."),
    ] = None,
) -> None:
    """Lock a mixture: every shard by its hash, exact shares, exclusions and the audit's verdict."""
    from cavendish.mixing.lock import diff_locks, read_lock, write_lock
    from cavendish.mixing.mixture.config import load
    from cavendish.mixing.mixture.make_lock import lock_mixture

    if diff is not None:
        _refuse_unused(context, "mix --diff", {"diff"})
        changes = diff_locks(read_lock(diff[0]), read_lock(diff[1]))
        for line in changes:
            say(line)
        raise typer.Exit(1 if changes else 0)
    if stats is not None:
        of_preview = set() if preview is None else {"data", "preview", "size"}
        _refuse_unused(context, "mix --stats", {"stats", "simulate"} | of_preview)
        lock = read_lock(stats)
    elif mixture is None or out is None:
        raise InputError("mix: give a mixture file and --out LOCK, or --stats LOCK, or --diff A B")
    else:
        if preview is None:
            _refuse_unused(context, "mix without --preview", set(context.params) - {"size"})
        lock = lock_mixture(load(mixture, override or ()), data)
        if isinstance(out, Path) and out.is_dir():
            raise InputError(f"--out {out}: is a folder; name a file, such as {out / 'mixture.lock.json'}")
        make_folder(parent_of(out))
        write_lock(out, lock)
    streams, sources = counted(len(lock.streams), "stream"), counted(len(lock.sources), "source")
    say(f"{stats or out}: {streams} of {sources}, digest {lock.digest[:16]}")
    if stats is not None:
        _print_sources(lock)
    if simulate is not None or stats is not None:
        _print_account(lock, simulate or "1e6")
    if preview is not None:
        from cavendish.mixing.mixture.preview import write_preview
        from cavendish.mixing.shards.reader import Reading

        with tempfile.TemporaryDirectory(prefix="cavendish-") as blocks:
            write_preview(lock, data, size, preview, reading=Reading(cache=Path(blocks)))
        say(f"{preview}")


def _refuse_unused(context: typer.Context, mode: str, used: set[str]) -> None:
    """Refuse what was given on the command line and has no effect.

    Raises:
        InputError: naming it.
    """
    for parameter in context.command.params:
        source = context.get_parameter_source(parameter.name or "")
        if source is not None and source.name == "COMMANDLINE" and parameter.name not in used:
            name = {"mixture": "MIXTURE", "override": "KEY=VALUE"}.get(parameter.name or "", parameter.opts[0])
            raise InputError(f"{mode}: {name} has no effect; leave it out")


def _print_sources(lock: Lock) -> None:
    table = Table("source", "shards", "records", "drawn from", "left out", "licences", title="sources")
    for source in lock.sources:
        licences = ", ".join(f"{count:,} {name}" for name, count in source.licences.items())
        left_out = ", ".join(f"{count:,} {reason}" for reason, count in source.left_out.items()) or "none"
        drawn_from = source.records - sum(source.left_out.values())
        counts = f"{len(source.shards):,}", f"{source.records:,}", f"{drawn_from:,}"
        table.add_row(source.name, *counts, left_out, licences)
    console.print(table)


def _print_account(lock: Lock, count: str) -> None:
    from cavendish.mixing.mixture.statistics import read_count
    from cavendish.mixing.mixture.statistics import simulate as account

    examples = read_count(count)
    table = Table("source", title=f"the first {examples:,} examples; no count is a whole example off")
    table.add_column("task", no_wrap=True)
    for name in ("records", "asked", "drawn", "off by", "epochs"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in account(lock, examples).streams:
        asked = float(row.asked / examples)
        counts = f"{row.drawn:,}", f"{float(row.drawn - row.asked):+.2f}", f"{row.epochs:,.5g}"
        table.add_row(row.stream.source, row.stream.task, f"{row.stream.pool:,}", f"{asked:.3%}", *counts)
    console.print(table)
