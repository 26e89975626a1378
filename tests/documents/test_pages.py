"""What is made from the program is what the program is: links, the pages of the verbs, the page of mistakes."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.documents.pages import PAGES, ROOT, name_of


@pytest.mark.parametrize("page", PAGES, ids=name_of)
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
