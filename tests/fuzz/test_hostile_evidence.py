"""Evidence made to hurt: label maps, generators and lineages that claim what is not so, or point outside."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from cavendish.encoders.sample import InputError
from cavendish.mixing.storage.files import canonical_json, digest
from cavendish.trainer.generators.folder import load_generator
from cavendish.trainer.generators.tiny import TinyConfig, TinyGenerator
from cavendish.trainer.training.lineage import trace_lineage, write_lineage
from tests.fuzz.readers import put
from tests.fuzz.test_hostile import bounded, png_claiming


def test_a_generator_that_claims_gigabytes_of_weights_is_refused(tmp_path: Path) -> None:
    TinyGenerator(TinyConfig(width=16), 0).save(tmp_path)
    text = (tmp_path / "generator.json").read_text()
    assert '"width":16' in text
    (tmp_path / "generator.json").write_text(text.replace('"width":16', '"width":4096'))
    with pytest.raises(InputError, match="less than or equal to 512"):
        load_generator(tmp_path)


def test_a_label_map_that_claims_gigabytes_takes_no_memory(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((64, 64), np.float32))
    data = (tmp_path / "a.npy").read_bytes().replace(b"(64, 64), }      ", b"(64000, 64000), }")
    put(tmp_path, "labels/a.npy", data)
    put(tmp_path, "labels/b.png", png_claiming(30_000, 30_000, 8, 0))
    told = bounded(
        "from cavendish.mixing.audit.benchmarks.label_pack import read_label_files\nlimit()\n"
        "for suffix in ('.npy', '.png'):\n"
        "    try:\n        read_label_files(folder / 'labels', 'masks', suffix)\n"
        "    except InputError as error:\n        print(error)\n",
        tmp_path,
        200,
    )
    assert told.count("no readable label map") == 2


@pytest.mark.parametrize("name", ["/dev/zero", "../../etc/passwd"])
def test_a_lineage_that_names_files_outside_of_its_folder_is_refused(tmp_path: Path, name: str) -> None:
    TinyGenerator(TinyConfig(width=16, text_width=16, word_buckets=16), 0).save(tmp_path / "generator")
    values = write_lineage(tmp_path / "generator", 3, {"seed": 1}, None, None)
    values = {**values, "weights": {name: "0" * 64}}
    values["digest"] = digest({key: value for key, value in values.items() if key != "digest"})
    put(tmp_path, "generator/lineage.json", canonical_json(values))
    with pytest.raises(InputError, match="weights outside of its folder"):
        trace_lineage(tmp_path / "generator")
    put(tmp_path, "generator/lineage.json", json.dumps({**values, "weights": {}, "identity": [1]}))
    with pytest.raises(InputError, match="of its making is damaged"):
        trace_lineage(tmp_path / "generator")
