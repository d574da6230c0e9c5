"""Adapters under the host's memory management."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import comfy.model_management as mm
import comfy.model_patcher
import comfy.ops
import comfy.utils
import torch
from torch import Tensor

from ...ipadapter_core.adapter import Adapter, KeysValues
from ...ipadapter_core.checkpoint import Checkpoint, read_checkpoint
from ...ipadapter_core.features import Features
from ...ipadapter_core.lora import lora_tensors
from ...ipadapter_core.spec import AdapterSpec, Variant


class HostAdapter:
    """IPADAPTER: an adapter under the host's memory management. On the device only while it computes."""

    def __init__(self, checkpoint: Checkpoint, variant: Variant | None = None):
        adapter = Adapter(checkpoint, comfy.ops.manual_cast, variant)
        # looked up now, not at import: the host replaces the class at start where memory is dynamic
        patcher_class = getattr(comfy.model_patcher, "CoreModelPatcher", comfy.model_patcher.ModelPatcher)
        self.patcher = patcher_class(
            adapter, load_device=mm.get_torch_device(), offload_device=mm.unet_offload_device()
        )
        adapter.take(checkpoint)
        self.name, self.digest = adapter.name, adapter.digest
        self.lora = lora_tensors(checkpoint.ip_adapter)

    @property
    def spec(self) -> AdapterSpec:
        return self.patcher.model.spec

    def project(self, features: Features) -> Tensor:
        with on_device(self.patcher) as device:
            tokens = self.patcher.model.project(features.to(device, torch.float32))
            return tokens.to(mm.intermediate_device())

    def keys_values(self, tokens: Tensor) -> KeysValues:
        with on_device(self.patcher) as device:
            pairs = self.patcher.model.keys_values(tokens.to(device, torch.float32))
            return tuple((k.to("cpu"), v.to("cpu")) for k, v in pairs)


def load_adapter(path: str | Path, variant: Variant | None = None) -> HostAdapter:
    return HostAdapter(read_checkpoint(path), variant)


@contextmanager
def on_device(patcher: Any) -> Iterator[torch.device]:
    """Load through the host, compute, and give the memory back: sampling needs K'/V', not the adapter."""
    mm.load_models_gpu([patcher])
    try:
        yield patcher.load_device
    finally:
        if patcher.load_device != patcher.offload_device:
            others = [loaded for loaded in mm.current_loaded_models if loaded.model is not patcher]
            mm.free_memory(1e30, patcher.load_device, others)


def progress_bar(total: int) -> Any:
    """The host's progress bar of the running node; `update(n)` moves it."""
    return comfy.utils.ProgressBar(total)


def say(node_id: str | None, text: str) -> None:
    """Show a line on the running node, on hosts that can."""
    server = getattr(sys.modules.get("server"), "PromptServer", None)
    send = getattr(getattr(server, "instance", None), "send_progress_text", None)
    if send is not None and node_id is not None:
        send(text, node_id)
