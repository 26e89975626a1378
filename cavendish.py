"""The command line: one thin verb per stage; each imports its stage only when it runs.

Exit codes: 0 fine, 1 the answer is no (leak found, verification failed, job not complete), 2 bad input or usage;
`audit` adds 3 (coverage incomplete) and 4 (only pairs to review).
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
import typer.core
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from encoders.sample import InputError
from mixing.config import Config, read_config

if TYPE_CHECKING:
    from mixing.lock import Lock

app = typer.Typer(
    name="cavendish",
    help="Data pipeline and trainer that teaches image generators to answer vision tasks in decodable RGB.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
console = Console()
errors = Console(stderr=True)

ConfigPath = Annotated[Path, typer.Argument(help="A commented YAML; examples/ has one for each verb.")]
Overrides = Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Settings to change.")]
Out = Annotated[Path, typer.Option(help="The folder to write; an unfinished one is continued.")]
Data = Annotated[Path, typer.Option(help="Where relative paths in the configuration start.")]
Workers = Annotated[int, typer.Option(min=1, help="Worker processes on this machine.")]
Runner = Annotated[str, typer.Option(help="A Beam runner; FnApiRunner is the embedded one.")]
Split = Annotated[
    str, typer.Option(metavar="I/N", help="Do only every Nth shard, from I: job arrays without an engine.")
]
BeamOptions = Annotated[list[str] | None, typer.Option("--beam-option", help="A further Beam option, as --name=value.")]


@contextmanager
def progress_bar(title: str) -> Iterator[Callable[[int, int], None]]:
    """Show one line of progress; the function it gives takes (done, planned)."""
    columns = (
        TextColumn("{task.description:<22}"), BarColumn(32), MofNCompleteColumn(), TimeElapsedColumn(),
        TextColumn("{task.fields[note]}", style="dim"),
    )  # fmt: skip
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(title, total=None, note="")

        def report(done: int, planned: int, note: str = "") -> None:
            bar.update(task, completed=done, total=planned, note=note)

        yield report


def _engine(workers: int, runner: str, split: str, options: list[str] | None):  # type: ignore[no-untyped-def]
    from mixing.engine import Engine

    try:
        index, count = (int(part) for part in split.split("/"))
    except ValueError:
        raise InputError(f"--split {split}: write it as I/N, for example 0/8") from None
    if not 0 <= index < count:
        raise InputError(f"--split {split}: I goes from 0 to N-1")
    return Engine(workers=workers, runner=runner, split=(index, count), options=tuple(options or ()))


def _run_job(  # type: ignore[no-untyped-def]
    title: str, config: Config, out: Path, job, engine, data: Path | None = None
) -> None:
    """Run a shard job with progress and say what it made."""
    with progress_bar(title) as report:
        arguments = (config, out, engine, report) if data is None else (config, out, engine, report, data)
        result = job(*arguments)
    totals = result.totals
    made = f"{result.made} shards made, {result.already} were there already"
    if totals is None:
        console.print(f"{out}: {made}; other splits are still to be done")
        return
    console.print(
        f"{out}: {made}; {totals['records']} records, {totals['rejected']} rejected, {totals['bytes'] / 1e6:.1f} MB"
    )


@app.command()
def render(
    config: ConfigPath,
    out: Out,
    override: Overrides = None,
    workers: Workers = os.cpu_count() or 1,
    runner: Runner = "FnApiRunner",
    split: Split = "0/1",
    beam_option: BeamOptions = None,
    tasks: Annotated[str, typer.Option(help="indoor, outdoor, table top, long range or clutter: sets `preset`")] = "",
) -> None:
    """Render seeded scenes into raw shards: image, depth, normals, instances, facts, an edited twin."""
    from render.job import RenderConfig, count_rejections
    from render.job import render as job

    settings = read_config(RenderConfig, config, [*(override or ()), *([f"preset={tasks}"] if tasks else [])])
    _run_job("render", settings, out, job, _engine(workers, runner, split, beam_option))
    for reason, count in count_rejections(out).items():
        console.print(f"  {count} rejected: {reason}")


@app.command()
def annotate(
    config: ConfigPath,
    out: Out,
    override: Overrides = None,
    data: Data = Path(),
    workers: Workers = 1,
    runner: Runner = "FnApiRunner",
    split: Split = "0/1",
    beam_option: BeamOptions = None,
) -> None:
    """Pseudo-label image collections into raw shards, with provenance and quality scores."""
    from annotate.job import AnnotateConfig
    from annotate.job import annotate as job

    settings = read_config(AnnotateConfig, config, override or ())
    _run_job("annotate", settings, out, job, _engine(workers, runner, split, beam_option), data)


@app.command()
def download(config: ConfigPath, out: Out, override: Overrides = None, data: Data = Path()) -> None:
    """Download a list of picture URLs into tars for `annotate`; robots.txt and opt-outs are respected."""
    from annotate.download import DownloadConfig
    from annotate.download import download as job

    settings = read_config(DownloadConfig, config, override or ())
    with progress_bar("download") as report:
        result = job(settings, out, data, report)
    console.print(f"{out}: {result.pictures} pictures of {result.rows} rows; {result.made} shards made now")
    for reason, count in result.reasons.items():
        console.print(f"{count:>9,}  {reason}", markup=False, highlight=False)


@app.command()
def encode(
    config: ConfigPath,
    out: Out,
    override: Overrides = None,
    data: Data = Path(),
    workers: Workers = 1,
    runner: Runner = "FnApiRunner",
    split: Split = "0/1",
    beam_option: BeamOptions = None,
) -> None:
    """Freeze raw shards into instruction shards: source, prompt, decodable target."""
    from mixing.job import EncodeConfig
    from mixing.job import encode as job

    settings = read_config(EncodeConfig, config, override or ())
    _run_job("encode", settings, out, job, _engine(workers, runner, split, beam_option), data)


class _ScanByDefault(typer.core.TyperGroup):
    """`cavendish audit CONFIG` is `cavendish audit scan CONFIG`."""

    def parse_args(self, ctx, args):  # type: ignore[no-untyped-def]
        """Put the default verb in front of arguments that name none."""
        named = bool(args) and (args[0] in self.commands or args[0] in ("--help", "-h"))
        return super().parse_args(ctx, args if named or not args else ["scan", *args])


audits = typer.Typer(
    cls=_ScanByDefault,
    no_args_is_help=True,
    help="Compare shards with benchmarks: leak, clean, or not fully checked, with evidence. `audit CONFIG --out DIR` "
    "is `audit scan CONFIG --out DIR`.",
)
app.add_typer(audits, name="audit")
AuditOut = Annotated[Path, typer.Option(help="The folder of the report; packs and results too, unless `work` is set.")]


def _read_questions(reader: str, folder: Path):  # type: ignore[no-untyped-def]
    from trainer.evaluation.benchmarks.audited import read_questions

    return read_questions(reader, folder)


@audits.command("index")
def audit_index(config: ConfigPath, out: AuditOut, override: Overrides = None, data: Data = Path()) -> None:
    """Fingerprint the benchmarks: packs that others can audit against without holding the images."""
    from mixing.audit.job import AuditConfig, index_benchmarks

    sides, missing = index_benchmarks(read_config(AuditConfig, config, override or ()), out, data, _read_questions)
    for side in sides:
        if side.pack is not None:
            pack = side.open_pack()
            kept = "pixels beside it" if pack.has_pixels else "no pixels"
            console.print(f"{side.name}: {len(pack.images)} images, {kept}, digest {pack.digest[:16]}: {pack.folder}")
        if side.labels is not None:
            labels = side.open_labels()
            counts = f"{len(labels.arrays['masks'])} masks, {len(labels.arrays['reliefs'])} depth maps that tell"
            console.print(f"{side.name}: {counts}, digest {labels.digest[:16]}: {labels.folder}")
    for name, reason in missing:
        errors.print(f"{name}: {reason}", style="red", markup=False, highlight=False, soft_wrap=True)
    raise typer.Exit(3 if missing else 0)


@audits.command("scan")
def audit_scan(
    config: ConfigPath,
    out: AuditOut,
    override: Overrides = None,
    data: Data = Path(),
    workers: Workers = 1,
    runner: Runner = "FnApiRunner",
    split: Split = "0/1",
    exclude: Annotated[
        Path | None, typer.Option(help="Also write the list of keys to leave out here, for `exclude` of a mixture.")
    ] = None,
    beam_option: BeamOptions = None,
) -> None:
    """The whole audit: index, scan, report. With --split a part of the scan; `report` then writes the report."""
    from mixing.audit.job import AuditConfig, audit
    from mixing.audit.job import scan as scan_part

    settings, engine = read_config(AuditConfig, config, override or ()), _engine(workers, runner, split, beam_option)
    with progress_bar("audit") as report:
        if engine.split != (0, 1):
            scan_part(settings, out, engine, report, data, _read_questions)
            console.print(f"{out}: part {split} is scanned; when all are, run: cavendish audit report")
            return
        verdict = audit(settings, out, engine, report, data, _read_questions)
    _say_verdict(verdict, exclude)


@audits.command("text")
def audit_text(
    config: ConfigPath, out: AuditOut, override: Overrides = None, data: Data = Path(), workers: Workers = 1
) -> None:
    """Only texts and ids: prompts, expressions, captions, keys, metadata. No picture is read."""
    _audit_words(config, out, override, data, workers, ("text", "annotation", "identity"))


@audits.command("lineage")
def audit_lineage(
    config: ConfigPath, out: AuditOut, override: Overrides = None, data: Data = Path(), workers: Workers = 1
) -> None:
    """Only what sources declare and name: parents, dataset names, licences. No picture is read."""
    _audit_words(config, out, override, data, workers, ("lineage", "licence"))


@audits.command("report")
def audit_report(
    config: ConfigPath,
    out: AuditOut,
    override: Overrides = None,
    data: Data = Path(),
    exclude: Annotated[Path | None, typer.Option(help="Also write the list of keys to leave out here.")] = None,
) -> None:
    """Write the report of a finished scan anew, for example with a reviewer's decisions."""
    from mixing.audit.job import AuditConfig, report

    _say_verdict(report(read_config(AuditConfig, config, override or ()), out, data, _read_questions), exclude)


@audits.command("verify")
def audit_verify(config: ConfigPath, out: AuditOut, override: Overrides = None, data: Data = Path()) -> None:
    """Check a report again: hashes of both sides, the report's bytes, every pair found anew."""
    from mixing.audit.job import AuditConfig, verify_report

    problems = verify_report(read_config(AuditConfig, config, override or ()), out, data, _read_questions)
    for problem in problems:
        errors.print(problem, style="red", markup=False, highlight=False, soft_wrap=True)
    console.print(f"{out}: {len(problems)} problems" if problems else f"{out}: the report stands")
    raise typer.Exit(1 if problems else 0)


def _audit_words(  # type: ignore[no-untyped-def]
    config: Path, out: Path, override, data: Path, workers: int, kinds: tuple[str, ...]
) -> None:
    from mixing.audit.job import AuditConfig, audit_words

    settings, engine = read_config(AuditConfig, config, override or ()), _engine(workers, "FnApiRunner", "0/1", None)
    with progress_bar("audit") as report:
        verdict = audit_words(settings, out, kinds, engine, report, data, _read_questions)
    for line in verdict.lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    console.print(f"{verdict.file}")
    raise typer.Exit(verdict.exit_code)


def _say_verdict(verdict, exclude: Path | None) -> None:  # type: ignore[no-untyped-def]
    from mixing.storage import write_atomic

    if exclude is not None:
        exclude.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(exclude, verdict.exclude.read_bytes())
    console.print(verdict.words, markup=False)
    console.print(f"report: {verdict.page}; keys to leave out: {exclude or verdict.exclude}")
    raise typer.Exit(verdict.exit_code)


@app.command()
def convert(
    config: ConfigPath,
    out: Out,
    override: Overrides = None,
    data: Data = Path(),
    workers: Workers = 1,
    runner: Runner = "FnApiRunner",
    split: Split = "0/1",
    beam_option: BeamOptions = None,
) -> None:
    """Turn WebDataset or img2dataset tars and folders of others into raw shards; pictures pass through as they are."""
    from mixing.foreign.job import ConvertConfig
    from mixing.foreign.job import convert as job

    settings = read_config(ConvertConfig, config, override or ())
    _run_job("convert", settings, out, job, _engine(workers, runner, split, beam_option), data)


@app.command()
def mix(
    mixture: Annotated[Path | None, typer.Argument(help="A mixture file; examples/mixture.yaml explains it.")] = None,
    override: Overrides = None,
    out: Annotated[Path | None, typer.Option(help="Where to write the lock file.")] = None,
    data: Data = Path(),
    preview: Annotated[
        Path | None, typer.Option(help="Also write a page of what it deals, as the trainer gets it.")
    ] = None,
    size: Annotated[int, typer.Option(min=16, help="Side of the pictures in the preview, in pixels.")] = 64,
    stats: Annotated[Path | None, typer.Option(help="Look into a lock that is there, instead of making one.")] = None,
    simulate: Annotated[
        str | None, typer.Option(help="Account for so many examples, 1e9 for example, without drawing one.")
    ] = None,
    diff: Annotated[tuple[Path, Path] | None, typer.Option(help="Say what changed between two locks, instead.")] = None,
) -> None:
    """Lock a mixture: every shard by its hash, exact shares, exclusions and the audit's verdict."""
    from mixing.lock import diff_locks, read_lock, write_lock
    from mixing.mixture import load, lock_mixture

    if diff is not None:
        changes = diff_locks(read_lock(diff[0]), read_lock(diff[1]))
        for line in changes:
            console.print(line, markup=False, highlight=False)
        raise typer.Exit(1 if changes else 0)
    if stats is not None:
        lock = read_lock(stats)
    elif mixture is None or out is None:
        raise InputError("mix: give a mixture file and --out LOCK, or --stats LOCK, or --diff A B")
    else:
        lock = lock_mixture(load(mixture, override or ()), data)
        out.parent.mkdir(parents=True, exist_ok=True)
        write_lock(out, lock)
    console.print(
        f"{stats or out}: {len(lock.streams)} streams of {len(lock.sources)} sources, digest {lock.digest[:16]}"
    )
    if stats is not None:
        _print_sources(lock)
    if simulate is not None or stats is not None:
        _print_account(lock, simulate or "1e6")
    if preview is not None:
        from mixing.preview import write_preview

        write_preview(lock, data, size, preview)
        console.print(f"{preview}")


def _print_sources(lock: Lock) -> None:
    table = Table("source", "shards", "records", "drawn from", "left out", "licences", title="sources")
    for source in lock.sources:
        licences = ", ".join(f"{count:,} {name}" for name, count in source.licences.items())
        left_out = ", ".join(f"{count:,} {reason}" for reason, count in source.left_out.items()) or "none"
        drawn_from = source.records - sum(source.left_out.values())
        counts = f"{len(source.shards):,}", f"{source.records:,}", f"{drawn_from:,}"
        table.add_row(source.name, *counts, left_out, licences)
    console.print(table)


def _print_account(lock: Lock, count: str) -> None:
    from mixing.accounting import read_count
    from mixing.accounting import simulate as account

    examples = read_count(count)
    table = Table("source", title=f"the first {examples:,} examples; no count is a whole example off")
    table.add_column("task", no_wrap=True)
    for name in ("records", "asked", "drawn", "off by", "epochs"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in account(lock, examples).streams:
        asked = float(row.asked / examples)
        counts = f"{row.drawn:,}", f"{float(row.drawn - row.asked):+.2f}", f"{row.epochs:,.5g}"
        table.add_row(row.stream.source, row.stream.task, f"{row.stream.pool:,}", f"{asked:.3%}", *counts)
    console.print(table)


@app.command()
def train(
    config: ConfigPath,
    out: Out,
    override: Overrides = None,
    data: Data = Path(),
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Measure two steps, draw a batch, train nothing.")] = False,
) -> None:
    """Train a generator on a locked mixture, fresh or from a base; an unfinished run is continued."""
    from trainer.config import TrainConfig
    from trainer.train import train as job

    settings = read_config(TrainConfig, config, override or ())
    if dry_run:
        from trainer.dry_run import try_mixture

        for line in try_mixture(settings, out, data).lines(settings):
            console.print(line, markup=False, highlight=False, soft_wrap=True)
        return
    with progress_bar("train") as report:
        result = job(settings, out, data, report)
    if os.environ.get("RANK", "0") != "0":
        return  # of the processes of torchrun, the first tells
    state = "was finished before" if result.already else f"{result.steps} steps on {result.examples} examples"
    console.print(f"{result.generator}: {state}; losses in {result.loss_csv}")


@app.command()
def evaluate(
    config: ConfigPath,
    out: Out,
    override: Overrides = None,
    data: Data = Path(),
    predictions: Annotated[
        Path | None,
        typer.Option(help="A folder of pictures any model drew: score these on the configuration's benchmark."),
    ] = None,
    requests: Annotated[bool, typer.Option(help="Write to --out what to ask a model: prompts and pictures.")] = False,
) -> None:
    """Score: a tuned generator and its base on held-out samples, or any model's pictures on a benchmark."""
    if predictions is not None or requests:
        _score_folder(config, override, data, predictions, out)
        return
    from trainer.evaluate import EvaluateConfig, evaluate_generator
    from trainer.evaluation.tables import metrics_tables, retention_table

    settings = read_config(EvaluateConfig, config, override or ())
    with progress_bar("evaluate") as report:
        summary = evaluate_generator(settings, out, data, report)
    for values in (*metrics_tables(summary), retention_table(summary)):
        table = Table(*values["head"], title=values["title"])
        for row in values["rows"]:
            table.add_row(*row["cells"])
        console.print(table)
    console.print(f"{out / 'summary.json'}")


def _score_folder(config: Path, override: list[str] | None, data: Path, predictions: Path | None, out: Path) -> None:
    from trainer.evaluation import evaluate as scoring

    settings = read_config(scoring.ScoreConfig, config, override or ())
    if predictions is None:
        count = scoring.write_requests(scoring.load_benchmark(settings, data), out)
        console.print(f"{out}: {count} pictures to draw, named in requests.jsonl")
        return
    with progress_bar("evaluate") as report:
        values = scoring.evaluate(settings, predictions, out, data, report)
    for line in scoring.summary_lines(values):
        console.print(line, markup=False)
    console.print(f"{out / 'report.html'}")


@app.command()
def predict(
    pictures: Annotated[list[Path], typer.Argument(help="Pictures, or folders of pictures.")],
    task: Annotated[str, typer.Option(help="What to ask, for example: depth; segment the red mug.")],
    generator: Annotated[Path, typer.Option(help="Folder of a trained generator.")],
    out: Annotated[Path, typer.Option(help="The folder to write the answers to.")],
    size: Annotated[
        int, typer.Option(min=16, help="Side the generator draws at, in pixels: that of its training.")
    ] = 64,
    steps: Annotated[int, typer.Option(min=1, help="Euler steps; more is slower.")] = 4,
    passes: Annotated[int, typer.Option(min=1, help="Ask so often, in other words and colours, and vote.")] = 1,
    seed: Annotated[int, typer.Option(min=0, help="Draws the noise.")] = 0,
    points: Annotated[
        str | None, typer.Option(help="Also write a depth answer as a coloured cloud: ply or glb.")
    ] = None,
    fov_deg: Annotated[float, typer.Option(min=1, max=170, help="Horizontal field of view of the cloud.")] = 55.0,
) -> None:
    """Ask a trained generator about your own pictures: metres, normals, masks, and a sheet to look at.

    Tasks: depth; normals; segment EXPRESSION[; EXPRESSION...]; label CLASS, CLASS, ...; instances of CLASS; edit WHAT;
    generate WHAT; prompt TEXT (sent as typed, its legend is read from it).
    """
    from trainer.inference import Request
    from trainer.inference import predict as job

    if points not in (None, "ply", "glb"):
        raise InputError(f"--points {points}: ply or glb")
    request = Request(tuple(pictures), task, size, steps, passes, seed, points, fov_deg)  # type: ignore[arg-type]
    with progress_bar("predict") as report:
        values = job(generator, request, out, report)
    for failure in values["failed"]:
        errors.print(f"{failure['file']}: {failure['reason']}", style="red", markup=False, highlight=False)
    console.print(f"{out}: {len(values['predictions'])} pictures answered, {len(values['failed'])} failed")
    raise typer.Exit(1 if values["failed"] else 0)


@app.command()
def compare(
    out: Annotated[Path, typer.Option(help="The folder of the page and its key.")],
    a: Annotated[Path | None, typer.Argument(help="Folder of one generator's pictures.")] = None,
    b: Annotated[Path | None, typer.Argument(help="Folder of the other's, under the same names.")] = None,
    requests: Annotated[
        Path | None, typer.Option(help="requests.jsonl of `cavendish evaluate --requests`: the prompts.")
    ] = None,
    answers: Annotated[
        list[Path] | None, typer.Option(help="Answers saved from the page; repeat it for several judges.")
    ] = None,
    question: Annotated[str, typer.Option(help="What is asked of every pair.")] = (
        "Which picture follows the prompt better and looks better?"
    ),
    seed: Annotated[int, typer.Option(min=0, help="Draws order and sides.")] = 0,
) -> None:
    """Let people compare two generators blindly: write the page, or (--answers) say who won."""
    from trainer.evaluation.comparison import judge, write_comparison

    if answers:
        values = judge(out, answers, seed)
        rate = f"{values['win_rate']:.1%} (95 %: {values['low']:.1%} to {values['high']:.1%})"
        console.print(f"{values['a']} wins {rate} of {values['prompts']} prompts, ties half; {out / 'result.json'}")
        return
    if a is None or b is None or requests is None:
        raise InputError("compare: give two folders of pictures and --requests, or --answers")
    count = write_comparison(requests, a, b, out, question, seed)
    console.print(f"{out / 'page'}: {count} pairs; open index.html, or hand out that folder. Keep {out / 'key.json'}")


@app.command()
def show(
    path: Annotated[Path, typer.Argument(help="A shard (.tar) or a directory of shards.")],
    out: Annotated[Path | None, typer.Option(help="Also write a contact sheet here, .png or .html.")] = None,
    count: Annotated[int, typer.Option(min=1, help="How many records.")] = 12,
    cell: Annotated[int, typer.Option(min=32, max=1024, help="Size of a picture in the sheet, in pixels.")] = 192,
    verify: Annotated[
        bool, typer.Option("--verify", help="Check every byte and record of a directory instead.")
    ] = False,
) -> None:
    """Look into shards: a table here, a contact sheet as PNG or HTML, or a full verification."""
    from mixing import shards
    from mixing import show as looking

    if verify:
        problems = shards.verify(path)
        for problem in problems:
            errors.print(problem, style="red", markup=False, highlight=False)
        console.print(f"{path}: {looking.summary(path)}; {len(problems)} problems")
        raise typer.Exit(1 if problems else 0)
    records = looking.read_records(path, count)
    table = Table("key", "size", "what is there", "words", title=looking.summary(path) if path.is_dir() else path.name)
    for record in records:
        table.add_row(*looking.describe(record))
    console.print(table)
    if out is not None:
        looking.write_sheet(records, out, cell)
        console.print(f"{out}")


@app.command()
def demo(
    out: Out = Path("demo-output"),
    workers: Workers = os.cpu_count() or 1,
) -> None:
    """Run every stage on the configurations of examples/, in about ten minutes, and write one page that shows it."""
    from demo.pipeline import run_demo

    run_demo(out, workers, progress_bar, console.print)


def main() -> None:
    """Run the command line; a bad input is one line on stderr and exit code 2."""
    from mixing.engine import JobFailed

    logging.basicConfig(level=logging.ERROR)  # Beam and its kin log routine matters as warnings
    try:
        app()
    except InputError as error:
        errors.print(f"cavendish: {error}", style="red", markup=False, highlight=False, soft_wrap=True)
        sys.exit(2)
    except JobFailed as error:
        errors.print(f"cavendish: {error}", style="red", markup=False, highlight=False, soft_wrap=True)
        sys.exit(1)
    except KeyboardInterrupt:
        errors.print("cavendish: interrupted; what is committed is kept, run the same command to continue")
        sys.exit(130)


if __name__ == "__main__":
    main()
