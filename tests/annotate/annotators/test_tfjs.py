"""Each operation against torch or numpy, which compute it by other code."""

from __future__ import annotations

import base64
import json
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from cavendish.annotate.annotators.sessions import open_session
from cavendish.annotate.annotators.tfjs import graph_to_onnx
from cavendish.annotate.weights import NANODET, NANODET_GRAPH, find_weights
from cavendish.encoders.sample import InputError

RNG = np.random.default_rng(0)


def text(value: str) -> dict[str, str]:
    return {"s": base64.b64encode(value.encode()).decode()}


def ints(*values: int) -> dict[str, Any]:
    return {"list": {"i": [str(value) for value in values]}}


def run(nodes: list[dict[str, Any]], weights: dict[str, np.ndarray], x: np.ndarray, output: str = "y") -> np.ndarray:
    """Build a graph model with one placeholder `x` and run its ONNX translation; floats are stored as float16."""
    shape = {"shape": {"dim": [{"size": str(size)} for size in x.shape]}}
    entries, data = [], b""
    for name, value in weights.items():
        entry: dict[str, Any] = {"name": name, "shape": list(value.shape), "dtype": str(value.dtype)}
        if value.dtype == np.float32:
            entry["quantization"] = {"dtype": "float16"}
            value = value.astype(np.float16)
        entries.append(entry)
        data += value.tobytes()
    constants = [{"name": name, "op": "Const"} for name in weights]
    placeholder = {"name": "x", "op": "Placeholder", "attr": {"shape": shape}}
    model = {
        "modelTopology": {"node": [placeholder, *constants, *nodes]},
        "weightsManifest": [{"paths": ["w.bin"], "weights": entries}],
    }
    session = open_session(graph_to_onnx(model, data, [output]))
    return session.run([output], {"x": x})[0]


def half(*shape: int) -> np.ndarray:
    """Random values that float16 holds exactly."""
    return RNG.integers(-64, 64, shape).astype(np.float32) / 32


@pytest.mark.parametrize(
    ("padding", "stride", "dilation"), [("SAME", 1, 1), ("SAME", 2, 1), ("VALID", 2, 1), ("VALID", 1, 2)]
)
@pytest.mark.parametrize("side", [10, 11])
def test_convolutions_pad_as_tensorflow_does(padding: str, stride: int, dilation: int, side: int) -> None:
    x, kernel, bias = half(1, side, side, 4), half(3, 3, 4, 5), half(5)
    node = {
        "name": "y", "op": "_FusedConv2D", "input": ["x", "kernel", "bias"],
        "attr": {"padding": text(padding), "strides": ints(1, stride, stride, 1),
                 "dilations": ints(1, dilation, dilation, 1),
                 "fused_ops": {"list": {"s": [text(one)["s"] for one in ("BiasAdd", "Relu")]}}},
    }  # fmt: skip
    found = run([node], {"kernel": kernel, "bias": bias}, x)
    t = torch.from_numpy(x.transpose(0, 3, 1, 2).copy())
    if padding == "SAME":  # TensorFlow: as many zeros as needed, the odd one at the end
        need = max((-(-side // stride) - 1) * stride + 3 - side, 0)
        t = functional.pad(t, (need // 2, need - need // 2) * 2)
    w = torch.from_numpy(kernel.transpose(3, 2, 0, 1).copy())
    expected = functional.relu(functional.conv2d(t, w, torch.from_numpy(bias), stride, 0, dilation))
    np.testing.assert_allclose(found, expected.numpy().transpose(0, 2, 3, 1), atol=1e-4)


def test_a_depthwise_convolution_keeps_channels_apart() -> None:
    x, kernel = half(1, 9, 9, 3), half(3, 3, 3, 2)
    node = {"name": "y", "op": "DepthwiseConv2dNative", "input": ["x", "kernel"],
            "attr": {"padding": text("VALID"), "strides": ints(1, 1, 1, 1), "dilations": ints(1, 1, 1, 1)}}  # fmt: skip
    w = torch.from_numpy(kernel.transpose(2, 3, 0, 1).reshape(6, 1, 3, 3).copy())
    expected = functional.conv2d(torch.from_numpy(x.transpose(0, 3, 1, 2).copy()), w, groups=3)
    np.testing.assert_allclose(run([node], {"kernel": kernel}, x), expected.numpy().transpose(0, 2, 3, 1), atol=1e-4)


@pytest.mark.parametrize("half_pixel", [True, False])
def test_bilinear_resizing_in_both_conventions(half_pixel: bool) -> None:
    x = half(1, 4, 5, 2)
    node = {"name": "y", "op": "ResizeBilinear", "input": ["x", "size"],
            "attr": {"half_pixel_centers": {"b": half_pixel}, "align_corners": {"b": False}}}  # fmt: skip
    found = run([node], {"size": np.array([8, 15], np.int32)}, x)
    rows, columns = ((np.arange(n) + 0.5 * half_pixel) * m / n - 0.5 * half_pixel for n, m in ((8, 4), (15, 5)))
    expected = np.zeros((8, 15, 2))
    for i, y in enumerate(np.clip(rows, 0, 3)):
        for j, u in enumerate(np.clip(columns, 0, 4)):
            y0, u0 = int(y), int(u)
            y1, u1 = min(y0 + 1, 3), min(u0 + 1, 4)
            top = x[0, y0, u0] * (1 - (u - u0)) + x[0, y0, u1] * (u - u0)
            bottom = x[0, y1, u0] * (1 - (u - u0)) + x[0, y1, u1] * (u - u0)
            expected[i, j] = top * (1 - (y - y0)) + bottom * (y - y0)
    np.testing.assert_allclose(found[0], expected, atol=1e-5)


def test_what_only_rearranges_or_reduces() -> None:
    x = half(1, 4, 6, 3)
    axis, perm = np.array(3, np.int32), np.array([0, 3, 1, 2], np.int32)
    nodes = [
        {"name": "pad", "op": "Pad", "input": ["x", "pads"]},
        {"name": "pool", "op": "MaxPool", "input": ["pad"],
         "attr": {"padding": text("VALID"), "ksize": ints(1, 2, 2, 1), "strides": ints(1, 2, 2, 1)}},
        {"name": "leak", "op": "LeakyRelu", "input": ["pool"], "attr": {"alpha": {"f": 0.1}}},
        {"name": "cut", "op": "SplitV", "input": ["leak", "sizes", "axis"]},
        {"name": "joined", "op": "ConcatV2", "input": ["cut:1", "cut", "axis"]},
        {"name": "six", "op": "Relu6", "input": ["joined"]},
        {"name": "turned", "op": "Transpose", "input": ["six", "perm"]},
        {"name": "shape", "op": "SparseToDense", "input": ["where", "length", "values", "zero"]},
        {"name": "flat", "op": "Reshape", "input": ["turned", "shape"]},
        {"name": "y", "op": "Mean", "input": ["flat", "last"], "attr": {"keep_dims": {"b": True}}},
    ]  # fmt: skip
    weights = {
        "pads": np.array([[0, 0], [1, 1], [1, 1], [0, 0]], np.int32), "sizes": np.array([1, 2], np.int32), "axis": axis,
        "perm": perm, "where": np.array([[0], [1]], np.int32), "length": np.array([2], np.int32),
        "values": np.array([3, 12], np.int32), "zero": np.array(0, np.int32), "last": np.array([1], np.int32),
    }  # fmt: skip
    pooled = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0))).reshape(1, 3, 2, 4, 2, 3).max(axis=(2, 4))
    leaked = np.where(pooled < 0, 0.1 * pooled, pooled)
    expected = np.clip(leaked[..., [1, 2, 0]], 0, 6).transpose(0, 3, 1, 2).reshape(3, 12).mean(axis=1, keepdims=True)
    np.testing.assert_allclose(run(nodes, weights, x), expected, atol=1e-5)


def test_what_is_not_known_is_named() -> None:
    with pytest.raises(InputError, match="graph node y: operation Einsum is not known"):
        run([{"name": "y", "op": "Einsum", "input": ["x"]}], {}, half(1, 2, 2, 1))
    model = json.loads(find_weights(NANODET_GRAPH).read_bytes())
    with pytest.raises(InputError, match="weights hold 7574559 bytes, the graph describes 7574558"):
        graph_to_onnx(model, find_weights(NANODET).read_bytes() + b"\0", ["Identity"])
