"""Which labels are found again, and that plain ones and strangers accuse nobody."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from cavendish.encoders.sample import InputError, Instance, Sample
from cavendish.encoders.tasks.registry import make_example
from cavendish.mixing.audit.benchmarks.label_pack import (
    LabelPack,
    build_label_pack,
    read_label_files,
    read_label_pack,
)
from cavendish.mixing.audit.edits import procedural_picture
from cavendish.mixing.audit.matching.label_prints import (
    LabelPrint,
    is_plain,
    print_depth,
    print_ids,
    print_masks,
)
from cavendish.mixing.audit.matching.pdq import DIHEDRAL
from cavendish.mixing.audit.signals.labels import compare_labels, record_labels
from cavendish.mixing.audit.signals.signal import Record
from cavendish.mixing.shards.sample_format import record_parts
from tests.mixing.audit.labelled import partition, plain_shapes, relief

COUNT = 40


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> LabelPack:
    maps = [(f"mask-{seed}", print_ids(partition(seed))) for seed in range(COUNT)]
    maps += [(f"depth-{seed}", print_depth(relief(seed))) for seed in range(COUNT)]
    maps += [(f"plain-{name}", print_ids(shape)) for name, shape in plain_shapes().items()]
    return build_label_pack("benchmark", maps, tmp_path_factory.mktemp("labels"), "source")


def found(one: LabelPrint, pack: LabelPack) -> set[tuple[str, str]]:
    return {(finding.image, finding.level) for finding in compare_labels(one, pack)}


@pytest.mark.parametrize("turn", DIHEDRAL)
def test_turned_and_resized_labels_are_found_with_the_turn_drawn(turn: tuple[int, int, int], pack: LabelPack) -> None:
    transpose, flip_x, flip_y = turn
    for seed in range(0, COUNT, 8):
        for stage, values in (("masks", partition(seed)), ("depth", relief(seed))):
            turned = values[:: -1 if flip_y else 1, :: -1 if flip_x else 1]
            turned = np.ascontiguousarray(turned.T if transpose else turned)
            turned = cv2.resize(turned, (150, 110), interpolation=cv2.INTER_NEAREST)
            (finding,) = compare_labels(print_ids(turned) if stage == "masks" else print_depth(turned), pack)
            assert (finding.image, finding.level, finding.stage) == (
                f"{'mask' if stage == 'masks' else 'depth'}-{seed}",
                "leak",
                stage,
            )
            affine = np.array(finding.affine).reshape(2, 3)
            corner = affine[:, :2] @ (0, 0) + affine[:, 2]  # where the benchmark's top left corner went
            expected = np.array((flip_x, flip_y))
            np.testing.assert_allclose(corner, expected[::-1] if transpose else expected)


def test_renamed_ids_other_units_and_a_laser_scan_are_found(pack: LabelPack) -> None:
    ids = np.array([9, 3, 77, 1, 0, 400], np.uint16)[partition(3)]
    assert found(print_ids(ids), pack) == {("mask-3", "leak")}
    depth = relief(3)
    assert found(print_depth(depth * 1000), pack) == {("depth-3", "leak")}
    rng = np.random.default_rng(0)
    sparse = np.where(rng.random((384, 512)) < 0.05, cv2.resize(depth, (512, 384)), 0)
    assert found(print_depth(sparse), pack) == {("depth-3", "leak")}
    noisy = depth * np.exp(0.05 * rng.standard_normal(depth.shape)).astype(np.float32)
    assert found(print_depth(noisy), pack) == {("depth-3", "leak")}


def test_strangers_and_plain_labels_accuse_nobody(pack: LabelPack) -> None:
    for seed in range(1000, 1060):
        assert found(print_ids(partition(seed)), pack) == set()
        assert found(print_depth(relief(seed)), pack) == set()
    for name, shape in plain_shapes(120, 90).items():
        assert found(print_ids(shape), pack) == set(), name
    v, u = np.mgrid[:90, :120].astype(np.float32)
    ground = np.where(v > 40, 135 / np.maximum(v - 38, 1), np.inf)  # an empty plain up to its horizon
    bowl = 5 + 0.003 * (u - 60) ** 2
    for flat in (np.full((90, 120), 3.0), 2 + v / 30, bowl, ground, np.full((90, 120), np.nan)):
        assert print_depth(flat).relief is None


@pytest.mark.parametrize("name", ["square", "disc", "ellipse", "sky", "side", "quarter", "road"])
def test_shapes_that_chance_repeats_are_plain(name: str) -> None:
    shape = cv2.resize(plain_shapes()[name], (64, 64), interpolation=cv2.INTER_NEAREST)
    assert is_plain(shape > 0)


def test_one_mask_alone_needs_more(pack: LabelPack) -> None:
    ids = partition(5)
    alone = [print_masks([ids == value]) for value in range(6)]
    levels = [found(one, pack) for one in alone if len(one.masks)]
    assert levels
    assert all(level in ({("mask-5", "leak")}, {("mask-5", "review")}) for level in levels)


def test_a_mask_that_many_pictures_of_the_benchmark_share_tells_nothing(tmp_path: Path) -> None:
    bonnet = partition(1) == 2
    maps = [(f"frame-{i}", print_masks([bonnet, partition(50 + i) == 1])) for i in range(5)]
    pack = build_label_pack("drive", maps, tmp_path, "source")
    assert pack.header["recurring"] == 5
    assert compare_labels(print_masks([bonnet]), pack) == []


def test_targets_are_decoded_by_their_spec_before_they_are_compared(pack: LabelPack) -> None:
    ids = partition(7)
    instances = tuple(
        Instance(value, name, int((ids == value).sum()), (0, 0, 128, 96))
        for value, name in enumerate(("cat", "dog", "cup", "tree", "car"), 1)
    )
    sample = Sample(
        "s", procedural_picture(np.random.default_rng(1), 96, 128), "tests", "CC0-1.0",
        depth_m=relief(7), instance_ids=ids, instances=instances, exhaustive=True,
    )  # fmt: skip
    for task, expected in (("depth", "depth-7"), ("semantic", "mask-7")):
        example = make_example(sample, task, np.random.default_rng(1))
        ((member, _, one),) = record_labels(Record("s", record_parts(example)))
        assert (member, found(one, pack)) == ("target.png", {(expected, "leak")})
    kinds = {kind: one for _, kind, one in record_labels(Record("s", record_parts(sample)))}
    assert found(kinds["masks"], pack) == {("mask-7", "leak")}
    assert found(kinds["depth"], pack) == {("depth-7", "leak")}


def test_a_pack_is_the_same_bytes_again_and_a_changed_one_is_refused(pack: LabelPack, tmp_path: Path) -> None:
    again = build_label_pack("one", [("a", print_ids(partition(1)))], tmp_path / "one", "source")
    assert build_label_pack("one", [("a", print_ids(partition(1)))], tmp_path / "two", "source").digest == again.digest
    path = tmp_path / "one/masks.npy"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(InputError, match="sha256 is not the header's"):
        read_label_pack(tmp_path / "one")


def test_label_files_of_a_benchmark_are_read_and_odd_ones_are_named(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a_ids.png"), partition(1))
    colours = np.stack([partition(2) * 7, partition(2), partition(2) * 0 + 1], axis=-1).astype(np.uint8)
    cv2.imwrite(str(tmp_path / "b_ids.png"), colours)
    (tmp_path / "c_ids.png").write_bytes(b"nothing")
    np.save(tmp_path / "objects_ids.npy", np.array([{}], dtype=object), allow_pickle=True)
    maps, unread = read_label_files(tmp_path, "masks", "_ids.png")
    assert [name for name, _ in maps] == ["a_ids.png", "b_ids.png"]
    assert np.array_equal(maps[1][1].masks, print_ids(partition(2)).masks)
    assert [item["id"] for item in unread] == ["c_ids.png"]
    with pytest.raises(InputError, match="no readable label map"):
        read_label_files(tmp_path, "depth", "_ids.npy")  # an array of objects is never unpickled
