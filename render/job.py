"""The Beam job: one element = one shard of scenes, rendered by the worker child of the process that builds it."""

from __future__ import annotations

import atexit
import re
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Annotated, Any, Literal, get_args

import numpy as np
from pydantic import Field, PositiveFloat, PositiveInt, ValidationInfo, field_validator, model_validator

from cavendish.encoders.sample import InputError, Rejection, Sample
from cavendish.mixing.config import Config
from cavendish.mixing.jobs.beam import run
from cavendish.mixing.jobs.estimate import Stage, Trial
from cavendish.mixing.jobs.runners import Engine, JobResult, Progress
from cavendish.mixing.shards.writer import Plan, committed_rows
from cavendish.mixing.storage.place import Place
from cavendish.render.assets.catalogue import MAPS, catalogue, map_path
from cavendish.render.assets.folders import AssetsConfig, draw_files, find_files, fingerprint
from cavendish.render.edits import EditKind
from cavendish.render.engines.child import decode_answer
from cavendish.render.engines.worker import Worker, WorkerFault
from cavendish.render.scenes.presets import PRESETS, Hour, Kind, Lens, PresetName
from cavendish.render.scenes.scenes import KINDS

Share = Annotated[float, Field(ge=0, le=1)]


class RealismConfig(Config):
    """Shares of the pictures that each step of a real camera is done to; see `render.camera`."""

    sensor_noise: Share = 0.0
    motion_blur: Share = 0.0
    vignette: Share = 0.0
    white_balance: Share = 0.0
    jpeg: Share = 0.0
    lens_distortion: Share = 0.0


class RenderConfig(Config):
    """What to render. See examples/render_blender.yaml for every key with a comment."""

    engine: Literal["blender", "pyrender"]
    seed: Annotated[int, Field(ge=0)]
    scenes: PositiveInt
    scenes_per_shard: PositiveInt = 12
    width: Annotated[int, Field(ge=32, le=4096)] = 256
    height: Annotated[int, Field(ge=32, le=4096)] = 256
    samples: Annotated[int, Field(ge=1, le=4096)] = 8
    preset: PresetName | None = None
    kinds: dict[Kind, PositiveFloat] = Field(default={"room": 0.45, "table top": 0.25, "outdoor": 0.3}, min_length=1)
    lenses: dict[Lens, PositiveFloat] = Field(default_factory=dict)
    hours: dict[Hour, PositiveFloat] = Field(default_factory=dict)
    edits: Share = 0.5
    views_per_scene: Annotated[int, Field(ge=1, le=100)] = 1
    depth_of_field: Share = 0.0
    realism: RealismConfig = RealismConfig()
    albedo: bool = False
    geometric_normals: bool = False
    cross_check: bool = False
    edit_kinds: dict[EditKind, PositiveFloat] = Field(
        default={"recolor": 0.3, "remove": 0.25, "move": 0.25, "replace": 0.2}, min_length=1
    )
    assets: AssetsConfig | None = None
    max_model_kb: PositiveInt = 2000
    attempts: PositiveInt = 12
    start_timeout_s: PositiveFloat = 180.0
    request_timeout_s: PositiveFloat = 300.0
    recycle_after: PositiveInt = 300
    max_memory_mb: PositiveInt = 6000

    @field_validator("kinds", "lenses", "hours", "edit_kinds")
    @classmethod
    def _in_order(cls, weights: dict[str, float], info: ValidationInfo) -> dict[str, float]:
        """Put weights in one order: draws go by it, and a plan's digest does not know that of a file."""
        names = get_args({"kinds": Kind, "lenses": Lens, "hours": Hour, "edit_kinds": EditKind}[str(info.field_name)])
        return {name: weights[name] for name in names if name in weights}

    @model_validator(mode="after")
    def _blender_for_depth_of_field(self) -> RenderConfig:
        if self.depth_of_field > 0 and self.engine != "blender":
            raise ValueError("depth_of_field: only engine blender blurs what is out of focus; set it to 0")
        return self

    @model_validator(mode="before")
    @classmethod
    def _expand_preset(cls, values: Any) -> Any:
        """Let a preset say which kinds, lenses and hours, instead of those keys."""
        if not isinstance(values, dict) or values.get("preset") not in PRESETS:
            return values
        preset = PRESETS[values["preset"]]
        return {**values, "kinds": dict(preset.kinds), "lenses": dict(preset.lenses), "hours": dict(preset.hours)}


def render(config: RenderConfig, out: Place, engine: Engine = Engine(), progress: Progress | None = None) -> JobResult:
    """Render `config.scenes` scenes into shards under `out`; what is committed there is not done again.

    Raises:
        InputError: a package the scenes need is not installed, or `out` holds shards of another plan.
        JobFailed: a worker of the engine died, or nothing was committed for too long.
    """
    check_installation()
    config = _with_absolute_folders(config)
    shards = -(-config.scenes // config.scenes_per_shard)
    plan = Plan(f"render-{config.engine}", shards, _plan_values(config))
    try:
        return run(plan, partial(build_shard, config), out, engine, progress)
    finally:
        close_workers()


def check_installation() -> None:
    """Find models and environment maps before a job starts.

    Raises:
        InputError: naming the package to install.
    """
    catalogue()
    for name in MAPS:
        map_path(name)


def _plan_values(config: RenderConfig) -> dict[str, object]:
    """Return the part of the configuration that the pictures depend on: time-outs may change between runs."""
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
    """Count the views under `out` that were rejected, by reason, the commonest first."""
    reasons = Counter(
        re.sub(r"^attempt \d+: ", "", rejection.reason).partition(":")[0]
        for row in committed_rows(out)
        for rejection in row.rejected
    )
    return dict(reasons.most_common())


def build_shard(config: RenderConfig, shard: int) -> Iterator[Sample | Rejection]:
    """Make the samples of one shard; each scene has `attempts` tries, and every failed one is reported.

    So has each further view of a scene that stands; one that finds no place is left out.
    """
    first = shard * config.scenes_per_shard
    own: dict[str, str] = {}
    for name, role in inspect_files(config, shard):
        if isinstance(role, Rejection):
            yield role
        else:
            own[name] = role
    for index in range(min(config.scenes_per_shard, config.scenes - first)):
        scene_key = f"{config.engine}-{config.seed}-{first + index:06d}"
        for attempt in range(config.attempts):
            made = ask_for_view(config, scene_key, shard, index, attempt, own)
            yield made
            if isinstance(made, Sample):
                break
        else:
            continue
        for view in range(1, config.views_per_scene):
            for view_attempt in range(config.attempts):
                made = ask_for_view(config, scene_key, shard, index, attempt, own, (view, view_attempt))
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
            answer, _ = _ready_worker(config).ask({"inspect": name})
        except WorkerFault as fault:
            answer = {"error": f"{fault}, twice"}
        yield name, answer["role"] if "role" in answer else Rejection(name, answer["error"])


def ask_for_view(
    config: RenderConfig,
    scene_key: str,
    shard: int,
    index: int,
    attempt: int,
    own: Mapping[str, str],
    view: tuple[int, int] = (0, 0),
) -> Sample | Rejection:
    """Ask this process's worker child for one view; a fault that repeats becomes a Rejection that names it.

    `own` are the user's files that may be used: name -> role. `view` is which view of the scene, and which try at it.
    """
    several = config.views_per_scene > 1
    key = f"{scene_key}-v{view[0]:02d}" if several else scene_key
    try:
        worker = _ready_worker(config)
        request = {
            "key": key,
            "engine": config.engine,
            "seed": config.seed,
            "shard": shard,
            "index": index,
            "attempt": attempt,
            "width": config.width,
            "height": config.height,
            "kinds": dict(config.kinds),
            "lenses": dict(config.lenses),
            "hours": dict(config.hours),
            "edits": config.edits,
            "edit_kinds": dict(config.edit_kinds),
            "own": dict(own),
            "own_share": config.assets.share if config.assets else 0.0,
            "samples": config.samples,
            "scene_key": scene_key if several else "",
            "view": view[0],
            "view_attempt": view[1],
            "depth_of_field": config.depth_of_field,
            "albedo": config.albedo,
            "geometric_normals": config.geometric_normals,
            "realism": config.realism.model_dump(),
            "max_model_kb": config.max_model_kb,
            "versions": worker.hello["versions"],
        }
        return decode_answer(*worker.ask(request))
    except WorkerFault as fault:
        return Rejection(key, f"attempt {attempt}: {fault}, twice")


def _ready_worker(config: RenderConfig) -> Worker:
    worker = _worker(config)
    hello = worker.start()
    if "error" in hello:
        raise InputError(hello["error"])
    return worker


_workers: dict[RenderConfig, Worker] = {}


def _worker(config: RenderConfig) -> Worker:
    # hashable; a child does not depend on what it is asked for
    identity = config.model_copy(update={"kinds": (), "lenses": (), "hours": (), "edit_kinds": ()})
    if identity not in _workers:
        close_workers()  # a process of a cluster lives longer than a job: it keeps the renderer of the last one only
        folders = config.assets.folders if config.assets else ()
        words = (config.engine, config.width, config.height, config.samples, int(config.cross_check), *folders)
        _workers[identity] = Worker(
            [sys.executable, "-m", "cavendish.render.engines.child", *map(str, words)],
            config.start_timeout_s,
            config.request_timeout_s,
            config.recycle_after,
            # one thread each: the engine gives a core to every worker, and pictures do not depend on the machine
            dict.fromkeys(("LP_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"),
            config.max_memory_mb,
        )
    return _workers[identity]


def close_workers() -> None:
    """End the worker children of this process."""
    while _workers:
        _workers.popitem()[1].close()


atexit.register(close_workers)

assert set(KINDS) <= set(get_args(Kind))


def render_stage(config: RenderConfig, units: int) -> Stage:
    """Return what a render job is, with a trial of `units` scenes in each of three shards.

    Raises:
        InputError: a package that the scenes need is not installed.
    """
    check_installation()
    views = config.views_per_scene
    small = config.model_copy(update={"scenes": 3 * units, "scenes_per_shard": units})
    return Stage(
        verb="render",
        unit="picture",
        units=config.scenes * views,
        units_per_shard=config.scenes_per_shard * views,
        shard_key="scenes_per_shard",
        per_key=views,
        trial=Trial(partial(build_shard, small), shards=3, units=units * views, close=close_workers),
        more="several seeds, each in a directory of its own",
    )
