"""Whether a lock may take an audit's report: its schema, digest and consistency, the shards and the exclusions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence, Set
from typing import Any, Literal

from cavendish.encoders.sample import InputError
from cavendish.mixing.storage.files import digest
from cavendish.mixing.storage.place import Place, file_sha256, read_json

REPORT_SCHEMA = "cavendish-audit/3"
Outcome = Literal["clean", "leak", "incomplete", "review"]
EXIT_CODES = {"clean": 0, "leak": 1, "incomplete": 3, "review": 4}
ABOUT_SOURCES = ("lineage", "licence")
"""Kinds of findings about a whole source: they name no image, and no key to leave out mends them."""


def count_findings(findings: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Count findings by what they ask for: leaks and review are open, the others are settled."""
    status = Counter((finding["status"], finding["level"]) for finding in findings)
    return {
        "leaks": status["open", "leak"],
        "review": status["open", "review"],
        "removed": status["removed", "leak"] + status["removed", "review"],
        "dismissed": status["dismissed", "leak"] + status["dismissed", "review"],
    }


def decide_outcome(counts: Mapping[str, int], incomplete: Sequence[str]) -> Outcome:
    """Return the verdict: a leak goes before incomplete, incomplete before review."""
    return "leak" if counts["leaks"] else "incomplete" if incomplete else "review" if counts["review"] else "clean"


def report_digest(report: Mapping[str, Any]) -> str:
    """Name what a report says: the digest of all its fields but `digest`."""
    return digest({key: value for key, value in report.items() if key != "digest"})


def read_report(path: Place) -> dict[str, Any]:
    """Read report.json of an audit, and check that it is as it was written and says what its findings say.

    Raises:
        InputError: not such a report, of another version, edited, or with a verdict that does not follow from it.
    """
    report = read_json(path, "the report of an audit")
    if not isinstance(report, dict) or report.get("schema") != REPORT_SCHEMA:
        schema = report.get("schema") if isinstance(report, dict) else None
        raise InputError(
            f"{path}: schema {schema!r}, expected {REPORT_SCHEMA!r}: name the report.json of `cavendish audit`"
        )
    if report_digest(report) != report.get("digest"):
        raise InputError(f"{path}: edited since it was written (its digest differs): run `cavendish audit report`")
    try:
        counts = count_findings(report["findings"])
        outcome = decide_outcome(counts, report["incomplete"])
        consistent = (
            (report["verdict"], report["exit_code"]) == (outcome, EXIT_CODES[outcome])
            and all(report["counts"][name] == value for name, value in counts.items())
            and (outcome != "clean" or (report["benchmarks"] and sum(row["records"] for row in report["shards"])))
        )
    except (KeyError, TypeError) as error:
        raise InputError(f"{path}: damaged report of an audit: {error!r}") from None
    if not consistent:
        raise InputError(f"{path}: its verdict does not follow from its findings: run `cavendish audit report`")
    return report


def accept_report(path: Place, sources: Iterable[tuple[str, Sequence[str]]], excluded: Set[str]) -> dict[str, str]:
    """Hold a report against what a mixture locks; return what the lock says of the audit.

    Args:
        sources: (path, sha256 of every shard) of each source.
        excluded: the keys that the mixture leaves out.

    Returns:
        sha256 (of the file), verdict, settings (changed ones, where there are any), excluded (leaked samples left out).

    Raises:
        InputError: see `read_report`; or it is of other shards, or counts samples as left out that are not.
    """
    report = read_report(path)
    try:
        covered = {str(row["digest"]) for row in report["shards"]}
        leaked = _leaked_samples(report)
        settings = [str(setting) for setting in report["changed_settings"]]
    except (KeyError, TypeError) as error:
        raise InputError(f"{path}: damaged report of an audit: {error!r}") from None
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    missing = sorted({name for name, shards in sources if digest(list(shards)) not in covered})
    if missing:
        raise InputError(
            f"{path}: not of these shards: {', '.join(missing)} was not audited as it is now: run `cavendish audit`"
        )
    drawn = leaked - excluded
    if drawn:
        raise InputError(
            f"{path}: {len(drawn)} samples that it found, such as {min(drawn)}, are not left out: name its "
            "exclude.json under `exclude` of the mixture"
        )
    accepted = {"sha256": file_sha256(path), "verdict": str(report["verdict"])}
    if settings:
        accepted["settings"] = "; ".join(settings)
    if leaked:
        accepted["excluded"] = f"{len(leaked)} samples"
    return accepted


def _leaked_samples(report: Mapping[str, Any]) -> set[str]:
    """Return the samples that must be left out: those of open leaks, and those that the audit counts as left out."""
    leaked = set()
    for finding in report["findings"]:
        if finding["status"] == "dismissed" or (finding["status"] == "open" and finding["level"] != "leak"):
            continue
        if finding["kind"] in ABOUT_SOURCES:
            raise InputError(f"it says leak of a whole source: {finding['reason']}")
        leaked.add(str(finding["sample"]))
    return leaked
