"""Which audit reports a lock takes: none that is forged, edited, stale, partial, empty, or of keys still drawn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cavendish.encoders.sample import InputError
from cavendish.mixing.audit.report.accept import report_digest
from cavendish.mixing.lock import Lock
from cavendish.mixing.storage.files import canonical_json
from tests.audit_report import make_report
from tests.mixing.shard_data import MIXTURE, lock_text, write_raw

LEAK = {"status": "open", "level": "leak", "kind": "copy", "sample": "scene-0-0", "reason": "The same bytes."}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    write_raw(tmp_path / "raw")
    return tmp_path


def lock(data: Path, report: Any, more: str = "") -> Lock:
    (data / "report.json").write_bytes(report if isinstance(report, bytes) else canonical_json(report))
    return lock_text(data, f"{MIXTURE}audit: report.json\n{more}")


def refused(data: Path, report: Any, match: str, more: str = "") -> None:
    with pytest.raises(InputError, match=match):
        lock(data, report, more)


def test_a_clean_report_of_these_shards_is_taken(data: Path) -> None:
    taken = lock(data, make_report(data, ["raw"])).audit
    assert taken is not None
    assert (taken["verdict"], set(taken)) == ("clean", {"sha256", "verdict"})


@pytest.mark.parametrize(
    "written", [b"", b"clean", b"[]", b'{"verdict":"clean"}', b'{"verdict":"clean","schema":"cavendish-audit/2"}']
)
def test_what_is_no_report_is_refused(data: Path, written: bytes) -> None:
    refused(data, written, "report.json: (schema|not valid json)")


def test_a_report_edited_by_hand_is_refused(data: Path) -> None:
    leak = make_report(data, ["raw"], [LEAK])
    refused(data, {**leak, "verdict": "clean"}, "edited since it was written")
    refused(data, {**leak, "findings": []}, "edited since it was written")
    forged = make_report(data, ["raw"], [LEAK], verdict="clean", exit_code=0)  # with a digest of its own
    refused(data, forged, "does not follow from its findings")
    refused(data, make_report(data, ["raw"], counts={"leaks": 0}), "damaged|does not follow")
    damaged = {**make_report(data, ["raw"]), "findings": [{}]}
    refused(data, {**damaged, "digest": report_digest(damaged)}, "damaged report")
    damaged = {**make_report(data, ["raw"]), "shards": [{"records": 1}]}
    refused(data, {**damaged, "digest": report_digest(damaged)}, "damaged report")


def test_an_empty_report_is_refused(data: Path) -> None:
    nothing = make_report(data, ["raw"])["shards"]
    refused(data, make_report(data, ["raw"], shards=[{**nothing[0], "records": 0}]), "does not follow")
    refused(data, make_report(data, ["raw"], benchmarks=[]), "does not follow")


def test_a_report_of_other_shards_is_refused(data: Path) -> None:
    write_raw(data / "other", each=3)
    refused(data, make_report(data, ["other"]), "not of these shards: raw was not audited as it is now")
    report = make_report(data, ["raw"])
    write_raw(data / "grown", each=9)
    (data / "raw").rename(data / "before")
    (data / "grown").rename(data / "raw")
    refused(data, report, "not of these shards: raw")


def test_a_leak_is_taken_with_its_samples_left_out(data: Path) -> None:
    report = make_report(data, ["raw"], [LEAK])
    refused(data, report, "1 samples that it found, such as scene-0-0, are not left out")
    (data / "other.json").write_text('{"keys": ["scene-0-1"]}')
    refused(data, report, "not left out", "exclude: [other.json]\n")
    (data / "exclude.json").write_text('{"keys": ["scene-0-0"]}')
    taken = lock(data, report, "exclude: [exclude.json]\n").audit
    assert taken is not None
    assert (taken["verdict"], taken["excluded"]) == ("leak", "1 samples")


def test_a_clean_report_counts_only_while_its_samples_are_left_out(data: Path) -> None:
    report = make_report(data, ["raw"], [{**LEAK, "status": "removed"}])
    refused(data, report, "not left out")
    (data / "exclude.json").write_text('{"keys": ["scene-0-0"]}')
    assert lock(data, report, "exclude: [exclude.json]\n").audit is not None


def test_a_leak_of_a_whole_source_is_refused(data: Path) -> None:
    whole = {**LEAK, "kind": "lineage", "sample": "", "reason": "Source tests is the benchmark."}
    refused(data, make_report(data, ["raw"], [whole]), "leak of a whole source: Source tests is the benchmark")


def test_other_verdicts_and_changed_settings_are_in_the_lock(data: Path) -> None:
    taken = lock(data, make_report(data, ["raw"], incomplete=["kitti was not checked"])).audit
    assert taken is not None
    assert taken["verdict"] == "incomplete"
    dismissed = {**LEAK, "status": "dismissed"}
    changed = ["thresholds.leak_score 99 (default 8)"]
    taken = lock(data, make_report(data, ["raw"], [dismissed], changed_settings=changed)).audit
    assert taken is not None
    assert (taken["verdict"], taken["settings"]) == ("clean", changed[0])
