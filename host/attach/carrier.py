"""Image prompts put in at run time, by a wrapper around each call of the model.

What stands in the places of our patches at that moment is wrapped, whoever put it there and when. So the order of nodes
does not matter, later nodes cannot take the prompts out, and nothing that other packs own is changed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from ...ipadapter_core.attention import Moment
from ...ipadapter_core.errors import MismatchError, about
from ...ipadapter_core.families.site import Site
from ...ipadapter_core.families.table import family_of, model_sites
from ...ipadapter_core.rows import check_masks, check_rows
from ..adapters import offload
from . import attachment_of
from .base import Options, Patches, Residual
from .calls import CALL
from .compiled import compiled_for, is_compiled, running_call, uncompiled
from .layout_cond import LAYOUT_COND
from .runs import RUN, Run
from .tiles import hand_on_tiles

KEY = "image_prompt"  # of our callbacks and wrappers
_X, _SIGMA, _OPTIONS = 0, 1, 5  # positions of arguments of the host's apply_model


class Carrier:
    """The image prompts of a model, by site. Immutable: one more prompt makes a new one."""

    def __init__(self, residuals: Mapping[Site, tuple[Residual, ...]], sites: tuple[Site, ...]):
        self.residuals, self.sites = residuals, sites
        self.attachment = attachment_of(family_of(sites).architecture)
        every = [residual for at_site in residuals.values() for residual in at_site]
        self.timings = {residual.timing for residual in every if residual.timing is not None}
        self.always = any(residual.timing is None for residual in every)
        self.node = every[-1].applied.node if every else ""  # of the last prompt, the nearest to the sampler
        self.has_masks = any(residual.site.region is not None for residual in every)
        self._calls_alone = Run()  # of calls that no guider makes

    def with_more(self, residuals: Mapping[Site, Residual]) -> Carrier:
        merged = dict(self.residuals)
        for site, residual in residuals.items():
            merged[site] = (*merged.get(site, ()), residual)
        return Carrier(merged, self.sites)

    def begin(
        self,
        executor: Callable[..., Any],
        guider: Any,
        sigmas: Any,
        extra_args: dict[str, Any],
        callback: Any,
        noise: Tensor,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        """SAMPLER_SAMPLE wrapper: what all calls of this run have in common. Ours come last, nearest to the model."""
        with about(self.node):
            self._prepare(guider, sigmas, extra_args["model_options"], noise)
        return executor(guider, sigmas, extra_args, callback, noise, *args, **kwargs)

    def _prepare(self, guider: Any, sigmas: Any, model_options: dict[str, Any], noise: Tensor) -> None:
        options = model_options.setdefault("transformer_options", {})
        wrappers = options.get("wrappers", {})
        in_windows = bool(wrappers.get("calc_cond_batch") or model_options.get("context_handler"))
        self.check_batch(noise.shape[0], in_windows)
        run = options[RUN] = Run(guider, noise, model_options, sigmas)
        run.windows(guider.inner_model.model_sampling, self.timings)
        self._blocks(guider.inner_model.diffusion_model)
        hand_on_tiles(model_options)
        of_calls = wrappers.get("apply_model", {})
        if KEY in of_calls:
            of_calls[KEY] = of_calls.pop(KEY)

    def check_batch(self, pictures: int, in_windows: bool) -> None:
        """Raise MismatchError where images or masks, one per picture, are for another number of pictures.

        in_windows: whether the batch may be an animation, sampled in windows: then images may be too many, and the last of
        too few masks goes on, as users know it.
        """
        for residual in next(iter(self.residuals.values()), ()):
            site = residual.site
            if site.repeat_last or (in_windows and site.rows >= pictures):
                continue
            with about(residual.applied.node):
                check_rows(site.rows, pictures)
                if site.region is not None and not in_windows:
                    check_masks(site.region.mask.shape[0], pictures)

    def __call__(self, executor: Any, *args: Any, **kwargs: Any) -> Any:
        """APPLY_MODEL wrapper: the call with our patches, where a prompt acts in it."""
        with about(self.node):
            return self._call(executor, *args, **kwargs)

    def _call(self, executor: Any, *args: Any, **kwargs: Any) -> Any:
        base, given = executor.class_obj, list(args)
        planes = kwargs.pop(LAYOUT_COND, None)
        positional = len(given) > _OPTIONS
        options = given[_OPTIONS] if positional else kwargs.get("transformer_options") or {}
        x = given[_X] if given else kwargs["x"]
        run = options.get(RUN) or self._calls_alone
        sigma = given[_SIGMA] if len(given) > _SIGMA else kwargs["t"]
        windows = run.windows(base.model_sampling, self.timings)
        call = run.call(x, options, planes, windows, Moment(sigma, base.model_sampling.timestep))
        compiled = is_compiled(base.diffusion_model, options)
        # a compiled model's graphs have the patches in them, and ask these themselves
        if not (compiled or self.always or any(call.factor(timing) for timing in self.timings)):
            return executor(*given, **kwargs)
        if self.has_masks:
            run.warn_of_unknown_crop(x, call)
        options = {**options, CALL: call}
        patches = self._patches(run, base.diffusion_model, options)
        self.attachment.put(options, patches)
        if positional:
            given[_OPTIONS] = options
        else:
            kwargs["transformer_options"] = options
        with running_call(options), compiled_for(base, patches, options, run) as more:
            return executor(*given, **kwargs, **more)

    def _patches(self, run: Run, network: nn.Module, options: Options) -> Patches:
        """Made again only where something else stands in their places."""
        there = self.attachment.standing(options)
        key = (id(self), id(network), tuple((where, id(patch)) for where, patch in there.items()))
        if key not in run.built:
            made = self.attachment.patches(there, self.residuals, self._blocks(network))
            run.built[key] = (made, there, network)  # kept, so that no identity is used again
        return run.built[key][0]

    def _blocks(self, network: nn.Module) -> dict[Site, nn.Module]:
        """The block of each site in the model that samples. Raises MismatchError if it is another than at Apply."""
        plain = uncompiled(network)
        found = {(site.label, site.depth): site.path for site in model_sites(plain)}
        if found.keys() != {(site.label, site.depth) for site in self.sites}:
            raise MismatchError(
                f"the image prompt was applied to a model with {len(self.sites)} attentions for it, and the one that "
                f"samples has {len(found)}: a node behind it exchanged the network. Put that node in front of the prompt."
            )
        return {site: plain.get_submodule(found[site.label, site.depth]) for site in self.residuals}

    def forget_ready(self) -> None:
        self._calls_alone = Run()
        for residuals in self.residuals.values():
            for residual in residuals:
                residual.site.forget()


def carrier_of(model: Any) -> Carrier | None:
    """The image prompts that this model carries."""
    from comfy.patcher_extension import WrappersMP

    found = model.get_wrappers(WrappersMP.APPLY_MODEL, KEY)
    return found[0] if found else None


def carry(model: Any, residuals: Mapping[Site, Residual], sites: tuple[Site, ...]) -> None:
    """Have a clone of a model carry these residuals, beside those that it carries."""
    from comfy.patcher_extension import CallbacksMP, WrappersMP

    carrier = (carrier_of(model) or Carrier({}, sites)).with_more(residuals)
    for moment, wrapper in ((WrappersMP.APPLY_MODEL, carrier), (WrappersMP.SAMPLER_SAMPLE, carrier.begin)):
        model.remove_wrappers_with_key(moment, KEY)
        model.add_wrapper_with_key(moment, KEY, wrapper)
    if not model.get_callbacks(CallbacksMP.ON_CLEANUP, KEY):
        model.add_callback_with_key(CallbacksMP.ON_CLEANUP, KEY, _forget_ready)


def load_beside(model: Any, patcher: Any) -> None:
    """Have the host load another model's patcher beside this clone, and free its memory when sampling is done."""
    beside = model.get_additional_models_with_key(KEY)
    if all(each.model is not patcher.model for each in beside):
        model.set_additional_models(KEY, [*beside, patcher])


def _forget_ready(model: Any) -> None:
    carrier = carrier_of(model)
    if carrier is not None:
        carrier.forget_ready()
    for patcher in model.get_additional_models_with_key(KEY):
        offload(patcher)
