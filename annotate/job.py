"""The annotation job: image collections to raw shards. One element = one shard; a bad image costs itself only."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from functools import cache, partial
from itertools import chain
from pathlib import Path
from typing import Any

from cavendish.annotate.annotators.protocol import check_licences, check_weights, load_once
from cavendish.annotate.config import AnnotateConfig
from cavendish.annotate.labels.conventions import check_models
from cavendish.annotate.labels.hub_labels import hub_annotators
from cavendish.annotate.labels.label import Annotators, Picture, annotators_for, label_pictures, with_hub
from cavendish.annotate.report import REPORT, write_report
from cavendish.encoders.sample import InputError, Rejection, Sample
from cavendish.mixing.accounting import add_counts
from cavendish.mixing.extras import require_extra
from cavendish.mixing.jobs.beam import CommitShards, ShardJob, read_inputs, run
from cavendish.mixing.jobs.estimate import Probe
from cavendish.mixing.jobs.runners import Engine, JobResult, Progress
from cavendish.mixing.shards.dataset import Plan, committed_rows, find_dataset
from cavendish.mixing.shards.reader import read_shard
from cavendish.mixing.shards.sample_format import record_key
from cavendish.mixing.sources.decode import decode_image
from cavendish.mixing.sources.items import Item
from cavendish.mixing.sources.listing import fingerprint, list_items, read_item
from cavendish.mixing.sources.records import with_keys
from cavendish.mixing.storage.files import canonical_json, digest, sha256
from cavendish.mixing.storage.place import Place, exists, join

_BATCH = 8  # images held decoded at a time
_Entries = list[tuple[int, Item]]  # images, each with the number of its source


def annotate(
    config: AnnotateConfig,
    out: Place,
    engine: Engine = Engine(),
    progress: Progress | None = None,
    data: Path = Path(),
) -> JobResult:
    """Annotate every image of the sources into raw shards under `out`; an unfinished run is continued.

    The plan holds the configuration, the annotator with its weights' hash, and a fingerprint of every input file:
    the shards are a function of the plan, and a changed input is another plan. Images that were added since go into
    further shards. When all shards are there, `out`/report.html shows scores, examples and reasons.

    Args:
        data: where relative paths of the sources, and of hub models, start.

    Raises:
        InputError: a source is not there or empty, weights are missing or under a licence that is not allowed, a hub
            model does not follow its conventions, or `out` holds another plan.
        JobFailed: see `mixing.jobs.beam.run`.
    """
    job, items = _annotate_job(config, out, data)
    result = run(job, engine, progress)
    if result.totals is not None and (result.made or not exists(join(out, REPORT))):
        write_report(out, config, config.sources, {item.key: (number, item) for number, item in items}, data)
    return result


class AnnotateShards(CommitShards):
    """Annotates every image of the sources into raw shards under `out`, in a Beam pipeline; without the report page."""

    def __init__(self, config: AnnotateConfig, out: Place, data: Path = Path()) -> None:
        super().__init__(_annotate_job(config, out, data)[0])


def _annotate_job(config: AnnotateConfig, out: Place, data: Path) -> tuple[ShardJob, list[tuple[int, Item]]]:
    """Return the job, and every image with the number of its source."""
    if config.hub is not None:
        require_extra("generators")
    specs = annotators_of(config, data, make=lambda kind, *arguments: kind(*arguments)).specs
    check_licences(specs, config.allowed_licences)
    check_weights(specs)
    if config.hub is not None and config.hub.check_conventions:
        hub = hub_annotators(config.hub, data)
        check_models(hub.depth, hub.normals)
    listed: list[tuple[int, Item]] = []
    left_aside: dict[str, int] = {}
    for number, source in enumerate(config.sources):
        listing = list_items(source, data)
        listed += [(number, item) for item in listing]
        left_aside = add_counts((left_aside, listing.left_aside))
    settings: dict[str, Any] = {"pipeline": "annotate/2", "config": config.model_dump(mode="json")}
    settings["annotators"] = [asdict(spec) for spec in specs]
    plan, shards = _plan_shards(config, data, out, settings, listed)
    inputs_of_shards = ([[number, asdict(item)] for number, item in shard] for shard in shards)
    found = len(listed) + sum(left_aside.values())
    job = ShardJob(plan, partial(build_shard, config, data, out), out, inputs_of_shards, found, left_aside)
    return job, list(chain(*shards))


def _plan_shards(
    config: AnnotateConfig, data: Path, out: Place, settings: Mapping[str, Any], listed: _Entries
) -> tuple[Plan, list[_Entries]]:
    """Return the plan for `out` and the images of each of its shards; where images were added, a plan that grows it.

    Raises:
        InputError: `out` was made with these settings, and an image in its shards is not as it was.
    """
    hash_file = cache(sha256)

    def describe(shards: list[_Entries]) -> list[dict[str, Any]]:
        described = []
        for number, source in enumerate(config.sources):
            items = [item for of, item in chain(*shards) if of == number]
            files = fingerprint(source, data, items, config.check_inputs, hash_file)
            described.append({"source": source.name, "images": len(items), "digest": digest(files)})
        return described

    def plan_after(old: list[_Entries], earlier: tuple[tuple[str, int], ...]) -> tuple[Plan, list[_Entries]]:
        new, count = _new_entries(config, out, listed, old), config.images_per_shard
        shards = [*old, *(new[start : start + count] for start in range(0, len(new), count))]
        return Plan("annotate", len(shards), {**settings, "inputs": describe(shards)}, earlier), shards

    found = find_dataset(out)
    if found is None or canonical_json({**found.config, "inputs": 0}) != canonical_json({**settings, "inputs": 0}):
        return plan_after([], ())
    old = [_read_entries(out, index) for index in range(found.earlier[-1][1] if found.earlier else 0)]
    plan, shards = plan_after(old, found.earlier)
    if plan.digest == found.digest:
        return plan, shards
    old = [_read_entries(out, index) for index in range(found.shards)]
    grown = plan_after(old, found.plan.made_by)
    if describe(old) != found.config["inputs"]:
        raise _changed_input(out, _find_changed(config, data, out, old))
    return grown


def _new_entries(config: AnnotateConfig, out: Place, listed: _Entries, old: Sequence[_Entries]) -> _Entries:
    """Return what is listed and in no old shard, with keys that the old shards have not.

    Raises:
        InputError: an image of the old shards is not listed any more, or differently.
    """
    if not old:
        return listed
    had = Counter(_without_key(*entry) for entry in chain(*old))
    new: _Entries = []
    for entry in listed:
        had[_without_key(*entry)] -= 1
        if had[_without_key(*entry)] < 0:
            new.append(entry)
    for number, item in chain(*old):
        if had[_without_key(number, item)] > 0:
            raise _changed_input(out, f"{item.name} of source {config.sources[number].name}")
    keys = {item.key for _, item in chain(*old)}
    return [
        (number, item)
        for number, source in enumerate(config.sources)
        for item in with_keys(source.name, (item for of, item in new if of == number), keys)
    ]


def _without_key(number: int, item: Item) -> bytes:
    """Return what an image is known by from one listing to the next, in which others may take its key."""
    return canonical_json([number, asdict(replace(item, key=""))])


def _changed_input(out: Place, name: str) -> InputError:
    return InputError(
        f"{out}: holds shards of another plan: {name} is in them, and is gone or was changed since. Put it back as it "
        "was, choose another --out, or delete the directory"
    )


def _find_changed(config: AnnotateConfig, data: Path, out: Place, old: Sequence[_Entries]) -> str:
    """Name the first image that cannot be read any more, or whose bytes are not those that its sample was made from."""
    entries = {item.key: (config.sources[number], item) for number, item in chain(*old)}
    rows = committed_rows(out)
    rejected = {letter.key for row in rows for letter in row.rejected}
    for source, item in (entry for key, entry in entries.items() if key not in rejected):
        try:
            read_item(source, data, item)
        except InputError:
            return f"{item.name} of source {source.name}"
    for sample in chain.from_iterable(read_shard(join(out, row.shard)) for row in rows):
        source, item = entries[record_key(sample)]
        now = hashlib.sha256(read_item(source, data, item).data).hexdigest()
        if isinstance(sample, Sample) and now != sample.provenance["file"]["sha256"]:
            return f"{item.name} of source {source.name}"
    return "a caption, a json, a tar or a rejected image"


def _read_entries(out: Place, index: int) -> _Entries:
    return [(number, Item.of_dict(fields)) for number, fields in read_inputs(out, index)]


def annotators_of(config: AnnotateConfig, data: Path, make: Any = load_once) -> Annotators:
    """Return the annotators that a configuration asks for; `make` loads them, or only describes them."""
    offline = annotators_for(config, make)
    return offline if config.hub is None else with_hub(offline, hub_annotators(config.hub, data, make))


def build_shard(config: AnnotateConfig, data: Path, out: Place, index: int) -> Iterator[Sample | Rejection]:
    """Make the samples of one shard, a bounded number of pictures in memory at a time."""
    listed = _read_entries(out, index)
    for start in range(0, len(listed), _BATCH):
        yield from annotate_batch(config, data, listed[start : start + _BATCH], annotators_of(config, data))


def annotate_batch(
    config: AnnotateConfig, data: Path, listed: Sequence[tuple[int, Item]], annotators: Annotators
) -> Iterator[Sample | Rejection]:
    """Read, decode, annotate and judge a few images; the results come in the order of the listing."""
    pictures: list[Picture] = []
    results: dict[str, Sample | Rejection] = {}
    for number, item in listed:
        source = config.sources[number]
        try:
            found = read_item(source, data, item)
            pictures.append(Picture(source, item.name, found, decode_image(found.data, config.max_side_px)))
        except InputError as error:
            results[item.key] = Rejection(item.key, f"{item.name}: {error}")
    for picture, result in zip(pictures, label_pictures(config, pictures, annotators)):
        results[picture.found.key] = result
    for _, item in listed:
        yield results[item.key]


def annotate_probe(config: AnnotateConfig, data: Path, units: int) -> Probe:
    """Return a probe of an annotation job: images taken evenly from its sources.

    Raises:
        InputError: a source is not there, or weights are missing or under a licence that is not allowed.
    """
    specs = annotators_of(config, data, make=lambda kind, *arguments: kind(*arguments)).specs
    check_licences(specs, config.allowed_licences)
    check_weights(specs)
    items = [(number, item) for number, source in enumerate(config.sources) for item in list_items(source, data)]
    wanted = min(3 * units, len(items))
    if wanted < 2:
        raise InputError(f"{len(items)} pictures in the sources: a probe needs two")
    chosen = tuple(items[i * len(items) // wanted] for i in range(wanted))
    return Probe(
        verb="annotate",
        unit="image",
        units=len(items),
        units_per_shard=config.images_per_shard,
        build=partial(_annotate_chosen, config, data, chosen),
        trial_shards=wanted,
        trial_units=1,
        count_rejected=True,
    )


def _annotate_chosen(
    config: AnnotateConfig, data: Path, chosen: tuple[tuple[int, Item], ...], index: int
) -> Iterator[Sample | Rejection]:
    """Annotate one picture alone."""
    yield from annotate_batch(config, data, [chosen[index]], annotators_of(config, data))
