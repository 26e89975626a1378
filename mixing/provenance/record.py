"""Where one record comes from: its shard, plan, seeds, tools, models, assets, and the command that makes it again."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import yaml

from cavendish.encoders.sample import InputError, Rejection
from cavendish.mixing.provenance.lineage import Link, State, inputs_of, plan_link, shards_digest, split_place
from cavendish.mixing.shards.dataset import Plan, Row, committed_rows, dataset_path, load_dataset, parse_row, row_names
from cavendish.mixing.shards.reader import read_parts
from cavendish.mixing.shards.sample_format import Origin
from cavendish.mixing.storage.cache import open_file
from cavendish.mixing.storage.files import canonical_json
from cavendish.mixing.storage.place import (
    Place,
    exists,
    file_sha256,
    join,
    make_folder,
    name_of,
    parent_of,
    read_all,
    write_atomic,
)


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
    letters: list[tuple[Row, Rejection]] = []
    for row in _rows_with(directory, (key, stored)):
        if stored in row.samples:
            return _trace(directory, row, stored, data)
        letters += [(row, one) for one in row.rejected if one.key in (key, stored)]
    if not letters:
        raise InputError(
            f"{directory}: no record or dead letter with key {key}; `cavendish show {directory}` lists keys"
        )
    links = (plan_link(directory, letters[0][0].plan), *(_dead_letter(row, one) for row, one in letters))
    commands = rebuild_commands(directory, _number(letters[0][0]), data)
    return Link("rejected", f"{key}: was tried, and is in no shard", "", (*links, *_commands(commands)))


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
    links += [_dead_letter(row, one) for one in row.rejected if one.key in _names(key, meta)]
    links += _commands(rebuild_commands(directory, _number(row), data))
    return Link("example" if example else "sample", _said(key, meta, example), "ok", tuple(links))


def _json(data: bytes, name: str) -> dict[str, Any]:
    try:
        values = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{name}: not valid json: {error}") from None
    if not isinstance(values, dict):
        raise InputError(f"{name}: not a map")
    return values


def _said(key: str, meta: Mapping[str, Any], example: bool) -> str:
    if example:
        return f"{meta.get('key', key)}: {meta.get('task')}, {str(meta.get('prompt'))[:100]!r}"
    return f"{key}: source {meta.get('source')}, licence {meta.get('licence')}"


def _number(row: Row) -> int:
    return int(Path(row.shard).stem.rpartition("-")[2])


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


def _dead_letter(row: Row, one: Rejection) -> Link:
    return Link("dead letter", f"{one.key} in {row.shard}: {one.reason}")


def _commands(commands: Sequence[str]) -> list[Link]:
    return [Link("made again by", command) for command in commands]


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
        said = f"{model.get('id')}, {model.get('task')}, licence {model.get('licence')}"
        links.append(Link("model", f"{said}, weights sha256 {model.get('weights_sha256')}"))
    for asset in made.get("assets", ()):
        said = f"{asset.get('name')} by {asset.get('author') or 'unknown'}, {asset.get('licence')}"
        links.append(Link("asset", f"{said}, sha256 {asset.get('sha256')}"))
    links += _file_links(made)
    edit = meta.get("edit")
    if isinstance(edit, dict):
        scene = meta.get("facts", {}).get("scene_key")
        said = f"{edit.get('kind')} of thing {edit.get('instance_id')}: {edit.get('instruction')!r}"
        links.append(Link("edit", f"{said}, a second rendering of the same scene{f' {scene}' if scene else ''}"))
    return links


def _file_links(made: Mapping[str, Any]) -> list[Link]:
    """Say which file of others a sample was: its name and hash, author and address where they are known."""
    links = []
    file = made.get("file")
    if isinstance(file, dict):
        known = [f"{name} {file[name]}" for name in ("author", "url") if file.get(name)]
        links.append(Link("file", ", ".join([f"{file.get('name')}, sha256 {file.get('sha256')}", *known])))
    if "converted_from" in made:
        known = [f"{name} {made[name]}" for name in ("author", "url") if made.get(name)]
        links.append(Link("record", ", ".join([str(made["converted_from"]), *known])))
    return links


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
    plan = load_dataset(directory).plan
    changed = []
    for path, recorded in inputs_of(plan):
        folder = join(data, path)
        if not exists(dataset_path(folder)):
            changed.append(Link("raw shards", f"{folder}, {recorded[:16]}: no shards here", "missing"))
            continue
        row = next((row for row in _rows_with(folder, (key,)) if key in row.samples), None)
        if row is None:
            continue
        found = _trace(folder, row, key, data)
        whole = _same_shards(folder, recorded)
        return [Link("raw sample", found.said, found.state, (whole, *found.links))]
    said = f"{key} of {origin.source}, licence {origin.licence}"
    return [Link("raw sample", f"{said}: not in the inputs that are here", "missing", tuple(changed))]


def _same_shards(folder: Place, recorded: str) -> Link:
    found = shards_digest(committed_rows(folder))
    said = f"{folder}, digest of its shards {recorded[:16]}"
    return Link("input", said, "ok") if found == recorded else Link("input", f"{said}, now {found[:16]}", "changed")


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
    return f"cavendish show {shlex.quote(str(directory))} --config rebuild.yaml", f"{shlex.join(words)} --workers 1"
