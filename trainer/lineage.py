"""What a generator was made of, by digest: written beside its weights, and followed back to mixture, shards and base.

`lineage.json` lies in the folder of every trained generator: hashes of its weights, what the run was, a summary of the
lock of its mixture, and the lineage of its base in turn.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from encoders.sample import InputError
from mixing.lock import Lock, read_lock
from mixing.places import Place
from mixing.storage import canonical_json, digest, file_sha256, read_json, write_atomic
from mixing.trace import Link, State, directory_link, file_link

FILE = "lineage.json"
SCHEMA = "cavendish-lineage/1"
_MAX_DEPTH = 32


def model_digest(folder: Path) -> str:
    """Name a generator: by the bytes of its files; a model in diffusers' layout, by configurations and file sizes.

    Raises:
        InputError: neither is there.
    """
    if (folder / "generator.json").exists():
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        return digest({path.relative_to(folder).as_posix(): file_sha256(path) for path in files})
    if not (folder / "model_index.json").exists():
        raise InputError(f"{folder}: no trained generator there; run its training first")
    from trainer.generators.diffusers_folder import read_origin

    return read_origin(folder).model_digest


def write_lineage(
    folder: Path, steps: int, identity: Mapping[str, Any], lock: Lock | None, base: Path | None
) -> dict[str, Any]:
    """Write `lineage.json` into the folder of a generator that was just trained; return what it says.

    Args:
        identity: what the run was: its settings, and digests of lock and base.
        base: folder it started from.
    """
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != FILE)
    values: dict[str, Any] = {
        "schema": SCHEMA,
        "steps": steps,
        "identity": dict(identity),
        "weights": {path.relative_to(folder).as_posix(): file_sha256(path) for path in files},
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


def _lineage_of(folder: Path) -> dict[str, Any] | None:
    return read_json(folder / FILE, "the lineage of a generator") if (folder / FILE).exists() else None


@dataclass(frozen=True)
class _Search:
    """Where the files of a trace are looked for."""

    data: Path
    lock: Path | None
    quick: bool


def trace_lineage(path: Path, data: Path = Path(), lock: Path | None = None, quick: bool = False) -> Link:
    """Trace a checkpoint, the folder of a generator or of a run, or a lock, to all that it was made from.

    Args:
        data: folder that the paths of configurations and locks are relative to.
        lock: the lock of the mixture, where it is not in its run's folder or where its configuration says.
        quick: do not hash the tars of shards.

    Raises:
        InputError: nothing there that has a lineage, or it is damaged.
    """
    search = _Search(data, lock, quick)
    if path.is_file() and path.suffix == ".json":
        found = read_lock(path)
        return _lock_link(lock_summary(found), f"{path}, {found.digest[:16]}", "ok", search, data)
    if path.suffix == ".pt" or (path / "facts.json").exists():
        return _checkpoint(path, search)
    if (path / "train.json").exists() and (path / "generator").is_dir():
        path = path / "generator"
    if (path / "generator.json").exists() or (path / "model_index.json").exists():
        return _generator("generator", path, None, search, 0)
    raise InputError(f"{path}: no checkpoint, generator, training run or lock there")


def _checkpoint(path: Path, search: _Search) -> Link:
    if path.is_dir():
        from trainer.sharded_checkpoint import read_facts

        facts = read_facts(path)
    else:
        from trainer.checkpoint import read_checkpoint

        state = read_checkpoint(path)
        facts = {"step": state.step, "identity": state.identity}
    links = _run_links({"identity": facts["identity"]}, path.parent, search, 0)
    return Link("checkpoint", f"{path}, step {facts['step']}", "", tuple(links))


def _generator(name: str, folder: Path, recorded: str | None, search: _Search, depth: int) -> Link:
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
        links += [file_link("weights", folder / file, sha256) for file, sha256 in facts["weights"].items()]
    elif (folder.parent / "train.json").exists():
        facts = read_json(folder.parent / "train.json", "the result of a training run")
    if facts is None:
        links.append(Link("training", "nothing here says how it was made: a model from elsewhere", "missing"))
    else:
        links += _run_links(facts, folder.parent, search, depth)
    return Link(name, said, state, tuple(links))


def _lineage_link(folder: Path, facts: Mapping[str, Any]) -> Link:
    if facts.get("schema") != SCHEMA:
        raise InputError(f"{folder / FILE}: schema {facts.get('schema')!r}, this version reads {SCHEMA!r}")
    values = {name: value for name, value in facts.items() if name != "digest"}
    written, found = str(facts.get("digest")), digest(values)
    said = f"{folder / FILE}, {written[:16]}, {facts.get('steps')} steps"
    return Link("lineage", said, "ok") if written == found else Link("lineage", f"{said}: edited since", "changed")


def _run_links(facts: Mapping[str, Any], run: Path, search: _Search, depth: int) -> list[Link]:
    """List what a run was made from: its settings, its mixture, its base."""
    identity = facts["identity"]
    hints = read_json(run / "config.json", "the settings of a run") if (run / "config.json").exists() else {}
    settings = {name: value for name, value in identity.items() if not name.endswith("_digest")}
    differing = sorted(name for name, value in settings.items() if hints and hints.get(name) != value)
    state: State = "changed" if differing else "ok" if hints else "missing"
    said = f"{run / 'config.json'}" + (f": {', '.join(differing)} differ" if differing else "")
    links = [Link("settings", said, state), _find_lock(facts, run, hints, search)]
    if identity.get("base_digest"):
        links.append(_base(facts, hints, search, depth))
    else:
        links.append(Link("base", f"none: a fresh generator, {identity.get('generator')}, seed {identity.get('seed')}"))
    return links


def _find_lock(facts: Mapping[str, Any], run: Path, hints: Mapping[str, Any], search: _Search) -> Link:
    """Compare the lock that the run was trained on with what is here."""
    wanted = str(facts["identity"].get("lock_digest"))
    shards: Place = hints.get("shards") or search.data
    places = [search.lock] if search.lock else [run / "mixture.lock.json"]
    places += [search.data / hints["lock"]] if hints.get("lock") and search.lock is None else []
    others = []
    for place in places:
        if not place.exists():
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
            links.append(file_link("exclusion list", search.data / path, sha256))
    for source in summary["sources"]:
        name = f"source {source['name']}"
        found = directory_link(name, source["path"], source["sha256"], shards, search.quick, source["plan"])
        licences = ", ".join(f"{count} {licence}" for licence, count in source["licences"].items())
        links.append(Link(found.name, f"{found.said}; {licences}", found.state, found.links))
    return Link("mixture lock", said, state, tuple(links))


def _audit_link(summary: Mapping[str, Any], search: _Search) -> Link:
    """Say what the audit found, and which sources of the mixture it covers."""
    audit = summary["audit"]
    if audit is None:
        return Link("audit", "the mixture names none", "missing")
    said = f"verdict {audit['verdict']}"
    if not audit.get("path"):
        return Link("audit", f"{said}, sha256 {audit['sha256'][:16]}", "missing")
    path = search.data / audit["path"]
    link = file_link("audit", path, audit["sha256"], said)
    if link.state != "ok":
        return link
    covered = {str(one.get("digest")) for one in read_json(path, "the report of an audit").get("shards", ())}
    left = [source["name"] for source in summary["sources"] if source["sha256"] not in covered]
    told = f"covers all but {', '.join(left)}" if left else f"covers all {len(summary['sources'])} sources"
    return Link("audit", f"{link.said}; {told}", "missing" if left else "ok")


def _base(facts: Mapping[str, Any], hints: Mapping[str, Any], search: _Search, depth: int) -> Link:
    wanted = str(facts["identity"]["base_digest"])
    folder = search.data / hints["base"] if hints.get("base") else None
    inner = _Search(search.data, None, search.quick)
    if folder is not None and folder.is_dir():
        return _generator("base", folder, wanted, inner, depth + 1)
    told = (facts.get("base") or {}).get("lineage")
    links = () if told is None or depth > _MAX_DEPTH else tuple(_run_links(told, Path("?"), inner, depth + 1))
    return Link("base", f"{wanted[:16]}: {folder or 'its folder is not known'}: not here", "missing", links)
