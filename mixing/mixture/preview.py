"""A page that shows what a locked mixture deals: composition, examples as the trainer gets them, what is in them."""

from __future__ import annotations

import contextlib
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader
from numpy.typing import NDArray

from cavendish.encoders.codecs.colormaps import COLORMAPS
from cavendish.encoders.sample import Sample
from cavendish.encoders.tasks.depth import COLORMAP_PROBABILITY, DepthTask
from cavendish.encoders.tasks.registry import find_task
from cavendish.mixing.lock import Lock, LockedSource, Stream, unpack_bits
from cavendish.mixing.mixture.reader import MixtureItem, MixtureReader
from cavendish.mixing.mixture.statistics import Account, index_of, simulate
from cavendish.mixing.shards.dataset import read_row
from cavendish.mixing.shards.reader import Reading, read_parts
from cavendish.mixing.shards.sample_format import parse_sample
from cavendish.mixing.storage.cache import open_file
from cavendish.mixing.storage.place import Place, join, with_suffix, write_atomic
from cavendish.mixing.visualize import data_uri, fit

_COLORS = {"generation": "#3b6fb6", "editing": "#b9782f", "vision": "#2f8f6b"}
_DEPTH_EDGES = np.geomspace(0.1, 1000, 41)
_CELL = 160
_PROMPTS = 32  # draws of each stream whose prompts are looked at


@dataclass(frozen=True)
class Bar:
    """One bar of a histogram: its label, height and what it says."""

    label: str
    height: float
    title: str


@dataclass(frozen=True)
class Part:
    """One line of a composition: the share asked for, the one realised, and the examples that it stands for."""

    name: str
    asked: float
    realised: float
    drawn: int = 0


def write_preview(
    lock: Lock,
    data: Place,
    size: int,
    out: Place,
    count: int = 100_000,
    examples: int = 6,
    looked_at: int = 64,
    reading: Reading = Reading(),
) -> Account:
    """Write the page, self-contained.

    Args:
        size: side of the images in pixels, as in training.
        count: examples to account for.
        examples: examples shown of each stream, its first draws.
        looked_at: raw records of each source whose depth and instances go into the histograms, evenly spread.
        reading: needs a cache when `data` is a URL.

    Returns:
        The account that the page shows.

    Raises:
        InputError: a shard is not the one that was locked.
    """
    account = simulate(lock, count)
    with contextlib.closing(MixtureReader(lock, data, size, reading)) as reader:
        page = _page(account, reader, count, examples, looked_at)
    write_atomic(out, page.encode())
    return account


def _page(account: Account, reader: MixtureReader, count: int, examples: int, looked_at: int) -> str:
    lock, data = reader.lock, reader.data
    first = [reader.item(index) for index in range(min(count, 256))]
    draws = {
        number: _first_draws(reader, number, min(_PROMPTS, row.drawn), count)
        for number, row in enumerate(account.streams)
        if row.stream.task == DepthTask.name or find_task(row.stream.task).finds_objects
    }
    template = Environment(loader=PackageLoader("cavendish.mixing.mixture", "."), autoescape=True).get_template(
        "preview.html"
    )
    template.globals.update(
        colormaps_words=colormaps_words,
        share_words=share_words,
        stream_words=stream_words,
        left_out_words=left_out_words,
    )
    return template.render(
        lock=lock,
        account=account,
        size=reader.sizes,
        kinds=_parts(account, lambda stream: stream.kind),
        compositions={
            "By task": _parts(account, lambda stream: stream.task),
            "By source": _parts(account, lambda stream: stream.source),
            "By licence of the image": _by_records(lock, account, lambda source: source.licences),
            "By shorter side of the stored image, pixels": _by_records(lock, account, lambda source: source.sizes),
        },
        prompts=_prompt_kinds(lock, account, draws),
        absent=sum(_asks_for_nothing(item) for items in draws.values() for item in items),
        askable=sum(
            len(items) for number, items in draws.items() if find_task(lock.streams[number].task).finds_objects
        ),
        looked_at=_PROMPTS,
        colors=_COLORS,
        curve=_curve(lock, count),
        first=[(item.kind, f"{item.index}: {item.source}, {item.example.task}") for item in first],
        sheet=[
            (row, _figures(reader, number, min(examples, row.drawn), count))
            for number, row in enumerate(account.streams)
            if row.drawn
        ],
        contents=[_contents(data, source, looked_at) for source in lock.sources if source.form == "raw"],
        replaced=reader.ledger.replaced,
    )


def _parts(account: Account, name: Callable[[Stream], str]) -> list[Part]:
    """Return the composition by a property of streams, the largest part first."""
    parts = [
        Part(group, float(asked / account.count), drawn / account.count, drawn)
        for group, (asked, drawn) in account.by(name).items()
    ]
    return sorted(parts, key=lambda part: -part.asked)


def _by_records(lock: Lock, account: Account, counts: Callable[[LockedSource], Mapping[str, int]]) -> list[Part]:
    """Return the composition by a property of records, of which a source has so many each: pools are dealt evenly."""
    asked: dict[str, float] = defaultdict(float)
    realised: dict[str, float] = defaultdict(float)
    of_source = account.by(lambda stream: stream.source)
    for source in lock.sources:
        total = sum(counts(source).values())
        for name, records in counts(source).items():
            due, drawn = of_source.get(source.name, (Fraction(0), 0))
            asked[name] += float(due) * records / total / account.count
            realised[name] += drawn * records / total / account.count
    return [Part(name, share, realised[name]) for name, share in sorted(asked.items(), key=lambda row: -row[1])]


def _first_draws(reader: MixtureReader, stream: int, draws: int, count: int) -> list[MixtureItem]:
    return [reader.item(index_of(reader.schedule, stream, ordinal, count)) for ordinal in range(draws)]


def _prompt_kinds(lock: Lock, account: Account, draws: Mapping[int, Sequence[MixtureItem]]) -> list[Part]:
    """Return what prompts ask for: as asked by the mixture, and as found in draws of each stream times its share."""
    asked: dict[str, float] = defaultdict(float)
    realised: dict[str, float] = defaultdict(float)
    for number, row in enumerate(account.streams):
        source = lock.source(row.stream.source)
        share = float(row.asked) / account.count
        if row.stream.task != DepthTask.name or source.form == "instructions":
            asked[row.stream.task] += share
            realised[row.stream.task] += row.drawn / account.count
            continue
        maps = source.colormaps
        if maps is None:
            maps = dict.fromkeys(COLORMAPS, COLORMAP_PROBABILITY / len(COLORMAPS))
        asked["depth, cube walk"] += share * (1 - sum(maps.values()))
        for name, part in maps.items():
            asked[f"depth, {name}"] += share * part
        for item in draws.get(number, ()):
            kind = str(item.example.spec.get("codec", "")).partition("/")[0].replace("-", " ")
            realised[f"depth, {kind}"] += row.drawn / account.count / len(draws[number])
    names = sorted(asked.keys() | realised.keys(), key=lambda name: (-asked[name], name))
    return [Part(name, asked[name], realised[name]) for name in names]


def _asks_for_nothing(item: MixtureItem) -> bool:
    """Tell whether an answer is background alone: its prompt asked for what is not there."""
    target = item.example.target
    return find_task(item.example.task).finds_objects and bool((target == target[0, 0]).all())


def _curve(lock: Lock, count: int, windows: int = 60) -> list[tuple[str, str, str]]:
    """Return for each kind its asked share and its realised one over the stream, as points of SVG lines.

    Empty when no share changes. The chart is 600 x 180; realised shares are counts over a sixtieth of the stream.
    """
    if all(len({share for _, share in stream.share}) == 1 for stream in lock.streams) or count < windows:
        return []
    schedule = lock.schedule()
    edges = [count * number // windows for number in range(windows + 1)]
    counts = np.array([schedule.counts(edge) for edge in edges], float)
    quotas = np.array([[float(schedule.quota(k, edge)) for k in range(schedule.size)] for edge in edges])
    lines = []
    for kind in _COLORS:
        numbers = [number for number, stream in enumerate(lock.streams) if stream.kind == kind]
        if numbers:
            asked, realised = (np.diff(values[:, numbers].sum(axis=1)) / np.diff(edges) for values in (quotas, counts))
            lines.append((kind, _points(asked), _points(realised)))
    return lines


def _points(shares: Sequence[float]) -> str:
    return " ".join(
        f"{600 * (number + 0.5) / len(shares):.1f},{180 * (1 - share):.1f}" for number, share in enumerate(shares)
    )


def _figures(reader: MixtureReader, stream: int, examples: int, count: int) -> list[dict[str, Any]]:
    figures = []
    for item in _first_draws(reader, stream, examples, count):
        example = item.example
        panels = [] if example.source is None else [("source", data_uri(fit(example.source, _CELL, _CELL)))]
        panels.append(("target", data_uri(fit(example.target, _CELL, _CELL))))
        figures.append({"index": item.index, "key": example.key, "prompt": example.prompt, "panels": panels})
    return figures


def _contents(data: Place, source: LockedSource, looked_at: int) -> dict[str, Any]:
    """Look at some raw records of a source: sizes, depths, instances."""
    samples = _some_samples(data, source, looked_at)
    depth = np.zeros(len(_DEPTH_EDGES) - 1)
    special = np.zeros(3)  # known pixels, no surface, unknown
    things, areas = [], []
    categories: Counter[str] = Counter()
    for sample in samples:
        if sample.depth_m is not None:
            known = np.isfinite(sample.depth_m)
            depth += np.histogram(sample.depth_m[known], _DEPTH_EDGES)[0]
            special += [known.sum(), np.isinf(sample.depth_m).sum(), np.isnan(sample.depth_m).sum()]
        objects = [instance for instance in sample.instances if instance.is_thing]
        if sample.instance_ids is not None:
            things.append(len(objects))
            areas += [instance.visible_pixels / sample.instance_ids.size for instance in objects]
        categories.update(instance.category for instance in objects)
    sizes = Counter(f"{sample.image.shape[1]} x {sample.image.shape[0]}" for sample in samples)
    return {
        "name": source.name,
        "looked_at": len(samples),
        "sizes": sizes.most_common(6),
        "depth": _depth_bars(depth) if depth.any() else [],
        "depth_shares": special / special.sum() if special.any() else special,
        "things": _count_bars(things) if things else [],
        "areas": _area_bars(areas) if areas else [],
        "categories": categories.most_common(24),
    }


def _some_samples(data: Place, source: LockedSource, looked_at: int) -> list[Sample]:
    usable = []
    for number, shard in enumerate(source.shards):
        flags = np.zeros(shard.count, bool)
        for text in shard.usable.values():
            flags |= unpack_bits(text, shard.count)
        usable += [(number, int(place)) for place in np.flatnonzero(flags)]
    chosen = [usable[len(usable) * number // looked_at] for number in range(min(looked_at, len(usable)))]
    if len(usable) <= looked_at:
        chosen = usable
    samples = []
    for number, place in chosen:
        tar = join(join(data, source.path), source.shards[number].name)
        row = read_row(with_suffix(tar, ".json"))
        key = sorted(row.samples)[place]
        with open_file(tar) as file:
            samples.append(parse_sample(key, read_parts(file, row, key)))
    return samples


def _depth_bars(counts: NDArray[np.float64]) -> list[Bar]:
    shares = counts / counts.sum()
    title = "{:.3g} to {:.3g} m: {:.1f} % of known pixels"
    titles = [title.format(low, high, 100 * share) for low, high, share in zip(_DEPTH_EDGES, _DEPTH_EDGES[1:], shares)]
    return _bars(counts, [f"{low:g}" for low in _DEPTH_EDGES], 10, titles)


def _count_bars(things: Sequence[int]) -> list[Bar]:
    most = min(max(12, *things), 30)
    counts = np.bincount(np.minimum(things, most), minlength=most + 1)
    labels = [f"{number}+" if number == most and max(things) > most else f"{number}" for number in range(most + 1)]
    return _bars(counts, labels, 2, [f"{number} objects: {count} images" for number, count in enumerate(counts)])


def _area_bars(areas: Sequence[float]) -> list[Bar]:
    edges = np.geomspace(1e-4, 1, 17)
    counts = np.histogram(np.clip(areas, 1e-4, 1), edges)[0]
    title = "{:.2g} to {:.2g} % of the image: {} objects"
    titles = [title.format(100 * low, 100 * high, count) for low, high, count in zip(edges, edges[1:], counts)]
    return _bars(counts, [f"{100 * low:g} %" for low in edges], 4, titles)


def _bars(counts: NDArray[Any], labels: Sequence[str], every: int, titles: Sequence[str]) -> list[Bar]:
    """Return the bars of a histogram, of which each `every`-th has a label."""
    shown = [label if number % every == 0 else "" for number, label in enumerate(labels)]
    return [Bar(label, count / max(1, counts.max()), title) for label, count, title in zip(shown, counts, titles)]


def share_words(share: Fraction | float) -> str:
    """Write a share as a percentage with as many digits as it needs."""
    value = 100 * float(share)
    return f"{value:.3g} %" if value < 99.95 else "100 %"


def colormaps_words(colormaps: Mapping[str, float] | None) -> str:
    """Say what depth is drawn in."""
    if colormaps is None:
        return f"{share_words(COLORMAP_PROBABILITY)} in a colour map, evenly over {len(COLORMAPS)}"
    maps = ", ".join(f"{share_words(share)} {name}" for name, share in colormaps.items())
    return f"{maps or 'no colour map'}, the rest cube walk"


def stream_words(stream: Stream) -> str:
    """Say the share of a stream in a few words: one figure, or from where to where."""
    points = [(index, Fraction(share)) for index, share in stream.share]
    if len({share for _, share in points}) == 1:
        return share_words(points[0][1])
    return f"{share_words(points[0][1])} to {share_words(points[-1][1])}"


def left_out_words(left_out: Mapping[str, int]) -> str:
    """Say how many records of a source are not drawn, and why."""
    return ", ".join(f"{count} {reason}" for reason, count in left_out.items()) or "none"
