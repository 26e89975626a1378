"""Runs the command line in copies of one process that has imported it already: imports are most of a small command."""

from __future__ import annotations

import multiprocessing
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

TIMEOUT_S = 3600
"""For what hangs; a machine that does much else may take long."""

IMPORTED = (
    "cavendish.cli.main", "cavendish.annotate.job", "apache_beam", "diffusers", "cavendish.mixing.audit.job",
    "cavendish.mixing.jobs.beam", "cavendish.mixing.cards", "cavendish.mixing.mixture.preview",
    "cavendish.mixing.visualize", "onnxruntime", "cavendish.render.job", "tests.documents.warm",
    "cavendish.trainer.evaluation.generator", "cavendish.trainer.training.train", "transformers",
)  # fmt: skip


def run_words(words: Sequence[str], folder: Path, environment: Mapping[str, str]) -> tuple[int, str]:
    """Run `cavendish WORDS` in a folder; return the exit code and all that was printed."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(IMPORTED))
    os.environ["OMP_NUM_THREADS"] = "1"  # read when torch is imported
    with tempfile.NamedTemporaryFile() as said:
        process = context.Process(target=_run, args=(words, folder, dict(environment), said.name))
        process.start()
        process.join(TIMEOUT_S)
        if process.exitcode is None:
            process.kill()
            raise TimeoutError(f"cavendish {' '.join(words)}")
        return process.exitcode, said.read().decode()


def _run(words: Sequence[str], folder: Path, environment: dict[str, str], said: str) -> None:
    from cavendish.cli.main import main

    multiprocessing.set_start_method("fork", force=True)  # as in a new process
    file = os.open(said, os.O_WRONLY)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = ["cavendish", *words]
    main()
