"""TensorFlow.js graph models (model.json with its .bin) as ONNX, so that one runtime runs everything.

Only what image networks are made of is known; any other operation is an error that names it. What depends on constants
alone (shapes computed in the graph) is folded. Tensors keep TensorFlow's NHWC order between operations.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from cavendish.encoders.sample import InputError

OPSET = 18
_TO_NCHW, _TO_NHWC = (0, 3, 1, 2), (0, 2, 3, 1)
_ELEMENTWISE = {
    "Add": "Add", "AddV2": "Add", "Mul": "Mul", "Relu": "Relu", "Sigmoid": "Sigmoid", "Identity": "Identity",
}  # fmt: skip
Array = NDArray[Any]


def graph_to_onnx(model: Mapping[str, Any], weights: bytes, outputs: Sequence[str]) -> bytes:
    """Translate a graph model into a serialised ONNX model.

    Args:
        model: the parsed model.json.
        weights: the .bin, float16 or float32 with int32 shapes.
        outputs: names of nodes to compute; what they do not need is left out.

    Returns:
        The model: the placeholder is its input, `outputs` its outputs, names kept.

    Raises:
        InputError: an operation or a kind of weight that is not known.
    """
    nodes = {node["name"]: node for node in model["modelTopology"]["node"]}
    graph = _Graph(_read_weights(model, weights))
    for name in _in_order(nodes, outputs):
        graph.add(nodes[name])
    inputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, _shape_of(nodes[name]))
        for name in nodes
        if nodes[name]["op"] == "Placeholder"
    ]
    results = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs]
    initializers = [numpy_helper.from_array(value, name) for name, value in graph.stored.items()]
    made = helper.make_graph(graph.nodes, "graph", inputs, results, initializers)
    proto = helper.make_model(made, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)
    data: bytes = proto.SerializeToString()
    return data


def _read_weights(model: Mapping[str, Any], data: bytes) -> dict[str, Array]:
    values: dict[str, Array] = {}
    offset = 0
    for group in model["weightsManifest"]:
        for entry in group["weights"]:
            stored = entry.get("quantization", {}).get("dtype", entry["dtype"])
            if stored not in ("float16", "float32", "int32"):
                raise InputError(f"weight {entry['name']}: stored as {stored}; float16, float32 and int32 are known")
            count = int(np.prod(entry["shape"], dtype=np.int64))
            value = np.frombuffer(data, f"<{np.dtype(stored).str[1:]}", count, offset).reshape(entry["shape"])
            values[entry["name"]] = value.astype(np.float32) if stored == "float16" else value
            offset += value.nbytes
    if offset != len(data):
        raise InputError(f"weights hold {len(data)} bytes, the graph describes {offset}")
    return values


def _in_order(nodes: Mapping[str, Any], outputs: Sequence[str]) -> list[str]:
    """List what the outputs need, inputs before their users."""
    done: dict[str, None] = {}
    waiting = list(reversed(outputs))
    while waiting:
        name = waiting[-1]
        missing = [one for one in map(_node_of, nodes[name].get("input", ())) if one not in done]
        if missing:
            waiting += missing
        else:
            done[waiting.pop()] = None
    return list(done)


def _node_of(tensor: str) -> str:
    return tensor.partition(":")[0].lstrip("^")


def _shape_of(placeholder: Mapping[str, Any]) -> list[int]:
    return [int(dimension["size"]) for dimension in placeholder["attr"]["shape"]["shape"]["dim"]]


class _Graph:
    """The ONNX nodes so far, and the constants they use."""

    def __init__(self, constants: dict[str, Array]) -> None:
        self.nodes: list[Any] = []
        self.stored: dict[str, Array] = {}
        self._constants = constants

    def add(self, node: Mapping[str, Any]) -> None:
        """Translate one node."""
        name, operation = node["name"], node["op"]
        inputs = list(node.get("input", ()))
        if operation in ("Placeholder", "Const"):
            return
        if operation in _FOLDED and all(one in self._constants for one in inputs):
            self._constants[name] = _FOLDED[operation](*(self._constants[one] for one in inputs))
        elif operation in _ELEMENTWISE:
            self.emit(_ELEMENTWISE[operation], [self.use(one) for one in inputs], name)
        elif operation in _TRANSLATIONS:
            _TRANSLATIONS[operation](self, name, inputs, node.get("attr", {}))
        else:
            raise InputError(f"graph node {name}: operation {operation} is not known")

    def emit(self, operation: str, inputs: Sequence[str], output: str | Sequence[str], **attributes: Any) -> str:
        """Append one ONNX node and return the name of its first output."""
        outputs = [output] if isinstance(output, str) else list(output)
        self.nodes.append(helper.make_node(operation, list(inputs), outputs, **attributes))
        return outputs[0]

    def use(self, name: str) -> str:
        """Return the name of a tensor for an ONNX node, storing it when it is a constant."""
        if name in self._constants:
            self.store(name, self._constants[name])
        return name

    def store(self, name: str, value: Array) -> str:
        """Keep an array in the model."""
        self.stored[name] = np.ascontiguousarray(value)
        return name

    def constant(self, name: str) -> Array:
        """Return the value of a constant, which a translation needs to know."""
        if name not in self._constants:
            raise InputError(f"graph node {name}: must be a constant here")
        return self._constants[name]

    def channels_first(self, operation: str, inputs: Sequence[str], name: str, **attributes: Any) -> str:
        """Append an ONNX operation on NCHW whose first input and output are NHWC."""
        first = self.emit("Transpose", [self.use(inputs[0])], f"{name}/nchw", perm=_TO_NCHW)
        inner = self.emit(operation, [first, *inputs[1:]], f"{name}/inner", **attributes)
        return self.emit("Transpose", [inner], name, perm=_TO_NHWC)


def _ints(attributes: Mapping[str, Any], name: str) -> list[int]:
    return [int(value) for value in attributes[name]["list"].get("i", ())]


def _text(attributes: Mapping[str, Any], name: str) -> str:
    return base64.b64decode(attributes[name]["s"]).decode()


def _padding(attributes: Mapping[str, Any]) -> str:
    return {"SAME": "SAME_UPPER", "VALID": "VALID"}[_text(attributes, "padding")]


def _convolution(
    graph: _Graph, name: str, inputs: list[str], attributes: Mapping[str, Any], depthwise: bool = False
) -> None:
    """Translate a convolution with what is fused to it: a bias, then an activation."""
    kernel = graph.constant(inputs[1])  # height, width, channels in, channels out (depthwise: for each channel in)
    groups, weight = 1, kernel.transpose(3, 2, 0, 1)
    if depthwise:
        groups, weight = kernel.shape[2], kernel.transpose(2, 3, 0, 1).reshape(-1, 1, *kernel.shape[:2])
    fused = [base64.b64decode(one).decode() for one in attributes.get("fused_ops", {}).get("list", {}).get("s", ())]
    names = [inputs[0], graph.store(f"{name}/kernel", weight)]
    if "BiasAdd" in fused:
        names.append(graph.store(f"{name}/bias", graph.constant(inputs[2])))
    activations = [one for one in fused if one != "BiasAdd"]
    if len(activations) > 1 or not set(activations) <= {"Relu", "Relu6"}:
        raise InputError(f"graph node {name}: fused {', '.join(activations)} is not known")
    graph.channels_first(
        "Conv", names, f"{name}/linear" if activations else name, group=groups, auto_pad=_padding(attributes),
        strides=_ints(attributes, "strides")[1:3], dilations=_ints(attributes, "dilations")[1:3],
    )  # fmt: skip
    if activations:
        graph.add({"name": name, "op": activations[0], "input": [f"{name}/linear"]})


def _depthwise(graph: _Graph, name: str, inputs: list[str], attributes: Mapping[str, Any]) -> None:
    _convolution(graph, name, inputs, attributes, depthwise=True)


def _relu6(graph: _Graph, name: str, inputs: list[str], attributes: Mapping[str, Any]) -> None:
    low, high = (graph.store(f"{name}/{limit}", np.array(limit, np.float32)) for limit in (0, 6))
    graph.emit("Clip", [graph.use(inputs[0]), low, high], name)


def _leaky_relu(graph: _Graph, name: str, inputs: list[str], attributes: Mapping[str, Any]) -> None:
    graph.emit("LeakyRelu", [graph.use(inputs[0])], name, alpha=float(attributes["alpha"]["f"]))


def _max_pool(graph: _Graph, name: str, inputs: list[str], attributes: Mapping[str, Any]) -> None:
    graph.channels_first(
        "MaxPool", inputs[:1], name, auto_pad=_padding(attributes),
        kernel_shape=_ints(attributes, "ksize")[1:3], strides=_ints(attributes, "strides")[1:3],
    )  # fmt: skip


def _resize(graph: _Graph, name: str, inputs: list[str], attributes: Mapping[str, Any]) -> None:
    if attributes.get("align_corners", {}).get("b"):
        raise InputError(f"graph node {name}: align_corners is not known")
    half = attributes.get("half_pixel_centers", {}).get("b")
    first = graph.emit("Transpose", [graph.use(inputs[0])], f"{name}/nchw", perm=_TO_NCHW)
    # All four sizes rather than the attribute "axes": onnxruntime 1.31 loses it when it moves the transpositions.
    channels = graph.emit("Shape", [first], f"{name}/channels", start=0, end=2)
    side = graph.store(f"{name}/side", graph.constant(inputs[1]).astype(np.int64))
    size = graph.emit("Concat", [channels, side], f"{name}/size", axis=0)
    resized = graph.emit(
        "Resize", [first, "", "", size], f"{name}/inner", mode="linear",
        coordinate_transformation_mode="half_pixel" if half else "asymmetric",
    )  # fmt: skip
    graph.emit("Transpose", [resized], name, perm=_TO_NHWC)


def _transpose(graph: _Graph, name: str, inputs: list[str], attributes: Mapping[str, Any]) -> None:
    graph.emit("Transpose", [graph.use(inputs[0])], name, perm=graph.constant(inputs[1]).tolist())


def _concat(graph: _Graph, name: str, inputs: list[str], attributes: Mapping[str, Any]) -> None:
    graph.emit("Concat", [graph.use(one) for one in inputs[:-1]], name, axis=int(graph.constant(inputs[-1])))


def _pad(graph: _Graph, name: str, inputs: list[str], attributes: Mapping[str, Any]) -> None:
    pads = graph.store(f"{name}/pads", graph.constant(inputs[1]).astype(np.int64).T.reshape(-1))
    graph.emit("Pad", [graph.use(inputs[0]), pads, *(graph.use(one) for one in inputs[2:])], name)


def _split(graph: _Graph, name: str, inputs: list[str], attributes: Mapping[str, Any]) -> None:
    sizes = graph.constant(inputs[1]).astype(np.int64)
    parts = [name, *(f"{name}:{number}" for number in range(1, len(sizes)))]
    names = [graph.use(inputs[0]), graph.store(f"{name}/sizes", sizes)]
    graph.emit("Split", names, parts, axis=int(graph.constant(inputs[2])))


def _reshape(graph: _Graph, name: str, inputs: list[str], attributes: Mapping[str, Any]) -> None:
    shape = graph.store(f"{name}/shape", graph.constant(inputs[1]).astype(np.int64))
    graph.emit("Reshape", [graph.use(inputs[0]), shape], name)


def _mean(graph: _Graph, name: str, inputs: list[str], attributes: Mapping[str, Any]) -> None:
    axes = graph.store(f"{name}/axes", graph.constant(inputs[1]).astype(np.int64).reshape(-1))
    keep = int(bool(attributes.get("keep_dims", {}).get("b")))
    graph.emit("ReduceMean", [graph.use(inputs[0]), axes], name, keepdims=keep)


_TRANSLATIONS: Mapping[str, Callable[[_Graph, str, list[str], Mapping[str, Any]], None]] = {
    "Conv2D": _convolution,
    "_FusedConv2D": _convolution,
    "DepthwiseConv2dNative": _depthwise,
    "FusedDepthwiseConv2dNative": _depthwise,
    "Relu6": _relu6,
    "LeakyRelu": _leaky_relu,
    "MaxPool": _max_pool,
    "ResizeBilinear": _resize,
    "Transpose": _transpose,
    "ConcatV2": _concat,
    "Pad": _pad,
    "PadV2": _pad,
    "SplitV": _split,
    "Reshape": _reshape,
    "Mean": _mean,
}


def _scatter(indices: Array, shape: Array, values: Array, default: Array) -> Array:
    dense = np.full(shape.astype(np.int64), default)
    dense[tuple(indices.T)] = values
    return dense


_FOLDED: Mapping[str, Callable[..., Array]] = {"SparseToDense": _scatter, "Add": np.add, "AddV2": np.add}
"""Operations on shapes, computed here when all of their inputs are constants."""
