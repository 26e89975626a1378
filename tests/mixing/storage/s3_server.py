"""An S3 server on loopback (moto), and a proxy before it that fails in every way a network does."""

from __future__ import annotations

import http.client
import logging
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import s3fs
from moto.server import ThreadedMotoServer

from cavendish.mixing.storage import objects

Choose = Callable[[int, str, str], str]
"""Says what goes wrong with request number n (from 1), of that method, for that path: a fault, or "" for nothing."""

FAULTS = ("500", "503", "reset", "lost", "cut", "short", "late", "half")
"""Answers 500 or 503; closes without an answer, before or after the server did the request; cuts the answer, with and
without telling its length; is late; sends the server half of what is put, and says that all went well."""


class Proxy(ThreadingHTTPServer):
    """Passes requests on to the server at `behind`; `choose` says which of them meet a fault."""

    daemon_threads = True

    def __init__(self, behind: int) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.behind = behind
        self.choose: Choose = lambda number, method, path: ""
        self.lock = threading.Lock()
        self.asked: Counter[str] = Counter()
        self.faults: Counter[str] = Counter()
        self.bytes: Counter[str] = Counter()

    def start_anew(self) -> None:
        """Forget everything: what is stored, what was counted, and what was to fail; make the bucket."""
        for method, path in (("POST", "/moto-api/reset"), ("PUT", "/bucket")):
            server = http.client.HTTPConnection("127.0.0.1", self.behind, timeout=60)
            server.request(method, path)
            assert server.getresponse().status == 200
            server.close()
        self.choose = lambda number, method, path: ""
        for counts in (self.asked, self.faults, self.bytes):
            counts.clear()

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of clients that left."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Proxy

    def _pass_on(self) -> None:
        proxy = self.server
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        with proxy.lock:
            proxy.asked[self.command] += 1
            proxy.bytes[self.command] += len(body)
            fault = proxy.choose(sum(proxy.asked.values()), self.command, self.path)
            if fault:
                proxy.faults[fault] += 1
        if fault == "reset":
            self._close()
            return
        if fault in ("500", "503", "403"):
            code = {"500": "InternalError", "503": "SlowDown", "403": "AccessDenied"}[fault]
            text = f"<Error><Code>{code}</Code><Message>{code} of the proxy</Message></Error>".encode()
            self._answer(int(fault), {}, b"" if self.command == "HEAD" else text)
            return
        if fault == "late":
            time.sleep(0.3)
        if fault == "half" and self.command == "PUT":
            body = body[: len(body) // 2]
        status, headers, data = self._forward(body)
        proxy.bytes["answers"] += len(data)
        if fault == "lost":
            self._close()
        elif fault in ("cut", "short") and self.command == "GET":
            length = len(data) if fault == "cut" else len(data) // 2
            self._answer(status, headers, data[: len(data) // 2], length)
            if fault == "cut":
                self._close()
        else:
            self._answer(status, headers, data)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _pass_on

    def _forward(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
        server = http.client.HTTPConnection("127.0.0.1", self.server.behind, timeout=60)
        headers = {name: value for name, value in self.headers.items() if name.lower() not in ("expect", "connection")}
        server.request(self.command, self.path, body, {**headers, "Content-Length": str(len(body))})
        reply = server.getresponse()
        data = reply.read()
        server.close()
        return reply.status, dict(reply.getheaders()), data

    def _answer(self, status: int, headers: dict[str, str], data: bytes, length: int | None = None) -> None:
        self.send_response_only(status)
        hidden = {"connection", "transfer-encoding", *(() if self.command == "HEAD" else ("content-length",))}
        for name, value in headers.items():
            # Checksums of a whole answer would tell that one was cut short; not every server sends them.
            if name.lower() not in hidden and not name.lower().startswith("x-amz-checksum"):
                self.send_header(name, value)
        if self.command != "HEAD" or "Content-Length" not in headers:
            self.send_header("Content-Length", str(len(data) if length is None else length))
        self.end_headers()
        self.wfile.write(data)

    def _close(self) -> None:
        self.close_connection = True
        try:
            self.connection.shutdown(socket.SHUT_RDWR)
        except OSError:
            return

    def log_message(self, *args: object) -> None:
        pass


def every_tenth(kinds: Sequence[str] = FAULTS) -> Choose:
    """Let every tenth request fail, each time in the next way."""
    return lambda number, method, path: "" if number % 10 else kinds[number // 10 % len(kinds)]


@contextmanager
def s3_server(patch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """Run the server with a bucket `bucket`, behind a proxy that all clients of this and of child processes use."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    proxy = Proxy(server.get_host_and_port()[1])
    threading.Thread(target=proxy.serve_forever, daemon=True).start()
    for name, value in (
        ("AWS_ACCESS_KEY_ID", "test"),
        ("AWS_SECRET_ACCESS_KEY", "test"),
        ("AWS_DEFAULT_REGION", "us-east-1"),
        ("AWS_ENDPOINT_URL", proxy.url),
    ):
        patch.setenv(name, value)
    patch.setattr(objects, "RETRY", objects.Retry(backoff_s=0.01))
    s3fs.S3FileSystem.clear_instance_cache()
    try:
        proxy.start_anew()
        yield proxy
    finally:
        s3fs.S3FileSystem.clear_instance_cache()
        proxy.shutdown()
        proxy.server_close()
        server.stop()
