from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("onnxruntime")


def test_onnxruntime_is_loaded_without_its_telemetry(tmp_path: Path) -> None:
    code = "from cavendish.mixing.onnx import load_onnxruntime; load_onnxruntime().SessionOptions()"
    environment = {key: value for key, value in os.environ.items() if key != "ORT_DISABLE_TELEMETRY"}
    root = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-c", code], cwd=root, env={**environment, "TMPDIR": str(tmp_path)}, check=True)
    assert list(tmp_path.iterdir()) == []  # with it on, there is the id of a session
