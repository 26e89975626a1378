"""Hub models in the annotation job: what they add, who checks whom, and that a run with them can be repeated."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np
import pytest

from cavendish.annotate.annotators.protocol import (
    AnnotatorSpec,
    Caption,
    Depth,
    Detection,
    Detections,
    Failure,
    Masks,
    Normals,
    Phrase,
    Phrases,
    Prompted,
    ScoredMask,
    each,
    load_once,
)
from cavendish.annotate.config import HubConfig
from cavendish.annotate.job import annotate
from cavendish.annotate.labels import hub_labels
from cavendish.annotate.labels.hub_labels import clean_phrase
from cavendish.encoders.sample import InputError
from cavendish.encoders.tasks.registry import make_example, tasks_of
from cavendish.mixing.jobs.runners import Engine
from cavendish.mixing.shards.reader import verify
from tests.annotate.test_job import config, files_of, rejected_of, samples_of, square
from tests.annotate.test_job import quick as quick  # a fixture
from tests.annotate.tiny_hub import build
from tests.mixing.sources.test_sources import write

COMMIT = "0123456789" * 4


pytestmark = pytest.mark.usefixtures("one_thread")


def model(adapter: str, folder: Path | str = "m", **settings: Any) -> dict[str, Any]:
    where = {"folder": str(folder), "repository": f"lab/{adapter}", "commit": COMMIT, "licence": "Apache-2.0"}
    return {"adapter": adapter, **where, **settings}


def red(image: np.ndarray) -> np.ndarray:
    return (image[..., 0] > 128) & (image[..., 1] < 100)


def box_of(mask: np.ndarray) -> tuple[float, float, float, float]:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)


class Stand:
    """A stand-in for an adapter: `answer` makes its result for one query; it counts how often it is loaded."""

    loads = 0

    def __init__(self, name: str, answer: Callable[[Any], Any], licence: str) -> None:
        self.spec = AnnotatorSpec(f"{name}/1", name, licence, "1" * 64, {"commit": COMMIT})
        self._answer = answer

    def load(self) -> None:
        Stand.loads += 1

    def annotate(self, queries: Sequence[Any]) -> list[Any]:
        return each(self._one, queries)

    def _one(self, query: Any) -> Any:
        image = query.image if isinstance(query, Prompted) else query
        if image[0, 0, 2] == 255:
            raise RuntimeError("poison")
        return self._answer(query)


def see_red(query: Prompted) -> Detections:
    found = [Detection("square", 0.9, box_of(red(query.image)))] if red(query.image).any() else []
    return Detections(tuple(found), {name: 0.9 if name == "square" else 0.01 for name in query.phrases})


def cut_red(query: Prompted) -> Masks:
    return Masks(tuple(ScoredMask(red(query.image), 0.9) for _ in query.boxes))


def say(query: Any) -> Caption:
    return Caption("The red square." if isinstance(query, Prompted) else "A red square\non blue.")


def ground(query: Prompted) -> Phrases:
    there = {"the red square": red(query.image), "ghost": red(query.image)}
    return Phrases(tuple(Phrase(p, (ScoredMask(there[p], 0.9, p),) if p in there else ()) for p in query.phrases))


def ramp(query: np.ndarray, kind: Any = "metric", focal_px: float | None = 150.0) -> Depth:
    rows = np.linspace(4, 2, query.shape[0], dtype=np.float32)[:, None]
    return Depth(np.repeat(rows, query.shape[1], axis=1), kind, np.ones(query.shape[:2], bool), focal_px)


def facing(query: np.ndarray) -> Normals:
    return Normals(np.broadcast_to(np.float32([0, 0, 1]), query.shape).copy())


ANSWERS: dict[str, Callable[[Any], Any]] = {
    "grounding_dino": see_red,
    "sam2": cut_red,
    "qwen3_vl": say,
    "sam3": ground,
    "depth_pro": ramp,
    "depth_anything": lambda query: ramp(query, "inverse", None),
    "tipsv2_normals": facing,
}
HUB = {
    "detectors": [model("grounding_dino")],
    "categories": ["square", "ghost", "giraffe"],
    "masks": model("sam2"),
    "captions": model("qwen3_vl"),
    "grounder": model("sam3", licence="SAM-License"),
    "depth": model("depth_pro"),
    "normals": model("tipsv2_normals"),
    "check_conventions": False,
}
ALLOWED = ["Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "CC0-1.0", "MIT", "SAM-License"]


@pytest.fixture
def stands(monkeypatch: pytest.MonkeyPatch, quick: None) -> Iterator[None]:
    """Hub models that know what a red square is."""
    load_once.cache_clear()
    Stand.loads = 0
    monkeypatch.setattr(
        hub_labels, "adapter_of", lambda entry, data: Stand(entry.adapter, ANSWERS[entry.adapter], entry.licence)
    )
    yield
    load_once.cache_clear()


def run(tmp_path: Path, out: str = "out", hub: dict[str, Any] = HUB, engine: Engine = Engine(), **more: Any) -> Path:
    settings = config(hub=hub, allowed_licences=ALLOWED, objects={"min_edge_align": 0}, **more)
    annotate(settings, tmp_path / out, engine, data=tmp_path)
    return tmp_path / out


def test_a_sample_gets_what_every_hub_model_sees(tmp_path: Path, stands: None) -> None:
    write(tmp_path / "web/a.png", square())
    write(tmp_path / "web/a.txt", "what the page said")
    write(tmp_path / "web/b.png", square(x0=50))
    out = run(tmp_path, images_per_shard=1)
    assert Stand.loads == 6  # each model once, however many shards and parts use it
    sample = samples_of(out)["web-a"]
    assert sample.captions == ("what the page said", "A red square on blue.")
    assert sample.depth_m is not None
    np.testing.assert_allclose(sample.depth_m[:, 7], np.linspace(4, 2, 100), rtol=2e-3)
    assert sample.facts["depth"] == {"kind": "metric", "used": True, "focal_px": 150.0}
    assert sample.normals is not None
    np.testing.assert_allclose(sample.normals[..., 2], 1, atol=1e-3)
    assert sample.quality["depth_normals"] < 0.05  # the ramp leans, the normals do not: noted
    (found,) = sample.instances
    assert (found.category, found.box, found.attributes) == ("square", (30, 30, 70, 70), {"color": "red"})
    assert sample.facts["complete"] == ["square"]
    assert sample.facts["absent"] == ["giraffe"]  # the detectors missed the ghost, the grounder did not
    assert sample.facts["phrases"] == [{"id": 1, "text": "the red square"}]
    assert sample.quality["cycle_iou"] == 1
    assert sample.weight is not None
    assert sample.weight.min() == 1  # the three cuts agree
    specs = {spec["id"]: spec for spec in sample.provenance["annotators"]}
    assert list(specs) == [
        *("grounding_dino/1", "squares/1", "sam2/1", "depth_pro/1", "tipsv2_normals/1", "qwen3_vl/1", "sam3/1")
    ]
    assert specs["sam3/1"]["licence"] == "SAM-License"
    assert specs["grounding_dino/1"]["params"]["categories"] == "square, ghost, giraffe"
    assert "transformers" in sample.provenance["versions"]
    assert set(tasks_of(sample)) == {"depth", "normals", "semantic", "instance", "referring", "generate"}


def test_grounded_phrases_become_instructions(tmp_path: Path, stands: None) -> None:
    write(tmp_path / "web/a.png", square())
    sample = samples_of(run(tmp_path))["web-a"]
    examples = [make_example(sample, "referring", np.random.default_rng(seed), 0.0) for seed in range(40)]
    written = [
        one for one in examples if one.spec["legend"][0][0] == "the red square" and one.spec["kinds"] == ["phrase"]
    ]
    assert 8 <= len(written) <= 32
    for one in written:
        assert "the red square" in one.prompt
        color = np.array(one.spec["legend"][0][1], np.uint8)
        np.testing.assert_array_equal((one.target == color).all(axis=-1), red(sample.image))


@pytest.mark.parametrize(
    ("said", "finds", "reason"),
    [
        ("A thing, I think: the square?", ground, "not a short phrase"),
        ("the green circle", ground, "leads nowhere"),
        (
            "the red square",
            lambda q: Phrases(tuple(Phrase(p, (ScoredMask(red(q.image), 0.9),) * 2) for p in q.phrases)),
            "leads to 2 places",
        ),
        (
            "the red square",
            lambda q: Phrases(tuple(Phrase(p, (ScoredMask(~red(q.image), 0.9),)) for p in q.phrases)),
            "leads to another mask: IoU 0.000 is under 0.7",
        ),
    ],
)
def test_a_phrase_that_does_not_lead_back_is_dropped(
    tmp_path: Path, stands: None, monkeypatch: pytest.MonkeyPatch, said: str, finds: Any, reason: str
) -> None:
    monkeypatch.setitem(ANSWERS, "qwen3_vl", lambda query: Caption(said))
    monkeypatch.setitem(ANSWERS, "sam3", finds)
    write(tmp_path / "web/a.png", square())
    sample = samples_of(run(tmp_path))["web-a"]
    assert sample.facts["phrases"] == []
    assert [one["reason"] for one in sample.facts["phrases_dropped"]] == [reason]


def test_depth_of_another_kind_is_noted_and_never_metres(tmp_path: Path, stands: None) -> None:
    write(tmp_path / "web/a.png", square())
    sample = samples_of(run(tmp_path, hub={"depth": model("depth_anything"), "check_conventions": False}))["web-a"]
    assert sample.depth_m is None
    assert sample.facts["depth"] == {"kind": "inverse", "used": False}
    assert "depth" not in tasks_of(sample)


def test_a_picture_a_hub_model_fails_on_costs_only_itself(tmp_path: Path, stands: None) -> None:
    write(tmp_path / "web/a.png", square())
    write(tmp_path / "web/b.png", square(corner=(0, 0, 255)))
    write(tmp_path / "web/c.png", square(x0=60))
    out = run(tmp_path)
    assert sorted(samples_of(out)) == ["web-a", "web-c"]
    assert rejected_of(out) == {"web-b": "b.png: grounding_dino/1 failed: RuntimeError: poison"}
    only_depth = run(tmp_path, "depth", {"depth": model("depth_pro"), "check_conventions": False})
    assert rejected_of(only_depth) == {"web-b": "b.png: depth_pro/1 failed: RuntimeError: poison"}


def test_a_picture_without_a_mask_is_kept_for_its_depth(tmp_path: Path, stands: None) -> None:
    write(tmp_path / "web/tiny.png", square(side=8))
    hub = {"depth": model("depth_pro"), "check_conventions": False}
    sample = samples_of(run(tmp_path, hub=hub))["web-tiny"]
    assert (sample.instance_ids, tasks_of(sample)) == (None, ("depth",))


def test_masks_that_differ_between_views_count_nothing(
    tmp_path: Path, stands: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def shaky(query: Prompted) -> Masks:
        masks = []
        for number, _ in enumerate(query.boxes):
            mask = red(query.image)
            if number:  # the wider box takes two columns more
                mask = mask | np.roll(mask, 2, axis=1)
            masks.append(ScoredMask(mask, 0.9))
        return Masks(tuple(masks))

    monkeypatch.setitem(ANSWERS, "sam2", shaky)
    write(tmp_path / "web/a.png", square())
    sample = samples_of(run(tmp_path))["web-a"]
    assert sample.weight is not None
    assert sample.weight[50, 70] == sample.weight[50, 71] == 0
    assert sample.weight.sum() == sample.weight.size - 2 * 40
    assert sample.quality["scale_iou"] == pytest.approx(40 / 42, abs=1e-3)


def test_the_gate_and_the_licences_stand_before_the_run(
    tmp_path: Path, stands: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    upside_down = ramp(np.zeros((384, 512, 3), np.uint8)).values[::-1].copy()
    monkeypatch.setitem(
        ANSWERS, "depth_pro", lambda image: Depth(upside_down, "metric", np.ones(upside_down.shape, bool))
    )
    write(tmp_path / "web/a.png", square())
    with pytest.raises(InputError, match=r"sam3/1 \(SAM-License\)"):
        annotate(config(hub=HUB), tmp_path / "out", data=tmp_path)
    with pytest.raises(InputError, match=r'depth_pro/1: depth of kind "metric" should grow'):
        run(tmp_path, hub={"depth": model("depth_pro")})
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("hub", "message"),
    [
        ({"categories": ["cat"]}, "detectors and categories go together"),
        ({"detectors": [model("owlv2")], "categories": ["cat", "Cat"]}, "the same name twice"),
        ({"captions": model("qwen3_vl"), "grounder": model("owlv2")}, "masks must name a model"),
        ({"captions": model("florence_2"), "grounder": model("sam3")}, "nothing to ground"),
        ({"depth": model("sam3")}, "depth_anything"),
        ({"depth": model("depth_pro", ensemble=3)}, "Extra inputs"),
        ({"depth": {**model("depth_pro"), "commit": "main"}}, "commit"),
        ({"normals": model("tipsv2_normals", signs=[1, 2, 1])}, "signs"),
    ],
)
def test_what_does_not_fit_together_is_refused(hub: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        HubConfig.model_validate(hub)


def test_phrases_are_short_plain_words() -> None:
    assert clean_phrase(" The man's  orange suit.\n") == "the man's orange suit"
    for text in ("", "...", "a, b", "it is: red", "x" * 81, 'say "cheese"', "<b>cup</b>"):
        assert clean_phrase(text) == ""


def test_tiny_models_run_through_the_job_and_repeat(tmp_path: Path, quick: None) -> None:
    """The real adapters on random weights: what they see is noise, but it goes the whole way, twice alike."""
    load_once.cache_clear()
    folders = {name: build(name, tmp_path / "models") for name in TINY}
    hub = {
        "depth": model("depth_anything", "models/depth-anything-metric"),
        "normals": model("tipsv2_normals", "models/tipsv2-normals"),
        "captions": model("qwen3_vl", "models/qwen3-vl", max_tokens=6),
        "categories": ["a cat", "red motorcycle"],
        "detectors": [model("grounding_dino", "models/mm-grounding-dino", threshold=0)],
        "masks": model("sam2", "models/sam2"),
        "grounder": model("sam3", "models/sam3", threshold=0),
        "check_conventions": False,
    }
    assert all(folder.is_dir() for folder in folders.values())
    for number in range(3):
        write(tmp_path / f"web/{number}.png", square(x0=20 + 20 * number))
    write(tmp_path / "web/broken.png", b"not a picture")
    first = run(tmp_path, hub=hub, images_per_shard=2)
    load_once.cache_clear()
    again = run(tmp_path, "again", hub, images_per_shard=2)
    assert files_of(first) == files_of(again)
    assert verify(first) == []
    assert list(rejected_of(first)) == ["web-broken"]
    samples = samples_of(first)
    assert len(samples) == 3
    for sample in samples.values():
        assert sample.depth_m is not None
        assert 0 < float(np.nanmax(sample.depth_m)) <= 20
        assert sample.normals is not None
        assert {"phrases", "phrases_dropped", "absent"} <= set(sample.facts)
    with pytest.raises(
        InputError, match=r"tipsv2-normals/1: its normals have mean cosine|depth-anything/1: depth of kind"
    ):
        run(tmp_path, "gated", {**hub, "check_conventions": True})


TINY = ("depth-anything-metric", "tipsv2-normals", "qwen3-vl", "mm-grounding-dino", "sam2", "sam3")


@pytest.mark.parametrize("name", ["grounding-dino", "owlv2"])
def test_a_detector_grounds_phrases_through_masks(name: str, tmp_path: Path) -> None:
    adapter = {"grounding-dino": "grounding_dino", "owlv2": "owlv2"}[name]
    build(name, tmp_path)
    build("sam2", tmp_path)
    settings = {
        "captions": model("qwen3_vl"),
        "grounder": model(adapter, name, threshold=0),
        "masks": model("sam2", "sam2"),
    }
    parts = HubConfig.model_validate(settings)
    assert parts.grounder is not None
    assert parts.masks is not None
    grounder = hub_labels.GroundedBoxes(
        *(hub_labels.adapter_of(one, tmp_path) for one in (parts.grounder, parts.masks))
    )
    grounder.load()
    image = np.random.default_rng(0).integers(0, 256, (90, 120, 3), dtype=np.uint8)
    result, bad = grounder.annotate(
        [Prompted(image, phrases=("a cat", "a dog")), Prompted(image[:0, :0], phrases=("a",))]
    )
    assert isinstance(result, Phrases)
    assert [phrase.text for phrase in result.phrases] == ["a cat", "a dog"]
    assert all(one.mask.shape == (90, 120) for phrase in result.phrases for one in phrase.masks)
    assert isinstance(bad, Failure)
    assert grounder.spec.task == "phrases"
    assert grounder.spec.params["masks"] == "sam2/1"


def test_a_run_without_hub_models_does_not_import_torch() -> None:
    import subprocess
    import sys

    code = "import sys, cavendish.annotate.job; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
