"""Image leakage: each image of a record against fingerprint packs, in a cascade from exact hashes to aligned pixels."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom

from cavendish.encoders.sample import UInt8Image
from cavendish.mixing.audit.benchmarks.image_files import read_original
from cavendish.mixing.audit.benchmarks.image_pack import Pack
from cavendish.mixing.audit.edits import EDITS
from cavendish.mixing.audit.matching.candidates import candidates
from cavendish.mixing.audit.matching.fingerprints import (
    ALGORITHM,
    MIN_QUALITY,
    QUERY_FEATURES_PER_CELL,
    Features,
    Fingerprint,
    fingerprint,
    local_features,
    mirrored_features,
    working_gray,
)
from cavendish.mixing.audit.matching.pdq import hamming
from cavendish.mixing.audit.matching.verify import (
    FULL_EVIDENCE_BLOCKS,
    Alignment,
    PixelCheck,
    align,
    check_pixels,
    covered_shares,
    dihedral_alignment,
    looks_like_other_view,
    score,
)
from cavendish.mixing.audit.signals.signal import (
    Finding,
    Planted,
    Record,
    ShardResults,
    Signal,
    strongest,
    view_name,
)
from cavendish.mixing.config import Config

if TYPE_CHECKING:
    from cavendish.mixing.audit.benchmarks.benchmark_index import BenchmarkIndex
    from cavendish.mixing.audit.plan import ScanPlan

CONTROL_EDITS = (
    "jpeg 30",
    "resize 0.3",
    "squeeze 0.6 wide",
    "crop 70 %",
    "crop 50 %",
    "centre square 256 px",
    "mirrored",
    "quarter turn",
    "rotated 5 degrees",
    "perspective",
    "colour jitter",
    "negative",
    "blur",
    "noise",
    "letterbox",
    "mask overlay",
    "beside a map",
    "mirrored, crop 60 %, jpeg 40",
)

_LINES_KEPT = 40
_WHOLE = 0.85
_AGREEING_SHARE = 0.35
_LOCAL_AGREEING_SHARE = 0.33
_CLEARLY_MORE = 1.1


class Thresholds(Config):
    """When a pair counts; docs/audit.md has the measured recall and the bounds on false positives.

    PDQ distances of unrelated pictures behave as 242 independent bits (mean 128.0, sd 8.22): a chance pair has distance
    31 or less with probability 1e-35, 64 or less with 1e-15. Up to `pdq_verify`, where chance pairs begin, the pixels
    decide.
    """

    pdq_accept: int = 31
    pdq_candidate: int = 64
    pdq_verify: int = 90
    pdq_inverted: int = 225
    max_candidates: int = 12
    leak_score: float = 8.0
    review_score: float = 5.0
    unverified_inliers: int = 14


@dataclass
class _Picture:
    """One picture of the mixture; what only later stages need is made when they ask."""

    image: UInt8Image
    print_: Fingerprint
    _gray: NDArray[np.uint8] | None = None
    _sides: tuple[Features, Features] | None = None

    @property
    def gray(self) -> NDArray[np.uint8]:
        if self._gray is None:
            self._gray = working_gray(self.image)
        return self._gray

    @property
    def sides(self) -> tuple[Features, Features]:
        """Features of the picture and of its mirror image."""
        if self._sides is None:
            features = local_features(self.gray, QUERY_FEATURES_PER_CELL)
            self._sides = features, mirrored_features(self.gray, features)
        return self._sides


def scan_image(
    image: UInt8Image, data: bytes, packs: tuple[Pack, ...], thresholds: Thresholds
) -> tuple[Fingerprint, list[Finding]]:
    """Compare one picture with every pack; return its fingerprint and what was found, in the packs' order.

    Args:
        image: (H, W, 3) uint8 RGB, decoded from `data`.
    """
    picture = _Picture(image, fingerprint(image, data))
    found: list[Finding] = []
    for pack in packs:
        found += _scan_pack(picture, pack, thresholds)
    return picture.print_, found


def _scan_pack(picture: _Picture, pack: Pack, thresholds: Thresholds) -> list[Finding]:
    codes = np.asarray(pack.arrays["pdq"]).reshape(-1, 32)
    distances = hamming(picture.print_.pdq.variants[0], codes).reshape(-1, 8)
    found = _exact(picture, pack, distances)
    if not found:
        found = _by_hash(picture, pack, distances, thresholds)
    if any(finding.level == "leak" for finding in found):
        return found
    best = {finding.image: finding for finding in found}
    for finding in _by_features(picture, pack, distances, thresholds):
        known = best.get(finding.image)
        if known is None or known.kind != "same-scene" or _settles(finding, known):
            best[finding.image] = finding
    return list(best.values())


def _settles(finding: Finding, other_view: Finding) -> bool:
    """Tell whether a better alignment shows a copy where a rough one (whole on whole) looked like another view."""
    agreeing, before = finding.agreeing or 0, other_view.agreeing or 0
    return finding.level == "leak" and agreeing > _CLEARLY_MORE * before


def _exact(picture: _Picture, pack: Pack, distances: NDArray[np.int32]) -> list[Finding]:
    same_file = pack.by_file.get(picture.print_.file_sha256, ())
    same_pixels = pack.by_pixels.get(picture.print_.pixel_sha256, ())
    found = []
    for number in same_file or same_pixels:
        stage, what = ("file", "bytes") if same_file else ("pixels", "decoded pixels")
        reason = f"The {what} are those of the benchmark image (equal sha256)."
        distance = int(distances[number].min())
        found.append(_whole(pack, number, "leak", stage, reason, distance, dihedral_alignment(0)))
    return found


def _by_hash(picture: _Picture, pack: Pack, distances: NDArray[np.int32], thresholds: Thresholds) -> list[Finding]:
    found = []
    nearest_turn, farthest = distances.min(axis=1), distances.max(axis=1)
    near = (nearest_turn <= thresholds.pdq_verify) | (farthest >= thresholds.pdq_inverted)
    for number in np.flatnonzero(near):
        inverted = farthest[number] >= thresholds.pdq_inverted
        distance = int(256 - farthest[number] if inverted else nearest_turn[number])
        turn = int(distances[number].argmax() if inverted else distances[number].argmin())
        quality = min(picture.print_.pdq.quality, int(pack.arrays["quality"][number]))
        alignment = dihedral_alignment(turn)
        check = _pixel_check(picture, pack, int(number), alignment)
        stage = "pdq-inverted" if inverted else "pdq"
        what = f"PDQ distance {distance} of 256 bits" + (" to the negative" if inverted else "")
        agrees = check is not None and check.agreeing >= FULL_EVIDENCE_BLOCKS and check.share >= _AGREEING_SHARE
        certain = quality >= MIN_QUALITY and (inverted or distance <= thresholds.pdq_accept)
        kind = None
        if certain or (check is not None and agrees and quality >= MIN_QUALITY):
            level, reason = "leak", f"{what}: chance gives that once in 10^{_chance_exponent(distance)} pairs."
            if check is not None:
                reason += f" {check.agreeing} of {check.textured} textured blocks agree in their pixels."
            if check is not None and looks_like_other_view(check):
                level, kind = "review", "same-scene"
                reason = f"{what}; {_other_view(check)}"
        elif quality >= MIN_QUALITY and distance <= thresholds.pdq_candidate:
            level, reason = "review", f"{what}, but no local evidence that settles it."
        elif distance <= thresholds.pdq_accept and (
            check is None or _flat_pictures_agree(picture, pack, int(number), turn)
        ):
            level, reason = "review", f"{what}, but there is too little structure (quality {quality}) to be sure."
        else:
            continue
        found.append(_whole(pack, int(number), level, stage, reason, distance, alignment, check, kind))
    return found


def _by_features(picture: _Picture, pack: Pack, distances: NDArray[np.int32], thresholds: Thresholds) -> list[Finding]:
    best: dict[int, Finding] = {}
    gray = picture.gray
    for candidate in candidates(pack, picture.sides, thresholds.max_candidates):
        alignment = align(
            candidate,
            picture.sides[candidate.mirrored],
            pack.features(candidate.image),
            (gray.shape[1], gray.shape[0]),
            pack.working_px(candidate.image),
        )
        if alignment is None:
            continue
        check = _pixel_check(picture, pack, candidate.image, alignment)
        finding = _judge(pack, candidate.image, alignment, check, int(distances[candidate.image].min()), thresholds)
        known = best.get(candidate.image)
        if finding is not None and (known is None or (finding.score or 0) > (known.score or 0)):
            best[candidate.image] = finding
    return list(best.values())


def _judge(
    pack: Pack, number: int, alignment: Alignment, check: PixelCheck | None, distance: int, thresholds: Thresholds
) -> Finding | None:
    mixture_share, benchmark_share = covered_shares(alignment)
    kind = "embedded" if mixture_share < _WHOLE else "copy" if benchmark_share >= _WHOLE else "crop"
    points = f"{alignment.inliers} matching points fit one affine map"
    if check is None:
        if alignment.inliers < thresholds.unverified_inliers:
            return None
        level, kind, value = "review", "unverified", None
        reason = f"{points}; geometric, unverified pixels (the index was made without pictures)."
    else:
        value = score(alignment.inliers, check)
        if value < thresholds.review_score:
            return None
        level = "leak" if value >= thresholds.leak_score else "review"
        reason = f"{points}; {check.agreeing} of {check.textured} textured blocks agree in their pixels."
        if looks_like_other_view(check) or check.share < _LOCAL_AGREEING_SHARE:
            level, kind = "review", "same-scene"
            reason = f"{points}; {_other_view(check)}"
    return Finding(
        benchmark=pack.name,
        image=pack.images[number]["id"],
        level=level,
        kind=kind,
        stage="local",
        reason=reason,
        pdq_distance=distance,
        inliers=alignment.inliers,
        score=None if value is None else round(value, 2),
        agreeing=None if check is None else check.agreeing,
        textured=None if check is None else check.textured,
        affine=_rounded(alignment.affine),
        mixture_share=round(mixture_share, 4),
        benchmark_share=round(benchmark_share, 4),
        lines=tuple(tuple(round(float(v), 4) for v in line) for line in _spread(alignment.lines)),
    )


def _whole(
    pack: Pack,
    number: int,
    level: str,
    stage: str,
    reason: str,
    distance: int,
    alignment: Alignment,
    check: PixelCheck | None = None,
    kind: str | None = None,
) -> Finding:
    """Make the finding of a stage that compares whole pictures."""
    return Finding(
        benchmark=pack.name,
        image=pack.images[number]["id"],
        level=level,
        kind=kind or ("copy" if level == "leak" else "unverified"),
        stage=stage,
        reason=reason,
        pdq_distance=distance,
        agreeing=None if check is None else check.agreeing,
        textured=None if check is None else check.textured,
        affine=_rounded(alignment.affine),
        mixture_share=1.0,
        benchmark_share=1.0,
    )


def _pixel_check(picture: _Picture, pack: Pack, number: int, alignment: Alignment) -> PixelCheck | None:
    if not pack.has_pixels:
        return None
    return check_pixels(picture.gray, working_gray(pack.thumbnail(number)), alignment)


def _flat_pictures_agree(picture: _Picture, pack: Pack, number: int, turn: int) -> bool:
    """Compare pictures without texture on a 32 x 32 grid: they agree within 12 grey levels on average."""
    affine = dihedral_alignment(turn).affine
    benchmark = cv2.resize(working_gray(pack.thumbnail(number)), (32, 32), interpolation=cv2.INTER_AREA)
    mixture = cv2.resize(picture.gray, (32, 32), interpolation=cv2.INTER_AREA)
    pixels = affine.copy()
    pixels[:, 2] = affine[:, 2] * 32 + affine[:, :2] @ (0.5, 0.5) - 0.5
    turned = cv2.warpAffine(benchmark, pixels, (32, 32), flags=cv2.INTER_NEAREST)
    return float(np.abs(turned.astype(float) - mixture).mean()) < 12


def _chance_exponent(distance: int) -> int:
    """Bound the chance that two unrelated pictures are that near: 242 independent fair bits, as measured."""
    bits = int(distance * 242 / 256)
    return int(-(binom.logcdf(bits, 242, 0.5) / np.log(10)))


def _other_view(check: PixelCheck) -> str:
    moving = max(check.motion.together, check.motion.apart)
    return (
        f"{check.agreeing} of {check.textured} textured blocks agree in place, {check.displaced} are displaced and "
        f"{moving} of {check.motion.tracked} tracked points move as in no edit: another view of the place, or another "
        "moment."
    )


def _rounded(affine: NDArray[np.float64]) -> tuple[float, ...]:
    return tuple(round(float(value), 5) for value in affine.reshape(-1))


def _spread(lines: NDArray[np.float32]) -> NDArray[np.float32]:
    """Keep lines from all over the picture."""
    return lines[np.linspace(0, len(lines) - 1, min(len(lines), _LINES_KEPT)).astype(int)]


_PART_NAME = re.compile(r"[a-z_]{0,24}\.?[a-z0-9]{1,8}")


def _part_name(member: str) -> str:
    """Name a kind of parts: as they are called, or by their ending where it may be anything."""
    return member if _PART_NAME.fullmatch(member) else f"*.{member.rpartition('.')[2].lower()[:8]}"


class ImageSignal(Signal):
    """Compares every image of a record with every benchmark image."""

    name = "images"
    counters = ("images", "weak")
    control_levels = ("leak",)

    def facts(self, plan: ScanPlan) -> Mapping[str, Any]:
        """Name the packs, the thresholds, and the versions that features depend on."""
        return {
            "algorithm": ALGORITHM,
            "versions": {"opencv": cv2.__version__, "numpy": np.__version__},
            "thresholds": plan.config.thresholds.model_dump(),
            "packs": [index.pack[1] for index in plan.indexes if index.pack is not None],
        }

    def compare(self, plan: ScanPlan, record: Record, results: ShardResults) -> None:
        """Run the cascade on every image."""
        for member, data in record.parts.items():
            found = record.views(member)
            name = _part_name(member)
            results.members[name]["not compared" if found.problems else "compared"] += 1
            for problem in found.problems:
                results.fail(f"{record.key}.{member}", problem)
            for view in found.views:
                results.counts["images"] += 1
                print_, findings = scan_image(view.image, data, plan.packs, plan.config.thresholds)
                results.counts["weak"] += not view.name and print_.pdq.quality < MIN_QUALITY
                for finding in findings:
                    results.add(record, view_name(member, view), print_.pixel_sha256, finding)

    def can_plant(self, plan: ScanPlan, index: BenchmarkIndex) -> bool:
        """Copies can be made of original images, or of the small ones kept beside a pack."""
        return index.pack is not None and (index.images is not None or index.open_pack().has_pixels)

    def plant(self, plan: ScanPlan, index: BenchmarkIndex) -> list[Planted]:
        """Plant edited copies; see `plant_copies`."""
        return plant_copies(
            index.open_pack(),
            index.images,
            plan.config.controls.copies,
            plan.config.controls.seed,
            plan.config.thresholds,
        )

    def coverage(self, plan: ScanPlan, index: BenchmarkIndex) -> Mapping[str, Any]:
        """Count images."""
        if index.pack is None:
            return {"images": 0, "weak": 0, "pixels": False, "left_aside": {}, "digest": None}
        pack = index.open_pack()
        return {
            "images": len(pack.images),
            "weak": len(pack.header["weak"]),
            "pixels": pack.has_pixels,
            "left_aside": pack.header["left_aside"],
            "digest": pack.digest,
        }

    def unread(self, index: BenchmarkIndex) -> list[str]:
        """Images that could not be decoded."""
        return [] if index.pack is None else [item["reason"] for item in index.open_pack().header["unread"]]

    def not_cleared(self, plan: ScanPlan, index: BenchmarkIndex) -> list[str]:
        """Images with too little structure, and all images where no pixels can be compared."""
        if index.pack is None:
            return []
        pack = index.open_pack()
        weak = pack.header["weak"]
        reasons = []
        if weak:
            names = ", ".join(weak[:10]) + (", ..." if len(weak) > 10 else "")
            reasons.append(
                f"Benchmark {pack.name}: {len(weak)} images have too little structure to be cleared: {names}."
            )
        if not pack.has_pixels:
            reasons.append(f"Benchmark {pack.name}: its pack holds no pixels; findings end at matching geometry.")
        return reasons


def plant_copies(pack: Pack, folder: Path | None, copies: int, seed: int, thresholds: Thresholds) -> list[Planted]:
    """Plant edited copies of a benchmark's images and scan them.

    Images with too little structure to be hashed are left out: the report lists them as not cleared.

    Returns:
        For each: image, edit, found ("leak", "review" or None).
    """
    usable = np.flatnonzero(np.asarray(pack.arrays["quality"]) >= MIN_QUALITY)
    if not len(usable):
        return []
    rng = np.random.default_rng([seed, 1])
    results = []
    for i in range(copies):
        if i % len(usable) == 0:
            order = rng.permutation(usable)
        number, edit = int(order[i % len(usable)]), CONTROL_EDITS[i % len(CONTROL_EDITS)]
        copy = EDITS[edit](_original(pack, folder, number), np.random.default_rng([seed, 2, i]))
        identity = pack.images[number]["id"]
        _, findings = scan_image(copy, b"", (pack,), thresholds)
        levels = {finding.level for finding in findings if finding.image == identity}
        results.append({"image": identity, "edit": edit, "found": strongest(levels)})
    return results


def _original(pack: Pack, folder: Path | None, number: int) -> UInt8Image:
    return pack.thumbnail(number) if folder is None else read_original(folder, pack.images[number]["id"])
