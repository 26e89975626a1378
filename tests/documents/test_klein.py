"""docs/tune_flux2_klein.md from its first command to its last, with a tiny Klein on two CPU processes."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cavendish.demo.photographs import PLANTED, write_photographs
from cavendish.mixing.shards.reader import verify
from tests.documents.not_run import NOT_RUN
from tests.documents.pages import ROOT, Shell, commands, copy_examples, left
from tests.trainer.tiny_models import write_klein

pytestmark = pytest.mark.slow

PAGE = "docs/tune_flux2_klein.md"
OF_TRAINING = ("cavendish precompute", "cavendish train CONFIG precomputed")
"""The commands of docs/training.md for generators with frozen parts, which the demo's has not."""
OTHERS = (
    "docs/downloading.md",
    "examples/download.yaml",
    *(f"examples/klein/{name}.yaml" for name in ("annotate", "audit", "mixture", "train", "evaluate")),
)
RUN = (PAGE, *OTHERS)

SCENES = {  # what the page writes, and what is run instead
    "scenes=2000 views_per_scene=5 scenes_per_shard=20 width=512 height=512 edits=0.3": "scenes=3 scenes_per_shard=3 "
    "width=64 height=64 edits=1",
    "scenes=64 scenes_per_shard=8 width=512 height=512": "scenes=1 scenes_per_shard=1 width=64 height=64 edits=1",
}
CHANGES = {
    **SCENES,
    "batch=8 accumulate=2": "batch=4 accumulate=2",
    "--nproc-per-node 8": "--nproc-per-node 2",
    "--size 512": "--size 32",
}
IN_DATA = {  # where the page puts what the others write beside themselves
    "annotate annotate.yaml": "annotate examples/klein/annotate.yaml",
    "CONFIG": "examples/klein/train.yaml parallel=none",
    "DIR": "data/runs/kept",
    "DATA": "data",
    **{f"--out {name}": f"--out data/{name}" for name in ("web", "raw/", "audit/", "mixture/", "runs/")},
    "--preview mixture/": "--preview data/mixture/",
}


def smaller(port: int) -> dict[str, dict[str, object]]:
    """Return what is changed in the configurations; the crawl asks the server at this port of this machine."""
    steps = {"steps": 4, "batch": 4, "warmup_steps": 1, "log_every": 2, "checkpoint_every": 2}
    return {
        "render_blender.yaml": {"samples": 1, "kinds": {"room": 1}},
        "download.yaml": {"ports": [port], "networks": ["127.0.0.0/8"], "host_interval_s": 0},
        "klein/annotate.yaml": {"max_side_px": 256},
        "klein/audit.yaml": {"controls": {"copies": 8, "clean": 8}},
        "klein/train.yaml": {**steps, "size": 32, "device": "cpu", "threads": 1, "workers": 1},
        "klein/evaluate.yaml": {"size": 32, "steps": 1},
    }


@contextmanager
def served(folder: Path) -> Iterator[int]:
    """Serve the files of a folder; yield the port."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def klein(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    """A folder in which every command of the page was run."""
    folder = tmp_path_factory.mktemp("klein")
    data, photos = folder / "data", folder / "site" / "photos"
    write_photographs(folder / "site")
    (data / "lists").mkdir(parents=True)
    (folder / "site" / "benchmark").rename(data / "benchmark")
    (folder / "photo.jpg").hardlink_to(photos / "coffee.png")
    names = ("coffee", "rocket", PLANTED)  # the last is a copy of one of the benchmark's
    with served(photos) as port:
        urls = [f"http://127.0.0.1:{port}/{name}.png" for name in names]
        table = pa.table({"URL": urls, "TEXT": [f"a picture of {name}" for name in names]})
        pq.write_table(table, data / "lists" / "part-0.parquet")
        copy_examples(folder / "examples", smaller(port))
        shell = Shell(folder, changes=CHANGES)
        for command in left(commands(ROOT / PAGE), NOT_RUN[PAGE]):
            if command.text.startswith("hf download"):
                write_klein(data / "models" / "klein")  # instead of a licence, an account and 16 GB
                tokenizer = data / "models/klein/tokenizer/tokenizer_config.json"  # its tokens are bytes: more of them
                tokenizer.write_text(
                    tokenizer.read_text().replace('"model_max_length": 128', '"model_max_length": 512')
                )
            else:
                shell.run(command)
        yield shell


def test_the_page_ends_with_a_tuned_klein(klein: Shell) -> None:
    data = klein.folder / "data"
    for folder in ("raw/scenes", "raw/heldout", "raw/web"):
        assert verify(data / folder) == []
    assert json.loads((data / "audit/final/report.json").read_text())["verdict"] == "clean"
    assert "web-download-000000" in (data / "audit/first/exclude.json").read_text()
    assert json.loads((data / "runs/klein/train.json").read_text())["steps"] == 4
    assert (data / "runs/klein/generator/pytorch_lora_weights.safetensors").exists()
    assert (data / "runs/look/batch.png").exists()
    assert json.loads((klein.folder / "answers/predictions.json").read_text())["predictions"]
    assert (data / "runs/klein/scores/summary.json").exists()


def test_what_other_pages_show_can_be_done_there(klein: Shell) -> None:
    for page in ("docs/training.md", *OTHERS):
        for command in commands(ROOT / page):
            if page != "docs/training.md" or command.text.startswith(OF_TRAINING):
                klein.run(command, IN_DATA)
    assert json.loads((klein.folder / "data/runs/kept/train.json").read_text())["steps"] == 4
