"""Examples per second of a mixture at 512 px, beside other loaders on the same records with the same functions.

    python benchmarks/loader.py RAW SCRATCH [WORKERS ...]        RAW: a directory of raw shards; about ten minutes

Two kinds of work on three streams (generation, editing, depth). `decode` at 70, 29 and 1 %: reads frozen examples,
source and target PNG. `encode` at 40, 20 and 40 %: reads raw samples at 512 px and makes the example. All loaders
decode and encode with the same functions and collate to one tensor per field; webdataset is measured with its own
decoder too. Peers that are not installed are left out by name (webdataset, litdata, grain with array_record,
mosaicml-streaming): put them into an environment of their own. Trust CPU time; wall time is that of the machine as busy
as it is. Rounds are interleaved, the median counts.
"""

from __future__ import annotations

import importlib.metadata
import itertools
import json
import multiprocessing
import random
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader

from cavendish.encoders.augment import resize_sample
from cavendish.encoders.sample import Sample
from cavendish.mixing.images import decode_rgb
from cavendish.mixing.jobs.encode import EncodeConfig, encode
from cavendish.mixing.loader import MixtureDataset, MixtureStream
from cavendish.mixing.lock import Lock
from cavendish.mixing.mixture.config import Mixture
from cavendish.mixing.mixture.draw import draw_example, parse_sample_for
from cavendish.mixing.mixture.make_lock import lock_mixture
from cavendish.mixing.mixture.reader import MixtureItem
from cavendish.mixing.shards.dataset import Plan, committed_rows, finish_dataset, start_dataset
from cavendish.mixing.shards.reader import Reading, read_dataset, read_parts
from cavendish.mixing.shards.writer import ShardWriter

SIZE, BATCH, COUNT = 512, 8, 64
SAMPLES = 128  # raw samples at 512 px
STREAMS = {"generation": "generate", "editing": "edit", "vision": "depth"}
SHARES = {"decode": (0.70, 0.29, 0.01), "encode": (0.4, 0.2, 0.4)}
Record = dict[str, bytes]
Fields = tuple[Any, Any, str]


def make_decode(task: str, record: Record) -> Fields:
    """Decode a frozen example: what every loader of this comparison does with its bytes."""
    source = decode_rgb(record["source.png"], "source") if "source.png" in record else None
    return source, decode_rgb(record["target.png"], "target"), json.loads(record["instruction.json"])["prompt"]


def make_encode(task: str, record: Record) -> Fields:
    """Decode a raw sample and make the example."""
    example = draw_example(parse_sample_for(task, "key", record), task, 0, 0, SIZE)
    return example.source, example.target, example.prompt


MAKE: dict[str, Callable[[str, Record], Fields]] = {"decode": make_decode, "encode": make_encode}


def collate(fields: list[Any]) -> tuple[torch.Tensor, torch.Tensor, list[str]]:
    """Make one tensor of the sources (zeros where there is none) and one of the targets, as a training step does."""
    fields = [
        (f.example.source, f.example.target, f.example.prompt) if isinstance(f, MixtureItem) else f for f in fields
    ]
    blank = np.zeros((SIZE, SIZE, 3), np.uint8)
    sources = np.stack([blank if source is None else source for source, _, _ in fields])
    return torch.from_numpy(sources), torch.from_numpy(np.stack([f[1] for f in fields])), [f[2] for f in fields]


def prepare(raw: Path, scratch: Path, work: str) -> Lock:
    """Write RAW at 512 px, and frozen as examples, one directory a stream, and lock the mixture of them."""
    prepare_raw(raw, scratch / "raw")
    ratios = dict(zip(STREAMS, SHARES[work]))
    sources: dict[str, Any] = {}
    for kind, task in STREAMS.items():
        config = EncodeConfig.model_validate({"sources": ["raw"], "tasks": {task: 1}, "size": SIZE})
        encode(config, scratch / kind, data=scratch)
        sources[kind] = {"path": kind} if work == "decode" else {"path": "raw", "tasks": {task: 1}}
    return lock_mixture(Mixture.model_validate({"ratios": ratios, "sources": sources}), scratch)


def prepare_raw(raw: Path, directory: Path) -> None:
    """Take samples of `raw` that can be edited, at 512 px."""
    plan = Plan("benchmark", 2, {"raw": raw.name, "samples": SAMPLES})
    start_dataset(directory, plan)
    if len(committed_rows(directory)) == plan.shards:
        return
    usable = (sample for sample in read_dataset(raw) if isinstance(sample, Sample) and sample.edit is not None)
    chosen = [resize_sample(sample, SIZE, SIZE) for sample in itertools.islice(usable, SAMPLES)]
    for shard in range(plan.shards):
        with ShardWriter(directory, shard, plan.digest) as writer:
            for sample in chosen[shard :: plan.shards]:
                writer.add(sample)
    finish_dataset(directory, plan)


def records(scratch: Path, work: str, kind: str) -> Iterator[Record]:
    directory = scratch / ("raw" if work == "encode" else kind)
    for row in committed_rows(directory):
        with (directory / row.shard).open("rb") as file:
            for key in row.samples:
                yield read_parts(file, row, key)


def ours(lock: Lock, scratch: Path, work: str, workers: int, threads: int = 0) -> Iterable[Any]:
    stream = MixtureStream(lock, scratch, SIZE, batch=BATCH, reading=Reading(threads=threads))
    return DataLoader(stream, batch_size=BATCH, num_workers=workers, collate_fn=collate)


def ours_by_index(lock: Lock, scratch: Path, work: str, workers: int) -> Iterable[Any]:
    items = MixtureDataset(lock, scratch, SIZE, 0, 10**9)
    return DataLoader(items, batch_size=BATCH, sampler=range(10**9), num_workers=workers, collate_fn=collate)


def ours_in_threads(lock: Lock, scratch: Path, work: str, workers: int) -> Iterable[Any]:
    """Use as many threads of this process as others use worker processes."""
    return ours(lock, scratch, work, 0, threads=workers)


def webdataset_loader(lock: Lock, scratch: Path, work: str, workers: int) -> Iterable[Any]:
    import webdataset as wds

    parts = []
    for kind, task in STREAMS.items():
        directory = scratch / ("raw" if work == "encode" else kind)
        urls = [str(path) for path in sorted(directory.glob("*.tar"))]
        read = wds.WebDataset(urls, resampled=True, shardshuffle=False, empty_check=False)
        parts.append(read.map(partial(MAKE[work], task)))
    mixed = wds.RandomMix(parts, list(SHARES[work]))
    return DataLoader(mixed, batch_size=BATCH, num_workers=workers, collate_fn=collate)


def webdataset_own_loader(lock: Lock, scratch: Path, work: str, workers: int) -> Iterable[Any]:
    """Decode frozen examples as webdataset itself does."""
    import webdataset as wds

    if work != "decode":
        raise RuntimeError("webdataset makes no examples of its own")
    parts = []
    for kind in STREAMS:
        urls = [str(path) for path in sorted((scratch / kind).glob("*.tar"))]
        read = wds.WebDataset(urls, resampled=True, shardshuffle=False, empty_check=False).decode("rgb8")
        parts.append(read.map(_fields))
    mixed = wds.RandomMix(parts, list(SHARES[work]))
    return DataLoader(mixed, batch_size=BATCH, num_workers=workers, collate_fn=collate)


def _fields(record: dict[str, Any]) -> Fields:
    return record.get("source.png"), record["target.png"], record["instruction.json"]["prompt"]


def litdata_loader(lock: Lock, scratch: Path, work: str, workers: int) -> Iterable[Any]:
    import litdata

    parts = [
        litdata.StreamingDataset(
            str(scratch / "litdata" / work / kind), shuffle=True, transform=partial(MAKE[work], task)
        )
        for kind, task in STREAMS.items()
    ]
    weights = list(SHARES[work])
    mixed = litdata.CombinedStreamingDataset(parts, weights=weights, iterate_over_all=False)
    return litdata.StreamingDataLoader(mixed, batch_size=BATCH, num_workers=workers, collate_fn=collate)


def write_litdata(scratch: Path, work: str) -> None:
    import litdata

    for kind in STREAMS:
        folder = scratch / "litdata" / work / kind
        if not folder.exists():
            made = list(records(scratch, work, kind))
            numbers = list(range(len(made)))
            litdata.optimize(partial(_nth, made), numbers, str(folder), chunk_bytes="64MB", num_workers=1)


def _nth(made: list[Record], index: int) -> Record:
    return made[index]


def write_array_records(scratch: Path, work: str) -> None:
    import pickle

    from array_record.python.array_record_module import ArrayRecordWriter

    for kind in STREAMS:
        path = scratch / f"{work}-{kind}.arrayrecord"
        if not path.exists():
            writer = ArrayRecordWriter(str(path), "group_size:1")
            for record in records(scratch, work, kind):
                writer.write(pickle.dumps(record))
            writer.close()


def _unpickle(work: str, task: str, data: bytes) -> Fields:
    import pickle

    return MAKE[work](task, pickle.loads(data))


def grain_loader(lock: Lock, scratch: Path, work: str, workers: int) -> Iterable[Any]:
    import grain

    parts = [
        grain.MapDataset.source(grain.sources.ArrayRecordDataSource([str(scratch / f"{work}-{kind}.arrayrecord")]))
        .shuffle(seed=1)
        .repeat()
        .map(partial(_unpickle, work, task))
        for kind, task in STREAMS.items()
    ]
    mixed = grain.MapDataset.mix(parts, list(SHARES[work]))
    dataset = mixed.to_iter_dataset(grain.ReadOptions(num_threads=0)).batch(BATCH, batch_fn=collate)
    if workers:
        dataset = dataset.mp_prefetch(grain.MultiprocessingOptions(num_workers=workers))
    return dataset


def write_mds(scratch: Path, work: str) -> None:
    streaming = import_streaming()
    for kind in STREAMS:
        folder = scratch / "mds" / work / kind
        if not (folder / "index.json").exists():
            with streaming.MDSWriter(out=str(folder), columns={"task": "str", "record": "pkl"}) as writer:
                for record in records(scratch, work, kind):
                    writer.write({"task": STREAMS[kind], "record": record})


def mosaic_loader(lock: Lock, scratch: Path, work: str, workers: int) -> Iterable[Any]:
    streaming = import_streaming()
    streams = [
        streaming.Stream(local=str(scratch / "mds" / work / kind), proportion=share)
        for kind, share in zip(STREAMS, SHARES[work])
    ]
    streaming.base.util.clean_stale_shared_memory()
    dataset = streaming.StreamingDataset(
        streams=streams, batch_size=BATCH, shuffle=True, epoch_size=4096, allow_unsafe_types=True
    )
    return DataLoader(dataset, batch_size=BATCH, num_workers=workers, collate_fn=partial(_collate_mds, work))


def _collate_mds(work: str, rows: list[Any]) -> Any:
    return collate([MAKE[work](row["task"], row["record"]) for row in rows])


def import_streaming() -> Any:
    """Import mosaicml-streaming with stand-ins for torchvision and transformers.

    It imports both for classes that are not used here; the wheels of torchvision need a torch built for CUDA.
    """
    import importlib.machinery
    import sys
    import types

    class Stand(types.ModuleType):
        __path__: list[str] = []  # noqa: RUF012

        def __getattr__(self, name: str) -> Any:
            if name.startswith("__"):
                raise AttributeError(name)
            return type(name, (dict,), {})

    for name in (
        "torchvision",
        "torchvision.datasets",
        "torchvision.transforms",
        "torchvision.transforms.functional",
        "transformers",
        "transformers.feature_extraction_utils",
        "transformers.tokenization_utils_base",
        "transformers.models",
        "transformers.models.auto",
        "transformers.models.auto.tokenization_auto",
    ):
        if name not in sys.modules:
            sys.modules[name] = Stand(name)
            sys.modules[name].__spec__ = importlib.machinery.ModuleSpec(name, None)
    import streaming

    return streaming


PEERS: dict[str, tuple[Callable[[Lock, Path, str, int], Iterable[Any]], Callable[[Path, str], None] | None]] = {
    "webdataset": (webdataset_loader, None),
    "webdataset, own decoder": (webdataset_own_loader, None),
    "litdata": (litdata_loader, write_litdata),
    "grain": (grain_loader, write_array_records),
    "mosaicml-streaming": (mosaic_loader, write_mds),
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
        done += len(next(batches)[2])
    wall, used = time.perf_counter() - start, _cpu_s() - cpu
    del batches, loader
    return done / wall, used / done * 1e3


def _cpu_s() -> float:
    """CPU time of this process, of its children, and of those that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    total = sum(of.ru_utime + of.ru_stime for of in used)
    import psutil

    for child in psutil.Process().children(recursive=True):
        try:
            times = child.cpu_times()
            total += times.user + times.system
        except psutil.Error:
            continue
    return total


def main(raw: Path, scratch: Path, workers_tried: tuple[int, ...] = (0, 1, 2), rounds: int = 2) -> None:
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    scratch.mkdir(parents=True, exist_ok=True)
    for work in MAKE:
        lock = prepare(raw, scratch, work)
        made = {
            "cavendish, stream": partial(ours, lock, scratch, work),
            "cavendish, by index": partial(ours_by_index, lock, scratch, work),
            "cavendish, threads": partial(ours_in_threads, lock, scratch, work),
            **installed_peers(lock, scratch, work),
        }
        multiprocessing.set_start_method("fork", force=True)  # litdata changes it for the whole process
        for workers in workers_tried:
            tell(work, workers, compare(made, workers, rounds))


def installed_peers(lock: Lock, scratch: Path, work: str) -> dict[str, Callable[[int], Iterable[Any]]]:
    """Return the peers that are installed and give a batch here, by name and version."""
    found: dict[str, Callable[[int], Iterable[Any]]] = {}
    for name, (make, write) in PEERS.items():
        try:
            version = importlib.metadata.version(name.partition(",")[0])
            if write is not None:
                write(scratch, work)
            next(iter(make(lock, scratch, work, 0)))
            found[f"{name} ({version})"] = partial(make, lock, scratch, work)
        except (ImportError, RuntimeError, importlib.metadata.PackageNotFoundError) as error:
            print(f"{name} is left out: {str(error).splitlines()[0]}")
    return found


def compare(
    made: dict[str, Callable[[int], Iterable[Any]]], workers: int, rounds: int
) -> dict[str, list[tuple[float, float]]]:
    """Measure each loader once a round, in an order drawn anew."""
    results: dict[str, list[tuple[float, float]]] = {name: [] for name in made}
    for _ in range(rounds):
        for name in random.sample(list(results), len(results)):
            if name == "cavendish, threads" and not workers:
                results.pop(name)  # the stream itself
                continue
            try:
                results[name].append(measure(made[name], workers))
            except RuntimeError as error:
                print(f"{name} does not run with {workers} workers here: {str(error).splitlines()[0]}")
                del results[name]
    return results


def tell(work: str, workers: int, results: dict[str, list[tuple[float, float]]]) -> None:
    """Print medians, and the median over rounds of the ratio to webdataset in the same round."""
    base = next((values for name, values in results.items() if name.startswith("webdataset (")), None)
    print(f"\n{work}, {workers} workers      examples/s (wall)  CPU ms/example  CPU against webdataset", flush=True)
    for name, values in results.items():
        wall, cpu = (statistics.median(column) for column in zip(*values))
        ratio = f"{statistics.median(v[1] / b[1] for v, b in zip(values, base)):.2f}" if base else ""
        print(f"{name:26}{wall:12.1f}{cpu:18.2f}{ratio:>18}", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), tuple(map(int, sys.argv[3:])) or (0, 1, 2))
