"""PDQ against the published binding (pdqhash 0.2.8, whose answers for pictures of the wheels are in pdqhash.json)."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from cavendish.mixing.audit.matching.pdq import DIHEDRAL, hamming, pdq_hash
from tests.mixing.audit.photographs import photograph

ORACLE = json.loads((Path(__file__).parent / "pdqhash.json").read_text())


@pytest.mark.parametrize("file", sorted(ORACLE))
def test_every_bit_and_the_quality_are_those_of_the_reference(file: str) -> None:
    folder, name = file.rsplit("/", 1)
    mine = pdq_hash(photograph(folder.replace("/", "."), name))
    assert mine.quality == ORACLE[file]["quality"]
    assert mine.variants[0].tobytes().hex() == ORACLE[file]["hashes"][0]
    assert sorted(code.tobytes().hex() for code in mine.variants) == sorted(ORACLE[file]["hashes"])


def test_variant_v_is_the_hash_of_the_picture_turned_that_way() -> None:
    image = cv2.resize(photograph("skimage.data", "astronaut.png"), (512, 512))
    variants = pdq_hash(image).variants
    for code, (transpose, flip_x, flip_y) in zip(variants, DIHEDRAL):
        turned = image[:, ::-1] if flip_x else image
        turned = turned[::-1] if flip_y else turned
        turned = turned.transpose(1, 0, 2) if transpose else turned
        assert hamming(pdq_hash(np.ascontiguousarray(turned)).variants[0], code[None])[0] <= 31  # what counts as a copy


def test_the_negative_is_the_complement() -> None:
    image = photograph("skimage.data", "coffee.png")
    assert hamming(pdq_hash(255 - image).variants[0], pdq_hash(image).variants[:1])[0] >= 250


def test_hamming_counts_bits() -> None:
    rng = np.random.default_rng(0)
    query, codes = rng.integers(0, 256, 32, np.uint8), rng.integers(0, 256, (50, 32), np.uint8)
    expected = np.unpackbits(codes ^ query, axis=1).sum(axis=1)
    np.testing.assert_array_equal(hamming(query, codes), expected)
