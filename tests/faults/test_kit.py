"""A small part of `python -m benchmarks.faults`: kills and damaged files of the two quickest jobs, all in one page."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from benchmarks.faults.damage import damage_job
from benchmarks.faults.jobs import CONFIGS, job_named
from benchmarks.faults.kills import kill_job
from benchmarks.faults.outcomes import Outcome, make_reference
from benchmarks.faults.table import BEGIN, END, table, write_table
from cavendish.encoders.sample import InputError
from tests.mixing.shard_data import write_raw


@pytest.fixture
def inputs(tmp_path: Path) -> Path:
    """Inputs of `mix` and `encode`, without rendering them."""
    folder = tmp_path / "inputs"
    folder.mkdir()
    for name in ("mixture.yaml", "encode.yaml"):
        (folder / name).write_text(CONFIGS[name])
    write_raw(folder / "raw", shards=3, each=2)
    return folder


def check(outcome: Outcome) -> None:
    assert outcome.clear, outcome
    assert outcome.intact, outcome
    assert outcome.equal, outcome


@pytest.mark.slow
def test_kills_lose_nothing_and_the_next_run_gives_the_reference(inputs: Path, tmp_path: Path) -> None:
    job = dataclasses.replace(job_named("encode"), workers=(1,))
    folder = tmp_path / "trial"
    reference = make_reference(job, inputs, folder)
    outcomes = list(kill_job(job, inputs, folder, reference, kills=3, seed=0))
    assert len(outcomes) == 3
    for outcome in outcomes:
        check(outcome)


@pytest.mark.slow
def test_a_bad_configuration_is_one_line_and_costs_nothing(inputs: Path, tmp_path: Path) -> None:
    job, folder = job_named("mix"), tmp_path / "trial"
    reference = make_reference(job, inputs, folder)
    folder.rename(tmp_path / "done")
    outcomes = list(damage_job(job, inputs, tmp_path / "done", folder, reference, seed=0, only="configuration"))
    assert len(outcomes) == 5
    for outcome in outcomes:
        check(outcome)
        assert "DATA/mixture.yaml" in outcome.message


def test_the_table_says_what_was_lost(tmp_path: Path) -> None:
    good = Outcome("SIGKILL of the group", "mix", "Killed", clear=True, intact=True, equal=True)
    bad = dataclasses.replace(good, intact=False, clear=False)
    text = table([good, good, bad])
    assert "3 kills" in text
    assert "another result after the re-run: 1" in text
    assert "| **2 of 3** |" in text
    page = tmp_path / "page.md"
    page.write_text(f"# Page\n{BEGIN}\nold\n{END}\nend\n")
    write_table([good], page)
    assert "old" not in page.read_text()
    assert page.read_text().endswith(f"{END}\nend\n")
    page.write_text("no marks")
    with pytest.raises(InputError, match="no lines"):
        write_table([good], page)
