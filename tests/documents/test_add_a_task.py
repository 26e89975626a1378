"""docs/add_a_task.md as written: its files in a copy of the packages, its test run there."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from tests.documents.pages import ROOT, blocks

PAGE = ROOT / "docs" / "add_a_task.md"
CODE = ("cavendish", "encoders", "mixing", "trainer", "render", "annotate", "examples")
MIXTURE = """
from pathlib import Path
from cavendish.mixing.mixture.config import load
from cavendish.mixing.mixture.draw import parts_of
print(load(Path("mixture.yaml")).sources["scenes"].tasks.keys(), parts_of("edges")[-2:])
"""


def add_task(to: Path) -> list[str]:
    """Do in a copy of the repository what the page says; return the files that it touches."""
    touched = []
    for block in blocks(PAGE):
        if block.language == "yaml":
            (to / "mixture.yaml").write_text("ratios: {vision: rest}\n" + "\n".join(block.lines) + "\n")
            continue
        name, lines = block.lines[0].removeprefix("# "), block.lines[1:]
        touched.append(name)
        if block.language == "diff":
            old, new = ("\n".join(line[1:] for line in lines if line[:1] != sign) + "\n" for sign in "+-")
            text = (to / name).read_text()
            assert text.count(old) == 1, f"{name} has not the lines that the page adds to"
            (to / name).write_text(text.replace(old, new))
        else:
            assert not (to / name).exists()
            (to / name).write_text("\n".join(lines) + "\n")
    return touched


def test_the_edge_maps_of_the_page_are_a_task(tmp_path: Path) -> None:
    for name in CODE:
        shutil.copytree(ROOT / name, tmp_path / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "tests/encoders/tasks").mkdir(parents=True)
    for name in ("tests/__init__.py", "tests/conftest.py", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path / name)
    touched = add_task(tmp_path)
    assert len(touched) == 4
    assert {re.sub(r".*edges.*", "edges", Path(name).name) for name in touched} == {"edges", "registry.py"}
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    tests = [name for name in touched if name.startswith("tests/")]
    for words in (["-m", "pytest", "-q", "-p", "no:cacheprovider", *tests], ["-c", MIXTURE]):
        done = subprocess.run(
            [sys.executable, *words], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout == "dict_keys(['edges']) ('instances.png', 'weight.png')\n"
