"""What an .onnx file is, read from its outline: the weights are skipped, and no package is needed.

onnxruntime's own metadata does not suffice: the Doctor checks files without onnxruntime, a session loads all weights and
builds its graph before it answers, and a hostile file must be refused before that.

An ONNX file is one protobuf message (https://github.com/onnx/onnx/blob/main/onnx/onnx.proto): fields of a number, a
wire type and, for parts, a length. Which graph is a detector and which a recogniser is decided as in insightface's
model_zoo/model_zoo.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from ..checkpoint import refuse_placeholder
from ..errors import CheckpointError, shown
from ..files.stored import reading

Shape = tuple[int | None, ...]  # None: any
EMBEDDING = 512
_OTHER_SIZES = (96, 192)  # gender and age; landmarks
_FIRST_NODES = 8
_MOST_READS, _LONGEST_NAME = 500_000, 10_000
_LARGEST_SIDE = 4096  # pixels
_FIRST_BYTE = b"\x08"  # of every ONNX file: the number of its format comes first

# field numbers of onnx.proto
_GRAPH = 7
_NODE, _INITIALIZER, _INPUT, _OUTPUT = 1, 5, 11, 12
_NODE_NAME, _TENSOR_NAME, _VALUE_NAME, _VALUE_TYPE = 3, 8, 1, 2
_TENSOR_TYPE, _TYPE_SHAPE, _SHAPE_DIM, _DIM_VALUE = 1, 2, 1, 1
_VARINT, _FIXED64, _PART, _FIXED32 = 0, 1, 2, 5


@dataclass(frozen=True)
class Graph:
    """Shapes of inputs (weights left out) and outputs, in file order, and the names of the first nodes."""

    path: Path
    input_name: str
    inputs: tuple[Shape, ...]
    outputs: tuple[Shape, ...]
    first_nodes: tuple[str, ...]


@dataclass(frozen=True)
class DetectorSpec:
    """strides: of the feature maps. anchors: of each cell. key_points: whether it gives them. size: (w, h) if fixed."""

    strides: tuple[int, ...]
    anchors: int
    key_points: bool
    size: tuple[int, int] | None


@dataclass(frozen=True)
class RecogniserSpec:
    """size: of the square crop it reads. Its input is (RGB - mean) / std."""

    size: int
    mean: float
    std: float


# By the number of outputs. They are scores, boxes and, maybe, key points of every stride
_DETECTORS: dict[int, tuple[tuple[int, ...], int, bool]] = {
    6: ((8, 16, 32), 2, False),
    9: ((8, 16, 32), 2, True),
    10: ((8, 16, 32, 64, 128), 1, False),
    15: ((8, 16, 32, 64, 128), 1, True),
}


def detector_spec(graph: Graph) -> DetectorSpec | None:
    """None if the graph is no SCRFD detector."""
    layout = _DETECTORS.get(len(graph.outputs))
    if layout is None or len(graph.inputs) != 1 or len(graph.inputs[0]) != 4:
        return None
    height, width = graph.inputs[0][2:]
    if max(height or 0, width or 0) > _LARGEST_SIDE:
        return None
    return DetectorSpec(*layout, size=(width, height) if width and height else None)


def recogniser_spec(graph: Graph) -> RecogniserSpec | None:
    """None if the graph is no ArcFace recogniser."""
    if len(graph.inputs) != 1 or len(graph.outputs) != 1 or len(graph.inputs[0]) != 4:
        return None
    height, width = graph.inputs[0][2:]
    square = height is not None and height == width and 112 <= height <= _LARGEST_SIDE and height % 16 == 0
    if not square or height in _OTHER_SIZES or graph.outputs[0][-1:] not in ((EMBEDDING,), (None,), ()):
        return None
    # graphs of mxnet origin subtract and scale by themselves
    inside = all(any(name.startswith(kind) for name in graph.first_nodes) for kind in _OWN_SCALING)
    return RecogniserSpec(height or 0, *((0.0, 1.0) if inside else (127.5, 127.5)))


_OWN_SCALING = (("Sub", "_minus"), ("Mul", "_mul"))


def read_graph(path: str | Path) -> Graph:
    """The outline of an .onnx file; of 300 MB a few kB are read. Raises CheckpointError if it is not a whole one."""
    path = Path(path)
    refuse_placeholder(path, "ONNX file")
    with reading(path):
        size = path.stat().st_size
        try:
            with path.open("rb") as file:
                return outline(cast("BinaryIO", _Bounded(file)), size, path)
        except ValueError as error:
            raise CheckpointError(
                f"{shown(path.name)} ({size:,} bytes) is not a whole ONNX file ({error}): the download stopped early, or it "
                "is something else renamed. Compare its size with the download page and download it again."
            ) from error


class _Bounded:
    """The file, with a bound on reads: the outline of a real one takes a few thousand reads of a few bytes."""

    def __init__(self, file: BinaryIO):
        self._left, self._read = _MOST_READS, file.read
        self.tell, self.seek = file.tell, file.seek

    def read(self, size: int) -> bytes:
        self._left -= 1
        if self._left < 0 or size > _LONGEST_NAME:
            raise ValueError("more parts, or longer names, than a face model has")
        return self._read(size)


def is_cut(path: Path) -> bool:
    """Whether this is only the beginning of an ONNX file, as an interrupted download leaves it."""
    try:
        with path.open("rb") as file:
            begins = file.read(1) in (_FIRST_BYTE, b"")
        if begins:
            read_graph(path)
    except (OSError, CheckpointError):
        return True
    return False


def outline(file: BinaryIO, size: int, path: Path) -> Graph:
    """The outline of an open file of `size` bytes. Raises ValueError where the bytes are no ONNX message of this size."""
    inputs: dict[str, Shape] = {}
    outputs: dict[str, Shape] = {}
    weights: set[str] = set()
    nodes: list[str] = []
    for number, end in _parts_of(file, size, _GRAPH):
        if number == _NODE and len(nodes) < _FIRST_NODES:
            nodes.append(_text(file, end, _NODE_NAME))
        elif number == _INITIALIZER:
            weights.add(_text(file, end, _TENSOR_NAME))
        elif number in (_INPUT, _OUTPUT):
            name, shape = _value(file, end)
            (inputs if number == _INPUT else outputs)[name] = shape
    own = {name: shape for name, shape in inputs.items() if name not in weights}
    if not own or not outputs:
        raise ValueError("no graph with an input and an output")
    return Graph(path, next(iter(own)), tuple(own.values()), tuple(outputs.values()), tuple(nodes))


def _fields(file: BinaryIO, end: int) -> Iterator[tuple[int, int, int]]:
    """(number, wire type, end of the part or value) of each field up to `end`; parts are skipped afterwards."""
    while file.tell() < end:
        key = _varint(file)
        number, wire = key >> 3, key & 7
        if wire == _VARINT:
            yield number, wire, _varint(file)
            continue
        if wire not in (_PART, _FIXED32, _FIXED64):
            raise ValueError(f"unknown wire type {wire}")
        length = _varint(file) if wire == _PART else 4 if wire == _FIXED32 else 8
        stop = file.tell() + length
        if stop > end:
            raise ValueError(f"a part of {length:,} bytes does not fit")
        yield number, wire, stop
        file.seek(stop)


def _parts(file: BinaryIO, end: int) -> Iterator[tuple[int, int]]:
    """(number, end) of each field that is a part. When one is yielded, the file is at its start."""
    return ((number, stop) for number, wire, stop in _fields(file, end) if wire == _PART)


def _parts_of(file: BinaryIO, end: int, wanted: int) -> Iterator[tuple[int, int]]:
    """The parts of the parts with this number."""
    for number, stop in _parts(file, end):
        if number == wanted:
            yield from _parts(file, stop)


def _varint(file: BinaryIO) -> int:
    value = 0
    for shift in range(0, 70, 7):
        byte = file.read(1)
        if not byte:
            raise ValueError("it ends in the middle")
        value |= (byte[0] & 0x7F) << shift
        if byte[0] < 0x80:
            return value
    raise ValueError("a number of more than 10 bytes")


def _text(file: BinaryIO, end: int, wanted: int) -> str:
    """The last string field with this number, or ''."""
    found = ""
    for number, stop in _parts(file, end):
        if number == wanted:
            found = file.read(stop - file.tell()).decode()
    return found


def _value(file: BinaryIO, end: int) -> tuple[str, Shape]:
    """Name and shape of an input or output."""
    name, shape = "", ()
    for number, stop in _parts(file, end):
        if number == _VALUE_NAME:
            name = file.read(stop - file.tell()).decode()
        elif number == _VALUE_TYPE:
            shape = _shape(file, stop)
    return name, shape


def _shape(file: BinaryIO, end: int) -> Shape:
    sides: list[int | None] = []
    for number, stop in _parts_of(file, end, _TENSOR_TYPE):
        if number == _TYPE_SHAPE:
            dims = (part for part in _parts(file, stop) if part[0] == _SHAPE_DIM)
            sides += [_side(file, dim_stop) for _, dim_stop in dims]
    return tuple(sides)


def _side(file: BinaryIO, end: int) -> int | None:
    values = [value for number, wire, value in _fields(file, end) if (number, wire) == (_DIM_VALUE, _VARINT)]
    return values[0] if values and values[0] > 0 else None
