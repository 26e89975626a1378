"""One commented YAML per job, read into a frozen pydantic model; unknown keys are errors."""

from __future__ import annotations

import copy
import difflib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from cavendish.encoders.sample import InputError, one_line
from cavendish.mixing.storage.place import url_within


class Config(BaseModel):
    """Base of every job's configuration: immutable, and a key it does not know is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @field_validator("*")
    @classmethod
    def _no_url_for_a_path(cls, value: Any) -> Any:
        for part in value if isinstance(value, tuple | list) else (value,):
            if isinstance(part, Path) and url_within(part) is not None:
                raise ValueError("a URL cannot stand here, only a path, relative to --data where the verb has it")
        return value


_WHOLE, _NUMBER, _YES = "should be a whole number", "should be a number", "should be true or false"
_LIST, _MAP = "should be a list, such as [a, b]", "should be a map of keys to values"
_KINDS = {  # of a wrong kind of value: pydantic's name, and the words of YAML
    **dict.fromkeys(("int_type", "int_parsing", "int_from_float"), _WHOLE),
    **dict.fromkeys(("float_type", "float_parsing"), _NUMBER),
    **dict.fromkeys(("bool_type", "bool_parsing"), _YES),
    **dict.fromkeys(("tuple_type", "list_type"), _LIST),
    **dict.fromkeys(("dict_type", "model_type", "model_attributes_type"), _MAP),
    "string_type": "should be text",
    "path_type": "should be a path",
}

ConfigType = TypeVar("ConfigType", bound=Config)
ConfigLike = str | os.PathLike[str] | Mapping[str, Any] | Config
"""The path of a YAML file, a mapping of its keys, or a finished configuration."""


def read_config(model: type[ConfigType], path: Path, overrides: Sequence[str] = ()) -> ConfigType:
    """Read a YAML file into `model`, with `key=value` overrides (`a.b=3` reaches into maps; values are YAML).

    Raises:
        InputError: the file is missing, not YAML, or a key or value is wrong; one line that names it.
    """
    return _validate(model, _read_yaml(path), overrides, str(path))


def as_config(model: type[ConfigType], config: ConfigLike, overrides: Sequence[str] = ()) -> ConfigType:
    """Return a configuration that is given as the path of a YAML file, as a mapping of its keys, or as a `model`.

    Raises:
        InputError: see `read_config`; or a configuration of another verb, or a finished one with overrides.
    """
    if isinstance(config, str | os.PathLike):
        return read_config(model, Path(config), overrides)
    if isinstance(config, Mapping):
        return _validate(model, copy.deepcopy(dict(config)), overrides, model.__name__)
    if not isinstance(config, model):
        raise InputError(f"a {type(config).__name__} is no {model.__name__}: give that, a mapping, or a YAML's path")
    if overrides:
        raise InputError(f"overrides change a file or a mapping; of a {model.__name__} make a copy with other values")
    return config


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(path.read_text())
    except FileNotFoundError:
        raise InputError(f"{path}: no such configuration file") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise InputError(f"{path}: not valid YAML{place}: {error.problem or error.context}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not valid YAML: {one_line(error, None)}") from None
    except RecursionError:
        raise InputError(f"{path}: not valid YAML: nested too deeply") from None
    if not isinstance(values, dict):
        found = "nothing" if values is None else f"a {type(values).__name__}"
        raise InputError(f"{path}: expected a YAML map of settings, found {found}")
    return values


def _validate(model: type[ConfigType], values: dict[str, Any], overrides: Sequence[str], name: str) -> ConfigType:
    for override in overrides:
        _apply_override(values, override)
    try:
        return model.model_validate(values)
    except ValidationError as error:
        problems = "; ".join(_problems(model, error.errors()))
        raise InputError(f"{name}: {problems}") from None


def _apply_override(values: dict[str, Any], override: str) -> None:
    name, equals, text = override.partition("=")
    if not equals or not name:
        raise InputError(f"override {override!r}: write it as key=value")
    *parents, last = name.split(".")
    target: Any = values
    for parent in parents:
        target = target.setdefault(parent, {})
        if not isinstance(target, dict):
            raise InputError(f"override {override!r}: {parent} is not a map")
    try:
        target[last] = yaml.safe_load(text)
    except yaml.YAMLError:
        raise InputError(f"override {override!r}: {text!r} is not valid YAML") from None


def _problems(model: type[BaseModel], errors: Sequence[Any]) -> list[str]:
    """Describe each wrong key or value once, in the words of the file."""
    unknown = [
        str(error["loc"][0]) for error in errors if error["type"] == "extra_forbidden" and len(error["loc"]) == 1
    ]
    some_missing = any(error["type"] == "missing" for error in errors)
    if len(unknown) > (1 if some_missing else 2):
        return [_wrong_verb(model, unknown)]
    chosen: dict[str, Any] = {}  # of a value that may be several things, one error
    for error in errors:
        before = chosen.setdefault(_where(error), error)
        if error["type"] == "value_error" and before["type"] != "value_error":
            chosen[_where(error)] = error  # the words of a model's own check are the clearest
    return [
        _problem(model, error, where)
        for error in errors
        if chosen[where := _where(error)] is error and not _follows_from_others(error, where, chosen)
    ]


def _wrong_verb(model: type[BaseModel], unknown: Sequence[str]) -> str:
    names = ", ".join(repr(name) for name in unknown[:5])
    more = f" and {len(unknown) - 5} more" if len(unknown) > 5 else ""
    return f"unknown keys {names}{more}: is it for another verb? The keys here are {', '.join(model.model_fields)}"


def _follows_from_others(error: Any, where: str, chosen: Mapping[str, Any]) -> bool:
    """Tell whether a list is too short only because its entries are wrong."""
    return error["type"] == "too_short" and any(other.startswith(f"{where}.") for other in chosen)


def _where(error: Any) -> str:
    # pydantic puts which alternative of a union it tried between the keys, as in `vision.tuple[int]` or `vision.int`
    tried = {"int", "float", "bool", "str"}
    return ".".join(str(part) for part in error["loc"] if part not in tried and not set("[(") & set(str(part)))


def _problem(model: type[BaseModel], error: Any, where: str) -> str:
    found = f"(found {error['input']!r})"
    if error["input"] is None and any(isinstance(part, str) and ":" in part for part in error["loc"]):
        return f"{where!r}: write a space after the colon"
    match error["type"]:
        case "extra_forbidden":
            return f"unknown key {where!r}{_known_keys(model, error['loc'])}"
        case "missing":
            return f"missing key {where!r}"
        case "value_error":  # raised by a model's own checks, in words of its own
            reason = str(error["ctx"]["error"])
            return f"{where}: {reason} {found}" if where and not isinstance(error["input"], dict) else reason
    if error["loc"][-1] == "[key]":
        return f"{where}: {error['msg'].replace('Input should be', 'should be')}"
    reason = _KINDS.get(error["type"]) or f"{error['msg'][0].lower()}{error['msg'][1:]}"
    return f"{where}: {reason} {found}"


def _known_keys(model: type[BaseModel], place: Sequence[str | int]) -> str:
    """Return the hint after an unknown key: the key that was likely meant, or those that are known there."""
    known = _keys_beside(model, place)
    if close := difflib.get_close_matches(str(place[-1]), known, 1):
        return f": did you mean {close[0]!r}?"
    return f"; known keys: {', '.join(known)}" if known else ""


def _keys_beside(model: type[BaseModel], place: Sequence[str | int]) -> list[str]:
    """Return the keys that are known where an unknown one stands; none where that is not a map of fixed keys."""
    for part in place[:-1]:
        field = model.model_fields.get(str(part))
        kinds = [] if field is None else [field.annotation, *get_args(field.annotation)]
        models = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)]
        if not models:
            return []
        model = models[0]
    return list(model.model_fields)
