"""The table of docs/reliability.md: one row for each fault of each job, with how often it was tried."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

from benchmarks.faults.jobs import JOBS
from benchmarks.faults.outcomes import Outcome
from cavendish.encoders.sample import InputError
from cavendish.mixing.storage.place import write_atomic

BEGIN, END = "<!-- begin: table of the fault kit -->", "<!-- end: table of the fault kit -->"
_MESSAGE = 230


def write_table(outcomes: Sequence[Outcome], page: Path) -> None:
    """Put the table between the two marks of a page.

    Raises:
        InputError: the page lacks them.
    """
    text = page.read_text()
    if BEGIN not in text or END not in text:
        raise InputError(f"{page}: no lines {BEGIN} and {END} in it")
    head, _, rest = text.partition(BEGIN)
    _, _, tail = rest.partition(END)
    write_atomic(page, f"{head}{BEGIN}\n{table(outcomes)}\n{END}{tail}".encode())


def table(outcomes: Sequence[Outcome]) -> str:
    """Return the tables, one for each job, in Markdown, after a line of totals."""
    kills = Counter(one.job for one in outcomes if one.fault.startswith("SIGKILL"))
    lost = sum(not (one.intact and one.equal) for one in outcomes)
    unclear = sum(not one.clear for one in outcomes)
    told = ", ".join(f"{kills[job.name]} {job.name}" for job in JOBS if kills[job.name])
    lines = [
        f"{len(outcomes)} faults, of them {kills.total()} kills ({told}). Work lost, or another result after the "
        f"re-run: {lost}. Messages that are not one clear line: {unclear}.",
    ]
    by_job: dict[str, dict[tuple[str, str], list[Outcome]]] = defaultdict(lambda: defaultdict(list))
    for one in outcomes:
        by_job[one.job][one.fault, one.mended].append(one)
    for job in JOBS:
        if job.name not in by_job:
            continue
        lines += ["", f"### {job.name[0].upper()}{job.name[1:]}", ""]
        lines += [
            "| fault | tried | what the user sees | finished work intact | the user | re-run equals the reference |"
        ]
        lines += ["|---|---:|---|---|---|---|"]
        for (fault, mended), every in by_job[job.name].items():
            seen = Counter(_shown(one.message) for one in every).most_common(2)
            words = "; or: ".join(message for message, _ in seen)
            share = [_share(sum(flags), len(every)) for flags in ([o.intact for o in every], [o.equal for o in every])]
            lines.append(f"| {fault} | {len(every)} | {words} | {share[0]} | {mended} | {share[1]} |")
    return "\n".join(lines)


def _share(count: int, of: int) -> str:
    return "yes" if count == of else f"**{count} of {of}**"


def _shown(message: str) -> str:
    """Shorten a message for a cell; what differs from run to run becomes N."""
    text = re.sub(r"0x[0-9a-f]+", "0xN", message.replace("|", "\\|").replace("<", "&lt;"))
    text = re.sub(r"\b[0-9a-f]{12,64}\b", "HASH", text)
    text = re.sub(r"\d+ of (\d+) (shards|parts of the scan) not done \([^)]*\)", r"N of \1 \2 not done (...)", text)
    return text if len(text) <= _MESSAGE else f"{text[:_MESSAGE]} ..."
