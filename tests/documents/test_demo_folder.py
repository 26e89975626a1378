"""What the pages show of the demo's folders, run in such a folder: the README's tour first, then page after page."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Mapping

import pytest

from cavendish.demo.photographs import PLANTED, write_photographs
from cavendish.mixing.shards.reader import verify
from tests.documents.not_run import NOT_RUN
from tests.documents.pages import (
    EXAMPLES,
    ROOT,
    Command,
    Shell,
    commands,
    copy_examples,
    end,
    free_port,
    left,
    name_of,
)
from tests.documents.test_klein import OF_TRAINING

pytestmark = pytest.mark.slow

SMALL = {"width": 64, "height": 64, "edits": 1}
TRAIN = {"steps": 4, "batch": 4, "warmup_steps": 1, "checkpoint_every": 2, "log_every": 2, "threads": 1}
SMALLER = {
    "render_blender.yaml": {**SMALL, "scenes": 2, "scenes_per_shard": 1, "samples": 1, "kinds": {"room": 1}},
    "render_pyrender.yaml": {**SMALL, "scenes": 4, "scenes_per_shard": 2, "kinds": {"room": 1}},
    "annotate.yaml": {"max_side_px": 256, "images_per_shard": 2},
    "encode.yaml": {"size": 64},
    "audit.yaml": {"controls": {"copies": 8, "clean": 8}},
    "train_base.yaml": TRAIN,
    "train_tune.yaml": TRAIN,
    "evaluate.yaml": {"sets": {"held-out scenes": {"folder": "raw/heldout", "tasks": ["depth"]}}},
}
BEFORE = {  # what the demo does between the commands of the README's tour
    "cavendish mix examples/mixture.yaml": (
        "cavendish audit examples/audit.yaml exclude=[audit/first/exclude.json] --data DATA --out DATA/audit/final",
        "cavendish mix examples/mixture_base.yaml --out mixture/base.lock.json --data DATA",
        "cavendish train examples/train_base.yaml --out train/base --data DATA",
        "cp -r DATA/raw/pyrender DATA/raw/heldout",  # no scenes of their own: renderers take long to start
    ),
}
CODES = {"cavendish audit examples/audit.yaml --": 1}  # the planted copy is found
IN_DATA = {  # where the demo puts what these pages write beside themselves
    "DATA": "demo-output",
    **{
        f"--out {name}": f"--out demo-output/{name}"
        for name in ("raw/", "audit/", "examples", "mixture/", "train/", "evaluation")
    },
}
PLACES: dict[str, Mapping[str, str]] = {  # of a page: what it writes, and what is run instead
    "README.md": {  # one's own data are those of the demo, and are made once
        " scenes=200 width=256 height=256": "",
        "mine/raw/scenes": "demo-output/raw/pyrender",
        "mine": "demo-output",
        "cavendish plan": "cavendish plan --samples 2",
    },
    "docs/mixing.md": {
        " A B": " demo-output/mixture/base.lock.json demo-output/mixture/tune.lock.json",
        "LOCK": "demo-output/mixture/tune.lock.json",
    },
    "docs/scaling.md": {"cavendish plan": "cavendish plan --samples 2"},
    "docs/provenance.md": {"000011": "000001", "002300": "000004", "DATA": "."},
    "docs/shards.md": {"DIR": "demo-output/raw/pyrender"},
    "docs/training.md": {
        "CONFIG": "examples/train_tune.yaml",
        "device=cuda": "device=cpu",
        "DIR": "demo-output/runs/two",
        "photos/": "demo-output/benchmark",
        "--generator ...": "--generator demo-output/train/tuned/generator",
    },
    "docs/audit.md": {"FOLDER": "demo-output/benchmark"},
}
INSIDE = {"docs/provenance.md": "demo-output"}
CONFIGURATIONS = tuple(
    name_of(path)
    for path in EXAMPLES
    if path.parent.name == "examples" and path.name not in ("download.yaml", "tiny.yaml")
)
RUN = (
    "README.md",
    *CONFIGURATIONS,
    "docs/annotation.md",
    "docs/audit.md",
    "docs/mixing.md",
    "docs/provenance.md",
    "docs/scaling.md",
    "docs/shards.md",
    "docs/training.md",
)


def run(shell: Shell, command: Command, changes: Mapping[str, str], inside: str = ".") -> None:
    """Run a command with the exit code that it has in the demo."""
    code = next((code for start, code in CODES.items() if command.text.startswith(start)), command.code)
    shell.run(dataclasses.replace(command, code=code), changes, inside)


def run_page(shell: Shell, page: str) -> None:
    """Run the commands of a page that no reason keeps from it."""
    changes = {**PLACES.get(page, {}), **({} if page in INSIDE else IN_DATA)}
    for command in left(commands(ROOT / page), NOT_RUN.get(page, {})):
        if page == "docs/training.md" and command.text.startswith(OF_TRAINING):
            continue
        if "--nnodes 2" in command.text:
            run_on_two_machines(shell, command, changes)
        else:
            run(shell, command, changes, INSIDE.get(page, "."))


def run_on_two_machines(shell: Shell, command: Command, changes: Mapping[str, str]) -> None:
    """Run torchrun twice at the same time, as on two machines; one of them is waited for in the background."""
    changes = {**changes, "HOST:29400": f"127.0.0.1:{free_port()}", "--nproc-per-node 8": "--nproc-per-node 1"}
    other = shell.start(command, changes)
    try:
        run(shell, command, changes)
        assert other.wait(600) == 0
    finally:
        end(other)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Shell:
    """A folder as the demo leaves it, made by the README's commands with small numbers."""
    folder = tmp_path_factory.mktemp("demo")
    copy_examples(folder / "examples", SMALLER)
    data = folder / "demo-output"
    write_photographs(data)
    for path in (data / "photos").iterdir():
        if path.stem not in ("coffee", PLANTED):
            path.unlink()
    shutil.copy(data / "photos" / "coffee.png", folder / "photo.jpg")
    (data / "mixture").mkdir()
    web = data / "foreign" / "web"
    web.mkdir(parents=True)
    for number in range(8):
        shutil.copy(data / "photos" / "coffee.png", web / f"cup-{number}.png")
        (web / f"cup-{number}.txt").write_text("a cup of espresso")
    shell = Shell(folder)
    for command in left(commands(ROOT / "README.md"), NOT_RUN["README.md"]):
        for text in BEFORE.get(command.text.partition(" --")[0], ()):
            run(shell, Command("the demo", text), IN_DATA)
        run(shell, command, PLACES["README.md"])
    return shell


def test_the_tour_of_the_readme_leaves_what_the_demo_leaves(demo: Shell) -> None:
    data = demo.folder / "demo-output"
    for folder in ("raw/blender", "raw/pyrender", "raw/heldout", "raw/photos", "examples"):
        assert verify(data / folder) == [], folder
    for name in ("audit/first/report.html", "train/tuned/generator/weights.pt", "evaluation/summary.json"):
        assert (data / name).exists(), name
    assert (demo.folder / "answers" / "predictions.json").exists()


@pytest.mark.parametrize("page", [page for page in RUN if page != "README.md"])
def test_what_the_page_shows_can_be_done(demo: Shell, page: str) -> None:
    run_page(demo, page)
