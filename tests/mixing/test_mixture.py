from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from encoders.sample import InputError
from mixing.lock import diff_locks, pack_bits, read_lock, unpack_bits, verify_lock, write_lock
from mixing.mixture import Mixture, kind_points, load, lock_mixture
from mixing.pool import is_held_out
from mixing.reader import held_out
from tests.mixing.shard_data import MIXTURE, lock_text, write_raw


def read(tmp_path: Path, text: str, *overrides: str) -> Mixture:
    (tmp_path / "mixture.yaml").write_text(text)
    return load(tmp_path / "mixture.yaml", overrides)


def test_numbers_are_taken_as_written(tmp_path: Path) -> None:
    mixture = read(tmp_path, MIXTURE.replace("0.05", '"1/3"').replace("0.3", "0.1"))
    assert kind_points(mixture) == {
        "generation": {0: Fraction(17, 30)},
        "editing": {0: Fraction(1, 10)},
        "vision": {0: Fraction(1, 3)},
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("editing: 0.3", "editing: 0.97"), "add up to 1.02 .*editing 0.95 would do"),
        (("generation: rest", "generation: 0.5"), "add up to 0.85 .*generation 0.65 would do.*rest"),
        (("editing: 0.3", "editing: rest"), "only one kind can be the rest"),
        (("vision: 0.05", "vision: [[0, 0], [10, 0.8]]"), "at step 10 add up to 1.1 "),
        (("vision: 0.05", "vision: [[10, 0], [10, 0.1]]"), "steps of vision must rise"),
        (("vision: 0.05", "vison: 0.05"), "vison"),
        (("path: raw", "path: raw\n    colour: red"), "unknown key 'sources.renders.colour'"),
        (("depth: 2", "dept: 2"), "dept"),
        (("depth: 2", "depth: 0"), "greater than 0"),
        (("path: raw", "path: raw\n    max_epochs: 2"), "max_epochs needs `examples`"),
    ],
)
def test_what_cannot_be_is_refused_with_what_could(tmp_path: Path, change: tuple[str, str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        read(tmp_path, MIXTURE.replace(*change))


def test_shares_are_exact_by_kind_and_task(tmp_path: Path) -> None:
    write_raw(tmp_path / "raw")
    lock = lock_text(tmp_path)
    shares = {stream.name: Fraction(stream.share[0][1]) for stream in lock.streams}
    assert shares == {
        "renders/generate": Fraction(65, 100),
        "renders/edit": Fraction(30, 100),
        "renders/depth": Fraction(5, 200),
        "renders/normals": Fraction(5, 400),
        "renders/referring": Fraction(5, 400),
    }
    assert all(stream.pool == 24 for stream in lock.streams)


def test_a_ramp_over_steps_is_in_examples(tmp_path: Path) -> None:
    write_raw(tmp_path / "raw")
    text = MIXTURE.replace("vision: 0.05", "vision: [[0, 0], [100, 0.04]]") + "examples_per_step: 16\n"
    lock = lock_text(tmp_path, text)
    counts = zip(lock.streams, lock.schedule().counts(1600))
    assert sum(count for stream, count in counts if stream.kind == "vision") in (31, 32, 33)
    generate = next(stream for stream in lock.streams if stream.task == "generate")
    assert generate.share == ((0, "7/10"), (1600, "33/50"))


def test_held_out_and_excluded_and_unlicensed_records_are_never_drawn(tmp_path: Path) -> None:
    samples = write_raw(tmp_path / "raw", each=20)
    (tmp_path / "exclude.json").write_text(json.dumps({"keys": ["scene-0-3", "elsewhere"]}))
    text = MIXTURE.replace("path: raw", "path: raw\n    hold_out: {share: 0.25, shards: [2]}")
    lock = lock_text(tmp_path, text + "exclude: [exclude.json]\n")
    kept = {sample.key for sample in held_out(lock, tmp_path)}
    expected = {s.key for s in samples if is_held_out(s.key, Fraction(1, 4)) or s.key.startswith("scene-2")}
    assert kept == expected - {"scene-0-3"}
    assert lock.sources[0].left_out == {"excluded": 1, "held out": len(kept)}
    assert all(stream.pool == 60 - 1 - len(kept) for stream in lock.streams)
    with pytest.raises(InputError, match=r"nothing to draw for task generate \(60 records; 60 licence not allowed\)"):
        lock_text(tmp_path, MIXTURE + "licences: [MIT]\n")


@settings(deadline=None)
@given(st.text("abc0123-", min_size=1, max_size=12), st.fractions(0, 1), st.fractions(0, 1))
def test_a_larger_hold_out_contains_a_smaller_one(key: str, one: Fraction, other: Fraction) -> None:
    small, large = sorted((one, other))
    assert is_held_out(key, large) or not is_held_out(key, small)


def test_filters_look_at_size_and_quality(tmp_path: Path) -> None:
    write_raw(tmp_path / "raw")
    write_raw(tmp_path / "good", quality={"score": 2.0})
    text = (
        MIXTURE
        + """  good:
    path: good
    tasks: {generate: 1}
    where: {min_quality: {score: 1.5}, min_side: 32}
"""
    )
    assert {s.name: s.left_out for s in lock_text(tmp_path, text).sources} == {"renders": {}, "good": {}}
    for change in ("min_quality: {score: 2.5}", "min_side: 33", "max_side: 31", "max_quality: {score: 1}"):
        with pytest.raises(InputError, match=r"source good .*24 filtered"):
            lock_text(tmp_path, text.replace("min_quality: {score: 1.5}, min_side: 32", change))


def test_a_cap_on_repetition_says_what_would_be_possible(tmp_path: Path) -> None:
    write_raw(tmp_path / "raw")
    text = MIXTURE.replace("path: raw", "path: raw\n    max_epochs: 50")
    with pytest.raises(InputError, match=r"would draw 1560 of renders/generate.* 24 records .* give 1200") as caught:
        lock_text(tmp_path, text + "examples: 2400\n")
    assert "generation at 0.5 instead of 0.65, or max_epochs 65, or examples 1846" in str(caught.value)
    lock_text(tmp_path, text + "examples: 1846\n")


def test_a_lock_knows_when_it_or_its_shards_changed(tmp_path: Path) -> None:
    write_raw(tmp_path / "raw")
    lock = lock_text(tmp_path)
    path = tmp_path / "lock.json"
    write_lock(path, lock)
    assert read_lock(path) == lock
    assert verify_lock(lock, tmp_path, full=True) == []
    path.write_text(path.read_text().replace('"pool":24', '"pool":23', 1))
    with pytest.raises(InputError, match="edited since"):
        read_lock(path)
    tar = tmp_path / "raw/shard-000001.tar"
    data = bytearray(tar.read_bytes())
    data[2000] ^= 1
    tar.write_bytes(data)
    assert verify_lock(lock, tmp_path) == []
    assert "sha256" in "".join(verify_lock(lock, tmp_path, full=True))
    tar.unlink()
    assert "not there" in "".join(verify_lock(lock, tmp_path))


def test_a_diff_names_what_changed(tmp_path: Path) -> None:
    write_raw(tmp_path / "raw")
    before = lock_text(tmp_path)
    (tmp_path / "exclude.json").write_text('{"keys": ["scene-0-0"]}')
    after = lock_text(tmp_path, MIXTURE.replace("vision: 0.05", "vision: 0.1") + "exclude: [exclude.json]\n")
    assert diff_locks(before, before) == []
    lines = diff_locks(before, after)
    assert "mixture.ratios.vision: 1/20 -> 1/10" in lines
    assert "stream renders/depth: pool 24 -> 23" in lines
    assert "stream renders/depth: share 0.025 -> 0.05" in lines
    assert "shard raw/shard-000000.tar: other records may be drawn" in lines


def test_the_audit_is_in_the_lock(tmp_path: Path) -> None:
    write_raw(tmp_path / "raw")
    (tmp_path / "report.json").write_text('{"verdict": "clean"}')
    lock = lock_text(tmp_path, MIXTURE + "audit: report.json\n")
    assert lock.audit is not None
    assert lock.audit["verdict"] == "clean"
    (tmp_path / "report.json").write_text('{"verdict": "clean", "more": 1}')
    assert lock_mixture(load(tmp_path / "mixture.yaml"), tmp_path).digest != lock.digest


@settings(deadline=None)
@given(st.lists(st.booleans(), max_size=300))
def test_bits_survive(flags: list[bool]) -> None:
    array = np.array(flags, bool)
    np.testing.assert_array_equal(unpack_bits(pack_bits(array), len(flags)), array)


def test_hostile_bits_are_refused() -> None:
    text = pack_bits(np.arange(100) % 3 == 0)
    for bad, count in ((text, 200), ("!!", 100), ("eJz7", 100)):
        with pytest.raises(InputError, match="bits"):
            unpack_bits(bad, count)
