"""Subgraph blueprints (subgraphs/*.json) as files; no ComfyUI."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bootstrap import ROOT

BLUEPRINTS = sorted((ROOT / "subgraphs").glob("*.json"))


def document(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


def subgraph(path: Path) -> dict[str, Any]:
    (found,) = document(path)["definitions"]["subgraphs"]
    return found
