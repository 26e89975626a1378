"""What a generator was made of, by digest: written beside its weights, and followed back to mixture, shards and base.

`lineage.json` lies in the folder of every trained generator: hashes of its weights, what the run was, a summary of the
lock of its mixture, and the lineage of its base in turn.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cavendish.encoders.sample import InputError
from cavendish.mixing.lock import Lock, read_lock
from cavendish.mixing.provenance.lineage import Link, State, directory_link, file_link
from cavendish.mixing.storage.files import canonical_json, digest
from cavendish.mixing.storage.place import (
    Place,
    exists,
    file_sha256,
    files_below,
    is_file,
    join,
    local_copy,
    name_of,
    parent_of,
    read_json,
    write_atomic,
)
from cavendish.trainer.generators.weights import model_digest

FILE = "lineage.json"
SCHEMA = "cavendish-lineage/1"
_MAX_DEPTH = 32


def write_lineage(
    folder: Path, steps: int, identity: Mapping[str, Any], lock: Lock | None, base: Path | None
) -> dict[str, Any]:
    """Write `lineage.json` into the folder of a generator that was just trained; return what it says.

    Args:
        identity: what the run was: its settings, and digests of lock and base.
        base: folder it started from.
    """
    files = [name for name in files_below(folder) if name_of(name) != FILE]
    values: dict[str, Any] = {
        "schema": SCHEMA,
        "steps": steps,
        "identity": dict(identity),
        "weights": {name: file_sha256(folder / name) for name in files},
        "lock": None if lock is None else lock_summary(lock),
        "base": None if base is None else {"digest": identity["base_digest"], "lineage": _lineage_of(base)},
    }
    values["digest"] = digest(values)
    write_atomic(folder / FILE, canonical_json(values))
    return values


def lock_summary(lock: Lock) -> dict[str, Any]:
    """Return what names the shards of a lock without listing them."""
    sources = [
        {
            "name": source.name,
            "path": source.path,
            "form": source.form,
            "plan": source.plan,
            "records": source.records,
            "licences": dict(source.licences),
            "shards": len(source.shards),
            "sha256": digest([shard.sha256 for shard in source.shards]),
        }
        for source in lock.sources
    ]
    return {
        "digest": lock.digest,
        "mixture_digest": lock.mixture_digest,
        "audit": None if lock.audit is None else {**lock.audit, "path": lock.mixture.get("audit")},
        "exclusions": dict(lock.exclusions),
        "sources": sources,
    }


def _lineage_of(folder: Place) -> dict[str, Any] | None:
    place = join(folder, FILE)
    return read_json(place, "the lineage of a generator") if exists(place) else None


@dataclass(frozen=True)
class _Search:
    """Where the files of a trace are looked for."""

    data: Place
    lock: Place | None
    quick: bool


def trace_lineage(path: Place, data: Place = Path(), lock: Place | None = None, quick: bool = False) -> Link:
    """Trace a checkpoint, the folder of a generator or of a run, or a lock, to all that it was made from.

    At URLs everything is hashed where it is; only the checkpoint of one process is fetched, for as long as it is read.

    Args:
        data: folder that the paths of configurations and locks are relative to.
        lock: the lock of the mixture, where it is not in its run's folder or where its configuration says.
        quick: do not hash the tars of shards.

    Raises:
        InputError: nothing there that has a lineage, or it is damaged.
    """
    try:
        return _trace(path, _Search(data, lock, quick))
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, OSError) as error:
        if isinstance(error, InputError) or (isinstance(error, OSError) and error.errno != errno.ENAMETOOLONG):
            raise
        told = " ".join(f"{type(error).__name__} {error}".split())[:200]
        raise InputError(f"{path}: what it or its base says of its making is damaged: {told}") from None


def _trace(path: Place, search: _Search) -> Link:
    if name_of(path).endswith(".json") and is_file(path):
        found = read_lock(path)
        return _lock_link(lock_summary(found), f"{path}, {found.digest[:16]}", "ok", search, search.data)
    if name_of(path).endswith(".pt") or exists(join(path, "facts.json")):
        return _checkpoint(path, search)
    folder = join(path, "generator") if exists(join(path, "train.json")) else path
    if _is_generator(folder):
        return _generator("generator", folder, None, search, 0)
    raise InputError(f"{path}: no checkpoint, generator, training run or lock there")


def _is_generator(folder: Place) -> bool:
    return any(exists(join(folder, name)) for name in ("generator.json", "model_index.json"))


def _checkpoint(path: Place, search: _Search) -> Link:
    if exists(join(path, "facts.json")):
        from cavendish.trainer.training.checkpoint import read_facts

        facts = read_facts(path)
    else:
        facts = _facts_of_file(path)
    links = _run_links({"identity": facts["identity"]}, parent_of(path), search, 0)
    return Link("checkpoint", f"{path}, step {facts['step']}", "", tuple(links))


def _facts_of_file(path: Place) -> dict[str, Any]:
    from cavendish.trainer.training.checkpoint import read_checkpoint

    with local_copy(path) as file:
        state = read_checkpoint(file)
    return {"step": state.step, "identity": state.identity}


def _generator(name: str, folder: Place, recorded: str | None, search: _Search, depth: int) -> Link:
    """Trace a generator that is here; `recorded` is the digest that what was made from it knows it by."""
    if depth > _MAX_DEPTH:
        raise InputError(f"{folder}: more than {_MAX_DEPTH} generators, each the base of the next")
    found = model_digest(folder)
    state: State = "" if recorded is None else "ok" if found == recorded else "changed"
    said = f"{folder}, {found[:16]}" + (f", recorded as {recorded[:16]}" if state == "changed" and recorded else "")
    facts = _lineage_of(folder)
    links = []
    if facts is not None:
        links.append(_lineage_link(folder, facts))
        if any(Path(file).is_absolute() or ".." in Path(file).parts for file in facts["weights"]):
            raise InputError(f"{join(folder, FILE)}: it names weights outside of its folder")
        links += [file_link("weights", join(folder, file), sha256) for file, sha256 in facts["weights"].items()]
    elif exists(told := join(parent_of(folder), "train.json")):
        facts = read_json(told, "the result of a training run")
    if facts is None:
        links.append(Link("training", "nothing here says how it was made: a model from elsewhere", "missing"))
    else:
        links += _run_links(facts, parent_of(folder), search, depth)
    return Link(name, said, state, tuple(links))


def _lineage_link(folder: Place, facts: Mapping[str, Any]) -> Link:
    if facts.get("schema") != SCHEMA:
        raise InputError(f"{join(folder, FILE)}: schema {facts.get('schema')!r}, this version reads {SCHEMA!r}")
    values = {name: value for name, value in facts.items() if name != "digest"}
    written, found = str(facts.get("digest")), digest(values)
    said = f"{join(folder, FILE)}, {written[:16]}, {facts.get('steps')} steps"
    return Link("lineage", said, "ok") if written == found else Link("lineage", f"{said}: edited since", "changed")


def _run_links(facts: Mapping[str, Any], run: Place, search: _Search, depth: int) -> list[Link]:
    """List what a run was made from: its settings, its mixture, its base."""
    identity = facts["identity"]
    config = join(run, "config.json")
    hints = read_json(config, "the settings of a run") if exists(config) else {}
    settings = {name: value for name, value in identity.items() if not name.endswith("_digest")}
    differing = sorted(name for name, value in settings.items() if hints and hints.get(name) != value)
    state: State = "changed" if differing else "ok" if hints else "missing"
    said = f"{config}" + (f": {', '.join(differing)} differ" if differing else "")
    links = [Link("settings", said, state), _find_lock(facts, run, hints, search)]
    if identity.get("base_digest"):
        links.append(_base(facts, hints, search, depth))
    else:
        links.append(Link("base", f"none: a fresh generator, {identity.get('generator')}, seed {identity.get('seed')}"))
    return links


def _find_lock(facts: Mapping[str, Any], run: Place, hints: Mapping[str, Any], search: _Search) -> Link:
    """Compare the lock that the run was trained on with what is here."""
    wanted = str(facts["identity"].get("lock_digest"))
    shards: Place = hints.get("shards") or search.data
    places = [search.lock] if search.lock else [join(run, "mixture.lock.json")]
    places += [join(search.data, hints["lock"])] if hints.get("lock") and search.lock is None else []
    others = []
    for place in places:
        if not exists(place):
            continue
        try:
            lock = read_lock(place)
        except InputError as error:
            others.append(str(error))
            continue
        if lock.digest == wanted:
            return _lock_link(lock_summary(lock), f"{place}, {wanted[:16]}", "ok", search, shards)
        others.append(f"{place} is {lock.digest[:16]}")
    state: State = "changed" if others else "missing"
    said = f"{wanted[:16]}: {'; '.join(others) or 'no such lock here; name it with --lock'}"
    summary = facts.get("lock")
    if summary is None or summary.get("digest") != wanted:
        return Link("mixture lock", said, state)
    return _lock_link(summary, said, state, search, shards)


def _lock_link(summary: Mapping[str, Any], said: str, state: State, search: _Search, shards: Place) -> Link:
    links = [_audit_link(summary, search)]
    for path, sha256 in summary["exclusions"].items():
        if path != "keys":
            links.append(file_link("exclusion list", join(search.data, path), sha256))
    for source in summary["sources"]:
        name = f"source {source['name']}"
        found = directory_link(name, source["path"], source["sha256"], shards, search.quick, source["plan"])
        licences = ", ".join(f"{count} {licence}" for licence, count in source["licences"].items())
        links.append(Link(found.name, f"{found.text}; {licences}", found.state, found.links))
    return Link("mixture lock", said, state, tuple(links))


def _audit_link(summary: Mapping[str, Any], search: _Search) -> Link:
    """Say what the audit found, and which sources of the mixture it covers."""
    audit = summary["audit"]
    if audit is None:
        return Link("audit", "the mixture names none", "missing")
    said = f"verdict {audit['verdict']}"
    if not audit.get("path"):
        return Link("audit", f"{said}, sha256 {audit['sha256'][:16]}", "missing")
    path = join(search.data, audit["path"])
    link = file_link("audit", path, audit["sha256"], said)
    if link.state != "ok":
        return link
    covered = {str(one.get("digest")) for one in read_json(path, "the report of an audit").get("shards", ())}
    left = [source["name"] for source in summary["sources"] if source["sha256"] not in covered]
    told = f"covers all but {', '.join(left)}" if left else f"covers all {len(summary['sources'])} sources"
    return Link("audit", f"{link.text}; {told}", "missing" if left else "ok")


def _base(facts: Mapping[str, Any], hints: Mapping[str, Any], search: _Search, depth: int) -> Link:
    wanted = str(facts["identity"]["base_digest"])
    folder = join(search.data, hints["base"]) if hints.get("base") else None
    inner = _Search(search.data, None, search.quick)
    if folder is not None and _is_generator(folder):
        return _generator("base", folder, wanted, inner, depth + 1)
    told = (facts.get("base") or {}).get("lineage")
    links = () if told is None or depth > _MAX_DEPTH else tuple(_run_links(told, Path("?"), inner, depth + 1))
    return Link("base", f"{wanted[:16]}: {folder or 'its folder is not known'}: not here", "missing", links)
