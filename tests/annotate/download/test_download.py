"""`cavendish download` against a server that lies, stalls, redirects inward and says no."""

from __future__ import annotations

import gzip
import hashlib
import ipaddress
import json
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cavendish.annotate.download.fetch import Forbidden, Limits, Refused, fetch, is_public, resolve
from cavendish.annotate.download.job import DownloadConfig, download
from cavendish.annotate.download.optout import opted_out
from cavendish.encoders.sample import InputError
from cavendish.mixing.accounting import Accounting
from cavendish.mixing.images import encode_png
from cavendish.mixing.sources.decode import image_kind
from cavendish.mixing.sources.listing import SourceConfig, list_items, read_item

PICTURE = encode_png(np.random.default_rng(0).integers(0, 256, (64, 80, 3), dtype=np.uint8))
RULES = "Disallow: /private/\nDisallow: /*.secret$\n"
ROBOTS = f"User-agent: *\n{RULES}User-agent: cavendish\n{RULES}"


class Hostile(BaseHTTPRequestHandler):
    """Each path misbehaves in its own way."""

    hits: ClassVar[Counter[str]] = Counter()
    agents: ClassVar[set[str]] = set()

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        Hostile.hits[self.path] += 1
        Hostile.agents.add(self.headers["User-Agent"])
        path = self.path.split("?")[0]
        name = path.strip("/").split("/")[0]
        getattr(self, f"_{name.partition('.')[0].replace('-', '_')}", self._missing)()

    def _say(self, body: bytes, status: int = 200, **headers: str) -> None:
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key.replace("_", "-"), value)
        if "Content_Length" not in headers:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _robots(self) -> None:
        self._say(ROBOTS.encode())

    def _good(self) -> None:
        self._say(PICTURE, Content_Type="image/png")

    _private = _file = _good

    def _missing(self) -> None:
        self._say(b"no", 404)

    def _html(self) -> None:
        self._say(b"<html>", Content_Type="image/png")

    def _noai(self) -> None:
        self._say(PICTURE, X_Robots_Tag="max-snippet:20, noai")

    def _tdm(self) -> None:
        self._say(PICTURE, TDM_Reservation="1")

    def _other(self) -> None:
        self._say(PICTURE, X_Robots_Tag="otherbot: noindex")

    def _busy(self) -> None:
        if Hostile.hits[self.path] < 3:
            self._say(b"later", 503)
        else:
            self._say(PICTURE)

    def _loop(self) -> None:
        self._say(b"", 302, Location="/loop")

    def _moved(self) -> None:
        self._say(b"", 301, Location="/good/moved")

    def _sneaky(self) -> None:
        self._say(b"", 302, Location="/private/there")

    def _inward(self) -> None:
        self._say(b"", 302, Location="http://169.254.169.254/latest/meta-data/")

    def _local(self) -> None:
        self._say(b"", 302, Location="file:///etc/passwd")

    def _claims(self) -> None:
        self._say(b"", Content_Length=str(10**12))

    def _endless(self) -> None:
        self.send_response(200)
        self.end_headers()
        try:
            while True:
                self.wfile.write(PICTURE * 40)
        except OSError:
            pass

    def _drip(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "1000")
        self.end_headers()
        try:
            for _ in range(600):
                self.wfile.write(b"\xff")
                self.wfile.flush()
                time.sleep(0.05)
        except OSError:
            pass

    def _short(self) -> None:
        self._say(PICTURE[:100], Content_Length=str(len(PICTURE)))
        self.close_connection = True

    def _packed(self) -> None:
        self._say(gzip.compress(PICTURE), Content_Encoding="gzip")


@pytest.fixture(scope="module")
def server() -> Iterator[int]:
    running = ThreadingHTTPServer(("127.0.0.1", 0), Hostile)
    thread = threading.Thread(target=running.serve_forever, daemon=True)
    thread.start()
    yield running.server_address[1]
    running.shutdown()


def config(port: int, urls: Path, **settings: Any) -> DownloadConfig:
    values: dict[str, Any] = {
        "urls": urls,
        "contact": "lab@example.org",
        "ports": (port,),
        "networks": ("127.0.0.0/8",),
    }
    quick: dict[str, Any] = {"host_interval_s": 0.0, "timeout_s": 1.5, "max_bytes": 200_000, "threads": 8}
    return DownloadConfig(**{**values, **quick, **settings})


def write_list(path: Path, port: int, names: list[str], **columns: list[Any]) -> None:
    urls = [name if "://" in name else f"http://127.0.0.1:{port}/{name}" for name in names]
    pq.write_table(pa.table({"URL": urls, "TEXT": [f"about {name}" for name in names], **columns}), path)


EXPECTED = {
    "good/1": "",
    "good/a b?x=ü": "",
    "moved": "",
    "busy": "",
    "other": "",
    "missing": "status 404",
    "html": "not an image: image/png",
    "noai": "opted out (x-robots-tag: noai)",
    "tdm": "opted out (tdm-reservation: 1)",
    "private/1": "robots.txt disallows it",
    "file.secret": "robots.txt disallows it",
    "sneaky": "redirected to where robots.txt disallows it",
    "loop": "more than 5 redirects",
    "inward": "port 80 of 169.254.169.254",
    "local": "not an http or https URL",
    "claims": "over the limit",
    "endless": "over the limit",
    "drip": "time",
    "short": "100 of",
    "packed": "compressed as gzip",
    "ftp://127.0.0.1/x": "not an http or https URL",
    "http://user:secret@127.0.0.1/x": "user name",
    "http://127.0.0.1:22/x": "port 22",
}


def test_every_trick_costs_its_own_row_only(server: int, tmp_path: Path) -> None:
    names = [name.replace(" ", "%20") for name in EXPECTED]
    write_list(tmp_path / "list.parquet", server, names, similarity=[0.3] * len(names))
    result = download(config(server, Path("list.parquet"), rows_per_shard=9, attempts=3), tmp_path / "out", tmp_path)
    rows = [json.loads(path.read_bytes()) for path in sorted((tmp_path / "out").glob("download-*.json"))]
    why = {entry["place"]: entry["reason"] for row in rows for entry in row["without"]}
    for place, (name, expected) in enumerate(EXPECTED.items()):
        assert expected in why.get(place, ""), name
        assert bool(expected) == (place in why), f"{name}: {why.get(place)}"
    assert result.accounting == Accounting(len(EXPECTED), 5, len(EXPECTED) - 5)
    assert sum(result.reasons.values()) == len(EXPECTED) - 5
    assert Hostile.agents == {"cavendish/1 (+lab@example.org)"}
    assert Hostile.hits["/private/1"] == Hostile.hits["/private/there"] - Hostile.hits["/private/there"] == 0


def test_what_was_downloaded_is_a_source_to_annotate(server: int, tmp_path: Path) -> None:
    sha256 = hashlib.sha256(PICTURE).hexdigest()
    write_list(
        tmp_path / "list.parquet", server, ["good/1", "good/2"], sha256=[sha256, "0" * 64], license=["CC0-1.0"] * 2
    )
    result = download(config(server, Path("list.parquet")), tmp_path / "out", tmp_path)
    assert result.reasons == {"sha256 differs from the list's": 1}
    source = SourceConfig(name="web", kind="tar", path=Path("out"), licence="unknown")
    items = list_items(source, tmp_path).items
    assert len(items) == 1
    found = read_item(source, tmp_path, items[0])
    assert found.data == PICTURE
    assert found.text == "about good/1"
    assert found.facts["licence"] == "CC0-1.0"
    assert found.facts["url"].endswith("/good/1")


def test_consent_can_be_stated(server: int, tmp_path: Path) -> None:
    write_list(tmp_path / "list.parquet", server, ["private/1", "noai"])
    settings = config(server, Path("list.parquet"), respect_robots=False, respect_opt_out=False)
    assert download(settings, tmp_path / "out", tmp_path).accounting.written == 2


def test_a_host_is_asked_no_faster_than_told(server: int, tmp_path: Path) -> None:
    write_list(tmp_path / "list.parquet", server, [f"good/slow{i}" for i in range(4)])
    start = time.monotonic()
    download(config(server, Path("list.parquet"), host_interval_s=0.2), tmp_path / "out", tmp_path)
    assert time.monotonic() - start >= 0.6


def test_killed_and_continued_asks_for_no_finished_row_again(server: int, tmp_path: Path) -> None:
    names = [f"good/k{i:03d}" for i in range(60)]
    write_list(tmp_path / "list.parquet", server, names)
    settings = config(server, Path("list.parquet"), rows_per_shard=10, threads=1, host_interval_s=0.05)
    (tmp_path / "config.json").write_text(settings.model_dump_json())
    code = (
        "import sys; from pathlib import Path; from cavendish.annotate.download.job import *\n"
        "c = DownloadConfig.model_validate_json(Path(sys.argv[1], 'config.json').read_text())\n"
        "download(c, Path(sys.argv[1], 'out'), Path(sys.argv[1]))\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)])
    deadline = time.monotonic() + 60
    while len(list((tmp_path / "out").glob("download-??????.json"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = sorted((tmp_path / "out").glob("download-??????.json"))
    assert 2 <= len(done) < 6
    result = download(config(server, Path("list.parquet"), rows_per_shard=10), tmp_path / "out", tmp_path)
    assert (result.already, result.accounting.written) == (len(done), 60)
    assert all(Hostile.hits[f"/{name}"] == 1 for name in names[: 10 * len(done)])
    assert not list((tmp_path / "out").glob("*.tmp*")) or result.made
    with pytest.raises(InputError, match="rows_per_shard: 10 -> 9"):
        download(config(server, Path("list.parquet"), rows_per_shard=9), tmp_path / "out", tmp_path)


@pytest.mark.parametrize(
    "text",
    ["127.0.0.1", "10.1.2.3", "169.254.169.254", "192.168.0.1", "172.16.0.1", "100.64.0.1", "0.0.0.0", "224.0.0.1",
     "255.255.255.255", "192.0.0.8", "198.18.0.1", "::1", "fe80::1", "fc00::1", "ff02::1", "::ffff:127.0.0.1",
     "2002:7f00:1::", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "2001:0:4136:e378:8000:63bf:80ff:fffe",
     "::7f00:1", "::"],
)  # fmt: skip
def test_inner_addresses_are_seen_through_their_wrappings(text: str) -> None:
    assert not is_public(ipaddress.ip_address(text))


@pytest.mark.parametrize("text", ["8.8.8.8", "1.1.1.1", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"])
def test_public_addresses_are_public(text: str) -> None:
    assert is_public(ipaddress.ip_address(text))


@pytest.mark.parametrize("host", ["2130706433", "0x7f.1", "017700000001", "127.1", "localhost", "[::1]"])
def test_other_spellings_of_this_machine_are_refused(host: str) -> None:
    with pytest.raises(Refused, match="not a public address"):
        fetch(f"http://{host}/", Limits("test"))


def test_every_address_of_a_name_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name with one public and one inner address, as in DNS rebinding, is refused."""
    answers = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (text, 80)) for text in ("8.8.8.8", "127.0.0.1")]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: answers)
    with pytest.raises(Forbidden, match=r"127\.0\.0\.1"):
        resolve("example.org", 80)


@pytest.mark.parametrize(
    ("headers", "why"),
    [
        ({"x-robots-tag": "noimageai"}, "x-robots-tag: noimageai"),
        ({"x-robots-tag": "NoIndex, nofollow"}, "x-robots-tag: noindex"),
        ({"x-robots-tag": "cavendish: noml"}, "x-robots-tag: noml"),
        ({"x-robots-tag": "googlebot: noindex, nofollow"}, ""),
        ({"x-robots-tag": "googlebot: nofollow, cavendish: noai"}, "x-robots-tag: noai"),
        ({"x-robots-tag": "unavailable_after: 25 Jun 2030, noai"}, "x-robots-tag: noai"),
        ({"tdm-reservation": "0"}, ""),
        ({}, ""),
    ],
)
def test_opt_outs_are_read(headers: dict[str, str], why: str) -> None:
    assert opted_out(headers, "cavendish") == why


def test_lists_say_what_is_missing(tmp_path: Path) -> None:
    pq.write_table(pa.table({"link": ["x"]}), tmp_path / "list.parquet")
    with pytest.raises(InputError, match="no column of URLs, as text or bytes; it has link"):
        download(config(80, Path("list.parquet")), tmp_path / "out", tmp_path)
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 not really")
    with pytest.raises(InputError, match="not a parquet file"):
        download(config(80, Path("bad.parquet")), tmp_path / "out", tmp_path)
    with pytest.raises(ValueError, match="e-mail"):
        DownloadConfig(urls=Path("x"), contact="me please")


def test_pictures_are_known_by_their_first_bytes() -> None:
    assert image_kind(PICTURE) == "PNG"
    assert image_kind(b"RIFF0000WEBPVP8 ") == "WEBP"
    assert image_kind(b"\0\0\0\x1cftypavif") == "AVIF"
    assert image_kind(b"<svg") == image_kind(b"%!PS") == image_kind(b"") == ""
