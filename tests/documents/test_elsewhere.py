"""The commands for clusters and object storage, on a dask scheduler and an S3 server of this machine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cavendish.mixing.shards.reader import verify
from tests.documents.not_run import NOT_RUN
from tests.documents.pages import ROOT, Shell, commands, end, free_port, left, shrink
from tests.mixing.storage.s3_server import s3_server

RUN = ("docs/cluster.md", "docs/storage.md")
SCENES = {"scenes": 2, "scenes_per_shard": 1, "width": 64, "height": 64, "edits": 1, "kinds": {"room": 1}}
CONFIGURATIONS = {  # what docs/storage.md calls encode.yaml, and so on
    "encode.yaml": "sources: [raw/pyrender]\ntasks: {generate: 1, edit: 1, depth: 1}\nsize: 64\n",
    "mixture.yaml": "seed: 1\nratios: {generation: rest, editing: 0.3, vision: 0.3}\n"
    "sources: {frozen: {path: frozen, tasks: {generate: 1, edit: 1, depth: 1}}}\n",
    "train.yaml": "lock: base.lock.json\ngenerator: {width: 16}\nsize: 64\nsteps: 2\nbatch: 2\nwarmup_steps: 1\n",
    "evaluate.yaml": "generator: base/generator\nbase: base/generator\nretention: raw/pyrender\n"
    "sets: {seen: {folder: raw/pyrender, tasks: [depth]}}\nsize: 64\nsteps: 1\n",
}


@pytest.mark.slow
def test_on_many_machines(tmp_path: Path) -> None:
    shared, port = tmp_path / "shared", free_port()
    shared.mkdir()
    shrink(ROOT / "examples" / "render_pyrender.yaml", tmp_path / "scenes.yaml", SCENES)
    changes = {
        "/shared": str(shared),
        "/64": "/2",
        "--workers 4": "--workers 1",
        "tcp://host:8786": f"tcp://127.0.0.1:{port}",
        "8786": f"{port}",
    }
    shell = Shell(tmp_path, changes={**changes, "srun --ntasks=1 ": "", "srun --ntasks=32 ": "", "rs 16": "rs 1"})
    serving = []
    try:
        for command in left(commands(ROOT / "docs/cluster.md"), NOT_RUN["docs/cluster.md"]):
            if "$SLURM_ARRAY_TASK_ID" in command.text:
                for task in ("0", "1"):
                    Shell(tmp_path, {"SLURM_ARRAY_TASK_ID": task}, shell.changes).run(command)
                assert verify(shared / "raw/scenes") == []
            elif "dask" in command.text:
                serving.append(shell.start(command))
            else:
                shell.run(command)
                assert len(serving) == 2
                end(serving.pop(), serving.pop())
    finally:
        end(*serving)


@pytest.fixture
def bucket() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch, s3_server(patch):
        yield


@pytest.mark.slow
@pytest.mark.usefixtures("bucket")
def test_with_all_data_in_a_bucket(tmp_path: Path) -> None:
    shrink(ROOT / "examples/render_pyrender.yaml", tmp_path / "examples/render_pyrender.yaml", {**SCENES, "scenes": 1})
    for name, text in CONFIGURATIONS.items():
        (tmp_path / name).write_text(text)
    shell = Shell(tmp_path)
    for command in left(commands(ROOT / "docs/storage.md"), NOT_RUN.get("docs/storage.md", {})):
        shell.run(command)
    assert not (tmp_path / "s3:").exists()
