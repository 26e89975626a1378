"""One commented YAML per job, read into a frozen pydantic model; unknown keys are errors."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from encoders.sample import InputError


class Config(BaseModel):
    """Base of every job's configuration: immutable, and a key it does not know is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


ConfigType = TypeVar("ConfigType", bound=Config)


def read_config(model: type[ConfigType], path: Path, overrides: Sequence[str] = ()) -> ConfigType:
    """Read a YAML file into `model`, with `key=value` overrides (`a.b=3` reaches into maps; values are YAML).

    Raises:
        InputError: the file is missing, not YAML, or a key or value is wrong; one line that names it.
    """
    try:
        values = yaml.safe_load(path.read_text())
    except FileNotFoundError:
        raise InputError(f"{path}: no such configuration file") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise InputError(f"{path}: expected a YAML map of settings, found {type(values).__name__}")
    for override in overrides:
        _apply_override(values, override)
    try:
        return model.model_validate(values)
    except ValidationError as error:
        problems = "; ".join(_problem(model, item) for item in error.errors())
        raise InputError(f"{path}: {problems}") from None


def _apply_override(values: dict[str, Any], override: str) -> None:
    name, equals, text = override.partition("=")
    if not equals or not name:
        raise InputError(f"override {override!r}: write it as key=value")
    *parents, last = name.split(".")
    target = values
    for parent in parents:
        target = target.setdefault(parent, {})
        if not isinstance(target, dict):
            raise InputError(f"override {override!r}: {parent} is not a map")
    try:
        target[last] = yaml.safe_load(text)
    except yaml.YAMLError:
        raise InputError(f"override {override!r}: {text!r} is not valid YAML") from None


def _problem(model: type[BaseModel], item: Any) -> str:
    where = ".".join(str(part) for part in item["loc"])
    if item["type"] == "extra_forbidden":
        known = f"; known keys: {', '.join(model.model_fields)}" if len(item["loc"]) == 1 else ""
        return f"unknown key {where!r}{known}"
    if item["type"] == "missing":
        return f"missing key {where!r}"
    if item["type"] == "value_error":  # raised by a model's own checks, in words of its own
        told = str(item["ctx"]["error"])
        return f"{where}: {told} (found {item['input']!r})" if where and not isinstance(item["input"], dict) else told
    return f"{where}: {item['msg'][0].lower()}{item['msg'][1:]} (found {item['input']!r})"
