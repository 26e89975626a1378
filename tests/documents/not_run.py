"""The commands of the documents that no test runs as they are written, by how they begin, and why."""

from __future__ import annotations

PACKAGES = "asks a package index for packages; setup.sh has installed what the tests need"
HERE = "the tests run in that environment, in that checkout"
ENGINE = "needs a server that was not at hand; the page says untested; that it is not refused is tested"

PROOF = "hours of CPU; tests/trainer/test_proof.py runs its parts, and its words are parsed"

NOT_RUN: dict[str, dict[str, str]] = {
    "README.md": {
        "make demo": "ten minutes; tests/demo/test_pipeline.py runs its stages on less",
        "make test": "is what runs this",
        "make setup": HERE,
    },
    "docs/audit.md": {
        "python benchmarks/audit_labels.py": "measures a hundred scenes of the demo; its words are parsed",
        "pip install": PACKAGES,
        "PYTHONPATH=peers:. python benchmarks/": "needs the packages of the line before, which are no dependency",
    },
    "docs/cluster.md": {
        ". /shared": HERE,
        "pip install": PACKAGES,
        "python -m apache_beam": "serves until it is ended, for an engine that was not at hand",
        "cavendish render scenes.yaml --out /shared/raw/scenes --runner": ENGINE,
        "cavendish render scenes.yaml --out gs://": ENGINE,
        "python benchmarks/long_run.py": "twenty minutes of CPU; its words are parsed",
    },
    "docs/proof.md": {"python -m benchmarks.proof": PROOF},
    "docs/reliability.md": {
        "python -m benchmarks.faults": "hours, and root for a small disk; tests/faults/test_kit.py runs a part of it",
        "python -m tests.fuzz": "tests/fuzz/test_readers.py runs the same cases, fewer of them; its words are parsed",
    },
    "docs/tune_flux2_klein.md": {
        "git clone": HERE,
        "python3.11 -m venv": HERE,
        "pip install": PACKAGES,
    },
    "docs/training.md": {
        "torchrun --nproc-per-node 8": "is the command of docs/tune_flux2_klein.md, which is run",
        "srun": "needs SLURM; the torchrun inside is that of the command before, which is run",
        "python benchmarks/training.py": "needs a script of diffusers' repository; its words are parsed",
    },
    "docs/tutorial.md": {"make setup": HERE, ". .venv": HERE},
    "examples/tiny.yaml": {"python -m benchmarks.proof": PROOF},
}

NOT_COMMANDS: dict[str, tuple[str, ...]] = {  # indented blocks that are text: how they begin
    "docs/audit.md": ("5000 images indexed",),
    "docs/codecs.md": ("code = floor", "R = floor"),
    "docs/design.md": ("encoders ",),
    "docs/scaling.md": ("CPU seconds ",),
    "docs/training.md": ("from pathlib", "generator = load"),
}
