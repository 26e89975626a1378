"""Writes shards: deterministic WebDataset tars, each committed by its row (see `mixing.shards.dataset`)."""

from __future__ import annotations

import os
import tarfile
import zlib
from collections import Counter
from contextlib import suppress
from types import TracebackType
from typing import BinaryIO

from cavendish.encoders.sample import Example, InputError, Rejection, Sample
from cavendish.mixing.shards.dataset import Facts, Row, row_bytes, shard_path
from cavendish.mixing.shards.sample_format import Parts, record_facts, record_key, record_parts
from cavendish.mixing.storage.files import writing
from cavendish.mixing.storage.place import (
    Place,
    commit,
    file_sha256,
    name_of,
    temporary_name,
    with_suffix,
    write_atomic,
)


class ShardWriter:
    """Writes one shard; leaving the `with` block without an exception commits it, with one it leaves nothing.

    Args:
        directory: of the shards, a path or a URL.
        index: number of the shard in the plan.
        plan_digest: of the plan of the directory, see `start_dataset`.

    Example:
        >>> import numpy as np
        >>> from cavendish.mixing.shards.dataset import Plan, finish_dataset, start_dataset
        >>> image, depth_m = np.zeros((32, 32, 3), np.uint8), np.full((32, 32), 2.0, np.float32)
        >>> plan = Plan("mine", shards=1, config={"version": 1})
        >>> start_dataset("raw/mine", plan)
        >>> with cavendish.ShardWriter("raw/mine", 0, plan.digest) as writer:
        ...     writer.add(cavendish.Sample("mine-000", image, "mine", "CC0-1.0", depth_m=depth_m))
        ...     writer.reject("mine-001", "the camera is inside a wall")
        >>> finish_dataset("raw/mine", plan)["records"]
        1
    """

    def __init__(self, directory: Place, index: int, plan_digest: str) -> None:
        self._path = shard_path(directory, index)
        self._plan_digest = plan_digest
        self._temporary = temporary_name(self._path)
        self._file: BinaryIO | None = None
        self._samples: dict[str, dict[str, tuple[int, int, int]]] = {}
        self._rejected: list[Rejection] = []
        self._left_aside: Counter[str] = Counter()
        self._licences: dict[str, int] = {}
        self._tasks: dict[str, int] = {}
        self._facts: dict[str, Facts] = {}

    def __enter__(self) -> ShardWriter:
        from webdataset.writer import TarWriter  # where torch is installed it imports that: only who writes pays

        with writing(self._temporary, self._path):
            self._file = self._temporary.open("wb")
        # Fixed owner, mode and time, so that equal records give equal bytes.
        self._tar = TarWriter(self._file, user="", group="", mode=0o644, mtime=0, encoder=False, keep_meta=True)
        return self

    def add(self, record: Sample | Example) -> None:
        """Append one record.

        Raises:
            InputError: its key is already in the shard, or a field cannot be stored without loss.
        """
        key = record_key(record)
        self.add_parts(key, record_parts(record))
        facts = self._facts[key] = record_facts(record)
        self._licences[facts["licence"]] = self._licences.get(facts["licence"], 0) + 1
        if isinstance(record, Example):
            self._tasks[record.task] = self._tasks.get(record.task, 0) + 1

    def add_parts(self, key: str, parts: Parts) -> None:
        """Append bytes that are no record, such as arrays computed from one.

        Raises:
            InputError: its key is already in the shard.
        """
        if key in self._samples:
            raise InputError(f"{name_of(self._path)}: key {key} twice in one shard")
        self._samples[key] = {name: self._append(key, name, data) for name, data in parts.items()}

    def reject(self, key: str, reason: str) -> None:
        """Note a sample that was not made, in the dead letters of this shard."""
        self._rejected.append(Rejection(key, reason))

    def leave_aside(self, reason: str, count: int = 1) -> None:
        """Count inputs of this shard that are none of its job's, by a reason without names."""
        self._left_aside[reason] += count

    def _append(self, key: str, name: str, data: bytes) -> tuple[int, int, int]:
        with writing(self._temporary, self._path):
            self._tar.write({"__key__": key, name: data})  # alone: of several it would sort the names
        blocks = -(-len(data) // tarfile.BLOCKSIZE)
        return self._tar.tarstream.offset - blocks * tarfile.BLOCKSIZE, len(data), zlib.crc32(data)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._file is not None
        if kind is not None:
            self._temporary.unlink(missing_ok=True)
            with suppress(OSError), self._file:  # what is still buffered, and a disk that is full
                self._tar.close()
            return
        with writing(self._temporary, self._path), self._file:
            end = self._tar.tarstream.offset
            self._tar.close()
            self._file.truncate(end + 2 * tarfile.BLOCKSIZE)  # without the padding to a record of a tape
            self._file.flush()
            os.fsync(self._file.fileno())
        row = Row(
            shard=name_of(self._path),
            plan=self._plan_digest,
            count=len(self._samples),
            bytes=self._temporary.stat().st_size,
            sha256=file_sha256(self._temporary),
            samples=self._samples,
            rejected=tuple(self._rejected),
            licences=dict(sorted(self._licences.items())),
            tasks=dict(sorted(self._tasks.items())),
            facts=self._facts,
            left_aside=dict(sorted(self._left_aside.items())),
        )
        commit(self._temporary, self._path)
        write_atomic(with_suffix(self._path, ".json"), row_bytes(row))
