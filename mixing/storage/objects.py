"""Objects at fsspec URLs: read, written whole and checked, listed, deleted.

A server may fail, be slow, or cut a reply short: what it is asked is asked again, a bounded number of times, and then
given up with one line. What it refuses (credentials, permission, no such bucket) is told at once. An object that was
written is compared with what was sent before anybody is told that it is there.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from cavendish.encoders.sample import InputError
from cavendish.mixing.extras import missing_extra

ATTEMPTS = 5
BACKOFF_S = 0.5
PART_BYTES = 16 << 20
"""Of an upload to S3: a file of two parts or more is sent in parts, so that a fault costs one of them."""
_PARTS_AT_ONCE = 4
_MOST_PARTS = 10_000
_BLOCK_BYTES = 8 << 20
_ROWS_AT_ONCE = 64
_NO_USE_TO_ASK_AGAIN = frozenset(
    (
        *("NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError", "ProfileNotFound"),
        *("TokenRetrievalError", "UnauthorizedSSOTokenError", "SSOTokenLoadError", "NoRegionError"),
        *("ParamValidationError", "DefaultCredentialsError", "ClientAuthenticationError"),
    )
)
"""Errors of the clients of S3, GCS and Azure, by name, since none of them need be installed."""

Value = TypeVar("Value")

retries: Counter[str] = Counter()
"""How often this process had to ask again, by URL."""


class MissingFile(InputError):
    """A remote file is not there."""


class MissingBucket(MissingFile):
    """Not even the bucket of a remote file is there."""


class Unreachable(InputError):
    """A remote file could not be read or written, however often it was tried: nothing is known of its bytes."""


class Refused(Unreachable):
    """A server, or its client, says no: credentials, permission, a name that cannot be."""


def is_url(path: object) -> bool:
    """Tell whether a path is an fsspec URL rather than a folder of this machine."""
    return "://" in str(path)


def ask(
    url: str,
    what: Callable[[Any, str], Value],
    doing: str = "read",
    attempts: int | None = None,
    backoff_s: float | None = None,
    counts: Counter[str] = retries,
) -> Value:
    """Return `what(file system, path)`, tried again after a failure that may pass.

    Args:
        doing: for the message: "read" or "written".
        attempts: how often it is tried; `ATTEMPTS` unless told.
        backoff_s: wait after the first failure, `BACKOFF_S` unless told; twice as long after each further one.
        counts: gets one under the URL for each failure.

    Raises:
        MissingFile: it is not there.
        Refused: there is no use in asking again.
        Unreachable: every attempt failed; the message says why and how often.
    """
    import fsspec  # not needed, and not paid for, where every path is of this machine

    attempts = ATTEMPTS if attempts is None else attempts
    backoff_s = BACKOFF_S if backoff_s is None else backoff_s
    reason = ""
    for attempt in range(attempts):
        try:
            # A listing is never kept: other processes write too. Writers have connections of their own: aiohttp 3.14
            # can leave one that it read from deaf, and a write would wait on it for ever for "100 Continue".
            own = {"listings_expiry_time": 1.0} if doing == "written" else {}
            return what(*fsspec.core.url_to_fs(url, use_listings_cache=False, **own))
        except InputError:
            raise
        except FileNotFoundError as error:
            if "bucket does not exist" in _words(error):
                raise MissingBucket(f"{url}: not there: its bucket does not exist") from None
            raise MissingFile(f"{url}: not there") from None
        except ImportError as error:
            raise Refused(f"{url}: {_missing(error)}") from None
        except PermissionError as error:
            raise Refused(f"{url}: may not be {doing}: {_words(error)}; check the credentials") from None
        except Exception as error:  # every kind of server has its own errors
            name = type(error).__name__
            if name in _NO_USE_TO_ASK_AGAIN or (isinstance(error, ValueError) and not _is_torn(error)):
                raise Refused(f"{url}: cannot be {doing}: {_words(error) or name}") from None
            counts[url] += 1
            reason = f"{name} {_words(error)}".strip()
            if attempt + 1 < attempts:
                time.sleep(backoff_s * 2**attempt)
    raise Unreachable(f"{url}: could not be {doing} in {attempts} attempts; the last: {reason}")


def _missing(error: ImportError) -> str:
    cause = error.__cause__  # fsspec's own words do not name the extra
    return str((missing_extra(cause) if isinstance(cause, ImportError) else None) or _words(error))


def _words(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]


def _is_torn(error: ValueError) -> bool:
    return isinstance(error, (json.JSONDecodeError, UnicodeDecodeError))


def read(url: str) -> bytes:
    """Return all bytes of a small object."""
    return ask(url, lambda system, path: bytes(system.cat_file(path)))


def read_json(url: str) -> Any:
    """Return what a json object holds; a reply cut short is no json, and is asked for again.

    Raises:
        InputError: it is not there, cannot be reached, or is not json.
    """
    return ask(url, lambda system, path: json.loads(system.cat_file(path)))


def read_many(urls: Sequence[str]) -> Iterator[tuple[str, bytes | None]]:
    """Yield each URL, of one server, with its bytes, many asked for at a time; None when that failed."""
    for start in range(0, len(urls), _ROWS_AT_ONCE):
        some = urls[start : start + _ROWS_AT_ONCE]

        def fetch(system: Any, _: str, some: Sequence[str] = some) -> list[Any]:
            paths = [system._strip_protocol(url) for url in some]
            found = system.cat(paths, on_error="return")
            return [found.get(path) for path in paths]

        for url, data in zip(some, ask(some[0], fetch), strict=True):
            yield url, data if isinstance(data, bytes) else None


def size(url: str) -> int:
    """Return the size of an object in bytes."""

    def measure(system: Any, path: str) -> int:
        found = system.size(path)
        if found is None:
            raise OSError("the server does not tell the size of the file")
        return int(found)

    return ask(url, measure)


def exists(url: str) -> bool:
    """Tell whether an object is there."""
    try:
        size(url)
    except MissingFile:
        return False
    return True


def is_file(url: str) -> bool:
    """Tell whether an object, rather than a folder or nothing, is there."""
    return ask(url, lambda system, path: bool(system.isfile(path)))


def sha256(url: str) -> str:
    """Return the sha256 of an object of any size, in hex."""
    return ask(url, _sha256)


def _sha256(system: Any, path: str) -> str:
    digest, length = hashlib.sha256(), 0
    expected = int(system.info(path)["size"])
    with system.open(path, "rb", cache_type="none") as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
            length += len(block)
    if length != expected:
        raise OSError(f"{length} bytes came where {expected} were to")
    return digest.hexdigest()


def names(url: str) -> list[str]:
    """List the names in a folder, sorted; none where there is no folder."""

    def look(system: Any, path: str) -> list[str]:
        found = [str(entry).rstrip("/") for entry in system.ls(path, detail=False)]
        return sorted(entry.rpartition("/")[2] for entry in found if entry != path.rstrip("/"))

    try:
        return ask(url, look)
    except MissingBucket:
        raise
    except MissingFile:
        return []


def tree(url: str) -> list[str]:
    """List every object below a folder, by its path in that folder, sorted."""

    def look(system: Any, path: str) -> list[str]:
        root = path.rstrip("/") + "/"
        found = [str(entry) for entry in system.find(path)]
        return sorted(entry.removeprefix(root) for entry in found if entry.startswith(root))

    try:
        return ask(url, look)
    except MissingBucket:
        raise
    except MissingFile:
        return []


def write(url: str, data: bytes) -> None:
    """Put an object of a few megabytes: it holds its old bytes or all of `data`, and is checked.

    Raises:
        Refused, Unreachable: it is not there, or not all of it.
    """
    tags = {hashlib.md5(data, usedforsecurity=False).hexdigest()}
    whole = hashlib.sha256(data).hexdigest()

    def put(system: Any, path: str) -> None:
        system.pipe_file(path, data)
        _check(system, path, len(data), tags, whole)

    _ask_to_write(url, put)


def upload(file: Path, url: str) -> None:
    """Put a file of any size, in parts when it is large; the object holds its old bytes or all of the file's.

    Raises:
        Refused, Unreachable: it is not there, or not all of it.
    """
    length = file.stat().st_size
    part = _part_bytes(length)
    tags, whole = _digests(file, part)

    def put(system: Any, path: str) -> None:
        if length < 2 * part:  # s3fs would send it as an open file, for which aiohttp can wait for ever (100-continue)
            system.pipe_file(path, file.read_bytes())
        else:
            in_parts = {"chunksize": part, "max_concurrency": _PARTS_AT_ONCE} if "s3" in system.protocol else {}
            system.put_file(str(file), path, **in_parts)
        _check(system, path, length, tags, whole)

    _ask_to_write(url, put)


def _ask_to_write(url: str, put: Callable[[Any, str], None]) -> None:
    try:
        ask(url, put, "written")
    except MissingFile:
        raise Refused(f"{url}: cannot be written: its bucket does not exist") from None


def _part_bytes(length: int) -> int:
    return max(PART_BYTES, math.ceil(length / _MOST_PARTS))


def _digests(file: Path, part: int) -> tuple[set[str], str]:
    """Return the tags that S3 may give a file, sent whole or in parts of that size, and its sha256."""
    whole, md5, parts = hashlib.sha256(), hashlib.md5(usedforsecurity=False), []
    with file.open("rb") as stream:
        while block := stream.read(part):
            whole.update(block)
            md5.update(block)
            parts.append(hashlib.md5(block, usedforsecurity=False).digest())
    joined = hashlib.md5(b"".join(parts), usedforsecurity=False).hexdigest()
    return {md5.hexdigest(), f"{joined}-{len(parts)}"}, whole.hexdigest()


def _check(system: Any, path: str, length: int, tags: set[str], whole: str) -> None:
    """Compare an object with what is here: by its size and tag where the server has one, else by reading it."""
    found = system.info(path)
    if int(found["size"]) != length:
        raise OSError(f"{length} bytes are here, {found['size']} there")
    if str(found.get("ETag", "")).strip('"') not in tags and _sha256(system, path) != whole:
        raise OSError(f"{length} bytes are here and there, but not the same")


def download(url: str, file: Path) -> None:
    """Fetch an object into a file, which is whole or not there.

    Raises:
        MissingFile, Refused, Unreachable: it cannot be fetched.
    """
    temporary = file.with_name(f"{file.name}.tmp-{os.getpid()}")

    def get(system: Any, path: str) -> None:
        system.get_file(path, str(temporary))
        length = temporary.stat().st_size
        _check(system, path, length, *_digests(temporary, _part_bytes(length)))

    try:
        ask(url, get)
        temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)


def delete(url: str) -> None:
    """Delete an object, which may be gone already."""
    try:
        ask(url, lambda system, path: system.rm_file(path), "deleted")
    except MissingFile:
        return


def end_uploads(folder: str, older_than_s: float) -> int:
    """End the uploads in parts to objects of a folder on S3 that were never finished: their parts are kept, and cost.

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

    return ask(folder, end, "cleared of unfinished uploads", attempts=2)


class RemoteBytes:
    """A remote file read by ranges, mostly forwards: blocks of it are fetched and the last is kept."""

    def __init__(self, url: str) -> None:
        self._url, self._size = url, size(url)
        self._start, self._block = 0, b""
        self._lock = threading.Lock()

    def read(self, offset: int, length: int, crc32: int) -> bytes:
        """Return bytes of the file, fetched once more when they have another crc32; fewer only where it ends."""
        end = min(offset + length, self._size)
        with self._lock:
            for _ in range(2):
                if not self._start <= offset <= end <= self._start + len(self._block):
                    until = min(self._size, max(end, offset + _BLOCK_BYTES))
                    self._start, self._block = offset, self._fetch(offset, until)
                data = self._block[offset - self._start : end - self._start]
                if zlib.crc32(data) == crc32:
                    break
                self._start, self._block = 0, b""
            return data

    def _fetch(self, start: int, end: int) -> bytes:
        def get(system: Any, path: str) -> bytes:
            data = bytes(system.cat_file(path, start=start, end=end))
            if len(data) != end - start:
                raise OSError(f"{len(data)} bytes came where {end - start} were asked for")
            return data

        return ask(self._url, get) if end > start else b""
