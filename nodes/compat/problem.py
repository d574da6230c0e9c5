"""An error message for a node of a queued prompt that cannot run as it is: the host shows it before anything runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ...ipadapter_core.errors import ImagePromptError
from .inputs import CATEGORY

PROBLEM = "ImagePromptProblem"
_MOST_OUTPUTS = 8


class _Any(str):
    """A type that fits every input, on hosts of all ages."""

    def __ne__(self, other: object) -> bool:
        return False

    __hash__ = str.__hash__


class ProblemNode:
    """Stands in a prompt for a node with a problem. It never runs: the host asks VALIDATE_INPUTS first."""

    TITLE = "Image Prompt: a node that cannot run"
    DESCRIPTION = "Stands for a node of an older graph that cannot run as it was saved; the error says why."
    CATEGORY = CATEGORY
    DEPRECATED = DEV_ONLY = True
    RETURN_TYPES = tuple(_Any("*") for _ in range(_MOST_OUTPUTS))
    FUNCTION = "fail"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"problem": ("STRING", {"default": "", "multiline": True})}}

    @classmethod
    def VALIDATE_INPUTS(cls, problem: Any = None) -> str:
        return str(problem)

    def fail(self, problem: str):
        raise ImagePromptError(problem)


def refuse(node: dict[str, Any], sentence: str) -> None:
    """Replace a node of a queued prompt by its error message."""
    node["class_type"], node["inputs"] = PROBLEM, {"problem": sentence}


def problems(prompt: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """(id, message) of all nodes that were refused."""
    for node_id, node in prompt.items():
        if isinstance(node, dict) and node.get("class_type") == PROBLEM:
            yield node_id, str(node["inputs"].get("problem", ""))


CLASSES = {PROBLEM: ProblemNode}
