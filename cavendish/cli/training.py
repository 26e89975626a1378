"""Verbs that train, score and use a generator: train, precompute, evaluate, predict, compare."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.table import Table

from cavendish.cli.app import (
    LEARN,
    ConfigPath,
    Data,
    DataPlace,
    Out,
    OutPlace,
    Overrides,
    app,
    complain,
    console,
    counted,
    here_only,
    progress_bar,
    say,
)
from cavendish.encoders.sample import InputError
from cavendish.mixing.config import read_config
from cavendish.mixing.extras import require_extra
from cavendish.mixing.storage.place import Place, join

Device = Annotated[str | None, typer.Option(help="cpu, cuda, or cuda:1; none: that of the configuration, or cpu.")]
PrecisionName = Annotated[
    Literal["float32", "bfloat16"] | None,
    typer.Option(help="Of the network; none: that of the configuration, or float32."),
]


def _with_options(override: list[str] | None, **options: str | None) -> list[str]:
    """Return overrides of a configuration with those options that were given."""
    return [*(override or ()), *(f"{name}={value}" for name, value in options.items() if value is not None)]


def _is_first() -> bool:
    """Tell whether this is the process of torchrun that reports."""
    return os.environ.get("RANK", "0") == "0"


@app.command(rich_help_panel=LEARN)
def train(
    config: ConfigPath,
    out: OutPlace,
    override: Overrides = None,
    data: DataPlace = Path(),
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Measure two steps, draw a batch, train nothing.")] = False,
) -> None:
    """Train a generator on a locked mixture, fresh or from a base; an unfinished run is continued."""
    from cavendish.trainer.training.config import TrainConfig
    from cavendish.trainer.training.remote_run import local_run, train_remote
    from cavendish.trainer.training.run import RunStopped

    settings = read_config(TrainConfig, config, override or ())
    if dry_run:
        from cavendish.trainer.training.dry_run import dry_run as look
        from cavendish.trainer.training.train import open_mixture

        with local_run(settings, out, data) as (local, work, folder):
            items = open_mixture(local, work.folder, folder)[1]
            lines = look(items, local, work.folder, folder).lines(settings)
        for line in lines:
            say(line)
        return
    try:
        with progress_bar("train") as report:
            result = train_remote(settings, out, data, report)
    except RunStopped:
        if _is_first():
            raise
        raise typer.Exit(1) from None
    if not _is_first():
        return
    state = "was finished before" if result.already else f"{result.steps} steps on {result.examples} examples"
    replaced = f"; {sum(result.replaced.values())} drawn records could not be used" if result.replaced else ""
    replaced += f"; {counted(result.skipped, 'step')} skipped, the gradient not finite" if result.skipped else ""
    say(
        f"{join(out, 'generator')}: {state}{replaced}; losses in {join(out, 'loss.csv')}, as curves in "
        f"{join(out, 'curves.html')}"
    )


@app.command(rich_help_panel=LEARN)
def precompute(
    config: ConfigPath,
    out: Out,
    override: Overrides = None,
    data: Data = Path(),
    latents: Annotated[bool, typer.Option(help="Also the latents of source and target pictures.")] = True,
    device: Device = None,
    precision: PrecisionName = None,
) -> None:
    """Compute the text embeddings and latents that a training run will ask for, for its key `precomputed`."""
    from cavendish.trainer.training.config import TrainConfig
    from cavendish.trainer.training.precompute import precompute as job
    from cavendish.trainer.training.train import open_mixture

    settings = read_config(TrainConfig, config, _with_options(override, device=device, precision=precision))
    with progress_bar("precompute") as report:
        done = job(open_mixture(settings, out, data)[1], settings, out, data, latents, report)
    say(
        f"{out}: {done.examples} examples have {done.prompts} distinct prompts and {done.pictures} pictures to encode; "
        f"{done.size_bytes / 2**20:.1f} MiB"
    )


@app.command(rich_help_panel=LEARN)
def evaluate(
    config: ConfigPath,
    out: OutPlace,
    override: Overrides = None,
    data: DataPlace = Path(),
    predictions: Annotated[
        Path | None,
        typer.Option(
            callback=here_only,
            help="A folder of pictures any model drew: score these on the configuration's benchmark.",
        ),
    ] = None,
    requests: Annotated[bool, typer.Option(help="Write to --out what to ask a model: prompts and pictures.")] = False,
    device: Device = None,
    precision: PrecisionName = None,
) -> None:
    """Score: a tuned generator and its base on held-out samples, or any model's pictures on a benchmark."""
    if predictions is not None or requests:
        if device is not None or precision is not None:
            raise InputError("--device and --precision are for drawing; with --predictions or --requests none is done")
        _score_folder(config, override, data, predictions, out)
        return
    from cavendish.mixing.storage.sync import fetched, paths_in, published
    from cavendish.trainer.evaluation.generator import EvaluateConfig, evaluate_generator
    from cavendish.trainer.evaluation.report.page import metrics_tables, retention_table

    settings = read_config(EvaluateConfig, config, _with_options(override, device=device, precision=precision))
    with (
        fetched(data, paths_in(settings)) as folder,
        published(out, ("summary.json",)) as work,
        progress_bar("evaluate") as report,
    ):
        summary = evaluate_generator(settings, work.folder, folder, report)
    if not _is_first():
        return
    for values in (*metrics_tables(summary), retention_table(summary)):
        table = Table(*values["head"], title=values["title"])
        for row in values["rows"]:
            table.add_row(*row["cells"])
        console.print(table)
    say(f"{join(out, 'summary.json')}")


def _score_folder(config: Path, override: list[str] | None, data: Place, predictions: Path | None, out: Place) -> None:
    require_extra("evaluate")
    from cavendish.mixing.storage.sync import fetched, paths_in, published
    from cavendish.trainer.evaluation import evaluate as scoring

    settings = read_config(scoring.ScoreConfig, config, override or ())
    with fetched(data, paths_in(settings)) as folder, published(out) as work:
        if predictions is None:
            count = scoring.write_requests(scoring.load_benchmark(settings, folder), work.folder)
            say(f"{out}: {count} pictures to draw, named in requests.jsonl")
            return
        with progress_bar("evaluate") as report:
            values = scoring.evaluate(settings, predictions, work.folder, folder, report)
    for line in scoring.summary_lines(values):
        say(line)
    say(f"{join(out, 'report.html')}")


@app.command(rich_help_panel=LEARN)
def predict(
    pictures: Annotated[list[Path], typer.Argument(callback=here_only, help="Pictures, or folders of pictures.")],
    task: Annotated[str, typer.Option(help="What to ask: depth, segment the red mug; an unknown one lists all.")],
    generator: Annotated[Path, typer.Option(callback=here_only, help="Folder of a trained generator.")],
    out: Annotated[Path, typer.Option(callback=here_only, help="The folder to write the answers to.")],
    size: Annotated[
        int, typer.Option(min=16, help="Side the generator draws at, in pixels: that of its training.")
    ] = 64,
    buckets: Annotated[
        list[str] | None,
        typer.Option("--bucket", help="HEIGHTxWIDTH, repeated: the buckets of its training instead of --size."),
    ] = None,
    steps: Annotated[int, typer.Option(min=1, help="Euler steps; more is slower.")] = 4,
    passes: Annotated[int, typer.Option(min=1, help="Ask so often, in other words and colours, and vote.")] = 1,
    seed: Annotated[int, typer.Option(min=0, help="Draws the noise.")] = 0,
    points: Annotated[
        str | None, typer.Option(help="Also write a depth answer as a coloured cloud: ply or glb.")
    ] = None,
    fov_deg: Annotated[float, typer.Option(min=1, max=170, help="Horizontal field of view of the cloud.")] = 55.0,
    device: Annotated[str, typer.Option(help="cpu, cuda, or cuda:1.")] = "cpu",
    precision: Annotated[Literal["float32", "bfloat16"], typer.Option(help="Of the network.")] = "float32",
    guidance: Annotated[float, typer.Option(min=0, help="Scale of classifier-free guidance; 1: none.")] = 1.0,
    batch: Annotated[int, typer.Option(min=1, help="Answers drawn at a time: images times passes.")] = 8,
) -> None:
    """Ask a trained generator about your own pictures: metres, normals, masks, and a sheet to look at."""
    from cavendish.encoders.tasks.registry import read_question
    from cavendish.trainer.inference.predict import Request
    from cavendish.trainer.inference.predict import predict as job

    if points not in (None, "ply", "glb"):
        raise InputError(f"--points {points}: ply or glb")
    sizes = tuple(_bucket(text) for text in buckets) if buckets else size
    if not (generator / "generator.json").exists() and (generator / "generator" / "generator.json").exists():
        raise InputError(
            f"--generator {generator}: is the folder of a training; its generator is {generator / 'generator'}"
        )
    request = Request(
        tuple(pictures),
        task,
        sizes,
        steps,
        passes,
        seed,
        points,  # type: ignore[arg-type]
        fov_deg,
        device,
        precision,
        batch,
        guidance,
    )
    if _is_first():
        for warning in read_question(task).warnings:
            complain(warning)
    with progress_bar("predict") as report:
        values = job(generator, request, out, report)
    if not _is_first():
        return
    for failure in values["failed"]:
        complain(f"{failure['file']}: {failure['reason']}")
    say(f"{out}: {counted(len(values['predictions']), 'picture')} answered, {len(values['failed'])} failed")
    raise typer.Exit(1 if values["failed"] else 0)


@app.command(rich_help_panel=LEARN)
def compare(
    out: Annotated[Path, typer.Option(callback=here_only, help="The folder of the page and its key.")],
    a: Annotated[Path | None, typer.Argument(callback=here_only, help="Folder of one generator's pictures.")] = None,
    b: Annotated[
        Path | None, typer.Argument(callback=here_only, help="Folder of the other's, under the same names.")
    ] = None,
    requests: Annotated[
        Path | None,
        typer.Option(callback=here_only, help="requests.jsonl of `cavendish evaluate --requests`: the prompts."),
    ] = None,
    answers: Annotated[
        list[Path] | None,
        typer.Option(callback=here_only, help="Answers saved from the page; repeat it for several judges."),
    ] = None,
    question: Annotated[str, typer.Option(help="What is asked of every pair.")] = (
        "Which picture follows the prompt better and looks better?"
    ),
    seed: Annotated[int, typer.Option(min=0, help="Draws order and sides.")] = 0,
) -> None:
    """Let people compare two generators blindly: write the page, or (--answers) say who won."""
    from cavendish.trainer.evaluation.report.comparison import judge, write_comparison

    if answers:
        values = judge(out, answers, seed)
        rate = f"{values['win_rate']:.1%} (95 %: {values['low']:.1%} to {values['high']:.1%})"
        say(f"{values['a']} wins {rate} of {values['prompts']} prompts, ties half; {out / 'result.json'}")
        return
    if a is None or b is None or requests is None:
        raise InputError("compare: give two folders of pictures and --requests, or --answers")
    count = write_comparison(requests, a, b, out, question, seed)
    say(f"{out / 'page'}: {count} pairs; open index.html, or hand out that folder. Keep {out / 'key.json'}")


def _bucket(text: str) -> tuple[int, int]:
    height, _, width = text.partition("x")
    if not (height.isdecimal() and width.isdecimal() and min(int(height), int(width)) >= 16):
        raise InputError(f"--bucket {text}: give HEIGHTxWIDTH in pixels, each at least 16")
    return int(height), int(width)
