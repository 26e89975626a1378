"""The long campaign by hand: `python -m tests.fuzz --cases 1000`; each reader in a child with bounded memory."""

from __future__ import annotations

import argparse
import os
import resource
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.fuzz.cases import run_case
from tests.fuzz.every import READERS
from tests.fuzz.readers import Reader

MEMORY_BYTES = 2 << 30


def main() -> int:
    """Run the cases of the readers asked for; return 1 when there are findings."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--cases", type=int, default=1000, help="of each reader")
    parser.add_argument("--readers", default="", help="only those with this in their name")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--keep", type=Path, help="folder for the files that made findings")
    args = parser.parse_args()
    bad = 0
    for reader in READERS:
        if args.readers in reader.name:
            child = os.fork()
            if child == 0:
                os._exit(_campaign(reader, args.first, args.cases, args.keep))
            _, status = os.waitpid(child, 0)
            if os.WIFSIGNALED(status):
                print(f"{reader.name}: killed by {signal.Signals(os.WTERMSIG(status)).name}", flush=True)
            bad += bool(status)
    return 1 if bad else 0


def _campaign(reader: Reader, first: int, cases: int, keep: Path | None) -> int:
    seen: Counter[str] = Counter()
    told = os.fdopen(os.dup(1), "w", buffering=1)
    began, slowest_s, slowest = time.process_time(), 0.0, first
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as place:
        folder = Path(place) / "case"
        folder.mkdir()
        reader.write(folder)
        reader.read(folder)
        for stream in (1, 2):  # what C libraries think of the files
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY_BYTES, used + MEMORY_BYTES))
        for seed in range(first, first + cases):
            (Path(place) / "seed").write_text(str(seed))
            case_began = time.process_time()
            finding = run_case(reader, folder, seed)
            if time.process_time() - case_began > slowest_s:
                slowest_s, slowest = time.process_time() - case_began, seed
            if finding is None:
                continue
            key = f"{finding.what} at {finding.where.partition(':')[0]}:{finding.where.partition(':')[2][:60]}"
            seen[key] += 1
            if seen[key] == 1:
                print(f"  {reader.name}, seed {seed}, {finding.file}: {finding.what}: {finding.where}", file=told)
                if keep is not None:
                    keep.mkdir(parents=True, exist_ok=True)
                    (keep / f"{reader.name.replace(' ', '_').replace('/', '_')}-{seed}-{finding.file}").write_bytes(
                        finding.data
                    )
    rss_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"{reader.name}: {cases} cases, {seen.total()} findings of {len(seen)} kinds, "
        f"{time.process_time() - began:.0f} CPU s, at most {rss_mb:.0f} MB and {slowest_s:.2f} s (seed {slowest})",
        file=told,
    )
    return 1 if seen else 0


if __name__ == "__main__":
    sys.exit(main())
