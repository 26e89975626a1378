"""What each step of a real camera does to light, by its formula."""

from __future__ import annotations

import numpy as np
import pytest

from cavendish.render.camera.sensor import (
    Effects,
    develop,
    disturb,
    draw_effects,
    effects_record,
    shake_kernel,
    take_picture,
    vignette,
)
from cavendish.render.geometry.mesh import srgb_to_linear

STEPS = ("sensor_noise", "motion_blur", "vignette", "white_balance", "jpeg")


def grey(value: float, side: int = 256) -> np.ndarray:
    return np.full((side, side, 3), value)


def test_without_effects_the_picture_is_the_developed_light() -> None:
    light = np.random.default_rng(0).gamma(2, 0.1, (40, 50, 3))
    assert np.array_equal(take_picture(light, 1.3, Effects()), develop(light, 1.3))
    assert effects_record(Effects()) == {}
    assert draw_effects({}, 256, np.random.default_rng(3)) == Effects()


def test_effects_are_drawn_by_share_and_one_does_not_change_another() -> None:
    drawn = [draw_effects(dict.fromkeys(STEPS, 0.5), 256, np.random.default_rng(seed)) for seed in range(400)]
    for name in ("shake", "corner_light", "electrons", "gains", "jpeg_quality"):
        share = np.mean([name in effects_record(effects) for effects in drawn])
        assert 0.42 < share < 0.58
    all_on = draw_effects(dict.fromkeys(STEPS, 1.0), 256, np.random.default_rng(5))
    jpeg_only = draw_effects({"jpeg": 1.0}, 256, np.random.default_rng(5))
    assert effects_record(jpeg_only) == {"jpeg_quality": all_on.jpeg_quality}


@pytest.mark.parametrize("value", [0.01, 0.18, 0.9])
def test_noise_has_the_variance_of_photons_and_electronics(value: float) -> None:
    effects = Effects(electrons=2000.0, read_electrons=5.0, seed=4)
    exposed = disturb(grey(value), 0.7, effects) * 0.7
    assert exposed.mean() == pytest.approx(0.7 * value, rel=0.01)
    assert exposed.std() == pytest.approx(np.sqrt(0.7 * value * 2000 + 25) / 2000, rel=0.01)


def test_two_pictures_of_one_scene_have_the_same_noise_where_they_show_the_same() -> None:
    light = np.random.default_rng(1).gamma(2, 0.1, (64, 64, 3))
    changed = light.copy()
    changed[20:30, 20:30] *= 2
    effects = Effects(electrons=400.0, read_electrons=3.0, seed=9, gains=(1.1, 1.0, 0.9), corner_light=0.5)
    first, second = take_picture(light, 1.0, effects), take_picture(changed, 1.0, effects)
    same = (light == changed).all(axis=-1)
    assert np.array_equal(first[same], second[same])
    assert not np.array_equal(first, take_picture(light, 1.0, Effects(electrons=400.0, read_electrons=3.0, seed=10)))


@pytest.mark.parametrize("shake", [(5.0, 0.0), (0.0, -3.5), (4.0, 3.0), (0.3, 0.1)])
def test_a_shake_is_a_centred_path_of_its_length(shake: tuple[float, float]) -> None:
    kernel = shake_kernel(shake).astype(float)
    assert kernel.sum() == pytest.approx(1)
    middle = kernel.shape[0] // 2
    y, x = np.mgrid[-middle : middle + 1, -middle : middle + 1]
    assert abs((kernel * x).sum()) < 1e-6  # labels stay where they are
    assert abs((kernel * y).sum()) < 1e-6
    along = (x * shake[0] + y * shake[1]) / np.hypot(*shake)
    # a uniform path has a variance of length^2 / 12, the tent of the interpolation adds at most 1/4
    assert 0 <= (kernel * along**2).sum() - np.hypot(*shake) ** 2 / 12 < 0.3


def test_a_vignette_darkens_the_corners_to_what_it_says() -> None:
    factors = vignette(300, 400, 0.5)
    assert factors[150, 200] == pytest.approx(1, abs=1e-4)
    assert factors[0, 0] == pytest.approx(0.5, abs=0.01)
    picture = take_picture(grey(0.2), 1.0, Effects(corner_light=0.5))
    assert np.abs(picture[128, 128].astype(int) - develop(grey(0.2, 1), 1.0)[0, 0]).max() <= 1
    assert np.abs(picture[0, 0].astype(int) - develop(grey(0.1, 1), 1.0)[0, 0]).max() <= 2


def test_white_balance_scales_the_channels_of_the_light() -> None:
    picture = take_picture(grey(0.2), 1.0, Effects(gains=(1.15, 1.0, 0.87)))
    assert np.array_equal(picture, develop(grey(0.2) * [1.15, 1.0, 0.87], 1.0))
    assert picture[0, 0, 0] > picture[0, 0, 1] > picture[0, 0, 2]


def test_jpeg_costs_more_at_lower_quality() -> None:
    light = srgb_to_linear(np.random.default_rng(0).random((64, 64, 3))) * 0.5
    clean = develop(light, 1.0).astype(int)
    errors = [np.abs(take_picture(light, 1.0, Effects(jpeg_quality=q)).astype(int) - clean).mean() for q in (92, 40)]
    assert 0 < errors[0] < errors[1]
