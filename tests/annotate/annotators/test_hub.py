"""Hub adapters on tiny random models, offline; the library's own preparation and reading are the oracle."""

from __future__ import annotations

import dataclasses
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np
import pytest
import torch
from PIL import Image

from cavendish.annotate.annotators.hub import CLIP_MEAN, CLIP_STD, IMAGENET_MEAN, IMAGENET_STD, HubModel, normalised
from cavendish.annotate.annotators.hub_boxes import GroundingDino, Owlv2, _caption, _short_side
from cavendish.annotate.annotators.hub_depth import (
    DepthAnything,
    DepthAnything3,
    DepthPro,
    MarigoldDepth,
    MoGe2,
    Tipsv2Depth,
)
from cavendish.annotate.annotators.hub_masks import Sam2, Sam3
from cavendish.annotate.annotators.hub_normals import MarigoldNormals, Sapiens2Normals, Tipsv2Normals
from cavendish.annotate.annotators.hub_words import Florence2, Qwen3VL
from cavendish.annotate.annotators.protocol import (
    Caption,
    Depth,
    Detections,
    Failure,
    Masks,
    Normals,
    Phrases,
    Prompted,
    check_licences,
    metric_depth_m,
)
from cavendish.encoders.sample import InputError
from tests.annotate.tiny_hub import BUILDERS, build

ADAPTERS: dict[str, Callable[[HubModel], Any]] = {
    "depth-anything-relative": DepthAnything,
    "depth-anything-metric": DepthAnything,
    "depth-pro": DepthPro,
    "marigold-depth": MarigoldDepth,
    "marigold-normals": MarigoldNormals,
    "sapiens2": lambda model: Sapiens2Normals(model, size=(64, 48)),
    "tipsv2-depth": Tipsv2Depth,
    "tipsv2-normals": Tipsv2Normals,
    "grounding-dino": lambda model: GroundingDino(model, threshold=0.0),
    "mm-grounding-dino": lambda model: GroundingDino(model, threshold=0.0),
    "owlv2": lambda model: Owlv2(model, threshold=0.0),
    "sam2": Sam2,
    "sam3": lambda model: Sam3(model, threshold=0.0),
    "florence2": lambda model: Florence2(model, max_tokens=6, side=64),
    "qwen3-vl": lambda model: Qwen3VL(model, max_tokens=6),
}
RESULTS: dict[str, type] = {
    **dict.fromkeys(("depth-anything-relative", "depth-anything-metric", "depth-pro", "marigold-depth"), Depth),
    "tipsv2-depth": Depth,
    **dict.fromkeys(("marigold-normals", "sapiens2", "tipsv2-normals"), Normals),
    **dict.fromkeys(("grounding-dino", "mm-grounding-dino", "owlv2"), Detections),
    "sam2": Masks,
    "sam3": Phrases,
    "florence2": Caption,
    "qwen3-vl": Caption,
}
PROMPTED = ("grounding-dino", "mm-grounding-dino", "owlv2", "sam2", "sam3")
IMAGE = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8).repeat(3, axis=0).repeat(3, axis=1)


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch, one_thread: None) -> None:
    """No network at all, and one thread."""

    def refuse(*_: Any) -> None:
        raise AssertionError("an adapter opened a connection")

    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Build a family when it is first asked for."""
    folder = tmp_path_factory.mktemp("hub")
    built: dict[str, Path] = {}

    def find(name: str) -> Path:
        if name not in built:
            built[name] = build(name, folder)
        return built[name]

    return find


def hub_model(folder: Path, licence: str = "Apache-2.0") -> HubModel:
    return HubModel(folder=folder, repository="lab/model", commit="0123456789" * 4, licence=licence)


def ready(name: str, folders: Callable[[str], Path]) -> Any:
    annotator = ADAPTERS[name](hub_model(folders(name)))
    annotator.load()
    return annotator


def query(name: str, image: np.ndarray) -> Any:
    if name not in PROMPTED:
        return image
    return Prompted(
        image, boxes=((10.0, 20.0, 80.0, 70.0), (0.0, 0.0, 30.0, 30.0)), phrases=("a cat", "red motorcycle")
    )


@pytest.mark.parametrize("name", BUILDERS)
def test_results_have_the_pictures_size_and_repeat(name: str, folders: Callable[[str], Path]) -> None:
    annotator = ready(name, folders)
    tall = np.ascontiguousarray(IMAGE.transpose(1, 0, 2))
    poison = np.zeros((0, 0, 3), np.uint8)
    results = annotator.annotate([query(name, image) for image in (IMAGE, poison, tall)])
    assert isinstance(results[1], Failure)  # it cost only itself
    again = annotator.annotate([query(name, tall)])[0]
    for result, image in ((results[0], IMAGE), (results[2], tall)):
        assert isinstance(result, RESULTS[name])
        height, width = image.shape[:2]
        match result:
            case Depth():
                assert result.values.shape == result.valid.shape == (height, width)
                assert result.values.dtype == np.float32
                assert result.kind == annotator.spec.depth_kind
            case Normals():
                assert result.normals.shape == (height, width, 3)
                np.testing.assert_allclose(np.linalg.norm(result.normals, axis=-1), 1, atol=1e-4)
            case Detections():
                assert result.boxes
                assert list(result.class_scores) == ["a cat", "red motorcycle"]
                for found in result.boxes:
                    assert found.label in result.class_scores
                    assert 0 <= found.box[0] < found.box[2] <= width
                    assert 0 <= found.box[1] < found.box[3] <= height
            case Masks():
                assert [mask.mask.shape for mask in result.masks] == [(height, width)] * 2
            case Phrases():
                assert [phrase.text for phrase in result.phrases] == ["a cat", "red motorcycle"]
                assert all(mask.mask.shape == (height, width) for phrase in result.phrases for mask in phrase.masks)
            case Caption():
                assert "\n" not in result.text
    alone, together = dataclasses.asdict(again), dataclasses.asdict(results[2])
    for field in alone:
        if isinstance(alone[field], float) or getattr(alone[field], "dtype", None) == np.float32:
            np.testing.assert_allclose(alone[field], together[field], rtol=1e-4, atol=1e-6)
        else:
            np.testing.assert_equal(alone[field], together[field])


@pytest.mark.parametrize("size", [(90, 120), (200, 61), (640, 480)])
def test_depth_anything_is_that_of_the_library(size: tuple[int, int], folders: Callable[[str], Path]) -> None:
    from transformers import DepthAnythingForDepthEstimation, pipeline
    from transformers.models.dpt.image_processing_pil_dpt import DPTImageProcessorPil

    folder = folders("depth-anything-relative")
    processor = DPTImageProcessorPil(
        size={"height": 518, "width": 518}, keep_aspect_ratio=True, ensure_multiple_of=14, resample=3,
        image_mean=list(IMAGENET_MEAN), image_std=list(IMAGENET_STD),
    )  # fmt: skip
    net = DepthAnythingForDepthEstimation.from_pretrained(folder)
    estimate = pipeline("depth-estimation", model=net, image_processor=processor)
    image = np.asarray(Image.fromarray(IMAGE).resize(size[::-1]))
    theirs = estimate(Image.fromarray(image))["predicted_depth"].numpy()
    ours = ready("depth-anything-relative", folders).annotate([image])[0]
    np.testing.assert_allclose(ours.values, theirs, rtol=2e-3, atol=2e-4 * float(np.abs(theirs).max()))


def test_only_metres_become_a_samples_depth(folders: Callable[[str], Path]) -> None:
    kinds = {name: ADAPTERS[name](hub_model(folders(name))).spec.depth_kind for name in BUILDERS if "depth" in name}
    assert kinds == {
        "depth-anything-relative": "inverse",
        "depth-anything-metric": "metric",
        "depth-pro": "metric",
        "marigold-depth": "affine",
        "tipsv2-depth": "metric",
    }
    relative = ready("depth-anything-relative", folders).annotate([IMAGE])[0]
    with pytest.raises(InputError, match="inverse"):
        metric_depth_m(relative)
    metric = ready("depth-anything-metric", folders).annotate([IMAGE])[0]
    assert np.nanmax(metric_depth_m(metric)) <= 20


def test_depth_pro_turns_inverse_depth_into_metres_with_its_own_focal_length(folders: Callable[[str], Path]) -> None:
    annotator = ready("depth-pro", folders)
    result = annotator.annotate([IMAGE])[0]
    net = annotator._net
    whole = normalised(IMAGE, (90, 120), (0.5,) * 3, (0.5,) * 3)
    x = torch.nn.functional.interpolate(whole, (32, 32), mode="bilinear")
    with torch.no_grad():
        out = net(x)
    focal = 0.5 * 120 / np.tan(np.radians(float(out.field_of_view.reshape(-1)[0])) / 2)
    assert result.focal_px == pytest.approx(focal, rel=1e-4)
    inverse = torch.nn.functional.interpolate(out.predicted_depth[None] * 120 / focal, (90, 120), mode="bilinear")
    np.testing.assert_allclose(result.values, 1 / inverse[0, 0].clamp(1e-4, 1e4).numpy(), rtol=1e-3)


@pytest.mark.parametrize("name", ["grounding-dino", "mm-grounding-dino"])
def test_grounding_dino_sees_and_answers_as_the_library_does(name: str, folders: Callable[[str], Path]) -> None:
    from transformers.image_transforms import center_to_corners_format
    from transformers.models.grounding_dino.image_processing_pil_grounding_dino import GroundingDinoImageProcessorPil

    annotator = ready(name, folders)
    for shape in ((90, 120), (300, 100)):
        image = np.asarray(Image.fromarray(IMAGE).resize(shape[::-1]))
        theirs = GroundingDinoImageProcessorPil()(images=Image.fromarray(image), return_tensors="pt")["pixel_values"]
        assert abs(theirs.shape[2] - _short_side(shape)[0]) <= 1
        assert abs(theirs.shape[3] - _short_side(shape)[1]) <= 1
        if theirs.shape[2:] == _short_side(shape):
            ours = normalised(image, _short_side(shape), IMAGENET_MEAN, IMAGENET_STD)
            torch.testing.assert_close(ours, theirs, atol=0.02, rtol=0)
    seen: dict[str, Any] = {}
    forward = annotator._net.forward

    def watch(*args: Any, **kwargs: Any) -> Any:
        seen["out"] = forward(*args, **kwargs)
        return seen["out"]

    annotator._net.forward = watch
    found = annotator.annotate([query(name, IMAGE)])[0]
    boxes = center_to_corners_format(seen["out"].pred_boxes[0]) * torch.tensor([120.0, 90.0, 120.0, 90.0])
    boxes = boxes.clamp(min=0).minimum(torch.tensor([120.0, 90.0, 120.0, 90.0]))
    for one in found.boxes:
        assert float((boxes - torch.tensor(one.box)).abs().amax(dim=1).min()) < 1e-3


def test_a_label_is_scored_by_its_own_tokens() -> None:
    text, spans = _caption(["A cat", "red  motorcycle.", "dog"])
    assert text == "a cat. red motorcycle. dog."
    assert [text[start:end] for start, end in spans] == ["a cat", "red motorcycle", "dog"]


def test_owlv2_sees_what_the_library_shows_it() -> None:
    from transformers.models.owlv2.image_processing_pil_owlv2 import Owlv2ImageProcessorPil

    smooth = np.asarray(Image.fromarray(IMAGE[:8, :8]).resize((120, 90), Image.Resampling.BICUBIC))
    processor = Owlv2ImageProcessorPil(size={"height": 64, "width": 64})
    theirs = processor(images=Image.fromarray(smooth), return_tensors="pt")["pixel_values"][0]
    square = np.full((120, 120, 3), 128, np.uint8)
    square[:90] = smooth
    ours = normalised(square, (64, 64), CLIP_MEAN, CLIP_STD, Image.Resampling.BICUBIC)[0]
    inside = (slice(None), slice(0, 46), slice(0, 64))
    assert float((ours[inside] - theirs[inside]).abs().mean()) < 0.05


def test_sam3_counts_its_presence_score(folders: Callable[[str], Path]) -> None:
    annotator = ready("sam3", folders)
    first = annotator.annotate([query("sam3", IMAGE)])[0]
    with torch.no_grad():
        head = next(m for n, m in annotator._net.named_modules() if n.endswith("presence_head"))
        for parameter in head.parameters():
            parameter.zero_()
        [p for p in head.parameters() if p.ndim == 1][-1].fill_(-50.0)  # nothing asked for is there
    absent = annotator.annotate([query("sam3", IMAGE)])[0]
    assert max(m.score for p in first.phrases for m in p.masks) > 1e-3
    assert all(mask.score < 1e-4 for phrase in absent.phrases for mask in phrase.masks)


def test_signs_turn_a_models_axes_into_ours(folders: Callable[[str], Path]) -> None:
    model = hub_model(folders("tipsv2-normals"))
    plain, turned = Tipsv2Normals(model), Tipsv2Normals(model, signs=(1, -1, -1))
    for annotator in (plain, turned):
        annotator.load()
    one, other = (annotator.annotate([IMAGE])[0].normals for annotator in (plain, turned))
    np.testing.assert_allclose(other, one * np.float32([1, -1, -1]), atol=1e-6)
    assert plain.spec != turned.spec


def test_packages_of_their_own_are_read_by_what_they_promise(folders: Callable[[str], Path]) -> None:
    """Depth Anything 3 and MoGe-2 are not installable here: stand-ins with the outputs their packages document."""
    model = hub_model(folders("sam2"))

    class MoGe:
        def infer(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
            assert x.shape == (3, 90, 120)
            assert 0 <= float(x.min()) <= float(x.max()) <= 1
            depth = torch.full((90, 120), 2.5)
            depth[:9] = torch.inf
            facing = torch.tensor([0.0, 0.0, -1.0]).expand(90, 120, 3)  # in its axes: right, down, forward
            return {
                "depth": depth,
                "normal": facing,
                "intrinsics": torch.tensor([[0.8, 0, 0.5], [0, 1.1, 0.5], [0, 0, 1]]),
            }

    moge = MoGe2(model, make=lambda _: MoGe())
    moge.load()
    result = moge.annotate([IMAGE])[0]
    depth_m = metric_depth_m(result)
    assert np.isnan(depth_m[:9]).all()  # not known, rather than sky
    assert (depth_m[9:] == 2.5).all()
    assert result.focal_px == pytest.approx(96)
    assert (result.normals == (0, 0, 1)).all()

    class Da3:
        def inference(self, images: list[np.ndarray]) -> Any:
            sky = np.zeros((1, 45, 60), bool)
            sky[:, :10] = True
            return type("Prediction", (), {"depth": np.full((1, 45, 60), 0.5, np.float32), "sky": sky})

    da3 = DepthAnything3(model, fov_deg=90, make=lambda _: Da3())
    da3.load()
    found = da3.annotate([IMAGE])[0]
    depth_m = metric_depth_m(found)
    assert np.isinf(depth_m[:19]).all()  # what it filled in there is no depth
    np.testing.assert_allclose(depth_m[21:], 0.5 * 60 / 300, rtol=1e-6)  # half of 120 pixels at 90 degrees
    assert found.focal_px == pytest.approx(60)
    for unavailable in (MoGe2(model), DepthAnything3(model, fov_deg=90)):
        with pytest.raises(InputError, match="not installed"):
            unavailable.load()


def test_a_model_is_pinned_and_pickles_are_not_read(folders: Callable[[str], Path], tmp_path: Path) -> None:
    folder = folders("sam2")
    spec = Sam2(hub_model(folder)).spec
    assert spec.params["commit"] == "0123456789" * 4
    assert len(spec.weights_sha256) == 64
    with pytest.raises(ValueError, match="commit"):
        HubModel(folder=folder, repository="lab/model", commit="main", licence="MIT")
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x04")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(InputError, match=r"safetensors"):
        _ = Sam2(hub_model(tmp_path)).spec
    with pytest.raises(InputError, match="not a Sam2Model"):
        Sam2(hub_model(tmp_path)).load()


def test_a_run_can_refuse_a_models_own_licence(folders: Callable[[str], Path]) -> None:
    spec = Sam3(hub_model(folders("sam3"), licence="SAM-License")).spec
    with pytest.raises(InputError, match=r"sam3/1 \(SAM-License\)"):
        check_licences([spec], ("Apache-2.0", "MIT"))
    check_licences([spec], ("SAM-License",))
