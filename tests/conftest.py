"""Samples with known content, for every room's tests."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import settings

from cavendish.encoders.sample import Camera, Edit, Instance, Sample

settings.register_profile("cavendish", deadline=None)  # tests say what is right, not how fast a busy machine is
settings.load_profile("cavendish")


def tiny_sample(key: str = "scene-000", seed: int = 0, size: int = 32) -> Sample:
    """A slanted floor with two boxes and sky; every optional field is there."""
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (size, size, 3), dtype=np.uint8)
    depth_m = np.linspace(8.0, 1.5, size, dtype=np.float32)[:, None].repeat(size, axis=1)
    depth_m[: size // 4] = np.inf
    normals = np.zeros((size, size, 3), np.float32)
    normals[size // 4 :] = (0, 1, 0)
    ids = np.zeros((size, size), np.uint16)
    ids[size // 2 : size // 2 + 8, 2:12] = 1
    ids[size // 2 : size // 2 + 8, 18:30] = 2
    boxes = {1: (2, size // 2, 12, size // 2 + 8), 2: (18, size // 2, 30, size // 2 + 8)}
    instances = tuple(
        Instance(
            id=i,
            category=category,
            visible_pixels=int((ids == i).sum()),
            box=boxes[i],
            attributes={"color": color, "material": "wood"},
            visible_fraction=1.0,
            center_camera_m=(x, 0.0, -4.0),
            size_m=(0.5, 0.5, 0.5),
        )
        for i, category, color, x in ((1, "chair", "red", -1.0), (2, "table", "blue", 1.0))
    )
    return Sample(
        key=key,
        image=image,
        source="tests",
        licence="CC0-1.0",
        depth_m=depth_m,
        normals=normals,
        geometric_normals=normals[::-1].copy(),
        albedo=rng.integers(0, 256, (size, size, 3), dtype=np.uint8),
        weight=np.linspace(0, 255, size * size).round().reshape(size, size).astype(np.float32) / 255,
        instance_ids=ids,
        instances=instances,
        exhaustive=True,
        camera=Camera(size, size, 30.0, 30.0, size / 2, size / 2),
        captions=("a red chair and a blue table",),
        edit=Edit("recolor", "make the chair green", 1, image[::-1].copy()),
        facts={"scene": "room"},
        provenance={"seed": seed},
        quality={"score": 1.0},
    )


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Let torch compute with one: to tiny matrices more threads only mean waiting for one another."""
    import torch  # only few tests need it

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def sample() -> Sample:
    return tiny_sample()
