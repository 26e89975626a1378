"""One case: a good folder, one file of it broken, read; what must not happen is a finding."""

from __future__ import annotations

import shutil
import time
import traceback
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cavendish.encoders.sample import InputError
from cavendish.mixing.jobs.runners import JobFailed
from tests.fuzz.readers import Reader

MAX_CPU_S = 5.0


@dataclass(frozen=True)
class Finding:
    """What a reader did that it must not; `data` is the file that made it."""

    reader: str
    seed: int
    file: str
    what: str
    where: str
    data: bytes


def run_case(reader: Reader, folder: Path, seed: int) -> Finding | None:
    """Break one file of `folder`, which `reader.write` made, read it, and put the file back.

    The law: a result, or an InputError of one line; no file written, none of the CPU's time wasted.
    """
    rng = np.random.default_rng(seed)
    pattern = reader.broken[int(rng.integers(len(reader.broken)))]
    files = sorted(path for path in folder.glob(pattern) if path.is_file())
    path = files[int(rng.integers(len(files)))]
    good = path.read_bytes()
    data = reader.break_one(good, path.name, rng)
    before = _listing(folder)
    path.write_bytes(data)
    began = time.process_time()
    what = where = ""
    try:
        reader.read(folder)
    except InputError as error:
        what = "a message of several lines" if "\n" in str(error) else "an empty message" if not str(error) else ""
        where = repr(str(error))[:300]
    except JobFailed:
        pass
    except Exception as error:
        what = type(error).__name__
        last = traceback.extract_tb(error.__traceback__)[-4:]
        where = " < ".join(f"{Path(at.filename).name}:{at.lineno} {at.name}" for at in reversed(last))
        where += f": {str(error)[:200]}"
    spent_s = time.process_time() - began
    path.write_bytes(good)
    if not what and spent_s > MAX_CPU_S:
        what = f"{spent_s:.1f} s of CPU"
    if not what and _listing(folder) != before:
        what = f"files written: {sorted(_listing(folder) ^ before)}"
        shutil.rmtree(folder)
        folder.mkdir()
        reader.write(folder)
    return Finding(reader.name, seed, path.name, what, where, data) if what else None


def _listing(folder: Path) -> set[str]:
    return {str(path.relative_to(folder.parent)) for path in folder.parent.rglob("*")}
