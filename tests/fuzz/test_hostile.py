"""Files made to hurt, not merely broken: bombs, traversal, links, devices, lies about sizes; in bounded memory."""

from __future__ import annotations

import io
import json
import os
import resource
import struct
import subprocess
import sys
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from cavendish.encoders.sample import InputError
from cavendish.mixing.config import Config, read_config
from cavendish.mixing.images import decode_png16, decode_rgb
from cavendish.mixing.lock import read_lock, write_lock
from cavendish.mixing.shards.dataset import Plan, parse_row, read_row, row_bytes, start_dataset
from cavendish.mixing.shards.sample_format import parse_sample, sample_parts
from cavendish.mixing.shards.writer import ShardWriter
from cavendish.mixing.sources.arrays import decode_depth_file
from cavendish.mixing.storage.files import canonical_json, digest
from cavendish.mixing.storage.place import collect_leftovers, read_json, temporary_name
from cavendish.trainer.evaluation.benchmarks.coco_masks import decode_segmentation
from cavendish.trainer.evaluation.benchmarks.files import read_gray, read_npy, read_plain_pickle
from cavendish.trainer.training.checkpoint import State, read_checkpoint, write_checkpoint
from tests.conftest import tiny_sample
from tests.fuzz.readers import picture, put, tar_of
from tests.mixing.shard_data import lock_text, write_raw


def bounded(code: str, folder: Path, memory_mb: int) -> str:
    """Run code in a child that may use so much memory over what its imports took, and 60 s of CPU; return stdout."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_CPU, (60, 60))

    head = (
        "import resource, sys\nfrom pathlib import Path\nfrom cavendish.encoders.sample import InputError\n"
        "folder = Path(sys.argv[1])\n"
        "def limit():\n"
        "    used = int(Path('/proc/self/statm').read_text().split()[0]) * resource.getpagesize()\n"
        f"    resource.setrlimit(resource.RLIMIT_AS, (used + ({memory_mb} << 20),) * 2)\n"
    )
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", head + code, str(folder)]
    environment = {**os.environ, "PYTHONPATH": str(root), "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, preexec_fn=limit, cwd=folder, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def png_claiming(width: int, height: int, depth: int = 8, kind: int = 2) -> bytes:
    """Make a small PNG whose header claims a large picture; every checksum fits."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    pixels = zlib.compress(bytes(1000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def test_a_yaml_bomb_is_refused_in_a_hundred_megabytes(tmp_path: Path) -> None:
    rows = [b"a: &a [x,x,x,x,x,x,x,x,x]"]
    rows += [b"%c: &%c [%s]" % (c, c, b",".join([b"*%c" % (c - 1)] * 9)) for c in range(ord("b"), ord("k"))]
    put(tmp_path, "bomb.yaml", b"\n".join(rows))
    told = bounded(
        "from cavendish.render.job import RenderConfig\nfrom cavendish.mixing.config import read_config\nlimit()\n"
        "try:\n    read_config(RenderConfig, folder / 'bomb.yaml')\nexcept InputError as error:\n    print(error)\n",
        tmp_path,
        100,
    )
    assert "bomb.yaml" in told
    assert len(told) < 5000


def test_pictures_that_claim_what_cannot_be_in_their_bytes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be in"):
        decode_rgb(png_claiming(8000, 8000), "x.png")
    with pytest.raises(InputError, match="cannot be in"):
        decode_png16(png_claiming(7000, 7000, 16, 0), "x.png", 1)
    put(tmp_path, "x.png", png_claiming(8000, 8000, 8, 0))
    with pytest.raises(InputError, match="cannot be in"):
        read_gray(tmp_path / "x.png")


def test_a_chunk_of_a_png_that_claims_gigabytes_takes_no_memory(tmp_path: Path) -> None:
    grey = png_claiming(16, 16, 8, 0)
    put(tmp_path, "x.png", grey[:33] + struct.pack(">I", 2**31 - 9) + b"tEXt" + grey[33:])
    told = bounded(
        "from cavendish.mixing.images import decode_rgb\n"
        "from cavendish.trainer.evaluation.benchmarks.files import read_gray\nlimit()\n"
        "path = folder / 'x.png'\n"
        "for read in (read_gray, lambda path: decode_rgb(path.read_bytes(), 'x.png')):\n"
        "    try:\n        read(path)\n    except InputError as error:\n        print(error)\n",
        tmp_path,
        100,
    )
    assert told.count("x.png: damaged image: a chunk is longer") == 2


def test_a_zip_bomb_in_a_texture_takes_no_memory(tmp_path: Path) -> None:
    put(tmp_path, "x.png", png_claiming(30_000, 30_000))
    told = bounded(
        "from cavendish.render.assets.shader_nodes import decode_texture\nlimit()\n"
        "try:\n    decode_texture((folder / 'x.png').read_bytes(), 'x.png')\n"
        "except InputError as error:\n    print(error)\n",
        tmp_path,
        100,
    )
    assert "exceeds limit" in told or "too large" in told


def hostile_tar() -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for name, kind, link in (
            ("link.png", tarfile.SYMTYPE, "/etc/passwd"),
            ("hard.png", tarfile.LNKTYPE, "../../secret.png"),
            ("device.png", tarfile.CHRTYPE, ""),
            ("pipe.png", tarfile.FIFOTYPE, ""),
            ("folder.png", tarfile.DIRTYPE, ""),
        ):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, link
            tar.addfile(info)
        for name in ("../../../evil.png", "/etc/cron.d/evil.png", "a/../../b.png", "good.png"):
            for suffix, data in ((".png", picture()), (".txt", b"words")):
                info = tarfile.TarInfo(name.removesuffix(".png") + suffix)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    return file.getvalue()


def test_links_devices_and_traversal_in_a_tar_write_and_read_nothing_outside(tmp_path: Path) -> None:
    from cavendish.mixing.jobs.convert import ConvertConfig, convert
    from cavendish.mixing.sources.listing import SourceConfig, list_items, read_item

    put(tmp_path, "data/web/w.tar", hostile_tar())
    put(tmp_path, "secret.png", picture(7))
    source = SourceConfig(name="web", kind="tar", path=Path("web"), licence="x")
    items = list_items(source, tmp_path / "data")
    assert all(item.image is not None for item in items)  # links and devices are passed over
    assert {read_item(source, tmp_path / "data", item).data for item in items} == {picture()}
    assert all("/" not in item.key and ".." not in item.key for item in items)
    before = {path for path in tmp_path.rglob("*") if "out" not in path.parts}
    config = ConvertConfig(name="web", path=Path("web"), licence="x")
    result = convert(config, tmp_path / "out", data=tmp_path / "data")
    assert result.totals is not None
    assert result.totals["records"] == len(items)
    assert {path for path in tmp_path.rglob("*") if "out" not in path.relative_to(tmp_path).parts} == before


@pytest.mark.parametrize("size", [2**33 - 1, 10**11])
def test_a_member_that_claims_gigabytes_is_named_and_not_read(tmp_path: Path, size: int) -> None:
    from cavendish.mixing.sources.listing import SourceConfig, list_items

    info = tarfile.TarInfo("big.png")
    info.size = size
    put(
        tmp_path,
        "w.tar",
        tar_of({"a.png": picture()})[: 512 + -(-len(picture()) // 512) * 512]
        + info.tobuf(tarfile.GNU_FORMAT)
        + bytes(1024),
    )
    with (tmp_path / "w.tar").open("r+b") as file:
        file.truncate(1 << 32)  # sparse: 4 GB that take no room
    source = SourceConfig(name="web", kind="tar", path=Path("w.tar"), licence="x")
    items = list_items(source, tmp_path)
    assert [item.name for item in items] == ["w/a", "w/damaged"]
    assert "beyond the end of the file" in items.items[-1].problem


class _Evil:
    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, ("touch never",)


def test_pickles_in_npy_and_checkpoints_are_never_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    np.save(tmp_path / "a.npy", np.array([_Evil()], object), allow_pickle=True)
    with pytest.raises(InputError, match="not a plain"):
        read_npy(tmp_path / "a.npy")
    with pytest.raises(InputError, match="object"):
        decode_depth_file((tmp_path / "a.npy").read_bytes(), "a.npy", 1.0, None)
    torch.save({"schema": "x", "model": _Evil()}, tmp_path / "checkpoint-000001.pt")
    with pytest.raises(InputError, match="not a readable checkpoint"):
        read_checkpoint(tmp_path / "checkpoint-000001.pt")
    assert not (tmp_path / "never").exists()


@pytest.mark.parametrize("depth", [3000, 200_000])
def test_deep_json_and_yaml_are_one_line(tmp_path: Path, depth: int) -> None:
    class Any_(Config):
        a: int

    put(tmp_path, "a.json", b"[" * depth + b"]" * depth)
    with pytest.raises(InputError, match="not valid json"):
        read_json(tmp_path / "a.json", "a list")
    put(tmp_path, "a.yaml", b"a: " + b"[" * depth + b"]" * depth)
    with pytest.raises(InputError) as caught:
        read_config(Any_, tmp_path / "a.yaml")
    assert "\n" not in str(caught.value)


def test_npy_headers_that_are_no_python_are_one_line(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((3, 3), np.float32))
    good = (tmp_path / "a.npy").read_bytes()
    for text in (b"(((((((", b"{'descr': '<f4', 'shape': (-1, -9), 'fortran_order': False}"):
        data = good[:10] + text.ljust(len(good) - 10 - 36)[: len(good) - 46] + good[-36:]
        put(tmp_path, "a.npy", data)
        with pytest.raises(InputError):
            read_npy(tmp_path / "a.npy")
        with pytest.raises(InputError):
            decode_depth_file(data, "a.npy", 1.0, None)


def test_a_pickle_that_appends_to_text_is_one_line(tmp_path: Path) -> None:
    put(tmp_path, "a.p", b"\x80\x02U\x01aU\x01ba.")
    with pytest.raises(InputError, match="damaged pickle"):
        read_plain_pickle(tmp_path / "a.p")


@pytest.mark.parametrize(
    "polygon", [[float("nan")] * 6, [1e9, 0, 0, 1e9, 5, 5], [0, 0, 1, 1, 2, 2, 3], [0, 0, 99, 99] * 400_000]
)
def test_polygons_that_would_crash_or_fill_the_c_code_are_refused(polygon: list[float]) -> None:
    with pytest.raises(InputError, match="not a COCO segmentation"):
        decode_segmentation([polygon], 100, 100, "x")
    with pytest.raises(InputError, match="not a COCO segmentation"):
        decode_segmentation({"size": [4, 4], "counts": 2**40}, 4, 4, "x")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("camera", 3),
        ("captions", [1]),
        ("quality", {"score": "high"}),
        ("facts", []),
        ("edit", {"kind": "x", "instruction": 3, "instance_id": 1}),
    ],
)
def test_a_record_whose_json_has_values_of_another_kind_is_named(field: str, value: object) -> None:
    parts = sample_parts(tiny_sample())
    meta = json.loads(parts["json"])
    with pytest.raises(InputError, match=r"scene-000\.json: field missing or of the wrong kind"):
        parse_sample("scene-000", {**parts, "json": canonical_json({**meta, field: value})})


@pytest.mark.parametrize(
    ("field", "value"), [("box", [0, 0, 1.5, 2]), ("category", 3), ("id", -1), ("attributes", {"color": 1})]
)
def test_an_instance_with_values_of_another_kind_is_named(field: str, value: object) -> None:
    parts = sample_parts(tiny_sample())
    meta = json.loads(parts["json"])
    meta["instances"][0][field] = value
    with pytest.raises(InputError, match="wrong kind"):
        parse_sample("scene-000", {**parts, "json": canonical_json(meta)})


def test_a_row_with_a_flipped_bit_or_a_path_in_it_is_refused(tmp_path: Path) -> None:
    plan = Plan("test", 1, {})
    start_dataset(tmp_path, plan)
    with ShardWriter(tmp_path, 0, plan.digest) as writer:
        writer.add(tiny_sample())
    path = tmp_path / "shard-000000.json"
    row, good = read_row(path), path.read_bytes()
    assert row_bytes(row) == good
    with pytest.raises(InputError, match="digest is not that of its content"):
        parse_row(good.replace(b"CC0-1.0", b"CC0-1.1"), path)
    for change in ({"shard": "../../x.tar"}, {"count": 7}, {"facts": {"a": {}}}, {"bytes": 10}):
        values = {name: value for name, value in json.loads(good).items() if name not in ("digest", "schema")} | change
        hostile = canonical_json({**values, "schema": "cavendish-shard/1", "digest": digest(values)})
        with pytest.raises(InputError, match="damaged shard row"):
            parse_row(hostile, path)


@pytest.mark.parametrize(
    ("field", "value"),
    [("seed", -1), ("max_bad", "2"), ("sources", []), ("exclusions", {"a": 1}), ("mixture_digest", None)],
)
def test_a_lock_with_a_digest_that_fits_is_still_checked(tmp_path: Path, field: str, value: object) -> None:
    write_raw(tmp_path / "raw")
    write_lock(tmp_path / "lock.json", lock_text(tmp_path))
    values = json.loads((tmp_path / "lock.json").read_bytes())
    del values["digest"]
    values[field] = value
    put(tmp_path, "lock.json", canonical_json({**values, "digest": digest(values)}))
    with pytest.raises(InputError, match="damaged lock"):
        read_lock(tmp_path / "lock.json")


def test_offsets_beyond_an_arrow_file_are_named_before_they_end_the_process(tmp_path: Path) -> None:
    import pyarrow as pa

    from cavendish.mixing.sources.listing import SourceConfig, list_items

    table = pa.table({"image": [picture(1), picture(2)], "text": ["aaaa", "bbbb"]})
    file = io.BytesIO()
    with pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table)
    good = struct.pack("<3i", 0, 4, 8)
    assert file.getvalue().count(good) == 1
    put(tmp_path, "d/data.arrow", file.getvalue().replace(good, struct.pack("<3i", 0, 4, 2**31 - 1)))
    put(tmp_path, "d/state.json", json.dumps({"_data_files": [{"filename": "data.arrow"}]}))
    source = SourceConfig(name="s", kind="arrow", path=Path("d"), licence="x")
    with pytest.raises(InputError, match="not an arrow stream"):
        list_items(source, tmp_path)


def test_a_flipped_byte_in_the_weights_of_a_checkpoint_is_noticed(tmp_path: Path) -> None:
    tensors = {"w": torch.arange(1000.0)}
    path = write_checkpoint(tmp_path, State(3, {"a": 1}, {}, {}, [], {}, tensors, tensors, {}), keep=2)
    data = path.read_bytes()
    at = data.index(tensors["w"].numpy().tobytes()) + 2000
    path.write_bytes(data[:at] + bytes([data[at] ^ 16]) + data[at + 1 :])
    with pytest.raises(InputError, match="delete it to continue from the one before"):
        read_checkpoint(path)


def test_a_flipped_byte_in_a_saved_generator_is_noticed(tmp_path: Path) -> None:
    from cavendish.trainer.generators.folder import load_generator
    from cavendish.trainer.generators.tiny import TinyConfig, TinyGenerator

    TinyGenerator(TinyConfig(width=16), 0).save(tmp_path)
    load_generator(tmp_path)
    path = tmp_path / "weights.pt"
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2] + bytes([data[len(data) // 2] ^ 4]) + data[len(data) // 2 + 1 :])
    with pytest.raises(InputError, match="not the weights of a tiny"):
        load_generator(tmp_path)


def test_corners_far_outside_of_a_picture_cost_no_time(tmp_path: Path) -> None:
    from cavendish.trainer.evaluation.benchmarks import read_benchmark

    put(tmp_path, "val/1.jpg", picture(kind=".jpg"))
    shapes = [{"label": "target", "points": [[0, 0], [2e9, 5], [5, 2e9]]}]
    put(tmp_path, "val/1.json", json.dumps({"text": ["what?"], "shapes": shapes}))
    with pytest.raises(InputError, match="in or near the picture"):
        read_benchmark("reasonseg", tmp_path).items[0].read_truth()


def test_what_killed_processes_left_is_collected_and_nothing_else(tmp_path: Path) -> None:
    mine = temporary_name(tmp_path / "a.json")
    dead = subprocess.Popen(["true"])
    dead.wait()
    left = mine.with_name(mine.name.replace(str(os.getpid()), str(dead.pid)))
    for path in (mine, left, tmp_path / "a.json", tmp_path / "b.tmp-elsewhere-1"):
        path.touch()
    collect_leftovers(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["a.json", "b.tmp-elsewhere-1", mine.name])
