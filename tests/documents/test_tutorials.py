"""Both tutorials run as they stand, one after the other in one folder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.documents.not_run import NOT_RUN
from tests.documents.pages import ROOT, Shell, commands, left

RUN = ("docs/tutorial.md", "docs/audit_tutorial.md")


@pytest.mark.slow
def test_the_tutorials_end_with_an_answer_and_a_report(tmp_path: Path) -> None:
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    shell = Shell(tmp_path)
    for page in RUN:
        for command in left(commands(ROOT / page), NOT_RUN.get(page, {})):
            shell.run(command)
    (prediction,) = json.loads((tmp_path / "tutorial/answers/predictions.json").read_text())["predictions"]
    assert prediction["file"] == "pyrender-77-000000.image.png"
    assert json.loads((tmp_path / "tutorial/audit_after/report.json").read_text())["verdict"] == "clean"
