"""Readers of what the audit and the trainer keep, and of what people type."""

from __future__ import annotations

from pathlib import Path

from encoders.sample import InputError
from tests.fuzz.readers import Reader, picture, put


def _write_pack(folder: Path) -> None:
    from mixing.audit.index import build_pack

    put(folder, "bench/a.png", picture(3, 160))
    build_pack("b", folder / "bench", folder / "pack", pixels=True)


def _read_pack(folder: Path) -> None:
    from mixing.audit.index import read_pack

    pack = read_pack(folder / "pack")
    for number in range(len(pack.images)):
        pack.working_px(number)
        pack.features(number)
        if pack.has_pixels:
            pack.thumbnail(number)


def _write_generator(folder: Path) -> None:
    from trainer.generators.tiny import TinyConfig, TinyGenerator

    TinyGenerator(TinyConfig(width=16), 0).save(folder / "generator")


def _read_generator(folder: Path) -> None:
    from trainer.generators.folder import load_generator

    load_generator(folder / "generator")


def _write_checkpoint(folder: Path) -> None:
    import torch

    from trainer.checkpoint import State, write_checkpoint

    tensors = {"w": torch.zeros(3)}
    optimizer = {"state": {0: {"step": torch.tensor(1.0), "exp_avg": torch.zeros(3)}}, "param_groups": [{"lr": 0.1}]}
    write_checkpoint(folder, State(3, {"a": 1}, {}, {}, [], tensors, tensors, optimizer), keep=2)


def _read_checkpoint(folder: Path) -> None:
    from trainer.checkpoint import checkpoints, read_checkpoint

    for path in checkpoints(folder):
        read_checkpoint(path)


def _read_texts(folder: Path) -> None:
    """Read what people type or models answer: legends, tasks."""
    from encoders.legend_parser import parse_legend
    from trainer.questions import read_question

    text = (folder / "prompt.txt").read_bytes().decode("utf-8", "replace")
    for read in (parse_legend, read_question):
        try:
            read(text)
        except InputError as error:
            assert "\n" not in str(error)  # noqa: PT017


PROMPTS = (
    'paint every "cat" #ff0000, dogs (0, 255, 0) and everything else black',
    '{"cat": [255, 0, 0], "sky": "#0000ff", "background": "black"}',
    "cat | red\ndog | blue\n",
    "segment the red mug; the blue chair",
    "label cat, dog, sky",
    "instances of chair",
)


def _prompt(text: str) -> Reader:
    return Reader(
        f"prompt: {text[:24]!r}", lambda folder: put(folder, "prompt.txt", text), ("prompt.txt",), _read_texts
    )


READERS: tuple[Reader, ...] = (
    Reader("fingerprint packs", _write_pack, ("pack/*", "pack*/pictures*"), _read_pack),
    Reader("generators", _write_generator, ("generator/*",), _read_generator),
    Reader("checkpoints", _write_checkpoint, ("*.pt",), _read_checkpoint),
    *map(_prompt, PROMPTS),
)
