"""Training, evaluating and predicting need no network and no torchvision, whatever is installed."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.trainer.training.test_train import ROOT

PACKAGES = ("encoders", "mixing", "render", "annotate", "trainer", "cavendish/cli", "cavendish/demo")

CHILD = """
import json, sys
from importlib.machinery import PathFinder
tried = {"network": [], "torchvision": []}

def watch(event, values):  # whoever opens a socket; those with a path join processes of one machine
    if event in ("socket.connect", "socket.sendto", "socket.sendmsg"):
        if isinstance(values[1], tuple):
            tried["network"].append(f"{event} {values[1]}")
            raise AssertionError("the network was touched")
    elif event in ("socket.getaddrinfo", "socket.gethostbyname"):
        tried["network"].append(f"{event} {values[0]}")
        raise AssertionError("the network was touched")

class Hiding(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.split(".")[0] == "torchvision" else super().find_spec(name, path, target)

sys.addaudithook(watch)
sys.meta_path[:] = [Hiding if finder is PathFinder else finder for finder in sys.meta_path]

from pathlib import Path
import numpy as np
from cavendish.mixing.images import encode_png
from tests.trainer.training.test_in_loop import SETS, WATCHED, watched, write_evaluated
from tests.trainer.training.test_train import ITEMS, changed
from tests.trainer.together import KLEIN, KLEIN_ITEMS
from tests.trainer.tiny_models import write_klein
from cavendish.trainer.evaluation.generator import EvaluateConfig, evaluate_generator
from cavendish.trainer.inference.predict import Request, predict
from cavendish.trainer.training.train import train_on

out = Path(sys.argv[1])
write_evaluated(out)
train_on(ITEMS, "lock", watched(steps=10, workers=1), out / "tuned", out)
settings = dict(sets=SETS, steps=1, edit_steps=1, size=16, retention="held_out")
evaluate_generator(EvaluateConfig(generator="tuned/generator", base="base/generator", **settings), out / "scores", out)
(out / "photo.png").write_bytes(encode_png(np.full((20, 30, 3), 90, np.uint8)))
predict(out / "tuned/generator", Request((out / "photo.png",), "depth", size=16, steps=1), out / "answers")
write_klein(out / "klein")
klein = changed(**{**KLEIN, "log_every": 1, "checkpoint_every": 2, "warmup_steps": 0})
train_on(KLEIN_ITEMS, "lock", klein, out / "klein-tuned", out)
predict(out / "klein-tuned/generator", Request((out / "photo.png",), "depth", size=32, steps=1), out / "klein-answers")
tried["torchvision"] = [name for name in sys.modules if name.split(".")[0] == "torchvision" and sys.modules[name]]
print(json.dumps(tried))
"""


@pytest.mark.slow
def test_without_network_and_torchvision_it_trains_evaluates_and_predicts(tmp_path: Path) -> None:
    clean = {name: value for name, value in os.environ.items() if "OFFLINE" not in name}
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(tmp_path)], cwd=ROOT, env=clean, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads(done.stdout.splitlines()[-1]) == {"network": [], "torchvision": []}
    for name in ("answers/photo.depth.npy", "klein-answers/photo.depth.npy", "scores/summary.json"):
        assert (tmp_path / name).exists()


def test_no_source_file_imports_torchvision() -> None:
    files = [path for name in PACKAGES for path in (ROOT / name).rglob("*.py")]
    assert len(files) > 150
    for path in files:
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not any(name.split(".")[0] == "torchvision" for name in names), path
