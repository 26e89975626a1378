"""Jobs inside a Beam pipeline of the user's: the shards of the verbs, what is committed as a collection, metrics."""

from __future__ import annotations

import re
from pathlib import Path

import apache_beam as beam
import pytest
from apache_beam.testing.util import assert_that, equal_to

from cavendish.encoders.sample import InputError, Rejection
from cavendish.mixing.audit.job import AuditConfig, AuditShards, report
from cavendish.mixing.jobs.beam import METRICS, CommitShards, ShardJob, run
from cavendish.mixing.jobs.encode import EncodeConfig, EncodeShards, encode
from cavendish.mixing.shards.dataset import Plan, committed_rows, complete_rows, load_dataset
from tests.mixing.audit.photographs import write_benchmark
from tests.mixing.jobs.test_beam import PLAN, build, shards_of
from tests.mixing.jobs.test_dask import cluster_in_threads
from tests.mixing.shard_data import write_raw

DOCS = Path(__file__).parents[3] / "docs"
CONFIG = EncodeConfig.model_validate({"sources": ["raw"], "tasks": {"depth": 1, "generate": 1}, "size": 16})


def test_a_transform_commits_the_shards_of_the_verb_and_returns_them(tmp_path: Path) -> None:
    write_raw(tmp_path / "raw")
    encode(CONFIG, tmp_path / "verb", data=tmp_path)
    with beam.Pipeline() as pipeline:
        shards = pipeline | EncodeShards(CONFIG, tmp_path / "transform", tmp_path)
        assert_that(
            shards | beam.Map(lambda shard: (shard.shard.name, shard.records)),
            equal_to([(f"shard-00000{index}.tar", 16) for index in range(3)]),
        )
    assert shards_of(tmp_path / "transform") == shards_of(tmp_path / "verb")


def test_metrics_count_records_and_rejections_by_reason(tmp_path: Path) -> None:
    pipeline = beam.Pipeline()
    pipeline | CommitShards(ShardJob(PLAN, build, tmp_path))
    result = pipeline.run()
    result.wait_until_finish()
    found = result.metrics().query(beam.metrics.MetricsFilter().with_namespace(METRICS))
    counters = {metric.key.metric.name: metric.committed for metric in found["counters"]}
    assert counters == {"records": 18, "rejected: too dark": 6}
    (distribution,) = found["distributions"]
    assert (distribution.key.metric.name, distribution.committed.count) == ("shard_ms", 6)
    assert load_dataset(tmp_path).totals["records"] == 18


def test_what_is_committed_is_returned_and_not_made_again_and_another_plan_is_refused(tmp_path: Path) -> None:
    run(ShardJob(PLAN, build, tmp_path))
    before = shards_of(tmp_path)
    with beam.Pipeline() as pipeline:
        shards = pipeline | CommitShards(ShardJob(PLAN, _must_not_run, tmp_path))
        assert_that(shards | beam.combiners.Count.Globally(), equal_to([6]))
    assert shards_of(tmp_path) == before
    with pytest.raises(InputError, match="another plan"):
        beam.Pipeline() | CommitShards(ShardJob(Plan("other", 1, {}), build, tmp_path))


def _must_not_run(index: int) -> list[Rejection]:
    raise AssertionError(f"shard {index} is there")


def test_a_transform_on_dask_commits_the_same_shards(tmp_path: Path) -> None:
    from apache_beam.options.pipeline_options import PipelineOptions
    from apache_beam.runners.dask.dask_runner import DaskRunner

    run(ShardJob(PLAN, build, tmp_path / "embedded"))
    with cluster_in_threads(workers=1) as address:
        options = PipelineOptions([f"--dask_client_address={address}", "--dask_npartitions=2"])
        pipeline = beam.Pipeline(DaskRunner(), options=options)
        pipeline | CommitShards(ShardJob(PLAN, build, tmp_path / "dask"))
        result = pipeline.run()
        result.wait_until_finish()
        result.client.close()
    assert shards_of(tmp_path / "dask") == shards_of(tmp_path / "embedded")


def test_an_audit_in_a_pipeline_ends_in_a_report(tmp_path: Path) -> None:
    write_benchmark(tmp_path / "benchmark")
    write_raw(tmp_path / "raw", shards=2, each=2)
    values = {"benchmarks": [{"name": "photos", "folder": "benchmark"}], "shards": ["raw"]}
    config = AuditConfig.model_validate({**values, "controls": {"copies": 4, "clean": 2}})
    with beam.Pipeline() as pipeline:
        results = pipeline | AuditShards(config, tmp_path / "audit", tmp_path)
        kinds = results | beam.Filter(lambda result: result["kind"] == "shard") | beam.combiners.Count.Globally()
        assert_that(kinds, equal_to([2]))
    assert report(config, tmp_path / "audit", tmp_path).report.exists()


def _example() -> str:
    (block,) = re.findall(r"```python\n(.*?)```", (DOCS / "cluster.md").read_text(), re.S)
    return str(block)


def test_the_example_of_the_docs_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_raw(tmp_path / "raw/scenes")
    exec(_example(), {"__name__": "docs"})
    assert sum(row.count for row in complete_rows(tmp_path / "examples")) == 24
    assert len(committed_rows(tmp_path / "examples")) == 3
