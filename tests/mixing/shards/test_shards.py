from __future__ import annotations

import dataclasses
import json
import resource
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import webdataset
from hypothesis import given
from hypothesis import strategies as st

from cavendish.encoders.sample import Example, InputError, Sample
from cavendish.mixing.shards.dataset import (
    Plan,
    committed_rows,
    differences,
    finish_dataset,
    is_committed,
    start_dataset,
)
from cavendish.mixing.shards.reader import read_dataset, read_parts, read_shard, verify
from cavendish.mixing.shards.sample_format import (
    DEPTH_MAX_M,
    pack_depth,
    pack_normals,
    parse_raw_sample,
    parse_record,
    raw_sample,
    record_parts,
    unpack_depth,
    unpack_normals,
)
from cavendish.mixing.shards.writer import ShardWriter
from cavendish.mixing.storage.cache import open_file
from cavendish.mixing.storage.place import write_atomic
from tests.conftest import tiny_sample

PLAN = Plan("test", 2, {"seed": 1})


def write_two_shards(directory: Path) -> None:
    start_dataset(directory, PLAN)
    for index in range(2):
        with ShardWriter(directory, index, PLAN.digest) as writer:
            for number in range(3):
                writer.add(tiny_sample(f"scene-{index}-{number}", seed=number))
            writer.reject(f"scene-{index}-9", "camera inside a wall")
    finish_dataset(directory, PLAN)


def assert_same(one: Sample, other: Sample) -> None:
    for field in dataclasses.fields(Sample):
        mine, theirs = getattr(one, field.name), getattr(other, field.name)
        if isinstance(mine, np.ndarray):
            np.testing.assert_allclose(mine, theirs, rtol=9e-5, atol=1e-4)
        elif field.name != "edit":
            assert mine == theirs, field.name
    assert one.edit is not None
    assert other.edit is not None
    np.testing.assert_array_equal(one.edit.image, other.edit.image)


def test_samples_survive_the_shard(tmp_path: Path) -> None:
    write_two_shards(tmp_path)
    read = list(read_dataset(tmp_path))
    assert [record.key for record in read] == [f"scene-{i}-{n}" for i in range(2) for n in range(3)]
    assert isinstance(read[1], Sample)
    assert_same(tiny_sample("scene-0-1", seed=1), read[1])


def test_examples_survive_the_shard(tmp_path: Path) -> None:
    image = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    example = Example("scene-1.depth", "depth", "draw depth", image, image[::-1], {"codec": "cube-walk/1"})
    start_dataset(tmp_path, PLAN)
    with ShardWriter(tmp_path, 0, PLAN.digest) as writer:
        writer.add(example)
    (read,) = read_shard(tmp_path / "shard-000000.tar")
    assert isinstance(read, Example)
    assert (read.key, read.prompt, read.spec) == (example.key, example.prompt, example.spec)
    np.testing.assert_array_equal(read.target, example.target)


def test_same_records_same_bytes_and_plain_tars(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_two_shards(tmp_path / name)
    for path in sorted((tmp_path / "a").iterdir()):
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes(), path.name
    shard = tmp_path / "a" / "shard-000000.tar"
    with tarfile.open(shard) as tar:
        assert "scene-0-0.depth.png" in tar.getnames()
    (row, _) = committed_rows(tmp_path / "a")
    with open_file(shard) as file:
        ours = {key: read_parts(file, row, key) for key in row.samples}
    theirs = {sample.pop("__key__"): sample for sample in webdataset.WebDataset(str(shard), shardshuffle=False)}
    assert {key: {name: sample[name] for name in ours[key]} for key, sample in theirs.items()} == ours


def test_reading_and_writing_again_changes_nothing(sample: Sample) -> None:
    parts = record_parts(sample)
    assert record_parts(parse_record(sample.key, parts)) == parts


def test_nothing_of_a_sample_is_lost_or_changed_without_compression(sample: Sample) -> None:
    header, blob = raw_sample(sample)
    back = parse_raw_sample(json.loads(json.dumps(header)), blob)
    for field in dataclasses.fields(Sample):
        ours, theirs = getattr(sample, field.name), getattr(back, field.name)
        assert ours is not None, f"{field.name}: not in the sample of this test"
        if isinstance(ours, np.ndarray):
            np.testing.assert_array_equal(ours, theirs)
            assert ours.dtype == theirs.dtype
        elif field.name != "edit":
            assert ours == theirs
    assert record_parts(back) == record_parts(sample)


def test_an_exception_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), ShardWriter(tmp_path, 0, "x") as writer:
        writer.add(tiny_sample())
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def no_room() -> Iterator[None]:
    """No file of this process can grow beyond 20 kB: what a full disk is, without one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.usefixtures("no_room")
def test_a_disk_without_room_is_told_with_the_file_and_nothing_is_left(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (100, 100, 3), dtype=np.uint8)
    with (
        pytest.raises(OSError, match=r"File too large: '.*shard-000000.tar'"),
        ShardWriter(tmp_path, 0, PLAN.digest) as writer,
    ):
        writer.add(Sample("noise", noise, "test", "CC0-1.0"))
    with pytest.raises(OSError, match=r"File too large: '.*lock.json'"):
        write_atomic(tmp_path / "lock.json", noise.tobytes())
    assert list(tmp_path.iterdir()) == []


def test_verify_finds_every_kind_of_damage(tmp_path: Path) -> None:
    write_two_shards(tmp_path)
    assert verify(tmp_path) == []
    tar = tmp_path / "shard-000001.tar"
    whole = tar.read_bytes()
    tar.write_bytes(whole[:-1] + b"x")
    assert "sha256 differs" in verify(tmp_path)[0]
    tar.unlink()
    assert "the tar is not" in verify(tmp_path)[0]
    (tmp_path / "shard-000001.json").unlink()
    assert "1 of 2 planned shards" in verify(tmp_path)[0]


@pytest.mark.parametrize("part", ["image.png", "depth.png", "normals.png", "instances.png", "edited.png", "json"])
def test_a_flipped_bit_never_reads_silently(tmp_path: Path, part: str) -> None:
    write_two_shards(tmp_path)
    tar = tmp_path / "shard-000000.tar"
    offset, size, _ = committed_rows(tmp_path)[0].samples["scene-0-1"][part]
    data = bytearray(tar.read_bytes())
    data[offset + size // 2] ^= 1
    tar.write_bytes(data)
    with pytest.raises(InputError, match="damaged"):
        list(read_shard(tar))


def test_another_plan_in_the_directory_is_refused(tmp_path: Path) -> None:
    write_two_shards(tmp_path)
    with pytest.raises(InputError, match=r"another plan \(there -> here\): kind: test -> other; seed: 1 -> 2\. Choose"):
        start_dataset(tmp_path, Plan("other", 2, {"seed": 2}))


def test_what_differs_between_plans_goes_by_name() -> None:
    files = [[f"photo-{number}.png", f"{number}" * 64] for number in range(4)]
    changed = [*files[:1], ["photo-2.png", "f" * 64], *files[3:]]
    assert list(differences({"inputs": files, "size": 16}, {"inputs": changed, "size": 16})) == [
        f"inputs.photo-1.png: {'1' * 40}... -> none",
        f"inputs.photo-2.png: {'2' * 40}... -> {'f' * 40}...",
    ]
    raw = [{"path": "raw/scenes", "sha256": "0" * 64}]
    assert list(differences({"inputs": raw}, {"inputs": [{**raw[0], "sha256": "1"}]})) == [
        f"inputs.raw/scenes.sha256: {'0' * 40}... -> 1"
    ]
    assert list(differences({"x": ["depth"], "a": 1}, {"x": ["edit"], "a": 1})) == ["x: ['depth'] -> ['edit']"]


def test_rejected_samples_keep_their_reason(tmp_path: Path) -> None:
    write_two_shards(tmp_path)
    assert committed_rows(tmp_path)[0].rejected[0].reason == "camera inside a wall"


@given(st.floats(0.0625, DEPTH_MAX_M, width=32))
def test_depth_is_kept_within_a_ten_thousandth(depth: float) -> None:
    codes = pack_depth(np.array([[depth]], np.float32))
    back = unpack_depth(codes)
    assert abs(back[0, 0] / depth - 1) < 9e-5
    assert pack_depth(back) == codes


def test_depth_keeps_sky_and_unknown_and_refuses_what_it_cannot_hold() -> None:
    values = np.array([[np.inf, np.nan, 1.0, DEPTH_MAX_M, 0.05]], np.float32)
    np.testing.assert_allclose(unpack_depth(pack_depth(values)), values, rtol=9e-5)
    for bad in (-1.0, 0.0, 6000.0):
        with pytest.raises(InputError, match="shards hold"):
            pack_depth(np.array([[bad]], np.float32))


def test_normals_keep_direction_and_unknown() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(50, 50, 3)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=-1, keepdims=True)
    vectors[0, 0] = 0
    back = unpack_normals(pack_normals(vectors))
    np.testing.assert_array_equal(back[0, 0], 0)
    sine = np.linalg.norm(np.cross(back.astype(np.float64), vectors.astype(np.float64)), axis=-1)
    assert np.degrees(np.arcsin(sine)).max() < 0.005


@pytest.mark.parametrize("damage", ["no tar", "short tar", "row cut"])
def test_a_shard_that_lost_bytes_counts_as_not_made(tmp_path: Path, damage: str) -> None:
    plan = Plan("test", 1, {})
    start_dataset(tmp_path, plan)
    with ShardWriter(tmp_path, 0, plan.digest) as writer:
        writer.add(tiny_sample())
    assert is_committed(tmp_path, 0, plan.digest)
    tar, row = tmp_path / "shard-000000.tar", tmp_path / "shard-000000.json"
    if damage == "no tar":
        tar.unlink()
    else:
        hurt = tar if damage == "short tar" else row
        hurt.write_bytes(hurt.read_bytes()[:-100])
    assert not is_committed(tmp_path, 0, plan.digest)
