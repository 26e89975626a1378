"""The in-memory contract between all stages: Sample (targets kept lossless) and Example (what a trainer sees).

Frames and units, everywhere in this project:
- camera space is right-handed: +x right, +y up, +z out of the image toward the viewer (the OpenGL convention);
- depth is planar: metres along the optical axis, +inf where there is no surface (sky), NaN where unknown;
- pixel column u has its centre at u + 0.5, and `Camera.cx`, `cy` count from the image's top left corner.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

UInt8Image = NDArray[np.uint8]
"""(H, W, 3) uint8, sRGB."""

SAMPLE_SCHEMA = "cavendish-sample/1"
EXAMPLE_SCHEMA = "cavendish-example/1"


class InputError(ValueError):
    """A bad input, said in one line that names the file, key or field and what to do. The command line exits 2.

    Example:
        >>> import numpy as np
        >>> try:
        ...     cavendish.encode_depth(np.array([[-1.0]]))
        ... except cavendish.InputError as error:
        ...     print(error)
        depth has negative values (lowest -1 m): mark unknown NaN, no surface +inf
    """


def one_line(said: object, most: int | None = 200) -> str:
    """Return what somebody else's error says as part of a message: white space as single spaces, the start of it."""
    return " ".join(str(said).split())[:most]


@dataclass(frozen=True)
class Camera:
    """Pinhole intrinsics in pixels, and the pose as a row-major 4x4 camera-to-world matrix in metres (or None)."""

    width: int
    height: int
    fx: float
    fy: float
    cx: float
    cy: float
    camera_to_world: tuple[float, ...] | None = None


@dataclass(frozen=True)
class Instance:
    """One entry of `Sample.instance_ids`.

    `box` is (x0, y0, x1, y1) in pixels, half open, around the visible pixels. `visible_fraction` is the share of the
    object's own in-frame silhouette that nothing covers (None: not known). `center_camera_m` is the centre of the
    whole object in camera space. `is_thing` is False for surfaces that cannot be counted (floor, wall, ground).
    `attributes` are words that hold for the picture: color (from the rendered pixels), material, size.
    """

    id: int
    category: str
    visible_pixels: int
    box: tuple[int, int, int, int]
    attributes: Mapping[str, str] = field(default_factory=dict)
    visible_fraction: float | None = None
    center_camera_m: tuple[float, float, float] | None = None
    size_m: tuple[float, float, float] | None = None
    is_thing: bool = True


@dataclass(frozen=True)
class Edit:
    """The same picture with one change: `image` (H, W, 3) uint8 is the answer to `instruction` on `Sample.image`."""

    kind: str
    instruction: str
    instance_id: int
    image: UInt8Image


@dataclass(frozen=True)
class Sample:
    """One picture with everything known about it. Arrays that are not known are None.

    Args:
        key: unique within the dataset; letters, digits, `-` and `_` only.
        image: (H, W, 3) uint8 sRGB.
        source: which dataset or job made it, for example "render-blender" or "photos".
        licence: SPDX id or a short name of the licence the picture may be used under.
        depth_m: (H, W) float32 planar metres; +inf no surface, NaN unknown.
        normals: (H, W, 3) float32 camera-space unit vectors, as shaded; (0, 0, 0) unknown.
        geometric_normals: (H, W, 3) float32, those of the flat faces themselves; (0, 0, 0) unknown.
        albedo: (H, W, 3) uint8 sRGB, the surface's own colour without light.
        instance_ids: (H, W) uint16; 0 background; other values are ids of `instances`.
        weight: (H, W) float32 in 0..1, how far a pixel's targets can be trusted (None: all of them fully).
        exhaustive: True when every object in the picture is among `instances`, so that what is absent is known.
        facts: scene facts that hold for the whole picture, json-able.
        provenance: tool versions, seed, config hash, model ids and weight hashes; json-able.
        quality: scores by name.

    Example:
        >>> import numpy as np
        >>> image, depth_m = np.zeros((32, 32, 3), np.uint8), np.full((32, 32), 2.0, np.float32)
        >>> sample = cavendish.Sample("mine-000", image, "mine", "CC0-1.0", depth_m=depth_m, captions=("a wall",))
        >>> sample.depth_m.max(), sample.normals
        (2.0, None)
    """

    key: str
    image: UInt8Image
    source: str
    licence: str
    depth_m: NDArray[np.float32] | None = None
    normals: NDArray[np.float32] | None = None
    geometric_normals: NDArray[np.float32] | None = None
    albedo: UInt8Image | None = None
    instance_ids: NDArray[np.uint16] | None = None
    instances: tuple[Instance, ...] = ()
    weight: NDArray[np.float32] | None = None
    exhaustive: bool = False
    camera: Camera | None = None
    captions: tuple[str, ...] = ()
    edit: Edit | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    quality: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Example:
    """One instruction: draw `target` for `prompt` (and `source`, unless the task is "generate").

    Args:
        key: the Sample's key, then `.task`, then whatever makes it unique.
        task: a name of `encoders.tasks.registry.TASKS`.
        source: (H, W, 3) uint8 or None.
        target: (H, W, 3) uint8, the decodable answer.
        spec: json-able; all that `encoders.tasks.registry.decode_example` needs: task, codec id,
            legend or parameters.
        weight: (H, W) float32 in 0..1, how far a pixel of `target` can be trusted (None: all of them fully).

    Example:
        >>> import numpy as np
        >>> image = np.zeros((32, 32, 3), np.uint8)
        >>> cavendish.Example("mine-000", "generate", "a wall", None, image, {"task": "generate"}).prompt
        'a wall'
    """

    key: str
    task: str
    prompt: str
    source: UInt8Image | None
    target: UInt8Image
    spec: Mapping[str, Any]
    weight: NDArray[np.float32] | None = None


@dataclass(frozen=True)
class Rejection:
    """A sample that was not made, and why: it goes to the dead letters of its shard."""

    key: str
    reason: str
