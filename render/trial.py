"""A few scenes of a render job, for `cavendish plan`."""

from __future__ import annotations

from functools import partial

from cavendish.mixing.jobs.estimate import Stage
from cavendish.mixing.jobs.probe import Trial
from cavendish.render.job import RenderConfig, build_shard, check_installation, close_workers


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
