"""GenAI-Bench and ImgEdit Basic: prompts for the retention of generation. Both are judged, not measured (win_rate)."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from cavendish.encoders.sample import InputError
from cavendish.mixing.storage.place import read_json
from cavendish.trainer.evaluation.benchmarks.files import ODD, need_folder, read_rgb, safe_name
from cavendish.trainer.evaluation.items import Benchmark, Item

EDIT_TYPES = ("extract", "style", "add", "adjust", "background", "replace", "remove", "action", "compose")


def read_genai_bench(folder: Path) -> Benchmark:
    """Read GenAI-Bench: `genai_image.json`, id to {"prompt": ...}. Predictions are named by the 5-digit id."""
    path = next(
        (p for p in (folder / "genai_image.json", folder / "GenAI-Image-1600/genai_image.json") if p.is_file()), None
    )
    if path is None:
        raise InputError(f"genai-bench: no genai_image.json in {folder}")
    entries = _entries(path, "GenAI-Bench prompts")
    try:
        items = tuple(
            Item(name=safe_name(f"{int(key):05d}"), prompt=str(entry["prompt"]), read_image=None, read_truth=None)
            for key, entry in sorted(entries.items(), key=lambda pair: int(pair[0]))
        )
    except ODD as error:
        raise InputError(f"{path}: not GenAI-Bench: an entry without a number or prompt: {error!r}") from None
    expected = 527 if len(items) == 527 else 1600
    return Benchmark(name="genai-bench", task="generate", items=items, expected=expected)


def read_imgedit(folder: Path) -> Benchmark:
    """Read ImgEdit Basic: `basic_edit.json`, key to {"id": picture, "prompt", "edit_type"}, and the pictures.

    Predictions are named by the key, as the benchmark's own scripts expect them.
    """
    place = need_folder(folder, "Benchmark/singleturn", "singleturn", "Benchmark/Basic", "Basic", ".", what="imgedit")
    path = next((p for p in (place / "basic_edit.json", place / "singleturn.json") if p.is_file()), None)
    if path is None:
        raise InputError(f"imgedit: no basic_edit.json in {place}")
    items = []
    for key, entry in _entries(path, "ImgEdit Basic prompts").items():
        try:
            picture, prompt, kind = Path(entry["id"]), str(entry["prompt"]), str(entry["edit_type"])
        except ODD as error:
            raise InputError(f"{path}: entry {key!r} lacks id, prompt or edit_type: {error!r}") from None
        if kind not in EDIT_TYPES:
            raise InputError(f"{path}: entry {key!r} has edit_type {kind!r}; known are {', '.join(EDIT_TYPES)}")
        if picture.is_absolute() or ".." in picture.parts:
            raise InputError(f"{path}: entry {key!r}: picture {entry['id']!r} leads out of the folder")
        root = place / "original_images" if (place / "original_images").is_dir() else place
        items.append(
            Item(
                name=safe_name(key),
                prompt=prompt,
                read_image=partial(read_rgb, root / picture),
                read_truth=None,
                group=kind,
            )
        )
    return Benchmark(name="imgedit", task="edit", items=tuple(items), expected=737)


def _entries(path: Path, what: str) -> dict[str, Any]:
    values = read_json(path, what)
    if not isinstance(values, dict) or not values:
        raise InputError(f"{path}: expected a json object of entries ({what})")
    return values
