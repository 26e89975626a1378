from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cavendish.encoders.sample import Rejection
from cavendish.mixing.accounting import Accounting, LeftAside
from cavendish.mixing.jobs.beam import ShardJob, run
from cavendish.mixing.shards.dataset import Plan, read_row
from tests.conftest import tiny_sample

counts = st.integers(0, 10**12)
reasons = st.dictionaries(st.text(max_size=30), st.integers(1, 10**9), max_size=20)


@given(counts, counts, reasons, st.integers(-5, 5))
def test_counts_add_up_or_are_refused(written: int, rejected: int, left_aside: dict[str, int], off: int) -> None:
    found = written + rejected + sum(left_aside.values())
    if off:
        with pytest.raises(ValueError, match="are accounted for"):
            Accounting(found + off, written, rejected, left_aside)
    account = Accounting(found, written, rejected, left_aside)
    assert Accounting(**json.loads(json.dumps(account.as_dict()))) == account
    assert f"found {found:,} = {written:,} written + {rejected:,} rejected" in str(account)


def test_the_line_shows_the_most_frequent_reasons_and_counts_the_others() -> None:
    left_aside = {f"reason {n:02d}": n for n in range(1, 12)}
    line = str(Accounting(70, 3, 1, left_aside))
    assert line.startswith("found 70 = 3 written + 1 rejected + 66 left aside (11 reason 11; 10 reason 10;")
    assert line.endswith("; 6 for 3 other reasons)")


def _build(index: int):  # type: ignore[no-untyped-def]
    yield tiny_sample(f"scene-{index}")
    yield LeftAside("no depth", 3)
    if index:
        yield LeftAside("no depth")
        yield Rejection("x", "damaged")


def test_what_a_job_leaves_aside_is_in_rows_and_totals(tmp_path: Path) -> None:
    result = run(ShardJob(Plan("test", 2, {}), _build, tmp_path, found=11, left_aside={".md: not an image": 1}))
    assert result.totals is not None
    assert Accounting.of_totals(result.totals) == Accounting(11, 2, 1, {".md: not an image": 1, "no depth": 7})
    assert json.loads((tmp_path / "dataset.json").read_bytes())["totals"]["found"] == 11
    assert read_row(tmp_path / "shard-000001.json").left_aside == {"no depth": 4}
    with pytest.raises(ValueError, match="9 inputs were found and 11 are accounted for"):
        run(ShardJob(Plan("test", 2, {}), _build, tmp_path, found=9, left_aside={".md: not an image": 1}))


def test_a_row_that_leaves_nothing_aside_has_the_bytes_it_had(tmp_path: Path) -> None:
    run(ShardJob(Plan("test", 1, {}), _one, tmp_path))
    assert "left_aside" not in json.loads((tmp_path / "shard-000000.json").read_bytes())


def _one(index: int):  # type: ignore[no-untyped-def]
    yield tiny_sample(f"scene-{index}")
