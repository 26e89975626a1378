"""Tables and annotations of others: columns by type, ids of every kind, each row and object accounted for."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cavendish.annotate.download.url_lists import count_rows, list_files, read_rows
from cavendish.encoders.sample import InputError
from cavendish.mixing.images import encode_png
from cavendish.mixing.sources.arrays import decode_depth_file
from cavendish.mixing.sources.coco import list_coco
from cavendish.mixing.sources.items import read_part
from cavendish.mixing.sources.tables import list_arrow
from cavendish.mixing.storage.files import canonical_json
from tests.mixing.sources.test_listed_sources import save

IMAGES = [encode_png(np.full((64, 64, 3), 40 * i, np.uint8)) for i in range(4)]
IDS = st.one_of(
    st.integers(-3, 12),
    st.sampled_from(["7", "a", "b_02", "\ud83d", "", 7.0, 1.5, math.nan, True, None, 10**30, [1], {}]),
)


@st.composite
def cocos(draw: st.DrawFn) -> tuple[dict[str, Any], int]:
    """Draw a COCO json, and how many of its four files it does not list."""
    names = st.sampled_from(["0.png", "1.png", "2.png", "3.png", "no.png", "../x.png", "\ud83d.png", "a\0.png", "", 5])
    images = draw(st.lists(st.one_of(st.fixed_dictionaries({"id": IDS, "file_name": names}), st.just(3)), max_size=8))
    captions = st.fixed_dictionaries({"id": IDS, "image_id": IDS, "caption": st.text(max_size=5)})
    values = {"images": images, "annotations": draw(st.lists(captions, max_size=6)), "licenses": [None]}
    listed = {image["file_name"] for image in images if isinstance(image, dict)}
    return values, sum(f"{n}.png" not in listed for n in range(4))


@given(drawn=cocos())
@settings(max_examples=150, deadline=None)
def test_every_object_of_a_coco_json_is_an_image_or_counted(
    tmp_path_factory: pytest.TempPathFactory, drawn: tuple[dict[str, Any], int]
) -> None:
    values, unlisted = drawn
    root = tmp_path_factory.mktemp("coco")
    for number, data in enumerate(IMAGES):
        (root / f"{number}.png").write_bytes(data)
    (root / "c.json").write_text(json.dumps(values))
    listing = list_coco(root, root / "c.json")
    objects = [image for image in values["images"] if isinstance(image, dict)]
    again = listing.left_aside.get("an image that is listed again with the same id and file", 0)
    assert len(listing) + again == len(objects)
    assert listing.left_aside.get("an entry of images that is no object", 0) == len(values["images"]) - len(objects)
    assert listing.left_aside.get("an image that the json does not list", 0) == unlisted
    for item in listing:
        canonical_json([item.name, item.problem, item.caption, dict(item.facts)])
        assert bool(item.problem) != bool(item.image)


def coco(root: Path, images: list[Any], annotations: list[Any]) -> dict[str, tuple[str, str]]:
    """Return what is read of a COCO json: the caption and the problem of each image by its name."""
    for number, data in enumerate(IMAGES):
        (root / f"{number}.png").write_bytes(data)
    values = {"images": images, "annotations": annotations}
    (root / "c.json").write_bytes(b"\xef\xbb\xbf" + json.dumps(values).encode())
    return {item.name: (item.caption, item.problem[:30]) for item in list_coco(root, root / "c.json")}


def test_captions_are_ordered_by_number_and_go_to_the_image_they_name(tmp_path: Path) -> None:
    images = [{"id": n, "file_name": f"{i}.png"} for i, n in enumerate((10, "9", "word", 2.0))]
    captions = [
        (10, 10, "ten b"),
        (9, 10, "ten a"),
        ("11", 9, "nine b"),
        ("9", 9, "nine a"),
        (1, "word", "w"),
        (1, 2, "two"),
    ]
    annotations = [{"id": i, "image_id": n, "caption": text} for i, n, text in captions]
    found = coco(tmp_path, images, annotations)
    assert list(found.items()) == [
        ("3.png", ("two", "")), ("1.png", ("nine a", "")), ("0.png", ("ten a", "")), ("2.png", ("w", "")),
    ]  # fmt: skip


def test_an_id_of_two_images_is_named_and_no_caption_is_guessed(tmp_path: Path) -> None:
    images = [{"id": 1, "file_name": "0.png"}, {"id": "1", "file_name": "1.png"}, {"id": 2, "file_name": "2.png"}]
    again = [{"id": 2, "file_name": "2.png"}]
    found = coco(tmp_path, images + again, [{"id": 1, "image_id": 1, "caption": "red"}])
    assert found["0.png"] == ("", "image id 1 is there 2 times (0")
    assert found["1.png"][1].startswith("image id 1 is there 2 times")
    assert found["2.png"] == ("", "")


BYTES = {
    "binary": pa.binary(),
    "large_binary": pa.large_binary(),
    "struct": pa.struct([("bytes", pa.binary()), ("path", pa.string())]),
    "large struct": pa.struct([("path", pa.large_string()), ("bytes", pa.large_binary())]),
}
TEXTS = {
    "string": pa.string(),
    "large_string": pa.large_string(),
    "dictionary": pa.dictionary(pa.int32(), pa.string()),
    "list": pa.list_(pa.string()),
    "large_list": pa.large_list(pa.large_string()),
}


@pytest.mark.parametrize("kind", sorted(BYTES))
@pytest.mark.parametrize("texts", sorted(TEXTS))
@pytest.mark.parametrize("name", ["image", "picture_data"])
def test_a_saved_dataset_is_read_by_types_and_contents(tmp_path: Path, kind: str, texts: str, name: str) -> None:
    values: list[Any] = [*IMAGES[:2], None]
    is_struct = "struct" in kind
    cells = [{"bytes": value, "path": "x"} if is_struct and value else value for value in values]
    words: list[Any] = ["one", "two", None]
    captions = [[word, "more"] if word and "list" in texts else word for word in words]
    table = pa.table(
        {
            "image_embedding": pa.array([np.arange(8, dtype=np.float32).tobytes()] * 3, pa.binary()),
            "conditioning_image": pa.array([IMAGES[3]] * 3, pa.binary()) if name == "image" else pa.array([1, 2, 3]),
            name: pa.array(cells, BYTES[kind]),
            "caption": pa.array([1, 2, 3]),  # of another type than a caption has
            "captions": pa.array(captions, TEXTS[texts]),
            "score": pa.array([math.nan, math.inf, None]),
        }
    )
    save(tmp_path / "d", table, batch=2)
    (tmp_path / "d/cache-1.arrow").write_bytes(b"x")
    listing = list_arrow(tmp_path / "d")
    assert [item.problem for item in listing] == ["", "", "holds no bytes, only the name of a file"]
    for item, data, word in zip(listing, values, words):
        if data is not None:
            assert item.image is not None
            assert (read_part([tmp_path / "d"], item.image, 9999), item.caption) == (data, word)
    assert listing.left_aside == {".arrow: a file that state.json does not name": 1}


def test_a_dataset_without_images_names_its_columns_and_their_types(tmp_path: Path) -> None:
    table = pa.table({"vector": pa.array([b"\0\1"], pa.binary()), "n": [1], "images": pa.array([[b"x"]])})
    save(tmp_path / "d", table)
    with pytest.raises(InputError, match=r"no column of images; it has vector \(binary\), n \(int64\), images \(list<"):
        list_arrow(tmp_path / "d")
    save(tmp_path / "e", pa.Table.from_arrays([pa.array([IMAGES[0]]), pa.array(["a"])], names=["image", "image"]))
    with pytest.raises(InputError, match="two columns have one name"):
        list_arrow(tmp_path / "e")


URLS = {
    "string": (pa.string(), str),
    "large_string": (pa.large_string(), str),
    "view": (pa.string_view(), str),
    "binary": (pa.binary(), str.encode),
    "large_binary": (pa.large_binary(), str.encode),
    "list": (pa.list_(pa.string()), lambda text: [text]),
}
NUMBERS = st.one_of(st.none(), st.integers(-(2**40), 2**40), st.floats(allow_nan=True), st.booleans())


@given(kind=st.sampled_from(sorted(URLS)), numbers=st.lists(NUMBERS, min_size=1, max_size=6), size=st.integers(1, 3))
@settings(max_examples=60, deadline=None)
def test_every_row_of_a_list_is_read_whatever_its_types(
    tmp_path_factory: pytest.TempPathFactory, kind: str, numbers: list[Any], size: int
) -> None:
    root = tmp_path_factory.mktemp("list")
    of_type, make = URLS[kind]
    urls = [f"http://x/{n}" for n in range(len(numbers))]
    table = pa.table(
        {
            "url": pa.array([1.5] * len(urls)),  # a number that is called so is no URL
            "URL": pa.array([make(url) for url in urls], of_type),
            "similarity": pa.array([None if isinstance(n, bool) or n is None else float(n) for n in numbers]),
            "face_bboxes": pa.array([[[0.5, math.nan]]] * len(urls)),
            "uid": pa.array([b"\xff\xfe"] * len(urls), pa.binary()),
        }
    )
    (root / "out.parquet").mkdir()
    for part in range(0, len(urls), size):
        pq.write_table(table.slice(part, size), root / f"out.parquet/part-{part:05d}.snappy.parquet")
    (root / "out.parquet/_SUCCESS").write_bytes(b"")
    (root / "out.parquet/.part-00000.parquet.crc").write_bytes(b"crc")
    (root / "notes.csv").write_text("a,b")
    files, left = list_files(root)
    counts = count_rows(files)
    rows = list(read_rows(files, counts, 0, sum(counts)))
    assert [row.url for row in rows] == urls
    assert sum(left.values()) == 3
    for row, number in zip(rows, numbers):
        facts = json.loads(canonical_json(row.facts))
        finite = number is not None and not isinstance(number, bool) and math.isfinite(number)
        assert ("similarity" in facts) == finite
        assert facts["face_bboxes"] == [[0.5, None]]


def test_a_text_that_is_no_utf8_costs_its_row_only(tmp_path: Path) -> None:
    urls = pa.array([b"http://x/1", b"http://x/\xff", b"http://x/3"], pa.binary()).view(pa.string())
    pq.write_table(pa.table({"url": urls}), tmp_path / "list.parquet")
    files, _ = list_files(tmp_path / "list.parquet")
    assert [row.url for row in read_rows(files, [3], 0, 3)] == ["http://x/1", "http://x/\ufffd", "http://x/3"]


def npy(values: np.ndarray[Any, Any]) -> bytes:
    file = io.BytesIO()
    np.save(file, values)
    return file.getvalue()


def test_a_unit_that_no_file_states_has_to_be_stated() -> None:
    metres = np.float32([[1.5, 60.7], [140, 0]])
    with pytest.raises(InputError, match=r"x\.npy: the file does not say the unit of its depth; state depth_unit_m"):
        decode_depth_file(npy(metres), "x.npy", None, None)
    with pytest.raises(InputError, match="state depth_unit_m"):
        decode_depth_file(npy(metres), "x.npy", {"png": 0.001}, None)
    for unit in (1.0, {"png": 0.001, "npy": 1.0}):
        expected = np.where(metres > 0, metres, np.nan)
        np.testing.assert_array_equal(decode_depth_file(npy(metres), "x", unit, None), expected)
    png = encode_png(np.uint16([[1500, 0], [65535, 9]]))
    np.testing.assert_allclose(decode_depth_file(png, "x.dat", None, None), [[1.5, np.nan], [np.nan, 0.009]])


@pytest.mark.parametrize("kind", [np.uint16, np.int16, np.int32, np.uint8])
def test_the_largest_integer_is_no_depth_unless_it_is_sky(kind: type) -> None:
    most = int(np.iinfo(kind).max)
    values = np.array([[most, most - 1], [0, 7]], kind)
    found = decode_depth_file(npy(values), "x", 1.0, None)
    np.testing.assert_array_equal(found, np.float32([[np.nan, most - 1], [np.nan, 7]]))
    sky = decode_depth_file(npy(values), "x", 1.0, float(most))
    assert np.isposinf(sky[0, 0])


def test_values_that_mean_no_data_can_be_named() -> None:
    values = np.float32([[-9999, 1e10], [999, 2]])
    found = decode_depth_file(npy(values), "x", 1.0, 1e9, (999.0,))
    np.testing.assert_array_equal(found, np.float32([[np.nan, np.inf], [np.nan, 2]]))
