"""Masks and pictures where a call sees a part of the picture: areas and tiles."""

import pytest
import torch
from helpers.rows import half, near, with_wrappers
from image_prompt import host
from image_prompt.ipadapter_core.errors import MismatchError
from image_prompt.ipadapter_core.prompt import Arrange
from image_prompt.nodes import NODE_CLASS_MAPPINGS
from support import tiny
from support.prompts import make_adapter
from support.sampling import prompts, sample

from nodes import ConditioningSetArea


@with_wrappers
def test_a_mask_is_cut_to_the_area_of_a_conditioning(sd15, sd15_prompt):
    positive, negative = prompts(tiny.SD15)
    conds = (ConditioningSetArea().append(positive, 64, 128, 0, 0, 1.0)[0], negative)  # the left half

    def run(model):
        return sample(model, tiny.SD15, steps=1, cfg=1.0, conds=conds)

    inside = host.apply_prompt(sd15, sd15_prompt, 1.0, mask=half(left=True))
    outside = host.apply_prompt(sd15, sd15_prompt, 1.0, mask=half(left=False))
    assert near(run(inside), run(host.apply_prompt(sd15, sd15_prompt, 1.0)))
    assert near(run(outside), run(sd15))
    assert not near(run(inside), run(outside))


def tiled(model, side=8, together=True):
    """As TiledDiffusion calls the model: tiles one after the other, in each all rows; all that has their shape cut too."""
    model = model.clone()

    def wrapper(apply_model, args):
        x, c = args["input"], args["c"]
        starts = list(range(0, x.shape[-1], side))
        outs = []
        for group in [starts] if together else [[start] for start in starts]:
            cut = lambda t, g=group: torch.cat([t[..., s : s + side] for s in g])  # noqa: E731
            parts = {
                k: cut(v) if isinstance(v, torch.Tensor) and v.ndim == 4 else
                v.repeat(len(group), *[1] * (v.ndim - 1)) if isinstance(v, torch.Tensor) else v
                for k, v in c.items()
            }  # fmt: skip
            out = apply_model(cut(x), args["timestep"].repeat(len(group)), **parts)
            outs.extend(out.chunk(len(group)))
        return torch.cat(outs, dim=-1)

    model.set_model_unet_function_wrapper(wrapper)
    return model


@with_wrappers
@pytest.mark.parametrize("together", [True, False])
def test_a_mask_is_cut_to_each_tile(sd15, sd15_prompt, together):
    def run(model):
        return sample(tiled(model, together=together), tiny.SD15, steps=1, pictures=2)

    left = run(host.apply_prompt(sd15, sd15_prompt, 1.0, mask=half(left=True)))
    everywhere, nowhere = run(host.apply_prompt(sd15, sd15_prompt, 1.0)), run(sd15)
    assert near(left[..., :8], everywhere[..., :8])
    assert near(left[..., 8:], nowhere[..., 8:])


@with_wrappers
def test_tiles_in_one_call_are_the_tiles_one_by_one(sd15, sd15_prompt):
    ours = host.apply_prompt(sd15, sd15_prompt, 1.0)
    one, other = (sample(tiled(ours, together=t), tiny.SD15, steps=2, pictures=2) for t in (True, False))
    assert near(one, other)


@with_wrappers
def test_each_picture_keeps_its_image_where_tiles_multiply_the_batch(sd15, sd15_prompt, encoder):
    pictures = tiny.picture(4, count=2)
    batch_node = NODE_CLASS_MAPPINGS["IPAdapterBatch"]()
    tensors = tiny.adapter_tensors("base", tiny.SD15)
    old = batch_node.apply_ipadapter(sd15, tensors, weight=1.0, image=pictures, clip_vision=encoder)[0]
    each = host.encode_prompt(
        make_adapter("base", tiny.SD15), encoder, host.Reference(pictures),
        encoding=host.Encoding(Arrange.ONE_EACH),
    )  # fmt: skip
    own = host.apply_prompt(sd15, each, 1.0)
    for ours in (own, old):
        batch = sample(tiled(ours), tiny.SD15, steps=1, pictures=2)
        for n in range(2):
            image = host.encode_prompt(
                make_adapter("base", tiny.SD15), encoder, host.Reference(pictures[n : n + 1])
            )
            alone = sample(tiled(host.apply_prompt(sd15, image, 1.0)), tiny.SD15, steps=1, pictures=2)
            assert near(batch[n], alone[n])


@with_wrappers
def test_a_part_of_which_nobody_says_where_it_is_is_warned_of_once(sd15, sd15_prompt, caplog):
    def half_size(apply_model, args):
        c = {k: v for k, v in args["c"].items() if k != "image_prompt_place"}
        out = apply_model(args["input"][..., :8], args["timestep"], **c)
        return torch.cat((out, out), dim=-1)

    ours = host.apply_prompt(sd15, sd15_prompt, 1.0, mask=half(left=True))
    ours.set_model_unet_function_wrapper(half_size)
    sample(ours, tiny.SD15, steps=3)
    assert sum("does not say" in record.message for record in caplog.records) == 1


@with_wrappers
def test_pictures_and_masks_are_counted_before_sampling_starts(sd15, sd15_prompt):
    ours = host.apply_prompt(sd15, sd15_prompt, 1.0, mask=torch.ones(3, 16, 16))
    ours.set_model_unet_function_wrapper(lambda *_: pytest.fail("the model was called"))
    with pytest.raises(MismatchError, match=r"3 masks came for 1 picture; connect 1\."):
        sample(ours, tiny.SD15, steps=1)
