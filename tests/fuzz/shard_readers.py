"""Readers of shards, rows, records, locks, mixture files, side shards and configurations."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from cavendish.encoders.sample import InputError
from cavendish.mixing.storage.files import digest
from tests.conftest import tiny_sample
from tests.fuzz.mutations import break_json, break_values, to_json
from tests.fuzz.readers import Reader, break_signed, put


def _write_shards(folder: Path) -> None:
    from tests.mixing.shard_data import MIXTURE, write_raw

    write_raw(folder / "raw", shards=1, each=3)
    put(folder, "mixture.yaml", MIXTURE)


def _read_shards(folder: Path) -> None:
    from cavendish.mixing.shards.dataset import finished_plan
    from cavendish.mixing.shards.reader import open_local, read_shard, verify
    from cavendish.mixing.shards.sample_format import parse_record

    verify(folder / "raw")
    finished_plan(folder / "raw")
    opened = open_local(folder / "raw/shard-000000.tar")
    for place, key in enumerate(opened.index.keys):
        parse_record(key, opened.parts(place))
    for _ in read_shard(folder / "raw/shard-000000.tar"):
        pass


def _read_evidence(folder: Path) -> None:
    """Trace a record and write a card, as `cavendish show --provenance` and `cavendish card` do."""
    from cavendish.mixing.cards.card import About, write_card
    from cavendish.mixing.provenance.lineage import trace_record
    from cavendish.mixing.visualize import read_records, summary

    about = About("x", "Things.", date="2026-11-01", cite="c", url="", creator="T")
    with TemporaryDirectory() as out:
        reads: tuple[Callable[[], object], ...] = (
            lambda: trace_record(folder / "raw", "scene-0-0", folder),
            lambda: write_card(folder / "raw", Path(out) / "card", about, folder),
            lambda: summary(folder / "raw"),
            lambda: read_records(folder / "raw", 3),
        )
        for read in reads:
            try:
                read()
            except InputError as error:
                assert "\n" not in str(error)  # noqa: PT017


def _write_record(folder: Path) -> None:
    from cavendish.mixing.shards.sample_format import sample_parts

    for name, data in sample_parts(tiny_sample()).items():
        put(folder, f"scene.{name}", data)


def _read_record(folder: Path) -> None:
    """Read a record whose hashes were made to fit, and do with it what the jobs do."""
    from cavendish.encoders.augment import resize_sample
    from cavendish.encoders.sample import Sample
    from cavendish.encoders.tasks.registry import make_example, tasks_of
    from cavendish.mixing.shards.sample_format import parse_record, record_facts, record_parts

    parts = {path.name.partition(".")[2]: path.read_bytes() for path in folder.iterdir()}
    record = parse_record("scene", parts)
    record_facts(record)
    record_parts(record)
    if isinstance(record, Sample):
        resized = resize_sample(record, 48, 48)
        for task in tasks_of(resized):
            try:
                make_example(resized, task, np.random.default_rng(0))
            except InputError:
                continue


def _write_example(folder: Path) -> None:
    from cavendish.encoders.tasks.registry import make_example
    from cavendish.mixing.shards.sample_format import example_parts

    example = make_example(tiny_sample(), "semantic", np.random.default_rng(0))
    for name, data in example_parts(example).items():
        put(folder, f"scene_semantic.{name}", data)


def _read_example(folder: Path) -> None:
    from cavendish.encoders.sample import Example
    from cavendish.encoders.tasks.registry import decode_example
    from cavendish.mixing.shards.sample_format import parse_record, record_facts, record_parts

    parts = {path.name.partition(".")[2]: path.read_bytes() for path in folder.iterdir()}
    record = parse_record("scene_semantic", parts)
    record_facts(record)
    record_parts(record)
    assert isinstance(record, Example)
    decode_example(record.spec, record.target)


def _write_lock(folder: Path) -> None:
    from cavendish.mixing.lock import write_lock
    from tests.mixing.shard_data import lock_text, write_raw

    write_raw(folder / "raw", shards=2, each=3)
    write_lock(folder / "lock.json", lock_text(folder))


def _break_lock(data: bytes, rng: np.random.Generator) -> bytes:
    """Break a lock and give it the digest that fits, as an attacker would."""
    if rng.random() < 0.2:
        return break_json(data, rng)
    values = json.loads(data)
    del values["digest"]
    values = break_values(values, rng)
    try:
        return to_json({**values, "digest": digest(values)})
    except (ValueError, TypeError, UnicodeEncodeError):
        return to_json(values)


def _read_lock(folder: Path) -> None:
    from cavendish.mixing.loader import MixtureDataset
    from cavendish.mixing.lock import diff_locks, read_lock, verify_lock

    lock = read_lock(folder / "lock.json")
    diff_locks(lock, replace(lock, seed=99))
    verify_lock(lock, folder)
    items = MixtureDataset(lock, folder, 16)
    for index in (0, 1, 7, 1000):
        items[index]


def _read_mixture(folder: Path) -> None:
    from cavendish.mixing.mixture.config import load
    from cavendish.mixing.mixture.make_lock import lock_mixture

    lock_mixture(load(folder / "mixture.yaml"), folder)


def _read_exclusions(folder: Path) -> None:
    from cavendish.mixing.mixture.make_lock import read_exclusions

    read_exclusions(folder / "exclude.json")


def _write_side(folder: Path) -> None:
    from cavendish.mixing.shards.array_store import text_key, write_side_shards

    entries = [(text_key(str(n)), {"a": np.arange(4.0, dtype=np.float32)}) for n in range(3)]
    write_side_shards(folder / "side", "m" * 64, entries, 3)


def _read_side(folder: Path) -> None:
    from cavendish.mixing.shards.array_store import SideShards, text_key

    side = SideShards(folder / "side", "m" * 64)
    for number in range(3):
        side.find(text_key(str(number)))


# Configurations


def _config(name: str) -> Reader:
    examples = Path(__file__).parents[2] / "examples"

    def read(folder: Path) -> None:
        from cavendish.annotate.config import AnnotateConfig
        from cavendish.annotate.download.job import DownloadConfig
        from cavendish.mixing.audit.config import AuditConfig
        from cavendish.mixing.config import read_config
        from cavendish.mixing.jobs.convert import ConvertConfig
        from cavendish.mixing.jobs.encode import EncodeConfig
        from cavendish.render.job import RenderConfig
        from cavendish.trainer.evaluation.generator import EvaluateConfig
        from cavendish.trainer.training.config import TrainConfig

        model = {
            "render_pyrender": RenderConfig,
            "annotate": AnnotateConfig,
            "encode": EncodeConfig,
            "audit": AuditConfig,
            "convert": ConvertConfig,
            "download": DownloadConfig,
            "train_tune": TrainConfig,
            "evaluate": EvaluateConfig,
        }[name]
        read_config(model, folder / "config.yaml")  # type: ignore[type-var]

    def write(folder: Path) -> None:
        put(folder, "config.yaml", (examples / f"{name}.yaml").read_bytes())

    return Reader(f"configuration: {name}", write, ("config.yaml",), read)


READERS: tuple[Reader, ...] = (
    Reader("shards", _write_shards, ("raw/*",), _read_shards),
    Reader("provenance, cards", _write_shards, ("raw/*.json", "raw/*"), _read_evidence, break_signed),
    Reader("records", _write_record, ("scene.json", "scene.json", "scene.*"), _read_record),
    Reader("examples", _write_example, ("*.instruction.json", "*"), _read_example),
    Reader("locks", _write_lock, ("lock.json",), _read_lock, _break_lock),
    Reader("mixture files", _write_shards, ("mixture.yaml",), _read_mixture),
    Reader("rows under a mixture", _write_shards, ("raw/*.json",), _read_mixture),
    Reader("exclusion lists", lambda f: put(f, "exclude.json", b'{"keys": ["a", "b"]}'), ("*.json",), _read_exclusions),
    Reader("side shards", _write_side, ("side/*",), _read_side),
    *map(_config, ("render_pyrender", "annotate", "encode", "audit", "convert", "download", "train_tune", "evaluate")),
)
