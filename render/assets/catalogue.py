"""Finds meshes and environment maps, with their sizes, licences, authors and hashes.

Meshes: Debian's sweethome3d-furniture, .sh3f files (zips of OBJ, MTL, textures and a catalogue with sizes in cm).
Environment maps: CC0 .exr files that ship in the bpy wheel. Both are read in place; nothing is extracted.
Names that begin with own/ are files of the user's folders (folders.py).
"""

from __future__ import annotations

import atexit
import hashlib
import importlib.util
import os
import posixpath
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path

import numpy as np
import yaml
from numpy.typing import NDArray

from cavendish.encoders.sample import InputError
from cavendish.mixing.extras import require_extra
from cavendish.render.assets.asset import Asset
from cavendish.render.assets.environments import load_environment
from cavendish.render.assets.folders import MAPS as MAPS_SUFFIXES
from cavendish.render.assets.folders import Z_UP_SUFFIXES, OwnFile, own_file, scale_of
from cavendish.render.assets.importing import AssetImporter
from cavendish.render.scenes.recipe import Recipe

OWN = "own/"
FURNITURE = Path("/usr/share/sweethome3d/furniture")  # where the Debian package puts it; the layout is its own
MAX_MEMBER_BYTES = 32_000_000
LICENCES = {
    "BlendSwap-CC-0": "CC0-1.0",
    "BlendSwap-CC-BY": "CC-BY-3.0",
    "KatorLegaz": "CC-BY-3.0-US",
    "Reallusion": "CC-BY-3.0-US",
    "Scopia": "CC-BY-3.0",
}
MAPS = ("city", "courtyard", "forest", "interior", "night", "studio", "sunrise", "sunset")


@dataclass(frozen=True)
class ModelInfo:
    """A catalogue entry. `size_m` is (width, depth, height); `front` of a model looks along its own -y, up is +z."""

    name: str
    noun: str
    size_m: tuple[float, float, float]
    licence: str
    author: str
    member: str
    member_bytes: int
    scale_from: str = "catalogue"
    warnings: tuple[str, ...] = ()
    rotation: tuple[float, ...] = ()


@dataclass(frozen=True, eq=False)
class Model:
    """An imported model, and what is known of it.

    Args:
        turn: (3, 3) from the asset's axes to those of things: +z up, front along -y.
    """

    info: ModelInfo
    asset: Asset
    turn: NDArray[np.float64]
    sha256: str


@cache
def roles() -> Mapping[str, Mapping[str, str]]:
    """Return the curated models: role -> {model name: noun}."""
    models: Mapping[str, Mapping[str, str]] = yaml.safe_load(Path(__file__).with_name("models.yaml").read_text())
    return models


@cache
def catalogue() -> Mapping[str, ModelInfo]:
    """Read the catalogues of the furniture package for all curated models: name -> ModelInfo.

    Raises:
        InputError: the package is not installed, or one of its files is damaged.
    """
    nouns = {name: noun for models in roles().values() for name, noun in models.items()}
    found = {name: info for pack in LICENCES for name, info in _read_catalogue(pack, nouns).items()}
    missing = sorted(set(nouns) - set(found))
    if missing:
        raise InputError(
            f"{FURNITURE}: no model {missing[0]} (and {len(missing) - 1} more); install version 1.8 or later"
        )
    return found


def _read_catalogue(pack: str, nouns: Mapping[str, str]) -> dict[str, ModelInfo]:
    text = _read_member(pack, "PluginFurnitureCatalog.properties").decode("latin-1")
    entries: dict[str, dict[str, str]] = {}
    for field, number, value in re.findall(r"^(\w+)#(\d+)\s*=[ \t]*(.*?)\s*$", text, re.MULTILINE):
        entries.setdefault(number, {})[field] = re.sub(
            r"\\u([0-9a-fA-F]{4})", lambda match: chr(int(match[1], 16)), value
        )
    found = {}
    for entry in entries.values():
        name = f"{pack}/{posixpath.splitext(posixpath.basename(entry['model']))[0]}"
        if name in nouns and name not in found:
            width, depth, height = (float(entry[side]) / 100 for side in ("width", "depth", "height"))
            turn = tuple(float(word) for word in entry.get("modelRotation", "1 0 0 0 1 0 0 0 1").split())
            found[name] = ModelInfo(
                name,
                nouns[name],
                (width, depth, height),
                LICENCES[pack],
                entry["creator"],
                entry["model"][1:],
                _archive(pack).getinfo(entry["model"][1:]).file_size,
                rotation=turn,
            )
    return found


@cache
def _archive(pack: str) -> zipfile.ZipFile:
    path = FURNITURE / f"{pack}.sh3f"
    try:
        return zipfile.ZipFile(path)
    except FileNotFoundError:
        raise InputError(
            f"{path}: not there; install the furniture models: apt-get install sweethome3d-furniture"
        ) from None
    except zipfile.BadZipFile as error:
        raise InputError(f"{path}: damaged: {error}") from None


def _read_member(pack: str, member: str) -> bytes:
    try:
        size = _archive(pack).getinfo(member).file_size
    except KeyError:
        raise InputError(f"{FURNITURE / pack}.sh3f: holds no {member}") from None
    if size > MAX_MEMBER_BYTES:
        raise InputError(f"{FURNITURE / pack}.sh3f: {member} is over the limit of {MAX_MEMBER_BYTES} bytes")
    with _archive(pack).open(member) as file:
        return file.read(MAX_MEMBER_BYTES)


_hashes: dict[str, str] = {}
"""sha256 of every model read so far: the models themselves are not kept for it."""
Z_UP = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, -1.0], [0.0, 1.0, 0.0]])
"""Turns a space with +y up and its front along +z, as formats have it, to +z up and its front along -y."""


@cache
def importer() -> AssetImporter:
    """Return the importer of this process."""
    made = AssetImporter()
    atexit.register(made.close)
    return made


def model_info(name: str) -> ModelInfo:
    """Return what is known of a model: a curated one's catalogue entry, or that of a user's own mesh."""
    return _own_info(name) if name.startswith(OWN) else catalogue()[name]


@cache
def _own_info(name: str) -> ModelInfo:
    return load_model(name).info


@lru_cache(maxsize=4)
def load_model(name: str) -> Model:
    """Load one model.

    Raises:
        InputError: no such model, or its files cannot be imported.
    """
    model = _load_own(own_file(name)) if name.startswith(OWN) else _load_curated(name)
    _hashes[name] = model.sha256
    return model


def _load_own(file: OwnFile) -> Model:
    if file.path.suffix.lower() in MAPS_SUFFIXES:
        raise InputError("an environment map is no model")
    entry = importer().import_file(file.path, file.root)
    asset = entry.load()
    turn = _own_turn(file)
    used = asset.positions[np.unique(asset.faces)].astype(np.float64) @ turn.T
    extent = np.ptp(used, axis=0)
    scale, origin = scale_of(file, extent, asset.unit)
    width, depth, height = (max(round(float(side) * scale, 6), 1e-4) for side in extent)
    size = width, depth, height
    info = ModelInfo(
        file.name, file.category, size, file.licence, file.author, file.path.name, 0, origin, asset.warnings
    )
    return Model(info, asset, turn, entry.sha256)


def _own_turn(file: OwnFile) -> NDArray[np.float64]:
    """Return how an asset is turned where the user says which axis is up."""
    imported_as = "z" if file.path.suffix.lower() in Z_UP_SUFFIXES else "y"
    if file.up in ("", imported_as):
        return np.eye(3)
    return Z_UP if imported_as == "z" else Z_UP.T


def _load_curated(name: str) -> Model:
    info = catalogue()[name]
    pack = name.partition("/")[0]
    folder = posixpath.dirname(info.member)
    members = [member for member in _archive(pack).infolist() if posixpath.dirname(member.filename) == folder]
    key = f"{pack} {info.member} {sorted((member.filename, member.CRC, member.file_size) for member in members)}"

    def unpack(target: Path) -> Path:
        for member in members:
            if not member.is_dir():
                (target / posixpath.basename(member.filename)).write_bytes(_read_member(pack, member.filename))
        return target / posixpath.basename(info.member)

    entry = importer().import_package_file(key, unpack)
    return Model(info, entry.load(), Z_UP @ np.array(info.rotation).reshape(3, 3) @ Z_UP.T, entry.sha256)


def map_path(name: str) -> Path:
    """Find an environment map of the bpy wheel without importing bpy.

    Raises:
        InputError: bpy is not installed, or has no such map.
    """
    require_extra("render", "bpy")
    spec = importlib.util.find_spec("bpy")
    assert spec is not None
    for folder in spec.submodule_search_locations or ():
        for path in sorted(Path(folder).glob(f"*/datafiles/studiolights/world/{name}.exr")):
            return path
    raise InputError(f"environment map {name}: the installed package bpy has none of this name; install bpy 4.5")


@lru_cache(maxsize=4)
def load_map(name: str) -> NDArray[np.float32]:
    """Read an environment map: (512, 1024, 3) float32 linear radiance, equirectangular, top row is up."""
    if name.startswith(OWN):
        return load_environment(own_file(name))[0]
    os.environ["OPENCV_IO_ENABLE_OPENEXR"] = "1"  # OpenCV asks for this consent; the file comes from an installed wheel
    import cv2

    pixels = cv2.imread(str(map_path(name)), cv2.IMREAD_UNCHANGED)
    if pixels is None:
        raise InputError(f"{map_path(name)}: not readable as an EXR image")
    return np.ascontiguousarray(pixels[..., 2::-1], np.float32)


@cache
def map_sha256(name: str) -> str:
    """Return the sha256 of an environment map's file."""
    if name.startswith(OWN):
        return load_environment(own_file(name))[1]
    return hashlib.sha256(map_path(name).read_bytes()).hexdigest()


def licences_of(recipe: Recipe, further: str = "") -> tuple[str, list[dict[str, str]]]:
    """Return the licence a picture of this scene may be used under, and its models and maps with author and sha256.

    CC-BY models make the picture CC-BY; without any it is CC0-1.0. Other licences of a user's own files are all named,
    joined by AND. `further` is a model that an edit brought in ("": none).
    """
    names = sorted({*(thing.model for thing in recipe.things), further} - {""})
    credits = [_model_credit(name) for name in names]
    if recipe.sky.kind == "map":
        credits.append(_map_credit(recipe.sky.name))
    found = {credit["licence"] for credit in credits}
    licences = {"CC-BY-3.0" if licence == "CC-BY-3.0-US" else licence for licence in found - {"CC0-1.0"}}
    return (" AND ".join(sorted(licences)) or "CC0-1.0"), credits


def _model_credit(name: str) -> dict[str, str]:
    info = model_info(name)
    credit = {"name": name, "author": info.author, "licence": info.licence}
    credit["sha256"] = _hashes.get(name) or load_model(name).sha256
    if name.startswith(OWN):
        credit["scale_from"] = info.scale_from
        if info.warnings:
            credit["warnings"] = "; ".join(info.warnings)
    return credit


def _map_credit(name: str) -> dict[str, str]:
    if name.startswith(OWN):
        file = own_file(name)
        return {"name": name, "author": file.author, "licence": file.licence, "sha256": map_sha256(name)}
    return {
        "name": f"studiolights/world/{name}.exr",
        "author": "Greg Zaal (Poly Haven)",
        "licence": "CC0-1.0",
        "sha256": map_sha256(name),
    }
