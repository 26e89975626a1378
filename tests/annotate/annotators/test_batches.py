"""Batches: one shape at a time, halved when they fail; a bad image costs itself, a bad device nothing that stays."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from cavendish.annotate import job
from cavendish.annotate.annotators.protocol import (
    ALL_FAILED,
    AnnotatorSpec,
    DeviceError,
    Failure,
    annotate_all,
    each,
    in_batches,
)
from cavendish.annotate.annotators.saliency import Saliency
from cavendish.annotate.job import annotate
from cavendish.annotate.labels.label import Annotators
from cavendish.encoders.sample import UInt8Image
from cavendish.mixing.jobs.runners import JobFailed
from cavendish.mixing.shards.dataset import committed_rows
from tests.annotate.test_job import config, files_of, rejected_of, square
from tests.mixing.sources.test_sources import write


class Counting:
    """Runs batches of images, counts them, and fails as it is told."""

    def __init__(self, most: int = 100, poison: int = -1) -> None:
        self.sizes: list[int] = []
        self._most, self._poison = most, poison

    def run(self, queries: Sequence[UInt8Image], prepared: Sequence[UInt8Image]) -> list[int]:
        if len(queries) > self._most:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")
        if any(int(image[0, 0, 0]) == self._poison for image in queries):
            raise ValueError("poison")
        self.sizes.append(len(queries))
        return [int(image[0, 0, 0]) for image in queries]


def images(count: int, sides: Sequence[int] = (8,)) -> list[UInt8Image]:
    return [np.full((sides[number % len(sides)],) * 2 + (3,), number, np.uint8) for number in range(count)]


def test_images_of_one_size_share_a_forward_and_come_back_in_order() -> None:
    counting = Counting()
    assert in_batches(lambda image: image, counting.run, images(16, (8, 9, 10)), 8) == list(range(16))
    assert sorted(counting.sizes) == [5, 5, 6]


@pytest.mark.parametrize("most", [1, 2, 3, 5])
def test_a_batch_that_is_out_of_memory_is_halved_with_the_same_results(most: int) -> None:
    counting = Counting(most)
    assert in_batches(lambda image: image, counting.run, images(16), 8) == list(range(16))
    assert max(counting.sizes) <= most


def test_one_image_that_is_out_of_memory_is_nobodys_rejection() -> None:
    with pytest.raises(DeviceError, match="out of memory"):
        in_batches(lambda image: image, Counting(0).run, images(4), 8)


def test_a_bad_image_costs_itself() -> None:
    results = in_batches(lambda image: image, Counting(poison=5).run, images(8), 8)
    assert results[:5] + results[6:] == [0, 1, 2, 3, 4, 6, 7]
    assert results[5] == Failure("ValueError: poison")


def test_a_poisoned_device_is_no_failure_of_an_image() -> None:
    def broken(image: UInt8Image) -> int:
        raise RuntimeError("CUDA error: device-side assert triggered")

    with pytest.raises(DeviceError, match="device-side assert"):
        each(broken, images(2))


class Halves:
    """Finds the left half to be the subject; `states` say, call by call, what goes wrong."""

    spec = AnnotatorSpec("halves/1", "saliency", "CC0-1.0", "0" * 64)

    def __init__(self, fails_at: int | None = None) -> None:
        self._calls, self._fails_at = 0, fails_at

    def load(self) -> None:
        """There is nothing to load."""

    def annotate(self, queries: Sequence[UInt8Image]) -> list[Saliency | Failure]:
        return each(self._annotate_one, queries)

    def _annotate_one(self, image: UInt8Image) -> Saliency:
        self._calls += 1
        if self._calls == self._fails_at:
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        return Saliency((image[..., 0] > 128).astype(np.float32), 0.9, 0.9)


def test_a_device_that_fails_commits_nothing_of_its_shard_and_the_next_run_is_as_if_it_had_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(8):
        write(tmp_path / f"web/{number}.png", square(20 + number))
    for name, annotator in (("clean", Halves()), ("broken", Halves(fails_at=6))):
        monkeypatch.setattr(job, "annotators_for", lambda config, make=None, it=annotator: Annotators(saliency=it))
        if name == "broken":
            with pytest.raises(JobFailed, match="illegal memory access"):
                annotate(config(), tmp_path / name, data=tmp_path)
            assert [row.shard for row in committed_rows(tmp_path / name)] == ["shard-000000.tar"]
        annotate(config(), tmp_path / name, data=tmp_path)
    assert files_of(tmp_path / "broken") == files_of(tmp_path / "clean")
    assert rejected_of(tmp_path / "clean") == {}


def test_an_annotator_that_fails_on_every_image_stops_the_run() -> None:
    class Broken(Halves):
        def _annotate_one(self, image: UInt8Image) -> Saliency:
            raise ValueError("over 256 tokens")

    assert len(annotate_all(Broken(), images(ALL_FAILED - 1))) == ALL_FAILED - 1
    with pytest.raises(DeviceError, match=r"halves/1 failed on all of 6 images: ValueError: over 256 tokens"):
        annotate_all(Broken(), images(ALL_FAILED))


def test_without_a_mask_no_saliency_is_computed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = job.annotators_for(config(mask=None, objects=None, faces="ignore", max_nsfw=None, max_text=None))
    assert found == Annotators()
    write(tmp_path / "web/a.png", square())
    (tmp_path / "web/a.txt").write_text("a red square")
    settings = config(
        mask=None, objects=None, faces="ignore", max_nsfw=None, max_text=None, dropped_masks="keep_picture"
    )
    annotate(settings, tmp_path / "out", data=tmp_path)
    (row,) = committed_rows(tmp_path / "out")
    assert row.count == 1
