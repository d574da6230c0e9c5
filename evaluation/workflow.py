"""A workflow in API format with its image, text and seed inputs marked: a generator of pictures, whatever it holds."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..ipadapter_core.errors import ImagePromptError, MissingFileError, SettingError, shown

Graph = dict[str, dict[str, Any]]
IMAGE, TEXT, SEED = "{image}", "{text}", "{seed}"
_MARKS = (IMAGE, TEXT, SEED)
FILE_BYTES = 64 << 20


@dataclass(frozen=True)
class Workflow:
    """name: of the method. graph: as ComfyUI's 'Export (API)' writes it, with placeholders for values."""

    name: str
    graph: Graph

    def filled(self, image: str, text: str, seed: int) -> Graph:
        """For one picture. Placeholders work inside texts too: 'a photo of {text}'; {seed} becomes a number."""
        graph = copy.deepcopy(self.graph)
        for node in graph.values():
            node["inputs"] = {
                name: _filled(value, image, text, seed) for name, value in node["inputs"].items()
            }
        return graph

    @property
    def marks(self) -> set[str]:
        values = [
            value
            for node in self.graph.values()
            for value in node["inputs"].values()
            if isinstance(value, str)
        ]
        return {mark for mark in _MARKS if any(mark in value for value in values)}


def _filled(value: Any, image: str, text: str, seed: int) -> Any:
    if not isinstance(value, str):
        return value
    return seed if value == SEED else value.replace(IMAGE, image).replace(TEXT, text).replace(SEED, str(seed))


def read_workflow(path: Path, set_values: Mapping[str, Any] | None = None) -> Workflow:
    """Read and mark a workflow. set_values: 'node id.input' -> value, such as {'3.seed': '{seed}'}.

    Inputs without a placeholder are found where there is no doubt: the only LoadImage's image, the seeds of samplers. A
    text is marked by hand only: image prompts are measured with empty text.

    Raises SettingError without an input for image or seed, or for a number that is not finite, MissingFileError for a file
    that cannot be read.
    """
    made = Workflow(path.stem, _graph(path))
    for field, value in (set_values or {}).items():
        _set(made, shown(path.name), field, value)
    if IMAGE not in made.marks:
        _mark_image(made, shown(path.name))
    if SEED not in made.marks:
        _mark_seeds(made, shown(path.name))
    if not any("images" in node["inputs"] for node in made.graph.values()):
        raise SettingError(f"{shown(path.name)} saves no picture. Add a SaveImage node.")
    return made


def _graph(path: Path) -> Graph:
    content = _content(path)
    graph = content.get("prompt", content) if isinstance(content, Mapping) else None
    if not isinstance(graph, Mapping) or not graph or not all(map(_is_node, graph.values())):
        raise SettingError(
            f"{shown(path.name)} is not in API format. Open it in ComfyUI and choose Workflow → Export (API), then "
            "take that file."
        )
    for number, node in graph.items():
        for name, value in node["inputs"].items():
            _require_finite(shown(path.name), f"{number}.{name}", value)
    return {number: {**node, "inputs": dict(node["inputs"])} for number, node in graph.items()}


def _content(path: Path) -> Any:
    try:
        if not path.is_file():
            raise MissingFileError(
                f"the workflow {shown(path)} cannot be read: it is no file. Check the path."
            )
        if path.stat().st_size > FILE_BYTES:
            raise SettingError(
                f"{shown(path)} has more than {FILE_BYTES >> 20} MB and is no workflow. Check the path."
            )
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except ImagePromptError:
        raise
    except OSError as error:
        raise MissingFileError(
            f"the workflow {shown(path)} cannot be read: {shown(error)}. Check the file and its rights."
        ) from error
    except (ValueError, RecursionError) as error:
        raise SettingError(
            f"the workflow {shown(path)} cannot be read: {shown(error)}. Export it from ComfyUI again."
        ) from error


def _is_node(node: Any) -> bool:
    return (
        isinstance(node, Mapping)
        and isinstance(node.get("class_type"), str)
        and isinstance(node.get("inputs"), Mapping)
    )


def _require_finite(name: str, field: str, value: Any) -> None:
    """JSON has no NaN and no infinity, but ComfyUI would accept them."""
    if isinstance(value, Mapping | list):
        for each in value.values() if isinstance(value, Mapping) else value:
            _require_finite(name, field, each)
    elif isinstance(value, float) and not math.isfinite(value):
        raise SettingError(
            f"{name}: {shown(field)} is {value}, which is no number to work with. Give a finite one."
        )


def _set(flow: Workflow, name: str, field: str, value: Any) -> None:
    number, _, key = field.partition(".")
    if number not in flow.graph or key not in flow.graph[number]["inputs"]:
        nodes = ", ".join(f"{n} ({node['class_type']})" for n, node in flow.graph.items())
        raise SettingError(
            f"{name} has no input '{shown(field)}'. Give it as 'node id.input'; the nodes are {shown(nodes, 1000)}."
        )
    inputs = flow.graph[number]["inputs"]
    inputs[key] = _as_before(inputs[key], value) if isinstance(value, str) else value
    _require_finite(name, field, inputs[key])


def _as_before(before: Any, text: str) -> Any:
    """With the type of the value before: a text stays a text, a boolean reads true and false, else numbers are read."""
    if isinstance(before, str) and before not in _MARKS:
        return text
    if isinstance(before, bool) and text.lower() in ("true", "false"):
        return text.lower() == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return text


def _mark_image(flow: Workflow, name: str) -> None:
    loaders = [n for n, node in flow.graph.items() if node["class_type"] in ("LoadImage", "LoadImageOutput")]
    if len(loaders) != 1:
        raise SettingError(
            f"{name} has {len(loaders)} LoadImage nodes; mark the one for the reference: write {IMAGE} as its image, or "
            f"give --set '<node id>.image={IMAGE}'."
        )
    flow.graph[loaders[0]]["inputs"]["image"] = IMAGE


def _mark_seeds(flow: Workflow, name: str) -> None:
    found = False
    for node in flow.graph.values():
        for field in ("seed", "noise_seed"):
            if type(node["inputs"].get(field)) is int:
                node["inputs"][field], found = SEED, True
    if not found:
        raise SettingError(
            f"{name} has no seed input that holds a number; write {SEED} where the seed belongs."
        )
