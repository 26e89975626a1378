"""What the documents say is what happens: every command can be typed, and the tutorials run as they stand."""

from __future__ import annotations

import importlib.util
import json
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
            code = re.search(r"#.*exit code (\d)$", line)
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
            job = values["job"].value if "job" in values else values["verb"]  # `plan JOB CONFIG`
            module, _, kind = configurations["audit" if group == "audit" else job][0].partition(":")
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


def run(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path}
    return subprocess.run(["bash", "-c", command], cwd=folder, env=environment, capture_output=True, text=True)


@pytest.fixture(scope="module")
def tutorial(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which both tutorials were run as they stand."""
    folder = tmp_path_factory.mktemp("tutorial")
    (folder / "examples").symlink_to(ROOT / "examples")
    for page in ("tutorial.md", "audit_tutorial.md"):
        for command, code in commands(ROOT / "docs" / page):
            done = run(command, folder)
            assert done.returncode == code, f"{command}\n{done.stdout}\n{done.stderr}"
    return folder


@pytest.mark.slow
def test_the_tutorials_end_with_an_answer_and_a_report(tutorial: Path) -> None:
    (prediction,) = json.loads((tutorial / "tutorial/answers/predictions.json").read_text())["predictions"]
    assert prediction["file"] == "pyrender-77-000000.image.png"
    assert json.loads((tutorial / "tutorial/audit_after/report.json").read_text())["verdict"] == "clean"


PLACES = {  # what the pages write, and where the tutorials put it
    "DATA/": "tutorial/",
    "DATA": "tutorial",
    "raw/pyrender": "tutorial/raw/scenes",
    "mixture/tune.lock.json": "tutorial/tuning.lock.json",
    "train/tuned": "tutorial/tuned",
    "tutorial/tutorial": "tutorial",
    "002300": "000200",
    "photo.jpg": "tutorial/pyrender-77-000000.image.png",
    "photos/": "tutorial/benchmark",
    "--generator ...": "--generator tutorial/tuned/generator",
    " DIR": " tutorial/raw/scenes",
    "LOCK": "tutorial/tuning.lock.json",
    " A B": " tutorial/base.lock.json tutorial/tuning.lock.json",
    "0/10": "0/4",
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("page", "verbs"),
    [("mixing.md", "mix --"), ("shards.md", "show"), ("provenance.md", ""), ("training.md", "predict")],
)
def test_what_the_pages_show_can_be_done_after_the_tutorial(tutorial: Path, page: str, verbs: str) -> None:
    typed = [each for each in commands(ROOT / "docs" / page) if each[0].startswith(f"cavendish {verbs}")]
    assert typed
    for command, code in typed:
        if "examples pyrender" in command:
            continue  # of the demo's instruction shards, which the tutorials do not freeze
        for written, there in PLACES.items():
            command = command.replace(written, there)
        done = run(command, tutorial)
        assert done.returncode == code, f"{command}\n{done.stdout}\n{done.stderr}"
