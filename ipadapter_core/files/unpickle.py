"""The pickle in a PyTorch file, walked and not run: tensors become descriptions of where they lie.

torch.load, `weights_only` too, reads every tensor of the file or maps it, takes as much memory as numbers in it ask for,
and of old versions ran code (CVE-2025-32434). Here nothing is called, and every step is one of a few that torch.save
writes. Any odd pickle ends in BadPickle or PickledCode, within a bounded number of steps.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

import torch

from .stored import StoredTensor, sides, span

MOST_STEPS = 250_000  # about thirty for each tensor
_MOST_NUMBER = 2**63
_STORAGES = {
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "DoubleStorage": torch.float64,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "UntypedStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "ComplexFloatStorage": torch.complex64,
    "ComplexDoubleStorage": torch.complex128,
    "QInt8Storage": torch.qint8,
    "QUInt8Storage": torch.quint8,
    "QInt32Storage": torch.qint32,
}
# What these would make is of no use here, and harmless.
_HARMLESS = {
    "collections.Counter",
    "torch.Size",
    "torch.Tensor",
    "torch.device",
    "torch.nn.parameter.Parameter",
    "torch.per_channel_affine",
    "torch.per_tensor_affine",
    "torch.serialization._get_layout",
    *(
        f"{module}.{name}"
        for module in ("builtins", "__builtin__")
        for name in ("set", "frozenset", "bytearray")
    ),
    "_codecs.encode",
}
_OTHER_TENSORS = {
    "_rebuild_sparse_tensor": "sparse",
    "_rebuild_sparse_csr_tensor": "sparse",
    "_rebuild_qtensor": "quantised",
    "_rebuild_meta_tensor_no_storage": "meta, without numbers",
    "_rebuild_nested_tensor": "nested",
}


class BadPickle(ValueError):
    """Not a whole pickle, or not one that torch.save writes."""


class PickledCode(BadPickle):
    """It names a function that is not one of torch.save's. name: as 'os.mkdir'."""

    def __init__(self, name: str):
        super().__init__(name)
        self.name = name


@dataclass(frozen=True)
class _Global:
    name: str


@dataclass(frozen=True)
class _Storage:
    key: str
    dtype: torch.dtype
    count: int


_MARK, _OPAQUE = object(), object()


def walk(stream: BinaryIO, storages: dict[str, int] | None = None) -> Any:
    """What one pickle holds: dicts, lists, tuples, text, numbers and StoredTensor; the stream stands after it.

    storages: is filled with the bytes of one element, by storage.
    """
    machine = _Machine({} if storages is None else storages)
    for step, (code, argument, _) in enumerate(pickletools.genops(stream)):
        if code.name == "STOP":
            return machine.pop()
        if step > MOST_STEPS:
            raise BadPickle("it has too many steps")
        machine.do(code.name, argument)
    raise BadPickle("it does not end")


class _Machine:
    """The stack and the memo of pickle's machine."""

    def __init__(self, storages: dict[str, int]) -> None:
        self.storages = storages
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def do(self, name: str, argument: Any) -> None:
        if name in _CONSTANTS:
            self.stack.append(_plain(argument))
        elif name in _FRESH:
            self.stack.append(_FRESH[name]())
        elif name in _STEPS:
            _STEPS[name](self, argument)
        elif name not in ("PROTO", "FRAME"):
            raise PickledCode(str(argument).replace(" ", ".")) if name == "INST" else BadPickle(name)

    def pop(self) -> Any:
        if not self.stack:
            raise BadPickle("its stack is empty")
        return self.stack.pop()

    def top(self, kind: type) -> Any:
        if not self.stack or not isinstance(self.stack[-1], kind):
            raise BadPickle("its stack holds something else")
        return self.stack[-1]

    def pop_to_mark(self) -> list[Any]:
        items: list[Any] = []
        while (item := self.pop()) is not _MARK:
            items.append(item)
        return items[::-1]

    def put(self, argument: Any) -> None:
        number = len(self.memo) if argument is None else int(argument)
        self.memo[number] = self.top(object)

    def get(self, argument: Any) -> None:
        if argument not in self.memo:
            raise BadPickle("it recalls what it never kept")
        self.stack.append(self.memo[argument])

    def name(self, argument: Any) -> None:
        """GLOBAL, or STACK_GLOBAL without an argument."""
        parts = str(argument).split(" ") if argument else [self.pop(), self.pop()][::-1]
        self.stack.append(_known(".".join(str(part) for part in parts)))

    def tuple_of(self, count: int) -> None:
        items = [self.pop() for _ in range(count)]
        self.stack.append(tuple(items[::-1]))

    def append(self, items: list[Any]) -> None:
        target = self.top(object)
        if isinstance(target, list):
            target.extend(items)
        elif target is not _OPAQUE:
            raise BadPickle("it appends to what is no list")

    def set_items(self, items: list[Any]) -> None:
        target = self.top(dict)
        if len(items) % 2:
            raise BadPickle("a key without a value")
        for key, value in zip(items[::2], items[1::2], strict=True):
            if isinstance(key, str | int):  # others are no name of a tensor
                target[key] = value

    def call(self) -> None:
        arguments, function = self.pop(), self.pop()
        if not isinstance(function, _Global) or not isinstance(arguments, tuple):
            raise BadPickle("it calls what is no function")
        self.stack.append(_made(function.name, arguments))

    def storage(self) -> None:
        told = self.pop()
        if not (isinstance(told, tuple) and len(told) >= 5 and told[0] == "storage"):
            raise BadPickle("a reference to what is no storage")
        _, kind, key, _, count = told[:5]
        dtype = _STORAGES.get(kind.name.rpartition(".")[2]) if isinstance(kind, _Global) else None
        if dtype is None or not isinstance(key, str):
            raise BadPickle("a storage of no kind")
        self.storages[key] = dtype.itemsize
        self.stack.append(_Storage(key, dtype, *sides([count])))


_CONSTANTS = {
    "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE",
    "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES",
}  # fmt: skip
_FRESH: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "MARK": lambda: _MARK,
    "EMPTY_TUPLE": tuple,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
    "EMPTY_SET": lambda: _OPAQUE,
}
_STEPS: dict[str, Callable[[_Machine, Any], object]] = {
    "BINPUT": _Machine.put,
    "LONG_BINPUT": _Machine.put,
    "MEMOIZE": _Machine.put,
    "BINGET": _Machine.get,
    "LONG_BINGET": _Machine.get,
    "GLOBAL": _Machine.name,
    "STACK_GLOBAL": _Machine.name,
    "TUPLE": lambda m, _: m.stack.append(tuple(m.pop_to_mark())),
    "TUPLE1": lambda m, _: m.tuple_of(1),
    "TUPLE2": lambda m, _: m.tuple_of(2),
    "TUPLE3": lambda m, _: m.tuple_of(3),
    "APPEND": lambda m, _: m.append([m.pop()]),
    "APPENDS": lambda m, _: m.append(m.pop_to_mark()),
    "ADDITEMS": lambda m, _: m.append(m.pop_to_mark()),
    "SETITEM": lambda m, _: m.set_items([m.pop(), m.pop()][::-1]),
    "SETITEMS": lambda m, _: m.set_items(m.pop_to_mark()),
    "REDUCE": lambda m, _: m.call(),
    "NEWOBJ": lambda m, _: m.call(),
    "BUILD": lambda m, _: m.pop(),  # attributes of what was made; none is used
    "BINPERSID": lambda m, _: m.storage(),
}


def _plain(value: Any) -> Any:
    if isinstance(value, int) and abs(value) >= _MOST_NUMBER and value != MAGIC:
        raise BadPickle("a number of too many digits")
    return value


MAGIC = 0x1950A86A20F9469CFC6C  # the first pickle of a file before the zip layout


def _known(name: str) -> _Global:
    module, _, last = name.rpartition(".")
    is_dtype = module == "torch" and isinstance(getattr(torch, last, None), torch.dtype)
    is_storage = module in ("torch", "torch.storage") and last in _STORAGES
    if not (name in _MAKERS or name in _HARMLESS or is_dtype or is_storage):
        raise PickledCode(name)
    return _Global(name)


def _made(name: str, arguments: tuple[Any, ...]) -> Any:
    return _MAKERS[name](*arguments) if name in _MAKERS else _OPAQUE


def _tensor(
    storage: Any, offset: Any, shape: Any, stride: Any, *more: Any, dtype: Any = None
) -> StoredTensor:
    """As torch._utils._rebuild_tensor_v2. more: requires_grad, hooks, and marks of a tensor that is no plain one."""
    if not isinstance(storage, _Storage):
        return StoredTensor((), None, "of an unknown storage")
    shape, stride, (offset,) = sides(shape), sides(stride), sides([offset])
    if len(shape) != len(stride):
        raise BadPickle("a stride that does not fit the shape")
    held = storage.dtype if dtype is None else dtype
    step, room = held.itemsize, storage.count * storage.dtype.itemsize
    reach = span(shape, stride)
    kind = str(held).removeprefix("torch.")
    if (offset + reach) * step > room:
        raise BadPickle("a tensor beyond its storage")
    if len(more) > 2 and more[2]:
        return StoredTensor(shape, None, f"{kind}, marked as conjugate or negative")
    if reach < span(shape, None):
        return StoredTensor(shape, None, "expanded: one number stands for many")
    return StoredTensor(
        shape, held, kind, storage.key, offset * step, None if _rows(shape) == stride else stride
    )


def _rows(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The stride of rows that follow rows."""
    steps = [1]
    for side in shape[:0:-1]:
        steps.insert(0, steps[0] * side)
    return tuple(steps[: len(shape)])


def _typed_tensor(
    storage: Any, offset: Any, shape: Any, stride: Any, grad: Any, hooks: Any, dtype: Any, *marks: Any
) -> StoredTensor:
    """As torch._utils._rebuild_tensor_v3."""
    name = dtype.name.rpartition(".")[2] if isinstance(dtype, _Global) else ""
    held = getattr(torch, name, None)
    if not isinstance(held, torch.dtype):
        raise BadPickle("a dtype that is none")
    return _tensor(storage, offset, shape, stride, grad, hooks, *marks, dtype=held)


def _parameter(data: Any, *_: Any) -> Any:
    return data


def _subclass(function: Any, _type: Any, arguments: Any, _state: Any) -> Any:
    """As torch._tensor._rebuild_from_type_v2: a buffer, or a tensor with attributes."""
    if not isinstance(function, _Global) or not isinstance(arguments, tuple) or "_from_type" in function.name:
        raise BadPickle("a tensor of an odd type")
    return _made(function.name, arguments)


def _other(kind: str) -> Callable[..., StoredTensor]:
    return lambda *_: StoredTensor((), None, kind)


_MAKERS: Mapping[str, Callable[..., Any]] = {
    "collections.OrderedDict": lambda: cast("dict[Any, Any]", {}),
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _typed_tensor,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
    "torch._tensor._rebuild_from_type_v2": _subclass,
    **{f"torch._utils.{name}": _other(kind) for name, kind in _OTHER_TENSORS.items()},
}
