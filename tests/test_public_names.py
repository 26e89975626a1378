"""The public names: each is where it says, imports nothing until it is used, and its docstring's example is right."""

from __future__ import annotations

import ast
import doctest
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import cavendish
from tests.annotate.photographs import photo_bytes

FIRST = {"read_shard": "render", "audit": "render", "mix": "render", "MixtureDataset": "mix", "train": "mix"}
"""Whose example makes what the example of a name reads."""


def run_examples(name: str) -> None:
    """Run the examples in a docstring, in the current folder."""
    text = getattr(cavendish, name).__doc__
    test = doctest.DocTestParser().get_doctest(text, {"cavendish": cavendish}, name, None, 0)
    assert test.examples, f"{name} has no example"
    told: list[str] = []
    failed = doctest.DocTestRunner(verbose=False).run(test, out=told.append).failed
    assert not failed, "".join(told)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("examples")
    for name, photo in (("photos", "astronaut"), ("benchmark", "chelsea")):
        (path / name).mkdir()
        (path / name / f"{photo}.png").write_bytes(photo_bytes(photo))
    return path


@pytest.fixture(scope="module")
def finished() -> set[str]:
    return set()


SLOW = {"render", "annotate", *FIRST}
NAMES = [pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in cavendish.__all__]


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("name", NAMES)
def test_the_example_of_a_public_name_is_right(
    name: str, folder: Path, finished: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    todo = [name]
    while todo[0] in FIRST:
        todo.insert(0, FIRST[todo[0]])
    for each in todo:
        if each not in finished:
            run_examples(each)
            finished.add(each)


def test_the_table_and_what_type_checkers_read_are_the_same() -> None:
    tree = ast.parse(Path(cavendish.__file__).read_text())
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    imports = [node for node in block.body if isinstance(node, ast.ImportFrom)]
    read = {(node.module, name.asname) for node in imports for name in node.names}
    assert read == {(f"cavendish.{module}", name) for module, names in cavendish.PUBLIC.items() for name in names}


def test_importing_the_package_imports_nothing_else() -> None:
    code = "import cavendish, sys; print({name.partition('.')[0] for name in sys.modules} - sys.stdlib_module_names)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert {name for name in ast.literal_eval(done.stdout) if not name.startswith("_")} == {"cavendish"}


@pytest.mark.parametrize("verb", ["render", "annotate"])
def test_a_verb_stays_a_function_beside_the_package_of_its_name(verb: str) -> None:
    job = importlib.import_module(f"cavendish.{verb}.job")
    assert getattr(cavendish, verb) is getattr(importlib.import_module("cavendish.verbs"), verb)
    assert sys.modules[f"cavendish.{verb}"].job is job


def test_a_name_that_is_none_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'encode_deth'"):
        cavendish.encode_deth  # type: ignore[attr-defined]
