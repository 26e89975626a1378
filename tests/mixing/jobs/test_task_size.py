"""What a job sends for one element does not grow with its inputs: on a cluster a graph of n elements would have n^2."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cloudpickle
import pytest

from cavendish.annotate import job as annotating
from cavendish.annotate.job import AnnotateConfig, annotate
from cavendish.encoders.sample import InputError
from cavendish.mixing.jobs import beam
from cavendish.mixing.jobs import convert as converting
from cavendish.mixing.jobs import encode as encoding
from cavendish.mixing.jobs.convert import ConvertConfig, convert
from cavendish.mixing.jobs.encode import EncodeConfig, encode
from cavendish.mixing.jobs.runners import JobResult
from cavendish.mixing.shards.dataset import Row
from cavendish.mixing.sources.items import Item, Listing, Part
from cavendish.mixing.storage.files import canonical_json
from cavendish.render.job import RenderConfig, render
from tests.mixing.shard_data import write_raw

Start = Callable[[int, Path, pytest.MonkeyPatch], JobResult]


def start_render(inputs: int, out: Path, patch: pytest.MonkeyPatch) -> JobResult:
    return render(RenderConfig(engine="pyrender", seed=1, scenes=inputs, scenes_per_shard=1), out)


def start_encode(inputs: int, out: Path, patch: pytest.MonkeyPatch) -> JobResult:
    rows = [Row(f"shard-{n:06d}.tar", "p", 1, 9, f"{n:064x}", {f"s-{n}": {}}) for n in range(inputs)]
    patch.setattr(encoding, "complete_rows", lambda place: rows)
    (out.parent / "leave-out.json").write_bytes(canonical_json({"keys": [f"s-{n}" for n in range(0, inputs, 2)]}))
    config = EncodeConfig.model_validate({"sources": ["raw"], "tasks": {"depth": 1}, "exclude": ["leave-out.json"]})
    return encode(config, out, data=out.parent)


def start_convert(inputs: int, out: Path, patch: pytest.MonkeyPatch) -> JobResult:
    records = [Item(f"w-{n}", f"{n}", {"image": Part("a.tar", n, 9, "jpg")}) for n in range(inputs)]
    patch.setattr(converting, "list_source", lambda *_: Listing(records))
    patch.setattr(converting, "file_sha256", lambda _: "0" * 64)
    return convert(ConvertConfig(name="w", path=Path("w"), licence="MIT", records_per_shard=50), out)


def start_annotate(inputs: int, out: Path, patch: pytest.MonkeyPatch) -> JobResult:
    items = [Item(f"w-{n}", f"{n}.jpg", {"image": Part(f"{n}.jpg", 0, 9)}) for n in range(inputs)]
    patch.setattr(annotating, "list_items", lambda *_: Listing(items))
    patch.setattr(annotating, "fingerprint", lambda *_: [])
    source = {"name": "w", "kind": "folder", "path": "w", "licence": "MIT"}
    return annotate(AnnotateConfig.model_validate({"sources": [source], "images_per_shard": 50}), out)


@pytest.mark.parametrize("start", [start_render, start_encode, start_convert, start_annotate])
def test_a_task_of_10000_inputs_is_as_large_as_one_of_100(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: dict[int, int] = {}
    for inputs in (100, 10_000):

        def see(tasks: beam.Tasks, *_: Any, inputs: int = inputs) -> None:
            ends = tasks.numbers[0], tasks.numbers[-1]
            sizes[inputs] = max(len(cloudpickle.dumps((tasks.work, number))) for number in ends)

        monkeypatch.setattr(beam, "run_tasks", see)
        (tmp_path / f"{inputs:06d}").mkdir()
        start(inputs, tmp_path / f"{inputs:06d}" / "out", monkeypatch)
    assert abs(sizes[10_000] - sizes[100]) <= 8
    assert sizes[10_000] < 5000


def test_a_list_of_keys_that_changes_under_a_job_stops_it(tmp_path: Path) -> None:
    write_raw(tmp_path / "raw", shards=2, each=1)
    excluded = tmp_path / "leave-out.json"
    excluded.write_bytes(canonical_json({"keys": ["scene-0-0"]}))
    config = EncodeConfig.model_validate(
        {"sources": ["raw"], "tasks": {"depth": 1}, "size": 32, "exclude": ["leave-out.json"]}
    )
    result = encode(config, tmp_path / "out", data=tmp_path)
    assert result.totals is not None
    assert (result.totals["records"], result.totals["rejected"]) == (1, 1)
    excluded.write_bytes(canonical_json({"keys": []}))
    with pytest.raises(InputError, match=r"leave-out\.json: changed since the job was started"):
        next(encoding.encode_nth(config, tmp_path, (2,), "0" * 64, 0))


def test_shards_are_counted_through_all_sources(tmp_path: Path) -> None:
    config = EncodeConfig.model_validate({"sources": ["a", "b", "c"], "tasks": {"depth": 1}, "size": 32})
    for name, shards in (("a", 2), ("b", 1), ("c", 3)):
        write_raw(tmp_path / name, shards=shards, each=1, source=name)
    nothing = encoding.digest([])
    for index, (name, number) in enumerate([("a", 0), ("a", 1), ("b", 0), ("c", 0), ("c", 1), ("c", 2)]):
        (made,) = encoding.encode_nth(config, tmp_path, (2, 1, 3), nothing, index)
        assert not isinstance(made, encoding.Rejection)
        assert (made.spec["origin"]["source"], made.spec["origin"]["key"]) == (name, f"scene-{number}-0")
