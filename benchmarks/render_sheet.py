"""Draw the contact sheet of docs/rendering.md: 64 scenes, pictures only, over the five presets.

python -m benchmarks.render_sheet --raw raw/sheet --out docs/images/render_sheet.jpg
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

from cavendish.encoders.sample import Sample
from cavendish.mixing.jobs.runners import Engine
from cavendish.mixing.shards.reader import read_dataset
from cavendish.render.job import RenderConfig, render
from cavendish.render.scenes.presets import PRESETS

COUNTS = {"indoor": 16, "outdoor": 16, "table top": 8, "long range": 16, "clutter": 8}
COLUMNS = 8


def main() -> None:
    """Render what is not there yet, and put the pictures side by side, two rows of a preset or one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engine", default="blender")
    parser.add_argument("--size", type=int, default=192)
    parser.add_argument("--samples", type=int, default=12)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--share", type=float, default=1.0, help="of the 64 scenes")
    parser.add_argument("--presets", nargs="*", default=list(COUNTS))
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--raw", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    words = parser.parse_args()
    tiles = []
    for name in words.presets:
        assert name in PRESETS
        scenes = round(COUNTS[name] * words.share)
        config = RenderConfig.model_validate(
            {
                "preset": name, "engine": words.engine, "seed": words.seed, "scenes": scenes, "scenes_per_shard": 4,
                "width": words.size, "height": words.size, "samples": words.samples, "edits": 0.0,
            }
        )  # fmt: skip
        folder = words.raw / name.replace(" ", "_")
        render(config, folder, Engine(workers=words.workers))
        tiles += [sample.image for sample in read_dataset(folder) if isinstance(sample, Sample)]
    rows = [np.concatenate(tiles[start : start + COLUMNS], axis=1) for start in range(0, len(tiles), COLUMNS)]
    words.out.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.concatenate([row for row in rows if row.shape == rows[0].shape])).save(words.out, quality=88)


if __name__ == "__main__":
    main()
