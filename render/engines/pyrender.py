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

from cavendish.encoders.sample import UInt8Image  # noqa: E402
from cavendish.render.geometry.meshes import Placed, is_pane  # noqa: E402
from cavendish.render.light.skies import srgb_to_linear  # noqa: E402
from cavendish.render.scenes.recipe import Recipe, Rgb, pose_matrix  # noqa: E402


class Raster:
    """A GL context of one size. Make one per process and keep it to one thread."""

    def __init__(self, width: int, height: int) -> None:
        self._renderer = pyrender.OffscreenRenderer(width, height)
        self._side = max(width, height)
        self._textures: dict[int, tuple[UInt8Image, Any]] = {}

    def surface_colors(self, recipe: Recipe, scene: Sequence[Placed]) -> NDArray[np.float64]:
        """Return (H, W, 3) linear colour of the surfaces, unlit, antialiased."""
        mesh = self._painted([placed for placed in scene if not is_pane(placed)], pose_matrix(recipe.camera)[:3, 3])
        stage = _stage(recipe, at_origin=True)
        stage.add(mesh)
        flags = pyrender.RenderFlags.FLAT | pyrender.RenderFlags.SKIP_CULL_FACES
        picture, _ = self._renderer.render(stage, flags=flags)
        return srgb_to_linear(picture / 255.0)

    def _painted(self, scene: Sequence[Placed], eye: NDArray[np.float64]) -> Any:
        """Join the scene to one primitive per texture, and one for all that has none: what costs is their number."""
        groups: dict[int, _Group] = {}
        textures: dict[int, tuple[UInt8Image, Any]] = {}
        for placed in scene:
            mesh, matrix = placed.mesh, placed.matrix
            points = (mesh.vertices @ matrix[:3, :3].T + (matrix[:3, 3] - eye)).astype(np.float32)
            bounds = np.searchsorted(mesh.slot_of, np.arange(len(placed.surfaces) + 1))
            for slot, surface in enumerate(placed.surfaces):
                faces = mesh.faces[bounds[slot] : bounds[slot + 1]]
                if not len(faces):
                    continue
                key, span = id(surface.texture), slice(int(faces.min()), int(faces.max()) + 1)
                if surface.texture is not None and key not in textures:
                    # those of the last picture (an edit changes one thing) are on the GL side already
                    textures[key] = self._textures.get(key) or (surface.texture, _texture(surface.texture, self._side))
                color = surface.color if surface.texture is None else (1.0, 1.0, 1.0)
                groups.setdefault(key, _Group()).add(points[span], mesh.uv[span], faces - span.start, color)
        self._textures = textures
        kept = {key: texture for key, (_, texture) in textures.items()}
        return pyrender.Mesh([group.primitive(kept.get(key)) for key, group in groups.items()])

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
            node = _NumberedNode(number, _plain_mesh(placed), placed.matrix)
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


class _Group:
    """Parts of the scene that are drawn at once."""

    def __init__(self) -> None:
        self._parts: list[tuple[NDArray[Any], ...]] = []
        self._count = 0

    def add(self, points: NDArray[Any], uv: NDArray[Any], faces: NDArray[Any], color: Rgb) -> None:
        colors = np.broadcast_to(np.array((*color, 1.0), np.float32), (len(points), 4))
        self._parts.append((points, uv, faces + self._count, colors))
        self._count += len(points)

    def primitive(self, texture: Any) -> Any:
        """Return the parts as one; without a texture they have the colours of their corners."""
        points, uv, faces, colors = (np.concatenate(column) for column in zip(*self._parts))
        how = {"color_0": colors} if texture is None else {"texcoord_0": uv}
        # the FLAT program writes colours as they are: sRGB in, sRGB out
        material = pyrender.MetallicRoughnessMaterial(baseColorTexture=texture, doubleSided=True)
        return pyrender.Primitive(
            positions=points, indices=faces, material=material, mode=pyrender.GLTF.TRIANGLES, **how
        )


def _stage(recipe: Recipe, near_m: float = 0.05, at_origin: bool = False) -> Any:
    camera, stage = recipe.camera, pyrender.Scene(bg_color=(0, 0, 0, 0), ambient_light=(0, 0, 0))
    lens = pyrender.IntrinsicsCamera(camera.fx, camera.fy, camera.cx, camera.cy, znear=near_m, zfar=3000.0)
    pose = pose_matrix(camera)
    if at_origin:
        pose[:3, 3] = 0
    stage.add(lens, pose=pose)
    return stage


def _plain_mesh(placed: Placed) -> Any:
    mesh = placed.mesh
    primitive = pyrender.Primitive(
        positions=mesh.vertices.astype(np.float32),
        indices=mesh.faces,
        material=pyrender.MetallicRoughnessMaterial(doubleSided=True),
        mode=pyrender.GLTF.TRIANGLES,
    )
    return pyrender.Mesh([primitive])


def _texture(pixels: UInt8Image, side: int) -> Any:
    image = pixels[::-1]
    if max(image.shape) > side:  # finer than the picture can show, and slow to upload
        image = cv2.resize(image, (min(side, image.shape[1]), min(side, image.shape[0])), interpolation=cv2.INTER_AREA)
    # four channels: GL takes rows to begin at multiples of four bytes, pyrender does not tell it otherwise, and RGB
    # rows of most widths would be sheared and end in memory that is not theirs
    four = cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2RGBA)
    return pyrender.Texture(source=four, source_channels="RGBA")
