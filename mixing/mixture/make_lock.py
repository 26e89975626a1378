"""Locking a mixture to what is on disk: which records may be drawn, and the exact share of every stream."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import combinations
from pathlib import Path

from cavendish.encoders.sample import InputError
from cavendish.encoders.tasks.registry import TASK_NAMES, find_task
from cavendish.encoders.tasks.task import Kind
from cavendish.mixing.audit.report.accept import accept_report
from cavendish.mixing.lock import Lock, LockedSource, Stream, unpack_bits
from cavendish.mixing.mixture.candidates import EXCLUDED, ResolvedSource, scan_source
from cavendish.mixing.mixture.config import Floor as FloorSetting
from cavendish.mixing.mixture.config import Mixture, Source, ratio_bends
from cavendish.mixing.mixture.resolve_ratios import Bends, Floor, draws_in, multiply, raise_to_floors
from cavendish.mixing.shards.dataset import committed_rows, load_dataset
from cavendish.mixing.storage.files import digest
from cavendish.mixing.storage.place import Place, file_sha256, join, read_json


@dataclass(frozen=True)
class _Share:
    """A stream to be: `ratio_name` is the ratio that its share grows with, or None when floors stand between them."""

    source: str
    task: str
    kind: Kind
    share: Bends
    ratio_name: str | None


def lock_mixture(mixture: Mixture, data: Place) -> Lock:
    """Look at every shard and fix what may be drawn from it.

    Args:
        data: folder, or URL of one, that the paths in the mixture are relative to.

    Raises:
        InputError: a source or list is not there, the report of the audit was edited or is not of these shards and
            exclusions, two sources draw the same records for one task, or the ratios, caps and floors cannot be met
            from what is there; the message says what would be possible.
    """
    excluded: set[str] = set()
    exclusions = {}
    for path in dict.fromkeys(_exclude_lists(mixture)):
        excluded |= read_exclusions(join(data, path))
        exclusions[path.as_posix()] = file_sha256(join(data, path))
    exclusions["keys"] = digest(sorted(excluded))
    resolved = list(_resolve_sources(mixture, "", frozenset(excluded), None))
    sources = {source.name: scan_source(source, data) for source in resolved}
    _refuse_double_draws(data, list(sources.values()))
    _refuse_equal_keys(data, list(sources.values()), excluded)
    streams = []
    for share in _shares(mixture, sources, ""):
        source = sources[share.source]
        points = tuple((index, str(value)) for index, value in share.share.items())
        streams.append(Stream(share.source, share.task, share.kind, pool_size(source, share.task), points))
    settings = {source.name: source.source for source in resolved}
    for stream, share in zip(streams, _shares(mixture, sources, "")):
        _check_stream(mixture, sources[stream.source], settings[stream.source], stream, share.ratio_name, streams)
    values = mixture.model_dump(mode="json")
    shards = [(source.path, [shard.sha256 for shard in source.shards]) for source in sources.values()]
    return Lock(
        mixture=values,
        mixture_digest=digest(values),
        seed=mixture.seed,
        max_bad=str(mixture.max_bad),
        sources=tuple(sources.values()),
        streams=tuple(streams),
        exclusions=exclusions,
        audit=None if mixture.audit is None else accept_report(join(data, mixture.audit), shards, excluded),
    )


def _exclude_lists(mixture: Mixture) -> Iterator[Path]:
    yield from mixture.exclude
    for nested in mixture.mixtures.values():
        yield from _exclude_lists(_inner(nested.mixture))


def _inner(mixture: Mixture | None) -> Mixture:
    if mixture is None:
        raise InputError("mixture: a mixture inside is not read yet: use cavendish.mixing.mixture.config.load")
    return mixture


def _resolve_sources(
    mixture: Mixture, prefix: str, excluded: frozenset[str], licences: frozenset[str] | None
) -> Iterator[ResolvedSource]:
    """Yield the sources of a mixture and of those inside it; a licence has to be allowed by each of them."""
    if mixture.licences is not None:
        licences = frozenset(mixture.licences) & (licences if licences is not None else frozenset(mixture.licences))
    for name, source in mixture.sources.items():
        yield ResolvedSource(
            name=prefix + name,
            source=source,
            excluded=excluded,
            licences=licences,
            negatives=mixture.negatives if source.negatives is None else source.negatives,
            colormaps=mixture.colormaps if source.colormaps is None else source.colormaps,
        )
    for name, nested in mixture.mixtures.items():
        yield from _resolve_sources(_inner(nested.mixture), f"{prefix}{name}.", excluded, licences)


def read_exclusions(path: Place) -> set[str]:
    """Read a list of sample keys not to train on.

    Raises:
        InputError: not json of the form {"keys": [...]}.
    """
    values = read_json(path, "a list of keys to exclude")
    keys = values.get("keys") if isinstance(values, dict) else None
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise InputError(f'{path}: expected {{"keys": [...]}}, a list of keys to exclude')
    return set(keys)


def _same_place(data: Place, path: str) -> Path:
    return Path(join(data, path)).resolve()


def _refuse_double_draws(data: Place, sources: Sequence[LockedSource]) -> None:
    """Refuse two sources that draw the same records for one task: they would be repeated beyond what is asked."""
    for first, second in combinations(sources, 2):
        if _same_place(data, first.path) != _same_place(data, second.path):
            continue
        for task in TASK_NAMES:
            shared = 0
            for shard, again in zip(first.shards, second.shards):
                flags = [unpack_bits(of.usable.get(task, "none"), shard.count) for of in (shard, again)]
                shared += int((flags[0] & flags[1]).sum())
            if shared:
                raise InputError(
                    f"mixture: sources {first.name} and {second.name} both draw {task} from the same {shared} "
                    f"records of {first.path}: take {task} out of the tasks of one of them, or part them by `where` or "
                    "`hold_out`"
                )


def _refuse_equal_keys(data: Place, sources: Sequence[LockedSource], excluded: set[str]) -> None:
    """Refuse an excluded key that renders of one seed give to different images: which of them is meant is not known."""
    renders = [
        source
        for source in sources
        if EXCLUDED in source.left_out and load_dataset(join(data, source.path)).kind.startswith("render-")
    ]
    images: dict[str, tuple[str, tuple[int, int]]] = {}
    for source in renders if len(renders) > 1 else ():
        for row in committed_rows(join(data, source.path)):
            for key in sorted(excluded & row.samples.keys()):
                _, size, crc32 = row.samples[key].get("image.png", (0, 0, 0))
                name, image = images.setdefault(key, (source.name, (size, crc32)))
                if image != (size, crc32):
                    raise InputError(
                        f"mixture: exclude: key {key} is one image in source {name} and another in {source.name}, "
                        "rendered with the same seed: render one of them with another seed"
                    )


def _shares(mixture: Mixture, sources: dict[str, LockedSource], prefix: str) -> Iterator[_Share]:
    """Yield the streams of a mixture as if it were alone, then those of the mixtures inside it, scaled."""
    kinds, ratios = ratio_bends(mixture)
    own: list[_Share] = []
    for kind, bends in kinds.items():
        weights = [
            (prefix + name, task, weight * source.weight)
            for name, source in mixture.sources.items()
            for task, weight in _weights(source, sources[prefix + name]).items()
            if find_task(task).kind == kind
        ]
        if not weights:
            raise InputError(f"mixture: {kind} has a ratio, but no source has a task of that kind")
        total = sum((weight for _, _, weight in weights), Fraction(0))
        own += [
            _Share(source, task, kind, {index: ratio * weight / total for index, ratio in bends.items()}, kind)
            for source, task, weight in weights
        ]
    floors = list(_floors(mixture, own, prefix))
    raised = raise_to_floors([x.share for x in own], [x.kind for x in own], floors, mixture.examples_per_step)
    for share, values in zip(own, raised):
        yield _Share(share.source, share.task, share.kind, values, None if floors else share.ratio_name)
    for name, nested in mixture.mixtures.items():
        if any(ratios[name].values()):
            for share in _shares(_inner(nested.mixture), sources, f"{prefix}{name}."):
                values = multiply(share.share, ratios[name], f"mixtures.{name}")
                yield _Share(share.source, share.task, share.kind, values, None)


def _weights(source: Source, locked: LockedSource) -> dict[str, Fraction]:
    if source.tasks is not None:
        return {task: draws.weight for task, draws in source.tasks.items()}
    tasks = {task for shard in locked.shards for task in shard.usable}
    return {task: Fraction(pool_size(locked, task)) for task in sorted(tasks, key=TASK_NAMES.index)}


def pool_size(source: LockedSource, task: str) -> int:
    """Return how many records of a source may be drawn for a task."""
    return sum(int(unpack_bits(shard.usable.get(task, "none"), shard.count).sum()) for shard in source.shards)


def _floors(mixture: Mixture, shares: Sequence[_Share], prefix: str) -> Iterator[Floor]:
    groups: list[tuple[str, FloorSetting, list[int], list[str]]] = []
    for task, setting in mixture.floors.tasks.items():
        members = [k for k, share in enumerate(shares) if share.task == task]
        groups.append((task, setting, members, [share.task for share in shares]))
    for name, setting in mixture.floors.sources.items():
        members = [k for k, share in enumerate(shares) if share.source == prefix + name]
        groups.append((name, setting, members, [share.source.removeprefix(prefix) for share in shares]))
    for name, setting, members, known in groups:
        if not members:
            raise InputError(
                f"mixture: floors: nothing is drawn of {name}; drawn are {', '.join(dict.fromkeys(known))}"
            )
        if setting.share is not None:
            yield Floor(name, tuple(members), share=setting.share)
        else:
            yield Floor(name, tuple(members), draws=setting.draws or 0, examples=mixture.examples or 0)


def _check_stream(
    mixture: Mixture,
    locked: LockedSource,
    source: Source,
    stream: Stream,
    ratio_name: str | None,
    streams: Sequence[Stream],
) -> None:
    if stream.pool == 0:
        reasons = ", ".join(f"{count} {reason}" for reason, count in locked.left_out.items()) or "no record serves it"
        raise InputError(
            f"mixture: source {locked.name} has nothing to draw for task {stream.task} "
            f"({locked.records} records; {reasons}): take {stream.task} out of its tasks"
        )
    caps = {str(task): draws.max_epochs for task, draws in (source.tasks or {}).items()}
    cap = caps.get(stream.task) or source.max_epochs
    if cap is None:
        return
    if mixture.examples is None:
        raise InputError(f"mixture: {stream.name} has max_epochs: give the outermost mixture `examples`, its length")
    wanted = draws_in(dict(stream.points), mixture.examples)
    allowed = cap * stream.pool
    if wanted <= allowed:
        return
    ways = [
        f"max_epochs {float(wanted / stream.pool):.4g}",
        f"examples {int(mixture.examples * allowed / wanted)}",
    ]
    if ratio_name is not None:
        mean = sum((draws_in(dict(x.points), mixture.examples) for x in streams if x.kind == stream.kind), Fraction(0))
        mean /= mixture.examples
        ways.insert(0, f"{ratio_name} at {float(mean * allowed / wanted):.4g} instead of {float(mean):.4g}")
    raise InputError(
        f"mixture: {mixture.examples} examples would draw {float(wanted):g} of {stream.name}, but {stream.pool} "
        f"records at max_epochs {float(cap):g} give {float(allowed):g}. Possible: {', or '.join(ways)}"
    )
