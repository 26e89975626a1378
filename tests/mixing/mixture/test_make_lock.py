from __future__ import annotations

import json
from collections import Counter
from fractions import Fraction
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cavendish.encoders.sample import InputError
from cavendish.mixing.jobs.encode import EncodeConfig, encode
from cavendish.mixing.loader import MixtureStream
from cavendish.mixing.lock import Lock, diff_locks, pack_bits, read_lock, unpack_bits, verify_lock, write_lock
from cavendish.mixing.mixture.candidates import is_held_out
from cavendish.mixing.mixture.config import Mixture, load, ratio_bends
from cavendish.mixing.mixture.make_lock import lock_mixture
from cavendish.mixing.mixture.reader import held_out
from cavendish.mixing.mixture.resolve_ratios import Floor, raise_to_floors
from cavendish.mixing.shards.dataset import Plan, finish_dataset, start_dataset
from cavendish.mixing.shards.writer import ShardWriter
from tests.audit_report import write_report
from tests.conftest import tiny_sample
from tests.mixing.shard_data import MIXTURE, lock_text, write_raw

ROOT = Path(__file__).parents[3]


def read(tmp_path: Path, text: str, *overrides: str) -> Mixture:
    (tmp_path / "mixture.yaml").write_text(text)
    return load(tmp_path / "mixture.yaml", overrides)


def test_numbers_are_taken_as_written(tmp_path: Path) -> None:
    mixture = read(tmp_path, MIXTURE.replace("0.05", '"1/3"').replace("0.3", "0.1"))
    assert ratio_bends(mixture)[0] == {
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


def test_views_of_a_scene_are_held_out_together(tmp_path: Path) -> None:
    write_raw(tmp_path / "raw", each=20, facts={"scene_key": "kitchen"})
    for share, kept in ((0.5, {0, 60}), (0.999999, {60}), (0.000001, {0})):
        text = MIXTURE.replace("path: raw", f"path: raw\n    hold_out: {{share: {share}}}")
        try:
            found = lock_text(tmp_path, text).sources[0].left_out.get("held out", 0)
        except InputError:  # all of them: nothing to draw
            found = 60
        assert found in kept


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


def test_a_task_may_have_a_cap_of_its_own(tmp_path: Path) -> None:
    write_raw(tmp_path / "raw")
    text = MIXTURE.replace("depth: 2", "depth: {weight: 2, max_epochs: 2}") + "examples: 2400\n"
    with pytest.raises(InputError, match="would draw 60 of renders/depth, but 24 records at max_epochs 2 give 48"):
        lock_text(tmp_path, text)
    relaxed = lock_text(tmp_path, text.replace("max_epochs: 2", "max_epochs: 2.5"))
    assert relaxed.streams == lock_text(tmp_path).streams
    with pytest.raises(InputError, match="max_epochs needs `examples`"):
        lock_text(tmp_path, text.replace("examples: 2400", ""))


def shares_of(lock: Lock) -> dict[str, Fraction]:
    return {stream.name: Fraction(stream.share[0][1]) for stream in lock.streams}


def test_floors_raise_a_task_and_the_others_of_its_kind_make_room(tmp_path: Path) -> None:
    write_raw(tmp_path / "raw")
    shares = shares_of(lock_text(tmp_path, MIXTURE + "floors: {tasks: {referring: 0.02}}\n"))
    assert shares["renders/referring"] == Fraction(2, 100)
    assert shares["renders/depth"] == 2 * shares["renders/normals"] == Fraction(2, 100)
    assert shares["renders/generate"] == Fraction(65, 100)
    untouched = lock_text(tmp_path, MIXTURE + "floors: {tasks: {referring: 0.01}}\n")
    assert shares_of(untouched) == shares_of(lock_text(tmp_path))


def test_a_floor_of_a_source_is_over_all_its_tasks(tmp_path: Path) -> None:
    write_raw(tmp_path / "raw")
    write_raw(tmp_path / "few")
    text = (
        MIXTURE
        + """  few:
    path: few
    weight: 0.001
    tasks: {generate: 1, depth: 1}
floors: {sources: {few: 0.1}}
"""
    )
    lock = lock_text(tmp_path, text)
    shares = shares_of(lock)
    assert shares["few/generate"] + shares["few/depth"] >= Fraction(1, 10)
    assert sum(shares.values()) == 1
    assert sum(share for name, share in shares.items() if name.endswith("/generate")) == Fraction(65, 100)


def test_a_floor_in_draws_is_met_under_a_ramp(tmp_path: Path) -> None:
    write_raw(tmp_path / "raw")
    text = MIXTURE.replace("vision: 0.05", "vision: [[0, 0], [1000, 0.1]]") + "examples: 2000\n"
    lock = lock_text(tmp_path, text + "floors: {tasks: {referring: {draws: 100}}}\n")
    number = [stream.task for stream in lock.streams].index("referring")
    assert lock.schedule().quota(number, 2000) == 100
    assert lock.schedule().counts(2000)[number] in (99, 100, 101)


@pytest.mark.parametrize(
    ("floors", "message"),
    [
        ("tasks: {depth: 0.04, referring: 0.02}", r"need 0.06 of all .*vision has 0.05.*vision at 0.06.*depth 0.0333"),
        ("tasks: {semantic: 0.01}", "nothing is drawn of semantic; drawn are generate, edit, depth"),
        ("sources: {render: 0.01}", "nothing is drawn of render; drawn are renders"),
        ("tasks: {depth: {draws: 5}}", "a floor in draws needs `examples`"),
        ("tasks: {depth: {share: 0.1, draws: 5}}", "write a share, or"),
    ],
)
def test_impossible_floors_say_what_would_be_possible(tmp_path: Path, floors: str, message: str) -> None:
    write_raw(tmp_path / "raw")
    with pytest.raises(InputError, match=message):
        lock_text(tmp_path, MIXTURE + f"floors: {{{floors}}}\n")


def test_a_floor_where_a_ramp_begins_at_nothing_is_refused(tmp_path: Path) -> None:
    write_raw(tmp_path / "raw")
    text = MIXTURE.replace("vision: 0.05", "vision: [[0, 0], [1000, 0.1]]")
    with pytest.raises(InputError, match=r"depth has a floor of 0.01, but no share at step 0"):
        lock_text(tmp_path, text + "floors: {tasks: {depth: 0.01}}\n")


@settings(deadline=None)
@given(st.data())
def test_floors_hold_and_kinds_keep_their_ratios(data: st.DataObject) -> None:
    weights = data.draw(st.lists(st.integers(1, 1000), min_size=2, max_size=6))
    kinds = data.draw(st.lists(st.sampled_from("ab"), min_size=len(weights), max_size=len(weights)))
    shares = [{0: Fraction(weight, sum(weights))} for weight in weights]
    parts = data.draw(st.lists(st.fractions(0, 1), min_size=len(weights), max_size=len(weights)))
    floors = [Floor(str(k), (k,), share=part / len(weights)) for k, part in enumerate(parts)]
    of_kind = lambda values, kind: sum(v for v, other in zip(values, kinds) if other == kind)
    fits = all(of_kind([f.share for f in floors], kind) <= of_kind([s[0] for s in shares], kind) for kind in kinds)
    if not fits:
        with pytest.raises(InputError, match="Possible"):
            raise_to_floors(shares, kinds, floors, 1)
        return
    raised = [share[0] for share in raise_to_floors(shares, kinds, floors, 1)]
    assert all(share >= (floor.share or 0) for share, floor in zip(raised, floors))
    assert all(of_kind(raised, kind) == of_kind([s[0] for s in shares], kind) for kind in kinds)


NESTED = """
ratios: {vision: 0.01}
sources:
  tuned:
    path: tuned
    tasks: {depth: 1}
mixtures:
  base: {file: base.yaml, ratio: rest}
"""


def write_nested(tmp_path: Path, inner: str = MIXTURE) -> None:
    write_raw(tmp_path / "raw")
    write_raw(tmp_path / "tuned")
    (tmp_path / "base.yaml").write_text(inner)


def test_a_mixture_inside_keeps_its_shares_times_its_ratio(tmp_path: Path) -> None:
    write_nested(tmp_path)
    lock = lock_text(tmp_path, NESTED)
    inner = {f"base.{name}": share * Fraction(99, 100) for name, share in shares_of(lock_text(tmp_path)).items()}
    assert shares_of(lock_text(tmp_path, NESTED)) == {"tuned/depth": Fraction(1, 100), **inner}
    (tmp_path / "base.yaml").write_text(MIXTURE.replace("0.05", "0.06"))
    assert lock_text(tmp_path, NESTED).mixture_digest != lock.mixture_digest


def test_a_ramp_outside_or_inside_is_exact_and_both_at_once_are_refused(tmp_path: Path) -> None:
    write_nested(tmp_path)
    ramp = NESTED.replace("vision: 0.01", "vision: [[0, 0], [400, 0.1]]")
    lock = lock_text(tmp_path, ramp)
    edits = next(stream for stream in lock.streams if stream.task == "edit")
    assert edits.share == ((0, "3/10"), (400, "27/100"))
    (tmp_path / "base.yaml").write_text(MIXTURE.replace("vision: 0.05", "vision: [[100, 0], [500, 0.05]]"))
    assert lock_text(tmp_path, NESTED).schedule().size == 6
    with pytest.raises(InputError, match=r"from example 100 to 400 both the ratio of mixtures.base and ratios inside"):
        lock_text(tmp_path, ramp)


def test_the_limits_of_a_mixture_inside_hold(tmp_path: Path) -> None:
    write_nested(tmp_path, MIXTURE + "licences: [MIT]\n")
    with pytest.raises(InputError, match=r"source base.renders .*24 licence not allowed"):
        lock_text(tmp_path, NESTED)
    (tmp_path / "exclude.json").write_text(json.dumps({"keys": ["scene-0-3"]}))
    (tmp_path / "base.yaml").write_text(MIXTURE + "exclude: [exclude.json]\nnegatives: 0.5\n")
    lock = lock_text(tmp_path, NESTED)
    assert [source.left_out for source in lock.sources] == [{"excluded": 1}] * 2
    assert {source.name: source.negatives for source in lock.sources} == {"tuned": 0.1, "base.renders": 0.5}


def test_a_mixture_that_contains_itself_is_refused(tmp_path: Path) -> None:
    write_nested(tmp_path, NESTED.replace("base.yaml", "mixture.yaml"))
    with pytest.raises(InputError, match=r"contains itself: .*mixture.yaml -> .*base.yaml -> .*mixture.yaml"):
        lock_text(tmp_path, NESTED)


def test_the_same_records_for_one_task_by_two_ways_are_refused(tmp_path: Path) -> None:
    write_nested(tmp_path)
    with pytest.raises(InputError, match=r"tuned and base.renders both draw depth from the same 24 records of raw"):
        lock_text(tmp_path, NESTED.replace("path: tuned", "path: raw"))
    (tmp_path / "base.yaml").write_text(MIXTURE.replace("path: raw", "path: raw\n    hold_out: {shards: [2]}"))
    with pytest.raises(InputError, match="the same 16 records"):
        lock_text(tmp_path, NESTED.replace("path: tuned", "path: raw"))
    parted = NESTED.replace("path: tuned", "path: raw\n    hold_out: {shards: [0, 1]}")
    assert lock_text(tmp_path, parted).streams[0].pool == 8


@pytest.mark.parametrize("shards", ["[3]", "[0, 17]", "[-1]"])
def test_a_held_out_shard_that_is_not_there_is_named(tmp_path: Path, shards: str) -> None:
    write_raw(tmp_path / "raw")
    text = MIXTURE.replace("path: raw", f"path: raw\n    hold_out: {{shards: {shards}}}")
    with pytest.raises(InputError, match=r"sources.renders.hold_out.shards: no shard (3|17|-1) of 0 to 2"):
        lock_text(tmp_path, text)


@pytest.mark.parametrize("setting", ["negatives: 0.5", "colormaps: {turbo: 0.5}"])
def test_settings_of_prompts_that_are_frozen_are_refused(tmp_path: Path, setting: str) -> None:
    write_raw(tmp_path / "raw")
    config = EncodeConfig.model_validate({"sources": ["raw"], "tasks": {"depth": 1}, "size": 16})
    encode(config, tmp_path / "frozen", data=tmp_path)
    text = f"ratios: {{vision: 1}}\nsources: {{f: {{path: frozen, {setting}}}}}\n"
    with pytest.raises(
        InputError, match=f"sources.f.{setting.partition(':')[0]} has no effect: its prompts are frozen"
    ):
        lock_text(tmp_path, text)


def test_colour_maps_and_negatives_are_set_by_mixture_or_source(tmp_path: Path) -> None:
    write_raw(tmp_path / "raw")
    text = MIXTURE.replace("path: raw", "path: raw\n    negatives: 0") + "colormaps: {turbo: 0.25, grey: 0.5}\n"
    source = lock_text(tmp_path, text).sources[0]
    assert (source.negatives, source.colormaps) == (0, {"turbo": 0.25, "grey": 0.5})
    for change, message in (
        (("turbo", "jet"), "no colour map jet; there are plasma"),
        (("0.5", "0.9"), "add up to 1.15"),
    ):
        with pytest.raises(InputError, match=message):
            read(tmp_path, text.replace(*change))


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


def test_the_examples_are_read_and_the_nested_one_adds_up() -> None:
    for name in ("mixture", "mixture_base"):
        assert load(ROOT / f"examples/{name}.yaml").sources
    nested = load(ROOT / "examples/mixture_nested.yaml")
    assert nested.mixtures["base"].mixture == load(ROOT / "examples/mixture_base.yaml")
    assert ratio_bends(nested)[1]["base"] == {0: Fraction(99, 100)}


def test_every_comment_of_the_example_can_be_switched_on(tmp_path: Path) -> None:
    text = (ROOT / "examples/mixture.yaml").read_text()
    for line, key in (
        ("# licences:", "licences"),
        ("# examples:", "examples"),
        ("# colormaps:", "colormaps"),
        ("# floors:", "floors"),
        ("#   tasks: {ref", ""),
        ("#   sources: {bl", ""),
        ("    # hold_out:", "hold_out"),
        ("    # where:", "where"),
        ("    # max_epochs:", "max_epochs"),
        ("    # negatives:", "negatives"),
    ):
        assert line in text, key
        text = text.replace(line, line.replace("# ", "", 1) if "#   " not in line else line.replace("#", "", 1))
    mixture = read(tmp_path, text)
    assert mixture.floors.sources["blender"].draws == 5000
    assert mixture.sources["pyrender"].max_epochs == 50


def test_a_diff_names_what_changed(tmp_path: Path) -> None:
    write_raw(tmp_path / "raw")
    before = lock_text(tmp_path)
    (tmp_path / "exclude.json").write_text('{"keys": ["scene-0-0"]}')
    after = lock_text(tmp_path, MIXTURE.replace("vision: 0.05", "vision: 0.1") + "exclude: [exclude.json]\n")
    assert diff_locks(before, before) == []
    lines = diff_locks(before, after)
    assert "mixture.ratios.vision: 1/20 -> 1/10" in lines
    assert "source renders, left out.excluded: none -> 1" in lines
    assert "stream renders/depth: pool 24 -> 23" in lines
    assert "stream renders/depth: share 0.025 -> 0.05" in lines
    assert "shard raw/shard-000000.tar: other records may be drawn" in lines


def test_the_audit_is_in_the_lock(tmp_path: Path) -> None:
    write_raw(tmp_path / "raw")
    write_report(tmp_path / "report.json", tmp_path, ["raw"])
    lock = lock_text(tmp_path, MIXTURE + "audit: report.json\n")
    assert lock.audit is not None
    assert lock.audit["verdict"] == "clean"
    write_report(tmp_path / "report.json", tmp_path, ["raw"], more=1)
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


def test_a_source_at_a_url_is_locked_as_the_folder_is(tmp_path: Path) -> None:
    """The same shards behind a URL give the same lock, but for the path; what changes there is noticed."""
    write_raw(tmp_path / "raw/scenes")
    values = {"ratios": {"vision": 1}, "sources": {"scenes": {"path": "raw/scenes", "tasks": {"depth": 1}}}}
    near = lock_mixture(Mixture.model_validate(values), tmp_path)
    values["sources"]["scenes"]["path"] = f"file://{tmp_path}/raw/scenes"
    far = lock_mixture(Mixture.model_validate(values), tmp_path)
    assert far.sources[0].path == f"file://{tmp_path}/raw/scenes"
    assert far.sources[0].shards == near.sources[0].shards
    assert verify_lock(far, tmp_path, full=True) == []
    tar = tmp_path / "raw/scenes" / far.sources[0].shards[0].name
    tar.write_bytes(tar.read_bytes()[:-1])
    assert "locked with" in verify_lock(far, tmp_path)[0]
    tar.unlink()
    assert "not there" in verify_lock(far, tmp_path)[0]
    values["sources"]["scenes"]["path"] = "memory://nowhere/at/all"
    with pytest.raises(InputError, match=r"memory://nowhere/at/all.*not there.*scenes"):
        lock_mixture(Mixture.model_validate(values), tmp_path)


def test_renders_of_one_seed_and_other_assets_are_not_mixed_up(tmp_path: Path) -> None:
    """Their keys are equal; records are known by source and place, and what goes by the key alone is refused."""
    images: dict[str, set[bytes]] = {}
    for first, name in enumerate(("plain", "furnished")):
        plan = Plan("render-pyrender", 1, {"seed": 7, "assets": name})
        start_dataset(tmp_path / name, plan)
        samples = [tiny_sample(f"pyrender-7-{n:06d}", seed=100 * first + n, size=32) for n in range(4)]
        with ShardWriter(tmp_path / name, 0, plan.digest) as writer:
            for sample in samples:
                writer.add(sample)
        finish_dataset(tmp_path / name, plan)
        images[name] = {sample.image.tobytes() for sample in samples}
    text = "ratios: {generation: rest}\nsources:\n"
    text += "".join(f"  {name}: {{path: {name}, tasks: {{generate: 1}}}}\n" for name in images)
    lock = lock_text(tmp_path, text)
    drawn = [item.example.target.tobytes() for item in islice(MixtureStream(lock, tmp_path, 32, 0, 1), 16)]
    assert set(drawn) == images["plain"] | images["furnished"]
    assert max(Counter(drawn).values()) == 2

    (tmp_path / "exclude.json").write_text('{"keys": ["pyrender-7-000002"]}')
    refused = "exclude: key pyrender-7-000002 is one image in source plain and another in furnished"
    with pytest.raises(InputError, match=refused):
        lock_text(tmp_path, text + "exclude: [exclude.json]\n")
