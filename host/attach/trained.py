"""A trainable adapter on a frozen transformer: the patches that prompts have, of K' and V' with gradients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from ...ipadapter_core.adapter import KeysValues, TimedKeysValues
from ...ipadapter_core.attention import COND, Moment
from ...ipadapter_core.families.site import Site
from ...ipadapter_core.families.table import family_of
from ...ipadapter_core.spec import Entry, Target
from ...ipadapter_core.training.residuals import Learnt, learnt_residual
from . import attachment_of
from .base import Options, Patches, Residual
from .calls import CALL, Call, Layout
from .sd3 import Scales


class Attached:
    """The patches of one adapter's layout, made once, and K' and V' of the batch at hand. given: options that every call
    has, whose patches go first."""

    def __init__(self, entry: Entry, network: nn.Module, sites: Sequence[Site], given: Options):
        self.attachment = attachment_of(family_of(sites).architecture)
        blocks = {site: network.get_submodule(site.path) for site in sites}
        self.learnt = Learnt(Scales.of(blocks) if entry.timed else None)
        acting = [site for site in sites if not entry.stages or site.stage in entry.stages]
        behind = entry.target is Target.BLOCK
        residuals = {
            site: (Residual(learnt_residual(self.learnt, n, entry.timed, entry.normed_keys), None, behind),)
            for n, site in enumerate(acting)
        }
        standing = self.attachment.standing(given)
        self.patches: Patches = self.attachment.patches(standing, residuals, blocks)

    def put(
        self, options: dict[str, Any], pairs: KeysValues | TimedKeysValues, noisy: Tensor, times: Tensor
    ) -> None:
        """Into the options of one call with latents (n, c, h, w), all of which are conditioned. pairs may be empty."""
        if pairs:
            self.learnt.use(pairs, noisy)
            self.attachment.put(options, self.patches)
        size = (noisy.shape[-2], noisy.shape[-1])
        moment = Moment(times, lambda sigma: sigma)
        options[CALL] = Call((COND,), noisy.shape[0], Layout((COND,)), latent=size, given=moment)
