"""Readers of label maps, texts and vectors for the audit, of predictions and people's judgements, of a run's tables."""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from cavendish.encoders.sample import InputError
from tests.fuzz.readers import Reader, fit_hashes, picture, png, put, unchanged


def _write_label_maps(folder: Path) -> None:
    ids = np.kron(np.arange(16, dtype=np.uint8).reshape(4, 4), np.ones((32, 32), np.uint8))
    put(folder, "labels/a.png", png(ids))
    put(folder, "labels/b.png", png(ids.astype(np.uint16) * 500 + np.arange(128, dtype=np.uint16)))
    put(folder, "labels/c.png", picture(side=64))
    np.save(folder / "labels/d.npy", np.linspace(1, 9, 64 * 64, dtype=np.float32).reshape(64, 64))


def _read_label_maps(folder: Path) -> None:
    from cavendish.mixing.audit.benchmarks.label_pack import read_label_files

    for kind in ("masks", "depth"):
        for suffix in (".png", ".npy"):
            try:
                _, unread = read_label_files(folder / "labels", kind, suffix)  # type: ignore[arg-type]
            except InputError as error:
                unread = [{"id": suffix, "reason": str(error)}]
            assert not any("\n" in one["reason"] for one in unread)


def _write_label_pack(folder: Path) -> None:
    from cavendish.mixing.audit.benchmarks.label_pack import build_label_pack, read_label_files

    _write_label_maps(folder)
    maps = [
        *read_label_files(folder / "labels", "masks", "a.png")[0],
        *read_label_files(folder / "labels", "depth", ".npy")[0],
    ]
    build_label_pack("b", maps, folder / "pack", "x" * 64)


def _read_label_pack(folder: Path) -> None:
    from cavendish.mixing.audit.benchmarks.label_pack import read_label_files, read_label_pack
    from cavendish.mixing.audit.signals.labels import compare_labels

    header = folder / "pack/header.json"
    with unchanged(header):
        fit_hashes(header, "arrays", **{path.stem: path for path in (folder / "pack").glob("*.npy")})
        pack = read_label_pack(folder / "pack")
    for kind, suffix in (("masks", "a.png"), ("depth", ".npy")):
        for _, one in read_label_files(folder / "labels", kind, suffix)[0]:  # type: ignore[arg-type]
            compare_labels(one, pack)


def _embedder() -> Any:
    from cavendish.mixing.audit.config import Embedder

    return Embedder(name="e", file="e.onnx", sha256="e" * 64)


def _write_vectors(folder: Path) -> None:
    from cavendish.mixing.audit.benchmarks.image_pack import build_pack
    from cavendish.mixing.audit.signals.embeddings import VECTORS_SCHEMA, vectors_folder

    put(folder, "bench/a.png", picture(3, 160))
    pack = build_pack("b", folder / "bench", folder / "pack")
    (folder / "made").symlink_to(vectors_folder(folder / "pack", _embedder()))
    vectors_folder(folder / "pack", _embedder()).mkdir()
    np.save(folder / "made/vectors.npy", np.full((1, 4), 0.5, np.float16))
    header = {"schema": VECTORS_SCHEMA, "model": "e" * 64, "pack": pack.digest, "vectors": ""}
    put(folder, "made/header.json", json.dumps(header))
    fit_hashes(folder / "made/header.json", vectors=folder / "made/vectors.npy")


def _read_vectors(folder: Path) -> None:
    from cavendish.mixing.audit.benchmarks.image_pack import read_pack
    from cavendish.mixing.audit.signals.embeddings import read_vectors, similar_images

    header = folder / "made/header.json"
    pack = read_pack(folder / "pack")
    with unchanged(header):
        fit_hashes(header, vectors=folder / "made/vectors.npy")
        vectors = read_vectors(pack, _embedder())
    similar_images(np.full(4, 0.5, np.float32), vectors, pack, _embedder(), ())


def _write_texts(folder: Path) -> None:
    put(folder, "a.json", json.dumps(["a red mug", "the blue chair on the left of the old table"]))
    put(folder, "b.txt", "a red mug\nthe blue chair\n")


def _read_texts(folder: Path) -> None:
    from cavendish.mixing.audit.signals.texts import build_word_index, find_texts, read_lines

    for name in ("a.json", "b.txt"):
        try:
            index = build_word_index({"b": read_lines(folder / name, "prompts")})
        except InputError as error:
            assert "\n" not in str(error)  # noqa: PT017
            continue
        find_texts(index, "the blue chair on the left of the old table")


def _write_predictions(folder: Path) -> None:
    from cavendish.encoders.codecs.depth import encode_depth
    from cavendish.encoders.tasks.registry import make_example
    from cavendish.mixing.images import encode_png
    from tests.conftest import tiny_sample
    from tests.mixing.shard_data import write_raw

    write_raw(folder / "raw", shards=1, each=1)
    for task in ("depth", "semantic", "instance"):
        example = make_example(tiny_sample(), task, np.random.default_rng(0))
        put(folder, f"{task}/specs.json", json.dumps({"*": example.spec}))
        put(
            folder,
            f"{task}/answer.png",
            encode_png(encode_depth(np.full((32, 32), 2.0)) if task == "depth" else example.target),
        )


def _read_predictions(folder: Path) -> None:
    from cavendish.mixing.images import decode_rgb
    from cavendish.trainer.evaluation.score import read_specs, score
    from cavendish.trainer.evaluation.sets import read_sample_questions

    for task in ("depth", "semantic", "instance"):
        try:
            benchmark = read_sample_questions(folder / "raw", task, 0).benchmark  # type: ignore[arg-type]
            answer = decode_rgb((folder / task / "answer.png").read_bytes(), "answer.png")
            score(benchmark, lambda item, answer=answer: answer, read_specs(folder / task))  # type: ignore[misc]
        except InputError as error:
            assert "\n" not in str(error)  # noqa: PT017


def _write_judgements(folder: Path) -> None:
    from cavendish.trainer.evaluation.report.comparison import ANSWERS_SCHEMA, write_comparison

    put(folder, "requests.jsonl", '{"file": "a.png", "prompt": "x", "image": null}\n{"file": "b.png", "prompt": "y"}\n')
    for place in ("a/a.png", "a/b.png", "b/a.png", "b/b.png"):
        put(folder, place, picture(side=24))
    write_comparison(folder / "requests.jsonl", folder / "a", folder / "b", folder / "out", "better?", 0)
    key = json.loads((folder / "out/key.json").read_bytes())
    answers = {pair["code"]: side for pair, side in zip(key["pairs"], ("left", "tie"))}
    put(folder, "saved.json", json.dumps({"schema": ANSWERS_SCHEMA, "page": key["page"], "answers": answers}))


def _read_judgements(folder: Path) -> None:
    from cavendish.trainer.evaluation.report.comparison import judge, write_comparison

    with TemporaryDirectory() as name:
        out = Path(name)
        put(out, "key.json", (folder / "out/key.json").read_bytes())
        reads = (
            lambda: write_comparison(folder / "requests.jsonl", folder / "a", folder / "b", out / "new", "better?", 0),
            lambda: judge(out, [folder / "saved.json"]),
        )
        for read in reads:
            try:
                read()
            except InputError as error:
                assert "\n" not in str(error)  # noqa: PT017


READERS: tuple[Reader, ...] = (
    Reader("label maps", _write_label_maps, ("labels/*",), _read_label_maps),
    Reader("label packs", _write_label_pack, ("pack/*",), _read_label_pack),
    Reader("vectors", _write_vectors, ("made/*",), _read_vectors),
    Reader("texts of benchmarks", _write_texts, ("*",), _read_texts),
    Reader("predictions", _write_predictions, ("*/specs.json", "*/answer.png"), _read_predictions),
    Reader("judgements", _write_judgements, ("*.json*", "a/*", "out/key.json"), _read_judgements),
)
