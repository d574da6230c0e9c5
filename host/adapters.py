"""Adapters under the host's memory management."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import comfy.model_management as mm
import comfy.model_patcher
import comfy.ops
import comfy.utils
import torch
from torch import Tensor, nn

from ..ipadapter_core.adapter import Adapter, KeysValues
from ..ipadapter_core.checkpoint import Checkpoint, read_checkpoint
from ..ipadapter_core.features import Features
from ..ipadapter_core.lora import lora_tensors
from ..ipadapter_core.spec import AdapterSpec, Variant
from ..ipadapter_core.values import require_finite

# What other packs' loaders write beside the tensors where keys do not decide the variant.
FLAGS = {Variant.FACEID_PLUS_V2: "faceidplusv2", Variant.FACEID_PORTRAIT_UNNORM: "portraitunnorm"}
_ROLES = ("image_proj", "ip_adapter")


class HostAdapter(Mapping[str, Any]):
    """IPADAPTER: an adapter under the host's memory management. On the device only while it computes.

    To other packs it reads as the dict that they pass around: 'image_proj' and 'ip_adapter' with the tensors, shared
    and not copied, and the flag of its variant, if it has one.
    """

    def __init__(self, checkpoint: Checkpoint, variant: Variant | None = None):
        adapter = Adapter(checkpoint, comfy.ops.manual_cast, variant)
        # looked up here, not at import: hosts with dynamic memory replace the class at start
        patcher_class = getattr(comfy.model_patcher, "CoreModelPatcher", comfy.model_patcher.ModelPatcher)
        self.patcher = patcher_class(
            adapter, load_device=mm.get_torch_device(), offload_device=mm.unet_offload_device()
        )
        adapter.load_checkpoint(checkpoint)
        self.name, self.digest = adapter.name, adapter.digest
        self.lora = lora_tensors(checkpoint.ip_adapter)

    @property
    def spec(self) -> AdapterSpec:
        return self.patcher.model.spec

    def project(self, features: Features) -> Tensor:
        if self.spec.entry.timed:  # the features themselves: nothing to compute
            return self.patcher.model.project(features)
        with on_device(self.patcher) as device:
            tokens = self.patcher.model.project(features.to(device, torch.float32))
            tokens = tokens.to(mm.intermediate_device())
        require_finite(tokens, f"what {self.name} makes of the picture", what="tokens")
        return tokens

    def keys_values(self, tokens: Tensor) -> KeysValues:
        with on_device(self.patcher) as device:
            pairs = self.patcher.model.keys_values(tokens.to(device, torch.float32))
            return tuple((k.to("cpu"), v.to("cpu")) for k, v in pairs)

    def keys_values_at(self, features: Tensor, timestep: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """In the middle of sampling, for which the host has loaded the adapter beside the model."""
        return self.patcher.model.keys_values_at(features, timestep, dtype)

    def query_key_norms(self) -> tuple[Tensor, Tensor]:
        return self.patcher.model.query_key_norms()

    # --- as other packs read it: a dict, but two are equal only if they are one object ---

    def __eq__(self, other: object) -> bool:
        return object.__eq__(self, other)

    def __hash__(self) -> int:
        return object.__hash__(self)

    def __getitem__(self, key: str) -> Any:
        if key in _ROLES:
            return self._tensors(f"{key}.") | (self.lora if key == "ip_adapter" else {})
        if key == FLAGS.get(self.spec.variant):
            return True
        raise KeyError(key)

    def __iter__(self) -> Iterator[str]:
        flag = FLAGS.get(self.spec.variant)
        return iter((*_ROLES, flag) if flag else _ROLES)

    def __len__(self) -> int:
        return len(tuple(iter(self)))

    def _tensors(self, prefix: str) -> dict[str, Tensor]:
        tensors = self.patcher.model.tensors()
        return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}


def load_adapter(path: str | Path, variant: Variant | None = None) -> HostAdapter:
    """variant: where the keys allow several. Raises CheckpointError or UnknownAdapterError."""
    return HostAdapter(read_checkpoint(path), variant)


@contextmanager
def on_device(patcher: Any) -> Iterator[torch.device]:
    """Load through the host for the block, then free the memory: sampling needs K'/V', not the adapter."""
    mm.load_models_gpu([patcher])
    try:
        yield patcher.load_device
    finally:
        offload(patcher)


def patcher_over(module: nn.Module) -> Any:
    """For `on_device`: a module of another library, on the CPU now, under the host's memory management."""
    # the host sets attributes that others have as properties
    holder = nn.ModuleDict({"module": module})
    return comfy.model_patcher.ModelPatcher(holder, mm.get_torch_device(), torch.device("cpu"))


def offload(patcher: Any) -> None:
    """Free the device of this patcher's model, through the host."""
    if patcher.load_device != patcher.offload_device:
        others = [loaded for loaded in mm.current_loaded_models if not _is_of(loaded.model, patcher.model)]
        mm.free_memory(1e30, patcher.load_device, others)


def _is_of(patcher: Any, model: nn.Module) -> bool:
    """Whether it is a patcher over this model; none where it was forgotten by now."""
    return patcher is not None and patcher.model is model


def progress_bar(total: int) -> Any:
    """The host's progress bar of the running node; `update(n)` moves it."""
    return comfy.utils.ProgressBar(total)


def show_status(node_id: str | None, text: str) -> None:
    """Show a line on the running node, on hosts that can."""
    server = getattr(sys.modules.get("server"), "PromptServer", None)
    send = getattr(getattr(server, "instance", None), "send_progress_text", None)
    if send is not None and node_id is not None:
        send(text, node_id)
