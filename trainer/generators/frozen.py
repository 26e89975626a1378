"""What a generator computes with parts that training never changes: one row of it as arrays, and rows as a batch again.

Shape suffixes: B batch, L tokens.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cavendish.mixing.storage.files import digest
from cavendish.mixing.storage.place import file_sha256, files_below

_WHOLE_BYTES = 2**22  # files up to this are hashed whole, of larger ones samples
_SAMPLES, _SAMPLE_BYTES = 64, 2**16
_HALF = "_bf16"  # npy has no bfloat16: its bits are stored as integers


@dataclass(frozen=True)
class Frozen:
    """The frozen parts of a model in diffusers' layout, whose results may be kept on disk.

    Args:
        model: folder of the model.
        text_parts, image_parts: the folders in it that `Generator.encode_text` and `encode_image` use.
        condition: what `encode_text` returns: a tensor, or a dataclass of tensors, batch first.
        sees_picture: whether `encode_text` looks at the source picture too.
    """

    model: Path
    text_parts: tuple[str, ...]
    image_parts: tuple[str, ...]
    condition: type = Tensor
    sees_picture: bool = False

    def digest(self, parts: Sequence[str], name: str, precision: str) -> str:
        """Name all that decides what these parts compute: adapter, precision, settings and weights.

        Files over 4 MiB are named by their size and 64 samples of 64 KiB, evenly spaced: another training changes all.
        """
        names = sorted(f"{part}/{name}" for part in parts for name in files_below(self.model / part))
        found = {name: _fingerprint(self.model / name) for name in names}
        return digest({"generator": name, "precision": precision, "files": found})


def _fingerprint(path: Path) -> str:
    size = path.stat().st_size
    if size <= _WHOLE_BYTES:
        return file_sha256(path)
    found = hashlib.sha256(str(size).encode())
    with path.open("rb") as file:
        for number in range(_SAMPLES):
            file.seek(number * (size - _SAMPLE_BYTES) // (_SAMPLES - 1))
            found.update(file.read(_SAMPLE_BYTES))
    return found.hexdigest()


@dataclass(frozen=True)
class CachedEncoding:
    """Precomputed encodings of one example, without a batch axis; None where there is none.

    Arrays and not tensors: each tensor that a worker process hands over costs most of a millisecond.

    Args:
        condition: arrays by name, see `from_arrays`.
        source, target: latents (C, H, W).
    """

    condition: Mapping[str, NDArray[Any]] | None = None
    source: NDArray[np.float32] | None = None
    target: NDArray[np.float32] | None = None


def stack_rows(rows: Sequence[Any]) -> Any:
    """Put the conditions of single prompts together to that of a batch; shorter rows get zeros after their tokens."""
    if isinstance(rows[0], Tensor):
        longest = max(row.shape[1] for row in rows)
        return torch.cat([_padded(row, longest) for row in rows])
    return type(rows[0])(
        **{field.name: stack_rows([getattr(row, field.name) for row in rows]) for field in fields(rows[0])}
    )


def select_rows(condition: Any, rows: Tensor) -> Any:
    """Return the condition of some rows of a batch."""
    if isinstance(condition, Tensor):
        return condition[rows]
    taken = {field.name: select_rows(getattr(condition, field.name), rows) for field in fields(condition)}
    return type(condition)(**taken)


def _padded(row_BL: Tensor, length: int) -> Tensor:
    """Return the row with zeros up to `length` tokens."""
    missing = length - row_BL.shape[1]
    if not missing:
        return row_BL
    return torch.cat([row_BL, row_BL.new_zeros(len(row_BL), missing, *row_BL.shape[2:])], dim=1)


def to_arrays(condition: Any) -> dict[str, NDArray[Any]]:
    """Return the condition of one prompt as arrays by name, without the batch axis."""
    if not is_dataclass(condition):
        return _array("tokens", condition)
    arrays: dict[str, NDArray[Any]] = {}
    for field in fields(condition):
        arrays |= _array(field.name, getattr(condition, field.name))
    return arrays


def _array(name: str, tensor: Tensor) -> dict[str, NDArray[Any]]:
    row = tensor[0].detach().cpu()
    if row.dtype == torch.bfloat16:
        return {name + _HALF: row.view(torch.int16).numpy()}
    return {name: row.numpy()}


def from_arrays(arrays: Mapping[str, NDArray[Any]], kind: type) -> Any:
    """Return the condition of one prompt, with the batch axis, from `to_arrays`."""
    tensors = {name.removesuffix(_HALF): _tensor(name, array)[None] for name, array in arrays.items()}
    return tensors["tokens"] if kind is Tensor else kind(**tensors)


def _tensor(name: str, array: NDArray[Any]) -> Tensor:
    tensor = torch.from_numpy(np.array(array))  # a copy: what was read may not be writable
    return tensor.view(torch.bfloat16) if name.endswith(_HALF) else tensor
