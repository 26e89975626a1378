"""Saved generators: a folder whose generator.json says which adapter reads it."""

from __future__ import annotations

from pathlib import Path

from encoders.sample import InputError
from mixing.storage import read_json
from trainer.generators.protocol import Generator
from trainer.generators.tiny import load_tiny


def load_generator(folder: Path) -> Generator:
    """Load a generator that `Generator.save` or a training run wrote.

    Raises:
        InputError: no generator there, of a kind this version does not know, or damaged.
    """
    values = read_json(folder / "generator.json", "a saved generator")
    name = values.get("name") if isinstance(values, dict) else None
    if name != "tiny/1":
        raise InputError(f"{folder}/generator.json: holds a generator {name!r}; this version reads tiny/1")
    return load_tiny(folder, values.get("config"))
