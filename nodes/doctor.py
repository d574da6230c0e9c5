"""The doctor as a node: which model files are installed, which are broken, what a goal still needs."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

from .. import host
from ..doctor.download import download
from ..doctor.queue import Downloads
from ..doctor.report import Report, build
from ..doctor.text import as_text
from ..host import face_models, folders
from ..host.settings import Setting
from ..model_files.catalog import FAMILIES, catalog_row, files_for
from ..model_files.released import HUB, Intent, KnownFile
from .entry import Node
from .inputs import TOOLS

NO_GOAL = "files only"
ROUTE = "/image_prompt/downloads"  # requested by web/js/doctor.js
ALLOWED = Setting("ImagePrompt.Downloads", "IMAGE_PROMPT_DOWNLOADS", True)
REFUSED = (
    "Downloads are turned off in this ComfyUI's settings (Image Prompt, Doctor). Turn them on there, or run the doctor's "
    "command with --get."
)
log = logging.getLogger(__name__)


class ImagePromptDoctorNode(Node):
    TITLE = "Image Prompt: Doctor"
    DESCRIPTION = (
        "Looks at the files in the ipadapter, clip_vision and loras folders: what each is by its contents, which are "
        "broken and why, and what a goal still needs, with the address and the sha256."
    )
    CATEGORY = TOOLS
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
        }

    @classmethod
    def IS_CHANGED(cls, **_: Any) -> float:
        # never equal to itself: files may change without the graph
        return float("nan")

    def examine(self, goal: str, verify: bool = False, model: Any = None):
        index, searched = folders.model_index(), folders.model_folders()
        entries = index.scan(searched)
        goals, faces = _goals(goal, model), face_models.installed()
        report = build(entries, goals, index.sha256, faces, searched, verify=verify)
        text = as_text(report, long=True)
        return {"ui": {"text": [text], "report": [_for_page(report)]}, "result": (text,)}


def _goals(goal: str, model: Any) -> list[tuple[str, Intent]]:
    """(family, intent) to check: of the model's family, or of all families for which the goal exists."""
    if goal == NO_GOAL:
        return []
    intent = Intent(goal)
    if model is not None:
        return [(host.base_family(model), intent)]
    return [(family, intent) for family in FAMILIES if files_for(intent, family)]


def _for_page(report: Report) -> dict[str, Any]:
    """What web/js/doctor.js draws: the report, and of each file that a goal needs what to know before getting it."""
    needed = dict.fromkeys(name for goal in report.goals for name in goal.needs)
    files = {name: _to_get(catalog_row(name)) for name in needed}
    return {**report.as_json(), "files": files, "downloads": ALLOWED.value()}


def _to_get(known: KnownFile) -> dict[str, Any]:
    return {
        "megabytes": known.megabytes,
        "folder": known.folder,
        "licence": known.licence,
        "commercial": known.commercial,
        "page": known.page,
    }


def _fetch(known: KnownFile, models: Path, progress: Any) -> None:
    if not known.commercial:
        log.warning("Image Prompt: %s: licence %s, see %s", known.name, known.licence, known.page)
    download(known, models, progress, os.environ.get("HF_ENDPOINT") or HUB)


DOWNLOADS = Downloads(folders.models_folder, _fetch)


def answer(asked: Any) -> dict[str, Any]:
    """Start the released files of these names, none to look only. Returns the state of all, or why nothing starts."""
    names = asked if isinstance(asked, list) else []
    if names and not ALLOWED.value():
        return {"refused": REFUSED}
    DOWNLOADS.start(names)
    return {"states": DOWNLOADS.states()}
