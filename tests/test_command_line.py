"""The command line as a user meets it: help for every verb, one line and exit code 2 for every bad input."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import get_type_hints

import pytest
import typer
from typer.models import ParameterInfo
from typer.testing import CliRunner

from cavendish import app
from commands.app import here_only
from encoders.sample import InputError
from mixing.places import parse_place

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


def verbs(group: typer.Typer) -> Iterator[Callable[..., object]]:
    yield from (verb.callback for verb in group.registered_commands if verb.callback is not None)
    for below in group.registered_groups:
        assert below.typer_instance is not None
        yield from verbs(below.typer_instance)


def test_every_path_of_every_verb_may_be_a_url_or_is_refused_as_one() -> None:
    found = Counter[str]()
    for verb in verbs(app):
        for name, hint in get_type_hints(verb, include_extras=True).items():
            told = [one for one in getattr(hint, "__metadata__", ()) if isinstance(one, ParameterInfo)]
            taken = [one for one in told if one.parser is parse_place]
            if taken or "Path" in str(hint):
                found["taken" if taken else "refused"] += 1
                assert taken or told[0].callback is here_only, f"{verb.__name__}: {name}"
    assert found["taken"] >= 20
    assert found["refused"] >= 20


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("convert", "c.yaml", "--out", "x", "--data", "s3://b/d"), "--data s3://b/d: has to be on this machine"),
        (("encode", "s3://b/c.yaml", "--out", "x"), "CONFIG s3://b/c.yaml: has to be on this machine"),
        (("mix", "--diff", "a.json", "s3://b/c.json"), "--diff s3://b/c.json: has to be on this machine"),
        (
            ("predict", "a.png", "s3://b/c.png", "--task", "depth", "--generator", "g", "--out", "x"),
            "PICTURES s3://b/c",
        ),
        (("convert", "file:///nowhere/c.yaml", "--out", "x"), "/nowhere/c.yaml: no such configuration file"),
    ],
)
def test_a_url_for_what_is_read_on_this_machine_is_one_line(words: tuple[str, ...], message: str) -> None:
    ran = CliRunner().invoke(app, words)
    assert isinstance(ran.exception, InputError)
    assert str(ran.exception).startswith(message)


def test_no_torch_is_needed_to_look_into_shards() -> None:
    code = "import sys, cavendish, mixing.show, mixing.shards; sys.exit('torch' in sys.modules or 'bpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
