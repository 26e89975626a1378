"""The quality page of a run: its counts, thresholds and pictures are those of the shards."""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest

from cavendish.annotate import job
from cavendish.annotate.annotators.protocol import AnnotatorSpec, Failure, Scores
from cavendish.annotate.job import annotate
from cavendish.annotate.labels.label import Annotators
from cavendish.annotate.report import reasons_of
from cavendish.encoders.sample import UInt8Image
from cavendish.mixing.images import encode_png
from tests.annotate.test_job import SquareFinder, config, square
from tests.annotate.test_job import quick as quick  # a fixture
from tests.mixing.sources.test_sources import write


def pictures_of(page: str, key: str) -> list[np.ndarray]:
    uris = re.findall(rf'<img alt="{key}" src="data:image/png;base64,([^"]+)"', page)
    return [cv2.imdecode(np.frombuffer(base64.b64decode(uri), np.uint8), 1)[..., ::-1] for uri in uris]


@pytest.fixture
def page(tmp_path: Path, quick: None) -> str:
    """The page of a run over two good pictures, two without a good mask, one bad file, one that is not to be seen."""
    write(tmp_path / "web/a.png", square())
    write(tmp_path / "web/b.png", square(x0=60))
    write(tmp_path / "web/<i>dot.png", square(side=8))
    write(tmp_path / "web/none.png", encode_png(np.zeros((100, 120, 3), np.uint8)))
    write(tmp_path / "web/bad.png", b"no")
    annotate(config(faces="ignore"), tmp_path / "out", data=tmp_path)
    return (tmp_path / "out/report.html").read_text()


def test_counts_and_reasons_are_those_of_the_run(page: str) -> None:
    for count, what in ((5, "pictures listed"), (2, "kept (40 %)"), (3, "left out, each with a reason")):
        assert f"<b>{count}</b><span>{what}</span>" in page
    reasons = dict(re.findall(r"<tr><td>([^<]*)</td><td class=\"n\">(\d+)</td><td class=\"bar\">", page))
    assert reasons["mask: area under 0.01"] == "2"
    assert reasons["not one of JPEG, PNG, WEBP, GIF, BMP, TIFF, AVIF"] == "1"
    assert "<td>CC0-1.0</td>" in page
    assert "squares/1" in page


def test_histograms_hold_every_score_and_its_threshold(page: str) -> None:
    charts = page.split('<div class="chart">')[1:]
    assert [re.findall("<b>(.*?)</b>", chart)[0] for chart in charts] == [
        *("area", "edge_align", "colour_sep", "flip_iou", "scale_iou", "uncertain")
    ]
    assert all("2 kept, 2 dropped" in chart for chart in charts)
    area, *_ = charts
    assert "at least 0.01" in area
    assert "at most 0.85" in area
    bars = re.findall(r'class="(kept|dropped)" x="([\d.]+)" y="([\d.]+)" width="[\d.]+" height="([\d.]+)"', area)
    places = [(kind, int(float(x) / (100 / 24)), float(height)) for kind, x, _, height in bars]
    assert places == [("dropped", 0, 100), ("kept", 3, 100)]  # 64 and 0 pixels; 1600 of 12000, in bins of 1/24


def test_kept_and_left_out_pictures_are_shown_with_reasons(page: str) -> None:
    (kept,) = pictures_of(page, "web-a")
    assert kept.shape == (100, 120, 3)
    assert (kept[50, 50] != (220, 10, 10)).any()  # tinted
    np.testing.assert_array_equal(kept[5, 5], (0, 0, 80))
    assert "mask dropped: area 0.005 is under 0.01" in page
    assert "the file gives no picture" in page
    assert "<i>dot" not in page  # names are escaped or replaced


def test_the_page_needs_nothing_else_and_repeats(tmp_path: Path, page: str) -> None:
    assert not re.search(r"(src|href)=\"(?!data:)|url\(|<script", page)
    assert str(tmp_path) not in page
    (tmp_path / "out/report.html").unlink()
    annotate(config(faces="ignore"), tmp_path / "out", data=tmp_path)
    assert (tmp_path / "out/report.html").read_text() == page


@pytest.mark.parametrize("score", [0.9, None])
def test_what_the_nsfw_gate_left_out_is_not_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, score: float | None
) -> None:
    class Gate:
        spec = AnnotatorSpec("open-nsfw/1", "nsfw", "CC0-1.0", "0" * 64)

        def load(self) -> None:
            """There is nothing to load."""

        def annotate(self, queries: Sequence[UInt8Image]) -> list[Scores | Failure]:
            return [Failure("broken") if score is None else Scores({"nsfw": score})] * len(queries)

    both = Annotators(saliency=SquareFinder(), nsfw=Gate())
    monkeypatch.setattr(job, "annotators_for", lambda config, make=None: both)
    write(tmp_path / "web/a.png", square())
    annotate(config(faces="ignore"), tmp_path / "out", data=tmp_path)
    page = (tmp_path / "out/report.html").read_text()
    assert '<div class="frame">not shown</div>' in page
    assert pictures_of(page, "web-a") == []


@pytest.mark.parametrize(
    ("reason", "causes"),
    [
        (
            "a.png: mask dropped: area 0.003 is under 0.01, uncertain 5.046 is over 0.8 (area 0.003, edge_align 0.9)",
            ["mask: area under 0.01", "mask: uncertain over 0.8"],
        ),
        ("a.png: nsfw 0.912 is over 0.5", ["nsfw over 0.5"]),
        ("b.jpg: 20x31 has a side under 64 pixels", ["N has a side under N pixels"]),
        ("c.png: u2netp/1 failed: RuntimeError: poison", ["u2netp/1 failed: RuntimeError: poison"]),
    ],
)
def test_reasons_lose_what_differs_from_picture_to_picture(reason: str, causes: list[str]) -> None:
    assert reasons_of(reason) == causes
