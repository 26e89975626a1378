"""Side shards: arrays computed once from prompts or pictures (text embeddings, latents), found again by content.

An entry's key is the sha256 of what it was computed from, and a directory belongs to one model, named by a digest of
its weights and settings. So an entry can be missing, but never be that of another prompt, picture or model.
Arrays are npy files in shards like any other (mixing.shards.writer): hashed part by part, written whole or not at all.
"""

from __future__ import annotations

import hashlib
import io
import math
from collections.abc import Callable, Iterable, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cavendish.encoders.sample import InputError, UInt8Image, one_line
from cavendish.mixing.shards.dataset import Plan, finish_dataset, finished_plan, is_committed, start_dataset
from cavendish.mixing.shards.reader import OPEN_SHARDS, OpenShard, Recent, open_local
from cavendish.mixing.shards.writer import ShardWriter

Arrays = Mapping[str, NDArray[Any]]

SIDE_KIND = "side/1"


def text_key(prompt: str, picture: UInt8Image | None = None) -> str:
    """Return the key of what is computed from a prompt, and from its picture where the model looks at that too."""
    seen = "" if picture is None else picture_key(picture)
    return hashlib.sha256(f"text/{seen}/{prompt}".encode()).hexdigest()


def picture_key(picture: UInt8Image) -> str:
    """Return the key of what is computed from the pixels of a picture (H, W, 3) uint8."""
    head = f"picture/{picture.dtype}{picture.shape}/".encode()
    return hashlib.sha256(head + np.ascontiguousarray(picture).tobytes()).hexdigest()


def write_side_shards(
    directory: Path,
    model: str,
    entries: Iterable[tuple[str, Arrays | Callable[[], Arrays]]],
    count: int,
    per_shard: int = 1000,
) -> None:
    """Write `count` entries to a directory; shards that are there are not written again.

    Args:
        model: digest of everything that decides what is computed: weights, settings, size.
        entries: (key, named arrays, or what computes them when they are to be written); keys must be in the same order
            in every attempt, later ones of a key are ignored.
        per_shard: entries a shard.

    Raises:
        InputError: the directory is of another model, there are fewer entries than `count`, or an array is of a kind
            that npy cannot hold without pickling.
    """
    plan = Plan(SIDE_KIND, math.ceil(count / per_shard), {"model": model, "count": count, "per_shard": per_shard})
    start_dataset(directory, plan)
    left = iter(entries)
    seen: set[str] = set()
    for shard in range(plan.shards):
        taken = list(islice(left, min(per_shard, count - shard * per_shard)))
        if len(taken) < min(per_shard, count - shard * per_shard):
            raise InputError(f"{directory}: {shard * per_shard + len(taken)} entries came, {count} were announced")
        fresh = {key: arrays for key, arrays in taken if key not in seen}
        seen.update(fresh)
        if not is_committed(directory, shard, plan.digest):
            with ShardWriter(directory, shard, plan.digest) as writer:
                for key, arrays in fresh.items():
                    computed = arrays() if callable(arrays) else arrays
                    writer.add_parts(key, {f"{name}.npy": _to_npy(array) for name, array in computed.items()})
    finish_dataset(directory, plan)


def _to_npy(array: NDArray[Any]) -> bytes:
    file = io.BytesIO()
    try:
        np.save(file, array, allow_pickle=False)
    except ValueError as error:
        raise InputError(f"an array of {array.dtype}: {error}") from None
    return file.getvalue()


def _from_npy(data: bytes, name: str) -> NDArray[Any]:
    try:
        array: NDArray[Any] = np.lib.format.read_array(io.BytesIO(data), allow_pickle=False)
        return array
    except Exception as error:  # numpy parses the header as Python and raises whatever the first wrong byte leads to
        raise InputError(f"{name}: not an npy of numbers: {one_line(error)}") from None


def _key_bytes(key: str) -> bytes:
    if len(key) != 64:
        raise ValueError(f"key {key!r:.80} is no sha256")
    return bytes.fromhex(key)


class SideShards:
    """Reads side shards by content.

    Args:
        directory: what `write_side_shards` wrote, complete.
        model: digest of the model that is used now.

    Raises:
        InputError: the directory is not complete, or of another model.
    """

    def __init__(self, directory: Path, model: str) -> None:
        plan = finished_plan(directory)
        made_by = str(plan.config.get("model"))
        if plan.kind != SIDE_KIND:
            raise InputError(f"{directory}: holds shards of kind {plan.kind!r}, not side shards")
        if made_by != model:
            raise InputError(
                f"{directory}: computed by model {made_by[:12]}, the model is now {model[:12]}: "
                "compute them again into another directory"
            )
        self.directory = directory
        self._shard = Recent(OPEN_SHARDS, self._open)
        indexes = [self._open(number).index for number in range(plan.shards)]
        try:
            keys = [np.frombuffer(b"".join(map(_key_bytes, index.keys)), "V32") for index in indexes]
        except ValueError as error:
            raise InputError(f"{directory}: damaged row: {error}") from None
        places = [np.stack([np.full(len(k), n), np.arange(len(k))], axis=1) for n, k in enumerate(keys)]
        every = np.concatenate([np.zeros(0, "V32"), *keys])
        order = np.argsort(every.view("S32"), kind="stable")
        self._keys = every.view("S32")[order]
        self._places = np.concatenate([np.zeros((0, 2), np.int64), *places])[order]

    def _open(self, number: int) -> OpenShard:
        return open_local(self.directory / f"shard-{number:06d}.tar")

    def __len__(self) -> int:
        return len(self._keys)

    def find(self, key: str) -> dict[str, NDArray[Any]] | None:
        """Return the arrays of a key, or None when it was not computed.

        Raises:
            InputError: the entry is damaged.
        """
        wanted = np.frombuffer(bytes.fromhex(key), "S32")[0]
        at = int(np.searchsorted(self._keys, wanted))
        if at == len(self._keys) or self._keys[at] != wanted:
            return None
        shard, place = self._places[at].tolist()
        opened = self._shard(shard)
        if opened.index.keys[place] != key:
            raise InputError(f"{self.directory}/{opened.name}: changed since it was opened")
        parts = opened.parts(place)
        return {name.removesuffix(".npy"): _from_npy(data, f"{opened.name}: {name}") for name, data in parts.items()}

    def read(self, key: str, what: str) -> dict[str, NDArray[Any]]:
        """Return the arrays of a key; `what` it was computed from is for the message when it is not there.

        Raises:
            InputError: it was not computed, or is damaged.
        """
        found = self.find(key)
        if found is None:
            raise InputError(f"{self.directory}: nothing was computed for {what} ({key[:12]}): compute it first")
        return found
