"""Every reader answers a broken file with a result or one clear line; `python -m tests.fuzz` is the long campaign."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.cases import run_case
from tests.fuzz.every import READERS
from tests.fuzz.readers import Reader

CI = settings(max_examples=25, derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.mark.parametrize("reader", READERS, ids=[reader.name for reader in READERS])
def test_a_broken_file_is_a_result_or_one_clear_line(reader: Reader, tmp_path: Path) -> None:
    folder = tmp_path / "case"
    folder.mkdir()
    reader.write(folder)
    reader.read(folder)

    @CI
    @given(st.integers(0, 2**32 - 1))
    def broken(seed: int) -> None:
        finding = run_case(reader, folder, seed)
        assert finding is None, f"{finding.file}: {finding.what}: {finding.where}"

    broken()
