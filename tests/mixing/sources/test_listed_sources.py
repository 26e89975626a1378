"""COCO json, datasets saved to disk and sources at a URL: what is listed is what is read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pytest

from cavendish.encoders.sample import InputError
from cavendish.mixing.images import encode_png
from cavendish.mixing.sources.listing import SourceConfig, list_items, read_item
from cavendish.mixing.sources.tables import list_arrow

PICTURES = [encode_png(np.full((40 + i, 50, 3), 20 * i, np.uint8)) for i in range(6)]


def read_all(source: SourceConfig, root: Path) -> dict[str, tuple[bytes, str, dict[str, str]]]:
    found = {}
    for item in list_items(source, root):
        if not item.problem:
            image = read_item(source, root, item)
            found[item.name] = (image.data, image.text, dict(image.facts))
    return found


def coco(tmp_path: Path, images: list[dict[str, Any]], **more: Any) -> SourceConfig:
    (tmp_path / "val").mkdir()
    for i, data in enumerate(PICTURES):
        (tmp_path / "val" / f"{i:012d}.png").write_bytes(data)
    (tmp_path / "captions.json").write_text(json.dumps({"images": images, **more}))
    return SourceConfig(name="coco", kind="coco", path=Path(), licence="unknown", annotations=Path("captions.json"))


def test_coco_gives_captions_licences_and_ids(tmp_path: Path) -> None:
    images = [
        {"id": 7 - i, "file_name": f"val/{i:012d}.png", "license": 4, "coco_url": f"http://x/{i}"} for i in range(3)
    ]
    source = coco(
        tmp_path,
        images,
        licenses=[{"id": 4, "name": "Attribution License", "url": "http://cc"}],
        annotations=[
            {"id": 12, "image_id": 7, "caption": "second"},
            {"id": 11, "image_id": 7, "caption": " a  cat\n"},
            {"id": 13, "image_id": 6, "segmentation": [], "category_id": 1},
        ],
    )
    found = read_all(source, tmp_path)
    assert list(found) == [f"val/{i:012d}.png" for i in (2, 1, 0)]  # by id
    data, text, facts = found["val/000000000000.png"]
    assert (data, text) == (PICTURES[0], "a cat")
    assert facts == {"licence": "Attribution License", "url": "http://x/0", "coco_image_id": "7"}
    assert found["val/000000000001.png"][1] == ""


def test_coco_files_do_not_leave_the_folder(tmp_path: Path) -> None:
    names = ["../secret.png", "/etc/passwd", "val/nope.png", 5, "", "val/000000000001.png", "link.png"]
    (tmp_path / "link.png").symlink_to("/etc/passwd")
    source = coco(tmp_path, [{"id": i, "file_name": name} for i, name in enumerate(names)])
    problems = [item.problem for item in list_items(source, tmp_path)]
    assert [bool(problem) for problem in problems] == [True] * 5 + [False, True]
    (tmp_path / "captions.json").write_text("[" * 100_000)
    with pytest.raises(InputError, match="not valid json"):
        list_items(source, tmp_path)
    (tmp_path / "captions.json").write_text('{"info": 1}')
    with pytest.raises(InputError, match="no list of images"):
        list_items(source, tmp_path)


def save(folder: Path, table: pa.Table, files: int = 1, batch: int = 2) -> None:
    """Write what `datasets.Dataset.save_to_disk` writes: arrow streams of small batches, and state.json."""
    folder.mkdir(parents=True)
    names = [f"data-{i:05d}-of-{files:05d}.arrow" for i in range(files)]
    each = -(-table.num_rows // files)
    for i, name in enumerate(names):
        part = table.slice(i * each, each)
        with pa.OSFile(str(folder / name), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(part, max_chunksize=batch)
    state = {"_data_files": [{"filename": name} for name in names], "_fingerprint": "x", "_indices_data_files": None}
    (folder / "state.json").write_text(json.dumps(state))
    (folder / "dataset_info.json").write_text("{}")


def dataset(pictures: list[bytes | None]) -> pa.Table:
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    rows = [None if data is None else {"bytes": data, "path": "x.png"} for data in pictures]
    texts = [f"picture {i}" for i in range(len(pictures))]
    return pa.table({"label": list(range(len(pictures))), "image": pa.array(rows, kind), "text": texts,
                     "license": ["MIT"] * len(pictures)})  # fmt: skip


@pytest.mark.parametrize(("files", "batch"), [(1, 100), (1, 2), (3, 1)])
def test_a_saved_dataset_is_read_in_place(tmp_path: Path, files: int, batch: int) -> None:
    save(tmp_path / "set", dataset(list(PICTURES)), files, batch)
    source = SourceConfig(name="hub", kind="arrow", path=Path("set"), licence="unknown")
    found = read_all(source, tmp_path)
    assert [data for data, _, _ in found.values()] == PICTURES
    assert [text for _, text, _ in found.values()] == [f"picture {i}" for i in range(6)]
    assert {facts["licence"] for _, _, facts in found.values()} == {"MIT"}


def test_splits_nulls_and_plain_bytes(tmp_path: Path) -> None:
    save(tmp_path / "d/train", dataset([PICTURES[0], None, PICTURES[2]]))
    save(tmp_path / "d/test", pa.table({"jpg": pa.array(PICTURES[3:5], pa.large_binary())}))
    (tmp_path / "d/dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    items = list_arrow(tmp_path / "d").items
    assert [item.problem for item in items] == ["", "holds no bytes, only the name of a file", "", "", ""]
    source = SourceConfig(name="hub", kind="arrow", path=Path("d"), licence="MIT")
    assert [data for data, _, _ in read_all(source, tmp_path).values()] == [PICTURES[i] for i in (0, 2, 3, 4)]


def test_what_is_no_saved_dataset_says_so(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="save_to_disk"):
        list_arrow(tmp_path)
    (tmp_path / "state.json").write_text('{"_data_files": [{"filename": "../x.arrow"}]}')
    with pytest.raises(InputError, match="names no arrow files"):
        list_arrow(tmp_path)
    (tmp_path / "state.json").write_text('{"_data_files": [{"filename": "x.arrow"}]}')
    (tmp_path / "x.arrow").write_bytes(b"not arrow at all")
    with pytest.raises(InputError, match="not an arrow stream"):
        list_arrow(tmp_path)
    save(tmp_path / "words", pa.table({"text": ["a"]}))
    with pytest.raises(InputError, match="no column of images"):
        list_arrow(tmp_path / "words")


def test_a_url_is_copied_once_and_read_there(tmp_path: Path) -> None:
    remote = fsspec.filesystem("memory")
    for i, data in enumerate(PICTURES[:3]):
        remote.pipe(f"/bucket/photos/{i}.png", data)
    remote.pipe("/bucket/photos/0.txt", b"the first")
    remote.pipe("/bucket/photos/notes.exe", b"not wanted")
    source = SourceConfig(
        name="far", kind="folder", path="memory://bucket/photos", licence="MIT", mirror=Path("mirror/photos")
    )
    listed = list_items(source, tmp_path)
    root = tmp_path / "mirror/photos"
    assert listed.left_aside == {".exe: not copied from its URL": 1}
    assert sorted(path.name for path in root.iterdir()) == ["0.png", "0.txt", "1.png", "2.png"]
    found = read_all(source, tmp_path)
    assert [data for data, _, _ in found.values()] == PICTURES[:3]
    assert found["0.png"][1] == "the first"
    before = {path: path.stat().st_mtime_ns for path in root.iterdir()}
    (root / "1.png").write_bytes(b"half")
    list_items(source, tmp_path)
    assert (root / "1.png").read_bytes() == PICTURES[1]
    assert all(path.stat().st_mtime_ns == before[path] for path in root.iterdir() if path.name != "1.png")
    with pytest.raises(InputError, match="no files there"):
        list_items(source.model_copy(update={"path": "memory://bucket/nothing"}), tmp_path)
    with pytest.raises(ValueError, match="mirror"):
        SourceConfig(name="far", kind="folder", path="memory://bucket/photos", licence="MIT")
