"""The verb that looks: into shards, at where a record comes from, and at what a generator was made of."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from cavendish.cli.app import LOOK, DataPlace, app, complain, console, counted, place_argument, place_option, say
from cavendish.encoders.sample import InputError
from cavendish.mixing.storage.place import Place, name_of

if TYPE_CHECKING:
    from cavendish.mixing.provenance.lineage import Link

_STYLES = {"ok": "green", "changed": "bold red", "missing": "yellow", "": "dim"}


@app.command(rich_help_panel=LOOK)
def show(
    path: Annotated[
        Any, place_argument("A shard (.tar) or a directory of shards; for --lineage a checkpoint or generator.")
    ],
    key: Annotated[str | None, typer.Argument(help="Only this record.")] = None,
    out: Annotated[Any, place_option("Also write a contact sheet here, .png or .html.")] = None,
    count: Annotated[int, typer.Option(min=1, help="How many records.")] = 12,
    cell: Annotated[int, typer.Option(min=32, max=1024, help="Size of a picture in the sheet, in pixels.")] = 192,
    verify: Annotated[
        bool, typer.Option("--verify", help="Check every byte and record of a directory instead.")
    ] = False,
    provenance: Annotated[
        bool, typer.Option("--provenance", help="Trace KEY to configuration, seeds, tools, models, assets and files.")
    ] = False,
    lineage: Annotated[
        bool, typer.Option("--lineage", help="Trace a checkpoint, generator or lock to its base, mixture and shards.")
    ] = False,
    config: Annotated[Any, place_option("Write the configuration these shards were made with to this YAML.")] = None,
    data: DataPlace = Path(),
    lock: Annotated[Any, place_option("For --lineage: the lock, where it is not where the training found it.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="For --lineage: do not hash the tars.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="For --provenance and --lineage: as json.")] = False,
) -> None:
    """Look into shards, verify them, or trace a record or a generator to what it was made from."""
    if config is not None:
        from cavendish.mixing.provenance.lineage import write_config

        say(f"{config}: for `cavendish {write_config(path, config)}`")
    elif provenance:
        from cavendish.mixing.provenance.lineage import trace_record

        if key is None:
            raise InputError("--provenance needs the key of a record: cavendish show SHARDS KEY --provenance")
        print_trace(trace_record(path, key, data), as_json)
    elif lineage:
        from cavendish.trainer.training.lineage import trace_lineage

        print_trace(trace_lineage(path, data, lock, quick), as_json)
    elif verify:
        _verify(path)
    else:
        _look(_shards_at(path), key, out, count, cell)


def _shards_at(path: Place) -> Place:
    """Return the shard or the directory of shards that is meant; say what else is there instead."""
    if not isinstance(path, Path) or not path.exists():
        return path
    if path.is_dir():
        if any((path / name).exists() for name in ("generator.json", "train.json", "generator/generator.json")):
            raise InputError(
                f"{path}: of a training, not of shards: cavendish show {path} --lineage says what it is made of"
            )
    elif path.suffix == ".json" and path.with_suffix(".tar").exists():
        return path.with_suffix(".tar")
    elif path.name.endswith(".lock.json"):
        raise InputError(f"{path}: a lock, not shards: cavendish mix --stats {path} says what is in it")
    elif path.suffix != ".tar":
        raise InputError(f"{path}: not a shard (.tar) or a directory of shards")
    return path


def _verify(path: Place) -> None:
    from cavendish.mixing.shards.reader import verify
    from cavendish.mixing.visualize import summary

    problems = verify(path)
    for problem in problems:
        complain(problem)
    say(f"{path}: {summary(path)}; {counted(len(problems), 'problem')}")
    raise typer.Exit(1 if problems else 0)


def _look(path: Place, key: str | None, out: Place | None, count: int, cell: int) -> None:
    from cavendish.mixing import visualize as looking

    if out is not None:
        looking.check_sheet(out)
    records = looking.read_records(path, count) if key is None else [looking.read_one(path, key)]
    title = looking.summary(path) if looking.is_directory(path) else name_of(path)
    more = f"the first {len(records)}; --count N shows more" if key is None and len(records) == count else None
    table = Table(title=title, caption=more)
    table.add_column("key", overflow="fold")  # to be copied whole
    for name in ("size", "what is there", "words"):
        table.add_column(name)
    for record in records:
        table.add_row(*looking.describe(record))
    console.print(table)
    if out is not None:
        looking.write_sheet(records, out, cell)
        say(f"{out}")


def print_trace(trace: Link, as_json: bool) -> None:
    """Print a trace; exit code 1 when something in it is no longer what it was."""
    from cavendish.mixing.provenance.lineage import states

    found = states(trace)
    if as_json:
        typer.echo(json.dumps(asdict(trace), indent=1, ensure_ascii=False))
    else:
        # whole lines in a narrow terminal or a pipe: hashes and commands are there to be copied
        Console(width=10_000, soft_wrap=True).print(_tree(trace, None))
        counts = [f"{found.get(state, 0)} {state}" for state in ("ok", "missing", "changed")]
        say(f"links: {', '.join(counts)}")
    raise typer.Exit(1 if found.get("changed") else 0)


def _tree(link: Link, parent: Tree | None) -> Tree:
    line = Text.assemble(
        (f"{link.state} " if link.state else "", _STYLES[link.state]), (f"{link.name}  ", "bold"), link.text
    )
    tree = Tree(line) if parent is None else parent.add(line)
    for below in link.links:
        _tree(below, tree)
    return tree
