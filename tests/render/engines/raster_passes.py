"""The rasteriser's own ids and depth, beside which the ray cast's labels are put."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyrender
from numpy.typing import NDArray

from cavendish.render.engines.pyrender import Raster, _stage
from cavendish.render.geometry.mesh import Placed, is_pane
from cavendish.render.scenes.recipe import Recipe


def segment(
    raster: Raster, recipe: Recipe, scene: Sequence[Placed], near_m: float
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
    picture, depth = raster._renderer.render(stage, flags=pyrender.RenderFlags.SEG, seg_node_map=colors)
    numbers = picture[..., 0].astype(np.int64) + 256 * picture[..., 1].astype(np.int64)
    ids = np.array([0, *(placed.thing.id for placed in scene)])
    return ids[numbers], depth.astype(np.float32)


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


def _plain_mesh(placed: Placed) -> pyrender.Mesh:
    mesh = placed.mesh
    primitive = pyrender.Primitive(
        positions=mesh.vertices.astype(np.float32),
        indices=mesh.faces,
        material=pyrender.MetallicRoughnessMaterial(doubleSided=True),
        mode=pyrender.GLTF.TRIANGLES,
    )
    return pyrender.Mesh([primitive])
