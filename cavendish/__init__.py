"""Cavendish: data pipeline and trainer that teaches image generators to answer vision tasks in decodable RGB.

The names below are the public ones; each is imported when it is first used, so that `import cavendish` costs nothing.
Each has an example in its docstring: `help(cavendish.encode_depth)`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cavendish.encoders.codecs.depth import decode_depth as decode_depth
    from cavendish.encoders.codecs.depth import encode_depth as encode_depth
    from cavendish.encoders.codecs.instances import decode_instances as decode_instances
    from cavendish.encoders.codecs.instances import encode_instances as encode_instances
    from cavendish.encoders.codecs.normals import decode_normals as decode_normals
    from cavendish.encoders.codecs.normals import encode_normals as encode_normals
    from cavendish.encoders.codecs.semantic import decode_semantic as decode_semantic
    from cavendish.encoders.codecs.semantic import encode_semantic as encode_semantic
    from cavendish.encoders.sample import Example as Example
    from cavendish.encoders.sample import InputError as InputError
    from cavendish.encoders.sample import Sample as Sample
    from cavendish.encoders.tasks.registry import decode_example as decode_example
    from cavendish.encoders.tasks.registry import make_example as make_example
    from cavendish.mixing.loader import MixtureDataset as MixtureDataset
    from cavendish.mixing.shards.reader import read_shard as read_shard
    from cavendish.mixing.shards.writer import ShardWriter as ShardWriter
    from cavendish.trainer.evaluation.metrics.depth import depth_metrics as depth_metrics
    from cavendish.trainer.evaluation.metrics.instances import instance_metrics as instance_metrics
    from cavendish.trainer.evaluation.metrics.normals import normals_metrics as normals_metrics
    from cavendish.trainer.evaluation.metrics.segmentation import semantic_metrics as semantic_metrics
    from cavendish.verbs import annotate as annotate
    from cavendish.verbs import audit as audit
    from cavendish.verbs import mix as mix
    from cavendish.verbs import render as render
    from cavendish.verbs import train as train

PUBLIC = {
    "encoders.codecs.depth": ("encode_depth", "decode_depth"),
    "encoders.codecs.normals": ("encode_normals", "decode_normals"),
    "encoders.codecs.semantic": ("encode_semantic", "decode_semantic"),
    "encoders.codecs.instances": ("encode_instances", "decode_instances"),
    "encoders.sample": ("Sample", "Example", "InputError"),
    "encoders.tasks.registry": ("make_example", "decode_example"),
    "mixing.shards.reader": ("read_shard",),
    "mixing.shards.writer": ("ShardWriter",),
    "mixing.loader": ("MixtureDataset",),
    "trainer.evaluation.metrics.depth": ("depth_metrics",),
    "trainer.evaluation.metrics.normals": ("normals_metrics",),
    "trainer.evaluation.metrics.segmentation": ("semantic_metrics",),
    "trainer.evaluation.metrics.instances": ("instance_metrics",),
    "verbs": ("render", "annotate", "audit", "mix", "train"),
}
"""The public names, by the module below this package that each is defined in."""

_MODULES = {name: f"{__name__}.{module}" for module, names in PUBLIC.items() for name in names}
__all__ = list(_MODULES)


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_MODULES[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


# The packages of these two verbs have their names. They are loaded (they are empty) before the functions take the names
# over: `cavendish.render` is the function, and `from cavendish.render.job import ...` finds the package all the same.
for _verb in ("render", "annotate"):
    import_module(f"{__name__}.{_verb}")
    del globals()[_verb]
    __getattr__(_verb)
