"""A trainable adapter on a frozen transformer: the patches that prompts have, of K' and V' with gradients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ...ipadapter_core.adapter import KeysValues, TimedKeysValues
from ...ipadapter_core.attention import COND, Moment
from ...ipadapter_core.families.site import Site
from ...ipadapter_core.families.table import family_of
from ...ipadapter_core.spec import Entry, Target
from ...ipadapter_core.training.residuals import Learnt, learnt_residual
from ..frozen import in_training
from . import attachment_of
from .base import Patches, Residual
from .blocks import Args, BlockAttachment
from .calls import CALL, Call, Layout
from .sd3 import Scales

# parts of a block's arguments that hosts add to in place
_STREAMS = ("img", "txt")


class Attached:
    """The patches of one adapter's layout, made once, and K' and V' of the batch at hand."""

    def __init__(self, entry: Entry, network: nn.Module, sites: Sequence[Site], checkpointing: bool):
        attachment = attachment_of(family_of(sites).architecture)
        assert isinstance(attachment, BlockAttachment)
        self.attachment = attachment
        blocks = {site: network.get_submodule(site.path) for site in sites}
        self.learnt = Learnt(Scales.of(blocks) if entry.timed else None)
        acting = [site for site in sites if not entry.stages or site.stage in entry.stages]
        behind = entry.target is Target.BLOCK
        residuals = {
            site: (Residual(learnt_residual(self.learnt, n, entry.timed, entry.normed_keys), None, behind),)
            for n, site in enumerate(acting)
        }
        self.patches: Patches = attachment.patches({}, residuals, blocks)
        self.every = [attachment.place(site) for site in sites if checkpointing]

    def put(
        self, options: dict[str, Any], pairs: KeysValues | TimedKeysValues, noisy: Tensor, times: Tensor
    ) -> None:
        """Into the options of one call with latents (n, c, h, w), all of which are conditioned. pairs may be empty."""
        patches = self.patches if pairs else {}
        if pairs:
            self.learnt.use(pairs, noisy)
        size = (noisy.shape[-2], noisy.shape[-1])
        moment = Moment(times, lambda sigma: sigma)
        options[CALL] = Call((COND,), noisy.shape[0], Layout((COND,)), latent=size, given=moment)
        again = {place: Recomputed(patches.get(place)) for place in self.every}
        self.attachment.put(options, {**patches, **again})


class Recomputed:
    """One block, whose activations are computed again in the backward pass. patch: what stands in its place."""

    def __init__(self, patch: Any):
        self.patch = patch

    def __call__(self, args: Args, extra: dict[str, Any]) -> dict[str, Any]:
        def block(args: Args) -> dict[str, Any]:
            # the second pass needs them as they were
            args = {name: value.clone() if name in _STREAMS else value for name, value in args.items()}
            # the second pass runs behind the model's call
            with in_training():
                return extra["original_block"](args) if self.patch is None else self.patch(args, extra)

        return checkpoint(block, args, use_reentrant=False)


def keep_inputs_of_norms(network: nn.Module, sites: Sequence[Site]) -> None:
    """Hosts add to a stream in place behind norms, which need it as it was in the backward pass. For a frozen copy only."""
    for site in sites:
        for module in network.get_submodule(site.path).modules():
            if isinstance(module, nn.LayerNorm):
                module.register_forward_pre_hook(lambda _, inputs: (inputs[0].clone(), *inputs[1:]))
