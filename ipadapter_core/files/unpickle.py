"""The pickle in a PyTorch file, walked and not run: tensors become descriptions of where they lie.

torch.load, `weights_only` too, reads every tensor of the file or maps it, takes as much memory as numbers in it ask for,
and of old versions ran code (CVE-2025-32434). Here nothing is called, and every step is one of a few that torch.save
writes. Any odd pickle ends in BadPickle or PickledCode, within a bounded number of steps.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from typing import Any, BinaryIO

from .rebuilt import OPAQUE, STORAGES, BadPickle, Global, PickledCode, Storage, global_named, result_of
from .stored import dims

# The first pickle of a file before the zip layout.
MAGIC = 0x1950A86A20F9469CFC6C
# About thirty for each tensor.
MOST_STEPS = 250_000
_MOST_NUMBER = 2**63
_MARK = object()


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
            self.stack.append(_bounded(argument))
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
        self.stack.append(global_named(".".join(str(part) for part in parts)))

    def tuple_of(self, count: int) -> None:
        items = [self.pop() for _ in range(count)]
        self.stack.append(tuple(items[::-1]))

    def append(self, items: list[Any]) -> None:
        target = self.top(object)
        if isinstance(target, list):
            target.extend(items)
        elif target is not OPAQUE:
            raise BadPickle("it appends to what is no list")

    def set_items(self, items: list[Any]) -> None:
        target = self.top(dict)
        if len(items) % 2:
            raise BadPickle("a key without a value")
        for key, value in zip(items[::2], items[1::2], strict=True):
            # other keys are no names of tensors
            if isinstance(key, str | int):
                target[key] = value

    def call(self) -> None:
        arguments, function = self.pop(), self.pop()
        if not isinstance(function, Global) or not isinstance(arguments, tuple):
            raise BadPickle("it calls what is no function")
        self.stack.append(result_of(function.name, arguments))

    def storage(self) -> None:
        reference = self.pop()
        if not (isinstance(reference, tuple) and len(reference) >= 5 and reference[0] == "storage"):
            raise BadPickle("a reference to what is no storage")
        _, kind, key, _, count = reference[:5]
        dtype = STORAGES.get(kind.name.rpartition(".")[2]) if isinstance(kind, Global) else None
        if dtype is None or not isinstance(key, str):
            raise BadPickle("a storage of no kind")
        self.storages[key] = dtype.itemsize
        self.stack.append(Storage(key, dtype, *dims([count])))


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
    "EMPTY_SET": lambda: OPAQUE,
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


def _bounded(value: Any) -> Any:
    if isinstance(value, int) and abs(value) >= _MOST_NUMBER and value != MAGIC:
        raise BadPickle("a number of too many digits")
    return value
