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
from cavendish.mixing.jobs.convert import ConvertConfig, convert, convert_probe
from cavendish.mixing.jobs.encode import EncodeConfig, encode, encode_probe
from cavendish.mixing.jobs.estimate import Cost, Prices, Probe, cpu_s, estimate, measure, run_probe
from tests.conftest import tiny_sample
from tests.mixing.shard_data import write_raw

COST = Cost(
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
PROBE = Probe("render", "image", 1000, 10, lambda _: ())


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

    found = measure(replace(PROBE, build=build, trial_shards=3, trial_units=3), tmp_path)
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


def test_work_that_makes_no_record_is_measured_too(tmp_path: Path) -> None:
    found = measure(replace(PROBE, build=lambda _: iter([None, None, None]), trial_units=2), tmp_path)
    assert (found.units, found.records, len(found.unit_s)) == (6, 0, 3)


def test_an_estimate_is_the_sum_of_its_parts() -> None:
    found = estimate(PROBE, COST, Prices(cpu_hour=2.0, gb_month=5.0, months=3.0), [3, 40])
    assert found.shards == 100
    assert found.samples == 2000  # two records of a unit
    seconds = 3 * 10.0 + 100 * 1.0 + 1000 * 2.0
    assert found.cpu_hours == pytest.approx(seconds / 3600)
    assert (found.bytes, found.shard_bytes) == (2000 * 1000, 20 * 1000)
    assert found.cost == pytest.approx(seconds / 3600 * 2 + 0.002 * 5 * 3)
    assert dict(found.wall_hours) == {
        3: pytest.approx((10 + 34 * 21) / 3600),
        40: pytest.approx((10 + 3 * 21) / 3600),  # 100 shards on 40 cores: some do three
    }
    error = 4.30 * 0.5 / math.sqrt(3)  # Student's t for three values, whose standard deviation is 0.5
    assert found.high - found.low == pytest.approx(2 * 1000 * error / 3600)


def test_work_that_is_done_once_is_counted_once() -> None:
    audit = replace(PROBE, start_once=True, fixed_units=50, samples_per_unit=1.0)
    found = estimate(audit, COST, Prices(), [40])
    assert found.cpu_hours == pytest.approx((10 + 100 + 1050 * 2.0) / 3600)
    assert (found.samples, found.bytes) == (1000, 0)


def test_work_without_shards_is_divided_evenly() -> None:
    training = replace(PROBE, divisible=True, units_per_shard=1000, samples_per_unit=8.0, fixed_bytes=77)
    found = estimate(training, COST, Prices(), [1, 4])
    assert (found.samples, found.bytes) == (8000, 77)
    assert dict(found.wall_hours) == {n: pytest.approx((10 + (1 + 2000) / n) / 3600) for n in (1, 4)}


@given(units=st.integers(1, 10**9), per_shard=st.integers(1, 10**6), cores=st.integers(1, 10**4))
def test_more_cores_never_take_longer_and_no_fewer_cpu_hours(units: int, per_shard: int, cores: int) -> None:
    job = replace(PROBE, units=units, units_per_shard=per_shard)
    found = estimate(job, COST, Prices(), [cores, 2 * cores])
    assert (found.shards - 1) * per_shard < units <= found.shards * per_shard
    (_, hours), (_, fewer) = found.wall_hours
    assert fewer <= hours
    assert found.cpu_hours <= cores * hours * (1 + 1e-9)


def test_a_probe_that_fails_says_why(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"the probe failed: .*no committed shards"):
        run_probe(replace(PROBE, build=Broken(tmp_path)))


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
    probe = encode_probe(EncodeConfig.model_validate(values), tmp_path, 2)
    assert probe.units == told["configuration"]["samples"] == result.totals["records"] == 80
    rows = sum(path.stat().st_size for path in (tmp_path / "examples").glob("shard-*.json"))
    assert told["configuration"]["bytes"] == pytest.approx(result.totals["bytes"] + rows, rel=0.2)
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
        convert_probe(config, tmp_path, 4)
    with pytest.raises(InputError, match="normals_convention 'left': known are"):
        convert_probe(config.model_copy(update={"normals_convention": "left"}), tmp_path, 4)


def test_a_probe_of_which_nothing_comes_says_what_was_rejected(tmp_path: Path) -> None:
    (tmp_path / "web").mkdir()
    for number in range(2):
        (tmp_path / "web" / f"{number}.png").write_bytes(b"no picture")
    (tmp_path / "web.yaml").write_text("{name: web, path: web, licence: CC0-1.0}")
    ran = CliRunner().invoke(app, ["plan", "convert", str(tmp_path / "web.yaml"), "--data", str(tmp_path)])
    assert isinstance(ran.exception, InputError)
    assert re.match(r"no record came of the 2 records of the probe: web-0: ", str(ran.exception)), ran.exception
