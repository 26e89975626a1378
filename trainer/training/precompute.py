"""What the frozen parts of a generator give for the prompts and pictures of a run, computed once and found by content.

Item i of a mixture is a function of (lock, i), so what a run of so many steps will ask is known before it begins.
Entries are found by the text or the pixels they were computed from, in a folder named by the digest of the parts that
computed them (`mixing.shards.array_store`): one can be missing, but never be that of another prompt, picture or model.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from cavendish.encoders.sample import Example, InputError, Rejection, UInt8Image
from cavendish.encoders.tasks.task import Kind
from cavendish.mixing.jobs.runners import Progress
from cavendish.mixing.shards.array_store import Arrays, SideShards, picture_key, text_key, write_side_shards
from cavendish.trainer.generators.folder import load_generator
from cavendish.trainer.generators.frozen import CachedEncoding, Frozen, to_arrays
from cavendish.trainer.generators.protocol import Generator, Spec
from cavendish.trainer.parallel import find_device, frozen_parts
from cavendish.trainer.training.config import TrainConfig

TEXT, LATENTS = "text", "latents"
_PER_SHARD = 100  # the condition of one prompt of a large model takes megabytes


class Item(Protocol):
    """One element of a mixture: an example, the source it is from, its kind, and the records it stands in for."""

    @property
    def example(self) -> Example: ...
    @property
    def source(self) -> str: ...
    @property
    def kind(self) -> Kind: ...
    @property
    def replaced(self) -> Sequence[Rejection]: ...


class Items(Protocol):
    """A mixture as the trainer reads it: item i is a pure function of i, without end."""

    def __getitem__(self, index: int) -> Item: ...


@dataclass(frozen=True)
class CachedItem:
    """An item of a mixture with the precomputed encodings of its example."""

    example: Example
    source: str
    kind: Kind
    replaced: Sequence[Rejection]
    cached: CachedEncoding


@dataclass(frozen=True)
class Precomputed:
    """What was written: distinct prompts and pictures among the examples of a run, and their bytes on disk."""

    examples: int
    prompts: int
    pictures: int
    size_bytes: int


def precompute(
    items: Items, config: TrainConfig, out: Path, data: Path, latents: bool = True, progress: Progress | None = None
) -> Precomputed:
    """Compute the text embeddings, and the latents of the pictures, of all examples of a run; what is there is kept.

    Args:
        items: what the run will read.
        out: folder for `text/` and `latents/`.
        latents: also those of source and target pictures.

    Raises:
        InputError: the generator has no frozen parts, or `out` holds what was computed for another run or model.
    """
    generator, frozen = _load(config, data)
    for part in frozen_parts(generator):
        part.to(find_device(config.device))
    examples = ((config.steps - 1) // config.repeats + 1) * config.batch
    texts: dict[str, int] = {}
    pictures: dict[str, tuple[int, str]] = {}
    for index in range(examples):
        example = items[index].example
        texts.setdefault(_text_key(example, frozen), index)
        for name in ("source", "target") if latents else ():
            picture: UInt8Image | None = getattr(example, name)
            if picture is not None:
                pictures.setdefault(picture_key(picture), (index, name))
    total = len(texts) + len(pictures)
    example_at = lru_cache(1)(lambda index: items[index].example)  # its prompt and images are asked for in a row
    done = itertools.count(1)

    def report(arrays: Arrays) -> Arrays:
        if progress is not None:
            progress(next(done), total)
        return arrays

    def text_of(index: int) -> Arrays:
        example = example_at(index)
        return report(to_arrays(generator.encode_text([example.prompt], [example.source])))

    def latent_of(index: int, name: str) -> Arrays:
        image = getattr(example_at(index), name)
        return report({"latent": generator.encode_image(image[None])[0].cpu().numpy()})

    text_entries = ((key, partial(text_of, index)) for key, index in texts.items())
    image_entries = ((key, partial(latent_of, *where)) for key, where in pictures.items())
    write_side_shards(out / TEXT, _digest(generator.spec, TEXT, config), text_entries, len(texts), _PER_SHARD)
    if latents:
        model = _digest(generator.spec, LATENTS, config)
        write_side_shards(out / LATENTS, model, image_entries, len(pictures), _PER_SHARD)
    size_bytes = sum(path.stat().st_size for path in out.rglob("*.tar"))
    return Precomputed(examples, len(texts), len(pictures), size_bytes)


def _load(config: TrainConfig, data: Path) -> tuple[Generator, Frozen]:
    if config.base is None:
        raise InputError("precompute: a fresh generator has no frozen parts; it is for a base in diffusers' layout")
    generator = load_generator(data / config.base, config.precision)
    if generator.spec.frozen is None:
        raise InputError(f"precompute: {generator.spec.name} has no frozen parts, so there is nothing to compute")
    return generator, generator.spec.frozen


def _digest(spec: Spec, what: str, config: TrainConfig) -> str:
    assert spec.frozen is not None
    parts = spec.frozen.text_parts if what == TEXT else spec.frozen.image_parts
    return spec.frozen.digest(parts, spec.name, config.precision)


def _text_key(example: Example, frozen: Frozen) -> str:
    return text_key(example.prompt, example.source if frozen.sees_picture else None)


def with_cached(items: Items, spec: Spec, config: TrainConfig, data: Path) -> Items:
    """Return the items with what was computed before of them, when the configuration names a folder of it."""
    return items if config.precomputed is None else CachedItems(items, spec, config, data)


class CachedItems:
    """Items with what was computed before of them; reads in whatever process asks, after a fork too.

    Args:
        items: the items of the mixture.
        spec: of the generator that is used now.

    Raises:
        InputError: `config.precomputed` is not complete or was computed by other parts or in another precision; a
            prompt or picture is not there, and `missing` is "error".
    """

    def __init__(self, items: Items, spec: Spec, config: TrainConfig, data: Path) -> None:
        assert config.precomputed is not None
        if spec.frozen is None:
            raise InputError(f"precomputed: {spec.name} has no frozen parts; take this key out")
        self._items, self._frozen = items, spec.frozen
        self._missing = config.precomputed.missing
        folder = data / config.precomputed.folder
        kinds = [TEXT, LATENTS] if (folder / LATENTS).exists() else [TEXT]
        self._folders = {what: (folder / what, _digest(spec, what, config)) for what in kinds}
        self._open()

    def _open(self) -> None:
        self._process = os.getpid()
        self._side = {what: SideShards(path, model) for what, (path, model) in self._folders.items()}

    def __getitem__(self, index: int) -> CachedItem:
        if self._process != os.getpid():
            self._open()  # of the process this one was forked from
        item: Item = self._items[index]
        return CachedItem(item.example, item.source, item.kind, item.replaced, self._cached(item.example))

    def _cached(self, example: Example) -> CachedEncoding:
        condition = self._find(TEXT, _text_key(example, self._frozen), f"the prompt {example.prompt!r}")
        if LATENTS not in self._side:
            return CachedEncoding(condition)
        source = None if example.source is None else self._latent(example.source, f"the source of {example.key}")
        return CachedEncoding(condition, source, self._latent(example.target, f"the target of {example.key}"))

    def _latent(self, picture: UInt8Image, what: str) -> NDArray[np.float32] | None:
        found = self._find(LATENTS, picture_key(picture), what)
        return None if found is None else found["latent"]

    def _find(self, what: str, key: str, name: str) -> dict[str, NDArray[Any]] | None:
        side = self._side[what]
        return side.find(key) if self._missing == "compute" else side.read(key, name)
