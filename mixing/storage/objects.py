"""Objects at fsspec URLs: read, written and checked, listed, deleted.

The file systems of fsspec retry some errors of some servers. Here every kind of failure that may pass is retried, a
bounded number of times, and a reply cut short counts as one. What a server refuses (credentials, permission, no such
bucket) is an error at once. An object that was written is compared with what was sent before it counts as written.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from cavendish.encoders.sample import InputError
from cavendish.mixing.extras import missing_extra
from cavendish.mixing.storage import files
from cavendish.mixing.storage.files import MissingFile, digest, is_alive

PART_BYTES = 16 << 20
"""Of an upload to S3: a file of two parts or more is sent in parts, so that a fault costs one of them."""
_PARTS_AT_ONCE = 4
_MOST_PARTS = 10_000
_BLOCK_BYTES = 8 << 20
_FILES_AT_ONCE = 64
_FINAL_ERRORS = frozenset(
    (
        *("NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError", "ProfileNotFound"),
        *("TokenRetrievalError", "UnauthorizedSSOTokenError", "SSOTokenLoadError", "NoRegionError"),
        *("ParamValidationError", "DefaultCredentialsError", "ClientAuthenticationError"),
    )
)
"""Errors of the clients of S3, GCS and Azure that no retry helps, by name, since none of them need be installed."""

Value = TypeVar("Value")


class MissingBucket(MissingFile):
    """Not even the bucket of a file is there."""


class Unreachable(InputError):
    """An object could not be read or written in all attempts: nothing is known of its bytes."""


class Refused(Unreachable):
    """A server, or its client, says no: credentials, permission, an invalid name."""


@dataclass(frozen=True)
class Retry:
    """How often a server is asked.

    Args:
        attempts: until the object is given up.
        backoff_s: wait after the first failure; twice as long after each further one.
        failures: counts them by URL.
    """

    attempts: int = 5
    backoff_s: float = 0.5
    failures: Counter[str] = field(default_factory=Counter)


RETRY = Retry()


def ask(url: str, what: Callable[[Any, str], Value], doing: str = "read", retry: Retry | None = None) -> Value:
    """Return `what(file system, path)`, retried after a failure that may pass.

    Args:
        doing: for the message: "read" or "written".
        retry: `RETRY` unless given.

    Raises:
        MissingFile: it is not there.
        Refused: no retry helps.
        Unreachable: every attempt failed; the message has the last error and the number of attempts.
    """
    import fsspec  # not needed, and not paid for, where every path is of this machine

    retry = RETRY if retry is None else retry
    reason = ""
    for attempt in range(retry.attempts):
        try:
            # A listing is never kept: other processes write too. Writers have connections of their own: aiohttp 3.14
            # can leave one that it read from deaf, and a write would wait on it for ever for "100 Continue".
            own = {"listings_expiry_time": 1.0} if doing == "written" else {}
            return what(*fsspec.core.url_to_fs(url, use_listings_cache=False, **own))
        except InputError:
            raise
        except Exception as error:  # every kind of server has its own errors
            _raise_final(url, doing, error)
            retry.failures[url] += 1
            reason = f"{type(error).__name__} {_one_line(error)}".strip()
            if attempt + 1 < retry.attempts:
                time.sleep(retry.backoff_s * 2**attempt)
    raise Unreachable(f"{url}: could not be {doing} in {retry.attempts} attempts; the last: {reason}")


def _raise_final(url: str, doing: str, error: Exception) -> None:
    """Raise what an error means, if no retry helps."""
    name, text = type(error).__name__, _one_line(error)
    if isinstance(error, FileNotFoundError):
        if "bucket does not exist" in text:
            raise MissingBucket(f"{url}: not there: its bucket does not exist") from None
        raise MissingFile(f"{url}: not there") from None
    if isinstance(error, ImportError):
        cause = error.__cause__  # fsspec's own words do not name the extra
        missing = missing_extra(cause) if isinstance(cause, ImportError) else None
        raise Refused(f"{url}: {missing or text}") from None
    if isinstance(error, PermissionError):
        raise Refused(f"{url}: may not be {doing}: {text}; check the credentials") from None
    cut_short = isinstance(error, (json.JSONDecodeError, UnicodeDecodeError))
    if name in _FINAL_ERRORS or (isinstance(error, ValueError) and not cut_short):
        raise Refused(f"{url}: cannot be {doing}: {text or name}") from None


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]


def read(url: str) -> bytes:
    """Return all bytes of a small object."""
    return ask(url, lambda system, path: bytes(system.cat_file(path)))


def read_json(url: str) -> Any:
    """Return what a json object holds; a reply cut short is no json, and is read again."""
    return ask(url, lambda system, path: json.loads(system.cat_file(path)))


def read_range(url: str, start: int, end: int, retry: Retry | None = None) -> bytes:
    """Return bytes start to end of an object: all of them, or it is Unreachable."""

    def get(system: Any, path: str) -> bytes:
        data = bytes(system.cat_file(path, start=start, end=end))
        if len(data) != end - start:
            raise OSError(f"{len(data)} bytes came where {end - start} were asked for")
        return data

    return ask(url, get, retry=retry) if end > start else b""


def read_many(urls: Sequence[str]) -> Iterator[bytes]:
    """Yield the bytes of small json objects of one server, in order, many read at a time."""
    for start in range(0, len(urls), _FILES_AT_ONCE):
        some = urls[start : start + _FILES_AT_ONCE]

        def fetch(system: Any, _: str, some: Sequence[str] = some) -> list[Any]:
            paths = [system._strip_protocol(url) for url in some]
            return list(system.cat_ranges(paths, None, None, on_error="return"))

        for url, data in zip(some, ask(some[0], fetch), strict=True):
            # What failed, or was cut short (a json map ends in a brace), is read again, alone.
            yield data if isinstance(data, bytes) and data.endswith(b"}") else read(url)


def size(url: str, retry: Retry | None = None) -> int:
    """Return the size of an object in bytes."""

    def measure(system: Any, path: str) -> int:
        found = system.size(path)
        if found is None:
            raise OSError("the server does not tell the size of the file")
        return int(found)

    return ask(url, measure, retry=retry)


def is_file(url: str) -> bool:
    """Tell whether an object, rather than a folder or nothing, is there."""
    return ask(url, lambda system, path: bool(system.isfile(path)))


def sha256(url: str) -> str:
    """Return the sha256 of an object of any size, in hex."""
    return ask(url, _sha256)


def _sha256(system: Any, path: str) -> str:
    found, length = hashlib.sha256(), 0
    expected = int(system.info(path)["size"])
    with system.open(path, "rb", cache_type="none") as file:
        while block := file.read(_BLOCK_BYTES):
            found.update(block)
            length += len(block)
    if length != expected:
        raise OSError(f"{length} bytes came where {expected} were to")
    return found.hexdigest()


def sizes(url: str) -> dict[str, int]:
    """Return the size in bytes of everything in a folder, by name; empty where there is no folder."""
    return _below(url, lambda system, path: system.ls(path, detail=True))


def tree(url: str) -> list[str]:
    """List every object below a folder, by its path in that folder, sorted."""
    return sorted(_below(url, lambda system, path: list(system.find(path, detail=True).values())))


def _below(url: str, look: Callable[[Any, str], list[dict[str, Any]]]) -> dict[str, int]:
    def below(system: Any, path: str) -> dict[str, int]:
        root = path.rstrip("/") + "/"
        found = {str(entry["name"]).rstrip("/"): int(entry["size"] or 0) for entry in look(system, path)}
        return {name.removeprefix(root): size for name, size in found.items() if name.startswith(root)}

    try:
        return ask(url, below)
    except MissingBucket:
        raise
    except MissingFile:
        return {}


def write(url: str, data: bytes) -> None:
    """Put an object of a few megabytes: it holds its old bytes or all of `data`, and is checked."""
    tag = hashlib.md5(data, usedforsecurity=False).hexdigest()
    _put(url, lambda system, path: system.pipe_file(path, data), len(data), {tag}, hashlib.sha256(data).hexdigest())


def upload(file: Path, url: str) -> None:
    """Put a file of any size, in parts when it is large; the object holds its old bytes or all of the file's."""
    length = file.stat().st_size
    part = _part_bytes(length)
    if length < 2 * part:  # s3fs would send it as an open file, for which aiohttp can wait for ever (100-continue)
        write(url, file.read_bytes())
        return

    def send(system: Any, path: str) -> None:
        in_parts = {"chunksize": part, "max_concurrency": _PARTS_AT_ONCE} if "s3" in system.protocol else {}
        system.put_file(str(file), path, **in_parts)

    _put(url, send, length, *_digests(file, part))


def _put(url: str, send: Callable[[Any, str], None], length: int, tags: set[str], whole: str) -> None:
    def put(system: Any, path: str) -> None:
        send(system, path)
        _check(system, path, length, tags, whole)

    try:
        ask(url, put, "written")
    except MissingFile:
        raise Refused(f"{url}: cannot be written: its bucket does not exist") from None


def _part_bytes(length: int) -> int:
    return max(PART_BYTES, math.ceil(length / _MOST_PARTS))


def _digests(file: Path, part: int) -> tuple[set[str], str]:
    """Return the tags that S3 may give a file, sent as one or in parts of that size, and its sha256."""
    whole, md5, parts = hashlib.sha256(), hashlib.md5(usedforsecurity=False), []
    with file.open("rb") as stream:
        while block := stream.read(part):
            whole.update(block)
            md5.update(block)
            parts.append(hashlib.md5(block, usedforsecurity=False).digest())
    of_parts = hashlib.md5(b"".join(parts), usedforsecurity=False).hexdigest()
    return {md5.hexdigest(), f"{of_parts}-{len(parts)}"}, whole.hexdigest()


def _check(system: Any, path: str, length: int, tags: set[str], whole: str) -> None:
    """Compare an object with what is here: by its size and tag where the server has one, else by reading it."""
    found = system.info(path)
    if int(found["size"]) != length:
        raise OSError(f"{length} bytes are here, {found['size']} there")
    if str(found.get("ETag", "")).strip('"') not in tags and _sha256(system, path) != whole:
        raise OSError(f"{length} bytes are here and there, but not the same")


def download(url: str, file: Path, size: int | None = None) -> None:
    """Copy an object to a file, which is complete or not there.

    Args:
        size: which it has to have; None: it is compared by its tag, or else by reading it once more.
    """
    temporary = files.temporary_name(file)

    def get(system: Any, path: str) -> None:
        system.get_file(path, str(temporary))
        length = temporary.stat().st_size
        if size is None:
            _check(system, path, length, *_digests(temporary, _part_bytes(length)))
        elif length != size:
            raise OSError(f"{length} of {size} bytes came")
        with temporary.open("rb") as copied:
            os.fsync(copied.fileno())

    try:
        ask(url, get)
        files.rename(temporary, file)
    finally:
        temporary.unlink(missing_ok=True)


def delete(url: str) -> None:
    """Delete an object, which may be gone already."""
    with contextlib.suppress(MissingFile):
        ask(url, lambda system, path: system.rm_file(path), "deleted")


def temporary_name(url: str) -> Path:
    """Name the file on a local disk that becomes an object; a thread is found alive as a process is."""
    folder, _, name = url.rpartition("/")
    return Path(tempfile.gettempdir()) / f"{_temporary_prefix(folder)}-{name}.tmp-{threading.get_native_id()}"


def _temporary_prefix(folder: str) -> str:
    return f"cavendish-{digest(folder)[:16]}"


def collect_leftovers(folder: str) -> None:
    """Delete what killed processes left on the way to the objects of a folder: local files, and uploads in parts.

    What may be of a process that still works is left alone: files of one that is alive, uploads younger than a day.
    """
    for path in Path(tempfile.gettempdir()).glob(f"{_temporary_prefix(folder)}-*.tmp-*"):
        if not is_alive(int(path.name.rpartition("-")[2])):
            path.unlink(missing_ok=True)
    # Only tidying: a server that cannot, or an account that may not, list uploads is no reason not to work.
    with contextlib.suppress(Unreachable):
        end_uploads(folder, older_than_s=24 * 3600.0)


def end_uploads(folder: str, older_than_s: float) -> int:
    """End the unfinished multipart uploads to objects of a folder on S3: their parts are stored, and cost.

    Args:
        older_than_s: younger ones may be of another process at work.

    Returns:
        how many there were; 0 for servers that have no such thing.
    """

    def end(system: Any, path: str) -> int:
        if "s3" not in system.protocol:
            return 0
        bucket, key, _ = system.split_path(f"{path}/")
        now = datetime.now(UTC)
        found = [
            (upload["Key"], upload["UploadId"])
            for upload in system.call_s3("list_multipart_uploads", Bucket=bucket, Prefix=key).get("Uploads", [])
            if (now - upload["Initiated"]).total_seconds() >= older_than_s
        ]
        for name, upload in found:
            system.call_s3("abort_multipart_upload", Bucket=bucket, Key=name, UploadId=upload)
        return len(found)

    return ask(folder, end, "cleared of unfinished uploads", Retry(attempts=2, backoff_s=RETRY.backoff_s))
