"""A user's own folders of meshes (GLB, OBJ, PLY) and environment maps (HDR, EXR): found, named, sized, read.

Nothing in them is trusted: files are read within limits, in the worker's child process, one at a time before they are
used; what cannot be read costs itself only, and is named in the shard's row.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import yaml
from numpy.typing import NDArray
from pydantic import Field, PositiveFloat, ValidationError

from cavendish.encoders.draws import shuffled
from cavendish.encoders.sample import InputError, one_line
from cavendish.mixing.config import Config

MESHES = (".glb", ".gltf", ".obj", ".ply", ".stl", ".fbx", ".usd", ".usda", ".usdc", ".usdz")
MAPS, Z_UP_SUFFIXES = (".hdr", ".exr"), (".ply", ".stl")
UNREADABLE = (".dae", ".blend", ".3ds", ".abc", ".zip", ".gz", ".7z", ".3mf", ".off", ".step", ".stp", ".x3d", ".rar")
MAX_FILES = 200_000
MAX_FILE_BYTES = 128_000_000
UNITS = {"metres": 1.0, "centimetres": 0.01, "millimetres": 0.001}
LENGTH_SLACK = 3.0
"""How many times longer or shorter than its category's typical length a mesh may be. Units are ten times or more apart,
so at most one of them fits."""
SIDES_M = (0.005, 40.0)
"""The longest side of anything that is placed in a scene."""


class FileSettings(Config):
    """What assets.yaml may say of one file."""

    category: Annotated[str, Field(min_length=1, max_length=40)] | None = None
    licence: str | None = None
    author: str | None = None
    height_m: PositiveFloat | None = None
    scale: PositiveFloat | None = None
    up: Literal["y", "z"] | None = None
    strength: PositiveFloat = 1.0


class FolderSettings(Config):
    """assets.yaml: what holds for all files of a folder, and for single ones by their path in it."""

    licence: str = "unknown"
    author: str = "unknown"
    files: dict[str, FileSettings] = Field(default_factory=dict)


class AssetsConfig(Config):
    """A user's own folders, and how much of what is drawn comes from them where they have something that fits."""

    folders: Annotated[tuple[Path, ...], Field(min_length=1)]
    share: Annotated[float, Field(gt=0, le=1)] = 0.5
    per_shard: Annotated[int, Field(ge=1, le=500)] = 12


@dataclass(frozen=True)
class OwnFile:
    """One file of a user's folder. `name` is own/FOLDER/PATH; `category` the noun it is called by ("" for maps)."""

    name: str
    path: Path
    root: Path
    category: str
    licence: str
    author: str
    height_m: float | None
    scale: float | None
    up: str
    strength: float

    @property
    def is_map(self) -> bool:
        """Tell whether it is an environment map."""
        return self.path.suffix.lower() in MAPS


@cache
def categories() -> Mapping[str, tuple[str, float]]:
    """Return what is known of categories: noun -> (role in scenes, typical length of the longest side in metres)."""
    table = yaml.safe_load(Path(__file__).with_name("categories.yaml").read_text())
    return {noun: (role, float(length)) for role, nouns in table.items() for noun, length in nouns.items()}


@cache
def find_files(folders: tuple[Path, ...]) -> Mapping[str, OwnFile]:
    """List the meshes and maps of folders, by name, in the order of names.

    Raises:
        InputError: no such folder, two of the same name, a bad assets.yaml, or nothing usable in any of them.
    """
    names = [folder.name for folder in folders]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(f"assets.folders: two folders are called {twice[0]!r}: rename one")
    found = {file.name: file for folder in folders for file in _list_folder(folder)}
    if not found:
        raise InputError(f"assets.folders: no {', '.join((*MESHES, *MAPS))} file in {folders[0]}")
    return dict(sorted(found.items()))


_open: dict[str, OwnFile] = {}


def open_folders(folders: Sequence[Path]) -> None:
    """Make the files of these folders known by name in this process."""
    _open.clear()
    _open.update(find_files(tuple(folders)) if folders else {})


def own_file(name: str) -> OwnFile:
    """Return an opened file by name.

    Raises:
        InputError: there is none of that name.
    """
    if name not in _open:
        raise InputError(f"{name}: not in the folders of this job")
    return _open[name]


def _list_folder(folder: Path) -> list[OwnFile]:
    if not folder.is_dir():
        raise InputError(f"assets.folders: {folder}: no such folder")
    settings = _read_settings(folder)
    paths = []
    for path in folder.rglob("*"):
        if path.suffix.lower() in (*MESHES, *MAPS, *UNREADABLE) and not path.name.startswith("."):
            paths.append(path)
        if len(paths) > MAX_FILES:
            raise InputError(f"assets.folders: {folder}: more than {MAX_FILES} files")
    files = {path.relative_to(folder).as_posix(): path for path in paths}
    unknown = sorted(set(settings.files) - set(files))
    if unknown:
        raise InputError(f"{folder / 'assets.yaml'}: files: there is no {unknown[0]!r} beside it")
    return [_describe(folder, name, path, settings) for name, path in files.items()]


def _read_settings(folder: Path) -> FolderSettings:
    path = folder / "assets.yaml"
    if not path.exists():
        return FolderSettings()
    try:
        if path.stat().st_size > MAX_FILE_BYTES // 8:
            raise InputError(f"{path}: larger than {MAX_FILE_BYTES // 8} bytes")
        return FolderSettings.model_validate(yaml.safe_load(path.read_text()) or {})
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not valid YAML: {one_line(error, None)}") from None
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(str(part) for part in problem["loc"])
        raise InputError(f"{path}: {where}: {problem['msg'].lower()} (found {problem['input']!r})") from None


def _describe(folder: Path, name: str, path: Path, settings: FolderSettings) -> OwnFile:
    own = settings.files.get(name, FileSettings())
    is_map = path.suffix.lower() in MAPS
    return OwnFile(
        f"own/{folder.name}/{name}",
        path,
        folder,
        "" if is_map else own.category or _category_of(path.parent.name if path.parent != folder else path.stem),
        own.licence or settings.licence,
        own.author or settings.author,
        own.height_m,
        own.scale,
        own.up or "",
        own.strength,
    )


def _category_of(word: str) -> str:
    """Turn the name of a folder or file into a noun: "Coffee_Mugs" and "coffee-mug-02" are a coffee mug."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", word)
    noun = " ".join(re.sub(r"[^A-Za-z ]+", " ", spaced).lower().split())[:40] or "object"
    lowered = {known.lower(): known for known in categories()}
    for candidate in (noun, noun.removesuffix("s"), noun.removesuffix("es"), re.sub("ies$", "y", noun)):
        if candidate in lowered:
            return lowered[candidate]
    return noun


def fingerprint(folders: Sequence[Path]) -> str:
    """Return a sha256 over the contents of all files and what is said of them, wherever the folders lie."""
    hashed = hashlib.sha256()
    for file in find_files(tuple(folders)).values():
        said = (file.name, file.category, file.licence, file.author, file.height_m, file.scale, file.up, file.strength)
        hashed.update(repr(said).encode())
        for path in (file.path, *_beside(file)):
            with path.open("rb") as stream:
                hashed.update(hashlib.file_digest(stream, "sha256").digest())
    return hashed.hexdigest()


def _beside(file: OwnFile) -> list[Path]:
    """List what an OBJ file may refer to: the MTL files and images of its folder."""
    if file.path.suffix.lower() != ".obj":
        return []
    wanted = (".mtl", ".png", ".jpg", ".jpeg")
    return sorted(path for path in file.path.parent.rglob("*") if path.suffix.lower() in wanted and path.is_file())


def read_limited(path: Path, root: Path) -> bytes:
    """Read a file inside `root`.

    Raises:
        InputError: not there, outside of the folder, or over MAX_FILE_BYTES.
    """
    real = path.resolve()
    if not real.is_relative_to(root.resolve()):
        raise InputError(f"{path.name}: lies outside of its folder")
    try:
        with real.open("rb") as stream:
            data = stream.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise InputError(f"{path.name}: {error.strerror}") from None
    if len(data) > MAX_FILE_BYTES:
        raise InputError(f"{path.name}: over the limit of {MAX_FILE_BYTES} bytes")
    return data


def draw_files(files: Mapping[str, OwnFile], count: int, rng: np.random.Generator) -> list[str]:
    """Draw the names of up to `count` meshes and a third as many maps that one shard may use."""
    meshes = [name for name, file in files.items() if not file.is_map]
    maps = [name for name, file in files.items() if file.is_map]
    return sorted(
        name for names, most in ((meshes, count), (maps, -(-count // 3))) for name in shuffled(names, rng)[:most]
    )


def scale_of(file: OwnFile, extent: NDArray[np.float64], unit: str = "") -> tuple[float, str]:
    """Find the metres per unit of a mesh.

    Args:
        extent: (3,) width, depth and height in the file's units.
        unit: "meters" where the format says so.

    Returns:
        Metres per unit, and where that comes from.

    Raises:
        InputError: nothing says how large it is, or the result is no size for a scene.
    """
    longest = float(extent.max())
    if not np.isfinite(longest) or longest <= 0:
        raise InputError("it has no size")
    if file.scale is not None:
        scale, origin = file.scale, "scale in assets.yaml"
    elif file.height_m is not None:
        if extent[2] <= 1e-6 * longest:
            raise InputError("it is flat, so that height_m gives no scale: give scale instead")
        scale, origin = file.height_m / float(extent[2]), "height_m in assets.yaml"
    elif file.category in categories():
        typical = categories()[file.category][1]
        fits = [
            unit for unit, metres in UNITS.items()
            if typical / LENGTH_SLACK <= longest * metres <= typical * LENGTH_SLACK
        ]  # fmt: skip
        scale = UNITS[fits[0]] if fits else typical / longest
        origin = fits[0] if fits else f"typical length of a {file.category}"
    elif unit == "meters":
        scale, origin = 1.0, "metres"
    else:
        raise InputError(
            f"nothing says how large a {file.category!r} is: give height_m, scale or a known category in assets.yaml"
        )
    if not SIDES_M[0] <= longest * scale <= SIDES_M[1]:
        raise InputError(
            f"its longest side would be {longest * scale:.4g} m (by {origin}): give height_m or scale in assets.yaml"
        )
    return scale, origin


def role_of(category: str, size_m: Sequence[float]) -> str:
    """Return the role a mesh plays in scenes: its category's, or one by its size."""
    if category in categories():
        return categories()[category][0]
    width, depth, height = size_m
    if max(width, depth) <= 0.4 and height <= 0.5:
        return "table_item"
    return "floor_item" if max(size_m) <= 1.4 else "street_item"
