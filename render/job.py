"""The render job: one shard of scenes at a time, rendered by a supervised child of the process that builds it."""

from __future__ import annotations

import atexit
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from functools import partial

import numpy as np

from cavendish.encoders.sample import InputError, Rejection, Sample
from cavendish.mixing.accounting import kind_of
from cavendish.mixing.extras import require_extra
from cavendish.mixing.jobs.beam import CommitShards, ShardJob, run
from cavendish.mixing.jobs.estimate import Probe
from cavendish.mixing.jobs.runners import Engine, JobResult, Progress
from cavendish.mixing.shards.dataset import Plan, committed_rows
from cavendish.mixing.shards.reader import read_parts
from cavendish.mixing.storage.cache import open_file
from cavendish.mixing.storage.place import Place, join
from cavendish.render.assets.catalogue import MAPS, catalogue, map_path
from cavendish.render.assets.folders import draw_files, find_files, fingerprint
from cavendish.render.config import RealismConfig, RenderConfig, ViewRequest
from cavendish.render.engines.child import decode_answer
from cavendish.render.engines.worker import Limits, Worker, WorkerFault

__all__ = ["RealismConfig", "RenderConfig", "build_shard", "RenderShards", "render", "render_probe"]
ONE_THREAD = dict.fromkeys(("LP_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
"""Environment of a child: the engine gives a core to every worker, and images do not depend on the machine."""


def render(config: RenderConfig, out: Place, engine: Engine = Engine(), progress: Progress | None = None) -> JobResult:
    """Render `config.scenes` scenes into shards under `out`; shards that are committed there are not made again.

    Raises:
        InputError: a package the scenes need is not installed, or `out` holds shards of another plan.
        JobFailed: a worker of the engine died, or nothing was committed for too long.
    """
    try:
        return run(_render_job(config, out), engine, progress)
    finally:
        close_workers()


class RenderShards(CommitShards):
    """Renders `config.scenes` scenes into shards under `out`, in a Beam pipeline."""

    def __init__(self, config: RenderConfig, out: Place) -> None:
        super().__init__(_render_job(config, out))


def _render_job(config: RenderConfig, out: Place) -> ShardJob:
    check_installation()
    config = _with_absolute_folders(config)
    shards = -(-config.scenes // config.scenes_per_shard)
    plan = Plan(f"render-{config.engine}", shards, _plan_values(config))
    return ShardJob(plan, partial(build_shard, config), out)


def render_probe(config: RenderConfig, units: int) -> Probe:
    """Return a probe of a render job: `units` scenes in each of three shards.

    Raises:
        InputError: a package that the scenes need is not installed.
    """
    check_installation()
    views = config.views_per_scene
    small = config.model_copy(update={"scenes": 3 * units, "scenes_per_shard": units})
    return Probe(
        verb="render",
        unit="image",
        units=config.scenes * views,
        units_per_shard=config.scenes_per_shard * views,
        build=partial(build_shard, small),
        trial_units=units * views,
        close=close_workers,
    )


def check_installation() -> None:
    """Find packages, models and environment maps before a job starts.

    Raises:
        InputError: naming the package to install.
    """
    require_extra("render")
    catalogue()
    for name in MAPS:
        map_path(name)


def _plan_values(config: RenderConfig) -> dict[str, object]:
    """Return the part of the configuration that images depend on: time limits may change between runs."""
    values = config.model_dump()
    for name in ("start_timeout_s", "request_timeout_s", "recycle_after", "max_memory_mb"):
        del values[name]
    if config.assets is not None:
        # what is in the folders counts, not where they are
        values["assets"]["folders"] = fingerprint(config.assets.folders)
    return values


def _with_absolute_folders(config: RenderConfig) -> RenderConfig:
    if config.assets is None:
        return config
    folders = tuple(folder.expanduser().resolve() for folder in config.assets.folders)
    return config.model_copy(update={"assets": config.assets.model_copy(update={"folders": folders})})


def count_rejections(out: Place) -> dict[str, int]:
    """Count the views under `out` that were rejected, by reason, the most frequent first."""
    reasons = Counter(kind_of(rejection.reason) for row in committed_rows(out) for rejection in row.rejected)
    return dict(reasons.most_common())


def asset_warnings(out: Place) -> dict[str, str]:
    """Return what is not drawn of the user's own files that samples under `out` hold, by the file's name."""
    found = {}
    for row in committed_rows(out):
        with open_file(join(out, row.shard)) as file:
            for key in row.samples:
                meta = json.loads(read_parts(file, row, key, ("json",))["json"])
                assets = meta["provenance"]["assets"]
                found.update({asset["name"]: asset["warnings"] for asset in assets if "warnings" in asset})
    return dict(sorted(found.items()))


def build_shard(config: RenderConfig, shard: int) -> Iterator[Sample | Rejection]:
    """Make the samples of one shard; the user's own files that cannot be used come first, as Rejections."""
    own: dict[str, str] = {}
    for name, role in inspect_files(config, shard):
        if isinstance(role, Rejection):
            yield role
        else:
            own[name] = role
    yield from make_views(config, shard, lambda request: render_view(config, request, own))


def make_views(
    config: RenderConfig, shard: int, make: Callable[[ViewRequest], Sample | Rejection]
) -> Iterator[Sample | Rejection]:
    """Make the views of one shard; each scene has `attempts` tries, and every failed one is reported.

    So has each further view of a scene that stands; one that finds no place is left out.
    """
    scenes = min(config.scenes_per_shard, config.scenes - shard * config.scenes_per_shard)
    for index in range(scenes):
        for attempt in range(config.attempts):
            made = make(ViewRequest(shard, index, attempt))
            yield made
            if isinstance(made, Sample):
                break
        else:
            continue
        for view in range(1, config.views_per_scene):
            for view_attempt in range(config.attempts):
                made = make(ViewRequest(shard, index, attempt, view, view_attempt))
                yield made
                if isinstance(made, Sample):
                    break


def inspect_files(config: RenderConfig, shard: int) -> Iterator[tuple[str, str | Rejection]]:
    """Have the child read each of the user's own files this shard may use, before any scene does.

    Yields:
        A file's name, and the role it plays in scenes; or the Rejection of a file that cannot be read, or that takes
        the child down with it.
    """
    if config.assets is None:
        return
    rng = np.random.default_rng([config.seed, shard, 8])
    for name in draw_files(find_files(config.assets.folders), config.assets.per_shard, rng):
        try:
            answer, _ = _renderer(config).ask({"inspect": name})
        except WorkerFault as fault:
            answer = {"error": f"{fault}, twice"}
        yield name, answer["role"] if "role" in answer else Rejection(name, answer["error"])


def render_view(config: RenderConfig, request: ViewRequest, own: Mapping[str, str]) -> Sample | Rejection:
    """Ask this process's renderer for one view; a fault that repeats becomes a Rejection that names it.

    Args:
        own: the user's files that may be used, by name, with the role of each.
    """
    try:
        return decode_answer(*_renderer(config).ask({"view": asdict(request), "own": dict(own)}))
    except WorkerFault as fault:
        key = config.view_key(request.shard, request.index, request.view)
        return Rejection(key, f"attempt {request.attempt}: {fault}, twice")


_renderers: dict[str, Worker] = {}
"""The renderer of this process by its configuration: that of the last job only, as cluster processes outlive jobs."""


def _renderer(config: RenderConfig) -> Worker:
    """Return this process's renderer for a configuration, started.

    Raises:
        InputError: the engine, or a folder of assets, cannot be used.
        WorkerFault: it did not start.
    """
    text = config.model_dump_json()
    if text not in _renderers:
        close_workers()
        command = [sys.executable, "-m", "cavendish.render.engines.child"]
        limits = Limits(config.start_timeout_s, config.request_timeout_s, config.recycle_after, config.max_memory_mb)
        _renderers[text] = Worker(command, limits, {"config": config.model_dump(mode="json")}, ONE_THREAD)
    worker = _renderers[text]
    hello = worker.start()
    if "error" in hello:
        raise InputError(hello["error"])
    return worker


def close_workers() -> None:
    """End the renderer children of this process."""
    while _renderers:
        _renderers.popitem()[1].close()


atexit.register(close_workers)
