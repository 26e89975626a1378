"""How one shard is made again, byte for byte: the configuration its plan holds, and the command line."""

from __future__ import annotations

import shlex
from typing import Any

import yaml

from cavendish.encoders.sample import InputError
from cavendish.mixing.provenance.trace import read_plan
from cavendish.mixing.shards.writer import Plan
from cavendish.mixing.storage.files import write_atomic
from cavendish.mixing.storage.place import Place, make_folder, name_of, parent_of


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
    verb, config = job_of(read_plan(directory)[0])
    text = f"# cavendish {verb}: the configuration of {name_of(directory)}, from its plan\n"
    make_folder(parent_of(path))
    write_atomic(path, (text + yaml.safe_dump(config, sort_keys=False, allow_unicode=True)).encode())
    return verb


def rebuild_commands(directory: Place, shard: int, data: Place) -> tuple[str, ...]:
    """Return the command lines that make shard number `shard` of a directory again, in a folder of their own.

    With the tool versions and inputs of the record the tar and its row have the same bytes.
    """
    plan, _ = read_plan(directory)
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
