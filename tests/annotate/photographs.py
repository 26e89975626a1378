"""Real photographs that ship inside scikit-image, scikit-learn and matplotlib, as bytes and as pixels."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

from cavendish.encoders.sample import UInt8Image
from cavendish.mixing.sources.decode import decode_image

FILES = {
    "astronaut": ("skimage.data", "astronaut.png"),
    "brick": ("skimage.data", "brick.png"),
    "camera": ("skimage.data", "camera.png"),
    "chelsea": ("skimage.data", "chelsea.png"),
    "coffee": ("skimage.data", "coffee.png"),
    "coins": ("skimage.data", "coins.png"),
    "grass": ("skimage.data", "grass.png"),
    "horse": ("skimage.data", "horse.png"),
    "ihc": ("skimage.data", "ihc.png"),
    "page": ("skimage.data", "page.png"),
    "rocket": ("skimage.data", "rocket.jpg"),
    "china": ("sklearn.datasets.images", "china.jpg"),
    "flower": ("sklearn.datasets.images", "flower.jpg"),
    "motorcycle": ("skimage.data", "motorcycle_left.png"),
    "hopper": ("matplotlib", "mpl-data/sample_data/grace_hopper.jpg"),
}


@cache
def photo_bytes(name: str) -> bytes:
    """Return the file as it ships."""
    package, file = FILES[name]
    return files(package).joinpath(file).read_bytes()


@cache
def photo(name: str) -> UInt8Image:
    """Return (H, W, 3) uint8 sRGB."""
    return decode_image(photo_bytes(name), 1024).rgb_u8
