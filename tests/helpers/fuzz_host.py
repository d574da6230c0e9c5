"""One node in a graph, through the host's own validation and executor; where it has none (the wheel), called as it calls."""

from __future__ import annotations

import asyncio
import importlib.util
import math
import sys
import traceback
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from image_prompt.ipadapter_core.errors import ImagePromptError
from image_prompt.ipadapter_core.prompt import ImagePrompt
from image_prompt.nodes import NODE_CLASS_MAPPINGS as OURS
from support import tiny
from torch import Tensor

import nodes as host_nodes

OWN_ERRORS = {kind.__name__ for kind in (ImagePromptError, *ImagePromptError.__subclasses__())}


class _Any(str):
    def __ne__(self, other: object) -> bool:
        return False

    __eq__, __hash__ = str.__eq__, str.__hash__


ANY = _Any("*")


class NonFinite(Exception):
    """A result with NaN or infinity."""


class Source:
    """Gives a value of the case by its number."""

    RETURN_TYPES, FUNCTION, CATEGORY = (ANY,), "give", "fuzz"
    values: list[Any] = []

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"number": ("INT", {"default": 0, "min": 0, "max": 100})}}

    @classmethod
    def IS_CHANGED(cls, **_):
        return math.nan

    def give(self, number: int):
        return (self.values[number],)


class Sink:
    """Looks at every result, and runs a model for a step."""

    RETURN_TYPES, FUNCTION, CATEGORY, OUTPUT_NODE = (), "take", "fuzz", True

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {}, "optional": {f"value{n}": (ANY,) for n in range(8)}}

    def take(self, **values: Any):
        for value in values.values():
            look_at(value)
        return {}


def look_at(value: Any) -> None:
    if isinstance(value, Tensor):
        if value.is_floating_point() and not bool(value.isfinite().all()):
            raise NonFinite(f"a tensor of shape {tuple(value.shape)}")
    elif isinstance(value, ImagePrompt):
        look_at([value.cond, value.uncond, value.value_scale])
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise NonFinite("a number")
    elif isinstance(value, list | tuple):
        for each in value[:100]:
            look_at(each)
    elif hasattr(value, "get_model_object"):
        look_at(tiny.run_unet(value, tiny.SD15, pictures=2, size=(8, 8)))


@dataclass(frozen=True)
class Outcome:
    """error: None, or a line. own: whether it is a sentence of ours or a refusal by the host."""

    error: str | None
    own: bool = True


def run(node_id: str, given: dict[str, Any], linked: set[str]) -> Outcome:
    """given: values by input. linked: those that come from another node; the others stand in widgets."""
    if importlib.util.find_spec("execution") is None:
        return _called(node_id, given)
    return _executed(node_id, given, linked)


def _called(node_id: str, given: dict[str, Any]) -> Outcome:
    node = OURS[node_id]()
    try:
        with torch.inference_mode():
            look_at(_results(getattr(node, node.FUNCTION)(**_as_lists(node, given))))
    except ImagePromptError as error:
        return Outcome(str(error))
    except Exception:
        return Outcome(traceback.format_exc(), own=False)
    return Outcome(None)


def _as_lists(node: Any, given: dict[str, Any]) -> dict[str, Any]:
    return {k: [v] for k, v in given.items()} if getattr(node, "INPUT_IS_LIST", False) else given


def _results(returned: Any) -> Any:
    return returned.get("result", ()) if isinstance(returned, dict) else returned


def _executed(node_id: str, given: dict[str, Any], linked: set[str]) -> Outcome:
    prompt, Source.values = _graph(node_id, given, linked)
    execution, executor = _executor()
    valid = asyncio.run(execution.validate_prompt("fuzz", prompt, None))
    if not valid[0]:
        raw = "exception_during" in str(valid[3])
        return Outcome(f"refused by the host: {valid[1]} {valid[3]}", own=not raw)
    executor.reset()
    executor.execute(prompt, "fuzz", {}, valid[2])
    errors = [data for event, data in executor.status_messages if event == "execution_error"]
    if not errors:
        return Outcome(None)
    error = errors[0]
    text = f"{error['node_type']}: {error['exception_type']}: {error['exception_message']}"
    own = error["exception_type"] in OWN_ERRORS
    return Outcome(text if own else text + "".join(error["traceback"]), own)


def _graph(node_id: str, given: dict[str, Any], linked: set[str]) -> tuple[dict[str, Any], list[Any]]:
    values = [given[name] for name in sorted(linked)]
    links = {name: [f"s{n}", 0] for n, name in enumerate(sorted(linked))}
    prompt: dict[str, Any] = {
        f"s{n}": {"class_type": "FuzzSource", "inputs": {"number": n}} for n in range(len(values))
    }
    prompt["node"] = {"class_type": node_id, "inputs": {**given, **links}}
    outputs = range(len(OURS[node_id].RETURN_TYPES))
    prompt["sink"] = {"class_type": "FuzzSink", "inputs": {f"value{n}": ["node", n] for n in outputs}}
    return prompt, values


def _executor() -> tuple[Any, Any]:
    import execution

    if "FuzzSource" not in host_nodes.NODE_CLASS_MAPPINGS:
        host_nodes.NODE_CLASS_MAPPINGS.update({**OURS, "FuzzSource": Source, "FuzzSink": Sink})
        server = SimpleNamespace(
            client_id=None, last_node_id=None, last_prompt_id=None, send_sync=lambda *_, **__: None
        )
        options = {"cache_args": {"ram": 0, "ram_inactive": 0, "lru": 0}} if _takes_args(execution) else {}
        _executor.made = execution.PromptExecutor(server, **options)
    return sys.modules["execution"], _executor.made


def _takes_args(execution: Any) -> bool:
    import inspect

    return "cache_args" in inspect.signature(execution.PromptExecutor.__init__).parameters
