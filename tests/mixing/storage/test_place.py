from __future__ import annotations

from pathlib import Path

import fsspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cavendish.encoders.sample import InputError
from cavendish.mixing.storage.place import (
    Place,
    collect_leftovers,
    exists,
    file_sha256,
    files_below,
    is_file,
    join,
    list_sizes,
    make_folder,
    name_of,
    parent_of,
    parse_place,
    read_all,
    read_bytes,
    read_json,
    size_of,
    split_server,
    with_suffix,
    write_atomic,
)

NAMES = st.text("ab[]?#%20é ", min_size=1, max_size=8).filter(lambda name: name.strip(". ") != "")


@given(st.lists(NAMES, min_size=1, max_size=3), NAMES)
def test_names_below_a_url_follow_the_rules_of_paths(folders: list[str], name: str) -> None:
    path, url = Path("base", *folders, f"{name}.tar"), f"s3://bucket/base/{'/'.join(folders)}/{name}.tar"
    assert join("s3://bucket", path) == url
    assert name_of(url) == name_of(path) == path.name
    assert parent_of(url) == join("s3://bucket", path.parent)
    assert with_suffix(url, ".json") == join("s3://bucket", path.with_suffix(".json"))
    assert split_server(url) == ("s3://bucket", path.as_posix())


def test_a_url_stands_for_itself_and_a_file_url_for_its_path() -> None:
    assert join("s3://bucket/data", "s3://other/raw") == "s3://other/raw"
    assert join("s3://bucket/data", Path()) == "s3://bucket/data"
    assert join(Path("data"), Path("raw")) == Path("data/raw")
    assert parse_place("file:///data/raw") == Path("/data/raw")
    assert parse_place("s3://bucket/raw/") == "s3://bucket/raw"


@pytest.fixture(params=["folder", "url"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    if request.param == "folder":
        return tmp_path
    fsspec.filesystem("memory").rm("/", recursive=True)
    return "memory://place"


def test_a_url_is_read_and_written_as_a_folder_is(place: Place) -> None:
    make_folder(join(place, "below"))
    for name, data in (("b.json", b"{}"), ("a.json", b'{"a":1}'), ("below/c", b"c")):
        write_atomic(join(place, name), data)
    write_atomic(join(place, "b.json"), b"[1]")
    assert files_below(place) == ["a.json", "b.json", "below/c"]
    assert [name for name in list_sizes(place) if name != "below"] == ["a.json", "b.json"]
    assert list_sizes(place)["a.json"] == size_of(join(place, "a.json")) == 7
    assert read_json(join(place, "b.json"), "a list") == [1]
    assert list(read_all([join(place, name) for name in ("a.json", "b.json")])) == [b'{"a":1}', b"[1]"]
    assert file_sha256(join(place, "below/c")) == "2e7d2c03a9507ae265ecf5b5356885a53393a2029d241394997265a1a25aefc6"
    assert exists(join(place, "a.json"))
    assert is_file(join(place, "below/c"))
    assert not is_file(join(place, "below"))
    collect_leftovers(place)
    absent = join(place, "absent")
    assert not exists(absent)
    assert (list_sizes(absent), files_below(absent)) == ({}, [])
    for ask in (read_bytes, size_of, file_sha256, lambda path: read_json(path, "a list")):
        with pytest.raises(InputError, match=r"absent: (not there|no such file \(a list\))"):
            ask(absent)


def test_linked_folders_are_followed_once_and_cycles_end(tmp_path: Path) -> None:
    shared, model = tmp_path / "shared", tmp_path / "model"
    (shared / "deep").mkdir(parents=True)
    model.mkdir()
    (shared / "deep" / "weights").write_text("1")
    (model / "config.json").write_text("{}")
    for name, target in (("first", shared), ("second", shared), ("self", model), ("file", shared / "deep" / "weights")):
        (model / name).symlink_to(target)
    (shared / "back").symlink_to(model)
    (model / "broken").symlink_to(tmp_path / "absent")
    assert files_below(model) == ["config.json", "file", "first/deep/weights"]
    (shared / "self").symlink_to(shared)
    assert files_below(shared) == ["back/config.json", "back/file", "deep/weights"]
