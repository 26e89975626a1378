"""Clean virtual environments that hold a wheel of this checkout and what some of its extras declare.

What an extra declares is read from the wheel, and followed through the packages that are installed here, at the
versions of constraints.txt. Their files are linked into the environment: what pip would unpack there once more, several
gigabytes of it. `pip check` has the last word on whether anything is missing.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Iterable, Mapping
from importlib.metadata import Distribution, PathDistribution, distribution
from pathlib import Path
from zipfile import Path as ZipPath

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
SITE = Path(sysconfig.get_path("purelib"))


def build_wheel(folder: Path) -> Path:
    """Build the wheel from the files that git tracks, and new ones, so that nothing left in build/ gets into it."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, listed.split("\0")):
        source, copy = ROOT / name, folder / "source" / name
        if source.is_symlink() or source.exists():
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, copy, follow_symlinks=False)
    options = ["--quiet", "--no-deps", "--no-index", "--no-build-isolation", "--wheel-dir", str(folder)]
    subprocess.run([sys.executable, "-m", "pip", "wheel", *options, str(folder / "source")], check=True)
    (wheel,) = folder.glob("*.whl")
    return wheel


def requirements(wheel: Path, extras: Iterable[str]) -> dict[str, Distribution]:
    """Return the installed distributions, by name, that a wheel with these extras asks for, and what those ask for."""
    own = PathDistribution(next(path for path in ZipPath(wheel).iterdir() if path.name.endswith(".dist-info")))
    found: dict[str, Distribution] = {}
    asked: set[tuple[str, str]] = set()
    waiting = [("cavendish", extra) for extra in ("", *extras)]
    while waiting:
        name, extra = waiting.pop()
        if (name, extra) in asked:
            continue
        asked.add((name, extra))
        package = own if name == "cavendish" else distribution(name)
        if name != "cavendish":
            found[name] = package
        for line in package.requires or ():
            needed = Requirement(line)
            if needed.marker is None or needed.marker.evaluate({"extra": extra}):
                waiting += [(canonicalize_name(needed.name), more) for more in ("", *needed.extras)]
    return found


def make_environment(folder: Path, wheel: Path, extras: Iterable[str] = ()) -> Path:
    """Make an environment with a wheel and some of its extras; return its folder of programs."""
    venv.create(folder, symlinks=True)
    site = folder / SITE.relative_to(sys.prefix)
    for package in requirements(wheel, extras).values():
        for file in set(package.files or ()):  # some are recorded twice
            source, copy = SITE / file, site / file
            if ".." not in file.parts and source.is_file():
                copy.parent.mkdir(parents=True, exist_ok=True)
                _link(source, copy)
            elif file.parts[-2:-1] == ("bin",) and source.is_file():  # a program: its first line names the interpreter
                text = source.read_bytes()
                program = folder / "bin" / file.name
                program.write_bytes(re.sub(rb"^#!.*", f"#!{folder / 'bin' / 'python'}".encode(), text, count=1))
                program.chmod(0o755)
    pip = [sys.executable, "-m", "pip", "--python", str(folder / "bin" / "python")]
    subprocess.run([*pip, "install", "--quiet", "--no-deps", "--no-index", str(wheel)], check=True)
    checked = subprocess.run([*pip, "check"], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout
    return folder / "bin"


def _link(source: Path, copy: Path) -> None:
    try:
        copy.hardlink_to(source)
    except OSError:  # on another file system
        copy.symlink_to(source)


def run(programs: Path, *words: str, cwd: Path, code: int = 0, environment: Mapping[str, str] | None = None) -> str:
    """Run a program of an environment; return what it printed, after checking its exit code."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}
    settings = {"PATH": f"{programs}{os.pathsep}{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [str(programs / words[0]), *words[1:]],
        cwd=cwd, env={**inherited, **settings, **(environment or {})},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == code, f"{' '.join(words)}: exit code {done.returncode}\n{done.stdout}"
    return done.stdout
