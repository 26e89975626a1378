"""Measures whom the audit accuses among images that share a template, and whether copies of such images stay leaks.

    python benchmarks/audit_lookalikes.py [--families sudoku,badges] [--seed 0] [--out table.md]

Of each family 6 images are the benchmark and 6 others, with another content in the same template, the mixture: 36 pairs
that are no copies; and the same pairs again, each benchmark image in a benchmark of its own. Copies of the 6 benchmark
images are looked for among them: re-encoded, with a caption, in a 2 x 2 sheet, pasted at 40 % of the width on another
image.
"""

from __future__ import annotations

import argparse
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from importlib.resources import files
from pathlib import Path

import cv2
import numpy as np
from numpy.random import Generator

from cavendish.encoders.sample import UInt8Image
from cavendish.mixing.audit.benchmarks.image_pack import build_pack
from cavendish.mixing.audit.edits import EDITS, chain, fit, jpeg, onto_texture, procedural_picture
from cavendish.mixing.audit.signals.images import Thresholds, scan_image
from cavendish.mixing.images import decode_rgb, encode_png

EACH = 6
FONT = cv2.FONT_HERSHEY_SIMPLEX
WORDS = (
    "river", "Anna", "lamp", "market", "seven", "cloud", "Peter", "garden", "engine", "north", "paper", "winter",
    "music", "dream", "coffee", "window", "silver", "travel", "forest", "bread", "signal", "candle", "Marta", "stone",
    "kitchen", "violin", "harbor", "meadow", "tiger", "planet", "bridge", "castle",
)  # fmt: skip
PHOTOGRAPHS = (
    ("skimage.data", "astronaut.png"), ("skimage.data", "camera.png"), ("skimage.data", "chelsea.png"),
    ("skimage.data", "coffee.png"), ("skimage.data", "coins.png"), ("skimage.data", "rocket.jpg"),
    ("skimage.data", "motorcycle_left.png"), ("skimage.data", "retina.jpg"), ("skimage.data", "ihc.png"),
    ("skimage.data", "hubble_deep_field.jpg"), ("sklearn.datasets.images", "china.jpg"),
    ("sklearn.datasets.images", "flower.jpg"),
)  # fmt: skip
Draw = Callable[[Generator, int], UInt8Image]


def photograph(number: int, width: int, height: int) -> UInt8Image:
    """Read one of twelve photographs, cut and resized."""
    package, name = PHOTOGRAPHS[number % len(PHOTOGRAPHS)]
    image = decode_rgb(files(package).joinpath(name).read_bytes(), name)
    scale = max(width / image.shape[1], height / image.shape[0])
    size = (max(round(image.shape[1] * scale), width), max(round(image.shape[0] * scale), height))
    image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    y, x = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
    return np.ascontiguousarray(image[y : y + height, x : x + width])


def icon(rng: Generator, number: int) -> UInt8Image:
    """Black strokes on transparency, laid over white: another symbol each."""
    canvas = np.full((256, 256, 3), 255, np.uint8)
    for _ in range(3):
        points = rng.integers(30, 226, (int(rng.integers(3, 6)), 2)).astype(np.int32)
        cv2.polylines(canvas, [points], bool(rng.integers(2)), (0, 0, 0), 11, cv2.LINE_AA)
    cv2.circle(
        canvas, tuple(int(v) for v in rng.integers(60, 196, 2)), int(rng.integers(14, 60)), (0, 0, 0), 11, cv2.LINE_AA
    )
    return canvas


def cockpit(rng: Generator, number: int) -> UInt8Image:
    """One dashboard under another scene."""
    scene = photograph(number, 640, 360)
    edge = np.array([(0, 360), (0, 250), (120, 205), (520, 205), (640, 250), (640, 360)], np.int32)
    cv2.fillPoly(scene, [edge], (28, 28, 33), cv2.LINE_AA)
    cv2.fillPoly(scene, [np.array([(0, 0), (40, 0), (0, 250)], np.int32)], (20, 20, 24), cv2.LINE_AA)
    cv2.fillPoly(scene, [np.array([(640, 0), (600, 0), (640, 250)], np.int32)], (20, 20, 24), cv2.LINE_AA)
    for i in range(9):
        centre = (160 + 40 * i, 255)
        cv2.circle(scene, centre, 16, (190, 190, 200), 2, cv2.LINE_AA)
        cv2.line(scene, centre, (centre[0] + 9, centre[1] - 9 + i), (230, 60, 50), 2, cv2.LINE_AA)
        cv2.putText(scene, str(17 * i), (centre[0] - 12, 290), FONT, 0.45, (220, 220, 220), 1, cv2.LINE_AA)
    cv2.putText(scene, "DRIVER ASSIST  LOGGER 04", (190, 330), FONT, 0.6, (210, 210, 210), 1, cv2.LINE_AA)
    return scene


def bar_chart(rng: Generator, number: int) -> UInt8Image:
    """The same axes, ticks and title, other bars."""
    canvas = _axes("Sales by quarter", "quarter", "thousand")
    for i, value in enumerate(rng.uniform(0.1, 1, 8)):
        left = 90 + 66 * i
        top = round(400 - 320 * value)
        cv2.rectangle(canvas, (left, top), (left + 44, 400), (40, 90, 180), -1)
        cv2.putText(canvas, f"Q{i + 1}", (left + 8, 425), FONT, 0.5, (30, 30, 30), 1, cv2.LINE_AA)
    return canvas


def line_chart(rng: Generator, number: int) -> UInt8Image:
    """The same axes, grid and legend, other lines."""
    canvas = _axes("Loss over training", "step", "loss")
    for k, color in enumerate(((200, 60, 50), (40, 90, 180), (40, 140, 70))):
        values = np.clip(np.cumsum(rng.normal(0, 26, 54)) + rng.uniform(120, 380), 85, 398)
        points = np.stack([np.linspace(85, 610, 54), values], axis=1).astype(np.int32)
        cv2.polylines(canvas, [points], False, color, 2, cv2.LINE_AA)
        cv2.line(canvas, (470, 80 + 22 * k), (500, 80 + 22 * k), color, 2, cv2.LINE_AA)
        cv2.putText(canvas, f"run {'ABC'[k]}", (508, 85 + 22 * k), FONT, 0.5, (30, 30, 30), 1, cv2.LINE_AA)
    return canvas


def _axes(title: str, across: str, up: str) -> UInt8Image:
    canvas = np.full((480, 640, 3), 255, np.uint8)
    for i in range(9):
        y = 400 - 40 * i
        cv2.line(canvas, (80, y), (620, y), (220, 220, 220), 1)
        cv2.putText(canvas, str(25 * i), (40, y + 5), FONT, 0.5, (30, 30, 30), 1, cv2.LINE_AA)
    cv2.line(canvas, (80, 60), (80, 400), (0, 0, 0), 2)
    cv2.line(canvas, (80, 400), (620, 400), (0, 0, 0), 2)
    cv2.putText(canvas, title, (220, 40), FONT, 0.8, (0, 0, 0), 2, cv2.LINE_AA)
    cv2.putText(canvas, across, (310, 460), FONT, 0.6, (0, 0, 0), 1, cv2.LINE_AA)
    cv2.putText(canvas, up, (6, 50), FONT, 0.5, (0, 0, 0), 1, cv2.LINE_AA)
    return canvas


def heat_map(rng: Generator, number: int) -> UInt8Image:
    """The same frame and color bar around another smooth field."""
    canvas = np.full((480, 640, 3), 255, np.uint8)
    field = cv2.resize(rng.uniform(0, 255, (6, 7)).astype(np.float32), (450, 360), interpolation=cv2.INTER_CUBIC)
    colored = cv2.applyColorMap(np.clip(field, 0, 255).astype(np.uint8), cv2.COLORMAP_VIRIDIS)[..., ::-1]
    canvas[60:420, 70:520] = colored
    bar = np.repeat(np.linspace(255, 0, 360).astype(np.uint8)[:, None], 24, axis=1)
    canvas[60:420, 550:574] = cv2.applyColorMap(bar, cv2.COLORMAP_VIRIDIS)[..., ::-1]
    cv2.rectangle(canvas, (70, 60), (520, 420), (0, 0, 0), 1)
    cv2.rectangle(canvas, (550, 60), (574, 420), (0, 0, 0), 1)
    for i in range(7):
        cv2.putText(canvas, f"{i / 6:.2f}", (580, 424 - 60 * i), FONT, 0.45, (0, 0, 0), 1, cv2.LINE_AA)
        cv2.putText(canvas, str(10 * i), (66 + 72 * i, 440), FONT, 0.45, (0, 0, 0), 1, cv2.LINE_AA)
        cv2.putText(canvas, str(10 * i), (40, 420 - 58 * i), FONT, 0.45, (0, 0, 0), 1, cv2.LINE_AA)
    cv2.putText(canvas, "Surface temperature", (170, 40), FONT, 0.8, (0, 0, 0), 2, cv2.LINE_AA)
    return canvas


def ornate_frame(rng: Generator, number: int) -> UInt8Image:
    """One golden frame around another photograph."""
    grain = np.random.default_rng(1).uniform(0, 255, (60, 80, 3)).astype(np.uint8)
    canvas = cv2.resize(grain, (640, 480), interpolation=cv2.INTER_CUBIC)
    gold = (240, 200, 60)
    for i in range(0, 640, 24):
        for top in (6, 436):
            cv2.ellipse(canvas, (i + 9, top + 17), (9, 17), 0, 0, 360, gold, 3, cv2.LINE_AA)
    for i in range(0, 480, 24):
        for left in (6, 600):
            cv2.ellipse(canvas, (left + 17, i + 9), (17, 9), 0, 0, 360, gold, 3, cv2.LINE_AA)
    canvas[70:410, 70:570] = photograph(number, 500, 340)
    return canvas


def sudoku(rng: Generator, number: int) -> UInt8Image:
    """The same grid, other digits."""
    canvas = np.full((480, 480, 3), 255, np.uint8)
    for i in range(10):
        place, width = 15 + 50 * i, 3 if i % 3 == 0 else 1
        cv2.line(canvas, (place, 15), (place, 465), (0, 0, 0), width)
        cv2.line(canvas, (15, place), (465, place), (0, 0, 0), width)
    for cell in rng.permutation(81)[:32]:
        y, x = divmod(int(cell), 9)
        cv2.putText(
            canvas, str(int(rng.integers(1, 10))), (28 + 50 * x, 52 + 50 * y), FONT, 1.1, (0, 0, 0), 2, cv2.LINE_AA
        )
    return canvas


def phone_feed(rng: Generator, number: int) -> UInt8Image:
    """One app's bars, buttons and avatars around another post."""
    canvas = np.full((640, 360, 3), 250, np.uint8)
    canvas[:60] = (60, 90, 160)
    cv2.putText(canvas, "chatter", (120, 40), FONT, 1.0, (255, 255, 255), 2, cv2.LINE_AA)
    for i in range(5):
        cv2.circle(canvas, (40 + 70 * i, 100), 26, (230, 120, 160), 3, cv2.LINE_AA)
        cv2.circle(canvas, (40 + 70 * i, 100), 16, (120, 140, 150), -1, cv2.LINE_AA)
    cv2.circle(canvas, (30, 165), 16, (80, 120, 90), -1, cv2.LINE_AA)
    cv2.putText(
        canvas,
        f"{WORDS[rng.integers(len(WORDS))]}_{rng.integers(99)}",
        (56, 170),
        FONT,
        0.5,
        (20, 20, 20),
        1,
        cv2.LINE_AA,
    )
    canvas[195:455] = photograph(number, 360, 260)
    for i, shape in enumerate("<>v^o"):
        cv2.putText(canvas, shape, (18 + 44 * i, 485), FONT, 0.9, (30, 30, 30), 2, cv2.LINE_AA)
    for row in range(3):
        text = " ".join(rng.choice(WORDS, 5))
        cv2.putText(canvas, text, (14, 515 + 22 * row), FONT, 0.45, (40, 40, 40), 1, cv2.LINE_AA)
    canvas[590:] = (240, 240, 240)
    for i, word in enumerate(("Home", "Find", "Post", "Mail", "Me")):
        cv2.putText(canvas, word, (14 + 70 * i, 622), FONT, 0.5, (60, 60, 60), 1, cv2.LINE_AA)
    return canvas


def badge(rng: Generator, number: int) -> UInt8Image:
    """The same ring and ribbon, another word and symbol."""
    canvas = np.full((320, 320, 3), 255, np.uint8)
    cv2.circle(canvas, (160, 140), 120, (200, 160, 40), -1, cv2.LINE_AA)
    cv2.circle(canvas, (160, 140), 104, (255, 240, 200), 6, cv2.LINE_AA)
    for i in range(36):
        angle = 2 * np.pi * i / 36
        place = (round(160 + 112 * np.cos(angle)), round(140 + 112 * np.sin(angle)))
        cv2.circle(canvas, place, 4, (255, 255, 255), -1, cv2.LINE_AA)
    points = (rng.uniform(-45, 45, (6, 2)) + np.array((160, 120))).astype(np.int32)
    cv2.fillPoly(canvas, [points], (120, 40, 40), cv2.LINE_AA)
    cv2.rectangle(canvas, (30, 190), (290, 240), (160, 30, 40), -1)
    cv2.putText(canvas, str(rng.choice(WORDS)).upper(), (80, 226), FONT, 1.0, (255, 255, 255), 2, cv2.LINE_AA)
    return canvas


def chess(rng: Generator, number: int) -> UInt8Image:
    """The same board, another position."""
    canvas = np.full((480, 480, 3), 240, np.uint8)
    for y in range(8):
        for x in range(8):
            color = (181, 136, 99) if (x + y) % 2 else (240, 217, 181)
            canvas[40 + 50 * y : 90 + 50 * y, 40 + 50 * x : 90 + 50 * x] = color
        cv2.putText(canvas, "87654321"[y], (16, 75 + 50 * y), FONT, 0.6, (40, 40, 40), 1, cv2.LINE_AA)
        cv2.putText(canvas, "abcdefgh"[y], (58 + 50 * y, 465), FONT, 0.6, (40, 40, 40), 1, cv2.LINE_AA)
    for cell in rng.permutation(64)[:20]:
        y, x = divmod(int(cell), 8)
        color = (20, 20, 20) if rng.integers(2) else (250, 250, 250)
        cv2.circle(canvas, (65 + 50 * x, 65 + 50 * y), 18, color, -1, cv2.LINE_AA)
        cv2.circle(canvas, (65 + 50 * x, 65 + 50 * y), 18, (60, 60, 60), 2, cv2.LINE_AA)
        piece = "KQRBNP"[int(rng.integers(6))]
        cv2.putText(canvas, piece, (55 + 50 * x, 74 + 50 * y), FONT, 0.8, (150, 60, 60), 2, cv2.LINE_AA)
    return canvas


def legend(rng: Generator, number: int) -> UInt8Image:
    """The same table of colors, other names."""
    canvas = np.full((480, 360, 3), 255, np.uint8)
    cv2.putText(canvas, "Land cover classes", (40, 40), FONT, 0.8, (0, 0, 0), 2, cv2.LINE_AA)
    colors = np.random.default_rng(5).integers(0, 256, (10, 3))
    for i, color in enumerate(colors):
        top = 66 + 40 * i
        cv2.rectangle(canvas, (30, top), (74, top + 26), tuple(int(v) for v in color), -1)
        cv2.rectangle(canvas, (30, top), (74, top + 26), (0, 0, 0), 1)
        cv2.putText(canvas, " ".join(rng.choice(WORDS, 2)), (90, top + 20), FONT, 0.6, (0, 0, 0), 1, cv2.LINE_AA)
    return canvas


def lower_band(rng: Generator, number: int, share: float) -> UInt8Image:
    """Another photograph over one identical lower band of that share of the height."""
    canvas = photograph(number, 640, 480)
    height = round(480 * share)
    band = procedural_picture(np.random.default_rng(3), height, 640)
    for row in range(30, height, 34):
        cv2.putText(band, "CHANNEL 9   BREAKING NEWS   " * 2, (10, row), FONT, 0.8, (255, 255, 255), 2, cv2.LINE_AA)
    canvas[480 - height :] = band
    return canvas


def form(rng: Generator, number: int) -> UInt8Image:
    """The same printed form, filled in otherwise."""
    canvas = np.full((640, 480, 3), 255, np.uint8)
    cv2.putText(canvas, "REGISTRATION FORM", (90, 50), FONT, 0.9, (0, 0, 0), 2, cv2.LINE_AA)
    fields = ("Name", "Street", "City", "Country", "Born", "Phone", "Mail", "Height", "School", "Work", "Note", "Date")
    for i, field in enumerate(fields):
        y = 100 + 42 * i
        cv2.putText(canvas, f"{field}:", (30, y), FONT, 0.6, (0, 0, 0), 1, cv2.LINE_AA)
        cv2.rectangle(canvas, (120, y - 22), (450, y + 8), (90, 90, 90), 1)
        text = " ".join(rng.choice(WORDS, 2))
        cv2.putText(canvas, text, (130, y), cv2.FONT_HERSHEY_SCRIPT_SIMPLEX, 0.7, (20, 30, 140), 1, cv2.LINE_AA)
    return canvas


FAMILIES: Mapping[str, Draw] = {
    "icons": icon,
    "cockpit": cockpit,
    "bar charts": bar_chart,
    "heat maps": heat_map,
    "ornate frames": ornate_frame,
    "sudoku": sudoku,
    "phone feeds": phone_feed,
    "badges": badge,
    "chess": chess,
    "legends": legend,
    "line charts": line_chart,
    "lower band 20 %": partial(lower_band, share=0.2),
    "lower band 35 %": partial(lower_band, share=0.35),
    "lower band 50 %": partial(lower_band, share=0.5),
    "forms": form,
}
COPIES = {
    "same, JPEG": partial(jpeg, quality=60),
    "same, 0.6": partial(fit, side=380),
    "caption": EDITS["caption"],
    "2 x 2 sheet": EDITS["2 x 2 sheet"],
    "pasted at 40 %": partial(onto_texture, share=0.4),
    "mirrored, JPEG": partial(chain, steps=(EDITS["mirrored"], partial(jpeg, quality=60))),
    "crop 90 %": EDITS["crop 90 %"],
}


def measure_alone(draw: Draw, seed: int) -> Counter[str]:
    """Return the levels of the pairs where each benchmark holds one image alone, so that it has no relatives."""
    pairs: Counter[str] = Counter()
    for number in range(EACH):
        image = draw(np.random.default_rng([seed, number]), number)
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place) / "images"
            folder.mkdir()
            (folder / "0.png").write_bytes(encode_png(image))
            pack = build_pack("alone", folder, Path(place) / "pack", pixels=True)
            for other in range(EACH, 2 * EACH):
                shown = draw(np.random.default_rng([seed, other]), other)
                found = scan_image(shown, encode_png(shown), (pack,), Thresholds())[1]
                pairs[found[0].level if found else "clean"] += 1
    return pairs


def measure(draw: Draw, seed: int) -> tuple[Counter[str], dict[str, str]]:
    """Return the levels of the 36 pairs that are no copies, and of each kind of copy "leaks/review/missed"."""
    images = [draw(np.random.default_rng([seed, number]), number) for number in range(2 * EACH)]
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "images"
        folder.mkdir()
        for number, image in enumerate(images[:EACH]):
            (folder / f"{number}.png").write_bytes(encode_png(image))
        pack = build_pack("family", folder, Path(place) / "pack", pixels=True)
        scan = lambda image: {f.image: f.level for f in scan_image(image, encode_png(image), (pack,), Thresholds())[1]}
        pairs: Counter[str] = Counter()
        for image in images[EACH:]:
            found = scan(image)
            pairs.update(found.get(f"{number}.png", "clean") for number in range(EACH))
        copies = {}
        for edit, function in COPIES.items():
            levels: Counter[str] = Counter()
            wrong = 0
            for number, image in enumerate(images[:EACH]):
                found = scan(function(image, np.random.default_rng([seed, 7, number])))
                levels[found.get(f"{number}.png", "missed")] += 1
                wrong += sum(level == "leak" for other, level in found.items() if other != f"{number}.png")
            copies[edit] = f"{levels['leak']}/{levels['review']}/{levels['missed']}" + (
                f" wrong {wrong}" if wrong else ""
            )
    return pairs, copies


def main() -> None:
    """Run and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--families", default="")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    lines = [
        "| family | leak | review | clean | each alone | " + " | ".join(COPIES) + " |",
        "|---" * (5 + len(COPIES)) + "|",
    ]
    print("\n".join(lines), flush=True)
    for name in arguments.families.split(",") if arguments.families else FAMILIES:
        pairs, copies = measure(FAMILIES[name], arguments.seed)
        alone = measure_alone(FAMILIES[name], arguments.seed)
        cells = [str(pairs[level]) for level in ("leak", "review", "clean")]
        cells.append("/".join(str(alone[level]) for level in ("leak", "review", "clean")))
        lines.append(f"| {name} | " + " | ".join([*cells, *copies.values()]) + " |")
        print(lines[-1], flush=True)
    if arguments.out is not None:
        arguments.out.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
