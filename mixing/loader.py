"""A locked mixture as torch datasets: by index for any sampler, or as a resumable stream for ranks and workers."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch.utils.data import Dataset, IterableDataset, get_worker_info

from cavendish.encoders.sample import InputError
from cavendish.mixing.lock import Lock
from cavendish.mixing.mixture.deal import Dealer
from cavendish.mixing.mixture.draw import Sizes
from cavendish.mixing.mixture.reader import Ledger, MixtureItem, MixtureReader
from cavendish.mixing.shards.reader import Reading

STREAM_STATE_SCHEMA = "cavendish-stream/1"


class MixtureDataset(Dataset[MixtureItem]):
    """A mixture by global index: `dataset[i]` is a function of (lock, i), whatever process asks, in whatever order.

    The mixture has no end; `indices` is the range [start, start + count) to hand to a DataLoader as its sampler.

    Args:
        lock: the locked mixture.
        data: folder, or fsspec URL of one, that the paths of the lock are relative to.
        sizes: side of the pictures in pixels, or (height, width) of buckets.
        reading: threads, cache, what to do about damage.

    Raises:
        InputError: a shard is not the one that was locked, or too many records are damaged.
    """

    def __init__(
        self,
        lock: Lock,
        data: Path | str,
        sizes: Sizes,
        start: int = 0,
        count: int | None = None,
        reading: Reading | None = None,
    ) -> None:
        self.reader = MixtureReader(lock, data, sizes, reading)
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

    Each `world` indices in a row go one to each rank, such that every rank has its part of every source (see
    `mixing.mixture.deal`). A DataLoader takes turns among its workers with whole batches: set `batch` to its batch
    size (1 when it has none), and what comes out does not depend on the number of workers.

        stream = MixtureStream(lock, data, 512, rank, world, batch=16)
        place = MixtureStream(lock, data, 512, rank, world, batch=16)   # where the training loop is
        ... load_state_dict of both, when resuming ...
        for items in DataLoader(stream, batch_size=16, num_workers=4, collate_fn=list):
            train_step(items)
            place.advance(16)                                           # its state_dict goes into the checkpoint

    Args:
        rank, world: which rank of how many.
        batch: elements that a worker yields before it is another worker's turn.
        start: global index to start at, a multiple of `world`.
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
        self.reader = MixtureReader(lock, data, sizes, reading)
        self._batch = batch
        self._taken = 0  # elements of this rank that are behind us, those of other workers included
        self._origin = 0  # where the workers' turns are counted from
        self._dealer = Dealer(lock.schedule(), rank, world, start)

    def __iter__(self) -> Iterator[MixtureItem]:
        info = get_worker_info()
        worker, workers = (0, 1) if info is None else (info.id, info.num_workers)
        ahead = copy.deepcopy(self._dealer)  # may be read further than this stream has come
        mine = (
            index
            for turn, index in enumerate(ahead, self._taken - self._origin)
            if turn // self._batch % workers == worker
        )
        for item in self.reader.items(mine):
            index = -1
            while index != item.index:
                index = next(self._dealer)
                self._taken += 1
            yield item

    def advance(self, count: int) -> None:
        """Move on by `count` elements without reading them.

        A copy of the stream that is advanced by what the training loop has used is the state to put into a checkpoint:
        it knows nothing of workers and their read-ahead, and can be resumed with another number of them.
        """
        for _ in range(count):
            next(self._dealer)
        self._taken += count
        self._origin = self._taken

    @property
    def position(self) -> int:
        """The global index up to which all ranks have read, when they took as many elements as this one."""
        return self._dealer.position

    def state_dict(self) -> dict[str, Any]:
        """Return where this stream is: a few kilobytes, json-able, whatever the position."""
        return {
            "schema": STREAM_STATE_SCHEMA,
            "lock": self.reader.lock.digest,
            "taken": self._taken,
            "origin": self._origin,
            "dealer": self._dealer.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state` was taken; the cost does not depend on the position.

        Raises:
            InputError: the state is of another lock, rank or number of ranks.
        """
        if state.get("schema") != STREAM_STATE_SCHEMA:
            raise InputError(f"not a {STREAM_STATE_SCHEMA} state: {state.get('schema')!r}")
        if state["lock"] != self.reader.lock.digest:
            raise InputError(
                f"this state is of lock {state['lock'][:12]}, the mixture is now {self.reader.lock.digest[:12]}: go on "
                "with the lock it started with, or start a new stream at the index it had reached"
            )
        self._taken, self._origin = state["taken"], state["origin"]
        self._dealer.load_state_dict(state["dealer"])
