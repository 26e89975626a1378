"""Surface colours by pyrender (OpenGL through EGL, no display needed), antialiased and unlit; lighting.py lights them.

Only colour comes from here. The rasteriser's own depth is that of a multisample buffer, not of pixel centres; and its
shadow maps cost 15 times what traced shadows do without a GPU (0.41 against 0.03 CPU s at 128 x 128).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

os.environ["PYOPENGL_PLATFORM"] = "egl"
vars(np).setdefault("infty", np.inf)  # pyrender 0.1.45 asks for the name that numpy 2 removed

import pyrender  # noqa: E402
from pyrender.shader_program import ShaderProgramCache  # noqa: E402

from cavendish.render.geometry.mesh import (  # noqa: E402
    ImageMap,
    Mesh,
    Placed,
    Surface,
    is_pane,
    linear_to_srgb,
    srgb_to_linear,
)
from cavendish.render.scenes.recipe import Recipe, pose_matrix  # noqa: E402


class Raster:
    """A GL context of one size. Make one per process and keep it to one thread."""

    def __init__(self, width: int, height: int) -> None:
        self._renderer = pyrender.OffscreenRenderer(width, height)
        # pyrender's own program for flat colors draws what is cut out
        self._own_programs = ShaderProgramCache(str(Path(__file__).with_name("shaders")))
        self._programs = self._renderer._renderer._program_cache
        self._side = max(width, height)
        self._textures: dict[_TextureKey, tuple[Surface, Any]] = {}

    def surface_colors(self, recipe: Recipe, scene: Sequence[Placed]) -> NDArray[np.float64]:
        """Return (H, W, 3) linear colour of the surfaces, unlit, antialiased."""
        mesh = self._painted([placed for placed in scene if not is_pane(placed)], pose_matrix(recipe.camera)[:3, 3])
        stage = _stage(recipe, at_origin=True)
        stage.add(mesh)
        flags = pyrender.RenderFlags.FLAT | pyrender.RenderFlags.SKIP_CULL_FACES
        self._renderer._renderer._program_cache = self._own_programs
        try:
            picture, _ = self._renderer.render(stage, flags=flags)
        finally:
            self._renderer._renderer._program_cache = self._programs
        return srgb_to_linear(picture / 255.0)

    def _painted(self, scene: Sequence[Placed], eye: NDArray[np.float64]) -> Any:
        """Join the scene to one primitive per texture, and one for all that has none: what costs is their number."""
        groups: dict[_TextureKey, _Group] = {}
        textures: dict[_TextureKey, tuple[Surface, Any]] = {}
        for placed in scene:
            mesh, matrix = placed.mesh, placed.matrix
            points = (mesh.vertices @ matrix[:3, :3].T + (matrix[:3, 3] - eye)).astype(np.float32)
            bounds = np.searchsorted(mesh.slot_of, np.arange(len(placed.surfaces) + 1))
            for slot, surface in enumerate(placed.surfaces):
                faces = mesh.faces[bounds[slot] : bounds[slot + 1]]
                if not len(faces):
                    continue
                key, span = _texture_key(surface), slice(int(faces.min()), int(faces.max()) + 1)
                if key.image and key not in textures:
                    # those of the last picture (an edit changes one thing) are on the GL side already; with the
                    # surface beside it, so that the ids of its images stay their own
                    textures[key] = self._textures.get(key) or (surface, _texture(surface, self._side))
                used = surface.texture or surface.cutout
                uv = mesh.uv[used.uv if used else 0, span]
                colors = _corner_colors(surface, mesh, span, textured=bool(key.image))
                groups.setdefault(key, _Group()).add(points[span], uv, faces - span.start, colors)
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


class _TextureKey(NamedTuple):
    """What is drawn at once: one image, with or without colors of the corners; no image: 0."""

    image: int
    cutout: int
    tinted: bool


def _texture_key(surface: Surface) -> _TextureKey:
    image, cutout = surface.texture, _fitting_cutout(surface)
    shown = image or cutout
    if shown is None:
        return _TextureKey(0, 0, False)
    tinted = surface.corner_colors or image is None
    return _TextureKey(id(shown.pixels), id(cutout.pixels) if cutout else 0, tinted)


def _fitting_cutout(surface: Surface) -> ImageMap | None:
    """Return the cut-out map where it lies as the texture does: pyrender draws one image a surface."""
    cutout, image = surface.cutout, surface.texture
    if cutout is None or image is None or (cutout.uv, cutout.wrap) == (image.uv, image.wrap):
        return cutout
    return None


def _corner_colors(surface: Surface, mesh: Mesh, span: slice, textured: bool) -> NDArray[np.float32]:
    """Return (V, 4) colors of vertices: linear where they multiply a texture, else sRGB as they are shown."""
    count = span.stop - span.start
    color = np.array((1.0, 1.0, 1.0) if surface.texture is not None else surface.color, np.float64)
    rgb = np.broadcast_to(srgb_to_linear(color) if textured else color, (count, 3))
    if surface.corner_colors and mesh.colors is not None:
        light = srgb_to_linear(mesh.colors[span] / 255.0) * srgb_to_linear(color)
        rgb = light if textured else linear_to_srgb(light)
    return np.column_stack([rgb, np.ones(count)]).astype(np.float32)


class _Group:
    """Parts of the scene that are drawn at once."""

    def __init__(self) -> None:
        self._parts: list[tuple[NDArray[Any], ...]] = []
        self._count = 0

    def add(self, points: NDArray[Any], uv: NDArray[Any], faces: NDArray[Any], colors: NDArray[Any]) -> None:
        self._parts.append((points, uv, faces + self._count, colors))
        self._count += len(points)

    def primitive(self, texture: Any) -> Any:
        """Return the parts as one; without a texture they have the colours of their corners."""
        points, uv, faces, colors = (np.concatenate(column) for column in zip(*self._parts))
        how = {"color_0": colors} if texture is None else {"texcoord_0": uv}
        if texture is not None and (colors[:, :3] != 1).any():
            how["color_0"] = colors
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


def _texture(surface: Surface, side: int) -> Any:
    """Return the texture of a surface: its image, white without one, and its cut-out map as alpha."""
    used, cutout = surface.texture, _fitting_cutout(surface)
    shown = used or cutout
    assert shown is not None
    height, width = shown.pixels.shape[:2]
    # four channels: GL takes rows to begin at multiples of four bytes, pyrender does not tell it otherwise, and RGB
    # rows of most widths would be sheared and end in memory that is not theirs
    pixels = np.full((height, width, 4), 255, np.uint8)
    if used is not None:
        pixels[..., :3] = used.pixels
    if cutout is not None:
        alpha = cutout.pixels
        pixels[..., 3] = alpha if alpha.shape == (height, width) else cv2.resize(alpha, (width, height))
    image = pixels[::-1]
    if max(height, width) > side:  # finer than the picture can show, and slow to upload
        image = cv2.resize(image, (min(side, width), min(side, height)), interpolation=cv2.INTER_AREA)
    gl = pyrender.GLTF
    wraps = {"repeat": gl.REPEAT, "clamp": gl.CLAMP_TO_EDGE, "mirror": gl.MIRRORED_REPEAT}
    # by default pyrender reads smaller copies of a texture far away, and interpolates
    filters = {"magFilter": gl.NEAREST} if shown.nearest else {}
    sampler = pyrender.Sampler(wrapS=wraps[shown.wrap[0]], wrapT=wraps[shown.wrap[1]], **filters)
    return pyrender.Texture(source=np.ascontiguousarray(image), source_channels="RGBA", sampler=sampler)
