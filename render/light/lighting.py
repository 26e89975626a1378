"""Light for the rasteriser's colours: direct light with soft shadows, one bounce, reflections; traced with Embree.

Arrays are flat: N pixels that show a surface. All in world space, linear light; powers as in recipe.Light.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from embreex.mesh_construction import TriangleMesh
from embreex.rtcore_scene import EmbreeScene
from numpy.typing import NDArray

from cavendish.render.engines.pyrender import Raster
from cavendish.render.geometry.mesh import ImageMap, Mesh, Placed, Surface, is_there, look_up, srgb_to_linear
from cavendish.render.geometry.triangles import face_normals
from cavendish.render.labels.checks import compare_raster
from cavendish.render.labels.passes import Truth, camera_rays
from cavendish.render.light.skies import add_haze, environment, harmonic_light, irradiance, radiance
from cavendish.render.scenes.recipe import Light, Recipe, pose_matrix
from cavendish.render.views import Paint, Picture

Floats = NDArray[np.float32]
SHADOW_SAMPLES, BOUNCE_SAMPLES, MIRROR_SAMPLES = 4, 4, 2
"""Rays per pixel: to all lamps together (at least two to each), into the half sphere, and along the reflection.

The four pixels of a 2 x 2 block share out the directions between them; the smoothing brings them together."""
OFFSET = 1e-3
"""Rays start this far off their surface, relative to its distance from the camera (at least 0.2 mm)."""


@dataclass(frozen=True, eq=False)
class World:
    """All triangles in one search tree: (F, 3) unit normals, (F, 3) linear reflectance, (F,) emission."""

    tree: EmbreeScene
    normals: Floats
    albedo: Floats
    emission: Floats
    recipe: Recipe
    sky: NDArray[np.float32]
    open_light: NDArray[np.float64]
    meshes: tuple[tuple[Mesh, bytes], ...]


def build_world(recipe: Recipe, scene: Sequence[Placed], last: World | None = None) -> World:
    """Put the whole scene into one search tree, each surface with its mean colour.

    The tree of the `last` world is used again when the same meshes stand at the same places under the same sky.
    Triangles that are cut out for the most part are left out: rays of the light do not look up images.
    """
    points, faces, count = [], [], 0
    albedo, emission = [], []
    scene = [placed for placed in scene if not any(part.transmission or part.see_through for part in placed.surfaces)]
    meshes = tuple((placed.mesh, placed.matrix.tobytes()) for placed in scene)
    again = last is not None and last.meshes == meshes and last.recipe.sky == recipe.sky
    for placed in scene:
        solid = _solid_triangles(placed)
        slots = placed.mesh.slot_of[solid]
        albedo.append(np.array([mean_albedo(surface) for surface in placed.surfaces])[slots] * _tints(placed, solid))
        emission.append(np.array([mean_emission(surface) for surface in placed.surfaces])[slots])
        if again:
            continue
        points.append(placed.mesh.vertices @ placed.matrix[:3, :3].T + placed.matrix[:3, 3])
        faces.append(placed.mesh.faces[solid] + np.int32(count))
        count += len(placed.mesh.vertices)
    colors = np.concatenate(albedo).astype(np.float32), np.concatenate(emission).astype(np.float32)
    if again and last is not None:
        return replace(last, albedo=colors[0], emission=colors[1], recipe=recipe)
    vertices, triangles = np.concatenate(points).astype(np.float32), np.concatenate(faces)
    tree = EmbreeScene()
    TriangleMesh(tree, vertices, triangles)
    sky = environment(recipe.sky)
    return World(tree, face_normals(vertices[triangles]), *colors, recipe, sky, harmonic_light(sky), meshes)


COVERAGE_POINTS = np.array([[1, 1, 1], [4, 1, 1], [1, 4, 1], [1, 1, 4], [2, 2, 1], [1, 2, 2], [2, 1, 2]], np.float64)
"""Barycentric weights, before they are normalized, of the points whose coverage stands for a triangle's."""


def _solid_triangles(placed: Placed) -> slice | NDArray[np.int64]:
    """Return the triangles that are not cut out for the most part."""
    cut = [number for number, surface in enumerate(placed.surfaces) if surface.cutout is not None]
    if not cut:
        return slice(None)
    faces = np.arange(len(placed.mesh.faces))
    weights = COVERAGE_POINTS / COVERAGE_POINTS.sum(axis=1, keepdims=True)
    covered = [is_there(placed, faces, np.broadcast_to(point, (len(faces), 3))) for point in weights]
    return np.flatnonzero(np.mean(covered, axis=0) >= 0.5)


def _tints(placed: Placed, solid: slice | NDArray[np.int64]) -> NDArray[np.float64]:
    """Return (F, 3) mean linear colors of the triangles' corners; ones where they do not count."""
    mesh = placed.mesh
    if mesh.colors is None:
        return np.ones(3)
    counts = np.array([surface.corner_colors for surface in placed.surfaces])[mesh.slot_of[solid]]
    mean = srgb_to_linear(mesh.colors[mesh.faces[solid]] / 255.0).mean(axis=1)
    return np.where(counts[:, None], mean, 1.0)


def mean_albedo(surface: Surface) -> NDArray[np.float64]:
    """Return a surface's mean linear colour."""
    if surface.texture is None:
        return srgb_to_linear(np.array(surface.color, np.float64))
    mean: NDArray[np.float64] = _mean_color(surface.texture)
    return mean


def mean_emission(surface: Surface) -> float:
    """Return the mean of what a surface sends out of itself, as grey light."""
    if surface.emission_map is None or surface.emission <= 0:
        return surface.emission
    return surface.emission * float(_mean_color(surface.emission_map).mean())


def _mean_color(used: ImageMap) -> NDArray[np.float64]:
    mean: NDArray[np.float64] = srgb_to_linear(used.pixels[::8, ::8].reshape(-1, 3) / 255.0).mean(axis=0)
    return mean


def light_picture(
    world: World, scene: Sequence[Placed], truth: Truth, albedo: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return (H, W, 3) linear light toward the camera, from the (H, W, 3) linear colour of the surfaces."""
    camera = world.recipe.camera
    pose = pose_matrix(camera)
    seen = truth.instance_ids > 0
    rays = (camera_rays(camera) @ pose[:3, :3].T).reshape(-1, 3)
    picture = radiance(world.sky, rays).astype(np.float64).reshape(*seen.shape, 3)
    view = rays[seen.ravel()]
    depth = truth.depth_m[seen]
    normals = truth.normals[seen] @ pose[:3, :3].T
    values = SurfaceValues.read(scene, truth, seen, albedo[seen])
    points = pose[:3, 3] + view * depth[:, None] + normals * np.maximum(OFFSET * depth, 2e-4)[:, None]
    view = (view / _length(view)[:, None]).astype(np.float32)
    points = points.astype(np.float32)
    normals = bend_normals(scene, truth, seen, normals, pose).astype(np.float32)
    rng = np.random.default_rng(17)
    rough, metal, clear = values.roughness, values.metallic, values.transmission
    color = albedo[seen].astype(np.float32)
    base = 0.04 + (color - 0.04) * metal[:, None]
    rows, columns = np.nonzero(seen)
    phase = (2 * (rows % 2) + columns % 2).astype(np.float32)
    diffuse, shine = _direct(world, points, normals, phase, rng, view, rough, base)
    # which lamp lights what a ray finds: each has its turn within a block, and begins elsewhere in the next one
    first = 3 * (rows // 2) + 5 * (columns // 2)
    bounced = _bounce(world, points, normals, phase, first, rng)
    mirrored = _mirror(world, points, normals, view, rough, base, first + MIRROR_SAMPLES * phase.astype(np.int64), rng)
    gathered = np.zeros((*seen.shape, 9), np.float32)
    gathered[seen] = np.concatenate([diffuse, shine + mirrored, bounced], axis=1)
    smooth = smooth_light(gathered, truth, 2, 6)[seen]
    sharp, soft = smooth[:, :6], smooth[:, 6:]
    matte = color * (1 - metal)[:, None]
    picture[seen] = matte * (sharp[:, :3] + soft) + sharp[:, 3:] + values.glow
    if clear.any():  # glass: what lies behind, tinted; rays are not bent, and glass casts no shadow
        glass = clear > 0
        behind = _behind(world, points[glass], view[glass], rng)
        share = clear[glass, None]
        lit = picture[seen]
        lit[glass] = (1 - share) * lit[glass] + share * (color[glass] * behind + sharp[glass, 3:])
        picture[seen] = lit
    return add_haze(picture, truth.depth_m, world.recipe)


@dataclass(frozen=True, eq=False)
class SurfaceValues:
    """Of N pixels that show a surface: (N,) roughness, metallic, transmission; (N, 3) light they send out."""

    roughness: Floats
    metallic: Floats
    transmission: Floats
    glow: Floats

    @classmethod
    def read(
        cls, scene: Sequence[Placed], truth: Truth, seen: NDArray[np.bool_], colors: NDArray[np.float64]
    ) -> SurfaceValues:
        """Look up the surface of each seen pixel; `colors` are (N, 3) linear."""
        slots = max(len(placed.surfaces) for placed in scene)
        table = np.zeros((max(placed.thing.id for placed in scene) + 1, slots, 4), np.float32)
        for placed in scene:
            for number, surface in enumerate(placed.surfaces):
                rough = min(surface.roughness, 0.25) if surface.coat > 0.5 else surface.roughness
                table[placed.thing.id, number] = rough, surface.metallic, surface.emission, surface.transmission
        ids, slot = truth.instance_ids[seen], truth.slots[seen]
        rough, metal, emission, clear = np.ascontiguousarray(table[ids, slot].T)
        glow = colors.astype(np.float32) * emission[:, None]
        for placed in scene:
            for number, surface in enumerate(placed.surfaces):
                emits = surface.emission > 0 and bool(surface.emission_map or surface.emission_color)
                if not (emits or surface.roughness_map or surface.metallic_map):
                    continue
                here = np.flatnonzero((ids == placed.thing.id) & (slot == number))
                at = truth.faces[seen][here].astype(np.int64), truth.weights[seen][here].astype(np.float64)
                if surface.roughness_map is not None:
                    rough[here] = np.maximum(look_up(placed.mesh, surface.roughness_map, *at)[:, 0] / 255, 0.05)
                if surface.metallic_map is not None:
                    metal[here] = look_up(placed.mesh, surface.metallic_map, *at)[:, 0] / 255
                if emits:
                    light = srgb_to_linear(np.array(surface.emission_color or surface.color, np.float64))
                    if surface.emission_map is not None:
                        light = light * srgb_to_linear(look_up(placed.mesh, surface.emission_map, *at) / 255)
                    glow[here] = surface.emission * light
        return cls(rough, metal, clear, glow)


def bend_normals(
    scene: Sequence[Placed],
    truth: Truth,
    seen: NDArray[np.bool_],
    normals: NDArray[np.float64],
    pose: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Return (N, 3) world normals of the seen pixels with the normal maps of their surfaces: light alone feels them."""
    ids, slot = truth.instance_ids[seen], truth.slots[seen]
    bent = normals.copy()
    for placed in scene:
        for number, surface in enumerate(placed.surfaces):
            if surface.normal_map is None:
                continue
            here = np.flatnonzero((ids == placed.thing.id) & (slot == number))
            face = truth.faces[seen][here].astype(np.int64)
            weights = truth.weights[seen][here].astype(np.float64)
            relief = look_up(placed.mesh, surface.normal_map, face, weights) / 127.5 - 1
            relief[:, :2] *= surface.normal_strength
            tangent, other = _tangents(placed, surface.normal_map.uv, face, bent[here])
            flat = truth.geometric_normals[seen][here] @ pose[:3, :3].T
            turned = relief[:, :1] * tangent + relief[:, 1:2] * other + relief[:, 2:] * bent[here]
            turned += np.maximum(0.05 - (turned * flat).sum(axis=1), 0)[:, None] * flat  # never behind its triangle
            bent[here] = turned / np.maximum(np.linalg.norm(turned, axis=1), 1e-9)[:, None]
    return bent


def _tangents(
    placed: Placed, uv: int, face: NDArray[np.int64], normals: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return (N, 3) world directions in which u and v grow on triangles, at right angles to the normals."""
    mesh = placed.mesh
    corners = mesh.vertices[mesh.faces[face]] @ placed.matrix[:3, :3].T
    at = mesh.uv[uv][mesh.faces[face]].astype(np.float64)
    (ab, ac), (du, dv) = (
        (corners[:, 1:] - corners[:, :1]).transpose(1, 0, 2),
        (at[:, 1:] - at[:, :1]).transpose(2, 0, 1),
    )
    along_u = ab * dv[:, 1:] - ac * dv[:, :1]
    along_v = ac * du[:, :1] - ab * du[:, 1:]
    side = np.sign(du[:, 0] * dv[:, 1] - du[:, 1] * dv[:, 0])[:, None]
    found = []
    for direction in (along_u * side, along_v * side):
        level = direction - (direction * normals).sum(axis=1, keepdims=True) * normals
        found.append(level / np.maximum(np.linalg.norm(level, axis=1, keepdims=True), 1e-12))
    return found[0], found[1]


def _direct(
    world: World,
    points: Floats,
    normals: Floats,
    phase: Floats,
    rng: np.random.Generator,
    view: Floats,
    rough: Floats,
    base: Floats,
) -> tuple[Floats, Floats]:
    """Return the light of all lamps that the pixels send on: diffuse per unit of colour, and specular."""
    diffuse, shine = np.zeros_like(points), np.zeros_like(points)
    lights = world.recipe.lights
    samples = max(2, SHADOW_SAMPLES // max(1, len(lights)))
    for light in lights:
        for sample in range(samples):
            stratum = (4 * sample + phase + rng.random(len(points), np.float32)) / np.float32(4 * samples)
            unit, power = _from_light(world, light, points, normals, stratum, rng)
            power = power[:, None] * np.array(light.color, np.float32) / np.float32(samples)
            diffuse += power / np.float32(math.pi)
            shine += power * _specular(unit, normals, view, rough, base)
    return diffuse, np.minimum(shine, 8.0)


def _one_lamp(
    world: World, points: Floats, normals: Floats, chosen: NDArray[np.int64], rng: np.random.Generator
) -> Floats:
    """Return the diffuse light of one lamp for each point, times their number; `chosen` counts them round and round."""
    lights = world.recipe.lights
    diffuse = np.zeros_like(points)
    for number, light in enumerate(lights):
        here = np.flatnonzero(chosen % len(lights) == number)
        _, power = _from_light(world, light, points[here], normals[here], rng.random(len(here), np.float32), rng)
        diffuse[here] = power[:, None] * (np.array(light.color, np.float32) * np.float32(len(lights) / math.pi))
    return diffuse


def _from_light(
    world: World, light: Light, points: Floats, normals: Floats, stratum: Floats, rng: np.random.Generator
) -> tuple[Floats, Floats]:
    """Return unit directions to points of a lamp and the irradiance from there, 0 in its shadow."""
    toward, strength = _toward_light(light, points, stratum, rng)
    unit = toward / _length(toward)[:, None]
    power = strength * np.maximum(_dot(unit, normals), 0)
    lit = np.flatnonzero(power > 0)
    if len(lit):
        reach = np.float32(0.999) * toward[lit]
        found = world.tree.run(points[lit], reach, dists=np.ones(len(lit), np.float32), query="OCCLUDED")
        power[lit[found >= 0]] = 0
    return unit, power


def _toward_light(light: Light, points: Floats, stratum: Floats, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Return vectors to a point of the lamp, and the irradiance it would give a surface that faces it."""
    direction = np.array(light.direction)
    side = np.cross(direction, (0.0, 1.0, 0.0) if abs(direction[1]) < 0.9 else (1.0, 0.0, 0.0))
    side /= np.linalg.norm(side)
    other = np.cross(direction, side)
    u, v = stratum - np.float32(0.5), rng.random(len(points), np.float32) - np.float32(0.5)
    spread = u[:, None] * (light.size_m * side).astype(np.float32) + v[:, None] * (light.size_m * other).astype(
        np.float32
    )
    if light.kind == "sun":
        toward = (spread - direction.astype(np.float32)) * np.float32(2000.0)
        return toward, np.full(len(points), light.power, np.float32)
    toward = np.array(light.position_m, np.float32) + spread - points
    squared = _dot(toward, toward)
    if light.kind == "point":
        return toward, np.float32(light.power / (4 * math.pi)) / np.maximum(squared, np.float32(0.01))
    facing = np.maximum(-(toward @ direction.astype(np.float32)), 0) / np.sqrt(squared)
    return toward, np.float32(light.power / math.pi) * facing / np.maximum(squared, np.float32(0.01))


def _specular(unit: Floats, normals: Floats, view: Floats, rough: Floats, base: Floats) -> Floats:
    """Return the GGX reflection towards the camera. Source: Walter et al. 2007, with Schlick's Fresnel term."""
    half = unit - view
    half /= np.maximum(_length(half), 1e-9)[:, None]
    a2 = np.maximum(rough, 0.12) ** 4
    nh = np.clip(_dot(normals, half), 0, 1)
    nv = np.clip(-_dot(normals, view), 0.05, 1)
    nl = np.clip(_dot(normals, unit), 0.05, 1)
    spread = a2 / (math.pi * (nh * nh * (a2 - 1) + 1) ** 2)
    k = np.sqrt(a2) / 2
    masking = 1 / ((nl * (1 - k) + k) * (nv * (1 - k) + k))
    fresnel = base + (1 - base) * ((1 - np.clip(_dot(unit, half), 0, 1)) ** 5)[:, None]
    reflected: Floats = fresnel * (spread * masking / 4)[:, None]
    return reflected


def _bounce(
    world: World, points: Floats, normals: Floats, phase: Floats, first: NDArray[np.int64], rng: np.random.Generator
) -> Floats:
    """Return the mean light from a cosine-weighted half sphere: sky, or what one bounce brings."""
    total = np.zeros_like(points)
    strata = 4 * BOUNCE_SAMPLES
    for sample in range(BOUNCE_SAMPLES):
        stratum = 4 * sample + phase
        turn = np.float32(2 * math.pi / strata) * (stratum + rng.random(len(points), np.float32))
        # 7 times the number, modulo 16: a lattice that fills the square of both coordinates evenly
        height = np.float32(2 / strata) * (7 * stratum % strata + rng.random(len(points), np.float32)) - 1
        flat = np.sqrt(1 - height**2)
        ball = np.stack([flat * np.cos(turn), flat * np.sin(turn), height], axis=1)
        direction = normals + np.float32(0.999) * ball
        lamp = first + BOUNCE_SAMPLES * phase.astype(np.int64) + sample
        total += np.minimum(_arriving(world, points, direction, lamp, rng), 6.0)
    return total / BOUNCE_SAMPLES


def _arriving(
    world: World, points: Floats, direction: Floats, lamp: NDArray[np.int64], rng: np.random.Generator
) -> Floats:
    """Return the light that arrives along rays: the sky's, or what the surface hit sends on of a lamp and the rest."""
    found = world.tree.run(points, direction, output=1)
    light = np.zeros_like(points)
    hit = found["primID"] >= 0
    light[~hit] = radiance(world.sky, direction[~hit])
    if hit.any():
        face = found["primID"][hit]
        normal = world.normals[face]
        normal = np.where(_dot(normal, direction[hit])[:, None] > 0, -normal, normal)
        at = points[hit] + direction[hit] * found["tfar"][hit, None] + np.float32(1e-3) * normal
        diffuse = _one_lamp(world, at, normal, lamp[hit], rng)
        light[hit] = world.albedo[face] * (diffuse + _rest(world, normal, diffuse)) + world.emission[face, None]
    return light


def _behind(world: World, points: Floats, view: Floats, rng: np.random.Generator) -> Floats:
    """Return what is seen through glass, by the light of all lamps: no smoothing hides noise there."""
    count = max(1, len(world.recipe.lights))
    seen = [_arriving(world, points, view, np.full(len(points), lamp), rng) for lamp in range(count)]
    mean: Floats = np.mean(seen, axis=0)
    return mean


def _rest(world: World, normals: Floats, diffuse: Floats) -> Floats:
    """Stand in for all further bounces: in rooms the mean of the first, outdoors half of the open sky's light."""
    if world.recipe.kind in ("outdoor", "long range"):
        return 0.5 * irradiance(world.open_light, normals)
    open_air = 0.35 * irradiance(world.open_light, normals) if world.recipe.kind in ("table top", "clutter") else 0.0
    rest: Floats = 0.6 * diffuse.mean(axis=0) + open_air
    return rest


def _mirror(
    world: World,
    points: Floats,
    normals: Floats,
    view: Floats,
    rough: Floats,
    base: Floats,
    first: NDArray[np.int64],
    rng: np.random.Generator,
) -> Floats:
    """Return what shiny surfaces mirror; rough ones spread it."""
    shiny = rough < 0.62
    result = np.zeros_like(points)
    if not shiny.any():
        return result
    n, v = normals[shiny], view[shiny]
    cosine = np.clip(-_dot(n, v), 0, 1)
    grazing = np.maximum(1 - rough[shiny], base[shiny].max(axis=1))[:, None]
    fresnel = base[shiny] + (grazing - base[shiny]) * ((1 - cosine) ** 5)[:, None]
    total = np.zeros_like(n)
    for sample in range(MIRROR_SAMPLES):
        tilt = rng.standard_normal(n.shape, np.float32) * (0.5 * rough[shiny] ** 2)[:, None]
        facet = n + tilt
        facet /= _length(facet)[:, None]
        direction = v - 2 * _dot(v, facet)[:, None] * facet
        below = _dot(direction, n)[:, None]
        direction = np.where(below < 0.02, direction + (0.04 - below) * n, direction)
        total += np.minimum(_arriving(world, points[shiny], direction, first[shiny] + sample, rng), 6.0)
    fade = np.clip((0.62 - rough[shiny]) / 0.2, 0, 1)[:, None]
    result[shiny] = fresnel * fade * total / MIRROR_SAMPLES
    return result


def smooth_light(light: Floats, truth: Truth, rounds: int, sharp: int) -> Floats:
    """Blur (H, W, C) light over the same surface only: 3x3 taps, wider each round, weighted by normals and depth.

    The first `sharp` channels are blurred `rounds` times, the others twice as often.
    Source: the edge-avoiding a-trous filter of Dammertz et al. 2010.
    """
    height, width = truth.instance_ids.shape
    depth = np.where(np.isfinite(truth.depth_m), truth.depth_m, 0).astype(np.float32)
    normals = truth.normals.astype(np.float32)
    result = light.copy()
    for level in range(2 * rounds):
        if level == rounds:
            light = light[..., sharp:]
        step = 2**level
        total, weights = np.zeros_like(light), np.zeros((height, width), np.float32)
        for dy, dx in np.ndindex(3, 3):
            here, there = _overlap(height, (dy - 1) * step), _overlap(width, (dx - 1) * step)
            at, other = (here[0], there[0]), (here[1], there[1])
            likeness = np.maximum(np.einsum("ijk,ijk->ij", normals[other], normals[at]), 0)
            for _ in range(4):
                likeness *= likeness
            likeness *= np.abs(depth[other] - depth[at]) < 0.05 * depth[at]
            likeness *= truth.instance_ids[other] == truth.instance_ids[at]
            likeness *= np.float32((1, 2, 1)[dy] * (1, 2, 1)[dx])
            total[at] += likeness[..., None] * light[other]
            weights[at] += likeness
        light = total / np.maximum(weights, 1e-6)[..., None]
        result[..., result.shape[-1] - light.shape[-1] :] = light
    return result


def _overlap(size: int, shift: int) -> tuple[slice, slice]:
    """Return the part of an axis that has a neighbour `shift` further on, and those neighbours."""
    low, high = max(0, -shift), max(0, min(size, size - shift), -shift)
    return slice(low, high), slice(low + shift, high + shift)


def _dot(a: Floats, b: Floats) -> Floats:
    """Return (N,) inner products of (N, 3) vectors."""
    product: Floats = np.einsum("ij,ij->i", a, b)
    return product


def _length(a: Floats) -> Floats:
    return np.sqrt(_dot(a, a))


def paint_with(raster: Raster, cross_check: bool = False) -> Paint:
    """Return the engine that rasterises surface colours and traces their light.

    With `cross_check` the rasteriser's own depth and ids are compared with the ray cast's for every picture.
    """
    last: list[World] = []

    def paint(recipe: Recipe, scene: Sequence[Placed], truth: Truth) -> Picture:
        colors = raster.surface_colors(recipe, scene)
        world = build_world(recipe, scene, last[0] if last else None)
        last[:] = [world]
        scores: dict[str, float] = {}
        if cross_check:
            ids, depth_m = raster.segment(recipe, scene, 0.9 * float(truth.depth_m.min()))
            scores = compare_raster(depth_m, ids, truth)
        return Picture(light_picture(world, scene, truth, colors), scores)

    return paint
