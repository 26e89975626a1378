from __future__ import annotations

from pathlib import Path

import pytest

from cavendish.encoders.sample import InputError
from cavendish.mixing.jobs.inputs import read_inputs, write_inputs

SHARDS = [["a.png", "b.png"], ["c.png"]]


@pytest.mark.parametrize("damage", [b"", b'["a.png', b'["x.png","b.png"]'])
def test_damaged_inputs_of_a_shard_are_written_again(tmp_path: Path, damage: bytes) -> None:
    write_inputs(tmp_path, SHARDS)
    path = tmp_path / "inputs/inputs-000000.json"
    path.write_bytes(damage)
    untouched = (tmp_path / "inputs/inputs-000001.json").stat().st_mtime_ns
    write_inputs(tmp_path, SHARDS)
    assert [read_inputs(tmp_path, index) for index in range(2)] == SHARDS
    assert (tmp_path / "inputs/inputs-000001.json").stat().st_mtime_ns == untouched


def test_inputs_that_are_not_there_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"inputs-000003.json: no such file"):
        read_inputs(tmp_path, 3)
