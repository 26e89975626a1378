"""Verbs of mixtures and their cards: mix, card."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from cavendish.cli.app import (
    CHECK,
    DataPlace,
    Overrides,
    app,
    console,
    counted,
    here_only,
    place_argument,
    place_option,
    say,
)
from cavendish.encoders.sample import InputError
from cavendish.mixing.storage.place import is_file, make_folder, name_of, parent_of

if TYPE_CHECKING:
    from cavendish.mixing.lock import Lock


@app.command(rich_help_panel=CHECK)
def mix(
    context: typer.Context,
    mixture: Annotated[
        Path | None, typer.Argument(callback=here_only, help="A mixture file; examples/mixture.yaml explains it.")
    ] = None,
    override: Overrides = None,
    out: Annotated[Any, place_option("Where to write the lock file.")] = None,
    data: DataPlace = Path(),
    preview: Annotated[Any, place_option("Also write a page of what it deals, as the trainer gets it.")] = None,
    size: Annotated[int, typer.Option(min=16, help="Side of the pictures in the preview, in pixels.")] = 64,
    stats: Annotated[Any, place_option("Look into a lock that is there, instead of making one.")] = None,
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


@app.command(rich_help_panel=CHECK)
def card(
    path: Annotated[Any, place_argument("A finished directory of shards, or the lock of a mixture.")],
    out: Annotated[Any, place_option("The folder to write to; without it that of the shards.")] = None,
    data: DataPlace = Path(),
    name: Annotated[str, typer.Option(help="Of the data set; without it that of the folder or lock.")] = "",
    description: Annotated[str, typer.Option(help="One or two sentences.")] = "",
    version: Annotated[str, typer.Option(help="Of the data set, as MAJOR.MINOR.PATCH.")] = "1.0.0",
    creator: Annotated[str, typer.Option(help="Who publishes it.")] = "",
    url: Annotated[str, typer.Option(help="Where it is published; without it tars are named by relative paths.")] = "",
    date: Annotated[str, typer.Option(help="Of publication, as YYYY-MM-DD; without it none is written.")] = "",
    cite: Annotated[str, typer.Option(help="How to cite it.")] = "",
) -> None:
    """Write README.md, croissant.json and ATTRIBUTION.md: contents, licences and what they ask, how it was made."""
    from cavendish.mixing.cards.card import About, write_card

    if date and not re.fullmatch(r"\d{4}-\d{2}-\d{2}", date):
        raise InputError(f"--date {date}: write it as YYYY-MM-DD")
    if not re.fullmatch(r"\d+\.\d+\.\d+", version):
        raise InputError(f"--version {version}: write it as MAJOR.MINOR.PATCH, for example 1.0.0")
    is_lock = is_file(path)
    if out is None and is_lock:
        raise InputError("the card of a lock needs --out, a folder of its own")
    place = path.resolve() if isinstance(path, Path) else path
    title = name or name_of(place).removesuffix(".json").removesuffix(".lock")
    told = description or f"{title}: {'a mixture of ' if is_lock else ''}shards made by Cavendish."
    about = About(title, told, version, creator, url, date, cite)
    for file in write_card(path, path if out is None else out, about, data):
        say(str(file))
