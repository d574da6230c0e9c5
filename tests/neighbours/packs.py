"""Other packs, loaded by the host's own loader from NEIGHBOURS_PATH or CLIENTS_PATH: nothing of them is here."""

from __future__ import annotations

import asyncio
import importlib
import inspect
import os
import sys
import tempfile
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import nodes as host_nodes

VARIABLES = ("NEIGHBOURS_PATH", "CLIENTS_PATH")

# Names that a pack imports and this host has no longer, for model families that this tier does not run.
_LOST_NAMES = {
    "comfy.ldm.chroma.layers": ("DoubleStreamBlock", "SingleStreamBlock"),
    "comfy.ldm.cosmos.predict2": ("apply_rotary_pos_emb",),
}


def folder() -> Path:
    """Raises RuntimeError where neither is set: a comparison with nothing is no test."""
    named = next((os.environ[name] for name in VARIABLES if os.environ.get(name)), None)
    if not named or not Path(named).is_dir():
        raise RuntimeError(
            f"set {' or '.join(VARIABLES)} to a folder with checkouts of the packs, and COMFYUI_PATH to a host"
        )
    return Path(named).absolute()


def installed(pack: str) -> bool:
    return (folder() / pack).is_dir()


@cache
def load(pack: str) -> None:
    """Its node classes into the host's table. Raises RuntimeError where the host cannot load it."""
    _prepare()
    running = os.environ.pop("PYTEST_CURRENT_TEST", None)  # prompt-control has no nodes where it sees this
    done = _awaited(host_nodes.load_custom_node(str(_custom_nodes() / pack)))
    if running is not None:
        os.environ["PYTEST_CURRENT_TEST"] = running
    if not done:
        raise RuntimeError(f"this host cannot load {pack}")


@lru_cache(maxsize=1)
def _prepare() -> None:
    """What a running host has and this process has not: a server, and names that packs expect."""
    if not hasattr(sys.modules.get("utils"), "__path__"):
        # older hosts put their folder `comfy` first, whose module utils hides their package of that name
        sys.modules.pop("utils", None)
        sys.path.insert(0, str(Path(host_nodes.__file__).parent))
    server = importlib.import_module("server")
    if getattr(server.PromptServer, "instance", None) is None:
        server.PromptServer(asyncio.new_event_loop())
    for module_name, names in _LOST_NAMES.items():
        module = importlib.import_module(module_name)
        for name in names:
            if getattr(module, name, None) is None:
                setattr(module, name, type(name, (), {}))


@lru_cache(maxsize=1)
def _custom_nodes() -> Path:
    """The packs under the name `custom_nodes`, by which some import their own modules."""
    place = Path(tempfile.mkdtemp(prefix="neighbours_")) / "custom_nodes"
    place.symlink_to(folder())
    sys.path.append(str(place.parent))
    return place


def node(pack: str, node_id: str, **inputs: Any) -> tuple[Any, ...]:
    """The outputs of one of its nodes, called as the host does, its menu defaults filled in."""
    load(pack)
    return core(node_id, **inputs)


def core(node_id: str, **inputs: Any) -> tuple[Any, ...]:
    """The same for a node that the host has in its table."""
    cls = host_nodes.NODE_CLASS_MAPPINGS[node_id]
    given = _defaults(cls) | inputs
    function = getattr(cls if hasattr(cls, "define_schema") else cls(), cls.FUNCTION)
    out = _awaited(function(**given))
    return tuple(getattr(out, "result", None) or (out if isinstance(out, tuple) else out["result"]))


def _awaited(value: Any) -> Any:
    return asyncio.run(value) if inspect.iscoroutine(value) else value


def extra(module_name: str) -> None:
    """The nodes of one of the host's own extra modules into its table."""
    module = importlib.import_module(f"comfy_extras.{module_name}")
    for node_id, cls in getattr(module, "NODE_CLASS_MAPPINGS", {}).items():
        host_nodes.NODE_CLASS_MAPPINGS.setdefault(node_id, cls)
    if hasattr(module, "comfy_entrypoint"):
        extension = _awaited(module.comfy_entrypoint())
        for cls in asyncio.run(extension.get_node_list()):
            host_nodes.NODE_CLASS_MAPPINGS.setdefault(cls.GET_SCHEMA().node_id, cls)


def _defaults(cls: Any) -> dict[str, Any]:
    found = {}
    for name, declared in cls.INPUT_TYPES().get("required", {}).items():
        options = declared[1] if len(declared) > 1 else {}
        if "default" in options:
            found[name] = options["default"]
            continue
        choices = options.get("options") if declared[0] == "COMBO" else declared[0]
        if isinstance(choices, (list, tuple)) and choices:
            found[name] = choices[0]
    return found
