"""The verb that plans: what a job will cost, measured on a few of its samples before it runs."""

from __future__ import annotations

import json
from dataclasses import asdict
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from cavendish.cli.app import LOOK, ConfigPath, Data, Overrides, app, console, say
from cavendish.encoders.sample import InputError
from cavendish.mixing.config import read_config

if TYPE_CHECKING:
    from cavendish.mixing.jobs.estimate import Estimate, Prices, Probe, Stage


class Job(Enum):
    """The jobs that can be planned."""

    render = "render"
    annotate = "annotate"
    encode = "encode"
    convert = "convert"
    audit = "audit"
    train = "train"


@app.command(rich_help_panel=LOOK)
def plan(
    job: Annotated[Job, typer.Argument(help="What the configuration is for.")],
    config: ConfigPath,
    override: Overrides = None,
    data: Data = Path(),
    samples: Annotated[int, typer.Option(min=2, max=1000, help="Samples of each of the probe's three shards.")] = 4,
    cores: Annotated[str, typer.Option(help="Numbers of cores to tell the wall time for.")] = "2,64,1024",
    machine_cores: Annotated[int, typer.Option(min=1, help="Cores of one machine.")] = 16,
    cpu_hour_price: Annotated[float, typer.Option(min=0, help="Of one core, in any currency.")] = 0.0,
    gb_month_price: Annotated[float, typer.Option(min=0, help="Of storage, in the same currency.")] = 0.0,
    months: Annotated[float, typer.Option(min=0, help="How long the data are kept.")] = 1.0,
    as_json: Annotated[bool, typer.Option("--json", help="As json.")] = False,
) -> None:
    """Estimate samples, bytes, CPU hours and money of a job from a few of its samples, really made."""
    from cavendish.mixing.jobs.estimate import Prices, estimate, fan_out, probe

    counts = _cores(cores)
    prices = Prices(cpu_hour_price, gb_month_price, months)
    stage = _stage(job, config, override or [], data, samples)
    with console.status(f"making a few of the {stage.units:,}"):
        measured = probe(stage.trial)
    if measured.records == 0 and stage.samples_per_unit is None:
        raise InputError(f"no record came of the {measured.units} {stage.unit}s of the probe: {measured.rejection}")
    configured = estimate(stage, measured, stage.units, stage.units_per_shard, prices, counts, machine_cores)
    rows = fan_out(stage, measured, prices, counts, machine_cores)
    if as_json:
        told: dict[str, Any] = {"stage": stage.verb, "unit": stage.unit, "prices": asdict(prices)}
        told["probe"] = {**asdict(measured), "mean_s": measured.mean_s, "error_s": measured.error_s}
        told["configuration"] = asdict(configured)
        told["fan_out"] = [asdict(row) for row in rows]
        typer.echo(json.dumps(told, indent=1))
        return
    _print_probe(stage, measured)
    _print_rows(stage, prices, {"configured": configured, **{_count(row.samples): row for row in rows}})


def _cores(text: str) -> list[int]:
    try:
        counts = sorted({int(part) for part in text.split(",")})
    except ValueError:
        counts = [0]
    if counts[0] < 1:
        raise InputError(f"--cores {text}: write whole numbers with commas between them, for example 16,256")
    return counts


def _stage(job: Job, path: Path, override: list[str], data: Path, samples: int) -> Stage:
    if job is Job.render:
        from cavendish.render.job import RenderConfig, render_stage

        return render_stage(read_config(RenderConfig, path, override), samples)
    if job is Job.annotate:
        from cavendish.annotate.job import AnnotateConfig, annotate_stage

        return annotate_stage(read_config(AnnotateConfig, path, override), data, samples)
    if job is Job.encode:
        from cavendish.mixing.jobs.encode import EncodeConfig, encode_stage

        return encode_stage(read_config(EncodeConfig, path, override), data, samples)
    if job is Job.convert:
        from cavendish.mixing.jobs.convert import ConvertConfig, convert_stage

        return convert_stage(read_config(ConvertConfig, path, override), data, samples)
    if job is Job.audit:
        from cavendish.mixing.audit.config import AuditConfig
        from cavendish.mixing.audit.job import audit_stage
        from cavendish.trainer.evaluation.benchmarks.audited import read_questions

        return audit_stage(read_config(AuditConfig, path, override), data, samples, read_questions)
    from cavendish.trainer.training.config import TrainConfig
    from cavendish.trainer.training.dry_run import train_stage

    return train_stage(read_config(TrainConfig, path, override), data, samples)


def _print_probe(stage: Stage, probe: Probe) -> None:
    made = f"probe: {probe.units} units ({stage.unit}), {probe.records} records, {probe.wall_s:.0f} s"
    once = "once" if stage.start_once else "once for each worker"
    say(f"{made}, {probe.memory_bytes / 1e6:.0f} MB of memory a worker")
    say(
        f"CPU seconds: start {probe.start_s:.2f} ({once}), shard {probe.shard_s:.2f}, "
        f"{stage.unit} {probe.mean_s:.3f} ± {probe.error_s:.3f} (95 %, {len(probe.unit_s)} measured)"
    )
    if probe.records:
        say(f"bytes: {probe.bytes_per_record:,.0f} a record, with its part of the row")


def _print_rows(stage: Stage, prices: Prices, rows: dict[str, Estimate]) -> None:
    names = list(rows)
    table = Table(title=f"plan {stage.verb}", title_justify="left")
    table.add_column("", no_wrap=True)
    for name in names:
        table.add_column(name, justify="right", no_wrap=True)
    costs = prices.cpu_hour > 0 or prices.gb_month > 0
    lines = {
        "samples": [_count(row.samples) for row in rows.values()],
        "CPU hours": [_hours(row.cpu_hours) for row in rows.values()],
        "  from": [_hours(row.low) for row in rows.values()],
        "  to": [_hours(row.high) for row in rows.values()],
        "bytes": [_bytes(row.bytes) for row in rows.values()],
    }
    if costs:
        lines["money"] = [f"{row.cost:,.0f}" if row.cost >= 100 else f"{row.cost:.2f}" for row in rows.values()]
    if not stage.divisible:
        lines["shards"] = [_count(row.shards) for row in rows.values()]
        lines["directories"] = [f"{row.directories:,}" for row in rows.values()]
        lines[f"{stage.unit}s a shard"] = [_count(row.units_per_shard) for row in rows.values()]
        lines["  bytes"] = [_bytes(row.shard_bytes) for row in rows.values()]
        lines["  CPU time"] = [_time(row.shard_s / 3600) for row in rows.values()]
    for place, (count, _) in enumerate(next(iter(rows.values())).wall_hours):
        lines[f"on {count:,} cores"] = [_time(row.wall_hours[place][1]) for row in rows.values()]
    for name, cells in lines.items():
        table.add_row(name, *cells)
    console.print(table)
    for name, row in rows.items():
        if row.settings or row.warnings:
            say(f"{name}: {row.settings}".rstrip())
        for warning in row.warnings:
            console.print(f"  ! {warning}", style="yellow", highlight=False, markup=False, soft_wrap=True)


def _count(value: int) -> str:
    for name, unit in (("G", 1e9), ("M", 1e6)):
        if value >= unit:
            return f"{value / unit:.4g} {name}"
    return f"{value:,}"


def _hours(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3f}" if value < 0.1 else f"{value:.3g}"


def _time(hours: float) -> str:
    for name, unit in (("y", 8766.0), ("d", 24.0), ("h", 1.0), ("min", 1 / 60)):
        if hours >= unit * (2 if name in "yd" else 1):
            return f"{hours / unit:,.1f} {name}"
    return f"{hours * 3600:.1f} s"


def _bytes(value: int) -> str:
    for name, unit in (("PB", 1e15), ("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if value >= unit:
            return f"{value / unit:.3g} {name}"
    return f"{value} B" if value else "-"
