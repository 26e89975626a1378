"""A reader under test: a good folder for it, which file of it is broken, how it is read; and what they share."""

from __future__ import annotations

import hashlib
import io
import json
import struct
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import yaml
from numpy.typing import NDArray
from PIL import Image

from cavendish.mixing.storage.files import digest
from tests.fuzz.mutations import Break, break_bytes, break_json, break_values, to_json


@dataclass(frozen=True)
class Reader:
    """A reader under test.

    Args:
        name: in reports.
        write: makes a good folder.
        broken: patterns of the files of which one is broken in each case.
        read: reads the folder as far as a user's job would.
        break_: how; None: by the file's ending.
    """

    name: str
    write: Callable[[Path], object]
    broken: tuple[str, ...]
    read: Callable[[Path], object]
    break_: Break | None = None

    def break_one(self, data: bytes, name: str, rng: np.random.Generator) -> bytes:
        """Return the bytes of a file, broken."""
        how = self.break_ or {".json": break_json, ".yaml": break_yaml, ".glb": break_glb}.get(Path(name).suffix)
        return (how or break_bytes)(data, rng)


def break_yaml(data: bytes, rng: np.random.Generator) -> bytes:
    """Break YAML: its values, or its bytes."""
    if rng.random() < 0.3:
        return break_bytes(data, rng)
    return yaml.safe_dump(_speakable(break_values(yaml.safe_load(data), rng))).encode("utf-8", "replace")


def _speakable(value: Any) -> Any:
    """Replace what YAML has no word for."""
    if isinstance(value, dict):
        return {key: _speakable(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_speakable(inner) for inner in value]
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else value


def break_glb(data: bytes, rng: np.random.Generator) -> bytes:
    """Break a GLB: the values of its json chunk, mostly, with lengths that fit."""
    if rng.random() < 0.3:
        return break_bytes(data, rng)
    length = struct.unpack("<I", data[12:16])[0]
    text = to_json(break_values(json.loads(data[20 : 20 + length]), rng))
    return pack_glb(text, data[20 + length :])


def break_signed(data: bytes, rng: np.random.Generator) -> bytes:
    """Break json that holds its own digest, with one that fits; the schema is left out of some digests, so either."""
    if not data.startswith(b"{") or rng.random() < 0.2:
        return break_bytes(data, rng)
    values = json.loads(data)
    schema = values.pop("schema", None)
    values.pop("digest", None)
    values = break_values(values, rng)
    try:
        signed = {**values, "schema": schema} if rng.random() < 0.5 else values
        return to_json({**values, "schema": schema, "digest": digest(signed)})
    except (ValueError, TypeError):
        return to_json(values)


def pack_glb(text: bytes, rest: bytes) -> bytes:
    """Join the json of a GLB with the chunks after it."""
    text += b" " * (-len(text) % 4)
    body = struct.pack("<I4s", len(text), b"JSON") + text + rest
    return struct.pack("<4sII", b"glTF", 2, 12 + len(body)) + body


def picture(seed: int = 0, side: int = 72, kind: str = ".png") -> bytes:
    """Encode a small smooth picture."""
    coarse = np.random.default_rng(seed).integers(0, 255, (6, 6, 3), dtype=np.uint8)
    file = io.BytesIO()
    pixels = cv2.resize(coarse, (side, side), interpolation=cv2.INTER_CUBIC)
    Image.fromarray(pixels).save(file, {".png": "PNG", ".jpg": "JPEG"}.get(kind, kind[1:].upper()))
    return file.getvalue()


def png(pixels: NDArray[np.integer[Any]]) -> bytes:
    """Encode pixels as they are, 8 or 16 bits, one channel or BGR."""
    return cv2.imencode(".png", pixels)[1].tobytes()


def tar_of(members: dict[str, bytes], form: int = tarfile.USTAR_FORMAT) -> bytes:
    """Pack a tar."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=form) as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return file.getvalue()


def put(folder: Path, name: str, data: bytes | str) -> None:
    """Write one file of a folder."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.encode() if isinstance(data, str) else data)


def fit_hashes(header: Path, *place: str, **files: Path) -> None:
    """Write the sha256 of files into a json header, at the keys `place` leads to, as an attacker would."""
    try:
        values: Any = json.loads(header.read_bytes())
        inner = values
        for key in place:
            inner = inner[key]
        inner.update({key: hashlib.sha256(path.read_bytes()).hexdigest() for key, path in files.items()})
        header.write_text(json.dumps(values))
    except (ValueError, LookupError, AttributeError, TypeError, RecursionError):
        pass  # what is broken is the header


@contextmanager
def unchanged(*paths: Path) -> Iterator[None]:
    """Put files back as they were."""
    good = {path: path.read_bytes() for path in paths}
    try:
        yield
    finally:
        for path, data in good.items():
            path.write_bytes(data)
