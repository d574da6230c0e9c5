"""The running ComfyUI server, where there is one: which nodes are loaded, prompts as they come in, replacements."""

from __future__ import annotations

import asyncio
import importlib
import logging
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

# By node id: class_type, inputs.
Prompt = dict[str, dict[str, Any]]
log = logging.getLogger(__name__)
_working: ContextVar[str] = ContextVar("image_prompt_node", default="")


def loaded_nodes() -> Mapping[str, type]:
    """All node classes that the host has loaded so far, by id, of any pack. Empty without a host."""
    return getattr(sys.modules.get("nodes"), "NODE_CLASS_MAPPINGS", {})


def running_node() -> str:
    """Id of the node that the host runs at this moment; '' where it does not say."""
    context = getattr(sys.modules.get("comfy_execution.utils"), "get_executing_context", lambda: None)()
    return str(getattr(context, "node_id", ""))


@contextmanager
def working(title: str) -> Iterator[None]:
    """While a node of this title does its work: what it makes can say later whose it is."""
    number = running_node()
    token = _working.set(f"{title} #{number}" if number else title)
    try:
        yield
    finally:
        _working.reset(token)


def working_node() -> str:
    """Our node that does its work at this moment, as 'title #id'; '' for none."""
    return _working.get()


def on_prompt(change: Callable[[Prompt], None]) -> bool:
    """Call `change` with every queued prompt before the host checks it. Returns whether the host can."""
    add = getattr(_server(), "add_on_prompt_handler", None)
    if add is None:
        return False

    def handle(data: dict[str, Any]) -> dict[str, Any]:
        try:
            change(data.get("prompt") or {})
        # whatever a prompt holds, the host's own check and error come next
        except Exception:
            log.warning("Image Prompt: a queued prompt could not be read", exc_info=True)
        return data

    add(handle)
    return True


def answer_page(path: str, answer: Callable[[Any], Any]) -> bool:
    """Let the page POST JSON to `path`: `answer` makes the reply, off the server's own thread. Returns whether it can."""
    routes = getattr(_server(), "routes", None)
    if routes is None:
        return False
    from aiohttp import web

    async def handle(request: web.Request) -> web.Response:
        return web.json_response(await asyncio.to_thread(answer, await request.json()))

    routes.post(path)(handle)
    return True


def offer_replacement(old_id: str, new_id: str, inputs: Mapping[str, str], widgets: Sequence[str]) -> bool:
    """Offer `new_id` where `old_id` is missing, on hosts that can; first output for first output.

    inputs: new by old name; all must be required ones of the old node, since the host fails where one is absent.
    widgets: the old node's, in the order of a workflow file. Returns whether it was offered.
    """
    manager = getattr(_server(), "node_replace_manager", None)
    if manager is None:
        return False
    try:
        io = importlib.import_module("comfy_api.latest").io
        mapping = [{"new_id": new, "old_id": old} for old, new in inputs.items()]
        outputs = [{"new_idx": 0, "old_idx": 0}]
        manager.register(io.NodeReplace(new_id, old_id, [*widgets], mapping, outputs))
    # a new interface that still changes; the nodes must load all the same
    except Exception:
        log.info("Image Prompt: this host takes no node replacements", exc_info=True)
        return False
    return True


def _server() -> Any:
    return getattr(getattr(sys.modules.get("server"), "PromptServer", None), "instance", None)
