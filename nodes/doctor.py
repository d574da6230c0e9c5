"""The doctor as a node: which model files are installed, which are broken, what a goal still needs."""

from __future__ import annotations

from typing import Any

from .. import host
from ..doctor.report import build
from ..doctor.text import as_lines, as_text
from ..host import face_models, folders
from ..model_files.catalog import FAMILIES, files_for
from ..model_files.released import Intent
from .entry import Node
from .inputs import CATEGORY

NO_GOAL = "files only"


class ImagePromptDoctorNode(Node):
    TITLE = "Image Prompt: Doctor"
    DESCRIPTION = (
        "Looks at the files in the ipadapter, clip_vision and loras folders: what each is by its contents, which are "
        "broken and why, and what a goal still needs, with the address and the sha256."
    )
    CATEGORY = CATEGORY
    SEARCH_ALIASES = [
        "doctor",
        "model check",
        "missing models",
        "ipadapter not found",
        "clip vision not found",
    ]
    RETURN_TYPES = ("STRING",)
    RETURN_NAMES = ("report",)
    OUTPUT_TOOLTIPS = ("The report, as text.",)
    OUTPUT_NODE = True
    FUNCTION = "examine"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        goals = [NO_GOAL, *(intent.value for intent in Intent)]
        tip = "What the picture is to be used for: the report says which files serve it, or what to get."
        verify = "Compare files of released names with their sha256: reads each once, seconds for every GB."
        model_tip = "The model to steer: then the goal is checked for its family only. It is not changed."
        return {
            "required": {
                "goal": (goals, {"default": NO_GOAL, "tooltip": tip}),
                "verify": ("BOOLEAN", {"default": False, "tooltip": verify}),
            },
            "optional": {"model": ("MODEL", {"tooltip": model_tip})},
            "hidden": {"node_id": "UNIQUE_ID"},
        }

    @classmethod
    def IS_CHANGED(cls, **_: Any) -> float:
        # never equal to itself: files may change without the graph
        return float("nan")

    def examine(self, goal: str, verify: bool = False, model: Any = None, node_id: str | None = None):
        index, searched = folders.model_index(), folders.model_folders()
        entries = index.scan(searched)
        goals, faces = _goals(goal, model), face_models.installed()
        report = build(entries, goals, index.sha256, faces, searched, verify=verify)
        host.show_status(node_id, as_lines(report))
        text = as_text(report, long=True)
        return {"ui": {"text": [text]}, "result": (text,)}


def _goals(goal: str, model: Any) -> list[tuple[str, Intent]]:
    """(family, intent) to check: of the model's family, or of all families for which the goal exists."""
    if goal == NO_GOAL:
        return []
    intent = Intent(goal)
    if model is not None:
        return [(host.base_family(model), intent)]
    return [(family, intent) for family in FAMILIES if files_for(intent, family)]
