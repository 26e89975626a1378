"""What each of two processes does in the tests of training together; see test_parallel.py."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import signal
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch.distributed.distributed_c10d import _set_pg_timeout

import cavendish.trainer.parallel as parallel_module
import cavendish.trainer.training.run as run_module
from cavendish.trainer.generators.tiny import TinyGenerator
from cavendish.trainer.parallel import init_distributed, rank0_only
from cavendish.trainer.training.config import TrainConfig
from cavendish.trainer.training.run import RunStopped
from cavendish.trainer.training.train import train_on
from tests.trainer.items import FakeItem, FakeItems
from tests.trainer.training.test_train import ITEMS, Interrupted, changed

SHORT: dict[str, Any] = {"steps": 8, "log_every": 2, "checkpoint_every": 4, "learning_rate": 1e-4}

KLEIN_ITEMS = FakeItems(range(3), {"generate": 1, "edit": 1}, size=32)


def config_of(**values: Any) -> TrainConfig:
    return changed(**{**SHORT, **values})


class WithIdlePart(TinyGenerator):
    """A generator with a parameter that no prediction uses."""

    def __init__(self, config: Any, seed: int) -> None:
        super().__init__(config, seed)
        self._net.idle = torch.nn.Linear(4, 4)
        torch.nn.init.constant_(self._net.idle.weight, 0.5)


class Cut:
    """Items that end in step 6 (from 0), for both processes."""

    def __getitem__(self, index: int) -> FakeItem:
        if index >= 24:
            raise Interrupted
        return ITEMS[index]


class Unlike:
    """Items of which process 0 gets those with a source, process 1 those without, as batches of 2 are shared."""

    def __getitem__(self, index: int) -> FakeItem:
        return next(
            item for i in itertools.count(index) if ((item := KLEIN_ITEMS[i]).kind == "generation") == index % 2
        )


class Uneven:
    """Items of two sizes for process 0, of one for process 1, as batches of 4 are shared."""

    group_by_size = tuple(FakeItems(range(3), {"generate": 1, "edit": 1, "depth": 2}, size=size) for size in (16, 24))

    def __getitem__(self, index: int) -> FakeItem:
        return self.group_by_size[index % 4 == 1][index]


BUCKETS: dict[str, Any] = {"buckets": [[16, 16], [24, 24]]}

KLEIN: dict[str, Any] = {"base": "klein", "generator": None, "size": 32, "batch": 2, "lora": {"rank": 2}, "steps": 2}


def klein_runs(out: Path) -> None:
    """Tune a model in diffusers' layout: a LoRA beside bfloat16 weights, and all weights; see KLEIN."""
    from tests.trainer.tiny_models import write_klein

    if torch.distributed.get_rank() == 0:
        write_klein(out / "klein")
    torch.distributed.barrier()
    train_on(Unlike(), "lock", config_of(**KLEIN, parallel="fsdp"), out / "klein-lora", out)
    train_on(Unlike(), "lock", config_of(**KLEIN, parallel="fsdp", precision="bfloat16"), out / "klein-half", out)
    full = {**KLEIN, "lora": None, "trainable": 0.5, "gradient_checkpointing": True}
    train_on(Unlike(), "lock", config_of(**full, parallel="ddp"), out / "klein-ddp", out)
    train_on(Unlike(), "lock", config_of(**full, parallel="fsdp"), out / "klein-fsdp", out)


def every_run(out: Path) -> None:
    """Train in each way, interrupted and not; both processes stay in one group."""

    torch.set_num_threads(1)
    with init_distributed("ddp", "cpu"):
        for parallel in ("ddp", "fsdp"):
            config = config_of(parallel=parallel)
            train_on(ITEMS, "lock", config, out / parallel, out)
            with contextlib.suppress(Interrupted):
                train_on(Cut(), "lock", config, out / f"{parallel}-cut", out)
            if torch.distributed.get_rank() == 0:
                shutil.copytree(out / f"{parallel}-cut", out / f"{parallel}-alone")
            torch.distributed.barrier()
            train_on(ITEMS, "lock", config, out / f"{parallel}-cut", out)
        for parallel in ("ddp", "fsdp"):
            train_on(Uneven(), "lock", config_of(**BUCKETS, parallel=parallel), out / f"buckets-{parallel}", out)
        train_on(ITEMS, "lock", config_of(parallel="fsdp", accumulate=2), out / "accumulated", out)
        train_on(ITEMS, "lock", config_of(parallel="fsdp", lora={"rank": 2}), out / "lora", out)
        train_on(ITEMS, "lock", config_of(parallel="fsdp", precision="bfloat16", steps=4), out / "half", out)
        klein_runs(out)
        run_module.TinyGenerator = WithIdlePart  # type: ignore[misc, attr-defined]
        for parallel in ("ddp", "fsdp"):
            config = config_of(parallel=parallel, steps=4)
            train_on(ITEMS, "lock", config, out / f"idle-{parallel}", out)


def killed_once(out: Path) -> None:
    """Train, and kill process 1 at its sixth step, the first time."""

    class Deadly:
        def __getitem__(self, index: int) -> FakeItem:
            if index >= 24 and os.environ["RANK"] == "1" and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
                os.kill(os.getpid(), signal.SIGKILL)
            return ITEMS[index]

    torch.set_num_threads(1)
    # gloo now and then does not find its peers again: then once more
    parallel_module.TIMEOUT = timedelta(seconds=30)
    train_on(Deadly(), "lock", config_of(parallel="fsdp"), out / "killed", out)


def evaluated_runs(out: Path) -> None:
    """Let the first work for longer than they wait for one another; then tune in each way, evaluated and not."""
    from tests.trainer.training.test_in_loop import SHORT_WATCHED, UNWATCHED

    torch.set_num_threads(1)
    with init_distributed("ddp", "cpu") as process:
        torch.distributed.barrier()
        _set_pg_timeout(timedelta(seconds=5))
        with rank0_only(process) as first:
            time.sleep(8 if first else 0)
        _set_pg_timeout(parallel_module.TIMEOUT)
        for parallel in ("ddp", "fsdp"):
            watched = config_of(**SHORT_WATCHED, parallel=parallel)
            train_on(ITEMS, "lock", watched, out / f"watched-{parallel}", out)
            unwatched = config_of(**{**SHORT_WATCHED, **UNWATCHED}, parallel=parallel)
            train_on(ITEMS, "lock", unwatched, out / f"unwatched-{parallel}", out)
        watched = config_of(**SHORT_WATCHED, parallel="fsdp")
        with contextlib.suppress(Interrupted):
            train_on(Cut(), "lock", watched, out / "cut", out)
        if torch.distributed.get_rank() == 0:
            (out / "cut" / "retention_base.json").unlink()  # measured again, before the checkpoint is read
        torch.distributed.barrier()
        train_on(ITEMS, "lock", watched, out / "cut", out)
        stop = {**SHORT_WATCHED["retention"], "limit": 0.01, "action": "stop"}
        with contextlib.suppress(RunStopped):
            train_on(
                ITEMS, "lock", config_of(**{**SHORT_WATCHED, "retention": stop}, parallel="fsdp"), out / "stop", out
            )
            raise AssertionError("it was not stopped")


if __name__ == "__main__":
    {"every": every_run, "killed": killed_once, "evaluated": evaluated_runs}[sys.argv[1]](Path(sys.argv[2]))
