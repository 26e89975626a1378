"""Writes docs/verbs/: one page for each verb, from its help, its options and the keys of its configuration.

python docs/make_reference.py [FOLDER]
"""

from __future__ import annotations

import importlib
import json
import logging
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import typer

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

CONFIGURATIONS = {  # of a verb: its class, examples that explain keys, the page about the subject
    "render": ("cavendish.render.job:RenderConfig", ("render_blender", "render_pyrender"), "rendering"),
    "annotate": ("cavendish.annotate.config:AnnotateConfig", ("annotate",), "annotation"),
    "download": ("cavendish.annotate.download.job:DownloadConfig", ("download",), "downloading"),
    "encode": ("cavendish.mixing.jobs.encode:EncodeConfig", ("encode",), "instructions"),
    "convert": ("cavendish.mixing.jobs.convert:ConvertConfig", ("convert",), "shards"),
    "mix": ("cavendish.mixing.mixture.config:Mixture", ("mixture",), "mixing"),
    "train": ("cavendish.trainer.training.config:TrainConfig", ("train_base", "train_tune"), "training"),
    "evaluate": ("cavendish.trainer.evaluation.generator:EvaluateConfig", ("evaluate",), "evaluation"),
    "audit": ("cavendish.mixing.audit.job:AuditConfig", ("audit",), "audit"),
}
SUBJECTS = {
    "predict": "training",
    "precompute": "training",
    "compare": "evaluation",
    "show": "provenance",
    "card": "provenance",
    "plan": "scaling",
    "demo": "tutorial",
    "examples": "tutorial",
}


def pages() -> dict[str, str]:
    """Return the pages: name of the verb -> text."""
    from cavendish.cli.main import app

    group: Any = typer.main.get_command(app)
    return {name: page(name, command) for name, command in group.commands.items()}


def page(name: str, command: Any) -> str:
    """Return the page of one verb."""
    parts = [f"# cavendish {name}\n", f"{_plain(command.help)}\n"]
    subject = CONFIGURATIONS[name][2] if name in CONFIGURATIONS else SUBJECTS.get(name)
    if subject is not None:
        parts.append(f"The subject: [{subject}](../{subject}.md).\n")
    for title, verb in _spoken(f"cavendish {name}", command):
        if title != f"cavendish {name}":
            parts.append(f"## {title}\n\n{_plain(verb.help)}\n")
        parts.append(f"    {_usage(title, verb)}\n")
        parts.append(_table(("", "default", ""), [_option(parameter) for parameter in verb.params]))
    if name in CONFIGURATIONS:
        where, examples, _ = CONFIGURATIONS[name]
        module, _, kind = where.partition(":")
        schema = getattr(importlib.import_module(module), kind).model_json_schema(mode="validation")
        told = _comments(examples)
        files = " and ".join(f"`examples/{example}.yaml`" for example in examples)
        parts.append(f"## The configuration\n\nIn {files}; every key may be changed on the line as `key=value`.\n")
        named = schema.get("$defs", {})
        top = named[schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema
        rows = [
            (f"`{key}`", words, _default(default), text or told.get(key, ""))
            for key, words, default, text in _keys(top, named, "", (top,))
        ]
        parts.append(_table(("key", "value", "default", ""), rows))
    return "\n".join(parts)


def _spoken(title: str, command: Any) -> Iterator[tuple[str, Any]]:
    if not hasattr(command, "commands"):
        yield title, command
        return
    for name, verb in command.commands.items():
        yield from _spoken(f"{title} {name}", verb)


def _usage(title: str, verb: Any) -> str:
    words = [title]
    for parameter in verb.params:
        if parameter.param_type_name == "argument":
            many = "..." if parameter.nargs == -1 else ""
            words.append(f"{_name(parameter)}{many}" if parameter.required else f"[{_name(parameter)}{many}]")
        elif parameter.required:
            words.append(f"{parameter.opts[0]} {parameter.name.upper()}")
    return " ".join([*words, "[OPTIONS]"])


def _name(parameter: Any) -> str:
    if parameter.param_type_name == "option":
        return str(parameter.opts[0])
    return str(parameter.metavar or parameter.name.upper()).strip("[].")


def _option(parameter: Any) -> tuple[str, str, str]:
    name = _name(parameter)
    default = "" if parameter.required or parameter.default in (None, False, "") else f"`{parameter.default}`"
    if name == "--workers" and parameter.default != 1:
        default = "the cores"  # of this machine, whichever it is
    return f"`{name}`", default, _plain(parameter.help or "")


Schema = Mapping[str, Any]


def _keys(
    schema: Schema, named: Schema, before: str, around: tuple[Schema, ...]
) -> Iterator[tuple[str, str, Any, str]]:
    for name, field in schema.get("properties", {}).items():
        required = name in schema.get("required", ())
        default = "required" if required else field.get("default")
        yield f"{before}{name}", _words(field, named), default, field.get("description", "")
        for inner, suffix in _inside(field, named):
            if inner not in around:  # mixtures inside a mixture have its keys
                yield from _keys(inner, named, f"{before}{name}.{suffix}", (*around, inner))


def _inside(field: Schema, named: Schema) -> Iterator[tuple[Schema, str]]:
    """Find the maps of fixed keys that a value holds: itself, its items, its values."""
    if "$ref" in field:
        found = named[field["$ref"].rpartition("/")[2]]
        if "properties" in found:
            yield found, ""
        return
    for choice in (*field.get("anyOf", ()), *field.get("allOf", ()), *field.get("oneOf", ())):
        yield from _inside(choice, named)
    for holder, suffix in ((field.get("items"), "0."), (_values(field), "NAME.")):
        if isinstance(holder, dict):
            for inner, rest in _inside(holder, named):
                yield inner, suffix + rest


def _values(field: Schema) -> Any:
    """Return what the values of a map are, or nothing."""
    patterns = field.get("patternProperties") or {"": field.get("additionalProperties")}
    return next(iter(patterns.values()))


def _words(field: Schema, named: Schema) -> str:
    if "$ref" in field:
        return _words(named[field["$ref"].rpartition("/")[2]], named)
    choices = [*field.get("anyOf", ()), *field.get("oneOf", ()), *field.get("allOf", ())]
    if choices:
        words = (_words(choice, named) for choice in choices if choice.get("type") != "null")
        return " or ".join(dict.fromkeys(words))
    if "const" in field:
        return f"`{field['const']}`"
    if "enum" in field:
        return ", ".join(f"`{value}`" for value in field["enum"])
    kind = field.get("type", "value")
    if kind == "array":
        items = field.get("items") or (field.get("prefixItems") or [{}])[0]
        return f"list of {_words(items, named)}"
    if kind == "object" and "properties" not in field:
        inner = _values(field)
        return f"map to {_words(inner, named)}" if isinstance(inner, dict) else "map"
    limits = [
        f"{sign} {field[limit]:g}"
        for limit, sign in (("minimum", ">="), ("exclusiveMinimum", ">"), ("maximum", "<="), ("exclusiveMaximum", "<"))
        if limit in field
    ]
    plain = {"object": "map", "boolean": "true or false", "string": "path" if field.get("format") == "path" else "text"}
    return " ".join([plain.get(kind, kind), ", ".join(limits)]).strip()


def _default(value: Any) -> str:
    if value == "required":
        return "required"
    if value is None or (isinstance(value, dict) and len(json.dumps(value)) > 120):
        return ""
    return f"`{json.dumps(value, ensure_ascii=False)}`"


def _comments(examples: tuple[str, ...]) -> dict[str, str]:
    """Read what the examples say beside their keys: `a.b` -> comment."""
    told: dict[str, str] = {}
    for example in examples:
        place: list[tuple[int, str]] = []
        for line in (ROOT / "examples" / f"{example}.yaml").read_text().splitlines():
            found = re.match(r"^(\s*(?:- )?)([a-z_0-9]+):(?:\s[^#]*)?(?:#\s*(.*))?$", line)
            if found is None:
                continue
            indent = len(found[1])
            place = [*(entry for entry in place if entry[0] < indent), (indent, found[2])]
            if found[3]:
                told.setdefault(".".join(name for _, name in place), found[3])
    return told


def _plain(text: str) -> str:
    return " ".join((text or "").split())


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for row in rows:
        lines.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    logging.basicConfig(level=logging.ERROR)
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "docs" / "verbs")
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in pages().items():
        (folder / f"{name}.md").write_text(text)
    print(folder)
