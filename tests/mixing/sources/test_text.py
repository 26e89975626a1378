from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cavendish.encoders.sample import InputError
from cavendish.mixing.sources.text import clean_value, decode_text, output_names, printable
from cavendish.mixing.storage.files import canonical_json

NAMES = st.one_of(
    st.text(max_size=300),
    st.sampled_from(
        ["a", "A", "a-b", "a/b", "x" * 244, "ä" * 200, "..", "", ".", "a\0b", "\ud83d", "CON", "é", "e\u0301"]
    ),
)


@given(names=st.lists(NAMES, max_size=12))
def test_output_names_are_safe_short_and_differ_even_where_case_does_not_count(names: list[str]) -> None:
    made = list(output_names(names))
    assert made == list(output_names(names))
    assert len({name.casefold() for name in made}) == len(names)
    for name in made:
        assert 0 < len(name.encode()) <= 120
        assert not set(name) & set('/\\\0\n:*?"<>|')
        assert name.strip(" .") == name


def test_a_name_that_is_safe_stays_as_it_is() -> None:
    assert list(output_names(["cat", "photo 1", "été", "a.b"])) == ["cat", "photo 1", "été", "a.b"]
    first, second, third = output_names(["cat", "Cat", "cat"])
    assert first == "cat"
    assert second.startswith("Cat-")
    assert third.startswith("cat-")


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()) | st.binary(max_size=4),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(st.characters()), inner, max_size=4),
    max_leaves=12,
)


@given(value=VALUES)
def test_any_value_becomes_one_that_json_holds(value: object) -> None:
    clean = clean_value(value)
    assert json.loads(canonical_json(clean)) == clean
    assert clean_value(clean) == clean


def test_what_is_no_number_goes_and_the_rest_stays() -> None:
    assert clean_value({"a": math.nan, "b": [1, math.inf], "c": "x", "d": b"y"}) == {"b": [1, None], "c": "x"}


@pytest.mark.parametrize("code", ["utf-8", "utf-8-sig", "utf-16"])
def test_texts_are_read_with_and_without_a_mark(code: str) -> None:
    assert decode_text("ein Café\r\n".encode(code)) == "ein Café"
    with pytest.raises(InputError, match="not UTF-8"):
        decode_text("Café".encode("latin-1"))


@given(name=st.text(st.characters()))
def test_a_printable_name_is_one_line_of_utf8(name: str) -> None:
    assert printable(name).encode().decode() == printable(name)
    assert "\n" not in printable(name)
    assert printable(printable(name)) == printable(name)
