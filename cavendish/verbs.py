"""The verbs that do the work, as functions: what `cavendish render`, `annotate`, `audit`, `mix` and `train` run.

Each takes its configuration as the path of a YAML file, as a mapping with the same keys, or as a finished model; `out`
and `data` are paths or fsspec URLs. What an earlier run finished is not done again. With several workers the calling
script needs `if __name__ == "__main__":`, as everywhere in Python where processes are started.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cavendish.mixing.audit.benchmarks.benchmark_index import Question
    from cavendish.mixing.audit.report.write import Verdict
    from cavendish.mixing.config import ConfigLike
    from cavendish.mixing.jobs.runners import Engine, JobResult
    from cavendish.mixing.lock import Lock
    from cavendish.mixing.storage.place import Place
    from cavendish.trainer.training.train import TrainResult

PathOrUrl = str | PathLike[str]
Progress = Callable[[int, int], None]
"""Called with (done, planned)."""


def render(
    config: ConfigLike,
    out: PathOrUrl,
    *,
    overrides: Sequence[str] = (),
    workers: int = 1,
    engine: Engine | None = None,
    progress: Progress | None = None,
) -> JobResult:
    """Render seeded scenes into raw shards: image, depth, normals, instances, facts, an edited twin.

    Args:
        config: a YAML file such as examples/render_pyrender.yaml, a mapping of its keys, or a RenderConfig.
        out: the folder of shards, a path or a URL; an unfinished one is continued.
        overrides: settings to change, as on the command line: "scenes=100".
        workers: processes on this machine.
        engine: where it runs instead: a cluster, or a part of the shards; see `mixing.jobs.runners.Engine`.

    Returns:
        How many shards were made and were there, and the totals.

    Raises:
        InputError: a wrong key or value, or a package that is not installed.
        JobFailed: workers died; run again to continue.

    Example:
        >>> scenes = {"engine": "pyrender", "seed": 1, "scenes": 2, "width": 64, "height": 64}
        >>> done = cavendish.render(scenes, "raw/scenes")
        >>> done.totals["records"]
        2
    """
    from cavendish.mixing.config import as_config
    from cavendish.mixing.extras import require_extra

    require_extra("render")
    from cavendish.render.config import RenderConfig
    from cavendish.render.job import render as run

    return run(as_config(RenderConfig, config, overrides), _place(out), _engine(engine, workers), progress)


def annotate(
    config: ConfigLike,
    out: PathOrUrl,
    *,
    data: PathOrUrl = ".",
    overrides: Sequence[str] = (),
    workers: int = 1,
    engine: Engine | None = None,
    progress: Progress | None = None,
) -> JobResult:
    """Label photographs into raw shards, with provenance and quality scores.

    Args:
        config: a YAML file such as examples/annotate.yaml, a mapping of its keys, or an AnnotateConfig.
        data: where relative paths in the configuration start.

    `out` and the others are as of `render`.

    Example:
        >>> photos = {"name": "photos", "kind": "folder", "path": "photos", "licence": "CC0-1.0"}
        >>> done = cavendish.annotate({"sources": [photos], "faces": "blur"}, "raw/photos")
        >>> done.totals["records"] + done.totals["rejected"]
        1
    """
    from cavendish.mixing.config import as_config
    from cavendish.mixing.extras import require_extra

    require_extra("annotate")
    from cavendish.annotate.config import AnnotateConfig
    from cavendish.annotate.job import annotate as run

    settings = as_config(AnnotateConfig, config, overrides)
    return run(settings, _place(out), _engine(engine, workers), progress, _local(data))


def audit(
    config: ConfigLike,
    out: PathOrUrl,
    *,
    data: PathOrUrl = ".",
    overrides: Sequence[str] = (),
    workers: int = 1,
    engine: Engine | None = None,
    progress: Progress | None = None,
) -> Verdict:
    """Compare shards with benchmarks: leak, clean, or not fully checked, with evidence.

    Args:
        config: a YAML file such as examples/audit.yaml, a mapping of its keys, or an AuditConfig.
        data: where relative paths in the configuration start.

    `out` and the others are as of `render`.

    Returns:
        The verdict; `out` holds report.html and report.json.

    Example:
        >>> settings = {"shards": ["raw/scenes"], "benchmarks": [{"name": "mine", "folder": "benchmark"}]}
        >>> cavendish.audit(settings, "audit").outcome
        'clean'
    """
    from cavendish.mixing.audit.config import AuditConfig
    from cavendish.mixing.audit.job import audit as run
    from cavendish.mixing.config import as_config
    from cavendish.mixing.storage.sync import now_and_then, published

    settings = as_config(AuditConfig, config, overrides)
    with published(_place(out)) as work:
        told = now_and_then(work, progress or (lambda done, planned: None))
        return run(settings, work.folder, _engine(engine, workers), told, _local(data), read_questions)


def mix(config: ConfigLike, out: PathOrUrl, *, data: PathOrUrl = ".", overrides: Sequence[str] = ()) -> Lock:
    """Lock a mixture: every shard by its hash, exact shares, exclusions and the audit's verdict.

    Args:
        config: a YAML file such as examples/mixture.yaml, a mapping of its keys, or a Mixture.
        out: the lock file to write, a path or a URL.
        data: where relative paths in the configuration start; a path or a URL.

    Example:
        >>> scenes = {"path": "raw/scenes", "tasks": {"generate": 1, "depth": 1}}
        >>> mixture = {"seed": 1, "ratios": {"generation": "rest", "vision": 0.1}, "sources": {"scenes": scenes}}
        >>> lock = cavendish.mix(mixture, "mixture.lock.json")
        >>> {stream.task: str(stream.points[0][1]) for stream in lock.streams}
        {'generate': '9/10', 'depth': '1/10'}
    """
    from cavendish.mixing.lock import write_lock
    from cavendish.mixing.mixture.config import load
    from cavendish.mixing.mixture.make_lock import lock_mixture
    from cavendish.mixing.storage.place import make_folder, parent_of

    lock = lock_mixture(load(config, overrides), _place(data))
    make_folder(parent_of(_place(out)))
    write_lock(_place(out), lock)
    return lock


def train(
    config: ConfigLike,
    out: PathOrUrl,
    *,
    data: PathOrUrl = ".",
    overrides: Sequence[str] = (),
    progress: Progress | None = None,
) -> TrainResult:
    """Train a generator on a locked mixture, fresh or from a base; an unfinished run is continued.

    Args:
        config: a YAML file such as examples/train_base.yaml, a mapping of its keys, or a TrainConfig.
        out: the folder of the run, a path or a URL; `out`/generator is the trained generator.
        data: where relative paths in the configuration start; a path or a URL.

    Example:
        >>> settings = {"lock": "mixture.lock.json", "generator": {"width": 16}, "size": 32, "steps": 2, "batch": 2}
        >>> cavendish.train(settings, "run", overrides=["warmup_steps=1"]).examples
        4
    """
    from cavendish.mixing.config import as_config
    from cavendish.mixing.extras import require_extra

    require_extra("train")
    from cavendish.trainer.training.config import TrainConfig
    from cavendish.trainer.training.remote_run import train_remote

    return train_remote(as_config(TrainConfig, config, overrides), _place(out), _place(data), progress)


def read_questions(reader: str, folder: Path) -> Iterator[Question]:
    """Read the images, texts and labels of a benchmark for the audit, by the name of its reader."""
    from cavendish.trainer.evaluation.benchmarks.audited import read_questions as read  # scoring's packages, if any

    return read(reader, folder)


def _place(place: PathOrUrl) -> Place:
    from cavendish.mixing.storage.place import parse_place

    return parse_place(fspath(place))


def _local(place: PathOrUrl) -> Path:
    from cavendish.encoders.sample import InputError

    found = _place(place)
    if isinstance(found, str):
        raise InputError(f"data {found}: has to be on this machine; copy it here first")
    return found


def _engine(engine: Engine | None, workers: int) -> Engine:
    from cavendish.mixing.jobs.runners import Engine, check_engine

    chosen = engine or Engine(workers=workers)
    check_engine(chosen)
    return chosen
