"""All readers of files from outside."""

from __future__ import annotations

from tests.fuzz import asset_readers, evidence_readers, model_readers, picture_readers, shard_readers
from tests.fuzz.readers import Reader

READERS: tuple[Reader, ...] = (
    *shard_readers.READERS,
    *picture_readers.READERS,
    *asset_readers.READERS,
    *model_readers.READERS,
    *evidence_readers.READERS,
)
