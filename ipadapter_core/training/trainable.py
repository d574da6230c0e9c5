"""The adapter that is trained: new, from the model's own text attention, or loaded from a file."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from ..adapter import Adapter, KeysValues, TimedKeysValues
from ..checkpoint import Checkpoint
from ..errors import MismatchError
from ..families.family import Family
from ..families.matching import match_sites
from ..families.site import Site
from ..families.table import family_of
from ..features import Features
from ..joint_pairs import JointPairs
from ..lora import lora_tensors
from ..projections.faceid import FaceIDProjection
from ..projections.linear import FullProjection, ImageProjection
from ..projections.resampler import Resampler
from ..spec import AdapterSpec, Feature, Variant
from ..variants import detect
from .config import TrainingConfig
from .kinds import token_count
from .lora import TrainableLora
from .starts import perceiver_sizes, start_on_transformer

log = logging.getLogger(__name__)
# of the roles, in the module's state_dict
_PREFIXES = ("image_proj.", "ip_adapter.")


class TrainableAdapter(nn.Module):
    """An adapter with gradients, and the LoRA that is trained with it. Its forward returns K' and V' of every site, so that
    one call uses all parameters; those of the LoRA are used by the UNet that it is attached to.

    timed: whether K' and V' follow from the timestep too.
    """

    def __init__(self, adapter: Adapter, lora: TrainableLora | None = None):
        super().__init__()
        self.adapter = adapter.requires_grad_(True)
        self.lora = lora
        self.timed = adapter.spec.entry.timed

    def forward(self, features: Tensor, timesteps: Tensor | None = None) -> KeysValues | TimedKeysValues:
        """features (n, width) or (n, encoder tokens, width) -> per site K', V' (n, tokens, width), file order.

        In fp32 whatever the UNet computes in: it costs little, and these are the weights that are trained. timesteps (n): of
        an adapter that is timed.
        """
        with torch.autocast(features.device.type, enabled=False):
            return self._pairs(features) if timesteps is None else self._timed_pairs(features, timesteps)

    def _timed_pairs(self, features: Tensor, timesteps: Tensor) -> TimedKeysValues:
        tokens, time = self.adapter.image_proj(features, timesteps)
        pairs = cast("JointPairs", self.adapter.ip_adapter)
        return TimedKeysValues(*pairs.keys_values(tokens, time, torch.float32), *pairs.norms())

    def _pairs(self, features: Tensor) -> KeysValues:
        adapter = self.adapter
        face = adapter.spec.feature is Feature.NONE
        given = Features(None, features) if face else Features(features)
        tokens = adapter.image_proj.tokens_of(given)
        return tuple((site.to_k_ip(tokens), site.to_v_ip(tokens)) for site in adapter.matrices())

    @property
    def parameter_count(self) -> int:
        return sum(parameter.numel() for parameter in self.parameters())

    def checkpoint(self, name: str) -> Checkpoint:
        """A copy of the weights in the released layout, fp32 on the CPU."""
        state = self.adapter.tensors()
        if self.lora is not None:
            state |= {f"ip_adapter.{key}": tensor for key, tensor in self.lora.state_dict().items()}
        return to_checkpoint(name, state)


def to_checkpoint(name: str, state: dict[str, Tensor]) -> Checkpoint:
    """From tensors of an Adapter, keys prefixed with the role."""
    tensors = {key: tensor.detach().to("cpu", torch.float32, copy=True) for key, tensor in state.items()}
    parts = ({k.removeprefix(p): t for k, t in tensors.items() if k.startswith(p)} for p in _PREFIXES)
    return Checkpoint(name, *parts)


def new_trainable(
    config: TrainingConfig, network: nn.Module, sites: Sequence[Site], feature_width: int
) -> TrainableAdapter:
    """W'k and W'v are the model's own Wk and Wv of text (eq. 4), or for a transformer of released adapters as their authors
    start them; the projection starts at random by the recipe's seed."""
    family = family_of(sites)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        if family.architecture.text_matrices is None:
            parts = start_on_transformer(config, network, sites, feature_width)
        else:
            pairs = _text_matrices(network, sites)
            token_width = next(iter(pairs.values())).shape[1]
            parts = _projection(config, feature_width, token_width, family).state_dict(), pairs
    file = Checkpoint(f"new {config.kind.value} adapter", *parts)
    lora = TrainableLora(config, sites) if config.rank else None
    return TrainableAdapter(Adapter(file, variant=config.kind).load_checkpoint(file), lora)


def _text_matrices(network: nn.Module, sites: Sequence[Site]) -> dict[str, Tensor]:
    """Copies, by the keys of a file."""
    architecture, made = family_of(sites).architecture, dict[str, Tensor]()
    assert architecture.text_matrices is not None
    for number, site in enumerate(sites):
        for role, weight in zip("kv", architecture.text_matrices(network, site), strict=True):
            name = f"{architecture.file_prefix}{architecture.file_number(number)}"
            made[f"{name}.to_{role}_ip.weight"] = weight.contiguous()
    return made


def trainable_from(file: Checkpoint, config: TrainingConfig, sites: tuple[Site, ...]) -> TrainableAdapter:
    """Start from an adapter file; tokens that it lacks start new, those that are too many are left out, with a warning.

    Raises MismatchError if its kind, size or family are not those of the config.
    """
    spec, wanted = detect(file.shapes, file.name), token_count(config, family_of(sites))
    if spec.variant is not config.kind or (spec.tokens is None) != (wanted is None):
        count = "" if wanted is None else f" with {wanted}"
        raise MismatchError(
            f"{file.name} is a {spec.variant.value} adapter of {spec.tokens or 'all'} tokens, but the settings train "
            f"{config.kind.value}{count}. Set kind and tokens to those of the file, or start a new one."
        )
    match_sites(spec, file.name, sites)
    projection = {key: _copy(tensor) for key, tensor in file.image_proj.items()}
    if spec.tokens != wanted:
        log.warning(
            "Image Prompt: %s has %s tokens, and %s are trained: the first are its own, any others start new",
            *(file.name, spec.tokens, wanted),
        )
        projection |= _with_tokens(projection, spec, config.seed, wanted or 0)
    matrices = {key: _copy(tensor) for key, tensor in file.ip_adapter.items() if "_lora." not in key}
    copied = Checkpoint(file.name, projection, matrices)
    adapter = Adapter(copied, variant=config.kind).load_checkpoint(copied)
    return TrainableAdapter(adapter, _lora_from(file, config, sites))


def _lora_from(file: Checkpoint, config: TrainingConfig, sites: Sequence[Site]) -> TrainableLora | None:
    """The file's LoRA, or a new one where it has none; none where none is trained."""
    tensors = lora_tensors(file.ip_adapter)
    if not config.rank:
        if tensors:
            log.warning("Image Prompt: lora_rank is 0: the LoRA of %s is left out", file.name)
        return None
    lora = TrainableLora(config, sites)
    if not tensors:
        log.warning("Image Prompt: %s has no LoRA, so that it starts new", file.name)
        return lora
    wanted = {key: tuple(tensor.shape) for key, tensor in lora.state_dict().items()}
    if wanted != {key: tuple(tensor.shape) for key, tensor in tensors.items()}:
        ranks = sorted({tensor.shape[0] for key, tensor in tensors.items() if ".down." in key})
        raise MismatchError(
            f"{file.name} has a LoRA of rank {', '.join(map(str, ranks))} in {len(tensors)} tensors, and one of rank "
            f"{config.rank} in {len(wanted)} is trained. Set lora_rank to that of the file, or to 0 to train none."
        )
    lora.load_state_dict({key: _copy(tensor) for key, tensor in tensors.items()})
    return lora


# what decides the number of tokens: queries of the resampler, else the last linear layer
_TOKENS = ("latents", "proj.weight", "proj.bias", "proj.2.weight", "proj.2.bias")


def _with_tokens(projection: dict[str, Tensor], spec: AdapterSpec, seed: int, rows: int) -> dict[str, Tensor]:
    """The tensors that decide the number of tokens, cut or continued as a new network starts."""
    changed: dict[str, Tensor] = {}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for key in (key for key in _TOKENS if key in projection):
            old = projection[key]
            side = 1 if key == "latents" else 0
            per_token = old.shape[side] // (spec.tokens or 1)
            missing = max(0, rows - (spec.tokens or 0)) * per_token
            shape = [missing if n == side else length for n, length in enumerate(old.shape)]
            new = torch.randn(shape) * old.std()
            changed[key] = torch.cat((old, new), side).narrow(side, 0, rows * per_token).contiguous()
    return changed


def _copy(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu", torch.float32, copy=True)


def _projection(config: TrainingConfig, feature_width: int, context_width: int, family: Family) -> nn.Module:
    """Sized as in the published code (init_proj of ip_adapter.py and ip_adapter_faceid.py)."""
    tokens = config.token_count or 0
    if config.kind is Variant.BASE:
        return ImageProjection(feature_width, tokens, context_width)
    if config.kind is Variant.FULL:
        return FullProjection(feature_width, feature_width, context_width)
    if config.kind is Variant.FACEID:
        return FaceIDProjection(feature_width, 2 * feature_width, tokens, context_width)
    width = family.resampler_width or context_width
    sizes = perceiver_sizes(feature_width, width, context_width)
    resampler = Resampler(sizes, tokens)
    nn.init.normal_(resampler.latents, std=width**-0.5)
    return resampler
