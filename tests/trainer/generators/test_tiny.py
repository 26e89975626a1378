import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cavendish.encoders.codecs.palettes import COLOR_NAMES
from cavendish.encoders.sample import InputError
from cavendish.trainer.generators.tiny import (
    COLOR_FEATURES,
    MAX_TOKENS,
    TinyConfig,
    TinyGenerator,
    color_features,
    encode_prompts,
    tokenize,
)

component = st.integers(0, 255)


def colors_in(prompt: str) -> list[tuple[int, int, int]]:
    return [token.rgb for token in tokenize(prompt) if token.rgb is not None]


@given(component, component, component)
def test_every_notation_of_a_color_is_the_same_color(r: int, g: int, b: int) -> None:
    notations = [
        f"#{r:02x}{g:02x}{b:02x}",
        f"#{r:02X}{g:02X}{b:02X}",
        f"({r}, {g}, {b})",
        f"[{r},{g},{b}]",
        f"rgb({r}, {g}, {b})",
        f"{r} {g} {b}",
        f"{r}, {g}, {b}",
    ]
    for notation in notations:
        assert colors_in(f"chair: {notation}; floor") == [(r, g, b)], notation
        assert colors_in(f'{{"chair": "{notation}"}}') == [(r, g, b)], notation


@pytest.mark.parametrize("name", sorted(COLOR_NAMES))
def test_a_color_name_is_its_color_and_keeps_its_word(name: str) -> None:
    (token,) = [token for token in tokenize(f"paint it {name}.") if token.rgb is not None]
    assert (token.text, token.rgb) == (name, COLOR_NAMES[name])


def test_three_digits_of_hex_are_doubled() -> None:
    assert colors_in("wall: #f08") == [(255, 0, 136)]


def test_two_triples_in_one_legend_are_two_colors() -> None:
    assert colors_in("chair (255, 0, 0), table (0, 128, 255)") == [(255, 0, 0), (0, 128, 255)]
    assert colors_in("chair=255,0,0 table=0,128,255") == [(255, 0, 0), (0, 128, 255)]


@pytest.mark.parametrize("text", ["from 0 to 10 m", "1.5, 2.5, 3.5", "300, 20, 10", "#12345", "colored", "10, 20"])
def test_other_numbers_and_words_are_no_colors(text: str) -> None:
    assert colors_in(text) == []


def test_padding_is_marked_and_empty() -> None:
    words, colors, valid = encode_prompts(["red ball", "a red ball on a floor", ""], 512)
    assert words.shape == (3, 6)
    assert colors.shape == (3, 6, COLOR_FEATURES)
    assert valid.sum(1).tolist() == [2, 6, 1]
    assert (words[0, 2:] == 0).all()
    assert words[0, 0] == words[1, 1]
    assert words[0, :2].min() > 0
    np.testing.assert_array_equal(colors[0, 0], color_features(COLOR_NAMES["red"]))
    assert not colors[0, 1:].any()


def test_a_prompt_is_never_cut_in_silence() -> None:
    with pytest.raises(InputError, match=r"513 tokens, the text encoder of tiny/1 reads 512"):
        TinyGenerator(TinyConfig(width=16), 0).encode_text(["word " * (MAX_TOKENS + 1)])
