"""Measures the leakage audit against perceptual hashes on the same pairs: recall by edit, false positives, speed.

    pip install --no-deps --target peers imagehash imagededup PyWavelets
    PYTHONPATH=peers python benchmarks/audit.py [--photos FOLDER] [--negatives 60] [--out table.md]

Benchmark images are the photographs of the scikit-image and scikit-learn wheels, or those of a folder of yours, of
which every third one is then kept out as a foreign picture. Every edit of `mixing.audit.edits` is made of each of them,
with seeds that nothing was tuned with. Foreign pictures are the photographs and textures kept out, and synthetic
pictures, as they are and under two edits each. Peers compare whole pictures; at no false positive and at a precision of
0.9 they get the best threshold for these very pairs (an oracle: no user could have chosen it).

imagededup's hashes are its own code; its package is entered past two `__init__` files, which import neural networks
that nothing here needs.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from types import ModuleType

import cv2
import imagehash
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cavendish.encoders.sample import InputError, UInt8Image
from cavendish.mixing.audit.benchmarks.image_pack import build_pack
from cavendish.mixing.audit.edits import EDITS, procedural_picture
from cavendish.mixing.audit.matching.fingerprints import fingerprint, working_size
from cavendish.mixing.audit.matching.pdq import pdq_hash
from cavendish.mixing.audit.signals.images import Thresholds, scan_image
from cavendish.mixing.audit.signals.signal import Finding
from cavendish.mixing.images import decode_rgb, encode_png

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
"""Edits that no constant of the first cascade was chosen with. Some of them were in view when the second was made, on
other photographs; the photographs of the published figures never were."""


@dataclass(frozen=True)
class Peer:
    """A whole-picture hash: `code` gives bits (one row for each turn it tries), `default` its published threshold."""

    name: str
    code: Callable[[UInt8Image], NDArray[np.bool_]]
    default: int


def _imagehash(name: str) -> Callable[[UInt8Image], NDArray[np.bool_]]:
    function = getattr(imagehash, name)
    return lambda image: np.asarray(function(Image.fromarray(image)).hash).reshape(1, -1)


def _imagededup(name: str) -> Callable[[UInt8Image], NDArray[np.bool_]]:
    found = importlib.util.find_spec("imagededup")
    if found is None or found.submodule_search_locations is None:
        raise SystemExit("imagededup is not there: pip install --no-deps --target peers imagededup")
    for part in ("methods", "utils"):
        package = ModuleType(f"imagededup.{part}")
        package.__path__ = [f"{place}/{part}" for place in found.submodule_search_locations]
        sys.modules.setdefault(package.__name__, package)
    hasher = getattr(importlib.import_module("imagededup.methods.hashing"), name)(verbose=False)
    return lambda image: np.unpackbits(np.frombuffer(bytes.fromhex(hasher.encode_image(image_array=image)), np.uint8))[
        None
    ].astype(bool)


PEERS = (
    *(
        Peer(f"imagehash {name}", _imagehash(name), bits)
        for name, bits in (("average_hash", 5), ("dhash", 10), ("phash", 10), ("whash", 5))
    ),
    *(Peer(f"imagededup {name}", _imagededup(name), 10) for name in ("AHash", "DHash", "PHash", "WHash")),
    Peer("PDQ", lambda image: np.unpackbits(pdq_hash(image).variants[:1], axis=1).astype(bool), 31),
    Peer("PDQ, 8 turns", lambda image: np.unpackbits(pdq_hash(image).variants, axis=1).astype(bool), 31),
)


@dataclass
class Tally:
    """What one tool said: `right`, distances of copies to their originals; `wrong`, of all to the nearest other image.

    Distances of the cascade: 0 for what is exact, then by evidence; infinite where nothing was found.
    """

    right: dict[str, list[float]] = field(default_factory=lambda: {edit: [] for edit in EDITS})
    wrong: list[float] = field(default_factory=list)

    def best(self, precision: float) -> float:
        """Return the largest threshold of which that share of all that is within it is right."""
        right, wrong = np.sort(np.concatenate(list(self.right.values()))), np.sort(self.wrong)
        steps = np.unique(right[np.isfinite(right)])
        hits, misses = np.searchsorted(right, steps, "right"), np.searchsorted(wrong, steps, "right")
        fine = steps[hits / np.maximum(hits + misses, 1) >= precision]
        return float(fine.max()) if len(fine) else -1.0

    def recall(self, edits: list[str], threshold: float) -> float:
        """Return the share of copies within a threshold."""
        return float((np.concatenate([self.right[edit] for edit in edits]) <= threshold).mean())


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
    own, tallies = Tally(), {peer.name: Tally() for peer in PEERS}
    verdicts: dict[str, list[str]] = {edit: [] for edit in EDITS}
    codes = {peer.name: np.stack([peer.code(image) for image in benchmark.values()]) for peer in PEERS}
    wrong: list[str] = []
    scan_s = decode_hash_s = 0.0
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "images"
        folder.mkdir()
        for name, image in benchmark.items():
            (folder / f"{name}.png").write_bytes(encode_png(image))
        pack = build_pack("photographs", folder, Path(place) / "pack", pixels=True)

        def compare(shown: UInt8Image, original: str | None, edit: str) -> tuple[float, list[Finding], float, float]:
            what, data = f"{original} ({edit})", encode_png(shown)
            began = time.process_time()
            image = decode_rgb(data, what)
            decoded = time.process_time()
            findings = scan_image(image, data, (pack,), Thresholds(review_score=1.0))[1]
            ended = time.process_time()
            fingerprint(image, data)
            hashed = time.process_time() - ended
            mine = [finding for finding in findings if finding.image == f"{original}.png"]
            others = [finding for finding in findings if finding not in mine]
            own.wrong.append(min((_evidence(finding) for finding in others), default=np.inf))
            wrong.extend(f"{what} as {f.image} ({f.level}, {f.kind}, {f.score})" for f in others if _counts(f))
            for peer in PEERS:
                distances = _distances(peer.code(shown)[:1], codes[peer.name])
                if original is not None:
                    number = names.index(original)
                    tallies[peer.name].right[edit].append(int(distances[number]))
                    distances = np.delete(distances, number)
                tallies[peer.name].wrong.append(int(distances.min()))
            evidence = min((_evidence(finding) for finding in mine), default=np.inf)
            return evidence, mine, ended - began, decoded - began + hashed

        for edit, function in EDITS.items():
            for number, name in enumerate(names):
                copy = _at_most(function(benchmark[name], np.random.default_rng([SEED, number])))
                evidence, mine, scan, decode_hash = compare(copy, name, edit)
                own.right[edit].append(evidence)
                counted = [finding for finding in mine if _counts(finding)]
                leak = any(finding.level == "leak" for finding in counted)
                verdicts[edit].append("leak" if leak else counted[0].kind if counted else "missed")
                scan_s, decode_hash_s = scan_s + scan, decode_hash_s + decode_hash
        foreign_s, shown_pictures = 0.0, 0
        for number, (name, image) in enumerate(foreign.items()):
            rng = np.random.default_rng([SEED, 7, number])
            for edit in (None, *rng.choice(list(EDITS), 2, replace=False)):
                shown = _at_most(image if edit is None else EDITS[edit](image, rng))
                foreign_s += compare(shown, None, f"{name}, {edit}")[2]
                shown_pictures += 1
        pack_bytes = sum(path.stat().st_size for path in pack.folder.iterdir()) / len(names)
    copies = len(names) * len(EDITS)
    pairs = (copies * (len(names) - 1)) + shown_pictures * len(names)
    said = [
        f"{len(names)} benchmark images, {copies} copies, {shown_pictures} foreign pictures "
        f"({len(foreign)} as they are and under two edits each): {pairs} pairs that are none.",
        f"Wrong: {len(wrong)}{': ' if wrong else ''}{'; '.join(wrong)}. Best wrong local score: "
        f"{1000 - min(own.wrong) if np.isfinite(min(own.wrong)) else 'none above 1'}.",
        f"Speed, images per CPU second with decoding: {copies / scan_s:.1f} copies, "
        f"{shown_pictures / foreign_s:.1f} foreign ({copies / decode_hash_s:.1f} for decoding and hashing alone); "
        f"pack {pack_bytes / 1000:.1f} kB an image.",
        "",
    ]
    return _tables(own, verdicts, tallies) + "\n" + "\n".join(said)


def _counts(finding: Finding) -> bool:
    """Tell what the default thresholds report from what was kept for the curves only."""
    return finding.score is None or finding.score >= Thresholds().review_score


def _evidence(finding: Finding) -> float:
    """Order findings: exact ones, then hashes by distance, then local ones by score."""
    if finding.score is not None:
        return 1000 - min(finding.score, 700)
    return 0.0 if finding.stage in ("file", "pixels") else float(finding.pdq_distance or 0)


def _tables(own: Tally, verdicts: Mapping[str, list[str]], tallies: Mapping[str, Tally]) -> str:
    everything = list(EDITS)
    rows = [(edit + (" *" if edit in HELD_OUT else ""), [edit]) for edit in everything]
    rows += [("**all edits**", everything), ("**held-out edits (*)**", list(HELD_OUT))]
    zero, ninety = own.best(1.0), own.best(0.9)
    lines = []
    for title, precision in (("no false positive", 1.0), ("precision 0.9", 0.9)):
        best = {name: tally.best(precision) for name, tally in tallies.items()}
        mine = "cascade: leak | leak or review | cascade, best threshold" if precision == 1 else "cascade"
        lines += [f"Recall at {title}:", "", f"| edit | {mine} | " + " | ".join(tallies) + " |"]
        lines.append("|---" * (lines[-1].count("|") - 1) + "|")
        for name, edits in rows:
            said = [verdict for edit in edits for verdict in verdicts[edit]]
            cells = [f"**{np.mean([v == 'leak' for v in said]):.3f}**", f"{np.mean([v != 'missed' for v in said]):.3f}"]
            cells = (
                [*cells, f"{own.recall(edits, zero):.3f}"]
                if precision == 1
                else [f"**{own.recall(edits, ninety):.3f}**"]
            )
            cells += [f"{tally.recall(edits, best[peer]):.3f}" for peer, tally in tallies.items()]
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
        lines.append("")
    lines += ["Peers at their published thresholds, all edits:", "", "| peer | threshold | recall | wrong pictures |"]
    lines.append("|---|---|---|---|")
    for peer in PEERS:
        tally = tallies[peer.name]
        false = sum(distance <= peer.default for distance in tally.wrong)
        lines.append(f"| {peer.name} | {peer.default} | {tally.recall(everything, peer.default):.3f} | {false} |")
    kinds = sorted({verdict for said in verdicts.values() for verdict in said})
    counts = {kind: sum(said.count(kind) for said in verdicts.values()) for kind in kinds}
    lines += ["", "Verdicts on copies: " + ", ".join(f"{kind} {count}" for kind, count in counts.items()) + "."]
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
    """Read photographs at 640 px, drop near-duplicates and negatives among them (PDQ 70), keep every third out."""
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
            distances = [(other != bits[:1]).sum(axis=1) for other in codes]
            if code.quality < 90 or any(other.min() < 70 or other.max() > 186 for other in distances):
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
