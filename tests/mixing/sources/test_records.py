"""The law of sources: whatever lies in a folder or a tar is a record with what belongs to it, or is counted."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import random
import tarfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cavendish.mixing.jobs.convert import FieldNames
from cavendish.mixing.sources.items import Listing, read_part
from cavendish.mixing.sources.listing import SourceConfig, list_items, read_item
from cavendish.mixing.sources.records import (
    Fields,
    list_images,
    list_photos,
    list_records,
    list_source,
    list_tars,
    with_keys,
)
from cavendish.mixing.sources.tars import read_slice, read_tar

JPEG, PNG, GIF = b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n", b"GIF89a"
HEIC, JXL = b"\0\0\0\x18ftypheic\0\0\0\0heic", b"\xff\x0a\xfa"
FIELDS = Fields(FieldNames().model_dump())
ENDINGS = {".jpg": JPEG, ".JPG": JPEG, ".jpeg": JPEG, ".png": PNG, ".jfif": JPEG, ".jpe": JPEG, "": JPEG, ".tga": GIF}
JUNK = {
    ".md": b"# text", ".csv": b"a,b", ".cls": b"7", "": b"plain", ".bin": bytes(90), ".svg": b"<svg/>",
}  # fmt: skip
HIDDEN = (".DS_Store", "._a.jpg", ".hidden.png")


@dataclass(frozen=True)
class Tree:
    """Files by name, the captions of their images by the bytes of each, and how many are no images."""

    files: dict[str, bytes]
    captions: dict[bytes, str]
    unreadable: int
    junk: int


@st.composite
def trees(draw: st.DrawFn) -> Tree:
    files: dict[str, bytes] = {}
    captions: dict[bytes, str] = {}
    folders = st.sampled_from(["", "a/", "a b/", "a/é/"])
    names = draw(st.lists(st.tuples(folders, st.text("abcß_-", min_size=1, max_size=6)), unique=True, max_size=8))
    unreadable = junk = 0
    for number, (folder, stem) in enumerate(names):
        kind = draw(st.sampled_from(["image", "image", "image", "unreadable", "junk", "hidden"]))
        name = f"{folder}{number}{stem}"
        if kind == "image":
            ending = draw(st.sampled_from(sorted(ENDINGS)))
            data = ENDINGS[ending] + bytes([number]) * 20
            files[name + ending] = data
            captions[data] = draw(st.sampled_from(["", f"image {number}"]))
            if captions[data]:
                files[f"{name}.txt"] = captions[data].encode()
            if draw(st.booleans()):
                files[f"{name}.json"] = b'{"url": "http://x"}'
        elif kind == "unreadable":
            files[f"{name}.heic"], unreadable = HEIC + bytes([number]), unreadable + 1
        else:
            ending = draw(st.sampled_from(sorted(JUNK)))
            hidden = f"{folder}{draw(st.sampled_from(HIDDEN))}{number}"
            files[hidden if kind == "hidden" else name + ending] = JUNK[ending]
            junk += 1
    return Tree(files, captions, unreadable, junk)


def put_folder(root: Path, files: dict[str, bytes]) -> None:
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    root.mkdir(parents=True, exist_ok=True)


def tar_of(files: dict[str, bytes], order: Callable[[str], object] | None = None) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name in sorted(files, key=order):
            info = tarfile.TarInfo(name)
            info.size = len(files[name])
            tar.addfile(info, io.BytesIO(files[name]))
    return out.getvalue()


def by_type(name: str) -> object:
    return name.endswith((".txt", ".json")), name.rpartition(".")[2], name


def shuffled(name: str) -> object:
    return random.Random(name).random()


def halves(files: dict[str, bytes]) -> bytes:
    """Two tars in one file, each record in one of them."""
    names = sorted(files)
    cut = next((i for i in range(len(names) // 2, len(names)) if stem(names[i]) != stem(names[i - 1])), len(names))
    return tar_of({n: files[n] for n in names[:cut]}) + tar_of({n: files[n] for n in names[cut:]})


def stem(name: str) -> str:
    return name.partition(".")[0]


TARS: dict[str, Callable[[dict[str, bytes]], bytes]] = {
    "x.tar": tar_of,
    "x.TAR": lambda files: tar_of(files, by_type),
    "sub/x.tar": lambda files: tar_of(files, shuffled),
    "x.tar.gz": lambda files: gzip.compress(tar_of(files)),
    "x.tgz": lambda files: gzip.compress(tar_of(files, by_type)),
    "x.tar.bz2": lambda files: bz2.compress(tar_of(files)),
    "x.tar.xz": lambda files: lzma.compress(tar_of(files)),
    "without ending": halves,
    "y.tar": halves,
}


def captions_of(root: Path, listing: Listing, field: str) -> dict[bytes, str]:
    found = {}
    for item in listing:
        if not item.problem:
            assert item.image is not None
            text = item.parts.get(field)
            found[read_part([root], item.image, 99)] = "" if text is None else read_part([root], text, 99).decode()
    return found


def check(root: Path, listing: Listing, tree: Tree, field: str) -> None:
    sidecars = sum(name.endswith((".txt", ".json")) for name in tree.files)
    assert captions_of(root, listing, field) == tree.captions
    assert sum(bool(item.problem) for item in listing) == tree.unreadable
    assert sum(listing.left_aside.values()) == tree.junk
    assert listing.found == len(tree.files) - sidecars
    keys = [item.key for item in with_keys("s", listing)]
    assert len(set(keys)) == len(keys)


@given(tree=trees())
@settings(max_examples=60, deadline=None)
def test_every_file_of_a_folder_is_a_record_or_counted(tmp_path_factory: pytest.TempPathFactory, tree: Tree) -> None:
    root = tmp_path_factory.mktemp("law")
    put_folder(root, tree.files)
    check(root, list_photos(root), tree, "text")
    check(root, list_records(root, FIELDS), tree, "caption")


@given(tree=trees(), name=st.sampled_from(sorted(TARS)))
@settings(max_examples=120, deadline=None)
def test_every_member_of_a_tar_is_a_record_or_counted_however_it_was_packed(
    tmp_path_factory: pytest.TempPathFactory, tree: Tree, name: str
) -> None:
    root = tmp_path_factory.mktemp("law")
    put_folder(root, {name: TARS[name](tree.files)})
    if not tree.files and name == "without ending":
        return  # 20 kB of zeros are no tar
    check(root, list_tars(root), tree, "text")
    check(root, list_records(root, FIELDS), tree, "caption")
    check(root / name, list_tars(root / name), tree, "text")


@given(tree=trees(), name=st.sampled_from(sorted(TARS)))
@settings(max_examples=40, deadline=None)
def test_every_image_is_listed_for_a_job_that_looks_at_all(
    tmp_path_factory: pytest.TempPathFactory, tree: Tree, name: str
) -> None:
    root = tmp_path_factory.mktemp("law")
    put_folder(root, {**tree.files, **({f"tars/{name}": TARS[name](tree.files)} if tree.files else {})})
    listing = list_images(root)
    assert listing.found == len(tree.files) * 2
    images = Counter(read_part([root], item.image, 99) for item in listing if item.image and not item.problem)
    assert images == dict.fromkeys(tree.captions, 2)
    assert sum(bool(item.problem) for item in listing) == 2 * tree.unreadable


def test_an_ending_that_is_wrong_is_no_matter(tmp_path: Path) -> None:
    put_folder(
        tmp_path,
        {
            "a.heic": JPEG + b"1",
            "b.txt.jpg": PNG,
            "c.dat": HEIC,
            "d": JXL,
            "e.json": JPEG,
            "f.CR2": b"II*\0\x10\0\0\0CR\2",
        },
    )
    problems = {item.name: item.problem for item in list_photos(tmp_path)}
    assert problems == {
        "a.heic": "",
        "b.txt.jpg": "",
        "c.dat": problems["c.dat"],
        "d": "JPEG XL is not read here; convert it to PNG or JPEG",
        "f.CR2": "camera raw is not read here; convert it to PNG or JPEG",
    }
    assert list_photos(tmp_path).left_aside == {".json: no image of its name": 1}


def test_fields_take_any_image_in_the_place_of_one(tmp_path: Path) -> None:
    names = ["p.input.tif", "p.edited", "p.edit.txt", "q.jfif", "q.jpg", "q.depth.png", "r.output.jfif"]
    put_folder(tmp_path, dict.fromkeys(names, JPEG))
    items = {item.name: {f: p.suffix for f, p in item.parts.items()} for item in list_records(tmp_path, FIELDS)}
    assert items == {
        "p": {"image": "input.tif", "edited": "edited", "instruction": "edit.txt"},
        "q": {"image": "jpg", "depth": "depth.png"},
        "r": {"edited": "output.jfif"},
    }
    assert list_records(tmp_path, FIELDS).left_aside == {".jfif: another image of its record": 1}


def test_links_to_folders_are_named_and_cycles_end(tmp_path: Path) -> None:
    put_folder(tmp_path / "in", {"a/x.jpg": JPEG, "a/b/y.jpg": PNG})
    put_folder(tmp_path / "out", {"z.jpg": GIF})
    (tmp_path / "in/a/b/up").symlink_to("../..", target_is_directory=True)
    (tmp_path / "in/other").symlink_to(tmp_path / "out", target_is_directory=True)
    listing = list_photos(tmp_path / "in")
    assert [item.name for item in listing] == ["a/b/y.jpg", "a/x.jpg"]
    assert listing.left_aside == {
        "link a/b/up: to a folder that is read where it lies": 1,
        "link other: to a folder outside; name that folder as a path of its own to read it": 1,
    }


def test_a_list_of_folders_is_one_source_with_keys_of_its_own(tmp_path: Path) -> None:
    put_folder(tmp_path, {"one/a.jpg": JPEG, "two/a.jpg": PNG, "two/a.txt": b"words", "three/one/a.jpg": GIF})
    paths = (Path("one"), Path("two"), Path("three/one"))
    source = SourceConfig(name="s", kind="folder", path=paths, licence="x")
    listing = list_items(source, tmp_path)
    assert {item.key: item.name for item in listing} == {
        "s-a": "a.jpg",
        "s-two-a": "two/a.jpg",
        "s-one-a": "one/a.jpg",
    }
    assert [read_item(source, tmp_path, item).data for item in listing] == [JPEG, PNG, GIF]
    assert read_item(source, tmp_path, listing.items[1]).text == "words"
    alone = list_source("s", [tmp_path / "one"], list_photos)
    assert list(alone) == list(listing)[:1]


def test_names_that_are_there_twice_apart_are_told_apart_or_refused(tmp_path: Path) -> None:
    first, second = tar_of({"1.jpg": JPEG + b"1", "1.txt": b"one"}), tar_of({"1.jpg": JPEG + b"2", "1.txt": b"two"})
    (tmp_path / "x.tar").write_bytes(first + second)
    assert captions_of(tmp_path, list_tars(tmp_path), "text") == {JPEG + b"1": "one", JPEG + b"2": "two"}
    images = tar_of({"1.jpg": JPEG + b"1"}) + tar_of({"1.jpg": JPEG + b"2"})
    (tmp_path / "x.tar").write_bytes(images + tar_of({"1.txt": b"one"}) + tar_of({"1.txt": b"two"}))
    listing = list_tars(tmp_path)
    assert captions_of(tmp_path, listing, "text") == {JPEG + b"1": "", JPEG + b"2": ""}
    assert [item.problem.partition(":")[0] for item in listing] == ["", "", *["no image under this key"] * 2]
    assert "sort the tar by name" in listing.items[-1].problem


def test_a_folder_that_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_folder(tmp_path, {"a.jpg": JPEG, "closed/b.jpg": JPEG})
    real = __import__("os").scandir

    def scandir(path: str) -> object:
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr("os.scandir", scandir)
    assert {item.name: item.problem for item in list_photos(tmp_path)} == {
        "a.jpg": "",
        "closed": "a folder that cannot be read: Permission denied",
    }


def raw_member(name: str, data: bytes = b"", **header: object) -> bytes:
    info = tarfile.TarInfo(name)
    for field, value in {"size": len(data), **header}.items():
        setattr(info, field, value)
    return info.tobuf(tarfile.GNU_FORMAT) + data + bytes(-len(data) % 512)


def test_links_and_other_kinds_of_members(tmp_path: Path) -> None:
    tar = b"".join(
        [
            raw_member("a/1.jpg", JPEG),
            raw_member("a/1.txt", b"one"),
            raw_member("b/2.jpg", type=tarfile.LNKTYPE, linkname="a/1.jpg"),
            raw_member("b/2.txt", type=tarfile.SYMTYPE, linkname="../a/1.txt"),
            raw_member("b/3.jpg", type=tarfile.SYMTYPE, linkname="/etc/passwd"),
            raw_member("b/4.jpg", type=tarfile.LNKTYPE, linkname="../../x.jpg"),
            raw_member("b/5.jpg", PNG, type=tarfile.CONTTYPE),
            raw_member("pipe", type=tarfile.FIFOTYPE),
            raw_member("c", type=tarfile.DIRTYPE),
            raw_member("l" * 150 + ".jpg", GIF),
            bytes(1024),
        ]
    )
    (tmp_path / "x.tar").write_bytes(tar)
    listing = list_tars(tmp_path)
    assert captions_of(tmp_path, listing, "text") == {JPEG: "one", PNG: "", GIF: ""}
    assert [item.name for item in listing] == ["x/a/1", "x/b/2", "x/b/5", f"x/{'l' * 150}"]
    assert listing.left_aside == {"a device or a pipe": 1, "a link to a file that is not in the tar": 2}


@pytest.mark.parametrize("form", ["old", "pax"])
def test_a_sparse_member_is_rejected_by_name_and_its_neighbours_are_read(tmp_path: Path, form: str) -> None:
    if form == "pax":
        records = b"22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n30 GNU.sparse.name=sparse.jpg\n"
        member = raw_member("x", records, type=tarfile.XHDTYPE) + raw_member("GNUSparseFile.0/sparse.jpg", b"1\n0\n9\n")
    else:
        header = bytearray(raw_member("sparse.jpg", type=tarfile.GNUTYPE_SPARSE, size=512))
        header[386:398], header[482] = b"00000000000\0", 1  # one more block of the map follows
        header[148:156] = b" " * 8
        header[148:156] = b"%06o\0 " % sum(header)
        member = bytes(header[:512]) + bytes(512) + JPEG.ljust(512, b"\0")
    tar = raw_member("a.jpg", JPEG) + member + raw_member("z.jpg", PNG) + bytes(1024)
    (tmp_path / "x.tar").write_bytes(tar)
    problems = {item.name: item.problem for item in list_tars(tmp_path)}
    assert problems == {"x/a": "", "x/sparse": "stored as a sparse file; pack the tar without --sparse", "x/z": ""}


@pytest.mark.parametrize(
    ("after", "said"),
    [
        (bytes(9000), ""),
        (b"garbage" * 100, "after the end of the archive, at byte 2048, follows what is no tar"),
        (tar_of({"b.jpg": PNG})[:700], "cut short"),
    ],
)
def test_what_follows_the_end_of_an_archive_is_read_or_told(tmp_path: Path, after: bytes, said: str) -> None:
    (tmp_path / "x.tar").write_bytes(raw_member("a.jpg", JPEG) + bytes(1024) + after)
    members, damage = read_tar(tmp_path / "x.tar")
    assert members[0].name == "a.jpg"
    assert said in damage
    assert bool(said) == bool(damage)


@pytest.mark.parametrize("cut", [10, 60, 200])
def test_a_compressed_tar_that_is_cut_gives_what_comes_before_and_says_so(tmp_path: Path, cut: int) -> None:
    noise = {f"{n}.jpg": JPEG + random.Random(n).randbytes(2000) for n in range(5)}
    whole = gzip.compress(tar_of(noise))
    (tmp_path / "x.tar.gz").write_bytes(whole[: len(whole) - cut * 20])
    listing = list_tars(tmp_path)
    assert "damaged or cut compressed data" in listing.items[-1].problem
    for item in listing.items[:-1]:
        assert item.image is not None
        assert read_part([tmp_path], item.image, 9000) == noise[f"{item.name[2:]}.jpg"]


def test_bytes_of_a_compressed_tar_are_read_in_any_order(tmp_path: Path) -> None:
    files = {f"{n:02d}.jpg": random.Random(n).randbytes(3000) for n in range(20)}
    (tmp_path / "x.tgz").write_bytes(gzip.compress(tar_of(files)))
    members, _ = read_tar(tmp_path / "x.tgz")
    random.Random(0).shuffle(members)
    assert {m.name: read_slice(tmp_path / "x.tgz", m.offset, m.size) for m in members} == files


def test_zstd_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.tar.zst").write_bytes(b"\x28\xb5\x2f\xfd" + bytes(600))
    (item,) = list_tars(tmp_path)
    assert "compressed as zstd, which is not read; decompress it first" in item.problem
