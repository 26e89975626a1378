"""`cavendish download`: a list of URLs to tars of pictures as they came, which `annotate` reads as a "tar" source.

A shard is one range of the list: `download-000000.tar` (pictures, .txt, .json in the order of the list) and
`download-000000.json`, which commits it and says of every row that gave no picture why. A shard that is committed is
never asked for again.
"""

from __future__ import annotations

import hashlib
import ipaddress
import os
import re
import tarfile
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator

from cavendish.annotate.download.fetch import Limits, Network, Refused, Response, TryAgain, fetch, host_of
from cavendish.annotate.download.optout import Robots, opted_out
from cavendish.annotate.download.url_lists import Wanted, count_rows, list_files, read_rows
from cavendish.encoders.sample import InputError
from cavendish.mixing.accounting import Accounting
from cavendish.mixing.config import Config
from cavendish.mixing.jobs.runners import Progress
from cavendish.mixing.shards.dataset import differences
from cavendish.mixing.sources.decode import ENDINGS, MAX_BYTES, image_kind, unreadable
from cavendish.mixing.sources.text import clean_text
from cavendish.mixing.storage.files import canonical_json, writing
from cavendish.mixing.storage.place import commit, file_sha256, read_json, temporary_name, write_atomic

SCHEMA = "cavendish-download/1"
AGENT = "cavendish"

_PLAN = "download.json"
_SHOWN_CHANGES = 5


class DownloadConfig(Config):
    """What to download, and how politely.

    Args:
        urls: a parquet file, or a folder of them, relative to the data folder.
        contact: an e-mail address or a page of yours; it stands in the user agent, so that owners can reach you.
        licence: written beside every picture whose row does not state another.
        rows_per_shard: of the list.
        threads: requests at a time.
        host_interval_s: between two requests to one host; a longer crawl delay in its robots.txt is kept to.
        timeout_s: for one picture, redirects included.
        attempts: how often a picture is asked for when a server is busy or the connection breaks.
        respect_robots, respect_opt_out: off only where you have the owners' consent.
        ports: that may be asked.
        networks: address ranges that may be asked beside the public internet, for a mirror of your own.
    """

    urls: Path
    contact: str = Field(min_length=3, max_length=200)
    licence: str = Field("unknown", min_length=1)
    rows_per_shard: int = Field(default=1000, ge=1, le=100_000)
    threads: int = Field(default=16, ge=1, le=256)
    host_interval_s: float = Field(default=1.0, ge=0)
    timeout_s: float = Field(default=20.0, gt=0, le=600)
    max_bytes: int = Field(default=MAX_BYTES, ge=1, le=MAX_BYTES)
    attempts: int = Field(default=3, ge=1, le=10)
    respect_robots: bool = True
    respect_opt_out: bool = True
    ports: tuple[int, ...] = (80, 443)
    networks: tuple[str, ...] = ()

    @field_validator("contact")
    @classmethod
    def _reachable(cls, contact: str) -> str:
        if not re.fullmatch(r"[\x21-\x7e]+", contact) or not ("@" in contact or contact.startswith("http")):
            raise ValueError("give an e-mail address, or the URL of a page about your download")
        return contact

    @field_validator("networks")
    @classmethod
    def _networks(cls, networks: tuple[str, ...]) -> tuple[str, ...]:
        for network in networks:
            ipaddress.ip_network(network)
        return networks


@dataclass(frozen=True)
class Downloaded:
    """What a download has: shards made now and before, every row accounted for, and why rows gave no image, counted."""

    made: int
    already: int
    accounting: Accounting
    reasons: dict[str, int]


@dataclass(frozen=True)
class _Got:
    """The outcome for one row: a picture with its facts, or a reason."""

    wanted: Wanted
    data: bytes = b""
    suffix: str = ""
    facts: dict[str, Any] | None = None
    reason: str = ""


def download(config: DownloadConfig, out: Path, data: Path, progress: Progress | None = None) -> Downloaded:
    """Download what the list names into tars under `out`; an unfinished download is continued.

    Raises:
        InputError: the list cannot be read, or `out` holds another download.
    """
    files, left_aside = list_files(data / config.urls)
    counts = count_rows(files)
    total = sum(counts)
    if not total:
        raise InputError(f"{data / config.urls}: the list is empty")
    shards = -(-total // config.rows_per_shard)
    plan = _start(config, out, files, counts)
    session = _Session(config)
    already = 0
    rows: list[dict[str, Any]] = []
    for index in range(shards):
        path = out / f"download-{index:06d}.json"
        if path.exists():
            already += 1
        else:
            start = index * config.rows_per_shard
            wanted = read_rows(files, counts, start, min(start + config.rows_per_shard, total))
            _make_shard(session, list(wanted), path)
        rows.append(read_json(path, "a shard of a download"))
        if progress is not None:
            progress(index + 1, shards)
    reasons: Counter[str] = Counter()
    for row in rows:
        reasons.update(_kind(entry["reason"]) for entry in row["without"])
    images, rejected = sum(row["pictures"] for row in rows), sum(len(row["without"]) for row in rows)
    accounting = Accounting(total + sum(left_aside.values()), images, rejected, left_aside)
    _write(out, {**plan, "inputs": accounting.as_dict()})
    return Downloaded(shards - already, already, accounting, dict(reasons.most_common()))


def _start(config: DownloadConfig, out: Path, files: list[Path], counts: list[int]) -> dict[str, Any]:
    """Write what the download is, or check that it is the one that was started; return it."""
    out.mkdir(parents=True, exist_ok=True)
    polite = {"threads", "host_interval_s", "timeout_s", "attempts", "urls"}  # how, not what
    settings = {name: value for name, value in config.model_dump(mode="json").items() if name not in polite}
    lists = [[file.name, count, file_sha256(file)] for file, count in zip(files, counts, strict=True)]
    values = {"schema": SCHEMA, "settings": settings, "lists": lists}
    path = out / _PLAN
    if path.exists():
        found = read_json(path, "what a download is")
        found = {name: value for name, value in found.items() if name != "inputs"} if isinstance(found, dict) else found
        if found != values:
            changes = "; ".join(islice(differences(found, values), _SHOWN_CHANGES))
            raise InputError(f"{path}: of another download (there -> here): {changes}. Choose another --out")
    else:
        _write(out, values)
    return values


def _write(out: Path, values: dict[str, Any]) -> None:
    write_atomic(out / _PLAN, canonical_json(values))


def _kind(reason: str) -> str:
    """Return the part of a reason that does not name one URL, for counting."""
    return re.sub(r"\b\d+\b", "#", reason.split(":")[0] if ": " in reason and "robots" not in reason else reason)[:60]


class _Session:
    """What all requests share: limits, robots.txt, and when each host may be asked again."""

    def __init__(self, config: DownloadConfig) -> None:
        self.config = config
        networks: tuple[Network, ...] = tuple(ipaddress.ip_network(text) for text in config.networks)
        agent = f"{AGENT}/1 (+{config.contact})"
        self.limits = Limits(agent, config.timeout_s, config.max_bytes, ports=config.ports, networks=networks)
        self.robots = Robots(self._get, AGENT)
        self._next: dict[str, float] = {}
        self._guard = threading.Lock()

    def _get(self, url: str) -> Response:
        return fetch(url, self.limits)

    def wait_turn(self, url: str) -> None:
        """Sleep until the host of a URL may be asked, and book the next turn."""
        interval_s = self.config.host_interval_s
        if self.config.respect_robots:
            interval_s = max(interval_s, self.robots.delay_s(url))
        host = host_of(url)
        with self._guard:
            turn = max(self._next.get(host, 0.0), time.monotonic())
            self._next[host] = turn + interval_s
        time.sleep(max(0.0, turn - time.monotonic()))

    def picture(self, wanted: Wanted) -> _Got:
        """Get the picture of one row, or say why not; never raises."""
        try:
            response = self._answer(wanted.url)
            return self._judged(wanted, response)
        except Refused as error:
            return _Got(wanted, reason=str(error))

    def _answer(self, url: str) -> Response:
        if not url:
            raise Refused("no URL in the row")
        if self.config.respect_robots and (why := self.robots.forbids(url)):
            raise Refused(why)
        for attempt in range(self.config.attempts):
            self.wait_turn(url)
            try:
                response = self._get(url)
                if response.status in (429, 500, 502, 503, 504):
                    raise TryAgain(f"status {response.status}")
                break
            except TryAgain:
                if attempt + 1 == self.config.attempts:
                    raise
                time.sleep(min(30.0, 0.5 * 2**attempt))
        if self.config.respect_robots and response.url != url and (why := self.robots.forbids(response.url)):
            raise Refused(f"redirected to where {why}")
        return response

    def _judged(self, wanted: Wanted, response: Response) -> _Got:
        if response.status != 200:
            raise Refused(f"status {response.status}")
        if self.config.respect_opt_out and (why := opted_out(response.headers, AGENT)):
            raise Refused(f"opted out ({why})")
        kind = image_kind(response.body[:64])
        if kind not in ENDINGS:
            told = response.headers.get("content-type", "no content type")[:60]
            raise Refused(unreadable(kind) or f"not an image: {told}")
        sha256 = hashlib.sha256(response.body).hexdigest()
        if wanted.sha256 and sha256 != wanted.sha256:
            raise Refused(f"sha256 differs from the list's: it is {sha256[:12]}")
        facts: dict[str, Any] = {"licence": self.config.licence, **(wanted.facts or {})}
        facts |= {"url": wanted.url, "sha256": sha256, "place": wanted.place}
        if response.url != wanted.url:
            facts["redirected_to"] = response.url
        return _Got(wanted, response.body, ENDINGS[kind], facts)


def _make_shard(session: _Session, wanted: list[Wanted], path: Path) -> None:
    """Download the rows of one shard and commit it: the tar first, then its row."""
    without: list[dict[str, Any]] = []
    pictures = 0
    tar_path = path.with_suffix(".tar")
    temporary = temporary_name(tar_path)
    with writing(temporary, tar_path), temporary.open("wb") as file:
        for got in _in_order(session, wanted):
            if got.reason:
                without.append({"place": got.wanted.place, "url": got.wanted.url[:2000], "reason": got.reason})
                continue
            pictures += 1
            for name, data in _members(got):
                header = tarfile.TarInfo(name)
                header.size = len(data)
                file.write(header.tobuf(tarfile.USTAR_FORMAT) + data + bytes(-len(data) % tarfile.BLOCKSIZE))
        file.write(bytes(2 * tarfile.BLOCKSIZE))
        file.flush()
        os.fsync(file.fileno())
    sha256 = file_sha256(temporary)
    commit(temporary, tar_path)
    row = {"schema": SCHEMA, "sha256": sha256, "pictures": pictures, "rows": len(wanted), "without": without}
    write_atomic(path, canonical_json(row))


def _in_order(session: _Session, wanted: list[Wanted]) -> Iterator[_Got]:
    """Ask for all rows at once but a bounded number ahead; yield in the order of the list."""
    ahead = 2 * session.config.threads
    with ThreadPoolExecutor(session.config.threads) as pool:
        running = deque(pool.submit(session.picture, row) for row in wanted[:ahead])
        for row in wanted[ahead:]:
            yield running.popleft().result()
            running.append(pool.submit(session.picture, row))
        while running:
            yield running.popleft().result()


def _members(got: _Got) -> Iterator[tuple[str, bytes]]:
    name = f"{got.wanted.place:09d}"
    yield f"{name}.{got.suffix}", got.data
    text = clean_text(got.wanted.text)
    if text:
        yield f"{name}.txt", text.encode()
    yield f"{name}.json", canonical_json(got.facts)
