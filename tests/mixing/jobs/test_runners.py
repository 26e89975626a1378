"""Engines known to lose data, to be wrong or to hang are refused, with the reason and what to use instead."""

from __future__ import annotations

import pytest

from cavendish.encoders.sample import InputError
from cavendish.mixing.jobs.beam import run_elements
from cavendish.mixing.jobs.runners import Engine, check_engine


@pytest.mark.parametrize(
    ("engine", "message"),
    [
        (Engine(runner="DirectRunner"), "different engine online and offline; use FnApiRunner"),
        (Engine(runner="PrismRunner"), "downloads a binary"),
        (Engine(runner="ray_beam.RayRunner"), "use DaskRunner"),
        (Engine(runner="beam_pyspark_runner.pyspark_runner.PySparkRunner"), "Beam 2.48"),
        (Engine(runner="FlnkRunner"), "unknown; the runners are FnApiRunner, DaskRunner, FlinkRunner"),
        (Engine(runner="DataflowRunner", options=("--project=p",)), "--number_of_worker_harness_threads=1"),
        (Engine(runner="DaskRunner"), "without a scheduler would run in this process"),
        (Engine(scheduler="tcp://host:8786"), "--scheduler is of DaskRunner"),
        (Engine(options=("--direct_running_mode=multi_threading",)), "threads of one process.*use --workers N"),
        (Engine(options=("--direct_num_workers=4",)), "use --workers instead"),
        (Engine(options=("--runner=FlinkRunner",)), "use --runner instead"),
        (Engine(options=("--streaming",)), "never says that it is done"),
        (Engine(runner="FlinkRunner", options=("--environment_type=LOOPBACK",)), "threads of one process"),
        (
            Engine(runner="DaskRunner", scheduler="tcp://host:8786", options=("--dask_client_address=tcp://other:1",)),
            "use --scheduler instead",
        ),
    ],
)
def test_a_runner_known_to_be_wrong_is_refused_before_anything_runs(engine: Engine, message: str) -> None:
    with pytest.raises(InputError, match=message):
        run_elements(print, [0], engine, done_among=lambda _: set())


@pytest.mark.parametrize(
    "engine",
    [
        Engine(workers=8),
        Engine(runner="DaskRunner", scheduler="tcp://host:8786", options=("--dask_npartitions=100",)),
        Engine(runner="FlinkRunner", options=("--flink_master=host:8081", "--environment_type=EXTERNAL")),
        Engine(runner="DataflowRunner", options=("--project=p", "--number_of_worker_harness_threads=1")),
    ],
)
def test_other_engines_pass(engine: Engine) -> None:
    check_engine(engine)
