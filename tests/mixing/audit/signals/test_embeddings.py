"""A user's ONNX model as further evidence: similar pictures go to review, and findings carry the similarity."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from cavendish.encoders.sample import InputError, UInt8Image
from cavendish.mixing.audit.config import Embedder
from cavendish.mixing.audit.job import AuditConfig, audit, index_benchmarks
from cavendish.mixing.audit.signals.embeddings import embed, open_model, vectors_folder
from tests.mixing.audit.onnx_model import write_model
from tests.mixing.audit.photographs import OTHERS, SKIMAGE, photograph, picture, poster, write_benchmark
from tests.shard_folder import write_shards

pytest.importorskip("onnxruntime")


def settings(sha256: str, **changes: object) -> AuditConfig:
    values = {
        "benchmarks": [{"name": "photos", "folder": "benchmark"}],
        "shards": ["shards"],
        "controls": {"copies": 8, "clean": 4},
        "embedders": [
            {
                "name": "cells",
                "file": "cells.onnx",
                "sha256": sha256,
                "similarity": 0.96,
                "mean": [0.5] * 3,
                "std": [0.5] * 3,
            }
        ],
    }
    return AuditConfig.model_validate({**values, **changes})


def redrawn(image: UInt8Image) -> UInt8Image:
    """Keep the mean colour of 8 x 8 cells, each filled with stripes of its own: no pixel test can align it."""
    cells = cv2.resize(image, (8, 8), interpolation=cv2.INTER_AREA).astype(float)
    v, u = np.mgrid[:48, :48] / 48
    picture = np.zeros((384, 384, 3))
    for row, column in np.ndindex(8, 8):
        angle = (row * 3 + column * 5) % 7
        stripes = 70 * np.sign(np.sin(2 * np.pi * (2 * u * np.cos(angle) + 2 * v * np.sin(angle)) + angle))
        stripes -= stripes.mean()
        picture[row * 48 : row * 48 + 48, column * 48 : column * 48 + 48] = cells[row, column] + stripes[..., None]
    return np.clip(picture, 0, 255).astype(np.uint8)


def test_a_vector_is_what_the_model_computes(tmp_path: Path) -> None:
    sha256 = write_model(tmp_path / "cells.onnx")
    (embedder,) = settings(sha256).embedders
    image = photograph(SKIMAGE, "chelsea.png")
    small = cv2.resize(image, (64, 64), interpolation=cv2.INTER_AREA)
    cells = (small / 255 - 0.5).reshape(8, 8, 8, 8, 3).mean(axis=(1, 3)).transpose(2, 0, 1).reshape(-1)
    vector = embed(open_model(embedder, tmp_path), image)
    np.testing.assert_allclose(vector, cells / np.linalg.norm(cells), atol=1e-5)


def test_what_only_looks_alike_is_for_review_and_copies_carry_their_similarity(tmp_path: Path) -> None:
    sha256 = write_model(tmp_path / "cells.onnx")
    write_benchmark(tmp_path / "benchmark")
    samples = [
        picture("alike", redrawn(photograph(SKIMAGE, "chelsea.png"))),
        picture("poster", np.ascontiguousarray(poster(photograph(SKIMAGE, "rocket.jpg"))[:, ::-1])),
        picture("other", photograph(*OTHERS[0])),
    ]
    write_shards(tmp_path / "shards", samples, 1)
    verdict = audit(settings(sha256), tmp_path / "out", data=tmp_path)
    found = {one["key"]: one for one in json.loads(verdict.report.read_text())["findings"]}
    assert set(found) == {"alike", "poster"}
    assert (found["alike"]["kind"], found["alike"]["level"], found["alike"]["image"]) == (
        "similar",
        "review",
        "chelsea.png",
    )
    assert found["poster"]["level"] == "leak"
    assert 0 < found["poster"]["similarity"]["cells"] <= 1
    again = audit(settings(sha256), tmp_path / "again", data=tmp_path)
    assert again.report.read_bytes() == verdict.report.read_bytes()


def test_vectors_go_with_a_pack_and_a_pack_without_them_says_so(tmp_path: Path) -> None:
    sha256 = write_model(tmp_path / "cells.onnx")
    write_benchmark(tmp_path / "benchmark")
    write_shards(tmp_path / "shards", [picture("alike", redrawn(photograph(SKIMAGE, "chelsea.png")))], 1)
    index_benchmarks(settings(sha256, pixels=False), tmp_path / "made", tmp_path)
    (embedder,) = settings(sha256).embedders
    assert (vectors_folder(tmp_path / "made/packs/photos", embedder) / "vectors.npy").exists()
    from_pack = settings(sha256, benchmarks=[{"name": "photos", "pack": "made/packs/photos"}])
    verdict = audit(from_pack, tmp_path / "out", data=tmp_path)
    assert verdict.review == 1
    other = from_pack.embedders[0].model_copy(update={"mean": (0.0, 0.0, 0.0)})
    verdict = audit(from_pack.model_copy(update={"embedders": (other,)}), tmp_path / "out2", data=tmp_path)
    assert any("vectors of photos by embedder cells" in line for line in verdict.incomplete)


def test_another_file_or_none_is_refused(tmp_path: Path) -> None:
    sha256 = write_model(tmp_path / "cells.onnx")

    def refuse(match: str, **changes: str) -> None:
        embedder = Embedder(**{"name": "cells", "file": "cells.onnx", "sha256": sha256, **changes})
        with pytest.raises(InputError, match=match):
            open_model(embedder, tmp_path)

    refuse("has sha256", sha256="0" * 64)
    refuse("No such file", file="absent.onnx")
    (tmp_path / "text.onnx").write_text("import os")
    refuse("not a usable ONNX model", file="text.onnx", sha256=hashlib.sha256(b"import os").hexdigest())
