"""A locked mixture as torch datasets: by index for any sampler, or as a resumable stream for ranks and workers."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch.utils.data import Dataset, IterableDataset, get_worker_info

from cavendish.encoders.sample import InputError
from cavendish.mixing.lock import Lock, read_lock
from cavendish.mixing.mixture.draw import Sizes
from cavendish.mixing.mixture.reader import Ledger, MixtureItem, MixtureReader
from cavendish.mixing.shards.reader import Reading

STREAM_STATE_SCHEMA = "cavendish-stream/2"  # /1 gave the ranks other rows


class MixtureDataset(Dataset[MixtureItem]):
    """A mixture by global index: `dataset[i]` is a function of (lock, i), whatever process asks, in whatever order.

    The mixture has no end; `indices` is the range [start, start + count) to hand to a DataLoader as its sampler.

    Args:
        lock: the locked mixture, or where its file is.
        data: folder, or fsspec URL of one, that the paths of the lock are relative to.
        sizes: side of the images in pixels, or (height, width) of buckets.
        reading: threads, cache, what to do about damage.

    Raises:
        InputError: a shard is not the one that was locked, or too many records are damaged.

    Example:
        >>> dataset = cavendish.MixtureDataset("mixture.lock.json", data=".", sizes=32, count=100)
        >>> item = dataset[0]
        >>> item.example.task, item.example.target.shape
        ('generate', (32, 32, 3))
    """

    def __init__(
        self,
        lock: Lock | Path | str,
        data: Path | str,
        sizes: Sizes,
        start: int = 0,
        count: int | None = None,
        reading: Reading | None = None,
    ) -> None:
        self.reader = MixtureReader(lock if isinstance(lock, Lock) else read_lock(lock), data, sizes, reading)
        self.start = start
        self.count = count

    @property
    def indices(self) -> range:
        """The global indices of this dataset."""
        if self.count is None:
            raise InputError("a mixture has no end: give MixtureDataset a count, or a sampler of global indices")
        return range(self.start, self.start + self.count)

    @property
    def ledger(self) -> Ledger:
        """What this process drew and had to replace; items read by DataLoader workers carry theirs in `replaced`."""
        return self.reader.ledger

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> MixtureItem:
        return self.reader.item(index)

    def __iter__(self) -> Iterator[MixtureItem]:
        return self.reader.items(self.indices)


class MixtureStream(IterableDataset[MixtureItem]):
    """What one rank reads of a mixture, endless and resumable: works under DataLoader and StatefulDataLoader.

    All ranks read one stream: global batch b has `world` times `batch` indices in a row, of which rank r reads the
    rows from r times `batch` on. The stream, and its exact ratios, are the same for any number of ranks. A
    DataLoader takes turns among its workers with batches: set `batch` to its batch size (1 when it has none), and
    what comes out does not depend on the number of workers.

        stream = MixtureStream(lock, data, 512, rank, world, batch=16)
        place = MixtureStream(lock, data, 512, rank, world, batch=16)   # where the training loop is
        ... load_state_dict of both, when resuming ...
        for items in DataLoader(stream, batch_size=16, num_workers=4, collate_fn=list):
            train_step(items)
            place.advance(16)                                           # its state_dict goes into the checkpoint

    Args:
        rank, world: which rank of how many.
        batch: examples of this rank in a global batch; a worker yields so many before it is another worker's turn.
        start: global index to start at.

    Raises:
        InputError: no such rank, a batch below 1, or a start below 0.
    """

    def __init__(
        self,
        lock: Lock,
        data: Path | str,
        sizes: Sizes,
        rank: int = 0,
        world: int = 1,
        batch: int = 1,
        start: int = 0,
        reading: Reading | None = None,
    ) -> None:
        if not 0 <= rank < world:
            raise InputError(f"rank {rank} of {world}: ranks go from 0 to {world - 1}")
        if batch < 1 or start < 0:
            raise InputError(f"batch {batch}, start {start}: a batch has 1 example or more, and a mixture starts at 0")
        self.reader = MixtureReader(lock, data, sizes, reading)
        self._rank, self._world, self._batch, self._start = rank, world, batch, start
        self._taken = 0  # examples of this rank that are behind us, those of other workers included
        self._origin = 0  # where the workers' turns are counted from

    def index(self, number: int) -> int:
        """Return the global index of example `number` of this rank."""
        batch, row = divmod(number, self._batch)
        return self._start + (batch * self._world + self._rank) * self._batch + row

    def __iter__(self) -> Iterator[MixtureItem]:
        info = get_worker_info()
        worker, workers = (0, 1) if info is None else (info.id, info.num_workers)
        numbers, ahead = itertools.tee(
            number
            for number in itertools.count(self._taken)
            if (number - self._origin) // self._batch % workers == worker
        )
        for number, item in zip(numbers, self.reader.items(map(self.index, ahead))):
            self._taken = number + 1
            yield item

    def advance(self, count: int) -> None:
        """Move on by `count` examples without reading them.

        A copy of the stream that is advanced by what the training loop has used is the state to put into a checkpoint:
        it knows nothing of workers and their read-ahead, and can be resumed with another number of them.
        """
        self._taken += count
        self._origin = self._taken

    @property
    def position(self) -> int:
        """The global index up to which all ranks have read, when they took as many examples as this one."""
        return self._start + self._taken // self._batch * self._batch * self._world

    def state_dict(self) -> dict[str, Any]:
        """Return where this stream is, json-able."""
        place = {"start": self._start, "taken": self._taken, "origin": self._origin}
        return {"schema": STREAM_STATE_SCHEMA, **self._layout(), **place}

    def _layout(self) -> dict[str, Any]:
        """Return what has to be the same for a state to mean the same examples."""
        return {"lock": self.reader.lock.digest, "rank": self._rank, "world": self._world, "batch": self._batch}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state` was taken.

        Raises:
            InputError: the state is of another lock, rank, number of ranks or batch, or of an older version.
        """
        if state.get("schema") != STREAM_STATE_SCHEMA:
            raise InputError(f"not a {STREAM_STATE_SCHEMA} state: {state.get('schema')!r}: start a new stream")
        for name, value in self._layout().items():
            if state[name] != value:
                raise InputError(
                    f"this state is of {name} {str(state[name])[:12]}, this stream of {name} {str(value)[:12]}: go on "
                    "with the one it started with, or start a new stream at the global index the old run had reached"
                )
        self._start, self._taken, self._origin = state["start"], state["taken"], state["origin"]
