"""Engines known to lose data, to be wrong or to hang are refused, with the reason and what to use instead."""

from __future__ import annotations

import pytest

from cavendish.encoders.sample import InputError
from cavendish.mixing.jobs.beam import Tasks, run_tasks
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
        (Engine(options=("--streaming",)), "a streaming job never ends"),
        (Engine(runner="FlinkRunner", options=("--environment_type=LOOPBACK",)), "threads of one process"),
        (Engine(runner="FlinkRunner", options=("--environment-type=LOOPBACK",)), "threads of one process"),
        (Engine(options=("--direct-num-workers=4",)), "use --workers instead"),
        (Engine(options=("--number_of_worker_harness_thread=1",)), "did you mean --number_of_worker_harness_threads?"),
        (Engine(options=("--nonsense=2",)), "--beam-option --nonsense: Beam has no such option$"),
        (Engine(options=("nonsense",)), "--beam-option nonsense: write it as --name=value"),
        (Engine(options=("--job_server_timeout=soon",)), "--job_server_timeout.*invalid int value: 'soon'"),
        (
            Engine(runner="DaskRunner", scheduler="tcp://host:8786", options=("--dask_npartition=3",)),
            "did you mean --dask_npartitions?",
        ),
        (
            Engine(runner="DaskRunner", scheduler="tcp://host:8786", options=("--dask_client_address=tcp://other:1",)),
            "use --scheduler instead",
        ),
    ],
)
def test_a_runner_known_to_be_wrong_is_refused_before_anything_runs(engine: Engine, message: str) -> None:
    with pytest.raises(InputError, match=message):
        run_tasks(Tasks(print, [0], done_among=lambda _: set()), engine)


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


def test_an_option_that_only_a_job_server_may_know_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    check_engine(Engine(runner="FlinkRunner", options=("--checkpointingInterval=1000",)))
    assert "--beam-option --checkpointingInterval: not an option of Beam's Python" in capsys.readouterr().err
