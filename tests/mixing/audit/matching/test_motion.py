"""What moves in an aligned pair: nothing in edited copies, near things in another view."""

from __future__ import annotations

from functools import partial

import cv2
import numpy as np
import pytest

from cavendish.mixing.audit.edits import EditFunction, caption, gamma, invert, jitter, jpeg, noise
from cavendish.mixing.audit.matching.fingerprints import working_gray
from cavendish.mixing.audit.matching.motion import Motion, measure_motion
from tests.mixing.audit.photographs import SKIMAGE, photograph


def motion(first: np.ndarray, second: np.ndarray, matrix: np.ndarray | None = None) -> Motion:
    return measure_motion(working_gray(second), working_gray(first), np.eye(3) if matrix is None else matrix)


def moved(picture: np.ndarray, shift_px: np.ndarray) -> np.ndarray:
    """Resample a picture so that each pixel shows what was `shift_px` (H, W) to its left."""
    rows, columns = np.mgrid[: picture.shape[0], : picture.shape[1]].astype(np.float32)
    shown = cv2.remap(picture, columns - shift_px.astype(np.float32), rows, cv2.INTER_CUBIC, None, cv2.BORDER_REFLECT)
    return np.asarray(shown)


@pytest.mark.parametrize(
    "edit",
    [
        partial(jpeg, quality=10),
        partial(noise, sigma=20),
        gamma,
        jitter,
        invert,
        partial(caption, rows=(0.2, 0.5, 0.85)),
    ],
    ids=["jpeg 10", "noise", "gamma", "jitter", "negative", "text"],
)
def test_nothing_moves_in_an_edited_copy(edit: EditFunction) -> None:
    image = photograph(SKIMAGE, "coffee.png")
    found = motion(image, edit(image, np.random.default_rng(3)))
    assert found.tracked > 100
    assert not found.found


def test_a_near_object_off_by_a_pixel_is_another_view() -> None:
    image = photograph(SKIMAGE, "coffee.png")
    near = np.zeros(image.shape[:2])
    near[80:300, 150:380] = 1.2  # too little for whole blocks to be found elsewhere
    found = motion(image, moved(image, near))
    assert found.found
    assert found.apart > found.tracked / 4


def test_what_bends_the_whole_picture_is_no_movement() -> None:
    image = photograph(SKIMAGE, "coffee.png")
    height, width = image.shape[:2]
    x = np.linspace(-1, 1, width)[None, :] * np.ones((height, 1))
    assert not motion(image, moved(image, 6 * x**2 + 3 * x)).found


def test_a_rough_alignment_is_corrected() -> None:
    image = photograph(SKIMAGE, "coffee.png")
    rough = np.array([[1.004, 0, 2.0], [0, 1.004, -2.0], [0, 0, 1]])
    found, exact = motion(image, image, rough), motion(image, image)
    assert found.tracked > 0.9 * exact.tracked
    assert not found.found


def test_flat_pictures_have_nothing_to_track() -> None:
    flat = np.full((200, 300, 3), 90, np.uint8)
    assert motion(flat, flat) == Motion()
    assert not Motion().found
