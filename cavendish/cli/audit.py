"""The verbs of the leakage audit."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
import typer.core

from cavendish.cli.app import (
    CHECK,
    BeamOptions,
    ConfigPath,
    Data,
    Overrides,
    Runner,
    Scheduler,
    Split,
    Workers,
    app,
    complain,
    engine_of,
    place_option,
    progress_bar,
    say,
)
from cavendish.mixing.config import read_config
from cavendish.mixing.storage.place import Place, make_folder, parent_of
from cavendish.mixing.storage.sync import Published, now_and_then, published
from cavendish.verbs import read_questions


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
app.add_typer(audits, name="audit", rich_help_panel=CHECK)
AuditOut = Annotated[
    Any, place_option("The folder of the report, or a URL; packs and results too, unless `work` is set.")
]


@audits.command("index")
def audit_index(config: ConfigPath, out: AuditOut, override: Overrides = None, data: Data = Path()) -> None:
    """Fingerprint the benchmarks: packs that others can audit against without holding the images."""
    from cavendish.mixing.audit.job import AuditConfig, index_benchmarks

    settings = read_config(AuditConfig, config, override or ())
    with published(out) as work:
        sides, missing = index_benchmarks(settings, work.folder, data, read_questions)
        for side in sides:
            if side.pack is not None:
                pack = side.open_pack()
                kept, at = "pixels beside it" if pack.has_pixels else "no pixels", work.place_of(pack.folder)
                say(f"{side.name}: {len(pack.images)} images, {kept}, digest {pack.digest[:16]}: {at}")
            if side.labels is not None:
                labels = side.open_labels()
                counts = f"{len(labels.arrays['masks'])} masks, {len(labels.arrays['reliefs'])} depth maps that tell"
                say(f"{side.name}: {counts}, digest {labels.digest[:16]}: {work.place_of(labels.folder)}")
    for name, reason in missing:
        complain(f"{name}: {reason}")
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
        Any, place_option("Also write the list of keys to leave out here, for `exclude` of a mixture.")
    ] = None,
    beam_option: BeamOptions = None,
    scheduler: Scheduler = "",
) -> None:
    """The whole audit: index, scan, report. With --split a part of the scan; `report` then writes the report."""
    from cavendish.mixing.audit.job import AuditConfig, audit
    from cavendish.mixing.audit.job import scan as scan_part

    settings, engine = (
        read_config(AuditConfig, config, override or ()),
        engine_of(workers, runner, split, beam_option, scheduler),
    )
    with published(out) as work:
        with progress_bar("audit") as report:
            told = now_and_then(work, report)
            if engine.split != (0, 1):
                scan_part(settings, work.folder, engine, told, data, read_questions)
                say(f"{out}: part {split} is scanned; when all are, run: cavendish audit report")
                return
            verdict = audit(settings, work.folder, engine, told, data, read_questions)
        say_verdict(verdict, exclude, work)


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
    exclude: Annotated[Any, place_option("Also write the list of keys to leave out here.")] = None,
) -> None:
    """Write the report of a finished scan anew, for example with a reviewer's decisions."""
    from cavendish.mixing.audit.job import AuditConfig, report

    settings = read_config(AuditConfig, config, override or ())
    with published(out) as work:
        say_verdict(report(settings, work.folder, data, read_questions), exclude, work)


@audits.command("verify")
def audit_verify(config: ConfigPath, out: AuditOut, override: Overrides = None, data: Data = Path()) -> None:
    """Check a report again: hashes of both sides, the report's bytes, every pair found anew."""
    from cavendish.mixing.audit.job import AuditConfig, verify_report

    settings = read_config(AuditConfig, config, override or ())
    with published(out) as work:
        problems = verify_report(settings, work.folder, data, read_questions)
    for problem in problems:
        complain(problem)
    say(f"{out}: {len(problems)} problems" if problems else f"{out}: the report stands")
    raise typer.Exit(1 if problems else 0)


def _audit_words(  # type: ignore[no-untyped-def]
    config: Path, out: Place, override, data: Path, workers: int, kinds: tuple[str, ...]
) -> None:
    from cavendish.mixing.audit.job import AuditConfig, audit_words

    settings, engine = read_config(AuditConfig, config, override or ()), engine_of(workers, "FnApiRunner", "0/1", None)
    with published(out) as work, progress_bar("audit") as report:
        verdict = audit_words(settings, work.folder, kinds, engine, report, data, read_questions)
    for line in verdict.lines:
        say(line)
    say(f"{work.place_of(verdict.file)}")
    raise typer.Exit(verdict.exit_code)


def say_verdict(verdict, exclude: Place | None, work: Published) -> None:  # type: ignore[no-untyped-def]
    from cavendish.mixing.storage.place import write_atomic

    if exclude is not None:
        make_folder(parent_of(exclude))
        write_atomic(exclude, verdict.exclude.read_bytes())
    say(verdict.words)
    if verdict.incomplete and verdict.outcome != "incomplete":
        say(f"and not fully checked: {'; '.join(verdict.incomplete)}")
    keys = exclude or work.place_of(verdict.exclude)
    say(f"report: {work.place_of(verdict.page)}; keys to leave out: {keys}")
    raise typer.Exit(verdict.exit_code)
