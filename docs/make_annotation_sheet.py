"""Draws docs/images/annotation.jpg, what the job makes of photographs: python -m docs.make_annotation_sheet"""

from __future__ import annotations

import tempfile
from importlib.resources import files
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from cavendish.annotate.config import AnnotateConfig
from cavendish.annotate.job import annotate
from cavendish.encoders.sample import Rejection, Sample
from cavendish.encoders.tasks.registry import make_example, tasks_of
from cavendish.mixing.config import read_config
from cavendish.mixing.shards.dataset import committed_rows
from cavendish.mixing.shards.reader import read_dataset
from tests.annotate.photographs import FILES, photo_bytes

ROOT = Path(__file__).parents[1]
NAMES = ("astronaut", "hopper", "coffee", "flower", "china", "camera", "rocket", "horse", "chelsea", "page")
COLUMNS, SIDE_PX, TEXT_PX = 5, 300, 74
GREEN = (40, 220, 90)


def main() -> None:
    """Annotate the photographs with the shipped configuration and draw each with its labels."""
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder)
        (data / "photos").mkdir()
        for name in NAMES:
            (data / "photos" / f"{name}{Path(FILES[name][1]).suffix}").write_bytes(photo_bytes(name))
        config = read_config(AnnotateConfig, ROOT / "examples/annotate.yaml", ["dropped_masks=reject"])
        annotate(config, data / "out", data=data)
        samples = {record.key: record for record in read_dataset(data / "out") if isinstance(record, Sample)}
        rejected = {letter.key: letter for row in committed_rows(data / "out") for letter in row.rejected}
    cards = [_card(name, samples.get(f"photos-{name}") or rejected[f"photos-{name}"]) for name in NAMES]
    rows = [np.hstack(cards[start : start + COLUMNS]) for start in range(0, len(cards), COLUMNS)]
    Image.fromarray(np.vstack(rows)).save(ROOT / "docs/images/annotation.jpg", quality=88)


def _card(name: str, made: Sample | Rejection) -> np.ndarray:
    """Draw one picture with its mask, its box, the seam that counts for nothing (white), and words."""
    font = ImageFont.truetype(str(files("matplotlib").joinpath("mpl-data/fonts/ttf/DejaVuSans.ttf")), 11)
    card = Image.new("RGB", (SIDE_PX, SIDE_PX + TEXT_PX), "white")
    if isinstance(made, Sample):
        picture, words = _painted(made), _words(made)
    else:
        from cavendish.mixing.sources.decode import decode_image

        picture, words = decode_image(photo_bytes(name), 1024).rgb_u8, f"rejected: {made.reason.partition(': ')[2]}"
    shown = Image.fromarray(picture)
    shown.thumbnail((SIDE_PX - 8, SIDE_PX - 4))
    card.paste(shown, ((SIDE_PX - shown.width) // 2, (SIDE_PX - shown.height) // 2))
    draw = ImageDraw.Draw(card)
    for number, line in enumerate(_wrapped(words, font)[:5]):
        draw.text((5, SIDE_PX + 1 + 14 * number), line, "black" if isinstance(made, Sample) else (170, 30, 30), font)
    return np.asarray(card)


def _painted(sample: Sample) -> np.ndarray:
    assert sample.instance_ids is not None
    assert sample.weight is not None
    picture = sample.image.astype(np.float64)
    inside = sample.instance_ids > 0
    picture[inside] = 0.6 * picture[inside] + 0.4 * np.array(GREEN)
    picture[sample.weight == 0] = 255
    image = Image.fromarray(picture.astype(np.uint8))
    draw = ImageDraw.Draw(image)
    for instance in sample.instances:
        x0, y0, x1, y1 = instance.box
        draw.rectangle((x0, y0, x1 - 1, y1 - 1), outline=GREEN, width=max(2, image.width // 200))
    return np.asarray(image)


def _words(sample: Sample) -> str:
    """Say what is known of a sample, and give one instruction made of it."""
    rng = np.random.default_rng([5, len(sample.key), sample.instances[0].visible_pixels])
    names = [" ".join([*instance.attributes.values(), instance.category]) for instance in sample.instances]
    task = "referring" if "referring" in tasks_of(sample) else "semantic"
    prompt = make_example(sample, task, rng, 0.0).prompt.replace("\n", " ")
    return f"{', '.join(names)}; {len(sample.facts['absent'])} classes absent. “{prompt}”"


def _wrapped(words: str, font: ImageFont.FreeTypeFont) -> list[str]:
    lines = [""]
    for word in words.split():
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) > SIDE_PX - 10:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines


if __name__ == "__main__":
    main()
