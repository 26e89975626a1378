"""Reads the commands of the documents' code blocks, and runs them in a shell as they are written."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import typer
import yaml

from cavendish.cli.main import app
from tests.documents.warm import TIMEOUT_S, run_words

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
EXAMPLES = sorted((ROOT / "examples").rglob("*.yaml"))
PROGRAMS = {"cavendish", "torchrun", "python", "python3.11", "pip", "dask", "git", "hf", "srun", "make"} | {
    "tar", "mkdir", "cp", "export", ".",
}  # fmt: skip


@dataclass(frozen=True)
class Command:
    """One command of a page, its lines joined, and the exit code that the page states for it (0 unless)."""

    page: str
    text: str
    code: int = 0


@dataclass(frozen=True)
class Block:
    """A code block: its language where it is fenced and states one, and its lines."""

    language: str
    lines: tuple[str, ...]


def name_of(page: Path) -> str:
    """Return the path of a page in the project."""
    return str(page.relative_to(ROOT))


def blocks(page: Path) -> list[Block]:
    """Return the fenced and the indented blocks of a page, in order; a blank line ends an indented one."""
    found: list[Block] = []
    lines: list[str] = []
    fence: str | None = None
    for line in [*page.read_text().splitlines(), "end"]:
        if line.startswith("```"):
            if fence is not None:
                found.append(Block(fence, tuple(lines)))
            fence, lines = (line[3:].strip(), []) if fence is None else (None, [])
        elif fence is not None:
            lines.append(line)
        elif line.startswith("    "):
            lines.append(line[4:])
        elif lines:
            found.append(Block("", tuple(lines)))
            lines = []
    return found


def is_shell(block: Block) -> bool:
    """Tell whether a block is for a shell: it says so, or its first line that is no comment begins with a program."""
    first = next((line for line in block.lines if line.strip() and not line.startswith("#")), "")
    word = first.split(" ", 1)[0]
    return block.language in ("sh", "bash") or word in PROGRAMS or re.match(r"[A-Z_]+=\S", word) is not None


def commands(page: Path) -> list[Command]:
    """Return the commands of a page in order; of a configuration those of its comments."""
    if page.suffix == ".yaml":
        found = re.findall(r"^#\s+((?:cavendish|torchrun|python) .*)$", page.read_text(), re.MULTILINE)
        return [Command(name_of(page), text) for text in found]
    text = "\n".join("\n".join(block.lines) for block in blocks(page) if is_shell(block))
    lines = [re.sub(r" {2,}", " ", line) for line in text.replace("\\\n", " ").splitlines()]
    return [_command(name_of(page), line) for line in lines if line.strip() and not line.startswith("#")]


def _command(page: str, line: str) -> Command:
    code = re.search(r"#.*exit code (\d)$", line)
    return Command(page, re.sub(r"\s+# .*$", "", line), int(code[1]) if code else 0)


def parse(command: str) -> tuple[str, dict[str, Any]] | None:
    """Parse a command's words after `cavendish` as the command line does, without doing what they say.

    Returns:
        The group of the verb (or its own name) and the values of its options, with `verb`; None when it has no verb.
    """
    found = re.search(r"(?:^|-m )cavendish(?!\.)\b(.*?)'?$", command)
    if found is None:
        return None
    words = shlex.split(found[1], comments=True)
    parsed: Any = typer.main.get_command(app)
    name, context = "cavendish", None
    while hasattr(parsed, "commands"):
        context = parsed.make_context(name, list(words), parent=context)
        name, parsed, words = parsed.resolve_command(context, [*context._protected_args, *context.args])
    return context.command.name or name, parsed.make_context(name, list(words), parent=context).params | {"verb": name}


@dataclass
class Shell:
    """A folder in which commands are run as a user would type them, and what was run there.

    Args:
        changes: in every command this text is replaced by that one, in order: what stands for eight GPUs, say.
    """

    folder: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    changes: Mapping[str, str] = field(default_factory=dict)
    ran: set[tuple[str, str]] = field(default_factory=set)
    variables: list[str] = field(default_factory=list)

    def run(self, command: Command, changes: Mapping[str, str] | None = None, inside: str = ".") -> None:
        """Run a command, once; its exit code has to be what the page states.

        Args:
            changes: further ones, made before those of every command.
            inside: the folder in which it is typed.
        """
        text = self.changed(command.text, changes)
        if (inside, text) in self.ran:
            return
        call = self._call(text, inside)
        if text.startswith("cavendish ") and not re.search(r"[$|&;<>`]", text):
            code, said = run_words(shlex.split(text)[1:], call["cwd"], call["env"])
        else:
            done = subprocess.run(
                **call, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=TIMEOUT_S
            )
            code, said = done.returncode, done.stdout
        assert code == command.code, f"{command.page}: {text}\n{said}"
        self.ran.add((inside, text))
        if re.match(r"[A-Z_]+=\S+$", text):
            self.variables.append(text)

    def start(self, command: Command, changes: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
        """Start a command in the background, in a process group of its own."""
        text = self.changed(command.text, changes).removesuffix("&")
        quiet = subprocess.DEVNULL
        return subprocess.Popen(**self._call(f"exec {text}", "."), start_new_session=True, stdout=quiet, stderr=quiet)

    def changed(self, text: str, changes: Mapping[str, str] | None = None) -> str:
        """Return a command as it is run here."""
        for written, instead in {**(changes or {}), **self.changes}.items():
            text = text.replace(written, instead)
        return text

    def _call(self, text: str, inside: str) -> dict[str, Any]:
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        environment = {**os.environ, "PATH": path, "OMP_NUM_THREADS": "1", **self.environment}
        script = "; ".join([*self.variables, text])
        return {"args": ["bash", "-c", script], "cwd": self.folder / inside, "env": environment}


def free_port() -> int:
    """Return a port of this machine that nothing listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def end(*started: subprocess.Popen[bytes]) -> None:
    """End what a shell started, with all that it started."""
    for process in started:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def shrink(source: Path, target: Path, values: Mapping[str, Any]) -> None:
    """Copy a configuration with other values, by dotted keys that it has already."""
    settings = yaml.safe_load(source.read_text())
    for key, value in values.items():
        place = settings
        *parents, last = key.split(".")
        for parent in parents:
            place = place[parent]
        assert last in place or not parents, f"{source.name} has no {key}"
        place[last] = value
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(yaml.safe_dump(settings, sort_keys=False))


def copy_examples(to: Path, smaller: Mapping[str, Mapping[str, Any]]) -> None:
    """Copy examples/ with smaller numbers."""
    for path in EXAMPLES:
        name = str(path.relative_to(ROOT / "examples"))
        shrink(path, to / name, smaller.get(name, {}))


def kept_back(all_commands: Iterable[Command], reasons: Mapping[str, str]) -> list[Command]:
    """Return the commands that are not run: those that begin with a text for which a reason is given."""
    return [one for one in all_commands if one.text.startswith(tuple(reasons))]


def left(all_commands: Iterable[Command], reasons: Mapping[str, str]) -> list[Command]:
    """Return the others, which are run."""
    return [one for one in all_commands if not one.text.startswith(tuple(reasons))]
