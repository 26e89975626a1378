"""Edits that leaked images come with: what the controls plant and the benchmark measures.

Every edit is a function (image, rng) -> image on (H, W, 3) uint8 RGB; `EDITS` names them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import cv2
import numpy as np
from numpy.random import Generator

from cavendish.encoders.sample import UInt8Image

EditFunction = Callable[[UInt8Image, Generator], UInt8Image]


def jpeg(image: UInt8Image, rng: Generator, quality: int) -> UInt8Image:
    """Compress and decompress."""
    _, data = cv2.imencode(".jpg", np.ascontiguousarray(image[..., ::-1]), (cv2.IMWRITE_JPEG_QUALITY, quality))
    return np.ascontiguousarray(cv2.imdecode(data, cv2.IMREAD_COLOR)[..., ::-1])


def scale(image: UInt8Image, rng: Generator, x: float, y: float) -> UInt8Image:
    """Resize by factors."""
    height, width = image.shape[:2]
    size = (max(round(width * x), 16), max(round(height * y), 16))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA if min(x, y) < 1 else cv2.INTER_CUBIC)


def fit(image: UInt8Image, rng: Generator, side: int) -> UInt8Image:
    """Resize so that the longer side has that many pixels."""
    factor = side / max(image.shape[:2])
    return scale(image, rng, factor, factor)


def crop(image: UInt8Image, rng: Generator, share: float) -> UInt8Image:
    """Keep a random window of that share of the area."""
    height, width = image.shape[:2]
    rows, columns = round(height * share**0.5), round(width * share**0.5)
    y, x = int(rng.integers(0, height - rows + 1)), int(rng.integers(0, width - columns + 1))
    return np.ascontiguousarray(image[y : y + rows, x : x + columns])


def centre_square(image: UInt8Image, rng: Generator, side: int = 256) -> UInt8Image:
    """Crop the central square and resize it, as most training recipes do."""
    height, width = image.shape[:2]
    edge = min(height, width)
    y, x = (height - edge) // 2, (width - edge) // 2
    return cv2.resize(image[y : y + edge, x : x + edge], (side, side), interpolation=cv2.INTER_AREA)


def turn(image: UInt8Image, rng: Generator, quarter_turns: int) -> UInt8Image:
    """Turn by quarter turns."""
    return np.ascontiguousarray(np.rot90(image, quarter_turns))


def flip(image: UInt8Image, rng: Generator, axis: int) -> UInt8Image:
    """Mirror along an axis (1: left and right)."""
    return np.ascontiguousarray(np.flip(image, axis))


def rotate(image: UInt8Image, rng: Generator, degrees: float) -> UInt8Image:
    """Rotate about the centre either way, keeping the size, black outside."""
    height, width = image.shape[:2]
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), degrees * float(rng.choice([-1, 1])), 1.0)
    return cv2.warpAffine(image, matrix, (width, height), flags=cv2.INTER_LINEAR)


def perspective(image: UInt8Image, rng: Generator, strength: float = 0.08) -> UInt8Image:
    """Move the four corners at random by up to that share of the sides."""
    height, width = image.shape[:2]
    corners = np.array([(0, 0), (width, 0), (width, height), (0, height)], np.float32)
    moved = corners + rng.uniform(-strength, strength, (4, 2)).astype(np.float32) * (width, height)
    matrix = cv2.getPerspectiveTransform(corners, moved.astype(np.float32))
    return cv2.warpPerspective(image, matrix, (width, height), borderMode=cv2.BORDER_REFLECT)


def jitter(image: UInt8Image, rng: Generator) -> UInt8Image:
    """Change brightness, contrast, saturation and hue."""
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV).astype(np.float32)
    hsv[..., 0] = (hsv[..., 0] + rng.uniform(-18, 18)) % 180
    hsv[..., 1:] *= rng.uniform(0.6, 1.4, 2)
    color = cv2.cvtColor(np.clip(hsv, 0, 255).astype(np.uint8), cv2.COLOR_HSV2RGB).astype(np.float32)
    return np.clip((color - 128) * rng.uniform(0.6, 1.3) + 128, 0, 255).astype(np.uint8)


def gray(image: UInt8Image, rng: Generator) -> UInt8Image:
    """Drop the colours."""
    return cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)


def gamma(image: UInt8Image, rng: Generator) -> UInt8Image:
    """Brighten or darken by a power of 0.5 or 2."""
    power = float(rng.choice([0.5, 2.0]))
    return ((np.arange(256) / 255) ** power * 255).round().astype(np.uint8)[image]


def invert(image: UInt8Image, rng: Generator) -> UInt8Image:
    """Take the negative."""
    return cv2.bitwise_not(image)


def blur(image: UInt8Image, rng: Generator, share: float = 0.006) -> UInt8Image:
    """Blur with a Gaussian of that share of the longer side."""
    return cv2.GaussianBlur(image, (0, 0), share * max(image.shape[:2]))


def noise(image: UInt8Image, rng: Generator, sigma: float = 20) -> UInt8Image:
    """Add Gaussian noise of that many grey levels."""
    return np.clip(image + rng.normal(0, sigma, image.shape), 0, 255).astype(np.uint8)


def caption(image: UInt8Image, rng: Generator, rows: tuple[float, ...] = (0.92,)) -> UInt8Image:
    """Write a line of large text over the picture at each of those heights."""
    result = image.copy()
    height, width = image.shape[:2]
    size = width / 260
    for row in rows:
        word = "".join(rng.choice(list("ABCDEFGHKLMNPRSTUVWXYZ  "), 12))
        place = (round(width * 0.04), round(height * row))
        cv2.putText(result, word, place, cv2.FONT_HERSHEY_DUPLEX, size, (0, 0, 0), round(size * 5), cv2.LINE_AA)
        cv2.putText(result, word, place, cv2.FONT_HERSHEY_DUPLEX, size, (255, 255, 255), round(size * 2), cv2.LINE_AA)
    return result


def mask_overlay(image: UInt8Image, rng: Generator) -> UInt8Image:
    """Paint half-transparent coloured shapes over it, as segmentation previews do."""
    painted = image.copy()
    height, width = image.shape[:2]
    for _ in range(5):
        centre = (int(rng.integers(0, width)), int(rng.integers(0, height)))
        axes = (int(width * rng.uniform(0.1, 0.25)), int(height * rng.uniform(0.1, 0.25)))
        color = tuple(int(value) for value in rng.integers(0, 256, 3))
        cv2.ellipse(painted, centre, axes, float(rng.uniform(0, 180)), 0, 360, color, -1)
    return cv2.addWeighted(image, 0.45, painted, 0.55, 0)


def letterbox(image: UInt8Image, rng: Generator) -> UInt8Image:
    """Pad to a square with black bars."""
    height, width = image.shape[:2]
    side = round(max(height, width) * 1.15)
    canvas = np.zeros((side, side, 3), np.uint8)
    y, x = (side - height) // 2, (side - width) // 2
    canvas[y : y + height, x : x + width] = image
    return canvas


def screenshot(image: UInt8Image, rng: Generator) -> UInt8Image:
    """Show it at half the width inside a page with bars, lines of text and buttons."""
    height, width = image.shape[:2]
    page = np.full((round(height * 1.6), round(width * 1.8), 3), 245, np.uint8)
    page[: page.shape[0] // 12] = (60, 80, 130)
    for row in range(page.shape[0] // 7, page.shape[0], max(page.shape[0] // 22, 8)):
        end = round(page.shape[1] * rng.uniform(0.12, 0.3))
        word = "".join(rng.choice(list("abcdefghiklmnoprstu "), 24))
        cv2.putText(page[:, :end], word, (8, row), cv2.FONT_HERSHEY_SIMPLEX, width / 1400, (40, 40, 40), 1, cv2.LINE_AA)
    y, x = round(page.shape[0] * 0.17), round(page.shape[1] * 0.34)
    page[y : y + height, x : x + width] = image[: page.shape[0] - y, : page.shape[1] - x]
    return page


def onto_texture(image: UInt8Image, rng: Generator, share: float = 0.45) -> UInt8Image:
    """Paste it, at that share of the width, on a synthetic textured picture."""
    height, width = image.shape[:2]
    canvas = procedural_picture(rng, height, width)
    small = cv2.resize(image, (round(width * share), round(height * share)), interpolation=cv2.INTER_AREA)
    y = int(rng.integers(0, height - small.shape[0] + 1))
    x = int(rng.integers(0, width - small.shape[1] + 1))
    canvas[y : y + small.shape[0], x : x + small.shape[1]] = small
    return canvas


def panel(image: UInt8Image, rng: Generator) -> UInt8Image:
    """Put it beside a smooth coloured map, as image | depth figures do."""
    height, width = image.shape[:2]
    smooth = cv2.resize(rng.uniform(0, 255, (4, 5)).astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC)
    colored = cv2.applyColorMap(np.clip(smooth, 0, 255).astype(np.uint8), cv2.COLORMAP_INFERNO)[..., ::-1]
    return np.ascontiguousarray(np.concatenate([image, colored], axis=1))


def grid(image: UInt8Image, rng: Generator) -> UInt8Image:
    """Make it one of a 2 x 2 sheet beside synthetic pictures."""
    height, width = image.shape[:2]
    cells = [procedural_picture(rng, height, width) for _ in range(3)]
    cells.insert(int(rng.integers(0, 4)), image)
    sheet = np.concatenate([np.concatenate(cells[:2], axis=1), np.concatenate(cells[2:], axis=1)])
    return scale(sheet, rng, 0.6, 0.6)


def chain(image: UInt8Image, rng: Generator, steps: tuple[EditFunction, ...]) -> UInt8Image:
    """Apply edits one after another."""
    for step in steps:
        image = step(image, rng)
    return image


def procedural_picture(rng: Generator, height: int, width: int) -> UInt8Image:
    """Draw a picture that is in no benchmark: coloured noise of a natural spectrum with random shapes on it."""
    spectrum = np.fft.rfftfreq(256)[None, :] ** 2 + np.fft.fftfreq(256)[:, None] ** 2
    spectrum[0, 0] = 1
    planes = [np.fft.irfft2(np.fft.rfft2(rng.normal(size=(256, 256))) / spectrum**0.55) for _ in range(3)]
    field = np.stack([(plane - plane.mean()) / plane.std() for plane in planes], axis=-1)
    mixed = field @ rng.uniform(-0.4, 1.0, (3, 3))
    picture = np.clip(128 + 45 * mixed, 0, 255).astype(np.uint8)
    for _ in range(int(rng.integers(4, 14))):
        color = tuple(int(value) for value in rng.integers(0, 256, 3))
        corners = rng.integers(0, 256, 2) + rng.integers(-60, 60, (int(rng.integers(3, 7)), 2))
        cv2.fillPoly(picture, [corners.astype(np.int32)], color, cv2.LINE_AA)
    picture = cv2.GaussianBlur(picture, (0, 0), 0.6)
    return cv2.resize(picture, (width, height), interpolation=cv2.INTER_CUBIC)


EDITS: Mapping[str, EditFunction] = {
    "jpeg 30": partial(jpeg, quality=30),
    "jpeg 10": partial(jpeg, quality=10),
    "resize 0.3": partial(scale, x=0.3, y=0.3),
    "resize 2": partial(scale, x=2.0, y=2.0),
    "thumbnail 96 px": partial(fit, side=96),
    "squeeze 0.6 wide": partial(scale, x=0.6, y=1.0),
    "crop 90 %": partial(crop, share=0.9),
    "crop 70 %": partial(crop, share=0.7),
    "crop 50 %": partial(crop, share=0.5),
    "centre square 256 px": centre_square,
    "mirrored": partial(flip, axis=1),
    "upside down": partial(flip, axis=0),
    "quarter turn": partial(turn, quarter_turns=1),
    "half turn": partial(turn, quarter_turns=2),
    "rotated 5 degrees": partial(rotate, degrees=5),
    "rotated 25 degrees": partial(rotate, degrees=25),
    "perspective": perspective,
    "colour jitter": jitter,
    "grey": gray,
    "gamma": gamma,
    "negative": invert,
    "blur": blur,
    "noise": noise,
    "caption": caption,
    "three lines of text": partial(caption, rows=(0.2, 0.5, 0.85)),
    "mask overlay": mask_overlay,
    "letterbox": letterbox,
    "screenshot": screenshot,
    "pasted on a picture": onto_texture,
    "beside a map": panel,
    "2 x 2 sheet": grid,
    "mirrored, crop 60 %, jpeg 40": partial(
        chain, steps=(partial(flip, axis=1), partial(crop, share=0.6), partial(jpeg, quality=40))
    ),
    "rotated, crop 70 %, caption": partial(
        chain, steps=(partial(rotate, degrees=12), partial(crop, share=0.7), caption)
    ),
    "screenshot, jitter, 400 px": partial(chain, steps=(screenshot, jitter, partial(fit, side=400))),
    "crop 80 %, mirrored, caption, 320 px": partial(
        chain, steps=(partial(crop, share=0.8), partial(flip, axis=1), caption, partial(fit, side=320))
    ),
}
"""Edits by the name that reports give them."""
