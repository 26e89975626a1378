"""Instance decoders against known scenes: clean, degraded as generators and files do it, and hand-made cases."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from scipy import ndimage

from benchmarks.dead_leaves import DEGRADATIONS, dead_leaves, degrade, instance_colors, mean_f1
from cavendish.encoders.codecs.colors import similar_neighbours
from cavendish.encoders.codecs.instances import (
    _flood,
    _median3,
    _window_range,
    decode_instances,
    decode_instances_scored,
    encode_instances,
    interior,
)
from cavendish.encoders.sample import InputError

# F1 averaged over IoU .5:.95 for each of DEGRADATIONS: what a decoder that is told the colours, or a flat-core
# histogram without a rule for blends, reaches; the paper's flood fill for comparison.
MODES_AT_LEAST = {
    (8, "lattice"): (1.00, 0.96, 0.86, 1.00, 1.00, 0.85),
    (24, "lattice"): (1.00, 0.92, 0.74, 1.00, 1.00, 0.74),
    (22, "random"): (1.00, 0.87, 0.69, 0.99, 0.98, 0.68),
}
PAPER_AT_LEAST = {
    (8, "lattice"): (1.00, 0.66, 0.60, 0.48, 0.73, 0.19),
    (24, "lattice"): (1.00, 0.56, 0.56, 0.28, 0.88, 0.22),
    (22, "random"): (0.95, 0.50, 0.58, 0.00, 0.83, 0.04),
}


def scores(count: int, palette: str, how: str, method: str, scenes: int) -> float:
    values = []
    for seed in range(scenes):
        rng = np.random.default_rng([seed, count])
        ids = dead_leaves(rng, count)
        rgb_u8 = degrade(encode_instances(ids, instance_colors(rng, count, palette)), how, rng)
        values.append(mean_f1(decode_instances(rgb_u8, method=method), ids))
    return float(np.mean(values))


@pytest.mark.parametrize(("scene", "row"), MODES_AT_LEAST.items(), ids=str)
def test_modes_reaches_the_known_palette_under_every_degradation(scene: tuple, row: tuple) -> None:
    found = [scores(*scene, how, "modes", 6) for how in DEGRADATIONS]
    assert all(score >= least - 0.005 for score, least in zip(found, row, strict=True)), (found, row)


@pytest.mark.slow
@pytest.mark.parametrize(("scene", "row"), PAPER_AT_LEAST.items(), ids=str)
def test_paper_reproduces_what_a_flood_fill_can(scene: tuple, row: tuple) -> None:
    found = [scores(*scene, how, "paper", 6) for how in DEGRADATIONS]
    assert all(score >= least - 0.005 for score, least in zip(found, row, strict=True)), (found, row)


def test_an_occluded_object_stays_one_instance() -> None:
    ids = np.zeros((60, 90), np.uint16)
    ids[20:40] = 1
    ids[:, 40:50] = 2
    picture = encode_instances(ids, {1: (255, 0, 0), 2: (0, 255, 0)})
    for method in ("modes", "paper"):
        decoded = decode_instances(picture, method=method)
        assert mean_f1(decoded, ids) == 1.0


@pytest.mark.parametrize("method", ["modes", "paper"])
def test_the_background_is_the_stated_one(method: str) -> None:
    ids = np.zeros((50, 50), np.uint16)
    ids[10:30, 10:30] = 7
    picture = encode_instances(ids, {7: (0, 0, 0)}, background=(255, 255, 255))
    decoded = decode_instances_scored(picture, (255, 255, 255), method=method)
    np.testing.assert_array_equal(decoded.ids, ids // 7)
    np.testing.assert_array_equal(decoded.colors, [(0, 0, 0)])
    empty = decode_instances_scored(np.full((50, 50, 3), 255, np.uint8), (255, 255, 255), method=method)
    assert not empty.ids.any()
    assert empty.colors.shape == (0, 3)
    assert empty.confidence.shape == (0,)


def test_ids_are_ordered_by_area_and_confidence_tells_solid_from_gradient() -> None:
    picture = np.zeros((80, 80, 3), np.uint8)
    picture[10:60, 10:60] = (200, 30, 30)
    picture[65:75, 10:40] = (30, 200, 30)
    rng = np.random.default_rng(0)
    picture[10:40, 65:79] = rng.normal((60, 60, 220), 14, (30, 14, 3)).clip(0, 255)
    decoded = decode_instances_scored(picture)
    area = np.bincount(decoded.ids.reshape(-1))[1:]
    assert (np.diff(area) <= 0).all()
    assert decoded.ids[30, 30] == 1
    solid, noisy = decoded.ids[70, 20], decoded.ids[25, 72]
    assert decoded.confidence[solid - 1] > 0.95
    assert decoded.confidence[noisy - 1] < 0.3
    np.testing.assert_array_equal(decoded.colors[0], (200, 30, 30))


def test_specks_are_dropped() -> None:
    picture = np.zeros((256, 256, 3), np.uint8)
    picture[100:103, 100:103] = (255, 255, 0)  # 9 of 65536 pixels, fewer than 2e-4
    picture[10:60, 10:60] = (255, 0, 0)
    for method in ("modes", "paper"):
        assert decode_instances(picture, method=method).max() == 1


def test_flood_components_are_scipys_when_colours_are_exact() -> None:
    rng = np.random.default_rng(0)
    mask = rng.random((70, 90)) < 0.55
    picture = np.where(mask[..., None], np.uint8(200), np.uint8(0)).repeat(3, axis=-1)
    ours = _flood(picture, np.zeros(3, np.uint8), 14)
    theirs, count = ndimage.label(mask, np.ones((3, 3)))
    assert ours.max() == count
    assert len(np.unique(ours.astype(np.int64) * (count + 1) + theirs)) == count + 1


def test_flood_compares_with_the_seed_not_with_the_neighbour() -> None:
    ramp = np.zeros((1, 40, 3), np.uint8)
    ramp[0, :, 0] = 100 + 2 * np.arange(40)
    components = _flood(ramp, np.zeros(3, np.uint8), 14)
    np.testing.assert_array_equal(components[0], 1 + np.arange(40) // 8)


def test_filters_agree_with_scipy_and_opencv() -> None:
    rgb_u8 = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    np.testing.assert_array_equal(_median3(rgb_u8), cv2.medianBlur(rgb_u8, 3))
    span = ndimage.maximum_filter(rgb_u8, (3, 3, 1), mode="nearest") - ndimage.minimum_filter(
        rgb_u8, (3, 3, 1), mode="nearest"
    )
    np.testing.assert_array_equal(_window_range(rgb_u8), span.max(-1))
    ids = (rgb_u8[..., 0] // 100).astype(np.uint16)
    same = ndimage.minimum_filter(ids, 3, mode="nearest") == ndimage.maximum_filter(ids, 3, mode="nearest")
    np.testing.assert_array_equal(interior(ids), same)


def test_similar_neighbours_by_brute_force() -> None:
    rng = np.random.default_rng(0)
    rgb_u8, reference = rng.integers(0, 256, (2, 15, 17, 3), dtype=np.uint8)
    answering = rng.random((15, 17)) < 0.05
    pixels, sources = similar_neighbours(rgb_u8, reference, ~answering, answering)
    found = dict(zip(pixels.tolist(), sources.tolist(), strict=True))
    for y, x in zip(*np.nonzero(~answering), strict=True):
        near = [
            (((rgb_u8[y, x].astype(int) - reference[v, u]) ** 2).sum(), v * 17 + u)
            for v, u in zip(*np.nonzero(answering), strict=True)
            if abs(v - y) <= 3 and abs(u - x) <= 3
        ]
        assert found.get(y * 17 + x) == (min(near)[1] if near else None)


def test_encode_draws_only_what_is_named() -> None:
    ids = np.array([[0, 1, 65535]], np.uint16)
    np.testing.assert_array_equal(encode_instances(ids, {65535: (1, 2, 3)})[0], [(0, 0, 0), (0, 0, 0), (1, 2, 3)])
    np.testing.assert_array_equal(encode_instances(ids, {}, (9, 9, 9))[0], [(9, 9, 9)] * 3)


@pytest.mark.parametrize(
    ("colors", "message"),
    [
        ({0: (1, 2, 3)}, "start at 1"),
        ({1: (0, 0, 0)}, "same colour"),
        ({1: (5, 5, 5), 2: (5, 5, 5)}, "same colour"),
    ],
)
def test_bad_colours_are_refused(colors: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        encode_instances(np.zeros((2, 2), np.uint16), colors)


def test_unknown_method_is_refused() -> None:
    with pytest.raises(InputError, match="modes"):
        decode_instances(np.zeros((4, 4, 3), np.uint8), method="watershed")  # type: ignore[arg-type]
