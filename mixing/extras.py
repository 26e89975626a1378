"""Packages that only an extra of cavendish installs: which one, and what is said when one is missing."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from importlib.util import find_spec

from cavendish.encoders.sample import InputError

EXTRAS: Mapping[str, tuple[str, ...]] = {
    "render": ("bpy", "embreex", "pyrender"),
    "annotate": ("onnx", "onnxruntime", "protego"),
    "train": ("torch", "pycocotools", "trimesh"),
    "generators": ("torch", "diffusers", "peft", "transformers"),
    "evaluate": ("h5py", "OpenEXR", "pycocotools"),
    "remote": ("aiohttp", "s3fs"),
    "dask": ("dask", "distributed"),
    "demo": ("matplotlib", "skimage", "sklearn"),
}
"""The modules that each extra of pyproject.toml brings."""


def require_extra(extra: str, *modules: str) -> None:
    """Check that an extra is installed, without importing anything of it.

    Args:
        extra: a name of `EXTRAS`.
        modules: those of the extra that are needed; none: all.

    Raises:
        InputError: a module is not installed; names it and the extra.
    """
    missing = [name for name in modules or EXTRAS[extra] if not _is_installed(name)]
    if missing:
        raise InputError(_message(missing, extra))


def missing_extra(error: ImportError) -> InputError | None:
    """Return what to say of an import that failed because an extra is not installed; None when that is not why."""
    module = (error.name or "").partition(".")[0]
    extra = next((extra for extra, modules in EXTRAS.items() if module in modules), None)
    return None if extra is None else InputError(_message([module], extra))


def _is_installed(name: str) -> bool:
    if name in sys.modules:
        return sys.modules[name] is not None
    return find_spec(name) is not None


def _message(modules: list[str], extra: str) -> str:
    are = f"packages {', '.join(modules)} are" if len(modules) > 1 else f"package {modules[0]} is"
    return f"the {are} not installed: pip install 'cavendish[{extra}]'"
