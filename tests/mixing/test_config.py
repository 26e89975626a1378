from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest

from cavendish.encoders.sample import InputError
from cavendish.mixing.config import Config, read_config


class Inner(Config):
    width: int = 64


class Outer(Config):
    seed: int
    size: Inner = Inner()
    ratio: int | tuple[int, ...] | Literal["rest"] = 0


def write(folder: Path, text: str) -> Path:
    path = folder / "job.yaml"
    path.write_text(text)
    return path


def test_overrides_reach_into_maps(tmp_path: Path) -> None:
    path = write(tmp_path, "seed: 1\n")
    assert read_config(Outer, path, ["seed=5", "size.width=32"]) == Outer(seed=5, size=Inner(width=32))


@pytest.mark.parametrize(
    ("text", "overrides", "message"),
    [
        ("seed: 1\ncolour: 2\n", [], "unknown key 'colour'; known keys: seed, size, ratio"),
        ("seed: 1\nsede: 2\n", [], "unknown key 'sede': did you mean 'seed'"),
        ("seed: 1\nsize: {widht: 3}\n", [], "unknown key 'size.widht': did you mean 'width'"),
        ("seed: 1\nsize: {width:3}\n", [], "'size.width:3': write a space after the colon"),
        ("seed: 1\nratio: most\n", [], r"^[^;]*: ratio: [^;]*found 'most'\)$"),
        ("size: {width: 3}\n", [], "missing key 'seed'"),
        ("seed: one\n", [], "seed: .*found 'one'"),
        ("seed: 1\nsize: {height: 3}\n", [], "unknown key 'size.height'"),
        ("- 1\n", [], "expected a YAML map"),
        ("seed: [1\n", [], "not valid YAML at line 2, column 1"),
        ("seed: 1\n", ["seed"], "write it as key=value"),
        ("seed: 1\n", ["seed.a=3"], "seed is not a map"),
    ],
)
def test_every_mistake_is_one_line_that_names_it(tmp_path: Path, text: str, overrides: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        read_config(Outer, write(tmp_path, text), overrides)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such configuration file"):
        read_config(Outer, tmp_path / "absent.yaml")
