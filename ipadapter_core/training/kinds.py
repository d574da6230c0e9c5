"""Which kinds of adapters are trained for which models, and what else of a config depends on the family."""

from __future__ import annotations

from ..errors import SettingError
from ..families.family import Family
from ..families.flux import FLUX
from ..families.lumina import NEXT_DIT
from ..families.qwen import QWEN
from ..families.sd3 import SD3
from ..families.unet import UNET
from ..variant import Variant
from .config import Timesteps, TrainingConfig

_KINDS: dict[str, tuple[Variant, ...]] = {
    UNET.name: (Variant.BASE, Variant.PLUS, Variant.FULL, Variant.FACEID),
    FLUX.name: (Variant.XLABS, Variant.INSTANTX),
    SD3.name: (Variant.INSTANTX,),
    QWEN.name: (Variant.BASE, Variant.PLUS),
    NEXT_DIT.name: (Variant.BASE, Variant.PLUS),
}
OF_TRANSFORMERS = {*_KINDS[FLUX.name], *_KINDS[SD3.name]}
# x-flux (train_flux_lora_deepspeed.py) draws them evenly from the shifted schedule; diffusers' train_dreambooth_lora_sd3.py
# has the paper's logit-normal ones as default; for the others nobody has trained adapters, and they are drawn evenly
DEFAULT_TIMESTEPS = {
    FLUX.name: Timesteps.UNIFORM,
    SD3.name: Timesteps.LOGIT_NORMAL,
    QWEN.name: Timesteps.UNIFORM,
    NEXT_DIT.name: Timesteps.UNIFORM,
}
_SD3_TOKENS = 64


def kinds_for(family: Family) -> tuple[Variant, ...]:
    """That are trained for models of this family."""
    return _KINDS[family.architecture.adapters_of]


def require_kind(config: TrainingConfig, family: Family) -> None:
    """Raise SettingError where the config has a kind or a setting that models of this family do not have."""
    kinds = kinds_for(family)
    if config.kind not in kinds:
        raise SettingError(
            f"kind is {config.kind.value}, and the model is {family.name}, for which adapters are "
            f"{' or '.join(kind.value for kind in kinds)}. Set kind to one of these, or load another model."
        )
    flow = family.architecture.name != UNET.name
    if flow and config.min_snr:
        raise SettingError(
            f"min_snr is {config.min_snr:g}, which weights the loss of models that predict noise; {family.name} predicts a "
            "velocity, whose loss its trainers leave unweighted. Set min_snr to 0: timesteps decides which are trained most."
        )
    if not flow and config.timesteps is not Timesteps.AUTO:
        raise SettingError(
            f"timesteps is {config.timesteps.value}, which is for models of a flow (Flux.1, SD3.5, Qwen-Image, Lumina 2, "
            f"Z-Image); those of {family.name} are equally likely. Set timesteps to auto."
        )


def token_count(config: TrainingConfig, family: Family) -> int | None:
    """Image tokens of a picture; None for full: one for each of the encoder's."""
    own = config.kind is Variant.INSTANTX and family.architecture.adapters_of == SD3.name
    return config.tokens or _SD3_TOKENS if own else config.token_count
