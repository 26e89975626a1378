"""The blind page: what a judge clicks in a real browser comes back as the right generator's win."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from cavendish.encoders.sample import InputError
from cavendish.mixing.images import encode_png
from cavendish.trainer.evaluation.report.comparison import (
    Judgement,
    judge,
    read_answers,
    shuffle_sides,
    win_rate,
    write_comparison,
)

COUNT = 9
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture
def comparison(tmp_path: Path) -> Path:
    """Nine pairs: generator a draws white, generator b black; every third has an input picture."""
    for name, level in (("a", 255), ("b", 0), ("asked/images", 128)):
        (tmp_path / name).mkdir(parents=True)
        for i in range(COUNT):
            picture = np.full((24, 24, 3), level, np.uint8)
            (tmp_path / name / f"p{i}.png").write_bytes(encode_png(picture))
    lines = [
        {"file": f"p{i}.png", "prompt": f"<b>draw</b> {i}", "image": f"images/p{i}.png" if i % 3 == 0 else None}
        for i in range(COUNT)
    ]
    (tmp_path / "asked/requests.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    count = write_comparison(
        tmp_path / "asked/requests.jsonl", tmp_path / "a", tmp_path / "b", tmp_path / "out", "Better?", seed=0
    )
    assert count == COUNT
    return tmp_path / "out"


def answer(out: Path, path: Path, choose: str) -> Path:
    """Answer every pair: "a", "b" or "tie"."""
    key = json.loads((out / "key.json").read_text())
    sides = {(True, "a"): "left", (False, "a"): "right", (True, "b"): "right", (False, "b"): "left"}
    answers = {p["code"]: "tie" if choose == "tie" else sides[p["a_is_left"], choose] for p in key["pairs"]}
    path.write_text(json.dumps({"schema": "cavendish-judgements/1", "page": key["page"], "answers": answers}))
    return path


def test_answers_win_for_the_right_side(comparison: Path, tmp_path: Path) -> None:
    for choose, rate in (("a", 1.0), ("b", 0.0), ("tie", 0.5)):
        result = judge(comparison, [answer(comparison, tmp_path / "j.json", choose)])
        assert (result["win_rate"], result["prompts"]) == (rate, COUNT)
    two = [answer(comparison, tmp_path / f"{c}.json", c) for c in ("a", "b")]
    assert judge(comparison, two)["win_rate"] == 0.5
    assert json.loads((comparison / "result.json").read_bytes())["judges"] == 2


def test_the_page_does_not_tell_whose_a_picture_is(comparison: Path) -> None:
    page = (comparison / "page/index.html").read_text()
    assert "a_is_left" not in page
    assert "p0.png" not in page
    assert "<b>draw</b>" not in page  # prompts are text, not markup
    key = json.loads((comparison / "key.json").read_text())["pairs"]
    assert 0 < sum(pair["a_is_left"] for pair in key) < COUNT


def test_answers_to_another_page_are_refused(comparison: Path, tmp_path: Path) -> None:
    path = answer(comparison, tmp_path / "j.json", "a")
    path.write_text(path.read_text().replace('"page": "', '"page": "x'))
    with pytest.raises(InputError, match="another page"):
        read_answers(comparison / "key.json", [path])
    with pytest.raises(InputError, match="no such picture"):
        write_comparison(tmp_path / "asked/requests.jsonl", tmp_path / "a", tmp_path / "no", tmp_path / "x", "?", 0)


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")
def test_the_keyboard_answers_in_a_browser(comparison: Path, tmp_path: Path) -> None:
    """Play keys to the page in a real browser: left three times, one taken back, then ties to the end."""
    page = comparison / "page/index.html"
    keys = ["ArrowLeft"] * 3 + ["Backspace"] + ["ArrowRight"] + ["ArrowDown"] * COUNT
    script = (
        f"for (const key of {json.dumps(keys)}) document.dispatchEvent(new KeyboardEvent('keydown', {{key}}));"
        "document.body.dataset.answers = JSON.stringify(answers);"
    )
    played = comparison / "page/played.html"
    played.write_text(page.read_text().replace("</body>", f"<script>{script}</script></body>"))
    assert CHROMIUM is not None
    done = subprocess.run(
        [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
         f"--user-data-dir={tmp_path}/chrome", "--dump-dom", played.as_uri()],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    dom = done.stdout
    text = dom.split('data-answers="')[1].split('"')[0].replace("&quot;", '"')
    codes = [pair["code"] for pair in json.loads((comparison / "key.json").read_text())["pairs"]]
    assert json.loads(text) == dict(zip(codes, ["left", "left", "right", *["tie"] * (COUNT - 3)]))
    assert f"{COUNT} of {COUNT} judged" in dom


def test_ties_are_half_and_repeated_prompts_do_not_weigh_more():
    judgements = [Judgement("p", "a")] * 10 + [Judgement("q", "b"), Judgement("r", "tie", "style")]
    result = win_rate(judgements, np.random.default_rng(0))
    assert result["win_rate"] == pytest.approx(0.5)
    assert (result["prompts"], result["wins"], result["ties"], result["losses"]) == (3, 10, 1, 1)
    assert result["groups"]["style"] == 0.5


def test_interval_is_that_of_a_proportion():
    judgements = [Judgement(str(i), "a" if i % 4 else "b") for i in range(400)]
    result = win_rate(judgements, np.random.default_rng(0))
    half = 1.96 * np.sqrt(0.75 * 0.25 / 400)
    assert result["low"] == pytest.approx(0.75 - half, abs=0.01)
    assert result["high"] == pytest.approx(0.75 + half, abs=0.01)


def test_sides_are_shuffled_and_every_item_is_shown_once():
    names = [f"{i:03d}" for i in range(400)]
    shown = shuffle_sides(names, np.random.default_rng(1))
    assert sorted(name for name, _ in shown) == names
    assert [name for name, _ in shown] != names
    assert 150 < sum(left for _, left in shown) < 250


def test_no_judgement_is_no_rate():
    with pytest.raises(InputError, match="no judgements"):
        win_rate([], np.random.default_rng(0))
