"""What the documents say is what happens: every command can be typed, and the tutorials run as they stand."""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import typer

import cavendish
from mixing.config import read_config

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "examples").rglob("*.yaml")])


def commands(page: Path) -> Iterator[tuple[str, int]]:
    """Yield the commands of a page's indented or fenced blocks, and the exit code it states for each (0 unless)."""
    joined = page.read_text().replace("\\\n", " ")
    start = r"^#\s+" if page.suffix == ".yaml" else r"^(?:    |)"
    for line in joined.splitlines():
        found = re.match(start + r"((?:cavendish|torchrun|tar|mkdir|cp|python) .*)$", line)
        if found:
            code = re.search(r"#.*exit code (\d)", line)
            yield found[1], int(code[1]) if code else 0


def arguments(command: str) -> list[str] | None:
    """Return the words after `cavendish`, or None for a command of another program."""
    words = shlex.split(command, comments=True)
    return words[words.index("cavendish") + 1 :] if "cavendish" in words else None


def parse(words: list[str]) -> tuple[str, dict[str, Any]]:
    """Parse words as the command line does, without doing what they say."""
    command: Any = typer.main.get_command(cavendish.app)
    name, context = "cavendish", None
    while hasattr(command, "commands"):
        context = command.make_context(name, list(words), parent=context)
        name, command, words = command.resolve_command(context, [*context._protected_args, *context.args])
    return context.command.name or name, command.make_context(name, list(words), parent=context).params | {"verb": name}


def reference() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_reference", ROOT / "docs" / "make_reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_can_be_typed(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    if page.name == "mistakes.md":
        pytest.skip("its commands are mistakes")
    configurations = reference().CONFIGURATIONS
    for command, _ in commands(page):
        words = arguments(command)
        if words is None:
            continue
        group, values = parse(words)
        config = values.get("config") or values.get("mixture")
        if config is not None and str(config).startswith("examples/"):
            module, _, kind = configurations["audit" if group == "audit" else values["verb"]][0].partition(":")
            read_config(getattr(importlib.import_module(module), kind), config, values["override"] or ())


@pytest.mark.parametrize("page", [path for path in PAGES if path.suffix == ".md"], ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name}: {target}"


@pytest.mark.slow
def test_the_pages_of_the_verbs_are_what_the_verbs_are(tmp_path: Path) -> None:
    subprocess.run([sys.executable, ROOT / "docs" / "make_reference.py", tmp_path], check=True, capture_output=True)
    made = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert made == {path.name: path.read_text() for path in (ROOT / "docs" / "verbs").iterdir()}


@pytest.mark.slow
def test_the_page_of_mistakes_shows_what_is_said_today(tmp_path: Path) -> None:
    page = tmp_path / "mistakes.md"
    subprocess.run([sys.executable, ROOT / "docs" / "make_mistakes.py", page], check=True, capture_output=True)
    assert page.read_text() == (ROOT / "docs" / "mistakes.md").read_text()


@pytest.mark.slow
def test_the_tutorials_run_as_they_stand(tmp_path: Path) -> None:
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    for page in ("tutorial.md", "audit_tutorial.md"):
        for command, code in commands(ROOT / "docs" / page):
            done = subprocess.run(
                ["bash", "-c", command], cwd=tmp_path, env={**os.environ, "PATH": path}, capture_output=True, text=True
            )
            assert done.returncode == code, f"{command}\n{done.stdout}\n{done.stderr}"
    assert (tmp_path / "tutorial/answers/predictions.json").exists()
