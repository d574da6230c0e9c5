"""Other packs' patches on a transformer's blocks, and what must hold of each of them beside an image prompt."""

import comfy.ldm.modules.attention as host_attention
import pytest
import torch
from image_prompt import host

HAS_HOOKS = hasattr(host_attention, "wrap_attn")
# CI's host lacks them: there the same tests run on a stand-in that has them
has_hooks = pytest.mark.skipif(
    not HAS_HOOKS,
    reason="the wheel's host of August 2024 has no hooks for transformers: run with COMFYUI_PATH",
)


def near(a, b):
    return (a - b).norm() <= 1e-5 * b.norm()


def counting(calls):
    def patch(args, extra):
        calls.append(1)
        out = extra["original_block"](args)
        out["img"] = out["img"] * 1.01
        return out

    return patch


def skip(args, extra):
    return args


def foreign(model, patch, places=(("double_block", 1), ("single_block", 0))):
    model = model.clone()
    for place in places:
        model.set_model_patch_replace(patch, "dit", *place)
    return model


def assert_patch_runs_as_often(world, model, prompt, places):
    """Before us and behind us: equally often as without us, and the same picture."""
    calls = []
    alone = world.sample(foreign(model, counting(calls), places))
    without = len(calls)
    results = []
    for order in ("before", "behind"):
        calls.clear()
        if order == "before":
            both = host.apply_prompt(foreign(model, counting(calls), places), prompt, 0.8)
        else:
            both = foreign(host.apply_prompt(model, prompt, 0.8), counting(calls), places)
        results.append(world.sample(both))
        assert len(calls) == without
    assert torch.equal(*results)
    assert not near(results[0], alone)


def assert_attention_runs_as_often(world, model, prompt):
    """Another pack's override of the attention."""
    calls = []

    def override(attention, *args, **kwargs):
        calls.append(1)
        return attention(*args, **kwargs) * 0.99

    theirs = model.clone()
    theirs.model_options["transformer_options"]["optimized_attention_override"] = override
    alone = world.sample(theirs)
    without = len(calls)
    calls.clear()
    both = world.sample(host.apply_prompt(theirs, prompt, 0.8))
    assert len(calls) == without
    assert not near(both, alone)
