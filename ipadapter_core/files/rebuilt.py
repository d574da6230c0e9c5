"""What the functions in a PyTorch file's pickle would make, as descriptions: nothing is called, no tensor is read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch

from .stored import StoredTensor, dims, extent

STORAGES = {
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
# Functions and classes whose results are not used here, and harmless.
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
_UNREADABLE = {
    "_rebuild_sparse_tensor": "sparse",
    "_rebuild_sparse_csr_tensor": "sparse",
    "_rebuild_qtensor": "quantised",
    "_rebuild_meta_tensor_no_storage": "meta, without numbers",
    "_rebuild_nested_tensor": "nested",
}
# In place of a result that is not used.
OPAQUE = object()


class BadPickle(ValueError):
    """Not a whole pickle, or not one that torch.save writes."""


class PickledCode(BadPickle):
    """It names a function that is not one of torch.save's. name: as 'os.mkdir'."""

    def __init__(self, name: str):
        super().__init__(name)
        self.name = name


@dataclass(frozen=True)
class Global:
    """A function or class that the pickle names."""

    name: str


@dataclass(frozen=True)
class Storage:
    """count: of elements."""

    key: str
    dtype: torch.dtype
    count: int


def global_named(name: str) -> Global:
    """Raises PickledCode for any that torch.save does not write."""
    module, _, last = name.rpartition(".")
    is_dtype = module == "torch" and isinstance(getattr(torch, last, None), torch.dtype)
    is_storage = module in ("torch", "torch.storage") and last in STORAGES
    if not (name in _MAKERS or name in _HARMLESS or is_dtype or is_storage):
        raise PickledCode(name)
    return Global(name)


def result_of(name: str, arguments: tuple[Any, ...]) -> Any:
    """What a call of this global stands for: a StoredTensor, a dictionary, or OPAQUE."""
    return _MAKERS[name](*arguments) if name in _MAKERS else OPAQUE


def _tensor(
    storage: Any, offset: Any, shape: Any, stride: Any, *more: Any, dtype: Any = None
) -> StoredTensor:
    """As torch._utils._rebuild_tensor_v2. more: requires_grad, hooks, and marks of a tensor that is no plain one."""
    if not isinstance(storage, Storage):
        return StoredTensor((), None, "of an unknown storage")
    shape, stride, (offset,) = dims(shape), dims(stride), dims([offset])
    if len(shape) != len(stride):
        raise BadPickle("a stride that does not fit the shape")
    held = storage.dtype if dtype is None else dtype
    step, room = held.itemsize, storage.count * storage.dtype.itemsize
    reach = extent(shape, stride)
    kind = str(held).removeprefix("torch.")
    if (offset + reach) * step > room:
        raise BadPickle("a tensor beyond its storage")
    if len(more) > 2 and more[2]:
        return StoredTensor(shape, None, f"{kind}, marked as conjugate or negative")
    if reach < extent(shape, None):
        return StoredTensor(shape, None, "expanded: one number stands for many")
    return StoredTensor(
        shape, held, kind, storage.key, offset * step, None if _contiguous(shape) == stride else stride
    )


def _contiguous(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The stride of a contiguous tensor."""
    steps = [1]
    for dim in shape[:0:-1]:
        steps.insert(0, steps[0] * dim)
    return tuple(steps[: len(shape)])


def _typed_tensor(
    storage: Any, offset: Any, shape: Any, stride: Any, grad: Any, hooks: Any, dtype: Any, *marks: Any
) -> StoredTensor:
    """As torch._utils._rebuild_tensor_v3."""
    name = dtype.name.rpartition(".")[2] if isinstance(dtype, Global) else ""
    held = getattr(torch, name, None)
    if not isinstance(held, torch.dtype):
        raise BadPickle("a dtype that is none")
    return _tensor(storage, offset, shape, stride, grad, hooks, *marks, dtype=held)


def _parameter(data: Any, *_: Any) -> Any:
    return data


def _subclass(function: Any, _type: Any, arguments: Any, _state: Any) -> Any:
    """As torch._tensor._rebuild_from_type_v2: a buffer, or a tensor with attributes."""
    if not isinstance(function, Global) or not isinstance(arguments, tuple) or "_from_type" in function.name:
        raise BadPickle("a tensor of an odd type")
    return result_of(function.name, arguments)


def _unreadable(kind: str) -> Callable[..., StoredTensor]:
    return lambda *_: StoredTensor((), None, kind)


_MAKERS: Mapping[str, Callable[..., Any]] = {
    "collections.OrderedDict": lambda: cast("dict[Any, Any]", {}),
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _typed_tensor,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
    "torch._tensor._rebuild_from_type_v2": _subclass,
    **{f"torch._utils.{name}": _unreadable(kind) for name, kind in _UNREADABLE.items()},
}
