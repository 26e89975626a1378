"""What the documents say is what happens."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_the_page_of_mistakes_shows_what_is_said_today(tmp_path: Path) -> None:
    page = tmp_path / "mistakes.md"
    subprocess.run([sys.executable, ROOT / "docs" / "make_mistakes.py", page], check=True, capture_output=True)
    assert page.read_text() == (ROOT / "docs" / "mistakes.md").read_text()
