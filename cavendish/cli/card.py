"""The verb that describes: dataset card, Croissant metadata and attribution list of shards or of a mixture."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

import typer

from cavendish.cli.app import CHECK, DataPlace, app, say
from cavendish.encoders.sample import InputError
from cavendish.mixing.storage.place import is_file, name_of, parse_place


@app.command(rich_help_panel=CHECK)
def card(
    path: Annotated[
        Any,
        typer.Argument(
            parser=parse_place, metavar="PATH|URL", help="A finished directory of shards, or the lock of a mixture."
        ),
    ],
    out: Annotated[
        Any,
        typer.Option(
            parser=parse_place, metavar="PATH|URL", help="The folder to write to; without it that of the shards."
        ),
    ] = None,
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
