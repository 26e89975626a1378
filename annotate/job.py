"""The annotation job: image collections to raw shards. One element = one shard; a bad image costs itself only."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cache, partial
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field, field_validator

from annotate.annotators.protocol import Annotator, Failure
from annotate.annotators.saliency import Saliency, U2NetSaliency, subject_mask
from annotate.decode import DecodedImage, decode_image
from annotate.quality import Mask, MaskThresholds, colour_separation, edge_align, uncertain_share, verdict
from annotate.sources import FoundImage, Item, Part, SourceConfig, fingerprint, list_items, read_item
from annotate.weights import U2NETP, find_weights
from encoders.palettes import color_word
from encoders.sample import InputError, Instance, Rejection, Sample, UInt8Image
from mixing.beam import run
from mixing.config import Config
from mixing.engine import Engine, JobResult, Progress
from mixing.shards import Plan, start_dataset
from mixing.storage import canonical_json, digest, read_json, write_atomic

CATEGORY = "main subject"
_BATCH = 8  # images held decoded at a time
_LIBRARIES = ("numpy", "onnxruntime", "opencv-python-headless", "pillow")


class AnnotateConfig(Config):
    """What to annotate, and what a label must reach to be kept.

    Args:
        sources: collections of images, in order.
        max_side_px: larger pictures are reduced to this longer side, by area averaging.
        images_per_shard: one shard is one unit of work.
        check_inputs: how a changed input is noticed on a restart: by the "sha256" of every file, or, for collections
            too large to read twice, by its "size".
        mask: thresholds of the label-free checks.
        dropped_masks: what becomes of a picture whose mask fails them: "reject" leaves it out; "keep_picture" keeps it
            with its caption and without the mask, for generation; a picture without a caption is left out still.
    """

    sources: tuple[SourceConfig, ...] = Field(min_length=1)
    max_side_px: int = Field(default=1024, ge=128, le=4096)
    images_per_shard: int = Field(default=100, ge=1, le=10_000)
    check_inputs: Literal["sha256", "size"] = "sha256"
    mask: MaskThresholds = MaskThresholds()
    dropped_masks: Literal["reject", "keep_picture"] = "reject"

    @field_validator("sources")
    @classmethod
    def _names_differ(cls, sources: tuple[SourceConfig, ...]) -> tuple[SourceConfig, ...]:
        names = [source.name for source in sources]
        if len(set(names)) < len(names):
            raise ValueError("two sources have the same name; keys would not be unique")
        return sources


def annotate(
    config: AnnotateConfig,
    out: Path,
    engine: Engine = Engine(),
    progress: Progress | None = None,
    data: Path = Path(),
) -> JobResult:
    """Annotate every image of the sources into raw shards under `out`; an unfinished run is continued.

    The plan holds the configuration, the annotator with its weights' hash, and a fingerprint of every input file:
    the shards are a function of the plan, and a changed input is another plan.

    Args:
        data: where relative paths of the sources start.

    Raises:
        InputError: a source is not there or empty, the weights are missing, or `out` holds another plan.
        JobFailed: see `mixing.beam.run`.
    """
    find_weights(U2NETP)
    items: list[tuple[int, Item]] = []
    inputs = []
    for number, source in enumerate(config.sources):
        listed = list_items(source, data / source.path)
        items += [(number, item) for item in listed]
        files = fingerprint(data / source.path, listed, config.check_inputs)
        inputs.append({"source": source.name, "images": len(listed), "digest": digest(files)})
    count = config.images_per_shard
    shards = [items[start : start + count] for start in range(0, len(items), count)]
    settings = {"pipeline": "annotate/1", "config": config.model_dump(mode="json"), "inputs": inputs}
    plan = Plan("annotate", len(shards), {**settings, "annotators": [asdict(U2NetSaliency().spec)]})
    start_dataset(out, plan)
    _write_listing(out, shards)
    return run(plan, partial(build_shard, config, data, out), out, engine, progress)


def build_shard(config: AnnotateConfig, data: Path, out: Path, index: int) -> Iterator[Sample | Rejection]:
    """Make the samples of one shard, a bounded number of pictures in memory at a time."""
    listed = _read_listing(out, index)
    for start in range(0, len(listed), _BATCH):
        yield from _annotate_batch(config, data, listed[start : start + _BATCH], _loaded_annotator())


@cache
def _loaded_annotator() -> Annotator[UInt8Image, Saliency]:
    """Load the model once in each process."""
    annotator = U2NetSaliency()
    annotator.load()
    return annotator


def _listing_path(out: Path, index: int) -> Path:
    return out / "inputs" / f"inputs-{index:06d}.json"


def _write_listing(out: Path, shards: Sequence[Sequence[tuple[int, Item]]]) -> None:
    """Write which images go into which shard: the workers read their part, so that no element carries the listing."""
    (out / "inputs").mkdir(exist_ok=True)
    for index, shard in enumerate(shards):
        path, rows = _listing_path(out, index), [[number, asdict(item)] for number, item in shard]
        if not path.exists():
            write_atomic(path, canonical_json(rows))


def _read_listing(out: Path, index: int) -> list[tuple[int, Item]]:
    listed = []
    for number, fields in read_json(_listing_path(out, index), "the images of a shard"):
        parts = {name: Part(**fields[name]) for name in ("image", "text", "meta") if fields[name] is not None}
        listed.append((number, Item(fields["key"], fields["name"], problem=fields["problem"], **parts)))
    return listed


@dataclass(frozen=True)
class _Picture:
    source: SourceConfig
    name: str
    found: FoundImage
    decoded: DecodedImage


def _annotate_batch(
    config: AnnotateConfig, data: Path, listed: Sequence[tuple[int, Item]], annotator: Annotator[UInt8Image, Saliency]
) -> Iterator[Sample | Rejection]:
    """Read, decode, annotate and judge a few images; the results come in the order of the listing."""
    pictures: dict[str, _Picture] = {}
    rejected: dict[str, str] = {}
    for number, item in listed:
        source = config.sources[number]
        try:
            found = read_item(source, data / source.path, item)
            pictures[item.key] = _Picture(source, item.name, found, decode_image(found.data, config.max_side_px))
        except InputError as error:
            rejected[item.key] = f"{item.name}: {error}"
    results = dict(zip(pictures, annotator.annotate([picture.decoded.rgb_u8 for picture in pictures.values()])))
    for _, item in listed:
        if item.key in rejected:
            yield Rejection(item.key, rejected[item.key])
            continue
        result = results[item.key]
        if isinstance(result, Failure):
            yield Rejection(item.key, f"{item.name}: {annotator.spec.id} failed: {result.reason}")
        else:
            yield _judged(config, pictures[item.key], result, annotator)


def _judged(
    config: AnnotateConfig, picture: _Picture, saliency: Saliency, annotator: Annotator[UInt8Image, Saliency]
) -> Sample | Rejection:
    """Check a mask and make the Sample, or say why not."""
    image = picture.decoded.rgb_u8
    mask = subject_mask(saliency.probability)
    scores = {
        "area": float(mask.mean()),
        "edge_align": edge_align(image, mask),
        "colour_sep": colour_separation(image, mask),
        "flip_iou": saliency.flip_iou,
        "scale_iou": saliency.scale_iou,
        "uncertain": uncertain_share(saliency.probability, mask),
    }
    dropped = verdict(scores, config.mask)
    if dropped and (config.dropped_masks == "reject" or not picture.found.text):
        return Rejection(picture.found.key, f"{picture.name}: mask dropped: {dropped}")
    return Sample(
        key=picture.found.key,
        image=image,
        source=picture.source.name,
        licence=picture.found.facts["licence"],
        instance_ids=None if dropped else mask.astype(np.uint16),
        instances=() if dropped else (_instance(image, mask),),
        captions=(picture.found.text,) if picture.found.text else (),
        facts={"mask_dropped": dropped} if dropped else {},
        provenance=_provenance(picture, annotator),
        quality={name: round(score, 4) for name, score in scores.items()},
    )


def _instance(image: np.ndarray[Any, np.dtype[np.uint8]], mask: Mask) -> Instance:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    color = color_word(image[mask])
    return Instance(
        id=1,
        category=CATEGORY,
        visible_pixels=int(mask.sum()),
        box=(int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1),
        attributes={} if color is None else {"color": color},
    )


def _provenance(picture: _Picture, annotator: Annotator[UInt8Image, Saliency]) -> dict[str, Any]:
    found, decoded = picture.found, picture.decoded
    return {
        "annotators": [asdict(annotator.spec)],
        "file": {
            "name": picture.name,
            "sha256": sha256(found.data).hexdigest(),
            "format": decoded.format,
            "width": decoded.width,
            "height": decoded.height,
            "flags": [*decoded.flags, *found.flags],
            **{name: found.facts[name] for name in ("url", "author") if name in found.facts},
        },
        "versions": {name: version(name) for name in _LIBRARIES},
    }
