"""Legends read back from prompts: those this project writes, and those people type."""

from __future__ import annotations

import contextlib
import json
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from cavendish.encoders.codecs.palettes import COLOR_NAMES, format_hex, format_triple
from cavendish.encoders.legends import parse_structured as structured
from cavendish.encoders.legends.parse_colors import read_color
from cavendish.encoders.legends.parse_sentences import is_background
from cavendish.encoders.legends.parser import MAX_PROMPT, near_colors, normal_name, parse_legend
from cavendish.encoders.legends.writer import COLOR_FORMATS, STRUCTURES, format_color, notations_for, write_legend
from cavendish.encoders.sample import InputError

RED, GREEN, BLUE, YELLOW = (255, 0, 0), (0, 128, 0), (0, 0, 255), (255, 255, 0)
BLACK, WHITE = (0, 0, 0), (255, 255, 255)

TYPED = [
    ("Segment the cat in red.", {"cat": RED}),
    (
        "Segment the cat in red and the dog in blue, everything else black",
        {"cat": RED, "dog": BLUE, "background": BLACK},
    ),
    (
        'Please perform semantic segmentation on this image using the following legend: {"cat": "red", "dog": "#0000FF", "background": [0,0,0]}',  # noqa: E501
        {"cat": RED, "dog": BLUE, "background": BLACK},
    ),
    ("semantic segmentation\ncat: (255,0,0)\ndog: (0,0,255)\n", {"cat": RED, "dog": BLUE}),
    (
        "Cars should be red, people should be blue, and the road should be green.",
        {"Cars": RED, "people": BLUE, "road": GREEN},
    ),
    (
        "make the sky blue, the grass green and the house red. leave everything else black",
        {"sky": BLUE, "grass": GREEN, "house": RED, "background": BLACK},
    ),
    ("{cat: red, dog: blue}", {"cat": RED, "dog": BLUE}),
    ('{"cat":[255,0,0],"dog":[0,0,255]} on a white background', {"cat": RED, "dog": BLUE, "background": WHITE}),
    ("red = cat, blue = dog, black = background", {"cat": RED, "dog": BLUE, "background": BLACK}),
    (
        "Use red for cats, blue for dogs and black for everything else.",
        {"cats": RED, "dogs": BLUE, "background": BLACK},
    ),
    (
        "Give me a segmentation map where the person is #ff0000 and the horse is #0000ff. The background must be #000000.",  # noqa: E501
        {"person": RED, "horse": BLUE, "background": BLACK},
    ),
    ("mask of the dog on the left in white on a black background", {"dog on the left": WHITE, "background": BLACK}),
    (
        "Color the leftmost chair red and the lamp next to the sofa blue.",
        {"leftmost chair": RED, "lamp next to the sofa": BLUE},
    ),
    ("orange: blue, apple: red", {"orange": BLUE, "apple": RED}),
    (
        "Legend:\n- traffic light -> #ffff00\n- road -> #0000ff\nAll other pixels -> #000000",
        {"traffic light": YELLOW, "road": BLUE, "background": BLACK},
    ),
    ("| class | color |\n| --- | --- |\n| cat | #ff0000 |\n| dog | #0000ff |", {"cat": RED, "dog": BLUE}),
    ("cat 255 0 0; dog 0 0 255", {"cat": RED, "dog": BLUE}),
    ("cat,255,0,0\ndog,0,0,255", {"cat": RED, "dog": BLUE}),
    ("cat = rgb(255, 0, 0), dog = rgb(0, 0, 255), rest = rgb(0,0,0)", {"cat": RED, "dog": BLUE, "background": BLACK}),
    ('"hot dog": red; "bun": yellow', {"hot dog": RED, "bun": YELLOW}),
    (
        "Could you colour every car in red, every bus in blue and every bike in yellow? Thanks!",
        {"car": RED, "bus": BLUE, "bike": YELLOW},
    ),
    ("Show road as #ff0000, sidewalk as #0000ff.", {"road": RED, "sidewalk": BLUE}),
    ("Draw a mask: person=red, bicycle=blue, other=black", {"person": RED, "bicycle": BLUE, "background": BLACK}),
    (
        "I want the woman with the umbrella painted red, and the man behind her painted blue.",
        {"woman with the umbrella": RED, "man behind her": BLUE},
    ),
    ("paint all cats (255, 0, 0), all dogs (0, 0, 255)", {"cats": RED, "dogs": BLUE}),
    ("{'cat': (255, 0, 0), 'dog': (0, 0, 255)}", {"cat": RED, "dog": BLUE}),
    ("Estimate the depth of this image.", {}),
    ("Give each chair its own colour on a black background.", {"background": BLACK}),
    ("Instance segmentation of the apples: one distinct solid colour each, background white.", {"background": WHITE}),
    (
        "car in red; truck in blue; van in yellow; nothing else, keep the rest black",
        {"car": RED, "truck": BLUE, "van": YELLOW, "background": BLACK},
    ),
    ("Assign red to cat and blue to dog", {"cat": RED, "dog": BLUE}),
    ("Map cat to red and dog to blue", {"cat": RED, "dog": BLUE}),
    ("red: cat\nblue: dog", {"cat": RED, "dog": BLUE}),
    ("cats are red, dogs are blue", {"cats": RED, "dogs": BLUE}),
    ("the cup is #f00, the plate is #00f", {"cup": RED, "plate": BLUE}),
    (
        "Segment with colors road=[255, 0, 0], car=[0, 0, 255], everything else=[0, 0, 0]",
        {"road": RED, "car": BLUE, "background": BLACK},
    ),
    (
        "Highlight the dog in pure red (255, 0, 0) and leave the rest of the picture black.",
        {"dog": RED, "background": BLACK},
    ),
    ("highlight the dog in red, rest of the image in black", {"dog": RED, "background": BLACK}),
    ("Paint the traffic light blue and the sky yellow.", {"traffic light": BLUE, "sky": YELLOW}),
    ("cat→red, dog→blue, background→black", {"cat": RED, "dog": BLUE, "background": BLACK}),
    ("Road: red. Sidewalk: blue. Car: yellow.", {"Road": RED, "Sidewalk": BLUE, "Car": YELLOW}),
    ("dark green for trees, light blue for water", {"trees": (0, 100, 0), "water": (173, 216, 230)}),
    ("paint the red chair green and the blue chair yellow", {"red chair": GREEN, "blue chair": YELLOW}),
    ('the cat: "#ff0000", the dog: "#0000ff"', {"cat": RED, "dog": BLUE}),
    ("Use blue for the red car and yellow for the green one", {"red car": BLUE, "green one": YELLOW}),
    ("paint the orange blue", {"orange": BLUE}),
    ('{"red": "cat", "blue": "dog"}', {"cat": RED, "dog": BLUE}),
    ("the man in the red shirt: blue", {"man in the red shirt": BLUE}),
    (
        "Find the red mug and fill it with (255, 255, 0). Everything else should be black.",
        {"red mug": YELLOW, "background": BLACK},
    ),
    (
        "Where is the second chair from the left? Show it in white, everything else black",
        {"second chair from the left": WHITE, "background": BLACK},
    ),
    (
        "Everything black except for one thing: paint the tallest tree green",
        {"tallest tree": GREEN, "background": BLACK},
    ),
    ("class,color\ncat,#ff0000\ndog,#0000ff", {"cat": RED, "dog": BLUE}),
    ("“hot dog” in red, “bun” in blue", {"hot dog": RED, "bun": BLUE}),
    ("Segment:\n  cat    red\n  dog    blue\n", {"cat": RED, "dog": BLUE}),
]


PROMPTS = json.loads((Path(__file__).parent / "prompts.json").read_text())
"""Written by hand: [prompt, name to rrggbb], or [prompt, the piece that the refusal has to quote]."""


@pytest.mark.parametrize(("prompt", "expected"), PROMPTS)
def test_prompts_written_by_hand(prompt: str, expected: dict[str, str] | str) -> None:
    if isinstance(expected, str):
        with pytest.raises(InputError) as refusal:
            parse_legend(prompt)
        assert expected in str(refusal.value)
        assert "\n" not in str(refusal.value)
    else:
        assert {name: "{:02x}{:02x}{:02x}".format(*color) for name, color in parse_legend(prompt).items()} == expected


@settings(max_examples=200, deadline=None)
@given(
    pairs=st.lists(
        st.tuples(
            st.sampled_from(["car", "traffic light", "hot dog", "R&D sign", "tv"]), st.sampled_from([*COLOR_NAMES])
        ),
        min_size=1,
        max_size=4,
        unique_by=(lambda pair: pair[0], lambda pair: pair[1]),
    ),
    joint=st.sampled_from([", ", "; ", "\n", " and ", " ", " | ", ". "]),
    link=st.sampled_from([": ", " = ", " -> ", " in ", " is ", " ", " - ", " should be "]),
    start=st.sampled_from(["", "Segment this. ", "please, ", "legend: ", "no idea, ", "bird, ", "a red bird. "]),
)
def test_every_color_is_of_a_class_or_is_refused(
    pairs: list[tuple[str, str]], joint: str, link: str, start: str
) -> None:
    """The law: none of the colors in a prompt is dropped without a word."""
    prompt = start + joint.join(f"{name}{link}{color}" for name, color in pairs)
    try:
        read = parse_legend(prompt)
    except InputError as error:
        quoted = re.findall(r"'(.*?)'", str(error))
        assert quoted[0].rstrip("…") in " ".join(prompt.split())
        return
    assert sorted(read.values()) == sorted(COLOR_NAMES[color] for _, color in pairs)


def test_equal_and_near_colors_are_said_by_name() -> None:
    assert near_colors({"cat": RED, "dog": BLUE}) == []
    with pytest.raises(InputError, match="'cat' and 'dog' have the same color"):
        near_colors({"cat": RED, "dog": (254, 0, 0)})
    with pytest.raises(InputError, match="'cat' and 'background' have the same color"):
        near_colors({"cat": BLACK, "dog": RED})
    assert near_colors({"cat": BLACK, "dog": RED}, background=WHITE) == []
    (warning,) = near_colors({"road": (0, 60, 100), "truck": (0, 80, 100)})
    assert "'road' and 'truck'" in warning


@pytest.mark.parametrize(("prompt", "legend"), TYPED)
def test_prompts_as_people_type_them(prompt: str, legend: dict) -> None:
    assert parse_legend(prompt) == legend


NAMES = (
    *("car", "person", "traffic light", "fire hydrant", "potted plant", "tv", "road", "sky", "t-shirt", "hot dog"),
    *("wooden chair", "salient object", "dining table", "the leftmost lamp", "all the large metal boxes", "background"),
    *("the chair to the left of the table", "the object closest to the camera", "the vase in front of the sofa"),
    *("lamp on the left side of the vase", "object that is behind the table"),
)


@settings(max_examples=120, deadline=None)
@given(
    names=st.lists(st.sampled_from(NAMES), min_size=1, max_size=7, unique=True),
    named=st.booleans(),
    every=st.sampled_from(["", "every ", "the ", "each "]),
    seed=st.integers(0, 2**32 - 1),
)
def test_every_notation_reads_back(names: list[str], named: bool, every: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    pool = list(COLOR_NAMES.values()) if named else [tuple(int(v) for v in c) for c in rng.integers(0, 256, (40, 3))]
    legend = {name: pool[i] for name, i in zip(names, rng.permutation(len(pool)))}
    expected = {normal_name(name): color for name, color in legend.items()}
    notations = notations_for(legend)
    assert {notation.structure for notation in notations} == set(STRUCTURES)
    assert {notation.color_format for notation in notations} >= set(COLOR_FORMATS) - {"name"}
    for notation in notations:
        assert parse_legend(write_legend(legend, notation, rng, every)) == expected


FIELDS = {*structured.NAME_FIELDS, *structured.COLOR_FIELDS}  # of an object that is one class
ANY_NAME = st.text(st.characters(exclude_categories=["C"]), min_size=1, max_size=30).filter(
    lambda n: bool(n.strip()) and structured.field_name(n) not in FIELDS
)


@settings(max_examples=300, deadline=None)
@given(
    st.dictionaries(
        ANY_NAME.map(normal_name).filter(bool), st.tuples(*[st.integers(0, 255)] * 3), min_size=1, max_size=5
    )
)
def test_any_name_at_all_survives_json(legend: dict) -> None:
    text = json.dumps({name: format_color(color, "hex") for name, color in legend.items()})
    expected = {"background" if is_background(name) else name: color for name, color in legend.items()}
    assume(len(expected) == len(legend))
    assert parse_legend("Segment this. " + text) == expected


def test_a_name_with_two_colors_is_refused() -> None:
    with pytest.raises(InputError, match="two colors"):
        parse_legend("cat: red, cat: blue")


def test_a_name_without_a_color_name_is_not_written_by_name() -> None:
    with pytest.raises(InputError, match="no name"):
        format_color((1, 2, 3), "name")
    assert "name" not in {notation.color_format for notation in notations_for({"cat": (1, 2, 3)})}


@pytest.mark.parametrize("unit", ["red ", '{"', "image ", " ", "is ", "1 ", "#fff ", "'a\\", "{a ", "by painting it "])
def test_a_hostile_prompt_of_full_length_is_read_or_refused(unit: str) -> None:
    text = (unit * MAX_PROMPT)[:MAX_PROMPT]
    with contextlib.suppress(InputError):
        assert len(parse_legend(text)) <= 2
    with pytest.raises(InputError, match="at most"):
        parse_legend(text + "xx")


def test_color_formats_all_read_back() -> None:
    assert {format_color(RED, f) for f in COLOR_FORMATS} >= {"#ff0000", "#FF0000", "red", "255 0 0", "[255, 0, 0]"}
    assert all(read_color(format_color(RED, f)) == RED for f in COLOR_FORMATS)


@given(st.tuples(*[st.integers(0, 255)] * 3))
def test_every_notation_of_a_color_reads_back(color: tuple[int, int, int]) -> None:
    texts = [format_hex(color), format_hex(color, upper=True)]
    texts += [format_triple(color, brackets) for brackets in ("()", "[]", "", "rgb()")]
    assert [read_color(text) for text in texts] == [color] * len(texts)


@pytest.mark.parametrize(
    ("text", "color"),
    [
        ("Hot-Pink", (255, 105, 180)),
        ("#0f8", (0, 255, 136)),
        ("RGB(1,2,3)", (1, 2, 3)),
        ("dark olive green", (85, 107, 47)),
    ],
)
def test_colors_as_people_type_them(text: str, color: tuple[int, int, int]) -> None:
    assert read_color(text) == color


@pytest.mark.parametrize("text", ["", "reddish", "(1, 2)", "1 2 3 4", "bed", "decade"])
def test_what_is_no_color(text: str) -> None:
    assert read_color(text) is None


@pytest.mark.parametrize("text", ["(256, 0, 0)", "#12345", "light red", "rgba(1, 2, 3, 0.5)", "hsl(0, 100, 50)"])
def test_colors_that_cannot_be_are_refused(text: str) -> None:
    with pytest.raises(InputError, match=re.escape(text)):
        read_color(text)
