"""onnxruntime without its telemetry, for every model that is run with it."""

from __future__ import annotations

import os
from types import ModuleType


def load_onnxruntime() -> ModuleType:
    """Import onnxruntime; on its import it would start to tell its makers what it runs, and leave an id in TMPDIR.

    Raises:
        ImportError: it is not installed.
    """
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    import onnxruntime

    return onnxruntime
