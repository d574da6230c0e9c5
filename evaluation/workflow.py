"""A workflow in API format with its image, text and seed inputs marked: a generator of pictures, whatever it holds."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..ipadapter_core.errors import MissingFileError, RecipeError

Graph = dict[str, dict[str, Any]]
IMAGE, TEXT, SEED = "{image}", "{text}", "{seed}"
_MARKS = (IMAGE, TEXT, SEED)


@dataclass(frozen=True)
class Workflow:
    """name: of the method. graph: as ComfyUI's 'Export (API)' writes it, with marks in the place of values."""

    name: str
    graph: Graph

    def filled(self, image: str, text: str, seed: int) -> Graph:
        """For one picture. Marks stand in texts, too: 'a photo of {text}'; {seed} stands for a number."""
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

    What is not marked by hand is found where it is plain: the only LoadImage's image, the seeds of samplers. A text is
    only marked by hand: image prompts are measured with empty text. Raises RecipeError if image or seed have no place.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise MissingFileError(f"the workflow {path} cannot be read: {error}.") from error
    graph = content.get("prompt", content) if isinstance(content, Mapping) else {}
    if (
        "nodes" in graph
        or not all(isinstance(n, Mapping) and "class_type" in n for n in graph.values())
        or not graph
    ):
        raise RecipeError(
            f"{path.name} is not in API format. Open it in ComfyUI and choose Workflow → Export (API), then take that file."
        )
    made = Workflow(path.stem, {str(number): dict(node) for number, node in graph.items()})
    for place, value in (set_values or {}).items():
        _set(made, path.name, place, value)
    if IMAGE not in made.marks:
        _mark_image(made, path.name)
    if SEED not in made.marks:
        _mark_seeds(made, path.name)
    if not any("images" in node["inputs"] for node in made.graph.values()):
        raise RecipeError(f"{path.name} saves no picture. Add a SaveImage node.")
    return made


def _set(flow: Workflow, name: str, place: str, value: Any) -> None:
    number, _, field = place.partition(".")
    if number not in flow.graph or field not in flow.graph[number]["inputs"]:
        there = ", ".join(f"{n} ({node['class_type']})" for n, node in flow.graph.items())
        raise RecipeError(
            f"{name} has no input '{place}'. Give it as 'node id.input'; the nodes are {there}."
        )
    flow.graph[number]["inputs"][field] = value


def _mark_image(flow: Workflow, name: str) -> None:
    places = [n for n, node in flow.graph.items() if node["class_type"] in ("LoadImage", "LoadImageOutput")]
    if len(places) != 1:
        raise RecipeError(
            f"{name} has {len(places)} LoadImage nodes; mark the one for the reference: write {IMAGE} as its image, or "
            f"give --set '<node id>.image={IMAGE}'."
        )
    flow.graph[places[0]]["inputs"]["image"] = IMAGE


def _mark_seeds(flow: Workflow, name: str) -> None:
    found = False
    for node in flow.graph.values():
        for field in ("seed", "noise_seed"):
            if isinstance(node["inputs"].get(field), int):
                node["inputs"][field], found = SEED, True
    if not found:
        raise RecipeError(
            f"{name} has no seed input that holds a number; write {SEED} where the seed belongs."
        )
