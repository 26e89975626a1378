from __future__ import annotations

import io
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from cavendish.encoders.sample import InputError
from cavendish.mixing.jobs.encode import EncodeConfig, encode
from cavendish.mixing.loader import MixtureDataset
from cavendish.mixing.shards.array_store import SideShards, picture_key, text_key, write_side_shards
from cavendish.mixing.shards.dataset import read_row
from cavendish.mixing.storage.files import digest
from cavendish.trainer.generators.tiny import TinyConfig, TinyGenerator
from tests.mixing.shard_data import lock_text, write_raw

MODEL = digest("a model")
WORDS = [f"word {number}" for number in range(23)]


def entries(words: list[str] = WORDS) -> list[tuple[str, dict[str, np.ndarray]]]:
    return [
        (text_key(word), {"tokens": np.full((3, number), number, np.float16), "mask": np.arange(number) > 2})
        for number, word in enumerate(words)
    ]


def test_arrays_come_back_by_content_bit_for_bit(tmp_path: Path) -> None:
    write_side_shards(tmp_path / "side", MODEL, entries(), 23, per_shard=5)
    side = SideShards(tmp_path / "side", MODEL)
    assert len(side) == 23
    for key, arrays in entries():
        found = side.read(key, "a word")
        assert found.keys() == arrays.keys()
        for name, array in arrays.items():
            assert found[name].dtype == array.dtype
            np.testing.assert_array_equal(found[name], array)
    assert side.find(text_key("unknown")) is None
    with pytest.raises(InputError, match=r"nothing was computed for prompt 'unknown' .*: compute it first"):
        side.read(text_key("unknown"), "prompt 'unknown'")


def test_a_key_is_that_of_the_content_alone() -> None:
    picture = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    assert picture_key(picture) == picture_key(np.asfortranarray(picture))
    assert picture_key(picture) != picture_key(picture.reshape(2, 8, 3))
    assert picture_key(picture) != picture_key(picture[::-1])
    assert len({text_key("a"), text_key("b"), text_key("a", picture), text_key("a", picture[::-1])}) == 4


def test_arrays_of_another_model_are_refused(tmp_path: Path) -> None:
    write_side_shards(tmp_path / "side", MODEL, entries(), 23)
    with pytest.raises(InputError, match=f"computed by model {MODEL[:12]}, the model is now {digest('other')[:12]}"):
        SideShards(tmp_path / "side", digest("other"))
    with pytest.raises(InputError, match="holds shards of another plan"):
        write_side_shards(tmp_path / "side", digest("other"), entries(), 23)


def test_writing_goes_on_where_it_stopped_and_gives_the_same_bytes(tmp_path: Path) -> None:
    write_side_shards(tmp_path / "whole", MODEL, entries(), 23, per_shard=5)
    with pytest.raises(InputError, match="12 entries came, 23 were announced"):
        write_side_shards(tmp_path / "side", MODEL, entries()[:12], 23, per_shard=5)
    with pytest.raises(InputError, match="not every shard is committed"):
        SideShards(tmp_path / "side", MODEL)
    write_side_shards(tmp_path / "side", MODEL, entries(), 23, per_shard=5)
    for path in (tmp_path / "whole").iterdir():
        assert (tmp_path / "side" / path.name).read_bytes() == path.read_bytes()


def test_entries_that_come_twice_are_stored_once(tmp_path: Path) -> None:
    write_side_shards(tmp_path / "side", MODEL, [*entries(), *entries()], 46, per_shard=5)
    assert len(SideShards(tmp_path / "side", MODEL)) == 23


def test_a_flipped_bit_and_a_pickle_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="an array of object"):
        write_side_shards(tmp_path / "pickled", MODEL, [(text_key("a"), {"x": np.array([{}])})], 1)
    write_side_shards(tmp_path / "side", MODEL, entries(), 23)
    tar = tmp_path / "side/shard-000000.tar"
    data = bytearray(tar.read_bytes())
    key, at = text_key(WORDS[9]), 0
    at, size, _ = read_row(tar.with_suffix(".json")).samples[key]["tokens.npy"]
    data[at + size - 1] ^= 1
    tar.write_bytes(data)
    side = SideShards(tmp_path / "side", MODEL)
    with pytest.raises(InputError, match=r"tokens.npy is damaged"):
        side.find(key)


def test_an_object_array_in_a_shard_is_never_unpickled(tmp_path: Path) -> None:
    from cavendish.mixing.shards.array_store import _from_npy

    file = io.BytesIO()
    np.save(file, np.array([{"a": 1}]), allow_pickle=True)
    for data in (file.getvalue(), pickle.dumps([1]), b"", b"\x93NUMPY\x01\x00\xff\xff"):
        with pytest.raises(InputError, match="x: not an npy of numbers"):
            _from_npy(data, "x")


def test_latents_of_a_mixture_read_with_its_examples_are_those_the_generator_would_compute(tmp_path: Path) -> None:
    write_raw(tmp_path / "raw", shards=2, each=4)
    config = EncodeConfig.model_validate({"sources": ["raw"], "tasks": {"depth": 1, "generate": 1}, "size": 16})
    encode(config, tmp_path / "frozen", data=tmp_path)
    lock = lock_text(tmp_path, "ratios: {vision: 0.5, generation: rest}\nsources: {frozen: {path: frozen}}\n")
    items = MixtureDataset(lock, tmp_path, 16, count=40)
    generator = TinyGenerator(TinyConfig(width=16, text_width=16, word_buckets=16), seed=0)
    model = digest({"name": generator.spec.name, "size": 16})
    targets = {picture_key(item.example.target): item.example.target for item in items}
    latents = ((key, {"latent": generator.encode_image(target[None])[0].numpy()}) for key, target in targets.items())
    write_side_shards(tmp_path / "latents", model, latents, len(targets), per_shard=5)
    side = SideShards(tmp_path / "latents", model)
    assert len(side) == len(targets) > 8
    for item in items:
        target = item.example.target
        latent = torch.from_numpy(side.read(picture_key(target), item.example.key)["latent"])
        assert torch.equal(latent, generator.encode_image(target[None])[0])
