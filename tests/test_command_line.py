"""The command line as a user meets it: help for every verb, one line and exit code 2 for every bad input."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cavendish import app

ROOT = Path(__file__).parents[1]
VERBS = ("render", "annotate", "encode", "audit", "mix", "train", "evaluate", "show", "demo")


def cavendish(*words: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / "cavendish.py"), *words], capture_output=True, text=True, cwd=cwd, check=False
    )


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself(verb: str) -> None:
    shown = CliRunner().invoke(app, [verb, "--help"])
    assert shown.exit_code == 0
    assert "--out" in shown.output


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("render", "absent.yaml", "--out", "x"), "absent.yaml: no such configuration file"),
        (("render", "bad.yaml", "--out", "x"), "unknown key 'colour'"),
        (("render", "examples/render_pyrender.yaml", "scenes=-1", "--out", "x"), "scenes"),
        (("render", "examples/render_pyrender.yaml", "--out", "x", "--split", "3"), "write it as I/N"),
        (("render", "examples/render_pyrender.yaml", "--out", "x", "--runner", "DirectRunner"), "use FnApiRunner"),
        (("encode", "examples/encode.yaml", "--out", "x"), "raw/blender"),
        (("mix", "examples/mixture.yaml", "--out", "x.json"), "no such file"),
        (("mix",), "give a mixture file and --out"),
        (("train", "examples/train_tune.yaml", "--out", "x"), "tune.lock.json: no such file"),
        (("evaluate", "examples/evaluate.yaml", "--out", "x"), "run its training first"),
        (("show", "nowhere"), "no such shard or directory"),
        (("show", "nowhere", "--verify"), "no such file"),
    ],
)
def test_a_bad_input_is_one_line_and_exit_code_2(tmp_path: Path, words: tuple[str, ...], message: str) -> None:
    (tmp_path / "bad.yaml").write_text("colour: red\n")
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    done = cavendish(*words, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert not list(tmp_path.glob("x/shard-*"))


def test_no_torch_is_needed_to_look_into_shards() -> None:
    code = "import sys, cavendish, mixing.show, mixing.shards; sys.exit('torch' in sys.modules or 'bpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
