from __future__ import annotations

import io
import json
import os
import re
import tarfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cavendish.encoders.sample import InputError
from cavendish.mixing.shards.sample_format import check_key
from cavendish.mixing.sources.items import Item
from cavendish.mixing.sources.listing import SourceConfig, fingerprint, list_items, read_item
from cavendish.mixing.sources.tars import read_tar
from cavendish.mixing.sources.text import MAX_TEXT_CHARS, clean_text
from cavendish.mixing.storage.files import canonical_json

FOLDER = SourceConfig(name="web", kind="folder", path=Path(), licence="CC0-1.0")
TAR = SourceConfig(name="crawl", kind="tar", path=Path(), licence="unknown")


def write(path: Path, data: bytes | str = b"image") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def write_tar(path: Path, members: list[tuple[str, bytes]], form: int = tarfile.PAX_FORMAT) -> Path:
    with tarfile.open(path, "w", format=form) as tar:
        for name, data in members:
            header = tarfile.TarInfo(name)
            header.size = len(data)
            header.mtime = 1700000000.25  # type: ignore[assignment]  # webdataset does this: every member gets a pax header
            tar.addfile(header, io.BytesIO(data))
    return path


def found(source: SourceConfig, root: Path) -> dict[str, tuple[bytes, str, dict[str, str]]]:
    images = [read_item(source, root, item) for item in list_items(source, root)]
    return {image.key: (image.data, image.text, dict(image.facts)) for image in images}


def test_folder_with_captions_and_facts(tmp_path: Path) -> None:
    write(tmp_path / "b.JPG", b"B")
    write(tmp_path / "a.png", b"A")
    write(tmp_path / "a.txt", "a  red\n\tchair\x00")
    write(tmp_path / "a.json", json.dumps({"license": "CC-BY-4.0", "url": "https://x.org/a.png", "author": "Ann"}))
    write(tmp_path / "deep/er/a.webp", b"C")
    write(tmp_path / "README.txt", "not a caption")
    write(tmp_path / ".hidden.png")
    assert found(FOLDER, tmp_path) == {
        "web-a": (b"A", "a red chair", {"licence": "CC-BY-4.0", "url": "https://x.org/a.png", "author": "Ann"}),
        "web-b": (b"B", "", {"licence": "CC0-1.0"}),
        "web-deep-er-a": (b"C", "", {"licence": "CC0-1.0"}),
    }


def test_img2dataset_tars(tmp_path: Path) -> None:
    """The layout that img2dataset writes: key.jpg, key.json, key.txt, neighbours in the tar."""
    meta = {"url": "http://example.org/1.jpg", "caption": "from the json", "status": "success", "exif": "{}"}
    members = [
        ("000000001.jpg", b"one"),
        ("000000001.json", json.dumps(meta).encode()),
        ("000000001.txt", b"a dog"),
        ("000000002.webp", b"two"),
        ("000000002.json", json.dumps(meta).encode()),
        ("sub/000000002.png", b"three"),
    ]
    write_tar(tmp_path / "00000.tar", members)
    write_tar(tmp_path / "00001.tar", [("000000001.jpg", b"four")])
    facts = {"licence": "unknown", "url": "http://example.org/1.jpg"}
    assert found(TAR, tmp_path) == {
        "crawl-00000-000000001": (b"one", "a dog", facts),
        "crawl-00000-000000002": (b"two", "from the json", facts),
        "crawl-00000-sub-000000002": (b"three", "", {"licence": "unknown"}),
        "crawl-00001-000000001": (b"four", "", {"licence": "unknown"}),
    }


@given(
    names=st.lists(
        st.text(st.characters(exclude_characters="\0/", exclude_categories=("Cs",)), min_size=1, max_size=130)
    )
)
@settings(max_examples=80, deadline=None)
def test_keys_are_valid_and_unique_whatever_the_names(
    tmp_path_factory: pytest.TempPathFactory, names: list[str]
) -> None:
    path = tmp_path_factory.mktemp("tars") / "t.tar"
    members = [(f"{name}.png", b"x") for name in names] + [("end.png", b"x")]
    write_tar(path, members)
    keys = [item.key for item in list_items(TAR, path)]
    assert len(set(keys)) == len(keys)
    for key in keys:
        assert "." not in check_key(key)


def test_names_that_meet_get_different_keys(tmp_path: Path) -> None:
    for name in ("a-b.png", "a/b.png", "a b.png", "a_b.png", "a_b.jpg", f"{'x' * 120}.png"):
        write(tmp_path / name, name)
    images = found(FOLDER, tmp_path)
    assert len(images) == 6
    assert max(map(len, images)) <= 90
    assert images == found(FOLDER, tmp_path)


@given(
    members=st.lists(
        st.tuples(st.from_regex(r"\A[a-zé]{1,120}(/[a-z]{1,60})?\Z"), st.binary(max_size=1500)), max_size=8
    ),
    form=st.sampled_from([tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]),
)
@settings(max_examples=100, deadline=None)
def test_members_are_those_that_tarfile_finds(
    tmp_path_factory: pytest.TempPathFactory, members: list[tuple[str, bytes]], form: int
) -> None:
    path = tmp_path_factory.mktemp("tars") / "t.tar"
    try:
        write_tar(path, members, form)
    except ValueError:  # a name that ustar cannot hold
        return
    with tarfile.open(path) as tar:
        listed, damage = read_tar(path)
        assert damage == ""
        ours = [(member.name, member.offset, member.size) for member in listed]
        assert ours == [(info.name, info.offset_data, info.size) for info in tar]


@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_damaged_tars_end_with_a_reason_and_keep_what_came_before(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = write_tar(tmp_path_factory.mktemp("tars") / "t.tar", [(f"{n}.png", bytes([n]) * 700) for n in range(4)])
    damaged = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(damaged) - 1))
        piece = data.draw(st.binary(min_size=1, max_size=12))
        damaged[at : at + len(piece)] = piece
    path.write_bytes(damaged[: data.draw(st.integers(1, len(damaged)))])
    for item in list_items(TAR, path):
        check_key(item.key)
        assert item.problem or read_item(TAR, path, item).data is not None


def hostile_header(kind: bytes, size: int) -> bytes:
    header = tarfile.TarInfo("x.png")
    header.type = kind
    header.size = size
    return header.tobuf(tarfile.GNU_FORMAT)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (hostile_header(tarfile.REGTYPE, 2**40), "beyond the end"),
        (hostile_header(tarfile.XHDTYPE, (1 << 20) + 1) + bytes(1 << 21), "extended header of 1048577 bytes"),
        (hostile_header(tarfile.REGTYPE, -512), "bad size"),
        (hostile_header(tarfile.XHDTYPE, 512) + b"9" * 512, "bad size|bad pax"),
        (
            hostile_header(tarfile.XHDTYPE, 512)
            + b"12 size=-99\n".ljust(512, b"\0")
            + hostile_header(tarfile.REGTYPE, 0),
            "bad size '-99'",
        ),
        (b"\x1f\x8b" + bytes(1000), "damaged or cut compressed data"),
        (b"short", "cut short"),
    ],
)
def test_hostile_tar_headers(tmp_path: Path, data: bytes, reason: str) -> None:
    path = write(tmp_path / "t.tar", data)
    assert re.search(reason, read_tar(path)[1])


def test_a_damaged_tail_costs_only_itself(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "t.tar", [("1.png", b"one"), ("2.png", b"2" * 9000)])
    path.write_bytes(path.read_bytes()[:8000])  # in the middle of the second member
    good, damaged = list_items(TAR, path)
    assert read_item(TAR, path, good).data == b"one"
    with pytest.raises(InputError, match=r"t\.tar: .*nothing after it was read"):
        read_item(TAR, path, damaged)


def test_links_out_of_the_folder_are_refused(tmp_path: Path) -> None:
    secret = write(tmp_path / "secret", b"secret")
    write(tmp_path / "web/ok.png", b"ok")
    (tmp_path / "web/evil.png").symlink_to(secret)
    (tmp_path / "web/ok.txt").symlink_to(secret)
    (tmp_path / "web/gone.png").symlink_to(tmp_path / "web/nothing")
    problems = {item.name: item.problem for item in list_items(FOLDER, tmp_path / "web")}
    assert problems == {
        "evil.png": "evil.png is a link that leaves the folder",
        "gone.png": "gone.png is not a file",
        "ok.png": "ok.txt is a link that leaves the folder",
    }


def test_names_that_are_not_text_and_files_that_cannot_be_opened(tmp_path: Path) -> None:
    (tmp_path / "web").mkdir()
    with open(os.fsencode(tmp_path) + b"/web/\xff.png", "wb") as file:
        file.write(b"x")
    with open(os.fsencode(tmp_path) + b"/web/\xff.tar", "wb") as file:
        file.write(b"x")
    write(tmp_path / "web/folder.tar/b.png")  # a folder, whatever it is called
    item, inside = list_items(FOLDER, tmp_path / "web")
    assert inside.name == "folder.tar/b.png"
    assert item.problem == "its file name is not UTF-8"
    (strange,) = list_items(TAR, tmp_path / "web")
    assert strange.problem == "the tar's file name is not UTF-8"
    for found in ([item], [strange]):
        canonical_json(fingerprint(FOLDER, tmp_path / "web", found, "sha256"))


def test_a_file_that_vanished_costs_only_itself(tmp_path: Path) -> None:
    path = write(tmp_path / "a.png")
    items = list_items(FOLDER, tmp_path)
    path.unlink()
    assert fingerprint(FOLDER, tmp_path, items, "sha256") == [["a.png", "No such file or directory"]]


def test_problems_of_groups(tmp_path: Path) -> None:
    write_tar(tmp_path / "t.tar", [("1.png", b"x"), ("1.jpg", b"y"), ("2.txt", b"only words"), ("3.png", b"z")])
    problems = {item.key: item.problem for item in list_items(TAR, tmp_path)}
    assert problems == {
        "crawl-t-1": "two images under one key",
        "crawl-t-2": "no image under this key",
        "crawl-t-3": "",
    }


@pytest.mark.parametrize("text", [b"\xff\xfe\xff", b"x" * 100_000])
def test_an_unusable_caption_is_flagged_and_costs_nothing(tmp_path: Path, text: bytes) -> None:
    write(tmp_path / "a.png")
    write(tmp_path / "a.txt", text)
    (item,) = list_items(FOLDER, tmp_path)
    image = read_item(FOLDER, tmp_path, item)
    assert image.flags == ("text_unusable",)
    assert (image.text, image.facts) == ("", {"licence": "CC0-1.0"})


@pytest.mark.parametrize("meta", ["[" * 100000, '["not", "a", "map"]', '{"licence": "CC-BY', ""])
def test_a_picture_whose_licence_may_be_in_unreadable_json_is_refused(tmp_path: Path, meta: str) -> None:
    write(tmp_path / "a.png")
    write(tmp_path / "a.json", meta)
    (item,) = list_items(FOLDER, tmp_path)
    with pytest.raises(InputError, match=r"^its json "):
        read_item(FOLDER, tmp_path, item)


def test_a_file_that_changed_after_listing_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.png", b"12345")
    (item,) = list_items(FOLDER, tmp_path)
    path.write_bytes(b"123")
    with pytest.raises(InputError, match=r"a\.png has changed"):
        read_item(FOLDER, tmp_path, item)
    path.unlink()
    with pytest.raises(InputError, match="cannot be read"):
        read_item(FOLDER, tmp_path, item)


def test_an_oversized_file_is_refused_unread(tmp_path: Path) -> None:
    with (tmp_path / "a.png").open("wb") as file:
        file.truncate(40 * 2**20)
    (item,) = list_items(FOLDER, tmp_path)
    with pytest.raises(InputError, match="over the limit of 33554432"):
        read_item(FOLDER, tmp_path, item)


@pytest.mark.parametrize("change", ["content", "size", "sidecar", "new", "gone"])
def test_every_change_of_the_inputs_changes_the_fingerprint(tmp_path: Path, change: str) -> None:
    write(tmp_path / "a.png", b"12345")
    write(tmp_path / "a.txt", "words")
    write(tmp_path / "b.png", b"12345")
    before = fingerprint(FOLDER, tmp_path, list_items(FOLDER, tmp_path), "sha256")
    assert before == fingerprint(FOLDER, tmp_path, list_items(FOLDER, tmp_path), "sha256")
    by_size = fingerprint(FOLDER, tmp_path, list_items(FOLDER, tmp_path), "size")
    if change == "content":
        write(tmp_path / "a.png", b"54321")
    elif change == "size":
        write(tmp_path / "a.png", b"123456")
    elif change == "sidecar":
        write(tmp_path / "a.txt", "other words")
    elif change == "new":
        write(tmp_path / "c.png")
    else:
        (tmp_path / "b.png").unlink()
    items = list_items(FOLDER, tmp_path)
    assert fingerprint(FOLDER, tmp_path, items, "sha256") != before
    assert (fingerprint(FOLDER, tmp_path, items, "size") != by_size) == (change != "content")


@pytest.mark.parametrize(
    ("source", "make", "message"),
    [
        (FOLDER, lambda root: None, "no folder"),
        (FOLDER, lambda root: write(root / "a.txt"), "no images"),
        (TAR, lambda root: None, "no tar and no folder"),
        (TAR, lambda root: write(root / "a.png"), "no images"),
    ],
)
def test_a_source_that_is_not_there_is_named(tmp_path: Path, source: SourceConfig, make, message: str) -> None:  # type: ignore[no-untyped-def]
    make(tmp_path / "x")
    with pytest.raises(InputError, match=f"source {source.name}: {message}"):
        list_items(source, tmp_path / "x")


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("  a\r\n\tb\x07 c  ", "a b c"),
        ("e\u0301", "\u00e9"),
        ("left\u202eright\u200b", "leftright"),
        ("\ud800x", "x"),
        ("👩\u200d🚀", "👩\u200d🚀"),
        ("x" * 5000, "x" * MAX_TEXT_CHARS),
    ],
)
def test_captions_are_cleaned(text: str, cleaned: str) -> None:
    assert clean_text(text) == cleaned


@given(st.text())
def test_cleaned_captions_are_clean(text: str) -> None:
    cleaned = clean_text(text)
    assert clean_text(cleaned) == cleaned
    assert cleaned.encode().decode() == cleaned
    assert not set(cleaned) & {chr(code) for code in range(32)}


def test_items_without_a_known_image_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no image under this key"):
        read_item(FOLDER, tmp_path, Item("k", "n"))
