"""MATLAB files are read in a child: what crashes scipy or HDF5, or fills the memory, is one line about the file."""

from __future__ import annotations

import importlib.util
import os
import struct
import zlib
from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.io

from cavendish.encoders.sample import InputError
from cavendish.trainer.evaluation.benchmarks import matlab
from cavendish.trainer.evaluation.benchmarks.matlab import mat73_shapes, read_mat, read_mat73


def _write(path: Path, value: object = None) -> Path:
    scipy.io.savemat(path, {"a": np.arange(12.0).reshape(3, 4) if value is None else value})
    return path


def _crashing(path: Path) -> Path:
    """Give the numbers of an array a kind that is none: scipy 1.17 follows the empty place in its table."""
    data = bytearray(_write(path).read_bytes())
    assert data[176:180] == struct.pack("<I", 9)  # miDOUBLE
    data[176:180] = struct.pack("<I", 8)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("form", ["4", "5"])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float64, np.bool_])
def test_arrays_come_out_as_they_went_in(tmp_path: Path, form: str, dtype: type) -> None:
    values = (np.arange(12).reshape(3, 4) % 2).astype(dtype)
    scipy.io.savemat(tmp_path / "a.mat", {"a": values, "b": np.array([[7.5]])}, format=form)
    b, a = read_mat(tmp_path / "a.mat", ["b", "a"])
    assert (a == values).all()
    assert b == 7.5
    a[0, 0] = 1  # as any array


def test_fields_of_structs_are_named_with_a_dot(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.mat", {"rgb": np.full((2, 3, 3), 9, np.uint8), "text": "words", "cell": [1, "a"]})
    assert read_mat(path, ["a.rgb"])[0].shape == (2, 3, 3)
    for name in ("a.text", "a.cell", "a.none", "a"):
        with pytest.raises(InputError, match=r"missing or not an array of numbers"):
            read_mat(path, [name])
    with pytest.raises(InputError, match=r"a\.mat: no variable 'b'"):
        read_mat(path, ["b"])


def test_a_file_that_crashes_the_reader_is_named_and_the_next_one_is_read(tmp_path: Path) -> None:
    bad, good = _crashing(tmp_path / "bad.mat"), _write(tmp_path / "good.mat")
    for _ in range(2):
        with pytest.raises(InputError, match=r"bad\.mat: damaged: the process that read it crashed \(SIGSEGV\)$"):
            read_mat(bad, ["a"])
        assert read_mat(good, ["a"])[0][2, 3] == 11
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.mat", "good.mat"]  # no core


def test_text_that_is_no_mat_file_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "a.mat").write_bytes(b"MATLAB 5.0 MAT-file"[:7])
    with pytest.raises(InputError, match=r"not a MATLAB file before v7\.3"):
        read_mat(tmp_path / "a.mat", ["x"])
    with pytest.raises(InputError, match=r"not a MATLAB v7\.3"):
        mat73_shapes(tmp_path / "a.mat", ["x"])
    with pytest.raises(InputError, match="no such file"):
        read_mat(tmp_path / "b.mat", ["x"])


def test_a_bomb_ends_with_the_memory_of_the_child(tmp_path: Path) -> None:
    side = 40_000  # 12.8 GB of doubles
    body = bytearray(_write(tmp_path / "a.mat").read_bytes()[128:])
    dims = body.index(struct.pack("<2i", 3, 4))
    body[dims : dims + 8] = struct.pack("<2i", side, side)
    body[52:56] = struct.pack("<I", 2**31 - 8)
    packed = zlib.compress(bytes(body) + bytes(50_000_000))
    header = (tmp_path / "a.mat").read_bytes()[:128]
    (tmp_path / "a.mat").write_bytes(header + struct.pack("<2I", 15, len(packed)) + packed)
    with pytest.raises(InputError, match=r"a\.mat: "):
        read_mat(tmp_path / "a.mat", ["a"])
    with h5py.File(tmp_path / "b.mat", "w") as file:
        file.create_dataset("a", (2, 40_000, 40_000), np.float64, chunks=(1, 100, 100))  # a few bytes on disk
    with pytest.raises(InputError, match=r"b\.mat: .* are over 536870912 bytes"):
        read_mat73(tmp_path / "b.mat", "a", 0)


def test_a_file_that_takes_too_long_is_named(tmp_path: Path) -> None:
    for name in ("matlab.py", "matlab_child.py"):  # as they are, but with a second instead of twenty
        text = Path(matlab.__file__).with_name(name).read_text()
        (tmp_path / name).write_text(text.replace("CPU_S = 20", "CPU_S = 1"))
    spec = importlib.util.spec_from_file_location("hasty", tmp_path / "matlab.py")
    assert spec is not None
    assert spec.loader is not None
    hasty = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hasty)
    count = 20_000_000  # cells, each of them empty: 160 MB of tags, packed to 1 MB
    cells = struct.pack("<4I", 6, 8, 1, 0) + struct.pack("<4i", 5, 8, count, 1) + struct.pack("<2I8s", 1, 1, b"a")
    deflate = zlib.compressobj(1)
    packed = deflate.compress(struct.pack("<2I", 14, len(cells) + 8 * count) + cells)
    packed += b"".join(deflate.compress(struct.pack("<2I", 14, 0) * 100_000) for _ in range(count // 100_000))
    packed += deflate.flush()
    header = _write(tmp_path / "a.mat").read_bytes()[:128]
    (tmp_path / "a.mat").write_bytes(header + struct.pack("<2I", 15, len(packed)) + packed)
    with pytest.raises(InputError, match=r"a\.mat: damaged: the process that read it took too much time$"):
        hasty.read_mat(tmp_path / "a.mat", ["a"])


def test_entries_of_hdf5_are_read_one_by_one(tmp_path: Path) -> None:
    values = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    with h5py.File(tmp_path / "a.mat", "w") as file:
        file["a"] = values
        file["text"] = ["x", "y"]
        file.create_group("group")
    assert mat73_shapes(tmp_path / "a.mat", ["a", "a"]) == [(2, 3, 4)] * 2
    assert (read_mat73(tmp_path / "a.mat", "a", 1) == values[1]).all()
    for name, index, message in (("a", 2, "no entry 2"), ("text", 0, "numbers"), ("group", 0, "not a data set")):
        with pytest.raises(InputError, match=message):
            read_mat73(tmp_path / "a.mat", name, index)


def test_hdf5_reads_no_other_file(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(bytes(range(12)))
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["a"] = np.ones((2, 6), np.uint8)
    layout = h5py.VirtualLayout((2, 6), np.uint8)
    layout[:] = h5py.VirtualSource(str(tmp_path / "other.h5"), "a", (2, 6))
    with h5py.File(tmp_path / "a.mat", "w") as file:
        file.create_dataset("outside", (2, 6), np.uint8, external=[(str(tmp_path / "secret"), 0, 12)])
        file["link"] = h5py.ExternalLink(str(tmp_path / "other.h5"), "a")
        file.create_virtual_dataset("virtual", layout)
        assert (file["outside"][1] == np.arange(6, 12)).all()  # HDF5 itself would
    for name in ("outside", "link", "virtual"):
        with pytest.raises(InputError, match="only data sets of the file itself are read"):
            read_mat73(tmp_path / "a.mat", name, 0)


def test_a_forked_process_has_a_reader_of_its_own(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.mat")
    read_mat(path, ["a"])
    child = os.fork()
    if child == 0:
        same = all(read_mat(path, ["a"])[0][0, 1] == 1 for _ in range(50))
        os._exit(0 if same else 1)
    assert all(read_mat(path, ["a"])[0][0, 1] == 1 for _ in range(50))
    assert os.waitpid(child, 0)[1] == 0
