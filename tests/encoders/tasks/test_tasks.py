"""Examples: the target decodes to the truth by the spec alone, the legend reads back from the prompt alone."""

from __future__ import annotations

import dataclasses
import itertools
import json
import re

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import pdist

from cavendish.encoders.codecs.colormaps import COLORMAPS
from cavendish.encoders.codecs.depth import DecodedDepth
from cavendish.encoders.codecs.instances import DecodedInstances, interior
from cavendish.encoders.codecs.palettes import COLOR_NAMES
from cavendish.encoders.expressions.programs import scene_table
from cavendish.encoders.legends.parser import normal_name, parse_legend
from cavendish.encoders.sample import Example, InputError, Instance, Sample
from cavendish.encoders.tasks import depth, edit, generate, instance, normals, referring, semantic
from cavendish.encoders.tasks.classes import SALIENT_EXPRESSIONS, SALIENT_WORDS, VOCABULARY, absent_categories
from cavendish.encoders.tasks.registry import TASK_NAMES, decode_example, make_example, tasks_of
from cavendish.encoders.tasks.segmentation import Segmentation
from cavendish.encoders.tasks.task import NEGATIVE_PROBABILITY
from tests.conftest import tiny_sample

SEED = st.integers(0, 2**32 - 1)
CATEGORIES = ("chair", "table", "lamp", "vase", "traffic light", "wooden box", "orange", "person", "odd: {name}, 7")


def busy_sample(seed: int) -> Sample:
    """Up to eight boxes that hide one another, some of one class, on a far wall."""
    rng = np.random.default_rng(seed)
    ids = np.zeros((64, 64), np.uint16)
    depth_m = np.full((64, 64), 9.0, np.float32)
    words: dict[int, tuple[str, dict[str, str]]] = {}
    for i in range(1, int(rng.integers(2, 9))):
        x, y = rng.integers(0, 52, 2)
        width, height = rng.integers(8, 20, 2)
        ids[y : y + height, x : x + width] = i
        depth_m[y : y + height, x : x + width] = rng.uniform(1, 8)
        words[i] = str(rng.choice(CATEGORIES)), {"color": str(rng.choice(["red", "blue", "green"]))}
    instances = []
    for i, (category, attributes) in words.items():
        rows, columns = np.nonzero(ids == i)
        if len(rows):
            box = (int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1)
            instances.append(Instance(i, category, len(rows), box, attributes, 1.0))
    changes = {"depth_m": depth_m, "normals": None, "instance_ids": ids, "instances": tuple(instances)}
    return dataclasses.replace(tiny_sample(), image=rng.integers(0, 256, (64, 64, 3), dtype=np.uint8), **changes)


def photo(category: str = "salient object") -> Sample:
    """A web photo: the mask of its main subject is all that is known."""
    sample = tiny_sample()
    subject = Instance(1, category, 80, (2, 16, 12, 24))
    ids = np.where(sample.instance_ids == 1, 1, 0).astype(np.uint16)
    known = {"instance_ids": ids, "instances": (subject,), "exhaustive": False}
    return Sample("photo", sample.image, "photos", "CC0-1.0", **known)


def wordings_of(line: str) -> list[str]:
    """A template with every combination of its choices."""
    parts = re.split(r"\[(.*?)\]", line)
    return ["".join(words) for words in itertools.product(*(part.split("|") for part in parts))]


def drawn(sample: Sample, task: str, seed: int, **options: float) -> Example:
    return make_example(sample, task, np.random.default_rng([seed, 7]), **options)


def stated(prompt: str) -> dict[str, tuple[int, int, int]]:
    return {"background": (0, 0, 0), **parse_legend(prompt)}


def expected(spec: dict) -> dict[str, tuple[int, int, int]]:
    legend = {normal_name(name): tuple(color) for name, color in spec["legend"]}
    return {**legend, "background": tuple(spec["background"])}


def test_tasks_of() -> None:
    assert tasks_of(tiny_sample()) == TASK_NAMES
    assert tasks_of(photo()) == ("semantic", "instance", "referring")
    nothing = dataclasses.replace(photo(), instances=(), instance_ids=None)
    assert tasks_of(nothing) == ()
    unknown = dataclasses.replace(tiny_sample(), depth_m=np.full((32, 32), np.nan, np.float32))
    assert "depth" not in tasks_of(unknown)
    with pytest.raises(InputError, match=r"photo: cannot serve task 'depth'; it serves semantic, instance, referring"):
        drawn(photo(), "depth", 0)
    with pytest.raises(InputError, match="'seg' is not known"):
        drawn(photo(), "seg", 0)


@pytest.mark.parametrize("task", TASK_NAMES)
def test_the_same_seed_gives_the_same_bytes_and_another_seed_another_prompt(task: str) -> None:
    first, again = (drawn(tiny_sample(), task, 3) for _ in range(2))
    assert first.target.tobytes() == again.target.tobytes()
    assert (first.key, first.prompt, dict(first.spec)) == (again.key, again.prompt, dict(again.spec))
    others = [drawn(tiny_sample(), task, seed) for seed in range(200)]
    assert len({example.key for example in others}) == 200
    assert len({example.prompt for example in others}) >= 30
    assert all(example.target.dtype == np.uint8 and example.target.flags.c_contiguous for example in others)


@pytest.mark.parametrize(
    "templates",
    [
        depth.DEPTH,
        depth.DEPTH_COLORMAP,
        normals.NORMALS,
        semantic.SEMANTIC,
        instance.INSTANCE,
        referring.REFERRING,
        generate.GENERATE,
        edit.EDIT,
    ],
)
def test_at_least_forty_wordings_per_task_that_differ_in_more_than_a_choice(templates: tuple[str, ...]) -> None:
    skeletons = {re.sub(r"[\W_]+", " ", re.sub(r"\{\w+\}|\[.*?\]", " ", line)).strip().lower() for line in templates}
    assert len(skeletons) >= 40
    every = [wording for line in templates for wording in wordings_of(line)]
    assert len(every) == len(set(every))
    assert not any("[" in text or "|" in text or "  " in text for text in every)


@settings(max_examples=60, deadline=None)
@given(SEED)
def test_depth_decodes_to_metres_and_the_prompt_names_the_color_map(seed: int) -> None:
    sample = busy_sample(seed)
    depth_m = sample.depth_m.copy()
    depth_m[:8], depth_m[8:12] = np.inf, np.nan
    sample = dataclasses.replace(sample, depth_m=depth_m)
    example = drawn(sample, "depth", seed)
    decoded = decode_example(json.loads(json.dumps(dict(example.spec))), example.target)
    assert isinstance(decoded, DecodedDepth)
    finite = np.isfinite(depth_m)
    assert not decoded.confident[8:12].any(), "unknown must not read as a depth"
    named = [name for name in COLORMAPS if name in example.prompt]
    if example.spec["codec"] == "cube-walk/1":
        assert not named
        np.testing.assert_allclose(decoded.depth_m[finite], depth_m[finite], rtol=0.002)
        assert np.isposinf(decoded.depth_m[:8]).all()
    else:
        near_m, far_m = (float(x) for x in re.findall(r"\b(\d+(?:\.\d+)?)\s?m(?:eters|etres)?\b", example.prompt)[:2])
        assert example.spec["codec"] == f"{named[0]}/1:near={near_m!r},far={far_m!r}"
        inside = finite & (depth_m <= far_m)
        assert (depth_m[finite] >= near_m).all()
        assert inside.sum() >= 0.9 * finite.sum()
        np.testing.assert_allclose(decoded.depth_m[inside], depth_m[inside], atol=1.01 * (far_m - near_m) / 255)


def test_normals_generate_and_edit() -> None:
    sample = tiny_sample()
    normals = decode_example(drawn(sample, "normals", 0).spec, drawn(sample, "normals", 0).target)
    assert np.degrees(np.arccos(np.clip((normals * sample.normals).sum(-1)[8:], -1, 1))).max() < 0.5
    assert not normals[:8].any(), "unknown stays unknown"
    for seed in range(30):
        generate, edit = drawn(sample, "generate", seed), drawn(sample, "edit", seed)
        assert generate.source is None
        assert np.array_equal(decode_example(generate.spec, generate.target), sample.image)
        assert "red chair and a blue table" in generate.prompt
        assert np.array_equal(edit.source, sample.image)
        assert np.array_equal(edit.target, sample.edit.image)
        assert "make the chair green" in edit.prompt.lower()


@settings(max_examples=150, deadline=None)
@given(SEED)
def test_semantic_decodes_and_its_legend_reads_back_from_the_prompt(seed: int) -> None:
    sample = busy_sample(seed)
    example = drawn(sample, "semantic", seed)
    assert stated(example.prompt) == expected(example.spec)
    assert pdist([*expected(example.spec).values()]).min() >= 50
    decoded = decode_example(json.loads(json.dumps(dict(example.spec))), example.target)
    assert isinstance(decoded, Segmentation)
    present = {instance.category for instance in sample.instances}
    for name in decoded.names:
        members = [instance.id for instance in sample.instances if instance.category == name]
        assert np.array_equal(decoded.mask(name), np.isin(sample.instance_ids, members)), name
        assert name in present or name in VOCABULARY


@settings(max_examples=100, deadline=None)
@given(SEED)
def test_instances_of_one_class_decode_one_by_one(seed: int) -> None:
    sample = busy_sample(seed)
    assume("instance" in tasks_of(sample))  # not when every class could be taken for another: a lamp, a traffic light
    example = drawn(sample, "instance", seed)
    assert stated(example.prompt)["background"] == tuple(example.spec["background"])
    decoded = decode_example(example.spec, example.target)
    assert isinstance(decoded, DecodedInstances)
    members = [instance.id for instance in sample.instances if instance.category == example.spec["category"]]
    colors = {tuple(color) for color in example.target.reshape(-1, 3).tolist()} - {tuple(example.spec["background"])}
    assert len(colors) == len(members)
    for member in members:
        (drawn_color,) = {tuple(color) for color in example.target[sample.instance_ids == member].tolist()}
        assert drawn_color in colors
    # a region is known by its solid core: one that nowhere is three pixels wide cannot be told from a blend of its rims
    core = np.bincount(sample.instance_ids[interior(sample.instance_ids)], minlength=max(members, default=0) + 1)
    for member in (member for member in members if core[member] >= 16):
        inside = decoded.ids[sample.instance_ids == member]
        assert np.bincount(inside).argmax() > 0


@settings(max_examples=150, deadline=None)
@given(SEED)
def test_referring_decodes_and_its_legend_reads_back_from_the_prompt(seed: int) -> None:
    sample = busy_sample(seed)
    assume("referring" in tasks_of(sample))
    example = drawn(sample, "referring", seed, negative_probability=0.3)
    assert stated(example.prompt) == expected(example.spec)
    decoded = decode_example(example.spec, example.target)
    assert isinstance(decoded, Segmentation)
    assert len(decoded.names) == len(example.spec["kinds"]) <= referring.MAX_EXPRESSIONS
    for name, kind in zip(decoded.names, example.spec["kinds"]):
        named = set(np.unique(sample.instance_ids[decoded.mask(name)]).tolist())
        assert 0 not in named
        assert {"none": len(named) == 0, "multi": len(named) >= 2}.get(kind, len(named) == 1), (name, kind)
        assert np.array_equal(decoded.mask(name), np.isin(sample.instance_ids, list(named)))


@pytest.mark.parametrize("task", ["semantic", "instance", "referring"])
def test_negatives_are_empty_and_only_where_all_objects_are_known(task: str) -> None:
    sample = tiny_sample()
    for seed in range(40):
        example = drawn(sample, task, seed, negative_probability=1.0)
        background = np.array(example.spec["background"], np.uint8)
        kinds = example.spec.get("kinds", ["none"])
        if kinds == ["none"]:
            assert (example.target == background).all()
        assert "none" in kinds
        certain = drawn(sample, task, seed, negative_probability=0.0)
        assert (certain.target != np.array(certain.spec["background"], np.uint8)).any()
        partial = drawn(dataclasses.replace(sample, exhaustive=False), task, seed, negative_probability=1.0)
        assert (partial.target != np.array(partial.spec["background"], np.uint8)).any()
    share = np.mean([not np.ptp(drawn(sample, "instance", seed).target.reshape(-1, 3), 0).any() for seed in range(600)])
    assert abs(share - NEGATIVE_PROBABILITY) < 0.04


@pytest.mark.parametrize("category", ["salient object", "main subject"])
def test_a_photo_of_one_subject_serves_three_tasks(category: str) -> None:
    sample = photo(category)
    mask = sample.instance_ids == 1
    for seed in range(80):
        for task in tasks_of(sample):
            example = drawn(sample, task, seed)
            background = np.array(example.spec["background"], np.uint8)
            assert np.array_equal((example.target != background).any(-1), mask)
        assert drawn(sample, "semantic", seed).spec["legend"][0][0] in SALIENT_WORDS
        assert drawn(sample, "referring", seed).spec["legend"][0][0] in SALIENT_EXPRESSIONS


def test_every_notation_is_used() -> None:
    prompts = [drawn(tiny_sample(), "semantic", seed).prompt for seed in range(500)]
    patterns = {
        "json": r"\{\s*\"",
        "python": r"\{'",
        "hex": r"#[0-9a-f]{6}",
        "HEX": r"#[0-9A-F]{6}",
        "round brackets": r"\(\d+, \d+, \d+\)",
        "square brackets": r"\[\d+, \d+, \d+\]",
        "no brackets": r"\b\d+ \d+ \d+\b",
        "names": rf"\b({'|'.join(COLOR_NAMES)})\b",
        "lines": r"\n- ",
        "table": r"\| class \|",
        "arrow": r" (->|→) ",
        "background entry": r"\bbackground\b",
        "the rest": r"[Ee]verything else|[Tt]he rest",
    }
    assert {name for name, pattern in patterns.items() if any(re.search(pattern, p) for p in prompts)} == set(patterns)


def test_classes_that_could_be_meant_are_never_called_absent() -> None:
    rng = np.random.default_rng(0)
    absent = set(absent_categories(["couch", "kitchen knife", "office chair", "woman"], 500, rng))
    assert absent.isdisjoint({"sofa", "knife", "chair", "person"})
    assert len(absent) > 80
    assert "book" not in absent_categories(["bookcase"], 500, rng), "books on it are not objects of their own"
    assert absent_categories(["salient object"], 5, rng) == absent_categories(["main subject"], 5, rng) == ()


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({}, "'task'"),
        ({"task": "paint"}, "'paint' is not known"),
        ({"task": "depth"}, "'codec'"),
        ({"task": "depth", "codec": "cube-walk/9"}, "cube-walk/9"),
        ({"task": "normals", "codec": "cube-walk/1"}, "is read with"),
        ({"task": "semantic", "codec": "legend/1", "legend": [["a", [1, 2, 300]]]}, "color of 'a'"),
        ({"task": "semantic", "codec": "legend/1", "legend": [["a"]]}, "row"),
        ({"task": "referring", "codec": "legend/1", "legend": [["a", [1, 2, 3]]]}, "'background'"),
        ({"task": "instance", "codec": "instances/1", "background": "black"}, "three integers"),
    ],
)
def test_odd_specs_get_one_clear_line(spec: dict, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        decode_example(spec, np.zeros((4, 4, 3), np.uint8))
    assert "\n" not in str(caught.value)


def labelled_photo() -> Sample:
    """A photo in which annotators found a red person, deny giraffes and kites, and may have missed anything else."""
    image = np.full((60, 80, 3), 90, np.uint8)
    ids = np.zeros((60, 80), np.uint16)
    ids[10:50, 20:60] = 1
    image[ids == 1] = (200, 20, 20)
    person = Instance(1, "person", 1600, (20, 10, 60, 50), {"color": "red"})
    facts = {"absent": ["giraffe", "kite"], "complete": ["person"], "main_subject": 1}
    return Sample("p", image, "photos", "CC0-1.0", instance_ids=ids, instances=(person,), facts=facts)


@pytest.mark.parametrize("task", ["semantic", "instance", "referring"])
def test_what_annotators_deny_makes_negatives_in_photos(task: str) -> None:
    asked: set[str] = set()
    for seed in range(30):
        example = drawn(labelled_photo(), task, seed, negative_probability=1.0)
        background = example.spec["background"]
        assert (example.target == background).all() or task == "referring"
        texts = [row[0] for row in example.spec.get("legend", [])] or [example.spec["category"]]
        asked |= set(texts)
        denied = [text for text in texts if text.removeprefix("the ") in ("giraffe", "kite")]
        assert denied
        if len(texts) == len(denied):
            assert (example.target == background).all()
    plain = {text.removeprefix("the ") for text in asked}
    assert {"giraffe", "kite"} <= plain
    assert not plain & (set(VOCABULARY) - {"giraffe", "kite", "person"})


def test_the_main_subject_with_a_class_goes_by_both() -> None:
    texts = [
        drawn(labelled_photo(), "referring", seed, negative_probability=0.0).spec["legend"][0][0] for seed in range(40)
    ]
    as_subject = sum(text in SALIENT_EXPRESSIONS for text in texts)
    assert 4 <= as_subject <= 24
    assert set(texts) - set(SALIENT_EXPRESSIONS) == {"the person"}


def test_in_a_photo_rankings_are_said_of_complete_classes_only_and_never_of_objects() -> None:
    """A second red thing nobody marked may be in the photo, but no third car where cars are complete."""
    image = np.full((60, 80, 3), 90, np.uint8)
    ids = np.zeros((60, 80), np.uint16)
    ids[10:50, 5:25], ids[10:50, 50:70], ids[52:58, 30:40] = 1, 2, 3
    boxes = [(5, 10, 25, 50), (50, 10, 70, 50), (30, 52, 40, 58)]
    instances = tuple(
        Instance(number, category, 800, box, {"color": color})
        for number, category, box, color in zip((1, 2, 3), ("car", "car", "dog"), boxes, ("red", "blue", "black"))
    )
    sample = Sample("p", image, "photos", "CC0-1.0", instance_ids=ids, instances=instances)

    def texts(**facts: list[str]) -> set[str]:
        known = dataclasses.replace(sample, facts=facts)
        examples = (drawn(known, "referring", seed, negative_probability=0.0) for seed in range(60))
        return {row[0] for example in examples for row in example.spec["legend"]}

    assert texts() == {"the red car", "the blue car", "the dog"}
    complete = texts(complete=["car", "dog"])
    assert {"the leftmost car", "both cars"} <= complete
    assert not any(word in text for text in complete for word in ("object", "thing", "item"))
    assert not any("dog" in text and "car" in text for text in texts(complete=["car"]))


def test_people_get_no_colour_word() -> None:
    """ "The red person" means a coat to us and something else to a reader."""
    for attributes in ({"color": "black"}, {}):
        sample = labelled_photo()
        sample = dataclasses.replace(
            sample, instances=(dataclasses.replace(sample.instances[0], attributes=attributes),)
        )
        assert [thing.color for thing in scene_table(sample)] == [None]
