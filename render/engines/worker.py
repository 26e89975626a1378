"""The supervised child process: a fresh interpreter per renderer, one request at a time over pipes.

A renderer can crash, hang or eat memory; in a process of its own that costs one view. A message is two lengths
(big-endian uint32), a json header and raw bytes. The child is ready when it has sent its first header.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

import psutil

_LENGTHS = struct.Struct(">II")
MAX_HEADER_BYTES = 16_000_000
MEMORY_CHECK_S = 0.25
Message = tuple[dict[str, Any], bytes]


class WorkerFault(RuntimeError):
    """The child died, hung or spoke nonsense; the message names which."""


@dataclass(frozen=True)
class Limits:
    """What a child may use.

    Args:
        start_timeout_s: time until it is ready.
        request_timeout_s: time for one answer.
        recycle_after: requests after which a fresh child takes over, so that memory stays flat.
        max_memory_mb: resident memory above which the child is ended, before the machine runs out of it.
    """

    start_timeout_s: float
    request_timeout_s: float
    recycle_after: int
    max_memory_mb: int = 6000


class Worker:
    """Runs `command` as a child and sends it requests; restarts it after a fault and after `limits.recycle_after`.

    Args:
        command: argv of the child; it must speak the protocol on stdin and stdout.
        first: a message that each new child is sent before anything else.
        environment: added to the child's environment.
    """

    def __init__(
        self,
        command: Sequence[str],
        limits: Limits,
        first: Mapping[str, Any] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._command, self._limits, self._first = list(command), limits, first
        self._environment = {**os.environ, **(environment or {})}
        self._process: subprocess.Popen[bytes] | None = None
        self._asked = 0
        self._lock = threading.Lock()
        self.hello: dict[str, Any] = {}

    def ask(self, header: Mapping[str, Any]) -> Message:
        """Send a request and return the answer; after a fault, start a new child and retry once.

        Raises:
            WorkerFault: it failed twice; the message names the second fault.
        """
        with self._lock:
            try:
                return self._ask(header)
            except WorkerFault:
                return self._ask(header)

    def start(self) -> dict[str, Any]:
        """Start the child if there is none, with one retry; return its first message.

        Raises:
            WorkerFault: it did not start.
        """
        try:
            self._start()
        except WorkerFault:
            self._start()
        return self.hello

    def _start(self) -> None:
        if self._process is None:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=self._environment,
                process_group=0,  # Ctrl-C is for the parent: the child leaves with it, without a traceback
            )
            self._asked = 0
            if self._first is not None:
                self._send(self._first)
            self.hello, _ = self._receive(self._limits.start_timeout_s, "start")

    def close(self) -> None:
        """End the child: it leaves when its stdin closes, or is killed."""
        process, self._process = self._process, None
        if process is None:
            return
        _close_pipes(process)
        try:
            process.wait(timeout=3)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _ask(self, header: Mapping[str, Any]) -> Message:
        if self._asked >= self._limits.recycle_after:
            self.close()
        self._start()
        self._asked += 1
        self._send(header)
        return self._receive(self._limits.request_timeout_s, "answer")

    def _send(self, header: Mapping[str, Any]) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        try:
            send(self._process.stdin, header, b"")
        except OSError:
            self._fail("died between requests")

    def _receive(self, timeout_s: float, what: str) -> Message:
        deadline = time.monotonic() + timeout_s
        header_bytes, blob_bytes = _LENGTHS.unpack(self._read(_LENGTHS.size, deadline, timeout_s, what))
        if header_bytes > MAX_HEADER_BYTES:
            self._fail("sent nonsense")
        header = self._read(header_bytes, deadline, timeout_s, what)
        blob = self._read(blob_bytes, deadline, timeout_s, what)
        try:
            return json.loads(header), blob
        except ValueError:
            self._fail("sent nonsense")
            raise

    def _read(self, count: int, deadline: float, timeout_s: float, what: str) -> bytes:
        assert self._process is not None
        assert self._process.stdout is not None
        pipe = self._process.stdout.fileno()
        parts, left = [], count
        with selectors.DefaultSelector() as selector:
            selector.register(pipe, selectors.EVENT_READ)
            while left:
                while not selector.select(min(MEMORY_CHECK_S, max(0.0, deadline - time.monotonic()))):
                    if time.monotonic() >= deadline:
                        self._fail(f"hung: no {what} in {timeout_s:g} s")
                    self._check_memory()
                data = os.read(pipe, min(left, 1 << 20))
                if not data:
                    self._fail(self._cause_of_death())
                parts.append(data)
                left -= len(data)
        return b"".join(parts)

    def _check_memory(self) -> None:
        assert self._process is not None
        try:
            used_mb = psutil.Process(self._process.pid).memory_info().rss / 1e6
        except psutil.Error:
            return  # it has just died: reading its answer will say how
        if used_mb > self._limits.max_memory_mb:
            self._fail(f"used {used_mb:.0f} MB of memory ({self._limits.max_memory_mb} allowed)")

    def _cause_of_death(self) -> str:
        assert self._process is not None
        try:
            code = self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            return "closed its output"
        if code < 0:
            name = signal.Signals(-code).name
            return f"killed by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")
        return f"exited with code {code}"

    def _fail(self, cause: str) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            _close_pipes(process)
        raise WorkerFault(f"renderer {cause}")


def _close_pipes(process: subprocess.Popen[bytes]) -> None:
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            with contextlib.suppress(OSError):
                stream.close()


def send(pipe: BinaryIO | Any, header: Mapping[str, Any], blob: bytes) -> None:
    """Write one message."""
    data = json.dumps(header).encode()
    pipe.write(_LENGTHS.pack(len(data), len(blob)) + data + blob)
    pipe.flush()


def receive(pipe: BinaryIO | Any) -> Message | None:
    """Read one message, in the child; None when the parent has gone."""
    head = pipe.read(_LENGTHS.size)
    if len(head) < _LENGTHS.size:
        return None
    header_bytes, blob_bytes = _LENGTHS.unpack(head)
    return json.loads(pipe.read(header_bytes)), pipe.read(blob_bytes)


def take_over_pipes() -> tuple[BinaryIO, BinaryIO]:
    """In the child: keep stdin and stdout for messages, and send whatever libraries print to nowhere."""
    requests = os.fdopen(os.dup(0), "rb")
    answers = os.fdopen(os.dup(1), "wb")
    nowhere = os.open(os.devnull, os.O_RDWR)
    os.dup2(nowhere, 0)
    os.dup2(nowhere, 1)
    sys.stdout.flush()
    return requests, answers


def leave_with_parent() -> None:
    """In the child: end when the parent ends, even in mid-render (the end of stdin is only seen between requests)."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1.0)
        os._exit(3)

    threading.Thread(target=watch, daemon=True).start()
