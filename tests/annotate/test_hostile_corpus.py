"""A corpus of damaged, mutated and bomb-like files through the whole job, in a child with a limit on its memory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from PIL import Image

from cavendish.mixing.images import encode_png
from cavendish.mixing.shards.dataset import committed_rows
from cavendish.mixing.shards.reader import verify
from tests.mixing.sources.test_decode import BOMBS, GOOD, encoded
from tests.mixing.sources.test_sources import write, write_tar

ROOT = Path(__file__).parents[2]
LIMIT_MB = 300
EXTRA_ADDRESSES = 1200 * 2**20
"""Address space beyond what the child has before it starts; a bomb that is decoded needs more, and fails by it."""

CHILD = """
import resource, sys
from pathlib import Path
import numpy as np
from cavendish.annotate import job
from cavendish.annotate.annotators.protocol import AnnotatorSpec
from cavendish.annotate.annotators.saliency import Saliency
from cavendish.annotate.config import AnnotateConfig
from cavendish.annotate.job import (annotate)
from cavendish.annotate.labels.label import Annotators

class Half:
    spec = AnnotatorSpec("half/1", "saliency", "CC0-1.0", "0" * 64)
    def load(self): pass
    def annotate(self, images):
        found = []
        for image in images:
            mask = np.zeros(image.shape[:2], np.float32)
            mask[:, : image.shape[1] // 2] = 1
            found.append(Saliency(mask, 1.0, 1.0))
        return found

def status(name):
    return int(Path("/proc/self/status").read_text().split(name + ":")[1].split()[0])

job.annotators_for = lambda config, make=None: Annotators(saliency=Half())
data = Path(sys.argv[1])
sources = [{"name": kind, "kind": kind, "path": kind, "licence": "CC0-1.0"} for kind in ("folder", "tar")]
loose = {"min_area": 0, "max_area": 1, "min_edge_align": 0, "min_colour_sep": 0, "min_flip_iou": 0, "min_scale_iou": 0}
warm = AnnotateConfig.model_validate({"sources": [{**sources[0], "path": "warm"}], "mask": loose, "faces": "ignore"})
annotate(warm, data / "warm-out", data=data)
before = status("VmRSS")
Path("/proc/self/clear_refs").write_text("5")
resource.setrlimit(resource.RLIMIT_AS, (status("VmSize") * 1024 + int(sys.argv[2]),) * 2)
hostile = AnnotateConfig.model_validate({"sources": sources, "mask": loose, "faces": "ignore", "images_per_shard": 64})
result = annotate(hostile, data / "out", data=data)
print(result.totals["records"], result.totals["rejected"], (status("VmHWM") - before) // 1024)
"""


def mutated(count: int) -> list[bytes]:
    """Draw files of every format with bytes changed, taken out, put in, repeated or cut off."""
    found: list[bytes] = []
    kinds = sorted(GOOD)

    @settings(
        max_examples=count, deadline=None, database=None, derandomize=True, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(data=st.data())
    def draw(data: st.DataObject) -> None:
        damaged = bytearray(GOOD[data.draw(st.sampled_from(kinds))])
        for _ in range(data.draw(st.integers(1, 8))):
            at = data.draw(st.integers(0, data.draw(st.sampled_from((48, len(damaged) - 1)))))
            piece = data.draw(st.binary(min_size=1, max_size=12))
            match data.draw(st.sampled_from(("change", "take", "put", "repeat", "cut"))):
                case "change":
                    damaged[at : at + len(piece)] = piece
                case "take":
                    del damaged[at : at + len(piece)]
                case "put":
                    damaged[at:at] = piece
                case "repeat":
                    damaged[at:at] = damaged[at : at + 200]
                case "cut" if len(damaged) > 200:
                    del damaged[max(at, 64) :]
            damaged = damaged or bytearray(b"\0")
        found.append(bytes(damaged))

    draw()
    return found


def corpus() -> dict[str, bytes]:
    files = {f"bomb-{name}": data for name, data in BOMBS.items()}
    files |= {f"good-{kind}": data for kind, data in GOOD.items()}
    for kind, data in GOOD.items():
        for share in (0.01, 0.1, 0.3, 0.6, 0.9, 0.99):
            files[f"cut-{kind}-{share}"] = data[: int(len(data) * share)]
        for other in ("JPEG", "PNG", "GIF"):
            files[f"mixed-{kind}-{other}"] = data[: len(data) // 2] + GOOD[other][len(GOOD[other]) // 2 :]
    rng = np.random.default_rng(0)
    files |= {f"noise-{size}": rng.bytes(size) for size in (0, 1, 7, 100, 5000, 200_000)}
    files["zeros"] = bytes(1_000_000)
    large = encoded(Image.new("RGB", (7000, 7000), (9, 90, 9)))  # within the limit of pixels, 147 MB once decoded
    files |= {"large": large, "large-cut": large[: len(large) * 2 // 3]}
    files |= {f"fuzz-{number:03d}": data for number, data in enumerate(mutated(210))}
    return files


def test_a_hostile_corpus_ends_in_pictures_and_reasons_within_300_mb(tmp_path: Path) -> None:
    files = corpus()
    write(tmp_path / "warm/a.png", encode_png(np.zeros((96, 128, 3), np.uint8)))
    suffixes = ("png", "jpg", "webp", "gif", "bmp", "tif", "avif")
    for number, (name, data) in enumerate(files.items()):  # the suffix says nothing about what is inside
        write(tmp_path / f"folder/{name.replace(' ', '-')}-{number}.{suffixes[number % len(suffixes)]}", data)
    members = [(f"{number:04d}.png", data) for number, data in enumerate(files.values())]
    (tmp_path / "tar").mkdir()
    write_tar(tmp_path / "tar/whole.tar", members)
    whole = (tmp_path / "tar/whole.tar").read_bytes()
    (tmp_path / "tar/cut.tar").write_bytes(whole[: len(whole) // 3])
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(tmp_path), str(EXTRA_ADDRESSES)], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    records, rejected, grown_mb = (int(word) for word in done.stdout.split()[-3:])
    print(f"memory grew by {grown_mb} MB; {records} pictures, {rejected} reasons")
    assert grown_mb < LIMIT_MB
    assert records >= 2 * len(GOOD)
    assert rejected >= 2 * (len(BOMBS) + 8)
    assert verify(tmp_path / "out") == []
    reasons = [letter.reason for row in committed_rows(tmp_path / "out") for letter in row.rejected]
    assert all(reason and "\n" not in reason and len(reason) < 500 for reason in reasons)
    keys = [key for row in committed_rows(tmp_path / "out") for key in row.samples]
    assert {f"folder-good-{kind}" for kind in GOOD} <= {key.rpartition("-")[0] for key in keys}
    assert not any("bomb" in key for key in keys)
