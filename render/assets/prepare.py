"""Prepares a foreign 3D file for its importer: format by content, limits, references, notations that importers miss.

Runs in the import child. Nothing in a file is trusted: what it refers to must lie in its folder, and what its importer
would not draw is refused by name or becomes a warning.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import struct
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cavendish.encoders.sample import InputError

MAX_FILE_BYTES = 256_000_000
MAX_FILES = 256
MAX_TRIANGLES = 1_000_000
Tree = dict[str, Any]

DRAWN = frozenset(
    {
        "KHR_texture_transform", "KHR_mesh_quantization", "KHR_draco_mesh_compression", "EXT_texture_webp",
        "EXT_mesh_gpu_instancing", "KHR_materials_emissive_strength", "KHR_materials_transmission",
        "KHR_materials_ior", "KHR_materials_clearcoat", "KHR_materials_unlit",
    }
)  # fmt: skip
"""glTF extensions that are imported and drawn."""
IMPORTED = DRAWN | {
    "KHR_materials_pbrSpecularGlossiness", "KHR_lights_punctual", "KHR_materials_variants", "KHR_materials_specular",
    "KHR_materials_sheen", "KHR_animation_pointer", "KHR_materials_volume", "KHR_materials_anisotropy",
}  # fmt: skip
"""Those that the importer knows; what of them is not drawn becomes a warning."""
SILENT = frozenset({"KHR_lights_punctual", "KHR_animation_pointer", "KHR_xmp_json_ld", "KHR_materials_variants"})
"""Those that change neither shape nor color of the default asset."""
COMPONENTS = {5120: "<i1", 5121: "<u1", 5122: "<i2", 5123: "<u2", 5125: "<u4", 5126: "<f4"}
WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT2": 4, "MAT3": 9, "MAT4": 16}
MESH_COMPRESSION = ("EXT_meshopt_compression", "KHR_meshopt_compression")
UNREAD = {
    b"BLENDER": "Blender files", b"Rar!": "rar archives", b"7z\xbc\xaf": "7z archives", b"\x1f\x8b": "gzip files",
    b"MDL": "MDL files", b"Ogawa": "Alembic files",
}  # fmt: skip


@dataclass
class Prepared:
    """A file ready for its importer.

    Args:
        path: what to import; it may be a copy in another folder. `format`: glb, obj, ply, stl, fbx or usd.
        files: what was read so far, path below the folder -> sha256.
        pbr: an OBJ whose MTL gives roughness and metal, not shininess.
    """

    path: Path
    format: str
    unit: str
    files: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    pbr: bool = False


class Folder:
    """The folder that a file may refer to; it notes what is read.

    Args:
        root: nothing outside of it is read.
    """

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        self.files: dict[str, str] = {}

    def find(self, base: Path, name: str) -> Path:
        """Return the path of a file that another one in folder `base` refers to.

        Raises:
            InputError: an invalid reference, outside of the folder, not there, or more than MAX_FILES of them.
        """
        if "\0" in name or len(name) > 400:
            raise InputError("invalid file reference")
        cleaned = name.replace("\\", "/")
        path = (base / cleaned).resolve()
        if not path.is_relative_to(self.root):
            raise InputError(f"{_short(name)}: lies outside of its folder")
        if not path.is_file():
            raise InputError(f"it refers to {_short(name)}, which is not there")
        if len(self.files) >= MAX_FILES:
            raise InputError(f"it refers to more than {MAX_FILES} files")
        return path

    def read(self, path: Path) -> bytes:
        """Read a file, and note its sha256.

        Raises:
            InputError: outside of the folder, unreadable, or over MAX_FILE_BYTES.
        """
        real = path.resolve()
        if not real.is_relative_to(self.root):
            raise InputError(f"{path.name}: lies outside of its folder")
        try:
            with real.open("rb") as stream:
                data = stream.read(MAX_FILE_BYTES + 1)
        except OSError as error:
            raise InputError(f"{path.name}: {error.strerror}") from None
        if len(data) > MAX_FILE_BYTES:
            raise InputError(f"{path.name}: over the limit of {MAX_FILE_BYTES} bytes")
        self.files[real.relative_to(self.root).as_posix()] = hashlib.sha256(data).hexdigest()
        return data


def _short(name: str) -> str:
    return name if len(name) < 80 else f"{name[:60]}..."


def detect_format(data: bytes, suffix: str) -> str:
    """Return glb, gltf, obj, ply, stl, fbx or usd, by content; the name decides between text formats without a mark.

    Raises:
        InputError: a format that is not read; it names the format.
    """
    head = data[:4096].lstrip(b"\xef\xbb\xbf \t\r\n")
    suffix = suffix.lower()
    if data[:4] == b"glTF":
        return "glb"
    if head[:3] == b"ply" and head[3:4] in (b"\r", b"\n", b" "):
        return "ply"
    if data[:8] == b"PXR-USDC" or head[:5] == b"#usda":
        return "usd"
    if data[:4] == b"PK\3\4":
        if re.search(rb"\.usd[ac]?", data[30:600], re.IGNORECASE):
            return "usd"
        raise InputError("zip archives are not read: unpack it")
    if data[:18] == b"Kaydara FBX Binary":
        return "fbx"
    if head[:5] == b"; FBX" or (suffix == ".fbx" and b"FBXHeaderExtension" in data[:4096]):
        raise InputError("FBX text files are not read: export it as binary FBX or GLB")
    for mark, words in UNREAD.items():
        if data.startswith(mark):
            raise InputError(f"{words} are not read: convert it to GLB")
    if head[:1] == b"{" and suffix in (".gltf", ".json", ".glb"):
        return "gltf"
    if suffix == ".stl" or (head[:5] == b"solid" and b"facet" in data[:4096]):
        return "stl"
    if suffix == ".obj":
        return "obj"
    if suffix in (".glb", ".gltf", ".ply", ".fbx", ".usd", ".usda", ".usdc", ".usdz"):
        raise InputError(f"its content is no {suffix[1:].upper()} file")
    raise InputError(f"{suffix or 'a file without an ending'} is not read: convert it to GLB")


def prepare(path: Path, root: Path, scratch: Path, allow_missing: bool = False) -> Prepared:
    """Check a file and what it refers to; where notations need it, write a copy into `scratch`.

    Raises:
        InputError: damaged, over a limit, of another format, or it needs what is not there or not drawn.
    """
    folder = Folder(root)
    data = folder.read(path)
    kind = detect_format(data, path.suffix)
    try:
        if kind in ("glb", "gltf"):
            prepared = _prepare_gltf(path, data, kind, folder, scratch)
        elif kind == "obj":
            prepared = _prepare_obj(path, data, folder, scratch, allow_missing)
        else:
            if kind == "ply":
                _check_ply(data)
            if kind == "stl":
                _check_stl(data)
            unit = "meters" if kind in ("fbx", "usd") else ""
            prepared = Prepared(_with_suffix(path, kind, scratch), kind, unit)
    except (LookupError, TypeError, AttributeError, ArithmeticError, RecursionError, struct.error) as error:
        what = f"{type(error).__name__} {error}" if isinstance(error, LookupError) else str(error)
        raise InputError(f"not a readable {kind.upper()} file: {what}") from None
    prepared.files = folder.files
    return prepared


def _with_suffix(path: Path, kind: str, scratch: Path) -> Path:
    """Return a path by whose ending the importer knows the format."""
    endings = (".usd", ".usda", ".usdc", ".usdz") if kind == "usd" else (f".{kind}",)
    if path.suffix.lower() in endings:
        return path.resolve()
    link = scratch / f"asset.{kind}"
    link.symlink_to(path.resolve())
    return link


def _check_ply(data: bytes) -> None:
    header, end, _ = data[:65536].partition(b"end_header")
    if not end:
        raise InputError("not a PLY file: no header")
    counts = {kind: int(count) for kind, count in re.findall(rb"element\s+(\w+)\s+(\d{1,18})\s", header)}
    if counts.get(b"face", 0) > MAX_TRIANGLES or counts.get(b"vertex", 0) > 3 * MAX_TRIANGLES:
        raise InputError(f"it announces {counts.get(b'face', 0)} faces: at most {MAX_TRIANGLES} are read")
    if counts.get(b"face", 0) == 0 and counts.get(b"tristrips", 0) == 0:
        raise InputError("it has points but no triangles")
    if b"TextureFile" in header:
        raise InputError("it names a texture file: convert it to GLB")
    if re.search(rb"element\s+face[^\n]*\n(?:(?!element).*\n)*property\s+\w+\s+(red|diffuse_red)\b", header):
        raise InputError("the colors of its faces are not read: give them to its vertices")
    _check_ply_vertices(data, header)


def _check_ply_vertices(data: bytes, header: bytes) -> None:
    """Check that vertices are finite: the importer would move those that are not to the origin."""
    words = header.partition(b"element vertex")[2].partition(b"element ")[0].split()
    body = data[len(header) + len(b"end_header") :]
    body = body[2:] if body[:2] == b"\r\n" else body[1:]
    if b"format ascii" in header:
        if re.search(rb"(?i)\b-?(nan|inf)", body):
            raise InputError("a vertex is not finite")
        return
    names = {b"char": "i1", b"uchar": "u1", b"short": "i2", b"ushort": "u2", b"int": "i4", b"uint": "u4"}
    names |= {b"int8": "i1", b"uint8": "u1", b"int16": "i2", b"uint16": "u2", b"int32": "i4", b"uint32": "u4"}
    names |= {b"float": "f4", b"double": "f8", b"float32": "f4", b"float64": "f8"}
    order = ">" if b"big_endian" in header else "<"
    at = [number for number, word in enumerate(words) if word == b"property"]
    if any(words[number + 1] not in names for number in at) or not words:
        return  # lists in vertices
    layout = np.dtype([(words[number + 2].decode("latin-1"), order + names[words[number + 1]]) for number in at])
    count = int(words[0])
    if len(body) < count * layout.itemsize:
        raise InputError(f"cut off: {len(body)} bytes for {count} vertices")
    vertices = np.frombuffer(body, layout, count)
    if not all(np.isfinite(vertices[axis]).all() for axis in "xyz" if axis in (layout.names or ())):
        raise InputError("a vertex is not finite")


def _check_stl(data: bytes) -> None:
    if data[:5] == b"solid" and b"facet" in data[:2000]:
        return
    if len(data) < 84:
        raise InputError("cut off: not a whole STL file")
    count = struct.unpack_from("<I", data, 80)[0]
    if count > MAX_TRIANGLES:
        raise InputError(f"it announces {count} faces: at most {MAX_TRIANGLES} are read")
    if len(data) < 84 + 50 * count:
        raise InputError(f"cut off: {len(data)} bytes for {count} triangles")


# ---- glTF -----------------------------------------------------------------------------------------------------------


def _prepare_gltf(path: Path, data: bytes, kind: str, folder: Folder, scratch: Path) -> Prepared:
    tree, binary = _split_glb(data) if kind == "glb" else (json.loads(data), b"")
    if not isinstance(tree, dict) or tree.get("asset", {}).get("version", "") != "2.0":
        raise InputError("not a glTF 2.0 file: its asset has no version 2.0")
    prepared = Prepared(path, "glb", "meters")
    _check_extensions(tree, prepared)
    _check_textures(tree)
    for item in (*tree.get("buffers", ()), *tree.get("images", ())):
        uri = item.get("uri")
        if uri is not None and not uri.startswith("data:"):
            target = folder.find(path.parent.resolve(), urllib.parse.unquote(uri))
            folder.read(target)
            item["uri"] = urllib.parse.quote(str(target))
    sizes = [len(binary)] if binary else []
    for number, buffer in enumerate(tree.get("buffers", ())):
        if "uri" not in buffer and number < len(sizes) and buffer["byteLength"] > sizes[number]:
            raise InputError(f"cut off: {sizes[number]} of {buffer['byteLength']} bytes")
    _check_accessors(tree, binary)
    tree.pop("animations", None)  # the asset as it stands, not the first frame of a movement
    if "scenes" in tree:
        tree.setdefault("scene", 0)
    prepared.path = scratch / f"asset.{kind}"
    prepared.path.write_bytes(_join_glb(tree, binary) if kind == "glb" else json.dumps(tree).encode())
    return prepared


def _split_glb(data: bytes) -> tuple[Tree, bytes]:
    _, version, length = struct.unpack_from("<4sII", data)
    if version != 2:
        raise InputError(f"GLB version {version}: only 2 is read")
    if length > len(data):
        raise InputError(f"cut off: {len(data)} of {length} bytes")
    size, kind = struct.unpack_from("<I4s", data, 12)
    if kind != b"JSON" or 20 + size > length:
        raise InputError("not a readable GLB: its first chunk is not JSON, or is cut off")
    try:
        tree = json.loads(data[20 : 20 + size])
    except ValueError as error:
        raise InputError(f"not a readable GLB: {error}") from None
    binary = b""
    if 28 + size <= length:
        binary_size, kind = struct.unpack_from("<I4s", data, 20 + size)
        if kind == b"BIN\0":
            binary = data[28 + size : 28 + size + binary_size]
    return tree, binary


def _join_glb(tree: Tree, binary: bytes) -> bytes:
    text = json.dumps(tree).encode()
    text += b" " * (-len(text) % 4)
    binary += b"\0" * (-len(binary) % 4)
    body = struct.pack("<I4s", len(text), b"JSON") + text
    if binary:
        body += struct.pack("<I4s", len(binary), b"BIN\0") + binary
    return struct.pack("<4sII", b"glTF", 2, 12 + len(body)) + body


def _check_extensions(tree: Tree, prepared: Prepared) -> None:
    required, used = set(tree.get("extensionsRequired", ())), set(tree.get("extensionsUsed", ()))
    used |= required
    compressed = [name for view in tree.get("bufferViews", ()) for name in view.get("extensions", {})]
    for name in MESH_COMPRESSION:
        if name in compressed or name in required:
            raise InputError(f"its mesh is compressed ({name}): export it without")
    unknown = sorted(required - IMPORTED - SILENT)
    if unknown:
        raise InputError(f"it needs the extension {unknown[0]}, which is not read: export it without")
    for name in sorted(used - DRAWN - SILENT):
        prepared.warnings.append(f"{name} is not drawn" if name not in IMPORTED else f"{name} is drawn in part")
    if required - used:
        tree["extensionsUsed"] = sorted(used)


def _check_accessors(tree: Tree, binary: bytes) -> None:
    """Check that arrays lie in their buffers and that floats are finite: the importer would make zeros of the rest."""
    triangles = 0
    accessors, views = tree.get("accessors", []), tree.get("bufferViews", [])
    for accessor in accessors:
        if not 0 < accessor.get("count", 0) <= 3 * MAX_TRIANGLES:
            raise InputError(f"an accessor of {accessor.get('count')} values: at most {3 * MAX_TRIANGLES} are read")
        if "bufferView" not in accessor:
            continue
        view, kind = views[accessor["bufferView"]], np.dtype(COMPONENTS[accessor["componentType"]])
        columns, rows, start = WIDTHS[accessor["type"]], accessor["count"], accessor.get("byteOffset", 0)
        step = view.get("byteStride", columns * kind.itemsize)
        end = start + (rows - 1) * step + columns * kind.itemsize
        if start < 0 or step < columns * kind.itemsize or end > view["byteLength"]:
            raise InputError(f"cut off: an accessor of {rows} values ends beyond its {view['byteLength']} bytes")
        if binary and view.get("buffer", 0) == 0 and "uri" not in tree["buffers"][0]:
            start += view.get("byteOffset", 0)
            if view.get("byteOffset", 0) < 0 or view.get("byteOffset", 0) + view["byteLength"] > len(binary):
                raise InputError(f"cut off: a view ends beyond the {len(binary)} bytes there are")
            values: NDArray[Any] = np.ndarray((rows, columns), kind, binary, start, (step, kind.itemsize))
            if kind.kind == "f" and not np.isfinite(values).all():
                raise InputError("a vertex, or another number, is not finite")
    for mesh in tree.get("meshes", ()):
        for primitive in mesh["primitives"]:
            number = primitive.get("indices", primitive["attributes"].get("POSITION"))
            if number is not None:
                triangles += accessors[number]["count"] // 3
    if triangles > MAX_TRIANGLES:
        raise InputError(f"{triangles} triangles: at most {MAX_TRIANGLES} are read")


def _check_textures(tree: Tree) -> None:
    """Refuse textures whose image the importer cannot find."""
    for number, texture in enumerate(tree.get("textures", ())):
        extensions = texture.get("extensions", {})
        if "source" not in texture and "EXT_texture_webp" not in extensions:
            why = f"by {sorted(extensions)[0]} only, which is not read" if extensions else "nowhere"
            raise InputError(f"texture {number} has its image {why}: export it with PNG or JPEG")


# ---- OBJ and MTL ----------------------------------------------------------------------------------------------------

_KEYWORDS = {
    word.lower(): word
    for word in (
        "newmtl", "Kd", "Ks", "Ke", "Ka", "Ns", "Ni", "d", "Tr", "Tf", "illum", "Pr", "Pm", "Ps", "Pc", "Pcr", "aniso",
        "anisor", "map_Kd", "map_Ks", "map_Ke", "map_Ns", "map_d", "map_Pr", "map_Pm", "map_Ps", "map_refl", "refl",
        "map_Bump", "bump", "norm", "map_Ka",
    )
}  # fmt: skip
_OPTION_ARGUMENTS = {"o": 3, "s": 3, "t": 3, "mm": 2}
"""Numbers that follow an option of a texture; of the three, trailing ones may be left out. Others have one argument."""
_ODD_VERTEX = re.compile(rb"^[ \t]*v[ \t][^\n#]*?(?:[a-df-zA-DF-Z_]|[eE]\+?(?:39|[4-9]\d|\d{3}))[^\n]*", re.MULTILINE)
"""A line of a vertex with a letter that is in no number, or beyond single precision: the importer would read 0."""
_PBR = ("Pr", "Pm", "map_Pr", "map_Pm")


def _prepare_obj(path: Path, data: bytes, folder: Folder, scratch: Path, allow_missing: bool) -> Prepared:
    """Gather the materials of all `mtllib` lines into one file, in the notation that the importer knows."""
    prepared = Prepared(path.resolve(), "obj", "")
    if data.count(b"\nf") > 3 * MAX_TRIANGLES:
        raise InputError(f"more than {MAX_TRIANGLES} triangles")
    unfolded = re.sub(rb"\\\r?\n", b" ", data.removeprefix(b"\xef\xbb\xbf"))
    odd = _ODD_VERTEX.search(unfolded)
    if odd is not None:
        raise InputError(f"a vertex has a number that is none, or not finite: {_text(odd[0]).strip()[:60]!r}")
    lines = re.findall(rb"^[ \t]*mtllib[ \t]+([^\r\n]*)", unfolded, re.MULTILINE)
    libraries = [name for line in lines for name in _library_names(path, _text(line).strip())]
    text: list[str] = []
    for name in dict.fromkeys(libraries):
        try:
            library = folder.find(path.parent.resolve(), name)
        except InputError:
            if allow_missing:
                continue
            raise
        text.extend(_rewrite_mtl(_text(folder.read(library)), library.parent, scratch, folder, prepared, allow_missing))
    plain = re.sub(rb"^[ \t]*mtllib\b[^\r\n]*", b"", unfolded, flags=re.MULTILINE)
    (scratch / "asset.mtl").write_text("\n".join(text), encoding="utf-8", errors="surrogateescape")
    prepared.path = scratch / "asset.obj"
    prepared.path.write_bytes(b"mtllib asset.mtl\n" + plain)
    return prepared


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape").removeprefix("\ufeff")


def _library_names(path: Path, line: str) -> list[str]:
    """Return the files that an `mtllib` line names: one with spaces in its name, or several."""
    line = line.strip('"')
    if (path.parent / line.replace("\\", "/")).is_file() or " " not in line:
        return [line]
    return line.split()


def _rewrite_mtl(
    text: str, base: Path, scratch: Path, folder: Folder, prepared: Prepared, allow_missing: bool
) -> Iterator[str]:
    """Yield the lines of an MTL file with keywords as the importer spells them, and textures by their whole path."""
    for line in re.sub(r"\\\r?\n", " ", text).splitlines():
        word, _, rest = line.strip().partition(" ")
        keyword = _KEYWORDS.get(word.strip().lower(), word)
        rest = rest.strip()
        prepared.pbr |= keyword in _PBR
        if not (keyword.startswith("map_") or keyword in ("bump", "norm", "refl")):
            yield f"{keyword} {rest}"
            continue
        options, name = _split_options(rest)
        try:
            texture = folder.find(base, name)
        except InputError:
            if not allow_missing:
                raise
            continue
        if keyword in ("map_Kd", "map_d") and folder.read(texture)[:4] == b"\xabKTX":
            raise InputError(f"{_short(name)}: KTX textures are not read: use PNG or JPEG")
        folder.read(texture)
        yield f"{keyword} {options}{os.path.relpath(texture, scratch)}"  # an absolute path is tried as relative first


def _split_options(rest: str) -> tuple[str, str]:
    """Split "-s 2 2 1 red.png" into its options and the name of the texture."""
    words = rest.split()
    at = 0
    while at < len(words) - 1 and re.fullmatch(r"-[a-zA-Z]+", words[at]):
        count = _OPTION_ARGUMENTS.get(words[at][1:].lower(), 1)
        taken = 1
        while taken <= count and at + taken < len(words) - 1:
            if count > 1 and not re.fullmatch(r"[-+.\deE]+", words[at + taken]):
                break
            taken += 1
        at += taken
    options = "".join(f"{word} " for word in words[:at])
    name = rest
    for word in words[:at]:
        name = name.lstrip()[len(word) :]
    return options, name.strip().strip('"')
