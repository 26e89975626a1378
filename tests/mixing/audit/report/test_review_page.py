"""The review flow in a real browser: decide, note, save; the next run honours the file that the page made."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from cavendish.mixing.audit.job import AuditConfig, audit, report
from tests.mixing.audit.photographs import (
    BENCHMARK,
    SKIMAGE,
    photograph,
    picture,
    poster,
    write_benchmark,
)
from tests.shard_folder import write_shards

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
SCRIPT = """
<script>
let saved = null;
URL.createObjectURL = blob => { saved = blob; return "#saved"; };
HTMLAnchorElement.prototype.click = function () { document.body.dataset.download = this.download; };
addEventListener("load", async () => {
  const cards = [...document.querySelectorAll("article[data-id]")];
  const press = (card, what) => card.querySelector(`button[data-decision=${what}]`).click();
  press(cards[0], "confirm"); press(cards[0], "dismiss");  // changed one's mind
  press(cards[1], "confirm");
  press(cards[2], "dismiss"); press(cards[2], "dismiss");  // pressed twice: undecided again
  const note = cards[0].querySelector(".note");
  note.value = 'a "stock" photograph <b>we</b> own'; note.dispatchEvent(new Event("input"));
  document.getElementById("reviewer").value = "A. Auditor";
  const filter = document.getElementById("filter");
  filter.value = "undecided"; filter.dispatchEvent(new Event("change"));
  const shown = cards.filter(card => !card.hidden).length;
  document.getElementById("save").click();
  const result = { saved: await saved.text(), shown, pictures: document.images.length,
    drawn: document.querySelectorAll("svg image").length, outlines: document.querySelectorAll("svg polygon").length,
    pressed: cards.map(card => [...card.querySelectorAll("button")].map(one => one.getAttribute("aria-pressed"))),
    state: document.getElementById("state").textContent };
  document.body.innerHTML = "";
  const out = document.createElement("pre"); out.id = "result"; out.textContent = JSON.stringify(result);
  document.body.append(out);
});
</script>
"""


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
def test_a_reviewer_decides_in_the_browser_and_the_next_run_honours_it(tmp_path: Path) -> None:
    write_benchmark(tmp_path / "benchmark", BENCHMARK[:3])
    names = ("chelsea.png", "rocket.jpg", "motorcycle_left.png")
    write_shards(tmp_path / "shards", [picture(name[:5], poster(photograph(SKIMAGE, name))) for name in names], 1)
    settings = AuditConfig.model_validate(
        {
            "benchmarks": [{"name": "photos", "folder": "benchmark"}],
            "shards": ["shards"],
            "controls": {"copies": 8, "clean": 4},
        }
    )
    verdict = audit(settings, tmp_path / "out", data=tmp_path)
    findings = json.loads(verdict.report.read_text())["findings"]
    assert [one["level"] for one in findings] == ["leak"] * 3

    seen = in_browser(verdict.page, tmp_path)
    assert (seen["drawn"], seen["outlines"], seen["shown"]) == (6, 12, 1)
    assert seen["pressed"] == [["false", "true"], ["true", "false"], ["false", "false"]]
    assert seen["state"].startswith("Saved.")
    (tmp_path / "decisions.json").write_text(seen["saved"])

    decided = settings.model_copy(update={"decisions": "decisions.json"})
    verdict = report(decided, tmp_path / "out", tmp_path)
    assert (verdict.leaks, verdict.dismissed) == (2, 1)
    values = json.loads(verdict.report.read_text())
    status = {one["id"]: (one["status"], one["decision"], one["note"]) for one in values["findings"]}
    assert status[findings[0]["id"]] == ("dismissed", "dismiss", 'a "stock" photograph <b>we</b> own')
    assert status[findings[1]["id"]] == ("open", "confirm", "")
    assert values["reviewer"] == "A. Auditor"
    assert findings[0]["key"] not in json.loads(verdict.exclude.read_text())["keys"]

    again = in_browser(verdict.page, tmp_path)  # decisions made before stand on the page, and are saved with new ones
    assert len(json.loads(again["saved"])["decisions"]) >= 1
    assert "<b>we</b>" not in verdict.page.read_text()


def in_browser(page: Path, folder: Path) -> dict:
    """Run a scripted reviewer on a copy of the page in headless Chromium; return what the script saw."""
    scripted = folder / "scripted.html"
    scripted.write_text(page.read_text().replace("</body>", f"{SCRIPT}</body>"))
    command = [
        str(CHROMIUM),
        "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
        f"--user-data-dir={folder / 'chromium'}", "--virtual-time-budget=5000", "--dump-dom", scripted.as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    match = re.search(r'<pre id="result">(.*?)</pre>', done.stdout, re.DOTALL)
    assert match, done.stdout[-2000:]
    return json.loads(html.unescape(match[1]))
