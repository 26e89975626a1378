"""The verb that plans: what a job will cost, measured on a few of its samples before it runs."""

from __future__ import annotations

import json
from dataclasses import asdict
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.filesize import decimal
from rich.table import Table

from cavendish.cli.app import LOOK, ConfigPath, Data, Overrides, app, console, say
from cavendish.encoders.sample import InputError
from cavendish.mixing.config import read_config
from cavendish.verbs import read_questions

if TYPE_CHECKING:
    from cavendish.mixing.jobs.estimate import Cost, Estimate, Prices, Probe


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
    cores: Annotated[str, typer.Option(help="Numbers of cores to estimate the wall time for.")] = "2,64,1024",
    cpu_hour_price: Annotated[float, typer.Option(min=0, help="Of one core, in any currency.")] = 0.0,
    gb_month_price: Annotated[float, typer.Option(min=0, help="Of storage, in the same currency.")] = 0.0,
    months: Annotated[float, typer.Option(min=0, help="How long the data are kept.")] = 1.0,
    as_json: Annotated[bool, typer.Option("--json", help="As json.")] = False,
) -> None:
    """Estimate samples, bytes, CPU hours and money of a job from a few of its samples, really made."""
    from cavendish.mixing.jobs.estimate import Prices, estimate, run_probe

    counts = _cores(cores)
    prices = Prices(cpu_hour_price, gb_month_price, months)
    probe = _probe(job, config, override or [], data, samples)
    with console.status(f"making a few of the {probe.units:,}"):
        cost = run_probe(probe)
    if cost.records == 0 and probe.samples_per_unit is None:
        raise InputError(f"no record came of the {cost.units} {probe.unit}s of the probe: {cost.rejection}")
    estimated = estimate(probe, cost, prices, counts)
    if as_json:
        values: dict[str, Any] = {"stage": probe.verb, "unit": probe.unit, "prices": asdict(prices)}
        values["probe"] = {**asdict(cost), "mean_s": cost.mean_s, "error_s": cost.error_s}
        values["configuration"] = asdict(estimated)
        values["warnings"] = probe.warnings
        typer.echo(json.dumps(values, indent=1))
        return
    _print_cost(probe, cost)
    _print_estimate(probe, prices, estimated)


def _cores(text: str) -> list[int]:
    try:
        counts = sorted({int(part) for part in text.split(",")})
    except ValueError:
        counts = [0]
    if counts[0] < 1:
        raise InputError(f"--cores {text}: write whole numbers with commas between them, for example 16,256")
    return counts


def _probe(job: Job, path: Path, override: list[str], data: Path, samples: int) -> Probe:
    if job is Job.render:
        from cavendish.render.job import RenderConfig, render_probe

        return render_probe(read_config(RenderConfig, path, override), samples)
    if job is Job.annotate:
        from cavendish.annotate.config import AnnotateConfig
        from cavendish.annotate.job import annotate_probe

        return annotate_probe(read_config(AnnotateConfig, path, override), data, samples)
    if job is Job.encode:
        from cavendish.mixing.jobs.encode import EncodeConfig, encode_probe

        return encode_probe(read_config(EncodeConfig, path, override), data, samples)
    if job is Job.convert:
        from cavendish.mixing.jobs.convert import ConvertConfig, convert_probe

        return convert_probe(read_config(ConvertConfig, path, override), data, samples)
    if job is Job.audit:
        from cavendish.mixing.audit.job import AuditConfig, audit_probe

        return audit_probe(read_config(AuditConfig, path, override), data, samples, read_questions)
    from cavendish.trainer.training.config import TrainConfig
    from cavendish.trainer.training.dry_run import train_probe

    return train_probe(read_config(TrainConfig, path, override), data, samples)


def _print_cost(probe: Probe, cost: Cost) -> None:
    made = f"probe: {cost.units} units ({probe.unit}), {cost.records} records, {cost.wall_s:.0f} s"
    once = "once" if probe.start_once else "once for each worker"
    say(f"{made}, {cost.memory_bytes / 1e6:.0f} MB of memory a worker")
    say(
        f"CPU seconds: start {cost.start_s:.2f} ({once}), shard {cost.shard_s:.2f}, "
        f"{probe.unit} {cost.mean_s:.3f} ± {cost.error_s:.3f} (95 %, {len(cost.unit_s)} measured)"
    )
    if cost.records:
        say(f"bytes: {cost.bytes_per_record:,.0f} a record, with its part of the row")


def _print_estimate(probe: Probe, prices: Prices, found: Estimate) -> None:
    lines = {
        "samples": f"{found.samples:,}",
        "CPU hours": f"{_hours(found.cpu_hours)} ({_hours(found.low)} to {_hours(found.high)})",
        "bytes": decimal(found.bytes),
    }
    if prices.cpu_hour > 0 or prices.gb_month > 0:
        lines["money"] = f"{found.cost:,.0f}" if found.cost >= 100 else f"{found.cost:.2f}"
    if not probe.divisible:
        lines["shards"] = f"{found.shards:,}"
        lines[f"{probe.unit}s a shard"] = f"{found.units_per_shard:,}"
        lines["bytes a shard"] = decimal(found.shard_bytes)
        lines["CPU time a shard"] = _time(found.shard_s / 3600)
    lines |= {f"on {count:,} cores": _time(hours) for count, hours in found.wall_hours}
    table = Table("", "as configured", title=f"plan {probe.verb}", title_justify="left")
    table.columns[1].justify = "right"
    for name, cell in lines.items():
        table.add_row(name, cell)
    console.print(table)
    for warning in probe.warnings:
        console.print(f"! {warning}", style="yellow", highlight=False, markup=False, soft_wrap=True)


def _hours(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3f}" if value < 0.1 else f"{value:.3g}"


def _time(hours: float) -> str:
    for name, unit in (("y", 8766.0), ("d", 24.0), ("h", 1.0), ("min", 1 / 60)):
        if hours >= unit * (2 if name in "yd" else 1):
            return f"{hours / unit:,.1f} {name}"
    return f"{hours * 3600:.1f} s"
