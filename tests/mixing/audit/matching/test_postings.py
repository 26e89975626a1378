"""The inverted index: what is looked up is found, and only what is near, whatever the size of the benchmark."""

from __future__ import annotations

import cv2
import numpy as np

from cavendish.mixing.audit.matching.fingerprints import (
    QUERY_FEATURES_PER_CELL,
    local_features,
    mirrored_features,
    working_gray,
)
from cavendish.mixing.audit.matching.postings import ARRAYS, MAX_BITS, build_postings, vote
from tests.mixing.audit.photographs import SKIMAGE, photograph


def random_rows(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 32), np.uint8)


def postings(descriptors: np.ndarray) -> dict[str, np.ndarray]:
    rows = np.arange(len(descriptors), dtype=np.uint32)
    return build_postings(descriptors, np.zeros((len(descriptors), 2), np.uint8), rows)


def test_every_row_is_posted_once_and_found_by_its_own_descriptor() -> None:
    descriptors = random_rows(3000, 0)
    arrays = postings(descriptors)
    assert set(arrays) == set(ARRAYS)
    assert sorted(arrays["posting_rows"]) == list(range(3000))
    votes = vote(arrays, descriptors[::7])
    found = set(zip(votes.feature.tolist(), votes.row.tolist()))
    looked_for = len(descriptors[::7])
    assert (
        sum((number, 7 * number) in found for number in range(looked_for)) > 0.8 * looked_for
    )  # random bits: the worst


def test_votes_are_near_in_their_first_64_bits() -> None:
    descriptors = random_rows(2000, 1)
    query = descriptors.copy()
    query[:, ::5] ^= 1  # seven bits of 256
    arrays = postings(descriptors)
    votes = vote(arrays, query)
    bits = np.unpackbits(query[votes.feature, :8] ^ descriptors[votes.row, :8], axis=1).sum(axis=1)
    np.testing.assert_array_equal(bits, votes.bits)
    assert bits.max() <= MAX_BITS
    assert (votes.feature == votes.row).sum() > 0.75 * len(query)


def test_lists_do_not_grow_with_the_benchmark() -> None:
    lengths = [np.diff(postings(random_rows(count, 2))["word_offsets"]).mean() for count in (2000, 20_000)]
    assert lengths[1] < 1.2 * lengths[0]


def test_an_empty_index_and_an_empty_picture_give_no_votes() -> None:
    nothing = np.zeros((0, 32), np.uint8)
    assert not len(vote(postings(nothing), random_rows(5, 3)).row)
    assert not len(vote(postings(random_rows(50, 3)), nothing).row)


def test_mirrored_features_are_those_of_the_mirror_image() -> None:
    gray = working_gray(photograph(SKIMAGE, "coffee.png"))
    features = local_features(gray, QUERY_FEATURES_PER_CELL)
    mirrored = mirrored_features(gray, features)
    np.testing.assert_allclose(mirrored.points[:, 0], 1 - features.points[:, 0], atol=2e-3)
    flipped = np.ascontiguousarray(gray[:, ::-1])
    again = mirrored_features(flipped, mirrored)
    distance = [cv2.norm(a, b, cv2.NORM_HAMMING) for a, b in zip(again.descriptors, features.descriptors)]
    assert np.median(distance) <= 4
