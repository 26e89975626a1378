"""What each shard of a job is made from, in a file of its own beside the shards.

A worker reads its part there. An element of the job carries no listing, so that its size does not grow with the inputs.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from cavendish.mixing.storage.files import canonical_json, read_json, write_atomic
from cavendish.mixing.storage.place import Place, files_below, is_url, join, make_folder

_FOLDER = "inputs"


def write_inputs(out: Place, shards: Iterable[Any]) -> None:
    """Write what each shard is made from, json-able, after the plan has been started; a damaged file is written again.

    At a URL what is there is not read again: it is of this plan.
    """
    folder = join(out, _FOLDER)
    make_folder(folder)
    there = set(files_below(folder))
    for index, listed in enumerate(shards):
        place, data = join(folder, _name(index)), canonical_json(listed)
        if _name(index) not in there or not (is_url(place) or Path(place).read_bytes() == data):
            write_atomic(place, data)


def read_inputs(out: Place, index: int) -> Any:
    """Read what a shard is made from.

    Raises:
        InputError: it was not written, or is not json.
    """
    return read_json(join(join(out, _FOLDER), _name(index)), "the inputs of a shard")


def _name(index: int) -> str:
    return f"inputs-{index:06d}.json"
