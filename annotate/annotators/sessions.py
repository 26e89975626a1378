"""How every offline model is opened: onnxruntime, one thread, quiet."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from cavendish.annotate.annotators.tfjs import graph_to_onnx
from cavendish.annotate.weights import Weights, find_weights
from cavendish.mixing.onnx import load_onnxruntime


def open_session(model: bytes) -> Any:
    """Return an onnxruntime session for a serialised ONNX model."""
    onnxruntime = load_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1  # processes are the unit of parallel work
    options.enable_mem_pattern = False  # 190 MB less for u2netp, same speed
    options.log_severity_level = 3  # old exports make it print thousands of warnings
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def open_onnx(weights: Weights) -> Any:
    """Return a session for fetched ONNX weights; InputError when they are missing or not the pinned ones."""
    return open_session(find_weights(weights).read_bytes())


def open_tfjs(graph: Weights, weights: Weights, outputs: Sequence[str]) -> Any:
    """Return a session that computes `outputs` of a fetched TensorFlow.js graph model."""
    model = json.loads(find_weights(graph).read_bytes())
    return open_session(graph_to_onnx(model, find_weights(weights).read_bytes(), outputs))
