"""The wheel alone, outside of this checkout: what is in it, and what its verbs do with one extra or with none."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path
from zipfile import ZipFile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from cavendish.annotate.weights import weights_folder
from cavendish.encoders.sample import InputError
from cavendish.mixing.extras import EXTRAS, missing_extra, require_extra
from cavendish.mixing.images import encode_png
from cavendish.mixing.shards.reader import verify
from tests.annotate.photographs import photo_bytes
from tests.conftest import tiny_sample
from tests.documents.pages import end, free_port
from tests.documents.test_klein import served
from tests.mixing.storage.s3_server import s3_server
from tests.package.environments import ROOT, build_wheel, make_environment, requirements, run
from tests.shard_folder import write_shards

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
DECLARED = PROJECT["optional-dependencies"]

MIXTURE = """\
seed: 1
ratios: {generation: rest, vision: 0.5}
sources: {scenes: {path: raw, tasks: {generate: 1, depth: 1}}}
"""
TRAIN = """\
lock: lock.json
size: 32
steps: 2
batch: 2
warmup_steps: 1
log_every: 1
checkpoint_every: 2
threads: 1
"""
NEEDS = {  # a command, and the extra whose absence it has to name
    "render examples/render_pyrender.yaml --out x": "render",
    "plan render examples/render_pyrender.yaml": "render",
    "annotate examples/annotate.yaml --out x": "annotate",
    "plan annotate examples/annotate.yaml": "annotate",
    "download examples/download.yaml --out x": "annotate",
    "train train.yaml --out x": "train",
    "train train.yaml --out x --dry-run": "train",
    "plan train train.yaml": "train",
    "precompute train.yaml --out x": "train",
    "predict photo.png --task depth --generator x --out y": "train",
    "evaluate examples/evaluate.yaml --out x": "train",
    "evaluate score.yaml --requests --out x": "evaluate",
    "encode encode.yaml --out x --scheduler tcp://127.0.0.1:9": "dask",
    "show s3://bucket/raw": "remote",
    "convert exr.yaml --out x": "evaluate",
    "demo --out x": "demo",
}


def test_the_extras_are_those_of_the_project() -> None:
    for extra, modules in EXTRAS.items():
        declared = {canonicalize_name(Requirement(line).name) for line in DECLARED[extra]} - {"cavendish"}
        known = packages_distributions()
        brought = {canonicalize_name(name) for module in modules for name in known.get(module, [module])}
        assert declared <= brought, f"{extra}: {declared - brought} is in pyproject.toml only"
    assert set(EXTRAS) == set(DECLARED) - {"all", "test"}
    (everything,) = DECLARED["all"]
    assert Requirement(everything).extras == set(EXTRAS)


def test_a_missing_package_is_one_line_that_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyrender", None)
    with pytest.raises(InputError, match=r"^the package pyrender is not installed: pip install 'cavendish\[render\]'$"):
        require_extra("render")
    require_extra("render", "trimesh")
    with pytest.raises(ImportError) as refused:
        __import__("pyrender.constants")
    assert str(missing_extra(refused.value)).endswith("pip install 'cavendish[render]'")
    assert missing_extra(ImportError("no such thing", name="of_ours")) is None


BROUGHT = {
    "annotated_types": "pydantic",
    "safetensors": "diffusers",
    "typing_extensions": "pydantic",
    "markupsafe": "jinja2",
    "addon_utils": "bpy",
    "pxr": "bpy",
    "mathutils": "bpy",
    "OpenImageIO": "bpy",
    "OpenGL": "pyrender",
}
"""Modules of packages that a declared one brings."""
BY_HAND = {"depth_anything_3", "moge", "wandb"}
"""Modules that no extra brings; where they are used, it is said how to get them."""


def third_party_imports() -> dict[str, str]:
    """Return the modules that the product imports, anywhere in it, and a file that does."""
    found: dict[str, str] = {}
    for room in ("annotate", "encoders", "mixing", "render", "trainer", "cavendish/cli", "cavendish/demo"):
        for path in (ROOT / room).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                if isinstance(node, ast.ImportFrom) and node.module:
                    names.append(node.module)
                found |= {name.partition(".")[0]: str(path.relative_to(ROOT)) for name in names}
    return {name: file for name, file in found.items() if name not in {*sys.stdlib_module_names, "cavendish"}}


def test_every_import_is_of_a_package_that_is_declared() -> None:
    base = {canonicalize_name(Requirement(line).name) for line in PROJECT["dependencies"]}
    optional = {module for modules in EXTRAS.values() for module in modules}
    installed = packages_distributions()
    for name, file in third_party_imports().items():
        if name in optional | BY_HAND or BROUGHT.get(name) in optional:
            continue
        packages = {canonicalize_name(one) for one in installed.get(BROUGHT.get(name, name), [name])}
        assert base & packages, f"{file} imports {name}, which no extra brings"


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(tmp_path_factory.mktemp("wheel"))


@pytest.mark.slow
def test_the_wheel_has_one_top_level_name_and_every_file(wheel: Path) -> None:
    with ZipFile(wheel) as archive:
        names = set(archive.namelist())
    info = {name for name in names if name.startswith("cavendish-") and ".dist-info/" in name}
    assert {name.partition("/")[0] for name in names - info} == {"cavendish"}
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    rooms = ("annotate", "encoders", "examples", "mixing", "render", "trainer")
    listed = subprocess.run([*command, *rooms], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    there = {f"cavendish/{name}" for name in listed if (ROOT / name).exists()}
    assert {name for name in names - info if name.split("/")[1] in rooms} == there


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with raw shards, and configurations for each verb that reads them."""
    write_shards(tmp_path / "raw", [tiny_sample(f"scene-{i:03d}", i) for i in range(8)], 2)
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/astronaut.png").write_bytes(photo_bytes("astronaut"))
    (tmp_path / "photo.png").write_bytes(encode_png(tiny_sample().image))
    (tmp_path / "web").mkdir()
    (tmp_path / "web/one.png").write_bytes(photo_bytes("astronaut"))
    (tmp_path / "web/one.txt").write_text("an astronaut")
    (tmp_path / "exr").mkdir()
    for name in ("one.png", "one.depth.exr"):
        (tmp_path / "exr" / name).write_bytes(photo_bytes("astronaut"))
    texts = {
        "encode.yaml": "sources: [raw]\ntasks: {depth: 1, generate: 1}\nsize: 32\n",
        "mixture.yaml": MIXTURE,
        "train.yaml": TRAIN,
        "exr.yaml": "name: web\npath: exr\nlicence: CC0-1.0\n",
        "convert.yaml": "name: web\npath: web\nlicence: CC0-1.0\n",
        "score.yaml": "benchmark: samples\nfolder: raw\ntask: depth\n",
        "audit.yaml": "shards: [raw]\nbenchmarks: [{name: photos, folder: photos}]\ncontrols: {copies: 8, clean: 8}\n",
        "evaluate.yaml": "generator: tuned/generator\nbase: base/generator\nretention: raw\nsize: 32\nsteps: 1\n"
        "sets: {seen: {folder: raw, tasks: [depth]}}\n",
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    return tmp_path


@pytest.mark.slow
def test_without_extras_shards_are_made_looked_at_checked_and_mixed(wheel: Path, folder: Path) -> None:
    programs = make_environment(folder / "env", wheel)
    for words in (
        "examples examples",
        "show raw --verify",
        "show raw scene-000 --provenance",
        "convert convert.yaml --out web-shards",
        "encode encode.yaml --out frozen",
        "audit audit.yaml --out audited",
        "mix mixture.yaml --out lock.json --preview preview.html",
        "mix --stats lock.json",
        "card raw --out card",
        "plan encode encode.yaml --samples 2",
    ):
        run(programs, "cavendish", *words.split(), cwd=folder)
    assert verify(folder / "frozen") == []
    for words, extra in NEEDS.items():
        said = run(programs, "cavendish", *words.split(), cwd=folder, code=2)
        assert said.count("\n") == 1, said
        assert f"pip install 'cavendish[{extra}]'" in said, words


@pytest.mark.slow
def test_with_render_both_engines_render(wheel: Path, folder: Path) -> None:
    programs = make_environment(folder / "env", wheel, ["render"])
    run(programs, "cavendish", "examples", "examples", cwd=folder)
    small = "scenes=1 scenes_per_shard=1 width=64 height=64 edits=1"
    for engine in ("pyrender", "blender samples=1"):
        name, _, more = engine.partition(" ")
        words = f"render examples/render_{name}.yaml {small} {more} --out {name} --workers 1"
        run(programs, "cavendish", *words.split(), cwd=folder)
        assert verify(folder / name) == []


@pytest.mark.slow
def test_with_annotate_photographs_are_downloaded_and_labelled(wheel: Path, folder: Path) -> None:
    programs = make_environment(folder / "env", wheel, ["annotate"])
    where = {"CAVENDISH_WEIGHTS": str(weights_folder())}
    with served(folder / "photos") as port:
        pq.write_table(pa.table({"url": [f"http://127.0.0.1:{port}/astronaut.png"]}), folder / "urls.parquet")
        (folder / "download.yaml").write_text(
            f"urls: urls.parquet\ncontact: a@b.org\nports: [{port}]\nnetworks: [127.0.0.0/8]\nhost_interval_s: 0\n"
        )
        run(programs, "cavendish", "download", "download.yaml", "--out", "web", cwd=folder)
    (folder / "annotate.yaml").write_text("sources: [{name: web, kind: tar, path: web, licence: CC0-1.0}]\n")
    run(programs, "cavendish", "annotate", "annotate.yaml", "--out", "labelled", cwd=folder, environment=where)
    assert verify(folder / "labelled") == []


def make_lock_and_train(programs: Path, folder: Path, *settings: str) -> None:
    run(programs, "cavendish", "mix", "mixture.yaml", "--out", "lock.json", cwd=folder)
    run(programs, "cavendish", "train", "train.yaml", *settings, "--out", "base", cwd=folder)


@pytest.mark.slow
def test_with_train_the_embedded_generator_is_trained_evaluated_and_asked(wheel: Path, folder: Path) -> None:
    programs = make_environment(folder / "env", wheel, ["train"])
    tiny = "generator={width: 16}"
    make_lock_and_train(programs, folder, tiny)
    for words in (
        "train train.yaml base=base/generator steps=3 --out tuned",
        "evaluate evaluate.yaml --out scores",
        "predict photo.png --task depth --points ply --size 32 --generator tuned/generator --out answers",
        "show tuned --lineage",
    ):
        run(programs, "cavendish", *words.split(), cwd=folder)
    assert (folder / "scores/summary.json").exists()
    words = ("train", "train.yaml", "base=base/generator", "lora={rank: 2, alpha: 2}", "--out", "x")
    assert "pip install 'cavendish[generators]'" in run(programs, "cavendish", *words, cwd=folder, code=2)


@pytest.mark.slow
def test_with_generators_a_klein_gets_a_lora(wheel: Path, folder: Path) -> None:
    programs = make_environment(folder / "env", wheel, ["generators"])
    from tests.trainer.tiny_models import write_klein  # imports torch

    write_klein(folder / "klein")
    make_lock_and_train(programs, folder, "base=klein", "lora={rank: 2, alpha: 2}")
    assert (folder / "base/generator/pytorch_lora_weights.safetensors").exists()
    run(programs, "cavendish", "precompute", "train.yaml", "base=klein", "--out", "ahead", cwd=folder)


@pytest.mark.slow
def test_with_evaluate_a_folder_of_images_is_scored(wheel: Path, folder: Path) -> None:
    programs = make_environment(folder / "env", wheel, ["evaluate"])
    run(programs, "cavendish", "evaluate", "score.yaml", "--requests", "--out", "asked", cwd=folder)
    run(programs, "cavendish", "evaluate", "score.yaml", "--predictions", "asked/images", "--out", "s", cwd=folder)


@pytest.mark.slow
def test_with_remote_a_bucket_is_written_and_read(wheel: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    programs = make_environment(folder / "env", wheel, ["remote"])
    with s3_server(monkeypatch):
        run(programs, "cavendish", "encode", "encode.yaml", "--out", "s3://bucket/frozen", cwd=folder)
        run(programs, "cavendish", "show", "s3://bucket/frozen", "--verify", cwd=folder)


@pytest.mark.slow
def test_with_dask_a_cluster_encodes(wheel: Path, folder: Path) -> None:
    programs = make_environment(folder / "env", wheel, ["dask"])
    port = free_port()
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "start_new_session": True, "cwd": folder}
    address = f"tcp://127.0.0.1:{port}"
    scheduler = [str(programs / "dask"), "scheduler", "--host", "127.0.0.1", "--port", str(port), "--no-dashboard"]
    worker = [str(programs / "dask"), "worker", address, "--nworkers", "1", "--nthreads", "1", "--no-dashboard"]
    started = [subprocess.Popen(command, **quiet) for command in (scheduler, worker)]
    try:
        run(programs, "cavendish", "encode", "encode.yaml", "--out", "frozen", "--scheduler", address, cwd=folder)
    finally:
        end(*started)
    assert verify(folder / "frozen") == []


SMALL_DEMO = """\
from contextlib import nullcontext
from pathlib import Path
from cavendish.demo import pipeline

training = ("steps=2", "checkpoint_every=2", "log_every=2", "batch=4", "warmup_steps=1")
small = {
    "render_blender.yaml": ("scenes=2", "width=64", "height=64", "samples=1"),
    "render_pyrender.yaml": ("scenes=6", "width=64", "height=64"),
    "encode.yaml": ("size=64",),
    "train_base.yaml": training,
    "train_tune.yaml": training,
}
held_out = pipeline._render("render_pyrender.yaml", "raw/heldout", "seed=2027", "scenes=6")
pipeline.STAGES["render held-out scenes"] = held_out
if __name__ == "__main__":
    pipeline.run_demo(Path("demo"), 2, lambda title: nullcontext(lambda done, planned: None), print, small)
"""


@pytest.mark.slow
def test_with_all_the_demo_runs_and_nothing_is_left_out(wheel: Path, folder: Path) -> None:
    everything = requirements(wheel, ["all"])
    for extra in EXTRAS:
        assert requirements(wheel, [extra]).keys() <= everything.keys(), extra
    pins = [Requirement(line) for line in (ROOT / "constraints.txt").read_text().splitlines() if line[0] != "#"]
    pinned = {canonicalize_name(pin.name): pin.specifier for pin in (*pins, *map(Requirement, DECLARED["train"]))}
    for name, package in everything.items():
        assert name in pinned, f"{name} is not in constraints.txt"
        assert pinned[name].contains(package.version), f"{name} {package.version} is not that of constraints.txt"
    programs = make_environment(folder / "env", wheel, ["all"])
    (folder / "small_demo.py").write_text(SMALL_DEMO)
    where = {"CAVENDISH_WEIGHTS": str(weights_folder())}
    said = run(programs, "python", "small_demo.py", cwd=folder, environment=where)
    assert (folder / "demo/report.html").exists(), said
