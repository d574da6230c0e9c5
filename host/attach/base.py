"""What the attachments of all families have in common: residuals at a site, and adding them to what attention gave."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from torch import Tensor, nn

from ...ipadapter_core.attention import AtSite, Own, Size, Step
from ...ipadapter_core.errors import ImagePromptError, MismatchError
from ...ipadapter_core.families.site import Site
from ...ipadapter_core.masking import Region
from ...ipadapter_core.stacking import stack_of, stacks
from ...ipadapter_core.timing import Timing
from .calls import CALL, Call
from .watch import Applied, watch_site

Options = Mapping[str, Any]  # the host's transformer_options, at a site
_CUT = (
    "another node cuts the picture into parts inside the cross-attentions, and nothing says which part is where, so the "
    "mask of the image prompt cannot be laid on them. Disconnect the mask, or take that node out."
)


class Residual:
    """A prompt's residual at one site and the part of sampling in which it acts.

    behind: whether it is added to the image stream behind the block, and not to what its attention gives. applied, number:
    whose it is, and of which of the sites at which that one acts.
    """

    def __init__(
        self,
        site: AtSite,
        timing: Timing | None,
        behind: bool = False,
        applied: Applied | None = None,
        number: int = 0,
    ):
        self.site, self.timing, self.behind = site, timing, behind
        self.applied, self.number = applied or Applied("image prompt", 1), number


Residuals = Mapping[Site, tuple[Residual, ...]]


Patches = dict[Any, Any]  # by where they stand


class Attachment(Protocol):
    """Where the image prompts of one architecture enter the model: one module in this room each."""

    def require_hooks(self, wrappers: bool) -> None:
        """Raise MismatchError where this host lacks what the patches need. wrappers: whether it has those of models."""
        ...

    def standing(self, options: Options) -> Patches:
        """What stands in the places of our patches, from whomever."""
        ...

    def patches(self, standing: Patches, residuals: Residuals, blocks: Mapping[Site, nn.Module]) -> Patches:
        """What stands there, with our patches on top of it. blocks: the transformer block of each site."""
        ...

    def put(self, options: dict[str, Any], patches: Patches) -> None:
        """Into these transformer_options, which are a copy."""
        ...


def add_residuals(
    call: Call,
    residuals: Sequence[Residual],
    out: Tensor,
    q: Tensor,
    options: Options,
    size_of: Callable[[Region | None], Size],
    own: bool = False,
    keys: Own | None = None,
) -> Tensor:
    """out with the prompts whose window is open. q, out: (rows, N, width). own: nobody else has `out`.

    size_of: (h, w) of the site's queries, for a region; asked where there is one, or a watch. keys: of the picture itself,
    for prompts that attend to them too. Raises MismatchError.
    """
    together = residuals[-1:]
    try:
        layout = call.layout_of(q, options)
        seen = watch_site(options, call, layout, out, lambda: size_of(None), residuals)
        acting = [(each, factor) for each in residuals if (factor := call.factor(each.timing))]
        for numbers in stacks([(each.site, factor) for each, factor in acting], q):
            together = [acting[number][0] for number in numbers]
            site = stack_of([each.site for each in together], [each.applied.node for each in together])
            region = site.region
            if layout.cut and region is not None:
                raise MismatchError(_CUT)
            out = site.add_to(
                out, q, options["n_heads"], layout.roles, None if region is None else size_of(region), layout.frames,
                Step(acting[numbers[0]][1], call.total, layout.crops, own, keys, seen and seen.observer(together)),
            )  # fmt: skip
            own = True
    except ImagePromptError as error:
        error.name_part(together[0].applied.node)
        raise
    return out


def call_of(options: Options) -> Call:
    """The call of the model that a site's options belong to."""
    return options[CALL]
