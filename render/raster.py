"""Surface colours by pyrender (OpenGL through EGL, no display needed), antialiased and unlit; lighting.py lights them.

Only colour comes from here. The rasteriser's own depth is that of a multisample buffer, not of pixel centres; and its
shadow maps cost 15 times what traced shadows do without a GPU (0.41 against 0.03 CPU s at 128 x 128).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

os.environ["PYOPENGL_PLATFORM"] = "egl"
vars(np).setdefault("infty", np.inf)  # pyrender 0.1.45 asks for the name that numpy 2 removed

import pyrender  # noqa: E402

from render.meshes import Placed, Surface, is_pane  # noqa: E402
from render.recipe import Recipe, pose_matrix  # noqa: E402
from render.skies import srgb_to_linear  # noqa: E402


class Raster:
    """A GL context of one size. Make one per process and keep it to one thread."""

    def __init__(self, width: int, height: int) -> None:
        self._renderer = pyrender.OffscreenRenderer(width, height)
        self._side = max(width, height)
        self._meshes: dict[Placed, Any] = {}

    def surface_colors(self, recipe: Recipe, scene: Sequence[Placed]) -> NDArray[np.float64]:
        """Return (H, W, 3) linear colour of the surfaces, unlit, antialiased."""
        stage = _stage(recipe)
        # what the last picture showed too (an edit changes one thing) is on the GL side already
        textures: dict[int, Any] = {}
        self._meshes = {
            placed: self._meshes[placed] if placed in self._meshes else _mesh(placed, self._side, textures)
            for placed in scene
            if not is_pane(placed)
        }
        for number, (placed, mesh) in enumerate(self._meshes.items(), start=1):
            stage.add_node(_NumberedNode(number, mesh, placed.matrix))
        flags = pyrender.RenderFlags.FLAT | pyrender.RenderFlags.SKIP_CULL_FACES
        picture, _ = self._renderer.render(stage, flags=flags)
        return srgb_to_linear(picture / 255.0)

    def segment(
        self, recipe: Recipe, scene: Sequence[Placed], near_m: float
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return the ids and planar depth (0: nothing) of the rasteriser's own pass without multisampling.

        Nothing is drawn before `near_m`; the depth buffer has 24 bits, and the further away that is the finer they are.
        """
        stage = _stage(recipe, near_m)
        colors = {}
        for number, placed in enumerate(scene, start=1):
            if is_pane(placed):
                continue
            mesh = self._meshes[placed] if placed in self._meshes else _mesh(placed, self._side, {})
            node = _NumberedNode(number, mesh, placed.matrix)
            stage.add_node(node)
            colors[node] = (number % 256, number // 256, 0)
        picture, depth = self._renderer.render(stage, flags=pyrender.RenderFlags.SEG, seg_node_map=colors)
        numbers = picture[..., 0].astype(np.int64) + 256 * picture[..., 1].astype(np.int64)
        ids = np.array([0, *(placed.thing.id for placed in scene)])
        return ids[numbers], depth.astype(np.float32)

    def close(self) -> None:
        """Release the GL context."""
        self._renderer.delete()


class _NumberedNode(pyrender.Node):  # type: ignore[misc]
    """A node of a scene with its place in the order of drawing.

    pyrender keeps nodes in a set, so that the order of drawing would follow memory addresses, and where two
    surfaces are equally far the first one drawn wins.
    """

    def __init__(self, number: int, mesh: pyrender.Mesh, matrix: NDArray[np.float64]) -> None:
        super().__init__(mesh=mesh, matrix=matrix)
        self._number = number

    def __hash__(self) -> int:
        return self._number


def _stage(recipe: Recipe, near_m: float = 0.05) -> Any:
    camera, stage = recipe.camera, pyrender.Scene(bg_color=(0, 0, 0, 0), ambient_light=(0, 0, 0))
    lens = pyrender.IntrinsicsCamera(camera.fx, camera.fy, camera.cx, camera.cy, znear=near_m, zfar=3000.0)
    stage.add(lens, pose=pose_matrix(camera))
    return stage


def _mesh(placed: Placed, side: int, textures: dict[int, Any]) -> Any:
    mesh = placed.mesh
    primitives = []
    bounds = np.searchsorted(mesh.slot_of, np.arange(len(placed.surfaces) + 1))
    for slot, surface in enumerate(placed.surfaces):
        faces = mesh.faces[bounds[slot] : bounds[slot + 1]]
        if not len(faces):
            continue
        low, high = int(faces.min()), int(faces.max()) + 1
        primitives.append(
            pyrender.Primitive(
                positions=mesh.vertices[low:high].astype(np.float32),
                normals=mesh.normals[low:high],
                texcoord_0=mesh.uv[low:high],
                indices=faces - low,
                material=_material(surface, side, textures),
                mode=pyrender.GLTF.TRIANGLES,
            )
        )
    return pyrender.Mesh(primitives)


def _material(surface: Surface, side: int, textures: dict[int, Any]) -> Any:
    # the FLAT program writes colours as they are: sRGB in, sRGB out
    if surface.texture is None:
        return pyrender.MetallicRoughnessMaterial(baseColorFactor=(*surface.color, 1.0), doubleSided=True)
    if id(surface.texture) not in textures:
        image = surface.texture[::-1]
        if max(image.shape) > side:  # finer than the picture can show, and slow to upload
            image = cv2.resize(
                image, (min(side, image.shape[1]), min(side, image.shape[0])), interpolation=cv2.INTER_AREA
            )
        # four channels: GL takes rows to begin at multiples of four bytes, pyrender does not tell it otherwise, and RGB
        # rows of most widths would be sheared and end in memory that is not theirs
        four = cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2RGBA)
        textures[id(surface.texture)] = pyrender.Texture(source=four, source_channels="RGBA")
    return pyrender.MetallicRoughnessMaterial(baseColorTexture=textures[id(surface.texture)], doubleSided=True)
