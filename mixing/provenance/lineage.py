"""A trace: what something was made from, link by link, and whether each link still has the digest it is known by."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from cavendish.encoders.sample import InputError
from cavendish.mixing.shards.dataset import Plan, Row, committed_rows, dataset_path, load_dataset
from cavendish.mixing.storage.files import digest
from cavendish.mixing.storage.place import Place, exists, file_sha256, is_file, join, name_of, parent_of

State = Literal["ok", "changed", "missing", ""]


@dataclass(frozen=True)
class Link:
    """One thing in a trace, and under `links` what it was made from.

    Args:
        name: what it is, such as "mixture lock".
        text: what is known of it, on one line.
        state: "ok", its bytes are here and have the recorded digest; "changed", they are here and have another;
            "missing", they are not here; "" where nothing was recorded that could be compared.
    """

    name: str
    text: str
    state: State = ""
    links: tuple[Link, ...] = ()


def every_link(link: Link) -> Iterator[Link]:
    """Yield a link and all below it."""
    yield link
    for part in link.links:
        yield from every_link(part)


def states(link: Link) -> Mapping[State, int]:
    """Count the links of a trace by state."""
    return Counter(part.state for part in every_link(link))


def split_place(path: Place) -> tuple[Place, str]:
    """Split the place of a shard into its directory and its name; a directory has the name ""."""
    return (parent_of(path), name_of(path)) if name_of(path).endswith(".tar") else (path, "")


def file_link(name: str, path: Place, sha256: str, note: str = "") -> Link:
    """Compare a file with its recorded sha256."""
    text = f"{path}, sha256 {sha256[:16]}{', ' if note else ''}{note}"
    if not is_file(path):  # a device would be read for ever
        return Link(name, f"{text}: no such file here", "missing")
    found = file_sha256(path)
    return Link(name, text, "ok") if found == sha256 else Link(name, f"{text}, found {found[:16]}", "changed")


def plan_link(directory: Place, recorded: str) -> Link:
    """Compare the plan in a directory with the digest that its rows, or a lock, know it by."""
    try:
        dataset = load_dataset(directory)
    except InputError as error:
        return Link("plan", f"{recorded[:16]}: {error}", "missing")
    plan = dataset.plan
    text = f"{plan.kind}, digest {recorded[:16]}, {plan.shards} shards"
    if plan.digest != dataset.digest:
        return Link("plan", f"{text}; dataset.json was edited, its digest is {plan.digest[:16]}", "changed")
    if plan.digest != recorded:
        return Link("plan", f"{text}; the directory now holds plan {plan.digest[:16]}", "changed")
    return Link("plan", f"{text}, of {dataset_path(directory)}", "ok")


def inputs_of(plan: Plan) -> tuple[tuple[str, str], ...]:
    """Name the directories of raw shards that instruction shards were made from: (path, digest of their shards)."""
    if plan.kind != "encode":
        return ()
    try:
        return tuple((str(entry["path"]), str(entry["sha256"])) for entry in plan.config["inputs"])
    except (TypeError, KeyError) as error:
        raise InputError(f"plan {plan.digest[:16]}: does not say its inputs: {error}") from None


def shards_digest(rows: list[Row]) -> str:
    """Return the digest that plans know the shards of a directory by."""
    return digest([row.sha256 for row in rows])


def directory_link(
    name: str, path: str, recorded: str, data: Place, quick: bool = False, plan_digest: str = ""
) -> Link:
    """Compare a directory of shards with the digest of all its shards, and follow it to what it was made from.

    Args:
        path: relative to `data`.
        recorded: digest of the sha256 of its shards, in order.
        quick: compare what the rows say, and do not read the tars.
        plan_digest: that its plan is known by; "": the one that its rows carry.
    """
    directory = join(data, path)
    text = f"{directory}, {recorded[:16]}"
    if not exists(dataset_path(directory)):
        return Link(name, f"{text}: no shards here", "missing")
    rows = committed_rows(directory)
    plan = load_dataset(directory).plan
    made_by = plan_digest or next((row.plan for row in rows), plan.digest)
    links = [plan_link(directory, made_by), *(() if quick else tars(directory, rows))]
    links += [directory_link("raw shards", *entry, data, quick) for entry in inputs_of(plan)]
    found = shards_digest(rows)
    if found != recorded:
        return Link(name, f"{text}: its rows now say {found[:16]}", "changed", tuple(links))
    return Link(name, f"{text}: {len(rows)} shards, {sum(row.count for row in rows)} records", "ok", tuple(links))


def tars(directory: Place, rows: list[Row]) -> list[Link]:
    """Hash the tars of a directory; one link for all that are as they were, and one for each that is not."""
    found = [file_link(row.shard, join(directory, row.shard), row.sha256) for row in rows]
    bad = [link for link in found if link.state != "ok"]
    return [Link("tars", f"{len(rows) - len(bad)} of {len(rows)} have their sha256", "" if bad else "ok"), *bad]
