"""Data made by others, as img2dataset and WebDataset write it, through to examples."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from cavendish.encoders.sample import InputError, Sample
from cavendish.mixing.config import read_config
from cavendish.mixing.jobs.convert import ConvertConfig, convert
from cavendish.mixing.loader import MixtureDataset
from cavendish.mixing.mixture.config import Mixture
from cavendish.mixing.mixture.make_lock import lock_mixture
from cavendish.mixing.shards.dataset import committed_rows
from cavendish.mixing.shards.reader import read_dataset, read_parts, verify
from cavendish.mixing.sources.arrays import decode_depth_file, decode_normals_file
from cavendish.mixing.storage import objects
from cavendish.mixing.storage.cache import open_file
from tests.mixing.storage.s3_server import every_tenth, s3_server

ROOT = Path(__file__).parents[3]


def picture(seed: int, kind: str = "JPEG", size: tuple[int, int] = (96, 64), **options: object) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (*size[::-1], 3), np.uint8)
    data = io.BytesIO()
    Image.fromarray(cv2.GaussianBlur(pixels, (0, 0), 3)).save(data, kind, **options)
    return data.getvalue()


def write_tar(path: Path, members: dict[str, bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def config(**changes: object) -> ConvertConfig:
    return ConvertConfig.model_validate({"name": "web", "path": "foreign", "licence": "CC-BY-4.0", **changes})


def samples_of(directory: Path) -> dict[str, Sample]:
    return {record.key: record for record in read_dataset(directory) if isinstance(record, Sample)}


def img2dataset(data: Path) -> None:
    for shard in range(2):
        members: dict[str, bytes] = {}
        for number in range(3):
            key = f"{shard:05d}{number:04d}"
            members[f"{key}.jpg"] = picture(10 * shard + number)
            members[f"{key}.json"] = json.dumps({"caption": "no", "license": "CC0-1.0" if number else None}).encode()
            members[f"{key}.txt"] = f"a blur {key}\n".encode()
        write_tar(data / f"foreign/{shard:05d}.tar", members)


def test_captions_of_img2dataset_become_shards_without_a_pixel_changed(tmp_path: Path) -> None:
    img2dataset(tmp_path)
    result = convert(config(records_per_shard=4), tmp_path / "raw", data=tmp_path)
    assert result.totals is not None
    assert result.totals["records"] == 6
    assert verify(tmp_path / "raw") == []
    samples = samples_of(tmp_path / "raw")
    assert samples["web-00001-000010002"].captions == ("a blur 000010002",)
    assert {key: sample.licence for key, sample in samples.items() if key.endswith("0000")} == {
        "web-00000-000000000": "CC-BY-4.0",
        "web-00001-000010000": "CC-BY-4.0",
    }
    row = committed_rows(tmp_path / "raw")[0]
    with open_file(tmp_path / "raw" / row.shard) as file:
        assert read_parts(file, row, "web-00000-000000001")["image.jpg"] == picture(1)


def test_a_mixture_draws_captions_and_edits_from_them(tmp_path: Path) -> None:
    img2dataset(tmp_path)
    pairs = {}
    for number in range(4):
        pairs[f"p{number}.input.webp"] = picture(number, "WEBP", lossless=True)
        pairs[f"p{number}.edited.png"] = picture(50 + number, "PNG")
        pairs[f"p{number}.json"] = json.dumps({"instruction": f"Blur it {number} times"}).encode()
    write_tar(tmp_path / "pairs.tar", pairs)
    convert(config(), tmp_path / "captions", data=tmp_path)
    convert(config(name="edits", path="pairs.tar"), tmp_path / "edits", data=tmp_path)
    sources = {"web": {"path": "captions", "tasks": ["generate"]}, "pairs": {"path": "edits", "tasks": ["edit"]}}
    values = {name: {**source, "tasks": dict.fromkeys(source["tasks"], 1)} for name, source in sources.items()}
    mixture = Mixture.model_validate({"ratios": {"generation": 0.5, "editing": 0.5}, "sources": values})
    examples = [item.example for item in MixtureDataset(lock_mixture(mixture, tmp_path), tmp_path, 64, count=8)]
    edits = [example for example in examples if example.task == "edit"]
    assert {example.task for example in examples} == {"generate", "edit"}
    assert {example.spec["origin"]["key"] for example in edits} == {f"edits-pairs-p{number}" for number in range(4)}
    for example in edits:
        assert example.source is not None
        assert not np.array_equal(example.source, example.target)
        assert "lur it" in example.prompt


def test_a_folder_and_its_faults(tmp_path: Path) -> None:
    folder = tmp_path / "foreign"
    (folder / "a b").mkdir(parents=True)
    (folder / "a b/turned.jpg").write_bytes(picture(1, exif=_turned()))
    (folder / "a b/turned.txt").write_text("a turned picture")
    (folder / "good.jpg").write_bytes(picture(2))
    (folder / "good.txt").write_text("two\nlines\x00")
    (folder / "silent.jpg").write_bytes(picture(3))
    (folder / "broken.jpg").write_bytes(picture(4)[:300])
    (folder / "bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + (60000).to_bytes(4, "big") * 2 + bytes(20))
    (folder / "small.jpg").write_bytes(picture(5, size=(20, 90)))
    (folder / "my.holiday.jpg").write_bytes(picture(7))
    (folder / "README.md").write_text("not a record")
    (tmp_path / "secret.txt").write_text("not for a caption")
    (folder / "link.jpg").write_bytes(picture(6))
    (folder / "link.txt").symlink_to(tmp_path / "secret.txt")
    convert(config(), tmp_path / "raw", data=tmp_path)
    samples = samples_of(tmp_path / "raw")
    assert samples["web-good"].captions == ("two lines",)
    turned = next(sample for key, sample in samples.items() if "turned" in key)
    assert turned.image.shape == (96, 64, 3)
    assert len(samples) == 2
    reasons = {x.key: x.reason for row in committed_rows(tmp_path / "raw") for x in row.rejected}
    assert "serves no task" in reasons["web-silent"]
    assert "leaves the folder" in reasons["web-link"]
    assert "min_side" in reasons["web-small"]
    assert reasons["web-my"] == "no field ends in .holiday.jpg"
    assert not any("README" in key for key in reasons)
    assert {"web-broken", "web-bomb"} <= reasons.keys()


def _turned() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


def test_depth_and_normals_of_other_tools_arrive_in_metres_and_our_axes(tmp_path: Path) -> None:
    depth_m = np.tile(np.linspace(0.5, 20, 96, dtype=np.float32), (64, 1))
    depth_m[0] = 0
    buffer = io.BytesIO()
    np.save(buffer, np.tile(np.float32([0.6, 0, -0.8]), (64, 96, 1)))
    write_tar(
        tmp_path / "foreign.tar",
        {
            "one.jpg": picture(1),
            "one.depth.png": cv2.imencode(".png", np.rint(depth_m * 1000).astype(np.uint16))[1].tobytes(),
            "one.normals.npy": buffer.getvalue(),
        },
    )
    settings = config(path="foreign.tar", normals_convention="opencv", sky_from_m=19.5)
    convert(settings, tmp_path / "raw", data=tmp_path)
    sample = samples_of(tmp_path / "raw")["web-foreign-one"]
    assert sample.depth_m is not None
    assert sample.normals is not None
    assert np.isnan(sample.depth_m[0]).all()
    assert np.isposinf(sample.depth_m[1:, -1]).all()
    np.testing.assert_allclose(sample.depth_m[1:, :90], depth_m[1:, :90], rtol=1e-3)
    np.testing.assert_allclose(sample.normals[5, 5], [0.6, 0, 0.8], atol=1e-4)  # OpenCV's z points away


def test_depth_of_exr_and_npy_are_read_alike(tmp_path: Path) -> None:
    OpenEXR = pytest.importorskip("OpenEXR")
    depth_m = np.geomspace(0.1, 900, 64 * 96, dtype=np.float32).reshape(64, 96)
    header = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}
    OpenEXR.File(header, {"Z": depth_m}).write(str(tmp_path / "a.exr"))
    buffer = io.BytesIO()
    np.save(buffer, depth_m)
    for data, name in (((tmp_path / "a.exr").read_bytes(), "a.exr"), (buffer.getvalue(), "a.npy")):
        np.testing.assert_array_equal(decode_depth_file(data, name, 1.0, None), depth_m)


def hostile_npy(shape: tuple[int, ...], descr: str, body: bytes) -> bytes:
    header = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}}}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode() + body


@pytest.mark.parametrize(
    "data", [hostile_npy((10**9, 10**9), "<f4", b"1234"), hostile_npy((1,), "|O", b"cos\nsystem\n"), b"junk", b""]
)
def test_hostile_arrays_are_refused(data: bytes) -> None:
    with pytest.raises(InputError, match=r"x\.npy"):
        decode_depth_file(data, "x.npy", 1, None)
    with pytest.raises(InputError, match=r"x\.exr"):
        decode_normals_file(data, "x.exr", "opengl")


def test_vectors_that_are_no_normals_are_refused() -> None:
    buffer = io.BytesIO()
    np.save(buffer, np.full((4, 4, 3), 9.0))
    with pytest.raises(InputError, match=r"vectors of length 15.6; normals have length 1"):
        decode_normals_file(buffer.getvalue(), "n.npy", "opengl")


def test_a_damaged_tar_gives_what_comes_before_the_damage(tmp_path: Path) -> None:
    img2dataset(tmp_path)
    path = tmp_path / "foreign/00001.tar"
    path.write_bytes(path.read_bytes()[: 5 * 512 + len(picture(10))])
    convert(config(), tmp_path / "raw", data=tmp_path)
    reasons = {x.key: x.reason for row in committed_rows(tmp_path / "raw") for x in row.rejected}
    assert "nothing after it was read" in reasons["web-00001-damaged"]
    assert len(samples_of(tmp_path / "raw")) >= 3


def test_when_nothing_can_be_read_the_first_reason_is_told(tmp_path: Path) -> None:
    (tmp_path / "foreign/folder.tar").mkdir(parents=True)
    with pytest.raises(InputError, match=r"no tar and no file that ends in any of jpg.*found 0 = "):
        convert(config(), tmp_path / "raw", data=tmp_path)
    (tmp_path / "foreign/empty.tar").touch()
    with pytest.raises(InputError, match=r"empty.tar: cut short at byte 0"):
        convert(config(), tmp_path / "raw", data=tmp_path)


def test_the_example_configuration_is_read() -> None:
    assert read_config(ConvertConfig, ROOT / "examples/convert.yaml").depth_unit_m == {"png": 0.001, "exr": 1, "npy": 1}


def test_nothing_there_and_unknown_axes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no tar and no file that ends in any of jpg"):
        convert(config(), tmp_path / "raw", data=tmp_path)
    with pytest.raises(InputError, match="normals_convention 'maya': known are vision-banana"):
        convert(config(normals_convention="maya"), tmp_path / "raw", data=tmp_path)


def test_to_a_failing_server_it_makes_the_bytes_of_a_local_run(tmp_path: Path) -> None:
    img2dataset(tmp_path)
    write_tar(tmp_path / "foreign/00002.tar", {"x.jpg": b"no picture", "x.txt": b"words"})
    local = convert(config(records_per_shard=2), tmp_path / "local", data=tmp_path)
    with pytest.MonkeyPatch.context() as patch, s3_server(patch) as server:
        server.choose = every_tenth()
        assert convert(config(records_per_shard=2), "s3://bucket/out", data=tmp_path).totals == local.totals
        assert convert(config(records_per_shard=2), "s3://bucket/out", data=tmp_path).made == 0
        assert server.faults.total() >= 5
        server.choose = lambda *_: ""
        found = {name: objects.read(f"s3://bucket/out/{name}") for name in objects.tree("s3://bucket/out")}
    local_files = [path for path in (tmp_path / "local").rglob("*") if path.is_file()]
    assert found == {path.relative_to(tmp_path / "local").as_posix(): path.read_bytes() for path in local_files}
