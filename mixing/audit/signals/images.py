"""Image leakage: each image of a record against fingerprint packs, in a cascade from exact hashes to aligned pixels."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass, replace
from functools import cached_property
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
from cavendish.mixing.audit.matching.content import Content, compare_content, distinctive_agreement
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
    is_displaced,
    moves_within,
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
_CLEARLY_MORE, _WELL_ALIGNED = 1.1, 0.8
_BLANK_STD, _NOTHING_LOST = 2.0, 0.01
_COARSELY_AGREEING = 0.5
_PASTED = 0.4
_DOCUMENT_FLAT = 0.3
_PHOTOGRAPH_LOSES, _DOCUMENT_LOSES, _DISTINCTIVE_LOSES = (0.06, 0.02), (0.025, 0.008), (0.25, 0.1)
"""The shares of a benchmark image's content that may be lost, and blank; more of one that differs from its relatives in
what is there. Copies of the photographs in docs/audit.md lose up to 0.08 (perspective), others 0.04 and 0.01."""
_DISTINCTIVE_SHARE, _DISTINCTIVE_THERE = 0.01, 0.8
_REPLACED_RADIUS = 0.17


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
class _Image:
    """An image of the mixture; what only later stages need is made when they ask."""

    rgb: UInt8Image
    print_: Fingerprint

    @cached_property
    def gray(self) -> NDArray[np.uint8]:
        """The working image."""
        return working_gray(self.rgb)

    @cached_property
    def sides(self) -> tuple[Features, Features]:
        """Features of the image and of its mirror image."""
        features = local_features(self.gray, QUERY_FEATURES_PER_CELL)
        return features, mirrored_features(self.gray, features)

    @cached_property
    def is_blank(self) -> bool:
        """Whether it shows nothing: such images accuse nobody, and are never cleared."""
        return float(cv2.resize(self.gray, (64, 64), interpolation=cv2.INTER_AREA).std()) < _BLANK_STD


@dataclass(frozen=True)
class _Match:
    """A finding for one benchmark image, with the pixel check behind it and the image's grey; None where not made."""

    number: int
    finding: Finding
    check: PixelCheck | None = None
    benchmark: NDArray[np.uint8] | None = None

    @property
    def is_certain(self) -> bool:
        """Whether no better alignment needs to be looked for."""
        return self.finding.level == "leak" and (
            self.check is None or (self.check.share >= _WELL_ALIGNED and not is_displaced(self.check))
        )


def scan_image(
    image: UInt8Image, data: bytes, packs: tuple[Pack, ...], thresholds: Thresholds
) -> tuple[Fingerprint, list[Finding]]:
    """Compare one image with every pack; return its fingerprint and what was found, in the packs' order.

    Args:
        image: (H, W, 3) uint8 RGB, decoded from `data`.
    """
    shown = _Image(image, fingerprint(image, data))
    found = [] if shown.is_blank else [finding for pack in packs for finding in _scan_pack(shown, pack, thresholds)]
    return shown.print_, found


def _scan_pack(image: _Image, pack: Pack, thresholds: Thresholds) -> list[Finding]:
    codes = np.asarray(pack.arrays["pdq"]).reshape(-1, 32)
    distances = hamming(image.print_.pdq.variants[0], codes).reshape(-1, 8)
    matches = {match.number: match for match in _exact(image, pack, distances)}
    for match in _by_hash(image, pack, distances, thresholds):
        matches.setdefault(match.number, match)
    certain = {number for number, match in matches.items() if match.is_certain}
    for match in _by_features(image, pack, distances, thresholds, certain):
        known = matches.get(match.number)
        if known is None or _settles(match.finding, known.finding):
            matches[match.number] = match
    return [_settled(image, match, matches.values()) for match in matches.values()]


def _settles(finding: Finding, known: Finding) -> bool:
    """Tell whether an alignment by features says more than a rough one, of whole image on whole image."""
    if known.kind == "unverified":
        return True
    agreeing, before = finding.agreeing or 0, known.agreeing or 0
    return finding.level == "leak" and agreeing > _CLEARLY_MORE * before


def _exact(image: _Image, pack: Pack, distances: NDArray[np.int32]) -> Iterator[_Match]:
    same_file = pack.by_file.get(image.print_.file_sha256, ())
    same_pixels = pack.by_pixels.get(image.print_.pixel_sha256, ())
    for number in same_file or same_pixels:
        stage, what = ("file", "bytes") if same_file else ("pixels", "decoded pixels")
        reason = f"The {what} are those of the benchmark image (equal sha256)."
        distance = int(distances[number].min())
        yield _Match(number, _whole(pack, number, "leak", stage, reason, distance, dihedral_alignment(0)))


def _by_hash(image: _Image, pack: Pack, distances: NDArray[np.int32], thresholds: Thresholds) -> Iterator[_Match]:
    nearest, farthest = distances.min(axis=1), distances.max(axis=1)
    inverted = farthest >= thresholds.pdq_inverted
    apart = np.where(inverted, 256 - farthest, nearest)
    near = np.flatnonzero(inverted | (nearest <= thresholds.pdq_verify))
    related = int((apart <= thresholds.pdq_candidate).sum()) > 1
    for number in near[np.argsort(apart[near], kind="stable")][: thresholds.max_candidates].tolist():
        turn = int(distances[number].argmax() if inverted[number] else distances[number].argmin())
        match = _judge_hash(image, pack, number, int(apart[number]), turn, bool(inverted[number]), related, thresholds)
        if match is not None:
            yield match


def _judge_hash(
    image: _Image,
    pack: Pack,
    number: int,
    distance: int,
    turn: int,
    inverted: bool,
    related: bool,
    thresholds: Thresholds,
) -> _Match | None:
    """Judge a pair by its hashes, and by the pixels of the whole images laid on one another where there are any.

    Args:
        related: other images of the benchmark are near as well, so that they are no independent ones.
    """
    quality = min(image.print_.pdq.quality, int(pack.arrays["quality"][number]))
    alignment = dihedral_alignment(turn)
    benchmark = _benchmark_gray(pack, number)
    check = None if benchmark is None else check_pixels(image.gray, benchmark, alignment)
    what = f"PDQ distance {distance} of 256 bits" + (" to the negative" if inverted else "")
    near = inverted or distance <= thresholds.pdq_accept
    level, reason = "review", ""
    if quality < MIN_QUALITY:
        if near and (check is None or _flat_images_agree(image, pack, number, turn)):
            reason = f"{what}, but there is too little structure (quality {quality}) to be sure."
    elif check is None:
        if near and not related:
            exponent = _chance_exponent(distance)
            level, reason = "leak", f"{what}: two unrelated photographs come that near once in 10^{exponent} pairs."
        elif near:
            reason = f"{what}, but other images of the benchmark are near too: they may share a template."
    elif _agree_as_wholes(image, check, benchmark, near):
        level, reason = "leak", f"{what}; {check.agreeing} of {check.textured} textured blocks agree in their pixels."
    if not reason and quality >= MIN_QUALITY and distance <= thresholds.pdq_candidate:
        reason = f"{what}, but no local evidence that settles it."
    if not reason:
        return None
    stage = "pdq-inverted" if inverted else "pdq"
    return _Match(number, _whole(pack, number, level, stage, reason, distance, alignment, check), check, benchmark)


def _agree_as_wholes(image: _Image, check: PixelCheck, benchmark: NDArray[np.uint8] | None, near: bool) -> bool:
    """Tell whether the pixels bear out a hash: by blocks, or, of blurred and grainy copies, by coarser content."""
    if check.agreeing >= FULL_EVIDENCE_BLOCKS and check.share >= _AGREEING_SHARE:
        return True
    if not near or benchmark is None:
        return False
    content = compare_content(image.gray, benchmark, check.matrix)
    return content is None or content.share(content.agree) >= _COARSELY_AGREEING


def _by_features(
    image: _Image, pack: Pack, distances: NDArray[np.int32], thresholds: Thresholds, certain: Set[int]
) -> Iterable[_Match]:
    best: dict[int, _Match] = {}
    gray = image.gray
    for candidate in candidates(pack, image.sides, thresholds.max_candidates):
        if candidate.image in certain:
            continue
        alignment = align(
            candidate,
            image.sides[candidate.mirrored],
            pack.features(candidate.image),
            (gray.shape[1], gray.shape[0]),
            pack.working_px(candidate.image),
        )
        if alignment is None:
            continue
        benchmark = _benchmark_gray(pack, candidate.image)
        check = None if benchmark is None else check_pixels(gray, benchmark, alignment)
        finding = _judge(pack, candidate.image, alignment, check, int(distances[candidate.image].min()), thresholds)
        known = best.get(candidate.image)
        if finding is not None and (known is None or (finding.score or 0) > (known.finding.score or 0)):
            best[candidate.image] = _Match(candidate.image, finding, check, benchmark)
    return best.values()


def _settled(image: _Image, match: _Match, matches: Iterable[_Match]) -> Finding:
    """Return a match's finding: for review where it is another view of a place, or another content in a template."""
    finding, check, benchmark = match.finding, match.check, match.benchmark
    if finding.level != "leak" or check is None or benchmark is None:
        return finding
    content = compare_content(image.gray, benchmark, check.matrix)
    template, lost = "", 1.0
    if content is not None:
        content, others = _beside_others(content, match, matches)
        template, lost = _template(content, others), content.share(content.lost)
    is_document = content is not None and content.flat_share > _DOCUMENT_FLAT
    if not (template and is_document):  # a template costs less to tell
        rough = finding.stage == "local" and check.share < _LOCAL_AGREEING_SHARE
        if rough or (is_displaced(check) and lost > _NOTHING_LOST) or moves_within(check):
            return replace(finding, level="review", kind="same-scene", reason=_other_view(finding, check))
    if template:
        return replace(finding, level="review", kind="template", reason=f"{finding.reason} But {template}")
    return finding


def _beside_others(
    content: Content, match: _Match, matches: Iterable[_Match]
) -> tuple[Content, list[tuple[NDArray[np.float32], NDArray[np.bool_]]]]:
    """Leave out what other benchmark images, pasted in, cover; return also those that lie over the same place."""
    others = []
    for other in matches:
        if other.number == match.number or other.check is None or other.benchmark is None:
            continue
        warped, seen = content.frame.warp(other.benchmark, other.check.matrix)
        if other.finding.level == "leak" and seen.sum() < _PASTED * content.seen.sum():
            content = content.without(seen)
        else:
            others.append((warped, seen))
    return content, others


def _template(content: Content, others: list[tuple[NDArray[np.float32], NDArray[np.bool_]]]) -> str:
    """Say why a pair shares a template only; empty when it shows the same content."""
    agree, lost, erased, added = (
        content.share(what) for what in (content.agree, content.lost, content.erased, content.added)
    )
    most_lost, most_erased = _DOCUMENT_LOSES if content.flat_share > _DOCUMENT_FLAT else _PHOTOGRAPH_LOSES
    share, there = distinctive_agreement(content, others) if others else (0.0, 0.0)
    if share >= _DISTINCTIVE_SHARE:
        if there < _DISTINCTIVE_THERE and not _is_all_there(agree, lost, erased, added):
            return (
                f"of what sets this benchmark image apart from others that match here, {there:.0%} is there: they "
                "share a template."
            )
        most_lost, most_erased = _DISTINCTIVE_LOSES
    elif content.replaced_radius > _REPLACED_RADIUS:
        return "a large part of the benchmark image is covered by other content: they may share what is around it only."
    if lost <= most_lost and erased <= most_erased:
        return ""
    return (
        f"{lost:.0%} of the benchmark image's content is not there, where nothing is laid over it ({erased:.0%} is "
        "blank): another content in the same template, or heavily edited."
    )


def _is_all_there(agree: float, lost: float, erased: float, added: float) -> bool:
    """Tell a pair that differs in next to nothing: of two benchmark images that are nearly the same, both are there."""
    return agree >= 0.9 and lost <= 0.02 and erased <= 0.005 and added <= 0.05


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
) -> Finding:
    """Make the finding of a stage that compares whole pictures."""
    return Finding(
        benchmark=pack.name,
        image=pack.images[number]["id"],
        level=level,
        kind="copy" if level == "leak" else "unverified",
        stage=stage,
        reason=reason,
        pdq_distance=distance,
        agreeing=None if check is None else check.agreeing,
        textured=None if check is None else check.textured,
        affine=_rounded(alignment.affine),
        mixture_share=1.0,
        benchmark_share=1.0,
    )


def _benchmark_gray(pack: Pack, number: int) -> NDArray[np.uint8] | None:
    return working_gray(pack.thumbnail(number)) if pack.has_pixels else None


def _flat_images_agree(image: _Image, pack: Pack, number: int, turn: int) -> bool:
    """Compare images without texture on a 32 x 32 grid: they agree within 12 grey levels on average."""
    affine = dihedral_alignment(turn).affine
    benchmark = cv2.resize(working_gray(pack.thumbnail(number)), (32, 32), interpolation=cv2.INTER_AREA)
    mixture = cv2.resize(image.gray, (32, 32), interpolation=cv2.INTER_AREA)
    pixels = affine.copy()
    pixels[:, 2] = affine[:, 2] * 32 + affine[:, :2] @ (0.5, 0.5) - 0.5
    turned = cv2.warpAffine(benchmark, pixels, (32, 32), flags=cv2.INTER_NEAREST)
    return float(np.abs(turned.astype(float) - mixture).mean()) < 12


def _chance_exponent(distance: int) -> int:
    """Bound the chance that two unrelated pictures are that near: 242 independent fair bits, as measured."""
    bits = int(distance * 242 / 256)
    return int(-(binom.logcdf(bits, 242, 0.5) / np.log(10)))


def _other_view(finding: Finding, check: PixelCheck) -> str:
    moving = max(check.motion.together, check.motion.apart)
    return (
        f"{finding.reason.partition(';')[0]}; {check.agreeing} of {check.textured} textured blocks agree in place, "
        f"{check.displaced} are displaced and {moving} of {check.motion.tracked} tracked points move as in no edit: "
        "another view of the place, or another moment."
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
