"""The page of curves: what the tables say is what is drawn."""

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from cavendish.trainer.training.curves import write_curves

LOSSES = (
    "step,source,task,loss,examples\n10,a<b,depth,1,3\n10,photos,edit,0.2,1\n20,a<b,depth,0.1,2\n20,photos,edit,0.1,2\n"
)
RATIOS = "step,rank,source,task,examples,share,asked\n10,0,a<b,depth,3,0.75,0.5\n20,0,a<b,depth,5,0.5,0.5\n"


def page_of(folder: Path, losses: str, ratios: str) -> str:
    (folder / "loss.csv").write_text(losses)
    (folder / "ratios.csv").write_text(ratios)
    return write_curves(folder, planned=40).read_text()


def figures(page: str) -> dict[str, ElementTree.Element]:
    """Drawings by title; each must be well-formed XML."""
    return {
        title: ElementTree.fromstring(svg)
        for title, svg in re.findall(r"<figcaption>(.*?)</figcaption>(<svg.*?</svg>)", page)
    }


def heights(svg: ElementTree.Element) -> list[list[float]]:
    lines = [line.attrib["points"] for line in svg.iter("polyline")]
    return [[float(point.split(",")[1]) for point in line.split()] for line in lines]


def test_losses_and_shares_are_drawn_to_scale(tmp_path: Path) -> None:
    page = page_of(tmp_path, LOSSES, RATIOS)
    assert "step 20 of 40; last mean loss 0.1" in page
    assert "a&lt;b / depth" in page
    assert not re.search(r"a<b|https?:|<script|<link|<img", page)
    drawn = figures(page)
    assert list(drawn) == [
        *("Loss, all examples", "Loss by source and task"),
        *("Share of the examples so far", "Share, less what was asked for"),
    ]
    depth, edit = heights(drawn["Loss by source and task"])
    assert depth[1] == edit[1]  # both end at 0.1
    assert depth[0] < edit[0] < edit[1]  # 1 is drawn above 0.2, and that above 0.1
    assert (depth[1] - edit[0]) / (depth[1] - depth[0]) == pytest.approx(
        0.301, abs=0.01
    )  # log10(0.2 / 0.1) of a decade
    ((before, after),) = heights(drawn["Share, less what was asked for"])
    labels = {float(text.attrib["y"]) - 4: text.text for text in drawn["Share, less what was asked for"].iter("text")}
    assert labels[min(labels, key=lambda y: abs(y - after))] == "0"  # at the end the share is what was asked for
    assert before < after


@pytest.mark.parametrize("losses", ["step,source,task,loss,examples\n", LOSSES[:50].rsplit("\n", 1)[0] + "\n"])
def test_too_little_to_draw_is_still_a_page(losses: str, tmp_path: Path) -> None:
    page = page_of(tmp_path, losses, RATIOS.split("\n", 1)[0] + "\n")
    assert page.startswith("<!doctype html>")
    assert "Share of the examples" not in page
