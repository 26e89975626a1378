"""Readers of what the audit and the trainer keep, and of what people type."""

from __future__ import annotations

import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

from cavendish.encoders.sample import InputError
from tests.fuzz.mutations import to_json
from tests.fuzz.readers import Reader, break_signed, fit_hashes, picture, put, unchanged


def _write_pack(folder: Path) -> None:
    from cavendish.mixing.audit.benchmarks.image_pack import build_pack

    put(folder, "bench/a.png", picture(3, 160))
    build_pack("b", folder / "bench", folder / "pack", pixels=True)


def _read_pack(folder: Path) -> None:
    from cavendish.mixing.audit.benchmarks.image_pack import read_pack

    header, pictures = folder / "pack/header.json", next(folder.glob("pack*/pictures.json"))
    with unchanged(header, pictures):
        fit_hashes(header, "arrays", **{path.stem: path for path in (folder / "pack").glob("*.npy")})
        fit_hashes(header, features=folder / "pack/features.bin")
        fit_hashes(pictures, sha256=pictures.with_name("pictures.bin"))
        pack = read_pack(folder / "pack")
    for number in range(len(pack.images)):
        pack.working_px(number)
        pack.features(number)
        if pack.has_pixels:
            pack.thumbnail(number)


def _write_generator(folder: Path) -> None:
    from cavendish.trainer.generators.tiny import TinyConfig, TinyGenerator

    TinyGenerator(TinyConfig(width=16), 0).save(folder / "generator")


def _read_generator(folder: Path) -> None:
    from cavendish.trainer.generators.folder import load_generator

    load_generator(folder / "generator")


def _write_checkpoint(folder: Path) -> None:
    import torch

    from cavendish.trainer.training.checkpoint import State, write_checkpoint

    tensors = {"w": torch.zeros(3)}
    optimizer = {"state": {0: {"step": torch.tensor(1.0), "exp_avg": torch.zeros(3)}}, "param_groups": [{"lr": 0.1}]}
    write_checkpoint(folder, State(3, {"a": 1}, {}, {}, [], {}, tensors, tensors, optimizer), keep=2)


def _read_checkpoint(folder: Path) -> None:
    from cavendish.trainer.training.checkpoint import checkpoints, read_checkpoint

    for path in checkpoints(folder):
        read_checkpoint(path)


def _write_sharded(folder: Path) -> None:
    import torch
    from torch.distributed.checkpoint.state_dict_saver import save

    save({"w": torch.arange(6.0), "step": torch.tensor(3.0)}, checkpoint_id=folder / "checkpoint-000003")
    put(folder, "checkpoint-000003/facts.json", to_json({"schema": "cavendish-sharded-checkpoint/1", "step": 3}))


def _read_sharded(folder: Path) -> None:
    import torch

    from cavendish.trainer.training.checkpoint import read_facts, read_sharded

    read_facts(folder / "checkpoint-000003")
    read_sharded(folder / "checkpoint-000003", {"w": torch.zeros(6), "step": torch.tensor(0.0)})


def _write_lineage(folder: Path) -> None:
    """A run that was tuned from a base, and a checkpoint of it."""
    from cavendish.mixing.lock import read_lock, write_lock
    from cavendish.mixing.storage.files import canonical_json
    from cavendish.trainer.generators.tiny import TinyConfig, TinyGenerator
    from cavendish.trainer.generators.weights import model_digest
    from cavendish.trainer.training.lineage import write_lineage
    from tests.audit_report import write_report
    from tests.mixing.shard_data import MIXTURE, lock_text, write_raw

    write_raw(folder / "raw", shards=1, each=3)
    write_report(folder / "report.json", folder, ["raw"])
    (folder / "run").mkdir()
    write_lock(folder / "run/mixture.lock.json", lock_text(folder, MIXTURE + "audit: report.json\n"))
    lock = read_lock(folder / "run/mixture.lock.json")
    identity: dict[str, object] = {"seed": 1, "steps": 3, "lock_digest": lock.digest}
    for name in ("base", "run"):
        TinyGenerator(TinyConfig(width=16, text_width=16, word_buckets=16), 0).save(folder / name / "generator")
        base = folder / "base/generator" if name == "run" else None
        if base is not None:
            identity["base_digest"] = model_digest(base)
        write_lineage(folder / name / "generator", 3, identity, lock, base)
    put(folder, "run/config.json", to_json({"seed": 1, "steps": 3, "base": "base/generator"}))
    facts = {"schema": "cavendish-sharded-checkpoint/1", "step": 3, "identity": identity}
    put(folder, "run/checkpoint-000003/facts.json", canonical_json(facts))


def _read_lineage(folder: Path) -> None:
    from cavendish.trainer.training.lineage import trace_lineage

    for place in ("run/generator", "run/checkpoint-000003", "run/mixture.lock.json"):
        try:
            trace_lineage(folder / place, folder)
        except InputError as error:
            assert "\n" not in str(error)  # noqa: PT017


def _write_tables(folder: Path) -> None:
    from cavendish.trainer.training.log import EVALUATION_COLUMNS, LOSS_COLUMNS, RATIO_COLUMNS

    rows = {
        "loss": (LOSS_COLUMNS, {"source": "a", "task": "depth", "loss": "0.5", "examples": "4"}),
        "ratios": (RATIO_COLUMNS, {"source": "a", "task": "depth", "share": "0.5", "asked": "0.4"}),
        "evaluation": (EVALUATION_COLUMNS, {"set": "s", "task": "depth", "who": "generator", "metric": "absrel"}),
    }
    for name, (columns, row) in rows.items():
        lines = [",".join(columns), *(",".join(row.get(key, str(n)) for key in columns) for n in (1, 2, 3))]
        put(folder, f"{name}.csv", "\n".join(lines) + "\n")


def _read_tables(folder: Path) -> None:
    from cavendish.trainer.training.curves import write_curves

    with TemporaryDirectory() as out:
        for name in ("loss", "ratios", "evaluation"):
            shutil.copy(folder / f"{name}.csv", out)
        write_curves(Path(out), 3)


def _read_texts(folder: Path) -> None:
    """Read what people type or models answer: legends, tasks."""
    from cavendish.encoders.legends.parser import parse_legend
    from cavendish.encoders.tasks.registry import read_question

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
    Reader("sharded checkpoints", _write_sharded, ("*/.metadata", "*/*", "*/facts.json"), _read_sharded),
    Reader(
        "lineage",
        _write_lineage,
        ("*/generator/lineage.json", "run/*.json", "run/*/facts.json", "report.json"),
        _read_lineage,
        break_signed,
    ),
    Reader("tables of a run", _write_tables, ("*.csv",), _read_tables),
    *map(_prompt, PROMPTS),
)
