"""The audit of shards at a URL, its report published at another."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from cavendish.mixing.audit.job import AuditConfig, audit, verify_report
from cavendish.mixing.jobs.runners import Engine
from cavendish.mixing.storage import objects
from cavendish.mixing.storage.sync import now_and_then, published
from tests.mixing.audit.photographs import OTHERS, SKIMAGE, photograph, picture, poster, write_benchmark
from tests.mixing.storage.s3_server import Proxy, every_tenth, s3_server
from tests.shard_folder import write_shards


@pytest.fixture
def s3() -> Iterator[Proxy]:
    with pytest.MonkeyPatch.context() as patch, s3_server(patch) as proxy:
        yield proxy


def test_shards_at_a_url_are_audited_as_those_of_a_folder_and_the_report_is_published(
    s3: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, scratch = tmp_path / "data", tmp_path / "scratch"
    scratch.mkdir()
    write_benchmark(data / "benchmark")
    samples = [picture(f"photo-{number}", photograph(*source)) for number, source in enumerate(OTHERS[:2])]
    write_shards(data / "photos", [*samples, picture("photo-poster", poster(photograph(SKIMAGE, "chelsea.png")))], 2)
    for file in (data / "photos").iterdir():
        objects.upload(file, f"s3://bucket/photos/{file.name}")
    values = {"benchmarks": [{"name": "photos", "folder": "benchmark"}], "controls": {"copies": 8, "clean": 4}}
    local = audit(AuditConfig.model_validate({**values, "shards": ["photos"]}), tmp_path / "out", data=data)
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    s3.choose = every_tenth()
    config = AuditConfig.model_validate({**values, "shards": ["s3://bucket/photos"]})
    with published("s3://bucket/audit") as work:
        told = now_and_then(work, lambda done, planned: None, every_s=0)
        verdict = audit(config, work.folder, Engine(), told, data)
    assert (verdict.outcome, verdict.leaks) == (local.outcome, local.leaks) == ("leak", 1)
    assert s3.faults.total() >= 3
    s3.choose = lambda *_: ""
    assert list(scratch.iterdir()) == []
    keys = json.loads(objects.read("s3://bucket/audit/exclude.json"))["keys"]
    assert keys == json.loads(local.exclude.read_text())["keys"] == ["photo-poster"]
    here = json.loads(local.report.read_text())
    there = json.loads(objects.read("s3://bucket/audit/report.json"))
    assert [(x["key"], x["image"]) for x in there["findings"]] == [(x["key"], x["image"]) for x in here["findings"]]
    assert str(tmp_path) not in json.dumps(there)
    before = sum(s3.asked.values())
    with published("s3://bucket/audit") as work:
        assert verify_report(config, work.folder, data) == []
    assert sum(s3.asked.values()) > before
    assert s3.asked["DELETE"] == 0
