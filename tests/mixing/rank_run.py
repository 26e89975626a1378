"""One rank of a run that may be killed: `python rank_run.py DATA RANK WORLD BATCHES LOG`; used by test_loader.py.

Every batch goes to LOG as a line of json with the state after it, so that the last whole line is a checkpoint.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from torch.utils.data import DataLoader

from cavendish.mixing.loader import MixtureStream
from cavendish.mixing.lock import read_lock
from cavendish.mixing.mixture.reader import MixtureItem

BATCH, WORKERS = 3, 2


def facts(item: MixtureItem) -> list[object]:
    example = item.example
    return [item.index, example.key, example.prompt, int(example.target.astype(int).sum())]


def main(data: Path, rank: int, world: int, batches: int, log: Path) -> None:
    lock = read_lock(data / "lock.json")
    stream, place = (MixtureStream(lock, data, 16, rank, world, BATCH) for _ in range(2))
    lines = [line for line in log.read_text().splitlines(keepends=True) if line.endswith("\n")] if log.exists() else []
    log.write_text("".join(lines))
    if lines:
        state = json.loads(lines[-1])["state"]
        stream.load_state_dict(state)
        place.load_state_dict(state)
    loader = DataLoader(stream, batch_size=BATCH, num_workers=WORKERS, collate_fn=list)
    with log.open("a") as file:
        for items, _ in zip(loader, range(batches - len(lines))):
            place.advance(BATCH)
            file.write(json.dumps({"items": [facts(item) for item in items], "state": place.state_dict()}) + "\n")
            file.flush()
            time.sleep(0.02)  # a training step, so that the run can be killed in the middle


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]), Path(sys.argv[5]))
