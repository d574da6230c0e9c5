"""ONNX graphs in the shape of the real face models: random ones for numbers, and toy ones that see painted faces.

A toy face is a square of pure red (r = 255, everything else stays below 128). Its green is the person, its blue the
certainty: score = 0.5 + blue / 512.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import torch
from image_prompt.ipadapter_core.faces.identity import ARCFACE
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor

LEVELS = {
    9: ((8, 16, 32), 2),
    15: ((8, 16, 32, 64, 128), 1),
    6: ((8, 16, 32), 2),
    10: ((8, 16, 32, 64, 128), 1),
}
CHANNELS = (1, 4, 10)  # score, box, key points
GRID = 160  # cells of the longest side a toy detector sees
TOO_LARGE, TOO_SMALL = 55, 2  # cells of a toy face, at a stride of 8


class Builder:
    """Nodes and weights of one graph, named as they come."""

    def __init__(self):
        self.nodes, self.weights = [], []

    def __call__(self, op, *inputs, out=None, name="", **attributes):
        out = out or f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, list(inputs), [out], name=name, **attributes))
        return out

    def const(self, value, dtype=np.float32):
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.asarray(value, dtype), name))
        return name

    def save(self, path, shape, outputs):
        """shape: of the input. outputs: (name, shape)."""
        value = helper.make_tensor_value_info
        graph = helper.make_graph(
            self.nodes,
            path.stem,
            [value("input.1", TensorProto.FLOAT, shape)],
            [value(name, TensorProto.FLOAT, sides) for name, sides in outputs],
            self.weights,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
        onnx.checker.check_model(model)
        path.parent.mkdir(parents=True, exist_ok=True)
        onnx.save(model, path)
        return path


# --- random ------------------------------------------------------------------------------------------------------


def random_detector(
    path: Path, outputs: int = 9, size: int | None = None, batched: bool = False, seed: int = 0
):
    """Layout and output order of SCRFD, random weights; about one anchor in a hundred fires."""
    generator, build = np.random.default_rng(seed), Builder()
    strides, anchors = LEVELS[outputs]
    kinds = outputs // len(strides)
    found = [[] for _ in range(kinds)]
    pooled = build("AveragePool", "input.1", kernel_shape=[8, 8], strides=[8, 8])
    for stride in strides:
        if stride > 8:
            pooled = build("AveragePool", pooled, kernel_shape=[2, 2], strides=[2, 2])
        for kind in range(kinds):
            found[kind].append(_head(build, generator, pooled, kind, anchors, batched))
    names = [name for kind in found for name in kind]
    lead = [1] if batched else []
    shapes = [[*lead, f"n{n}", CHANNELS[n // len(strides)]] for n in range(outputs)]
    return build.save(path, [1, 3, size or "h", size or "w"], list(zip(names, shapes, strict=True)))


def _head(build, generator, features, kind, anchors, batched):
    channels = CHANNELS[kind] * anchors
    gain = (14, 5, 5)[kind]
    weight = build.const(generator.normal(0, gain, (channels, 3, 3, 3)) / 5)
    bias = build.const(np.full(channels, (-12, 3, 0)[kind]))
    out = build("Conv", features, weight, bias, pads=[1, 1, 1, 1])
    out = build("Transpose", out, perm=[0, 2, 3, 1])
    lead = [1] if batched else []
    out = build("Reshape", out, build.const([*lead, -1, CHANNELS[kind]], np.int64))
    return build(("Sigmoid", "Relu", "Identity")[kind], out)


def random_recogniser(path: Path, own_scaling: bool = False, size: int = 112, seed: int = 0):
    """Layout of ArcFace, random weights. own_scaling: it subtracts and scales itself, as graphs of mxnet origin do."""
    generator, build = np.random.default_rng(seed), Builder()
    value = "input.1"
    if own_scaling:
        value = build("Sub", value, build.const(127.5), name="_minusscalar0")
        value = build("Mul", value, build.const(1 / 128), name="_mulscalar0")
    weight = build.const(generator.normal(0, 0.1, (16, 3, 8, 8)))
    value = build("Conv", value, weight, strides=[8, 8], name="Conv_0")
    value = build("Flatten", build("Tanh", value))
    cells = 16 * (size // 8) ** 2
    value = build(
        "MatMul", value, build.const(generator.normal(0, cells**-0.5, (cells, 512)) * 10), out="683"
    )
    return build.save(path, [1, 3, size, size], [(value, [1, 512])])


def landmarks(path: Path):
    """Another model of the same packs: one square input, one output that is no embedding."""
    build = Builder()
    build("GlobalAveragePool", "input.1", out="pooled")
    build("Flatten", "pooled", out="fc1")
    return build.save(path, [1, 3, 192, 192], [("fc1", [1, 3])])


# --- toy ---------------------------------------------------------------------------------------------------------


def toy_detector(path: Path, size: int | None = None):
    """9 outputs; only stride 8 ever fires. Faces that touch the edge of the view or are too large or small are missed."""
    build = Builder()
    grey = build("AveragePool", "input.1", kernel_shape=[8, 8], strides=[8, 8])
    red, blue = (_channel(build, grey, n) for n in (0, 2))
    face = build("Cast", build("Greater", red, build.const(0.9)), to=TensorProto.FLOAT)
    left, right = (_run(build, face, axis=3, forward=forward) for forward in (False, True))
    up, down = (_run(build, face, axis=2, forward=forward) for forward in (False, True))
    box = build("Concat", left, up, build("Add", right, face), build("Add", down, face), axis=1)
    width, height = (build("Add", build("Add", a, b), face) for a, b in ((left, right), (up, down)))
    fits = [
        build("Cast", build(op, side, build.const(limit)), to=TensorProto.FLOAT)
        for side in (width, height)
        for op, limit in (("Less", TOO_LARGE), ("Greater", TOO_SMALL))
    ]
    certainty = build("Add", build("Mul", blue, build.const(0.25)), build.const(0.75))  # blue is -1..1
    score = face
    for factor in (*fits, certainty):
        score = build("Mul", score, factor)
    points = build(
        "Concat", *(_points(build, side, length) for side, length in _axes(left, up, width, height)), axis=1
    )
    names = []
    for kind, value in enumerate((score, box, points)):
        names += [_rows(build, value, CHANNELS[kind], step) for step in (1, 2, 4)]
    shapes = [[f"n{n}", CHANNELS[n // 3]] for n in range(9)]
    return build.save(path, [1, 3, size or "h", size or "w"], list(zip(names, shapes, strict=True)))


def _channel(build, value, number):
    return build("Slice", value, *(build.const([n], np.int64) for n in (number, number + 1, 1)))


def _run(build, face, axis, forward):
    """How many cells of face lie beside each cell: the distance to the nearest cell of none, found by pooling."""
    ones = build("Div", face, build("Max", face, build.const(1e-9)))  # keeps the shape
    index = build(
        "CumSum",
        build("Add", build("Mul", ones, build.const(0)), build.const(1)),
        build.const(axis, np.int64),
    )
    signed = build("Mul", index, build.const(-1 if forward else 1))
    bare = build("Sub", build.const(1), face)
    # the nearest cell of none is the largest of the signed indices on that side; 0 and beyond are the edges
    marked = build("Sub", build("Mul", signed, bare), build("Mul", face, build.const(1e4)))
    pads = {
        (3, False): (0, GRID, 0, 0),
        (3, True): (0, 0, 0, GRID),
        (2, False): (GRID, 0, 0, 0),
        (2, True): (0, 0, GRID, 0),
    }
    kernel = [1, GRID + 1] if axis == 3 else [GRID + 1, 1]
    nearest = build("MaxPool", marked, kernel_shape=kernel, strides=[1, 1], pads=list(pads[axis, forward]))
    return build("Mul", face, build("Sub", build("Sub", signed, nearest), build.const(1)))


def _axes(left, up, width, height):
    for point in ARCFACE / 112:
        yield (left, float(point[0])), width
        yield (up, float(point[1])), height


def _points(build, before, length):
    """Where a key point lies from the cell, in cells: the start of the face, and a part of its length."""
    side, part = before
    return build("Sub", build("Mul", length, build.const(part)), side)


def _rows(build, value, channels, step):
    """(1, c, h, w) -> (cells * 2, c) at every `step`-th cell, each twice; beyond stride 8 nothing fires."""
    if step > 1:
        value = build("MaxPool", value, kernel_shape=[1, 1], strides=[step, step])
        value = build("Mul", value, build.const(0))
    value = build("Concat", value, value, axis=1)
    value = build("Transpose", value, perm=[0, 2, 3, 1])
    return build("Reshape", value, build.const([-1, channels], np.int64))


def toy_recogniser(path: Path):
    """An embedding that turns with the green of the middle: alike for one person, unrelated for others."""
    generator, build = np.random.default_rng(1), Builder()
    middle = build(
        "Slice", "input.1", *(build.const(v, np.int64) for v in ([1, 40, 40], [2, 72, 72], [1, 2, 3]))
    )
    person = build("ReduceMean", middle, axes=[1, 2, 3], keepdims=0)
    angles = build(
        "Mul",
        build("Unsqueeze", person, build.const([1], np.int64)),
        build.const(generator.normal(0, 15, 512)),
    )
    value = build("Cos", build("Add", angles, build.const(generator.uniform(0, 2 * np.pi, 512))))
    value = build("Mul", value, build.const(20.0), out="683")
    return build.save(path, [1, 3, 112, 112], [(value, [1, 512])])


def toy_pack(folder: Path, size: int | None = None) -> Path:
    """A folder like buffalo_l: landmarks, a detector, a recogniser."""
    landmarks(folder / "1k3d68.onnx")
    toy_detector(folder / "det_toy.onnx", size)
    toy_recogniser(folder / "w600k_toy.onnx")
    return folder


def canvas(
    height: int, width: int, *faces: tuple[int, int, int, int] | tuple[int, int, int, int, int]
) -> Tensor:
    """A picture (1, height, width, 3) of noise with toy faces (x, y, side, person[, certainty]); both 0..255."""
    generator = torch.Generator().manual_seed(height + width)
    picture = torch.rand(1, height, width, 3, generator=generator) * 0.45
    for x, y, side, person, *certainty in faces:
        picture[0, y : y + side, x : x + side] = torch.tensor([255, person, *(certainty or [128])]) / 255
    return (picture * 255).round() / 255
