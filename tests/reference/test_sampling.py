"""Whole sampling through the host's sampler, against a loop over the diffusers UNet and its Euler scheduler."""

import comfy.sample
import numpy as np
import pytest
import torch
from diffusers import EulerDiscreteScheduler
from support import parity, tiny
from support.parity import Batch, make_batch, relative_error

LIMIT = 2e-5  # of the largest value: random weights at cfg 7.5 make large latents
STEPS, CFG = 4, 7.5  # 4 steps of 'normal' are the training steps 999, 666, 333 and 0, exactly
TIMES = (999, 666, 333, 0)


@pytest.fixture(params=["base", "plus"])
def setting(twins, request):
    """An adapter on both sides, a picture, and one batch of prompts, uncond first."""
    adapter, picture = twins.adapter(request.param), tiny.picture(seed=18)
    batch = make_batch(twins.family, size=(16, 24))
    return twins, adapter, twins.encode(adapter, picture), twins.embeds(request.param, batch, picture), batch


def noise_like(batch: Batch) -> torch.Tensor:
    return torch.randn(1, *batch.x.shape[1:], generator=torch.Generator().manual_seed(51))


def host_sample(model, batch: Batch) -> torch.Tensor:
    """The latent that KSampler gives, brought back to the UNet's scale."""
    negative, positive = (conditioning(batch, row) for row in range(2))
    noise = noise_like(batch)
    out = comfy.sample.sample(
        model,
        noise,
        STEPS,
        CFG,
        "euler",
        "normal",
        positive,
        negative,
        torch.zeros_like(noise),
        disable_pbar=True,
        seed=1,
    )
    return model.model.process_latent_in(out)


def conditioning(batch: Batch, row: int) -> list:
    """A CONDITIONING of one row of the batch, with SDXL's sizes as CLIPTextEncodeSDXL sets them."""
    extra = {}
    if batch.pooled is not None:
        names = ("height", "width", "crop_h", "crop_w", "target_height", "target_width")
        extra = dict(zip(names, batch.time_ids[row].tolist(), strict=True))
        extra["pooled_output"] = batch.pooled[row : row + 1]
    return [[batch.context[row : row + 1], extra]]


def loop(twins, adapter, embeds, batch: Batch, scales: tuple[float, ...]) -> torch.Tensor:
    """Euler with guidance, written out; scales: the adapter's at each step."""
    scheduler = EulerDiscreteScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", timestep_spacing="linspace"
    )
    scheduler.set_timesteps(STEPS)
    assert tuple(scheduler.timesteps.tolist()) == TIMES
    # at full denoise the host scales noise to the variance of x_T, diffusers by sigma alone
    x = noise_like(batch) * torch.sqrt(1 + scheduler.sigmas[0] ** 2)
    for time, scale in zip(scheduler.timesteps, scales, strict=True):
        rows = scheduler.scale_model_input(torch.cat((x, x)), time)
        oracle = twins.oracle.load(adapter.tensors, scale=scale)
        call = Batch(batch.chunks, rows, float(time), batch.context, batch.pooled, batch.time_ids)
        uncond, cond = oracle(call, [embeds]).chunk(2)
        x = scheduler.step(uncond + CFG * (cond - uncond), time, x, return_dict=False)[0]
    return x


def test_sampling_with_an_image_prompt(setting):
    twins, adapter, prompt, embeds, batch = setting
    ours = host_sample(twins.apply(prompt, 0.8), batch)
    theirs = loop(twins, adapter, embeds, batch, (0.8,) * STEPS)
    assert relative_error(ours, theirs, f"sampling {adapter.kind} {twins.family.name}") <= LIMIT


# (start_at, end_at) -> the training steps at which the prompt acts. 0.333 is a hair before step 666 (1 - 0.333
# of 999 is 666.3); 1/3 and 2/3 fall on steps 666 and 333: sigma_start is inside the window, sigma_end is not.
WINDOWS = {
    (0.25, 1.0): (666, 333, 0),
    (0.0, 0.5): (999, 666),
    (0.3, 0.9): (666, 333),
    (0.333, 0.667): (666, 333),
    (0.0, 1 / 3): (999,),
    (1 / 3, 2 / 3): (666,),
    (1 / 3, 1.0): (666, 333, 0),
    (0.4, 0.6): (),
}


CASES = [("SD1.5", window) for window in WINDOWS] + [("SDXL", (0.333, 0.667))]


def window_setting(twins):
    adapter, picture = twins.adapter("base"), tiny.picture(seed=18)
    batch = make_batch(twins.family)
    return adapter, twins.encode(adapter, picture), twins.embeds("base", batch, picture), batch


@pytest.mark.parametrize(("family", "window"), CASES, ids=str)
def test_a_window_acts_at_exactly_its_steps(family, window, called):
    twins, acting = parity.twins(family), WINDOWS[window]
    adapter, prompt, embeds, batch = window_setting(twins)

    ours = host_sample(twins.apply(prompt, start_at=window[0], end_at=window[1]), batch)
    theirs = loop(twins, adapter, embeds, batch, tuple(float(time in acting) for time in TIMES))

    assert relative_error(ours, theirs, f"window {window} {family}") <= LIMIT
    assert len(called) == twins.family.sites * len(acting)


def test_two_windows_that_meet_act_as_one(twins, called):
    adapter, prompt, embeds, batch = window_setting(twins)
    first = twins.apply(prompt, start_at=0.0, end_at=1 / 3)
    both = twins.apply(prompt, model=first, start_at=1 / 3, end_at=1.0)
    ours, theirs = host_sample(both, batch), loop(twins, adapter, embeds, batch, (1.0,) * STEPS)
    assert relative_error(ours, theirs, f"windows that meet {twins.family.name}") <= LIMIT
    assert len(called) == twins.family.sites * STEPS


# factors at the fractions 0, 1/3, 2/3 and 1, at which the four steps are: first a bump, then off and on beyond 1, then one
# that the window cuts
CURVES = {
    "0:0.2, 0.3:1, 0.8:0.4": (0.0, 1.0),
    "0:1, 0.5:0, 0.9:1.5": (0.0, 1.0),
    "0.2:0.5, 1:2": (0.25, 0.75),
}


@pytest.mark.parametrize("curve", CURVES)
def test_a_curve_is_a_scale_for_each_step(twins, curve, called):
    """As a callback of diffusers' pipeline sets it: set_ip_adapter_scale after each step."""
    adapter, prompt, embeds, batch = window_setting(twins)
    start, end = CURVES[curve]
    points = np.array([part.split(":") for part in curve.split(",")], float)
    fractions = [1 - time / TIMES[0] for time in TIMES]
    factors = np.interp(fractions, *points.T) * [start <= at < end or end == 1 for at in fractions]

    patched = twins.apply(prompt, 0.8, start_at=start, end_at=end, weight_curve=curve)
    ours = host_sample(patched, batch)
    theirs = loop(twins, adapter, embeds, batch, tuple(0.8 * factors))

    assert relative_error(ours, theirs, f"curve {curve} {twins.family.name}") <= LIMIT
    assert len(called) == twins.family.sites * np.count_nonzero(factors)
