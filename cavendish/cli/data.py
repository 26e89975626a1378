"""Verbs that make shards: render, annotate, download, encode, convert."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from cavendish.cli.app import (
    MAKE,
    BeamOptions,
    ConfigPath,
    Data,
    DataPlace,
    Out,
    OutPlace,
    Overrides,
    Runner,
    Scheduler,
    Split,
    Workers,
    app,
    check_written,
    counted,
    engine_of,
    progress_bar,
    run_job,
    say,
    say_rejected,
)
from cavendish.mixing.config import read_config
from cavendish.mixing.storage.place import exists, join

MAX_WARNED = 20


@app.command(rich_help_panel=MAKE)
def render(
    config: ConfigPath,
    out: OutPlace,
    override: Overrides = None,
    workers: Workers = os.cpu_count() or 1,
    runner: Runner = "FnApiRunner",
    split: Split = "0/1",
    beam_option: BeamOptions = None,
    scheduler: Scheduler = "",
    tasks: Annotated[str, typer.Option(help="indoor, outdoor, table top, long range or clutter: sets `preset`")] = "",
) -> None:
    """Render seeded scenes into raw shards: image, depth, normals, instances, facts, an edited twin."""
    from cavendish.render.job import RenderConfig, asset_warnings, count_rejections
    from cavendish.render.job import render as job

    settings = read_config(RenderConfig, config, [*(override or ()), *([f"preset={tasks}"] if tasks else [])])
    run_job("render", settings, out, job, engine_of(workers, runner, split, beam_option, scheduler))
    for reason, count in count_rejections(out).items():
        say(f"  {count} rejected: {reason}")
    warnings = asset_warnings(out) if settings.assets else {}
    for name, text in list(warnings.items())[:MAX_WARNED]:
        say(f"  {name}: {text}")
    if len(warnings) > MAX_WARNED:
        say(f"  and {len(warnings) - MAX_WARNED} more files with warnings: see `assets` in their samples' provenance")


@app.command(rich_help_panel=MAKE)
def annotate(
    config: ConfigPath,
    out: OutPlace,
    override: Overrides = None,
    data: Data = Path(),
    workers: Workers = 1,
    runner: Runner = "FnApiRunner",
    split: Split = "0/1",
    beam_option: BeamOptions = None,
    scheduler: Scheduler = "",
) -> None:
    """Pseudo-label image collections into raw shards, with provenance and quality scores."""
    from cavendish.annotate.config import AnnotateConfig
    from cavendish.annotate.job import annotate as job

    settings = read_config(AnnotateConfig, config, override or ())
    run_job("annotate", settings, out, job, engine_of(workers, runner, split, beam_option, scheduler), data)
    say_rejected(out)
    if exists(join(out, "report.html")):
        say(f"{join(out, 'report.html')}: scores, examples, and what was left out")


@app.command(rich_help_panel=MAKE)
def download(config: ConfigPath, out: Out, override: Overrides = None, data: Data = Path()) -> None:
    """Download a list of picture URLs into tars for `annotate`; robots.txt and opt-outs are respected."""
    from cavendish.annotate.download.job import DownloadConfig
    from cavendish.annotate.download.job import download as job

    settings = read_config(DownloadConfig, config, override or ())
    with progress_bar("download") as report:
        result = job(settings, out, data, report)
    say(f"{out}: {counted(result.accounting.written, 'image')}; {counted(result.made, 'shard')} made now")
    say(f"{out}: {result.accounting}")
    for reason, count in result.reasons.items():
        say(f"{count:>9,}  {reason}")
    check_written(out, result.accounting)


@app.command(rich_help_panel=MAKE)
def encode(
    config: ConfigPath,
    out: OutPlace,
    override: Overrides = None,
    data: DataPlace = Path(),
    workers: Workers = 1,
    runner: Runner = "FnApiRunner",
    split: Split = "0/1",
    beam_option: BeamOptions = None,
    scheduler: Scheduler = "",
) -> None:
    """Freeze raw shards into instruction shards: source, prompt, decodable target."""
    from cavendish.mixing.jobs.encode import EncodeConfig
    from cavendish.mixing.jobs.encode import encode as job

    settings = read_config(EncodeConfig, config, override or ())
    run_job("encode", settings, out, job, engine_of(workers, runner, split, beam_option, scheduler), data)
    say_rejected(out)


@app.command(rich_help_panel=MAKE)
def convert(
    config: ConfigPath,
    out: OutPlace,
    override: Overrides = None,
    data: Data = Path(),
    workers: Workers = 1,
    runner: Runner = "FnApiRunner",
    split: Split = "0/1",
    beam_option: BeamOptions = None,
    scheduler: Scheduler = "",
) -> None:
    """Turn WebDataset or img2dataset tars and folders of others into raw shards; pictures pass through as they are."""
    from cavendish.mixing.jobs.convert import ConvertConfig
    from cavendish.mixing.jobs.convert import convert as job

    settings = read_config(ConvertConfig, config, override or ())
    run_job("convert", settings, out, job, engine_of(workers, runner, split, beam_option, scheduler), data)
    say_rejected(out)
