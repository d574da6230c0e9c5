"""What the ids of the older packs promise: titles, inputs, outputs and Python methods that graphs and packs rely on.

contract.json: by generation ("v2" since March 2024, "v1" before, "copies": packs for transformers, and copies of some ids)
and id; an input is [name, section, type or choices, options]. Facts of the interface, read off `/object_info`; an empty
list of choices is a listing of files.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

GENERATIONS = ("v2", "v1", "copies")
_SHOWN = ("default", "min", "max", "step", "multiline")


@dataclass(frozen=True)
class Input:
    """kind: a type's name, or the choices of a menu, () where they are files. options: those in the contract's words."""

    name: str
    section: str
    kind: str | tuple[str, ...]
    options: dict[str, Any]


@dataclass(frozen=True)
class Contract:
    title: str
    method: str
    output_node: bool
    outputs: tuple[tuple[str, str], ...]  # (type, name)
    inputs: tuple[Input, ...]


@lru_cache(maxsize=1)
def contracts() -> dict[str, dict[str, Contract]]:
    """By generation and id."""
    data = json.loads(Path(__file__).with_suffix(".json").read_text(encoding="utf-8"))
    return {
        generation: {i: _read(entry) for i, entry in data[generation].items()} for generation in GENERATIONS
    }


def contract(node_id: str, generation: str = "v2") -> Contract:
    return contracts()[generation][node_id]


def _read(entry: dict[str, Any]) -> Contract:
    inputs = tuple(_input(name, section, kind, options) for name, section, kind, options in entry["inputs"])
    outputs = tuple((kind, name) for kind, name in entry["outputs"])
    return Contract(entry["title"], entry["method"], entry["output_node"], outputs, inputs)


def _input(name: str, section: str, kind: str | list[str], options: dict[str, Any]) -> Input:
    """A menu's default is its first choice, said or not; text is of one line unless said."""
    choices = tuple(kind) if isinstance(kind, (list, tuple)) else kind
    shown = {key: value for key, value in options.items() if key in _SHOWN and value is not False}
    if not isinstance(choices, str):
        shown.setdefault("default", choices[0] if choices else None)
    return Input(name, section, choices, shown)


def declared(node: type) -> Contract:
    """What a node class promises, in the same form."""
    sections: dict[str, dict[str, Any]] = node.INPUT_TYPES()
    inputs = tuple(
        _input(name, section, value[0], value[1] if len(value) > 1 else {})
        for section, items in sections.items()
        for name, value in items.items()
        if section != "hidden"
    )
    names = getattr(node, "RETURN_NAMES", node.RETURN_TYPES)
    return Contract(
        getattr(node, "TITLE", ""),
        node.FUNCTION,
        getattr(node, "OUTPUT_NODE", False),
        tuple(zip(node.RETURN_TYPES, names, strict=True)),
        inputs,
    )


def differences(node: type, promised: Contract) -> list[str]:
    """What a node class does otherwise than promised, a line each; which files a menu lists is no promise."""
    own = declared(node)
    pairs = [("method", own.method, promised.method), ("outputs", own.outputs, promised.outputs)]
    pairs += [("output node", own.output_node, promised.output_node)]
    pairs += [("inputs", [i.name for i in own.inputs], [i.name for i in promised.inputs])]
    pairs += [
        (f"input {theirs.name}", ours, theirs)
        for ours, theirs in zip(own.inputs, promised.inputs, strict=False)
        if theirs.kind != ()
    ]
    return [f"{what}: {ours}, promised {theirs}" for what, ours, theirs in pairs if ours != theirs]
