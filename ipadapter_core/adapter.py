"""An adapter as a module: its spec, its projection, and the K'/V' matrices of every site."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn

from .checkpoint import Checkpoint, read_checkpoint
from .errors import CheckpointError, MismatchError, shown
from .features import Features
from .joint_pairs import JointPairs, stacked
from .spec import AdapterSpec, Variant
from .values import broken_tensor
from .variants import detect

KeysValues = tuple[tuple[Tensor, Tensor], ...]


class TokenSource(Protocol):
    """What a prompt needs of an adapter: an `Adapter` itself, or an object that first brings one to its device."""

    name: str
    digest: str

    @property
    def spec(self) -> AdapterSpec: ...
    def project(self, features: Features) -> Tensor: ...
    def keys_values(self, tokens: Tensor) -> KeysValues: ...
    def keys_values_at(
        self, features: Tensor, timestep: Tensor, dtype: torch.dtype
    ) -> tuple[Tensor, Tensor]: ...
    def query_key_norms(self) -> tuple[Tensor, Tensor]: ...


class SiteMatrices(nn.Module):
    """W'k and W'v of one cross-attention (eq. 4); adapters for transformers may have a bias."""

    def __init__(
        self, context_width: int, width: int, operations: Any = nn, bias: bool = False, **placement: Any
    ):
        super().__init__()
        self.to_k_ip = operations.Linear(context_width, width, bias=bias, **placement)
        self.to_v_ip = operations.Linear(context_width, width, bias=bias, **placement)


class Adapter(nn.Module):
    """An IP-Adapter as a module. Its state_dict has the keys of the released flat layout."""

    def __init__(self, checkpoint: Checkpoint, operations: Any = nn, variant: Variant | None = None):
        """The module on the meta device, which `load_checkpoint` fills. operations: torch.nn or the host's drop-in.

        variant: which of those that the keys allow, where they allow several. Raises UnknownAdapterError or SettingError.
        """
        super().__init__()
        self.name = checkpoint.name
        self.spec = detect(checkpoint.shapes, checkpoint.name, variant)
        self.digest = digest(checkpoint, self.spec.site_names[0])
        dtype = next(iter(checkpoint.ip_adapter.values())).dtype
        placement = {"device": torch.device("meta"), "dtype": dtype}
        proj_shapes = {key: tuple(tensor.shape) for key, tensor in checkpoint.image_proj.items()}
        self.image_proj = self.spec.projection.from_shapes(proj_shapes, operations, **placement)
        self.ip_adapter: nn.ModuleDict | JointPairs = self._pairs(checkpoint, operations, placement)

    def _pairs(
        self, checkpoint: Checkpoint, operations: Any, placement: Mapping[str, Any]
    ) -> nn.ModuleDict | JointPairs:
        spec = self.spec
        if spec.entry.timed:
            prefix = f"{spec.site_keys[0]}."
            shapes = {
                key[len(prefix) :]: tuple(tensor.shape)
                for key, tensor in checkpoint.ip_adapter.items()
                if key.startswith(prefix)
            }
            return JointPairs(shapes, len(spec.site_keys), self.name, **placement)
        return nn.ModuleDict(
            {
                name: SiteMatrices(spec.context_width, width, operations, spec.bias, **placement)
                for name, width in zip(spec.site_names, spec.site_widths, strict=True)
            }
        )

    def load_checkpoint(self, checkpoint: Checkpoint) -> Adapter:
        """Use the checkpoint's tensors: without a copy, but where those of all sites stand in one.

        Raises CheckpointError that names what does not fit.
        """
        try:
            missing, _ = self.load_state_dict(self._state(checkpoint), strict=False, assign=True)
        except RuntimeError as error:
            first = shown(str(error).splitlines()[1].strip(" \t.") if "\n" in str(error) else str(error))
            raise CheckpointError(
                f"{shown(self.name)}: a tensor has an unexpected shape ({first}). Download the file again."
            ) from error
        if missing:
            raise CheckpointError(
                f"{shown(self.name)}: {len(missing)} tensors are missing: {', '.join(missing[:4])}. Download the file again."
            )
        broken = broken_tensor(self.state_dict().items())
        if broken:
            raise CheckpointError(
                f"{self.name}: the tensor '{broken}' holds numbers that are not finite (NaN or infinity). Download the file "
                "again; if you trained it, its training went wrong."
            )
        return self.requires_grad_(False)

    def _state(self, checkpoint: Checkpoint) -> dict[str, Tensor]:
        if not isinstance(self.ip_adapter, JointPairs):
            return checkpoint.state_dict()
        pairs = stacked(checkpoint.ip_adapter, self.spec.site_keys, self.name)
        return Checkpoint(self.name, checkpoint.image_proj, pairs).state_dict()

    def tensors(self) -> dict[str, Tensor]:
        """By the keys of the released flat layout, shared and not copied."""
        state = self.state_dict()
        if isinstance(self.ip_adapter, JointPairs):
            state = {key: tensor for key, tensor in state.items() if key.startswith("image_proj.")}
            of_sites = self.ip_adapter.by_site(self.spec.site_keys)
            state |= {f"ip_adapter.{key}": tensor for key, tensor in of_sites.items()}
        return state

    @torch.no_grad()
    def project(self, features: Features) -> Tensor:
        """Image tokens c_i (n, tokens, token_width) of n pictures, from features on its device and in its dtype.

        Raises MismatchError if a feature that it reads is missing.
        """
        return self.image_proj.tokens_of(features)

    @torch.no_grad()
    def keys_values(self, tokens: Tensor) -> KeysValues:
        """K' = c_i W'k and V' = c_i W'v (eq. 4) of tokens (n, t, context_width): per site (n, t, width), in file order."""
        return tuple((site.to_k_ip(tokens), site.to_v_ip(tokens)) for site in self.matrices())

    def matrices(self) -> tuple[SiteMatrices, ...]:
        """Of every site in file order. Raises MismatchError for an adapter that is timed."""
        if isinstance(self.ip_adapter, JointPairs):
            raise MismatchError(
                f"{self.name}: the K' and V' of an adapter for {self.spec.family} follow from the timestep, so they are not "
                "known before sampling. Ask for those of a timestep (keys_values_at)."
            )
        return tuple(cast("SiteMatrices", self.ip_adapter[name]) for name in self.spec.site_names)

    @torch.no_grad()
    def keys_values_at(self, features: Tensor, timestep: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """K' and V' (sites, n, tokens, width) of n pictures at a timestep (1) in 0..1000, of an adapter that is timed.

        features (n, encoder tokens, width), as `project` gives them back. dtype: of the matrix products over all sites.
        """
        tokens, time = self.image_proj(features, timestep)
        return cast("JointPairs", self.ip_adapter).keys_values(tokens, time, dtype)

    def query_key_norms(self) -> tuple[Tensor, Tensor]:
        """Scales (sites, head dimension) of q and of the picture's own keys, of an adapter that is timed."""
        return cast("JointPairs", self.ip_adapter).norms()


def load_adapter(path: str | Path, variant: Variant | None = None) -> Adapter:
    """The adapter of a file, ready to compute: on the CPU, in fp32 whatever the file's dtype.

    variant: which one it is, where its tensors allow several (`Adapter.spec` says which one was taken). Raises
    MissingFileError, CheckpointError for a damaged file, UnknownAdapterError for one of another method, SettingError
    for a variant that it cannot be.
    """
    checkpoint = read_checkpoint(path)
    return Adapter(checkpoint, variant=variant).load_checkpoint(checkpoint).float()


def digest(checkpoint: Checkpoint, site: str) -> str:
    """Sixteen hex digits that differ between adapters, and not between containers of one. Raises CheckpointError.

    A hash over one site's matrices and the projection's biases and norms, not over hundreds of megabytes.
    """
    matrices = [checkpoint.ip_adapter[f"{site}.to_{role}_ip.weight"] for role in "kv"]
    vectors = [tensor for _, tensor in sorted(checkpoint.image_proj.items()) if tensor.ndim == 1]
    if any(tensor.is_meta for tensor in checkpoint.state_dict().values()):
        raise CheckpointError(
            f"{shown(checkpoint.name)}: its tensors are on the meta device, without numbers. Load them first."
        )
    state = hashlib.sha256()
    for tensor in matrices + vectors:
        state.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return state.hexdigest()[:16]
