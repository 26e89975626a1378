"""Examples per second of a mixture at 512 px, beside other loaders on the same records with the same decoder.

    python benchmarks/loader.py RAW SCRATCH [WORKERS ...]        RAW: a directory of raw shards; about three minutes

Three streams at 70, 29 and 1 %: reading, checking, decoding source and target, parsing the instruction. Peers that are
not installed are left out (webdataset, litdata, grain with array_record: put them into an environment of their own).
Trust CPU time; wall time is that of the machine as busy as it is. Rounds are interleaved, the median counts.
"""

from __future__ import annotations

import importlib.metadata
import itertools
import json
import random
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader

from mixing.images import decode_rgb
from mixing.job import EncodeConfig, encode
from mixing.loader import MixtureDataset, MixtureStream
from mixing.lock import Lock
from mixing.mixture import Mixture, lock_mixture
from mixing.shards import committed_rows, read_parts

SIZE, BATCH, COUNT = 512, 8, 192
STREAMS = {"generation": ("generate", 0.70), "editing": ("edit", 0.29), "vision": ("depth", 0.01)}
Record = dict[str, bytes]


def decode(record: Record) -> tuple[Any, ...]:
    """Decode one record: what every loader of this comparison does with its bytes."""
    source = decode_rgb(record["source.png"], "source") if "source.png" in record else None
    return source, decode_rgb(record["target.png"], "target"), json.loads(record["instruction.json"])["prompt"]


def as_is(items: list[Any]) -> list[Any]:
    return items


def prepare(raw: Path, scratch: Path) -> Lock:
    """Freeze RAW at 512 px, one directory a stream, and lock the mixture of them."""
    for kind, (task, _) in STREAMS.items():
        config = EncodeConfig.model_validate({"sources": [raw.resolve()], "tasks": {task: 2}, "size": SIZE})
        encode(config, scratch / kind, data=scratch)
    ratios = {kind: share for kind, (_, share) in STREAMS.items()}
    sources = {kind: {"path": kind} for kind in STREAMS}
    return lock_mixture(Mixture.model_validate({"ratios": ratios, "sources": sources}), scratch)


def records(scratch: Path, kind: str) -> Iterator[Record]:
    for row in committed_rows(scratch / kind):
        with (scratch / kind / row.shard).open("rb") as file:
            for key in row.samples:
                yield read_parts(file, row, key)


def ours(lock: Lock, scratch: Path, workers: int) -> Iterable[Any]:
    stream = MixtureStream(lock, scratch, SIZE, batch=BATCH)
    return DataLoader(stream, batch_size=BATCH, num_workers=workers, collate_fn=as_is)


def ours_by_index(lock: Lock, scratch: Path, workers: int) -> Iterable[Any]:
    items = MixtureDataset(lock, scratch, SIZE, 0, 10**9)
    return DataLoader(items, batch_size=BATCH, sampler=range(10**9), num_workers=workers, collate_fn=as_is)


def webdataset_loader(lock: Lock, scratch: Path, workers: int) -> Iterable[Any]:
    import webdataset as wds

    parts = []
    for kind in STREAMS:
        urls = [str(path) for path in sorted((scratch / kind).glob("*.tar"))]
        parts.append(wds.WebDataset(urls, resampled=True, shardshuffle=False).map(decode))
    mixed = wds.RandomMix(parts, [share for _, share in STREAMS.values()])
    return DataLoader(mixed, batch_size=BATCH, num_workers=workers, collate_fn=as_is)


def litdata_loader(lock: Lock, scratch: Path, workers: int) -> Iterable[Any]:
    import litdata

    parts = [
        litdata.StreamingDataset(str(scratch / "litdata" / kind), shuffle=True, transform=decode) for kind in STREAMS
    ]
    weights = [share for _, share in STREAMS.values()]
    mixed = litdata.CombinedStreamingDataset(parts, weights=weights, iterate_over_all=False)
    return litdata.StreamingDataLoader(mixed, batch_size=BATCH, num_workers=workers, collate_fn=as_is)


def write_litdata(scratch: Path) -> None:
    import litdata

    for kind in STREAMS:
        folder = scratch / "litdata" / kind
        if not folder.exists():
            pairs = list(range(sum(1 for _ in records(scratch, kind))))
            made = list(records(scratch, kind))
            litdata.optimize(partial(_nth, made), pairs, str(folder), chunk_bytes="64MB", num_workers=1)


def _nth(made: list[Record], index: int) -> Record:
    return made[index]


def write_array_records(scratch: Path) -> None:
    import pickle

    from array_record.python.array_record_module import ArrayRecordWriter

    for kind in STREAMS:
        path = scratch / f"{kind}.arrayrecord"
        if not path.exists():
            writer = ArrayRecordWriter(str(path), "group_size:1")
            for record in records(scratch, kind):
                writer.write(pickle.dumps(record))
            writer.close()


def _unpickle(data: bytes) -> tuple[Any, ...]:
    import pickle

    return decode(pickle.loads(data))


def grain_loader(lock: Lock, scratch: Path, workers: int) -> Iterable[Any]:
    import grain

    parts = [
        grain.MapDataset.source(grain.sources.ArrayRecordDataSource([str(scratch / f"{kind}.arrayrecord")]))
        .shuffle(seed=1)
        .repeat()
        for kind in STREAMS
    ]
    mixed = grain.MapDataset.mix(parts, [share for _, share in STREAMS.values()]).map(_unpickle)
    dataset = mixed.to_iter_dataset(grain.ReadOptions(num_threads=0)).batch(BATCH, batch_fn=as_is)
    if workers:
        dataset = dataset.mp_prefetch(grain.MultiprocessingOptions(num_workers=workers))
    return dataset


PEERS: dict[str, tuple[Callable[[Lock, Path, int], Iterable[Any]], Callable[[Path], None] | None]] = {
    "webdataset": (webdataset_loader, None),
    "litdata": (litdata_loader, write_litdata),
    "grain": (grain_loader, write_array_records),
}


def measure(make: Callable[[int], Iterable[Any]], workers: int, count: int = COUNT) -> tuple[float, float]:
    """Return examples per wall second, and CPU ms per example of this process and its workers, after a warm-up."""
    loader = make(workers)
    batches = itertools.chain.from_iterable(itertools.repeat(loader))  # some peers end when a stream is exhausted
    for _ in range(2 + 2 * workers):
        next(batches)
    start, cpu = time.perf_counter(), _cpu_s()
    done = 0
    while done < count:
        done += len(next(batches))
    wall, used = time.perf_counter() - start, _cpu_s() - cpu
    del batches, loader
    return done / wall, used / done * 1e3


def _cpu_s() -> float:
    own = resource.getrusage(resource.RUSAGE_SELF)
    total = own.ru_utime + own.ru_stime
    import psutil

    for child in psutil.Process().children(recursive=True):
        try:
            times = child.cpu_times()
            total += times.user + times.system
        except psutil.Error:
            continue
    return total


def main(raw: Path, scratch: Path, workers_tried: tuple[int, ...] = (0, 1, 2), rounds: int = 3) -> None:
    torch.set_num_threads(1)
    scratch.mkdir(parents=True, exist_ok=True)
    lock = prepare(raw, scratch)
    made: dict[str, Callable[[int], Iterable[Any]]] = {
        "cavendish, stream": partial(ours, lock, scratch),
        "cavendish, by index": partial(ours_by_index, lock, scratch),
    }
    for name, (make, write) in PEERS.items():
        try:
            version = importlib.metadata.version(name)
            if write is not None:
                write(scratch)
            next(iter(make(lock, scratch, 0)))
            made[f"{name} {version}"] = partial(make, lock, scratch)
        except (ImportError, importlib.metadata.PackageNotFoundError) as error:
            print(f"{name} is left out: {error}")
    for workers in workers_tried:
        results: dict[str, list[tuple[float, float]]] = {name: [] for name in made}
        for _ in range(rounds):
            for name in random.sample(list(results), len(results)):
                try:
                    results[name].append(measure(made[name], workers))
                except RuntimeError as error:
                    print(f"{name} does not run with {workers} workers here: {str(error).splitlines()[0]}")
                    del results[name]
        print(f"\n{workers} workers            examples/s (wall)   CPU ms/example   CPU against webdataset")
        base = next(
            (statistics.median(c for _, c in v) for n, v in results.items() if n.startswith("webdataset")), None
        )
        for name, values in results.items():
            wall, cpu = (statistics.median(column) for column in zip(*values))
            ratio = f"{cpu / base:.2f}" if base else ""
            print(f"{name:24}{wall:10.1f}{cpu:20.2f}{ratio:>20}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), tuple(map(int, sys.argv[3:])) or (0, 1, 2))
