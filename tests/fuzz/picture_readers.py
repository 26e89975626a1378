"""Readers of pictures, arrays, other people's tars and other collections of pictures."""

from __future__ import annotations

import pickle
import tarfile
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from cavendish.encoders.sample import InputError, Rejection
from tests.fuzz.mutations import break_bytes, to_json
from tests.fuzz.readers import Reader, picture, put, tar_of


def _image(kind: str) -> Reader:
    def read(folder: Path) -> None:
        from cavendish.mixing.images import decode_rgb
        from cavendish.mixing.sources.decode import decode_image

        data = (folder / f"x{kind}").read_bytes()
        for decode in (lambda: decode_image(data, 1024), lambda: decode_rgb(data, "x")):
            try:
                decode()
            except InputError as error:
                assert "\n" not in str(error)  # noqa: PT017 (the other decoder is tried too)

    return Reader(f"image {kind}", lambda folder: put(folder, f"x{kind}", picture(kind=kind)), (f"x{kind}",), read)


def _write_png16(folder: Path) -> None:
    codes = np.arange(64 * 64, dtype=np.uint16).reshape(64, 64)
    put(folder, "depth.png", cv2.imencode(".png", codes)[1].tobytes())
    put(folder, "grey.png", cv2.imencode(".png", codes.astype(np.uint8))[1].tobytes())


def _read_png16(folder: Path) -> None:
    from cavendish.mixing.images import decode_grey, decode_png16
    from cavendish.trainer.evaluation.benchmarks.files import read_gray

    decode_png16((folder / "depth.png").read_bytes(), "depth", 1)
    decode_grey((folder / "grey.png").read_bytes(), "grey")
    read_gray(folder / "grey.png")


def _write_arrays(folder: Path) -> None:
    import OpenEXR

    depth = np.linspace(1, 9, 64 * 64, dtype=np.float32).reshape(64, 64)
    normals = np.zeros((64, 64, 3), np.float32)
    normals[..., 2] = 1
    np.save(folder / "depth.npy", depth)
    np.save(folder / "normals.npy", normals)
    OpenEXR.File({"type": OpenEXR.scanlineimage}, {"Z": depth}).write(str(folder / "depth.exr"))
    OpenEXR.File({"type": OpenEXR.scanlineimage}, {"RGB": normals}).write(str(folder / "normals.exr"))


def _read_arrays(folder: Path) -> None:
    from cavendish.mixing.sources.arrays import decode_depth_file, decode_normals_file

    for path in sorted(folder.iterdir()):
        data = path.read_bytes()
        if path.stem == "depth":
            decode_depth_file(data, path.name, 1.0, 100.0)
        else:
            decode_normals_file(data, path.name, "opengl")


def _write_arrays_of_others(folder: Path) -> None:
    import OpenEXR

    np.save(folder / "a.npy", np.zeros((8, 8), np.float32))
    OpenEXR.File({"type": OpenEXR.scanlineimage}, {"RGB": np.ones((8, 8, 3), np.float32)}).write(str(folder / "a.exr"))
    put(folder, "a.p", pickle.dumps([{"ref_id": 1, "sentences": [{"sent": "a"}]}], protocol=2))


def _read_arrays_of_others(folder: Path) -> None:
    from cavendish.trainer.evaluation.benchmarks import files
    from cavendish.trainer.evaluation.benchmarks.files import read_plain_pickle

    reads: tuple[Callable[[], object], ...] = (
        lambda: files.read_npy(folder / "a.npy"),
        lambda: files.read_exr(folder / "a.exr"),
        lambda: read_plain_pickle(folder / "a.p"),
    )
    for read in reads:
        try:
            read()
        except InputError as error:
            assert "\n" not in str(error)  # noqa: PT017


def _write_mats(folder: Path) -> None:
    import h5py
    import scipy.io

    values = {"data": {"rgb": np.zeros((8, 8, 3), np.uint8), "depth": np.ones((8, 8))}, "n": np.arange(3.0)}
    scipy.io.savemat(folder / "v5.mat", values)
    scipy.io.savemat(folder / "v7.mat", values, do_compression=True)
    scipy.io.savemat(folder / "v4.mat", {"n": np.arange(3.0)}, format="4")
    with h5py.File(folder / "v73.mat", "w") as file:
        file["images"] = np.zeros((2, 3, 8, 8), np.uint8)
        file.create_dataset("n", data=np.ones((2, 8, 8)), chunks=(1, 8, 8), compression="gzip", shuffle=True)


def _read_mats(folder: Path) -> None:
    from cavendish.trainer.evaluation.benchmarks.matlab import mat73_shapes, read_mat, read_mat73

    reads: tuple[Callable[[], object], ...] = (
        lambda: read_mat(folder / "v5.mat", ["data.rgb", "data.depth", "n"]),
        lambda: read_mat(folder / "v7.mat", ["data.rgb", "data.depth", "n"]),
        lambda: read_mat(folder / "v4.mat", ["n"]),
        lambda: mat73_shapes(folder / "v73.mat", ["images", "n"]),
        lambda: read_mat73(folder / "v73.mat", "images", 1),
        lambda: read_mat73(folder / "v73.mat", "n", 1),
    )
    for read in reads:
        try:
            read()
        except InputError as error:
            assert "\n" not in str(error)  # noqa: PT017


def _web_tar() -> bytes:
    members: dict[str, bytes] = {}
    for number in range(3):
        members[f"a/{number:03d}.png"] = picture(number)
        members[f"a/{number:03d}.txt"] = b"words"
        members[f"a/{number:03d}.json"] = b'{"license": "CC0-1.0", "caption": "x", "url": "http://x"}'
    members["long" * 40 + ".png"] = picture(9)
    return tar_of(members, tarfile.PAX_FORMAT)


def _break_tar(data: bytes, rng: np.random.Generator) -> bytes:
    """Break a tar; half of the time a header, with the checksum that fits."""
    if rng.random() < 0.5:
        return break_bytes(data, rng)
    headers = [at for at in range(0, len(data) - 512, 512) if data[at + 257 : at + 262] == b"ustar"]
    at = int(rng.choice(headers))
    header = bytearray(data[at : at + 512])
    fields = [(0, 100), (124, 12), (156, 1), (157, 100), (257, 8), (345, 155)]  # name, size, kind, link, magic, prefix
    field, size = fields[int(rng.integers(6))]
    values = [b"../../evil.png", b"/etc/x.png", b"77777777777", b"\x80" + b"\xff" * 11, b"\xff" * 12, b"-0000000001",
              b"\0", b"0", b"1", b"2", b"3", b"5", b"6", b"L", b"x", b"g", b"S", b"\xff\xfe.png", b"a\0.png",
              b" "]  # fmt: skip
    value = values[int(rng.integers(len(values)))][:size]
    header[field : field + size] = value.ljust(size, b"\0")
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return data[:at] + bytes(header) + data[at + 512 :]


def _read_web_tar(folder: Path) -> None:
    from cavendish.mixing.jobs.convert import ConvertConfig, convert_records
    from cavendish.mixing.sources.decode import decode_image
    from cavendish.mixing.sources.listing import SourceConfig, fingerprint, list_items, read_item
    from cavendish.mixing.sources.records import Fields, list_records, with_keys

    source = SourceConfig(name="web", kind="tar", path=Path("web"), licence="x")
    try:
        items = list_items(source, folder)
        fingerprint(source, folder, items, "sha256")
        for item in items:
            try:
                decode_image(read_item(source, folder, item).data, 256)
            except InputError:
                continue
    except InputError:
        pass
    config = ConvertConfig(name="web", path=Path("web"), licence="x")
    records = with_keys("web", list_records(folder / "web", Fields(config.fields.model_dump())))
    for made in convert_records(config, [folder / "web"], records):
        assert isinstance(made, Rejection) or made.image.ndim == 3


def _write_sources(folder: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    put(folder, "coco/a.png", picture())
    images = [{"id": 1, "file_name": "a.png", "license": 1, "coco_url": "http://x"}]
    values = {
        "images": images,
        "licenses": [{"id": 1, "name": "CC0"}],
        "annotations": [{"id": 1, "image_id": 1, "caption": "x"}],
    }
    put(folder, "coco/coco.json", to_json(values))
    table = pa.table({"image": [picture(1), picture(2)], "text": ["a", "b"], "license": ["x", "y"]})
    (folder / "arrow").mkdir()
    with pa.OSFile(str(folder / "arrow/data.arrow"), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    put(folder, "arrow/state.json", to_json({"_data_files": [{"filename": "data.arrow"}]}))
    pq.write_table(pa.table({"url": ["http://a/x.png", "http://b/y.png"], "text": ["a", "b"]}), folder / "urls.parquet")
    put(folder, "photos/a.png", picture())
    put(folder, "photos/a.txt", "words")
    put(folder, "photos/a.json", to_json({"licence": "x", "author": "y", "caption": "z"}))


def _read_sources(folder: Path) -> None:
    from cavendish.annotate.download.url_lists import count_rows, list_files, read_rows
    from cavendish.mixing.sources.listing import SourceConfig, fingerprint, list_items, read_item

    for kind, name, listing in (
        ("coco", "coco", "coco.json"),
        ("arrow", "arrow", None),
        ("folder", "photos", None),
    ):
        values = {"name": "s", "kind": kind, "path": name, "licence": "x", "annotations": listing}
        source = SourceConfig.model_validate(values)
        try:
            items = list_items(source, folder)
        except InputError as error:
            assert "\n" not in str(error)  # noqa: PT017
            continue
        fingerprint(source, folder, items, "sha256")
        for item in items:
            try:
                read_item(source, folder, item)
            except InputError:
                continue
    files, _ = list_files(folder / "urls.parquet")
    counts = count_rows(files)
    list(read_rows(files, counts, 0, min(sum(counts), 100)))


READERS: tuple[Reader, ...] = (
    *map(_image, (".png", ".jpg", ".webp", ".bmp", ".tiff", ".gif")),
    Reader("16-bit and grey PNG", _write_png16, ("*",), _read_png16),
    Reader("depth and normals files", _write_arrays, ("*",), _read_arrays),
    Reader("npy, exr, pickle", _write_arrays_of_others, ("*",), _read_arrays_of_others),
    Reader("MATLAB v4 to v7", _write_mats, ("v[457].mat",), _read_mats),
    Reader("MATLAB v7.3 (HDF5)", _write_mats, ("v73.mat",), _read_mats),
    Reader("tars of others", lambda f: put(f, "web/w.tar", _web_tar()), ("web/w.tar",), _read_web_tar, _break_tar),
    Reader("COCO, arrow, parquet, sidecars", _write_sources, ("*/*", "urls.parquet"), _read_sources),
)
