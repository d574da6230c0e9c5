"""What is measured: base models in their full sizes with random weights made on the device, adapters, inputs of a step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from itertools import cycle
from typing import Any

import torch
from support import tiny, tiny_flux, transformer_layouts
from support.layouts import Table, keys_values
from torch import Tensor

from ... import host
from ...ipadapter_core.checkpoint import Checkpoint, role_names
from ...ipadapter_core.features import Features
from ...ipadapter_core.prompt import ImagePrompt, make_prompt
from ...ipadapter_core.spec import Variant
from ..benchmarks.full_size import CONTEXT, PROJECTIONS, WIDTHS

SIGMA = {"SD1.5": 1.0, "SDXL": 1.0, "Flux": 0.5}  # in the middle of sampling
CLOSED = (0.9, 1.0)  # a window in which it is not
_FULL_UNET = {"SD1.5": {"model_channels": 320}, "SDXL": {"model_channels": 320, "num_head_channels": 64}}
_FULL_FLUX: dict[str, Any] = {
    "context_in_dim": 4096,
    "hidden_size": 3072,
    "num_heads": 24,
    "axes_dim": [16, 56, 56],
    "vec_in_dim": 768,
}
_LATENT = {"SD1.5": 64, "SDXL": 128, "Flux": 128}  # of 512 and 1024 pixels
_TEXT_TOKENS = {"SD1.5": 77, "SDXL": 77, "Flux": 512}
ENCODER_TOKENS = 257


@dataclass(frozen=True)
class Place:
    """Where and how: small is the same code on sizes that a processor does in no time."""

    device: torch.device
    dtype: torch.dtype
    small: bool = False


@dataclass(frozen=True, eq=False)
class Subject:
    """One base model. light, rich: kinds of adapters with few and with many tokens. chunks: conditionings of a call."""

    family: str
    place: Place
    light: str
    rich: str
    chunks: tuple[int, ...]

    @cached_property
    def unet(self) -> tiny.Family:
        family = tiny.FAMILIES[self.family]
        return family if self.place.small else replace(family, unet=family.unet | _FULL_UNET[self.family])

    @cached_property
    def model(self) -> Any:
        device, dtype = self.place.device, self.place.dtype
        if self.family != "Flux":
            return tiny.host_model(self.unet, device=device, dtype=dtype)
        if self.place.small:
            return tiny_flux.host_model(tiny_flux.flux_config(), device=device, dtype=dtype)
        config = tiny_flux.flux_config(*tiny_flux.RELEASED) | _FULL_FLUX
        return tiny_flux.host_model(
            config, device=device, dtype=dtype, gain=_FULL_FLUX["hidden_size"] ** -0.5
        )

    @cached_property
    def inputs(self) -> dict[str, Any]:
        """Of a step, as the host's sampler gives them: one picture, one row for each conditioning."""
        rows, side = len(self.chunks), 8 if self.place.small else _LATENT[self.family]
        tokens = 7 if self.place.small else _TEXT_TOKENS[self.family]
        if self.family == "Flux":
            params = self.model.get_model_object("diffusion_model").params
            sizes: dict[str, Any] = {"context": params.context_in_dim, "y": params.vec_in_dim}
        else:
            sizes = {"context": self.unet.context, "y": self.unet.adm}
        made = {
            "x": self._noise(rows, self.model.model.latent_format.latent_channels, side, side),
            "times": torch.full((rows,), 0.5 if self.family == "Flux" else 500.0, device=self.place.device),
            "context": self._noise(rows, tokens, sizes["context"]),
        }
        if sizes["y"]:
            made["y"] = self._noise(rows, sizes["y"])
        if self.family == "Flux":
            made |= {"guidance": torch.full((rows,), 3.5, device=self.place.device)}
        return made

    def _noise(self, *shape: int, seed: int = 3) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(shape, generator=generator).to(self.place.device, self.place.dtype)

    def forward(self, model: Any) -> Callable[[], Tensor]:
        """A step of this model. Sigmas are new at every step, as in the host's sampler."""
        given = dict(self.inputs)
        x, times, context = given.pop("x"), given.pop("times"), given.pop("context")
        sigmas = cycle([torch.full((len(x),), SIGMA[self.family], device=x.device) for _ in range(2)])

        def step() -> Tensor:
            told = {"cond_or_uncond": list(self.chunks), "sigmas": next(sigmas)}
            return tiny.call_unet(model, x, times, context, told, **given)

        return step

    # --- image prompts ---

    def with_prompts(
        self,
        kind: str,
        count: int = 1,
        weight: float = 0.8,
        window: tuple[float, float] = (0.0, 1.0),
        masked: bool = False,
    ) -> Any:
        """The model with so many image prompts of this kind; with masks of one band each."""
        model = self.model
        for number in range(count):
            mask = band(number, count) if masked else None
            model = host.apply_prompt(model, self.prompt(kind, number), weight, *window, mask=mask)
        return model

    @lru_cache(maxsize=8)  # noqa: B019
    def prompt(self, kind: str, number: int) -> ImagePrompt:
        adapter = self.adapter(kind)
        shape = (ENCODER_TOKENS,) if kind in ("plus", "full") else ()
        generator = torch.Generator().manual_seed(number)
        seen = torch.randn(1, *shape, adapter.spec.feature_width, generator=generator)
        with torch.inference_mode():
            tokens = adapter.project(Features(torch.cat((seen, torch.zeros_like(seen)))))
        return make_prompt(adapter, tokens[:1], tokens[1:])

    @lru_cache(maxsize=2)  # noqa: B019
    def adapter(self, kind: str) -> host.HostAdapter:
        variant = None if self.family == "Flux" else Variant(kind)
        return host.HostAdapter(Checkpoint(f"{kind}.safetensors", **self.tensors(kind)), variant)

    @lru_cache(maxsize=2)  # noqa: B019
    def tensors(self, kind: str) -> dict[str, dict[str, Tensor]]:
        """Of an adapter with the shapes of a released file, fp16, made on the device and kept beside it."""
        if self.family != "Flux":
            # projections have their released sizes in small too, since the older pack has those in its code
            widths = tiny.site_widths(self.unet) if self.place.small else WIDTHS[self.family]
            table: Table = PROJECTIONS[self.family, kind]() | keys_values(widths, CONTEXT[self.family])
        elif self.place.small:
            table = {
                "xlabs": lambda: _shapes(tiny_flux.xlabs()),
                "instantx": lambda: _shapes(tiny.flat(tiny_flux.instantx())),
            }[kind]()
        else:
            table = {
                "xlabs": lambda: transformer_layouts.xlabs(19, 3072, 4096, 768, 16),
                "instantx": lambda: transformer_layouts.instantx(57, 3072, 4096, 1152, 128),
            }[kind]()
        dtype = torch.float32 if self.place.small else torch.float16
        made = tiny.random_(
            {key: torch.empty(shape, device=self.place.device, dtype=dtype) for key, shape in table.items()},
            7,
        )
        roles: dict[str, dict[str, Tensor]] = {"image_proj": {}, "ip_adapter": {}}
        for key, (role, name) in role_names(made).items():
            roles[role][name] = made[key].cpu()
        return roles


def _shapes(tensors: dict[str, Tensor]) -> Table:
    return {key: tuple(tensor.shape) for key, tensor in tensors.items()}


def band(number: int, count: int) -> Tensor:
    """A mask (1, 64, 64) of one of so many upright bands, with soft edges that add up to 1."""
    centres = (torch.arange(64) + 0.5) / 64 * count - 0.5
    return (1 - (centres - number).abs()).clamp(0, 1).expand(1, 64, 64).contiguous()


def subject(family: str, place: Place) -> Subject:
    if family == "Flux":
        return Subject(family, place, "xlabs", "instantx", (0,))
    return Subject(family, place, "base", "plus", (1, 0))
