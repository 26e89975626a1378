"""A plan: the cost of the start is told from that of a sample, and the model's sums are right."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from cavendish.cli.main import app
from cavendish.encoders.sample import InputError, Rejection, Sample
from cavendish.mixing.images import encode_png
from cavendish.mixing.jobs.convert import ConvertConfig, convert, convert_stage
from cavendish.mixing.jobs.encode import EncodeConfig, encode, encode_stage
from cavendish.mixing.jobs.estimate import (
    FAN_OUT,
    Prices,
    Probe,
    Stage,
    Trial,
    best_shard,
    cpu_s,
    estimate,
    fan_out,
    measure,
    probe,
)
from tests.conftest import tiny_sample
from tests.mixing.shard_data import write_raw

PROBE = Probe(
    start_s=10.0,
    shard_s=1.0,
    unit_s=(1.5, 2.0, 2.5),
    units=4,
    records=8,
    tar_bytes=7000,
    row_bytes=1000,
    memory_bytes=10**9,
    wall_s=1.0,
)
STAGE = Stage("render", "picture", 1000, 10, "scenes_per_shard", Trial(lambda _: ()), more="several seeds")


def test_start_shard_and_sample_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [3.0]  # CPU seconds of the interpreter and its imports
    monkeypatch.setattr("cavendish.mixing.jobs.estimate.cpu_s", lambda: clock[0])
    monkeypatch.setattr("time.process_time", lambda: 0.0)  # so that looking takes no time

    def build(shard: int) -> Iterator[Sample | Rejection]:
        """A start of 0.5 s, 0.2 to open a shard, 0.05 for each sample and as much for a try that fails."""
        clock[0] += 0.2 + (0.5 if shard == 0 else 0)
        for number in range(4):  # one more than is asked for
            clock[0] += 0.05
            yield Rejection("tried", "failed")
            clock[0] += 0.05
            yield tiny_sample(f"s-{shard}-{number}")

    values = measure(Trial(build, shards=3, units=3), tmp_path)
    found = Probe(**{**values, "wall_s": 0.0})  # type: ignore[arg-type]
    assert found.records == found.units == 9
    assert found.unit_s == pytest.approx((0.1,) * 6)
    assert found.error_s == pytest.approx(0)
    assert found.shard_s == pytest.approx(0.2)
    assert found.start_s == pytest.approx(3.5)
    assert found.start_s + 3 * found.shard_s + 9 * found.mean_s == pytest.approx(clock[0])


def test_cpu_time_counts_children_that_ended_and_that_live() -> None:
    before = cpu_s()
    burn = "import time\nwhile time.process_time() < 0.3: pass\n"
    subprocess.run([sys.executable, "-c", burn], check=True)
    alive = subprocess.Popen([sys.executable, "-c", f"{burn}print(flush=True)\ninput()"], stdin=-1, stdout=-1)
    assert alive.stdout is not None
    alive.stdout.readline()
    assert cpu_s() - before >= 0.6 - 0.02  # the clock of a living child has ticks of 10 ms
    alive.communicate(b"\n")


def test_an_estimate_is_the_sum_of_its_parts() -> None:
    found = estimate(STAGE, PROBE, 1000, 10, Prices(cpu_hour=2.0, gb_month=5.0, months=3.0), [1, 40], 16)
    assert found.shards == 100
    assert found.samples == 2000  # two records of a unit
    seconds = 16 * 10.0 + 100 * 1.0 + 1000 * 2.0
    assert found.cpu_hours == pytest.approx(seconds / 3600)
    assert found.bytes == 2000 * 1000
    assert found.cost == pytest.approx(seconds / 3600 * 2 + 0.002 * 5 * 3)
    assert dict(found.wall_hours) == {
        1: pytest.approx((10 + 100 * 21) / 3600),
        40: pytest.approx((10 + 3 * 21) / 3600),  # 100 shards on 40 cores: some do three
    }
    error = 4.30 * 0.5 / math.sqrt(3)  # Student's t for three values, whose standard deviation is 0.5
    assert found.high - found.low == pytest.approx(2 * 1000 * error / 3600)
    assert found.settings == "scenes_per_shard=10 --workers 16 --split I/3"


def test_work_that_is_done_once_is_counted_once() -> None:
    stage = replace(STAGE, start_once=True, fixed_units=50, samples_per_unit=1.0)
    found = estimate(stage, PROBE, 1000, 10, Prices(), [40], 16)
    assert found.cpu_hours == pytest.approx((10 + 100 + 1050 * 2.0) / 3600)
    assert (found.samples, found.bytes) == (1000, 0)


@given(
    unit_s=st.floats(1e-3, 1e3),
    record_bytes=st.integers(100, 10**8),
    units=st.integers(1, 10**9),
    cores=st.integers(1, 10**4),
)
def test_shards_are_neither_too_large_nor_needlessly_many(
    unit_s: float, record_bytes: int, units: int, cores: int
) -> None:
    known = replace(PROBE, unit_s=(unit_s, unit_s), units=1, records=1, tar_bytes=record_bytes, row_bytes=0)
    size = best_shard(STAGE, known, units, cores)
    found = estimate(STAGE, known, units, size, Prices(), [cores], 16)
    assert (found.shards - 1) * size < units <= found.shards * size
    if size > 1:
        assert found.shard_bytes <= 10**9
        assert size * unit_s <= 3600 * 1.0001
    assert (found.shards > 100_000) == any("shards:" in warning for warning in found.warnings)


def test_the_fan_out_is_linear_and_warns_of_too_many_shards() -> None:
    rows = fan_out(STAGE, PROBE, Prices(), [1], 16)
    assert [row.samples for row in rows] == list(FAN_OUT)
    for row, count in zip(rows, FAN_OUT):
        assert row.cpu_hours == pytest.approx(count / 2 * 2.0 / 3600, rel=0.01)
    assert not rows[0].warnings
    assert rows[-1].directories > 1
    assert "several seeds" in rows[-1].warnings[0]


def test_a_probe_that_fails_says_why(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"the probe failed: .*no committed shards"):
        probe(Trial(Broken(tmp_path)))


class Broken:
    """A build that raises in the process of the probe."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __call__(self, shard: int) -> Iterator[Sample]:
        raise InputError(f"{self.path}: no committed shards here")


def test_the_plan_of_an_encode_job_counts_what_the_job_makes(tmp_path: Path) -> None:
    write_raw(tmp_path / "raw", shards=4, each=5)
    values = {"sources": ["raw"], "tasks": {"depth": 1, "referring": 1}, "epochs": 2, "size": 32}
    (tmp_path / "encode.yaml").write_text(json.dumps(values))
    words = ["plan", "encode", str(tmp_path / "encode.yaml"), "--data", str(tmp_path), "--samples", "2", "--json"]
    ran = CliRunner().invoke(app, words)
    assert ran.exit_code == 0, ran.output
    told = json.loads(ran.output)
    result = encode(EncodeConfig.model_validate(values), tmp_path / "examples", data=tmp_path)
    assert result.totals is not None
    stage = encode_stage(EncodeConfig.model_validate(values), tmp_path, 2)
    assert stage.units == told["configuration"]["samples"] == result.totals["records"] == 80
    rows = sum(path.stat().st_size for path in (tmp_path / "examples").glob("shard-*.json"))
    assert told["configuration"]["bytes"] == pytest.approx(result.totals["bytes"] + rows, rel=0.2)
    assert [row["samples"] for row in told["fan_out"]] == list(FAN_OUT)
    assert told["probe"]["mean_s"] > 0


def test_the_plan_of_a_convert_job_counts_what_the_job_makes(tmp_path: Path) -> None:
    (tmp_path / "web").mkdir()
    noise = np.random.default_rng(0)
    for number in range(40):
        pixels = noise.integers(0, 256, (64, 64 + number % 3, 3), np.uint8)
        (tmp_path / "web" / f"{number:02d}.png").write_bytes(encode_png(pixels))
        (tmp_path / "web" / f"{number:02d}.txt").write_text("noise" if number % 4 else "")
    values = {"name": "web", "path": "web", "licence": "CC0-1.0", "records_per_shard": 7}
    (tmp_path / "convert.yaml").write_text(json.dumps(values))
    words = ["plan", "convert", str(tmp_path / "convert.yaml"), "--data", str(tmp_path), "--samples", "3", "--json"]
    ran = CliRunner().invoke(app, words)
    assert ran.exit_code == 0, ran.output
    told = json.loads(ran.output)
    result = convert(ConvertConfig.model_validate(values), tmp_path / "out", data=tmp_path)
    assert result.totals is not None
    assert (told["configuration"]["shards"], result.made) == (6, 6)
    assert told["configuration"]["samples"] == pytest.approx(result.totals["records"], rel=0.1)  # a fourth has no words
    rows = sum(path.stat().st_size for path in (tmp_path / "out").glob("shard-*.json"))
    assert told["configuration"]["bytes"] == pytest.approx(result.totals["bytes"] + rows, rel=0.2)
    assert told["probe"]["mean_s"] > 0


def test_a_plan_needs_two_records_to_convert(tmp_path: Path) -> None:
    (tmp_path / "one.png").write_bytes(b"not read")
    config = ConvertConfig(name="web", path=Path("."), licence="x")
    with pytest.raises(InputError, match="1 record: a probe needs two"):
        convert_stage(config, tmp_path, 4)
    with pytest.raises(InputError, match="normals_convention 'left': known are"):
        convert_stage(config.model_copy(update={"normals_convention": "left"}), tmp_path, 4)


def test_a_probe_of_which_nothing_comes_says_what_was_rejected(tmp_path: Path) -> None:
    (tmp_path / "web").mkdir()
    for number in range(2):
        (tmp_path / "web" / f"{number}.png").write_bytes(b"no picture")
    (tmp_path / "web.yaml").write_text("{name: web, path: web, licence: CC0-1.0}")
    ran = CliRunner().invoke(app, ["plan", "convert", str(tmp_path / "web.yaml"), "--data", str(tmp_path)])
    assert isinstance(ran.exception, InputError)
    assert re.match(r"no record came of the 2 records of the probe: web-0: ", str(ran.exception)), ran.exception
