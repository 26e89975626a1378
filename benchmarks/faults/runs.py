"""Starts a job's command in a process group of its own, hurts it, and says how it ended."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import psutil

from benchmarks.faults.jobs import ROOT

TIMEOUT_S = 900.0
_BOX = "╭─ Error"
_NOT_CHECKED = "not fully checked: "
_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "LP_NUM_THREADS")


@dataclass(frozen=True)
class Ended:
    """How a run ended: its exit code (None: it did not end in time), what it told, and all of stderr.

    The message is the line that tells a failure, or the audit's verdict where that is the answer (exit code 3).
    """

    code: int | None
    message: str
    stderr: str
    seconds: float

    @property
    def is_clear(self) -> bool:
        """Tell whether a failure was said in one line (or the box of a usage error), with exit code 1 or 2."""
        if self.code == 3:
            return self.message.startswith(_NOT_CHECKED)
        if self.code == 2 and _BOX in self.stderr:
            return True
        lines = [line for line in self.stderr.splitlines() if line.startswith("cavendish: ")]
        return self.code in (1, 2) and len(lines) == 1 and "Traceback" not in self.stderr


class Started:
    """A running command with its children; everything it leaves is ended by `end`."""

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str] | None = None, prefix: Sequence[str] = ()
    ) -> None:
        self._stdout: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 (closed by `end`)
        self._stderr: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115
        path = f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}".rstrip(os.pathsep)
        values = {**os.environ, **dict.fromkeys(_ONE_THREAD, "1"), "PYTHONPATH": path, **(environment or {})}
        self._began = time.monotonic()
        self._process = subprocess.Popen(
            [*prefix, *command],
            cwd=ROOT,
            env=values,
            stdin=subprocess.DEVNULL,
            stdout=self._stdout,
            stderr=self._stderr,
            start_new_session=True,
        )
        self._family: dict[int, psutil.Process] = {}

    def is_running(self) -> bool:
        """Tell whether the driver is alive."""
        return self._process.poll() is None

    def children(self, role: str) -> list[psutil.Process]:
        """Return the living children of a role: "worker" (Beam's), "renderer", or "reader" (of training data)."""
        try:
            every = psutil.Process(self._process.pid).children(recursive=True)
        except psutil.Error:
            return []
        self._family |= {process.pid: process for process in every}
        return [process for process in every if _role(process) == role]

    def kill(self, target: str, pick: int = 0) -> str:
        """SIGKILL a target, the group when none of its kind is there; return what was killed, "" if nothing ran."""
        self.children("")
        if not self.is_running():
            return ""
        if target in ("group", "driver"):
            (os.killpg if target == "group" else os.kill)(self._process.pid, signal.SIGKILL)
            return target
        found = self.children(target)
        if not found:
            return self.kill("group")
        try:
            found[pick % len(found)].kill()
        except psutil.Error:
            return ""
        return target

    def wait(self, timeout_s: float = TIMEOUT_S) -> Ended:
        """Wait for the driver to end, at most `timeout_s`; a run that hangs is killed and has no exit code."""
        try:
            code: int | None = self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            code = None
            self.kill("group")
            self._process.wait()
        text = _read(self._stderr)
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        told = [line for line in lines if line.startswith("cavendish: ")] or lines or [""]
        if _BOX in text:  # of typer, for what is wrong on the command line itself
            told = [" ".join(line.strip("│ ") for line in lines if line.startswith("│"))]
        if code == 3:
            told = [line for line in _read(self._stdout).splitlines() if line.startswith(_NOT_CHECKED)] or told
        return Ended(code, told[-1].removeprefix("cavendish: "), text, time.monotonic() - self._began)

    def orphans(self, wait_s: float) -> list[psutil.Process]:
        """Return children that outlive the driver, after giving them `wait_s` to notice."""
        _, alive = psutil.wait_procs(list(self._family.values()), wait_s)
        return alive

    def end(self) -> None:
        """Kill whatever is left of it and close its output."""
        for process in self._family.values():
            try:
                process.kill()
            except psutil.Error:
                continue
        if self.is_running():
            self.kill("group")
        self._process.wait()
        self._stdout.close()
        self._stderr.close()


def run(command: Sequence[str], environment: Mapping[str, str] | None = None, prefix: Sequence[str] = ()) -> Ended:
    """Run a command to its end."""
    started = Started(command, environment, prefix)
    try:
        return started.wait()
    finally:
        started.end()


def _read(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode("utf-8", "replace")


def _role(process: psutil.Process) -> str:
    try:
        words = " ".join(process.cmdline())
    except psutil.Error:
        return ""
    if "sdk_worker_main" in words:
        return "worker"
    if "cavendish.render.engines.child" in words:
        return "renderer"
    return "reader" if "cavendish train" in words else ""


def leftovers(folder: Path) -> list[str]:
    """List temporary files that runs have left behind."""
    return sorted(path.name for path in folder.rglob("*.tmp-*"))
