"""Readers of public benchmarks, as downloaded. Evaluation only: none of this may enter training."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType

from cavendish.encoders.sample import InputError
from cavendish.trainer.evaluation.benchmarks.cityscapes import read_cityscapes
from cavendish.trainer.evaluation.benchmarks.driving_depth import read_kitti, read_scannet_depth, read_vkitti2_depth
from cavendish.trainer.evaluation.benchmarks.generation import read_genai_bench, read_imgedit
from cavendish.trainer.evaluation.benchmarks.indoor_depth import read_diode, read_eth3d, read_ibims, read_nyuv2
from cavendish.trainer.evaluation.benchmarks.normals import read_diode_normals, read_dsine
from cavendish.trainer.evaluation.benchmarks.nuscenes import read_nuscenes
from cavendish.trainer.evaluation.benchmarks.referring import read_reasonseg, read_refcocog
from cavendish.trainer.evaluation.benchmarks.saco import read_saco_gold
from cavendish.trainer.evaluation.items import Benchmark

READERS: Mapping[str, Callable[[Path], Benchmark]] = MappingProxyType(
    {
        "cityscapes": read_cityscapes,
        "refcocog": read_refcocog,
        "reasonseg": read_reasonseg,
        "saco-gold": read_saco_gold,
        "nyuv2": read_nyuv2,
        "ibims": read_ibims,
        "eth3d": read_eth3d,
        "diode-indoor": read_diode,
        "kitti": read_kitti,
        "nuscenes": read_nuscenes,
        "scannet-depth": read_scannet_depth,
        "vkitti2-depth": read_vkitti2_depth,
        "nyuv2-normals": partial(read_dsine, name="nyuv2"),
        "scannet-normals": partial(read_dsine, name="scannet"),
        "ibims-normals": partial(read_dsine, name="ibims"),
        "vkitti-normals": partial(read_dsine, name="vkitti"),
        "diode-normals": read_diode_normals,
        "genai-bench": read_genai_bench,
        "imgedit": read_imgedit,
    }
)
"""Reader of each benchmark by name; docs/evaluation.md has the layout each expects."""


def read_benchmark(name: str, folder: Path) -> Benchmark:
    """Read a benchmark by name from the folder it was downloaded to.

    Raises:
        InputError: unknown name, or a missing or odd folder or file.
    """
    if name not in READERS:
        raise InputError(f"benchmark {name!r} is not known; known: {', '.join(READERS)}")
    if not folder.is_dir():
        raise InputError(f"{name}: no folder {folder}")
    return READERS[name](folder)
