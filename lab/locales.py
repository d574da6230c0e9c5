"""The English source of the page's languages: `python -m lab.locales` writes locales/en from the nodes and web/js.

ComfyUI reads locales/<language>/{nodeDefs,settings,main}.json of every pack. A language is a folder of the same files with
the same keys, and web/js/strings/<language>.json; tests/host/test_locales.py compares them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from .bootstrap import ROOT, pack_module, start_host

LOCALES, PAGE = ROOT / "locales", ROOT / "web" / "js"
OURS = "ImagePrompt"
OLDER = ("Legacy",)  # ids that stand for an older pack's are left in English, as that pack's
_SETTING = re.compile(
    r'\bid: "(ImagePrompt\.\w+)",\s*category: \[([^\]]*)\],\s*'
    r'name: "([^"]*)",\s*tooltip:\s*((?:"[^"]*"[\s+]*)+)'
)


def english() -> dict[str, dict[str, Any]]:
    """Contents by file name, of locales/en."""
    return {"nodeDefs.json": _nodes(), "settings.json": _settings(), "main.json": _menus()}


def _classes() -> dict[str, Any]:
    """This pack's own nodes by id, without those that stand for an older pack's."""
    nodes = pack_module("nodes").NODE_CLASS_MAPPINGS
    return {
        name: nodes[name]
        for name in sorted(nodes)
        if name.startswith(OURS) and not any(w in name for w in OLDER)
    }


def _nodes() -> dict[str, Any]:
    return {node_id: _node(node) for node_id, node in _classes().items()}


def _node(node: Any) -> dict[str, Any]:
    schema = node.INPUT_TYPES()
    inputs = {**schema.get("required", {}), **schema.get("optional", {})}
    found = {
        "display_name": node.TITLE,
        "description": node.DESCRIPTION,
        "inputs": {_key(name): _input(name, given) for name, given in inputs.items()},
    }
    names = getattr(node, "RETURN_NAMES", None) or node.RETURN_TYPES
    tips = getattr(node, "OUTPUT_TOOLTIPS", ("",) * len(names))
    outputs = {
        str(n): {"name": name, "tooltip": tip} for n, (name, tip) in enumerate(zip(names, tips, strict=True))
    }
    return found | ({"outputs": outputs} if outputs else {})


def _input(name: str, given: tuple[Any, ...]) -> dict[str, str]:
    options: Mapping[str, Any] = given[1] if len(given) > 1 else {}
    label = {"name": options.get("display_name", name)}
    return label | ({"tooltip": options["tooltip"]} if options.get("tooltip") else {})


def _settings() -> dict[str, Any]:
    return {
        _key(setting): {"name": name, "tooltip": "".join(re.findall(r'"([^"]*)"', tip))}
        for setting, _, name, tip in _in_scripts()
    }


def _menus() -> dict[str, Any]:
    categories = {part for node in _classes().values() for part in node.CATEGORY.split("/")}
    settings = {part for _, path, _, _ in _in_scripts() for part in re.findall(r'"([^"]*)"', path)[:2]}
    return {
        "nodeCategories": {_key(part): part for part in sorted(categories)},
        "settingsCategories": {_key(part): part for part in sorted(settings)},
    }


def _in_scripts() -> list[tuple[str, str, str, str]]:
    """(id, category, name, tooltip) of every setting in the page's scripts, as written there."""
    return [
        found
        for path in sorted(PAGE.glob("*.js"))
        for found in _SETTING.findall(path.read_text(encoding="utf-8"))
    ]


def _key(name: str) -> str:
    """As the page looks it up: a dot would begin a level."""
    return name.replace(".", "_")


def main() -> None:
    start_host()
    folder = LOCALES / "en"
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in english().items():
        text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
        (folder / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
