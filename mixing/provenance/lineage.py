"""What something was made from, link by link, whether each link has its digest, and what makes a record again."""

from __future__ import annotations

import json
import shlex
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import yaml

from cavendish.encoders.sample import InputError
from cavendish.mixing.shards.dataset import Plan, Row, committed_rows, dataset_path, load_dataset, parse_row, row_names
from cavendish.mixing.shards.reader import read_parts
from cavendish.mixing.shards.sample_format import Origin
from cavendish.mixing.storage.cache import open_file
from cavendish.mixing.storage.files import canonical_json, digest
from cavendish.mixing.storage.place import (
    Place,
    exists,
    file_sha256,
    is_file,
    is_url,
    join,
    make_folder,
    name_of,
    parent_of,
    read_all,
    write_atomic,
)

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
    earlier = dict(plan.earlier).get(recorded)
    if earlier is not None:
        return Link("plan", f"{text}; it made the first {earlier}, the directory has grown since", "ok")
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


def trace_record(path: Place, key: str, data: Place = Path()) -> Link:
    """Trace a record to everything it was made from.

    Args:
        path: a shard (.tar) or a directory of shards.
        key: of the record, or of a sample that was rejected.
        data: folder that the paths in plans are relative to.

    Raises:
        InputError: nothing with that key there, or a damaged row or record.
    """
    directory, _ = split_place(path)
    if not exists(dataset_path(directory)):
        raise InputError(f"{directory}: no shards here (a directory of shards has a dataset.json)")
    stored = key.replace(".", "_")
    rows: list[Row] = []
    for row in _rows_with(directory, (key, stored)):
        if stored in row.samples:
            return _trace(directory, row, stored, data)
        rows.append(row)
    rejections = [link for row in rows for link in _dead_letters(row, {key, stored})]
    if not rejections:
        raise InputError(
            f"{directory}: no record or dead letter with key {key}; `cavendish show {directory}` lists keys"
        )
    first = next(row for row in rows if _dead_letters(row, {key, stored}))
    links = (plan_link(directory, first.plan), *rejections, *_commands(directory, first, data))
    return Link("rejected", f"{key}: was tried, and is in no shard", "", links)


def _rows_with(directory: Place, words: Sequence[str]) -> Iterator[Row]:
    """Yield the rows in whose text one of the words is: of a hundred thousand rows few have to be parsed."""
    places = [join(directory, name) for name in row_names(directory)]
    for place, text in zip(places, read_all(places), strict=True):
        if any(word.encode() in text for word in words):
            yield parse_row(text, place)


def _trace(directory: Place, row: Row, key: str, data: Place) -> Link:
    tar = join(directory, row.shard)
    if not exists(tar):
        raise InputError(f"{tar}: its row is here, the tar is not")
    with open_file(tar) as file:
        parts = read_parts(file, row, key)
    example = "instruction.json" in parts
    meta = _json(parts["instruction.json" if example else "json"], f"{key}.json")
    links = [_shard_link(tar, row, key), plan_link(directory, row.plan), *_configuration(directory)]
    links += _example_links(directory, meta, data) if example else _sample_links(meta)
    links += [*_dead_letters(row, _names(key, meta)), *_commands(directory, row, data)]
    text = f"{meta.get('key', key)}: {meta.get('task')}, {str(meta.get('prompt'))[:100]!r}"
    if not example:
        text = f"{key}: source {meta.get('source')}, licence {meta.get('licence')}"
    return Link("example" if example else "sample", text, "ok", tuple(links))


def _json(data: bytes, name: str) -> dict[str, Any]:
    try:
        values = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{name}: not valid json: {error}") from None
    if not isinstance(values, dict):
        raise InputError(f"{name}: not a map")
    return values


def _configuration(directory: Place) -> list[Link]:
    try:
        verb, config = job_of(load_dataset(directory).plan)
    except InputError:
        return []
    return [Link("configuration", f"of {verb}: {canonical_json(config).decode()}")]


def _names(key: str, meta: Mapping[str, Any]) -> set[str]:
    """Name what dead letters about a record may be filed under: itself, its own name, its scene."""
    scene = meta.get("facts", {}).get("scene_key") if isinstance(meta.get("facts"), dict) else None
    return {key, str(meta.get("key", key)), str(scene)}


def _dead_letters(row: Row, names: Collection[str]) -> list[Link]:
    found = (rejection for rejection in row.rejected if rejection.key in names)
    return [Link("dead letter", f"{rejection.key} in {row.shard}: {rejection.reason}") for rejection in found]


def _commands(directory: Place, row: Row, data: Place) -> list[Link]:
    number = int(Path(row.shard).stem.rpartition("-")[2])
    return [Link("made again by", command) for command in rebuild_commands(directory, number, data)]


def _shard_link(tar: Place, row: Row, key: str) -> Link:
    parts = tuple(
        Link(name, f"{size:,} bytes at {offset:,}, crc32 {crc32:08x}", "ok")
        for name, (offset, size, crc32) in sorted(row.samples[key].items())
    )
    state: State = "ok" if file_sha256(tar) == row.sha256 else "changed"
    return Link("shard", f"{tar}, sha256 {row.sha256}, {row.bytes:,} bytes, {row.count} records", state, parts)


def _sample_links(meta: Mapping[str, Any]) -> list[Link]:
    """List what a sample says of its own making."""
    made = meta.get("provenance")
    made = made if isinstance(made, dict) else {}
    links = []
    if "seeds" in made:
        seeds = ", ".join(str(seed) for seed in made["seeds"])
        links.append(Link("seeds", f"{seeds} (of the job, shard, scene in it, attempt)"))
    if "recipe_sha256" in made:
        links.append(Link("recipe", f"sha256 {made['recipe_sha256']}"))
    if made.get("versions"):
        links.append(Link("tools", ", ".join(_version(*used) for used in sorted(made["versions"].items()))))
    for model in made.get("annotators", ()):
        text = f"{model.get('id')}, {model.get('task')}, licence {model.get('licence')}"
        links.append(Link("model", f"{text}, weights sha256 {model.get('weights_sha256')}"))
    for asset in made.get("assets", ()):
        text = f"{asset.get('name')} by {asset.get('author') or 'unknown'}, {asset.get('licence')}"
        links.append(Link("asset", f"{text}, sha256 {asset.get('sha256')}"))
    file = made.get("file")
    if isinstance(file, dict):
        links.append(Link("file", f"{file.get('name')}, sha256 {file.get('sha256')}{_known_origin(file)}"))
    if "converted_from" in made:
        links.append(Link("record", f"{made['converted_from']}{_known_origin(made)}"))
    edit = meta.get("edit")
    if isinstance(edit, dict):
        scene = meta.get("facts", {}).get("scene_key")
        text = f"{edit.get('kind')} of thing {edit.get('instance_id')}: {edit.get('instruction')!r}"
        links.append(Link("edit", f"{text}, a second rendering of the same scene{f' {scene}' if scene else ''}"))
    return links


def _known_origin(values: Mapping[str, Any]) -> str:
    """Return author and address of a file of others, where they are known."""
    return "".join(f", {name} {values[name]}" for name in ("author", "url") if values.get(name))


def _version(name: str, used: str) -> str:
    try:
        here = version(name)
    except PackageNotFoundError:
        return f"{name} {used} (not installed here)"
    return f"{name} {used}" if here == used else f"{name} {used} (here {here}: other bytes are possible)"


def _example_links(directory: Place, meta: Mapping[str, Any], data: Place) -> list[Link]:
    """Follow an example to the raw sample it was drawn from."""
    origin = Origin.of_spec(meta.get("spec"))
    key = origin.key
    if key is None:
        return [Link("raw sample", "the example does not say which", "missing")]
    missing = []
    for path, recorded in inputs_of(load_dataset(directory).plan):
        folder = join(data, path)
        if not exists(dataset_path(folder)):
            missing.append(Link("raw shards", f"{folder}, {recorded[:16]}: no shards here", "missing"))
        elif row := next((row for row in _rows_with(folder, (key,)) if key in row.samples), None):
            sample = _trace(folder, row, key, data)
            return [Link("raw sample", sample.text, sample.state, (_input_link(folder, recorded), *sample.links))]
    text = f"{key} of {origin.source}, licence {origin.licence}: not in the inputs that are here"
    return [Link("raw sample", text, "missing", tuple(missing))]


def _input_link(folder: Place, recorded: str) -> Link:
    """Compare the shards of a folder with the digest that a plan knows them by."""
    found = shards_digest(committed_rows(folder))
    text = f"{folder}, digest of its shards {recorded[:16]}"
    return Link("input", text, "ok") if found == recorded else Link("input", f"{text}, now {found[:16]}", "changed")


def job_of(plan: Plan) -> tuple[str, dict[str, Any]]:
    """Return the verb that runs a plan, and its configuration without what the job itself adds to it.

    Raises:
        InputError: no verb makes shards of this kind.
    """
    config = dict(plan.config)
    if plan.kind.startswith("render-"):
        if config.get("assets"):
            del config["assets"]["folders"]  # the plan knows the files by a hash, not by where they were
        return "render", config
    if plan.kind == "annotate" and isinstance(config.get("config"), dict):
        return "annotate", config["config"]
    if plan.kind in ("encode", "convert"):
        return plan.kind, {name: value for name, value in config.items() if name not in ("inputs", "excluded")}
    raise InputError(f"no verb makes shards of kind {plan.kind!r} from a configuration")


def write_config(directory: Place, path: Place) -> str:
    """Write the configuration that a directory of shards was made with as YAML; return the verb that takes it."""
    verb, config = job_of(load_dataset(directory).plan)
    text = f"# cavendish {verb}: the configuration of {name_of(directory)}, from its plan\n"
    make_folder(parent_of(path))
    write_atomic(path, (text + yaml.safe_dump(config, sort_keys=False, allow_unicode=True)).encode())
    return verb


def rebuild_commands(directory: Place, shard: int, data: Place) -> tuple[str, ...]:
    """Return the command lines that make shard number `shard` of a directory again, in a folder of their own.

    With the tool versions and inputs of the record the tar and its row have the same bytes.
    """
    plan = load_dataset(directory).plan
    try:
        verb, _ = job_of(plan)
    except InputError:
        return ()
    words = ["cavendish", verb, "rebuild.yaml", "--out", "rebuilt", "--split", f"{shard}/{plan.shards}"]
    if verb != "render":
        words += ["--data", str(data)]
    elif plan.config.get("assets"):
        words.append("assets.folders=[FOLDER]")  # the user's own files, wherever they are now
    grown = []
    if plan.earlier and is_url(directory):
        return ()  # its lists of inputs have to be copied first, by no command that is there everywhere
    if plan.earlier:  # which input is in which shard follows from the inputs of before, and is in these files
        parts = shlex.join(str(join(directory, name)) for name in ("dataset.json", "inputs"))
        grown = [f"mkdir -p rebuilt && cp -r {parts} rebuilt"]
    config = f"cavendish show {shlex.quote(str(directory))} --config rebuild.yaml"
    return config, *grown, f"{shlex.join(words)} --workers 1"
