"""A few pictures of an annotation job, for `cavendish plan`."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from cavendish.annotate.annotators.protocol import check_licences
from cavendish.annotate.job import AnnotateConfig, annotate_batch, annotators_of
from cavendish.annotate.weights import check_weights
from cavendish.encoders.sample import InputError, Rejection, Sample
from cavendish.mixing.jobs.estimate import Stage
from cavendish.mixing.jobs.probe import Trial
from cavendish.mixing.sources.items import Item
from cavendish.mixing.sources.listing import fetch_source, list_items


def annotate_stage(config: AnnotateConfig, data: Path, units: int) -> Stage:
    """Return what an annotation job is, with a trial of pictures taken evenly from its sources.

    Raises:
        InputError: a source is not there, or weights are missing or under a licence that is not allowed.
    """
    specs = annotators_of(config, data, make=lambda kind, *arguments: kind(*arguments)).specs
    check_licences(specs, config.allowed_licences)
    check_weights(specs)
    items = [
        (number, item)
        for number, source in enumerate(config.sources)
        for item in list_items(source, fetch_source(source, data))
    ]
    wanted = min(3 * units, len(items))
    if wanted < 2:
        raise InputError(f"{len(items)} pictures in the sources: a probe needs two")
    chosen = tuple(items[i * len(items) // wanted] for i in range(wanted))
    return Stage(
        verb="annotate",
        unit="picture",
        units=len(items),
        units_per_shard=config.images_per_shard,
        shard_key="images_per_shard",
        trial=Trial(partial(annotate_one, config, data, chosen), shards=wanted, units=1, count_rejected=True),
        more="several configurations, each with a part of the sources and a directory of its own",
    )


def annotate_one(
    config: AnnotateConfig, data: Path, chosen: tuple[tuple[int, Item], ...], index: int
) -> Iterator[Sample | Rejection]:
    """Annotate one picture alone."""
    yield from annotate_batch(config, data, [chosen[index]], annotators_of(config, data))
