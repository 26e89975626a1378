"""Measures the leakage audit against perceptual hashes on the same pairs: recall by edit, false positives, speed.

    pip install imagehash && python benchmarks/audit.py [--photos FOLDER] [--negatives 60] [--out table.md]

Benchmark images are the photographs of the scikit-image and scikit-learn wheels, or those of a folder of yours, of
which every third one is then kept out as a foreign picture. Every edit of `mixing.audit.edits` is made of each of them,
with seeds that nothing was tuned with. Foreign pictures are the photographs and textures kept out, and synthetic
pictures, as they are and under two edits each. Peers compare whole pictures, at their published default and, in
brackets, at the best threshold that has no false positive (an oracle: no user could have chosen it).
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import cv2
import imagehash
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from encoders.sample import InputError, UInt8Image
from mixing.audit.edits import EDITS, procedural_picture
from mixing.audit.fingerprints import fingerprint, working_size
from mixing.audit.index import build_pack
from mixing.audit.pdq import pdq_hash
from mixing.audit.scan import Thresholds, scan_picture
from mixing.images import decode_rgb, encode_png

SEED = 20_260
WHEEL_BENCHMARK = {
    "skimage.data": (
        "astronaut.png", "camera.png", "chelsea.png", "coffee.png", "coins.png", "gravel.png", "hubble_deep_field.jpg",
        "ihc.png", "moon.png", "motorcycle_left.png", "retina.jpg", "rocket.jpg",
    ),
    "sklearn.datasets.images": ("china.jpg", "flower.jpg"),
}  # fmt: skip
WHEEL_FOREIGN = {"skimage.data": ("brick.png", "cell.png", "grass.png", "page.png", "text.png", "microaneurysms.png")}
HELD_OUT = (
    "screenshot",
    "screenshot, jitter, 400 px",
    "2 x 2 sheet",
    "three lines of text",
    "perspective",
    "squeeze 0.6 wide",
)
"""Edits that no constant of the cascade was chosen with."""


@dataclass(frozen=True)
class Peer:
    """A whole-picture hash: `code` gives bits (one row for each turn it tries), `default` its published threshold."""

    name: str
    code: Callable[[UInt8Image], NDArray[np.bool_]]
    default: int


def _bits(hash_function: Callable[..., imagehash.ImageHash]) -> Callable[[UInt8Image], NDArray[np.bool_]]:
    return lambda image: np.asarray(hash_function(Image.fromarray(image)).hash).reshape(1, -1)


PEERS = (
    Peer("imagehash aHash", _bits(imagehash.average_hash), 5),
    Peer("imagehash dHash", _bits(imagehash.dhash), 10),
    Peer("imagehash pHash", _bits(imagehash.phash), 10),
    Peer("imagehash wHash", _bits(imagehash.whash), 5),
    Peer("PDQ", lambda image: np.unpackbits(pdq_hash(image).variants[:1], axis=1).astype(bool), 31),
    Peer("PDQ, 8 turns", lambda image: np.unpackbits(pdq_hash(image).variants, axis=1).astype(bool), 31),
)


def main() -> None:
    """Run and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, help="a folder of photographs instead of those of the wheels")
    parser.add_argument("--limit", type=int, default=90, help="use at most so many of them")
    parser.add_argument("--negatives", type=int, default=60, help="synthetic foreign pictures beside the photographs")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    benchmark, foreign = _wheels() if arguments.photos is None else _folder(arguments.photos, arguments.limit)
    for seed in range(arguments.negatives):
        foreign[f"synthetic {seed}"] = procedural_picture(np.random.default_rng([SEED, 9, seed]), 384, 512)
    text = measure(benchmark, foreign)
    print(text)
    if arguments.out is not None:
        arguments.out.write_text(text)


def measure(benchmark: Mapping[str, UInt8Image], foreign: Mapping[str, UInt8Image]) -> str:
    """Return the tables."""
    names = list(benchmark)
    recall: dict[str, list[bool]] = {edit: [] for edit in EDITS}
    flagged: dict[str, list[bool]] = {edit: [] for edit in EDITS}
    peer_recall: dict[str, dict[str, list[int]]] = {peer.name: {edit: [] for edit in EDITS} for peer in PEERS}
    peer_wrong: dict[str, list[int]] = {peer.name: [] for peer in PEERS}
    codes = {peer.name: np.stack([peer.code(image) for image in benchmark.values()]) for peer in PEERS}
    wrong, wrong_review, scan_s, decode_hash_s, pictures = [], 0, 0.0, 0.0, 0
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "images"
        folder.mkdir()
        for name, image in benchmark.items():
            (folder / f"{name}.png").write_bytes(encode_png(image))
        pack = build_pack("photographs", folder, Path(place) / "pack", pixels=True)
        for edit, function in EDITS.items():
            for number, name in enumerate(names):
                copy = _at_most(function(benchmark[name], np.random.default_rng([SEED, number])))
                data = encode_png(copy)
                began = time.process_time()
                image = decode_rgb(data, name)
                middle = time.process_time()
                findings = scan_picture(image, data, (pack,), Thresholds())[1]
                scan_s += time.process_time() - began
                hash_began = time.process_time()
                fingerprint(image, data)
                decode_hash_s += middle - began + time.process_time() - hash_began
                pictures += 1
                mine = [finding for finding in findings if finding.image == f"{name}.png"]
                recall[edit].append(any(finding.level == "leak" for finding in mine))
                flagged[edit].append(bool(mine))
                wrong += [f"{name} ({edit}) as {f.image}" for f in findings if f not in mine and f.level == "leak"]
                for peer in PEERS:
                    distances = _distances(peer.code(copy)[:1], codes[peer.name])
                    peer_recall[peer.name][edit].append(int(distances[number]))
                    peer_wrong[peer.name].append(int(np.delete(distances, number).min()))
        for number, (name, image) in enumerate(foreign.items()):
            rng = np.random.default_rng([SEED, 7, number])
            chosen = rng.choice(list(EDITS), 2, replace=False)
            for edit in (None, *chosen):
                shown = _at_most(image if edit is None else EDITS[edit](image, rng))
                findings = scan_picture(shown, encode_png(shown), (pack,), Thresholds())[1]
                wrong += [f"{name} ({edit}) as {f.image}" for f in findings if f.level == "leak"]
                wrong_review += any(f.level == "review" for f in findings)
                for peer in PEERS:
                    peer_wrong[peer.name].append(int(_distances(peer.code(shown)[:1], codes[peer.name]).min()))
    index_bytes = sum(array.nbytes for array in pack.arrays.values()) / len(names)
    said = [
        f"{len(names)} benchmark images, {pictures} copies, {3 * len(foreign)} foreign pictures "
        f"({len(foreign)} as they are and under two edits each).",
        f"Cascade: {len(wrong)} wrong leaks{': ' if wrong else ''}{'; '.join(wrong)}; "
        f"{wrong_review} foreign pictures sent to review.",
        f"Speed: {pictures / scan_s:.1f} images per CPU second with decoding "
        f"({pictures / decode_hash_s:.1f} for decoding and hashing alone); index {index_bytes / 1000:.1f} kB an image.",
        "",
    ]
    return _table(recall, flagged, peer_recall, peer_wrong) + "\n" + "\n".join(said)


def _table(
    recall: Mapping[str, list[bool]],
    flagged: Mapping[str, list[bool]],
    peer_recall: Mapping[str, Mapping[str, list[int]]],
    peer_wrong: Mapping[str, list[int]],
) -> str:
    best = {peer.name: min(peer_wrong[peer.name]) - 1 for peer in PEERS}
    lines = [
        "| edit | cascade: leak | leak or review | " + " | ".join(peer.name for peer in PEERS) + " |",
        "|---" * (3 + len(PEERS)) + "|",
    ]

    def row(title: str, edits: list[str]) -> str:
        own = np.concatenate([recall[edit] for edit in edits]).mean()
        seen = np.concatenate([flagged[edit] for edit in edits]).mean()
        cells = [f"**{own:.3f}**", f"{seen:.3f}"]
        for peer in PEERS:
            distances = np.concatenate([peer_recall[peer.name][edit] for edit in edits])
            cells.append(f"{(distances <= peer.default).mean():.3f} ({(distances <= best[peer.name]).mean():.3f})")
        return f"| {title} | " + " | ".join(cells) + " |"

    lines += [row(edit + (" *" if edit in HELD_OUT else ""), [edit]) for edit in EDITS]
    lines.append(row("**all edits**", list(EDITS)))
    lines.append(row("**held-out edits (*)**", list(HELD_OUT)))
    false = [f"{sum(d <= peer.default for d in peer_wrong[peer.name])} (0)" for peer in PEERS]
    lines.append("| wrong pairs | see below | | " + " | ".join(false) + " |")
    return "\n".join(lines) + "\n"


def _distances(query: NDArray[np.bool_], codes: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Smallest distance of a picture's code to each benchmark image's codes (N, turns, bits)."""
    return (codes != query[None]).sum(axis=2).min(axis=1)


def _at_most(image: UInt8Image, side: int = 1024) -> UInt8Image:
    """Reduce what an edit made very large: shards of generators seldom hold more than a megapixel."""
    factor = side / max(image.shape[:2])
    if factor >= 1:
        return image
    size = (round(image.shape[1] * factor), round(image.shape[0] * factor))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA)


def _wheels() -> tuple[dict[str, UInt8Image], dict[str, UInt8Image]]:
    read = lambda package, name: decode_rgb(files(package).joinpath(name).read_bytes(), name)
    found = [
        {name.partition(".")[0]: _working(read(package, name)) for package, names in chosen.items() for name in names}
        for chosen in (WHEEL_BENCHMARK, WHEEL_FOREIGN)
    ]
    return found[0], found[1]


def _folder(folder: Path, limit: int) -> tuple[dict[str, UInt8Image], dict[str, UInt8Image]]:
    """Read photographs at 640 px, drop near-duplicates among them (PDQ 70), keep every third out."""
    pictures: dict[str, UInt8Image] = {}
    codes: list[NDArray[np.bool_]] = []
    for place, _, names in sorted(os.walk(folder, followlinks=True)):
        for name in sorted(names):
            if not name.lower().endswith((".png", ".jpg", ".jpeg", ".webp")) or len(pictures) >= limit:
                continue
            try:
                image = _working(decode_rgb((Path(place) / name).read_bytes(), name))
            except InputError:
                continue
            code = pdq_hash(image)
            bits = np.unpackbits(code.variants, axis=1).astype(bool)
            if code.quality < 90 or any((other != bits[:1]).sum(axis=1).min() < 70 for other in codes):
                continue
            codes.append(bits)
            pictures[f"{len(pictures):03d}-{Path(name).stem}"] = image
    names = list(pictures)
    return {n: pictures[n] for i, n in enumerate(names) if i % 3}, {n: pictures[n] for n in names[::3]}


def _working(image: UInt8Image) -> UInt8Image:
    size = working_size(image.shape[1], image.shape[0])
    if size[0] >= image.shape[1]:
        return image
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)


if __name__ == "__main__":
    main()
