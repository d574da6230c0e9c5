"""What each row of a call is, however other packs cut, repeat and reorder rows: role, picture, place."""

import types

import comfy.ldm.modules.attention as host_attention
import comfy.model_patcher
import comfy.samplers
import pytest
import torch
from helpers.rows import HAS_WRAPPERS, half, near, with_wrappers
from image_prompt import host
from image_prompt.ipadapter_core.errors import MismatchError
from image_prompt.ipadapter_core.prompt import Arrange
from support import tiny
from support.sampling import prompts, sample

from nodes import ConditioningCombine, ConditioningSetArea

# --- regions that repeat rows inside attn2 ------------------------------------------------------------------------------


def coupled(model, regions, lists=None, edits=False):
    """Attention Couple's way: rows of the positive once for each region inside attn2, averaged after it."""
    model = model.clone()
    kept = {}

    def spread(n, context, value, options):
        chunks = options["cond_or_uncond"]
        kept["chunks"] = list(chunks)
        blocks = []
        for rows, number in zip(torch.stack((*n.chunk(len(chunks)),)), chunks, strict=True):
            blocks.append(rows if number == 1 else rows.repeat(regions, 1, 1))
        texts = [
            c if number == 1 else torch.cat([c + 0.1 * r for r in range(regions)])
            for c, number in zip(context.chunk(len(chunks)), chunks, strict=True)
        ]
        full = [number for number in chunks for _ in range(1 if number == 1 else regions)]
        if lists:
            options[lists] = full
        if edits:
            options["cond_or_uncond"][:] = full
        return torch.cat(blocks), torch.cat(texts), torch.cat(texts)

    def merged(out, options):
        counts = [1 if number == 1 else regions for number in kept["chunks"]]
        each = out.shape[0] // sum(counts)
        if edits:
            options["cond_or_uncond"][:] = kept["chunks"]
        parts = out.split([each * count for count in counts])
        return torch.cat([p.unflatten(0, (c, each)).mean(0) for p, c in zip(parts, counts, strict=True)])

    model.set_model_attn2_patch(spread)
    model.set_model_attn2_output_patch(merged)
    return model


LISTS = {
    "rows alone": {},
    "ppm's list": {"lists": "cond_or_uncond_couple"},
    "prompt-control's list": {"lists": "cond_or_uncond_hook_couple"},
    "cond_or_uncond edited": {"edits": True},
}


# where rows alone tell, each count is another sum to solve; a list says the count itself
COUNTS = [(told, regions) for told in LISTS for regions in ((2, 3, 4, 5) if told == "rows alone" else (2, 5))]


@pytest.mark.parametrize("chunks", [(1, 0), (0, 1)])
@pytest.mark.parametrize(("told", "regions"), COUNTS)
def test_every_region_of_the_positive_gets_the_image_and_the_negative_none(
    sd15, sd15_prompt, told, regions, chunks
):
    for first in (True, False):
        ours = coupled(sd15, regions, **LISTS[told]) if first else sd15
        ours = host.apply_prompt(ours, sd15_prompt, 1.0)
        ours = ours if first else coupled(ours, regions, **LISTS[told])
        both = tiny.run_unet(ours, tiny.SD15, chunks, pictures=2).chunk(2)
        for number, part in zip(chunks, both, strict=True):
            assert near(part, tiny.run_unet(ours, tiny.SD15, (number,), pictures=2))


def test_two_positive_texts_of_three_regions_each_and_a_negative(sd15, sd15_prompt):
    ours = coupled(host.apply_prompt(sd15, sd15_prompt, 1.0), 3)
    first, negative, second = tiny.run_unet(ours, tiny.SD15, (0, 1, 0)).chunk(3)
    assert near(negative, tiny.run_unet(ours, tiny.SD15, (1,)))
    assert near(first, second)
    assert near(first, tiny.run_unet(ours, tiny.SD15, (0,)))


def test_each_region_has_the_image_of_its_picture(sd15, sd15_prompt, encoder):
    pictures = tiny.picture(4, count=2)
    each = host.encode_prompt(
        sd15_prompt.adapter, encoder, host.Reference(pictures), encoding=host.Encoding(Arrange.ONE_EACH)
    )
    batch = tiny.run_unet(coupled(host.apply_prompt(sd15, each, 1.0), 3), tiny.SD15, (1, 0), pictures=2)
    for n in range(2):
        own = host.encode_prompt(sd15_prompt.adapter, encoder, host.Reference(pictures[n : n + 1]))
        alone = tiny.run_unet(coupled(host.apply_prompt(sd15, own, 1.0), 3), tiny.SD15, (1, 0), pictures=2)
        assert near(batch[[n, n + 2]], alone[[n, n + 2]])


def in_windows(model):
    """Each row cut in two halves, one after the other, as attention in windows does."""
    model = model.clone()

    def cut(n, context, value, options):
        halves = n.unflatten(1, (2, -1)).flatten(0, 1)
        return halves, context.repeat_interleave(2, 0), value.repeat_interleave(2, 0)

    model.set_model_attn2_patch(cut)
    model.set_model_attn2_output_patch(lambda n, options: n.unflatten(0, (-1, 2)).flatten(1, 2))
    return model


@pytest.mark.skipif(not HAS_WRAPPERS, reason="hosts of August 2024 do not say how large a site is")
def test_attention_in_windows_equals_attention_in_one_piece(sd15, sd15_prompt):
    """Each position attends to the text and the image by itself."""
    ours = host.apply_prompt(sd15, sd15_prompt, 1.0)
    whole, cut = (tiny.run_unet(m, tiny.SD15, (1, 0), pictures=2) for m in (ours, in_windows(ours)))
    assert near(cut, whole)
    masked = host.apply_prompt(sd15, sd15_prompt, 1.0, mask=half(left=True))
    with pytest.raises(MismatchError, match="cuts the picture into parts inside the cross-attentions"):
        tiny.run_unet(in_windows(masked), tiny.SD15)


def test_rows_that_no_rule_explains_are_refused_with_the_cause(sd15, sd15_prompt):
    def doubled(n, context, value, options):
        return n.repeat(5, 1, 1)[:9], context.repeat(5, 1, 1)[:9], value.repeat(5, 1, 1)[:9]

    odd = host.apply_prompt(sd15, sd15_prompt, 1.0)
    odd.set_model_attn2_patch(doubled)
    with pytest.raises(MismatchError, match=r"9 rows came .* another node repeats rows inside the model"):
        tiny.run_unet(odd, tiny.SD15, (1, 0), pictures=2)


# --- text with more rows than the picture -------------------------------------------------------------------------------


class Guided:
    """NAG's way: the UNet's forward appends rows to the text, and every attn2's forward, replaced meanwhile, uses them."""

    def __init__(self, model, scale):
        self.unet, self.scale = model.get_model_object("diffusion_model"), scale

    def __enter__(self):
        plain = self.unet.forward

        def attention(module, x, context=None, value=None, mask=None, transformer_options=None, **_):
            q, k, v = module.to_q(x), module.to_k(context), module.to_v(context if value is None else value)
            more = len(k) - len(x)
            attend = host_attention.optimized_attention
            out = attend(q, k[:-more], v[:-more], module.heads)
            against = attend(q[-more:], k[-more:], v[-more:], module.heads)
            guided = out[-more:] * (1 + self.scale) - against * self.scale
            return module.to_out(torch.cat((out[:-more], guided)))

        def forward(x, timesteps=None, context=None, **options):
            found = [m for n, m in self.unet.named_modules() if n.endswith("attn2")]
            for module in found:
                module.forward = types.MethodType(attention, module)
            try:
                return plain(x, timesteps, context=torch.cat((context, -context[-1:])), **options)
            finally:
                for module in found:
                    del module.forward

        self.unet.forward = forward

    def __exit__(self, *_):
        del self.unet.forward


@with_wrappers
def test_where_another_pack_adds_rows_to_the_text_its_guidance_and_the_image_add_up(sd15, sd15_prompt):
    """With a scale of 0 its guidance changes nothing, and with a weight of 0 the image."""
    ours = host.apply_prompt(sd15, sd15_prompt, 1.0)
    alone = tiny.run_unet(ours, tiny.SD15)
    with Guided(sd15, 0.0):
        assert near(tiny.run_unet(ours, tiny.SD15), alone)
    with Guided(sd15, 0.5):
        both, theirs = tiny.run_unet(ours, tiny.SD15), tiny.run_unet(sd15, tiny.SD15)
        faint = tiny.run_unet(host.apply_prompt(sd15, sd15_prompt, 1e-6), tiny.SD15)
    assert near(faint, theirs)
    assert not near(both, theirs)
    assert not near(both, alone)


def test_rows_of_text_that_nobody_explains_are_refused(sd15, sd15_prompt):
    odd = host.apply_prompt(sd15, sd15_prompt, 1.0)
    odd.set_model_attn2_patch(lambda n, c, v, options: (n, torch.cat((c, c)), torch.cat((v, v))))
    with pytest.raises(MismatchError, match="adds rows to the text inside the model"):
        tiny.run_unet(odd, tiny.SD15)


# --- guiders of all kinds -----------------------------------------------------------------------------------------------


class Recorded(comfy.samplers.CFGGuider):
    """A guider with its own conditionings, called in its own order; keeps what each pass gave."""

    def __init__(self, model, order, names):
        super().__init__(model)
        self.order, self.given, positive_negative = order, {}, prompts(tiny.SD15)
        self.inner_set_conds({name: positive_negative["neg" in name] for name in names})

    def predict_noise(self, x, timestep, model_options={}, seed=None):  # noqa: B006
        for passed in self.order:
            conds = [self.conds[name] for name in passed]
            outs = comfy.samplers.calc_cond_batch(self.inner_model, conds, x, timestep, model_options)
            self.given.update(zip(passed, outs, strict=True))
        return next(iter(self.given.values()))


def given(model, order):
    names = [name for passed in order for name in passed]
    guider = Recorded(model, order, names)
    noise = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        guider.sample(
            noise, torch.zeros_like(noise), comfy.samplers.sampler_object("euler"), torch.tensor([5.0, 0.0])
        )
    return guider.given


@with_wrappers
@pytest.mark.parametrize(
    "order",
    [
        [["negative"], ["positive"]],
        [["negative", "positive"]],
        [["negative", "middle", "positive"]],
        [["positive", "negative", "empty_negative_prompt"]],
        [["middle"], ["negative", "positive"], ["empty_negative_prompt"]],
    ],
)
def test_a_conditioning_is_what_its_guider_calls_it_wherever_it_stands(sd15, sd15_prompt, order):
    ours = given(host.apply_prompt(sd15, sd15_prompt, 1.0), order)
    usual = given(host.apply_prompt(sd15, sd15_prompt, 1.0), [["positive", "negative"]])
    for name, out in ours.items():
        assert near(out, usual["negative" if "neg" in name else "positive"]), name


@with_wrappers
def test_an_area_of_the_positive_does_not_make_a_positive_of_the_negative(sd15, sd15_prompt):
    """The host copies a positive conditioning with an area, uuid and all, among the negative ones."""
    positive, negative = prompts(tiny.SD15)
    area = ConditioningSetArea().append(positive, 64, 64, 32, 64, 1.0)[0]
    conds = (ConditioningCombine().combine(positive, area)[0], negative)
    twice = (ConditioningCombine().combine(positive, area)[0], ConditioningCombine().combine(
        negative, ConditioningSetArea().append(negative, 64, 64, 32, 64, 1.0)[0])[0])  # fmt: skip
    ours = host.apply_prompt(sd15, sd15_prompt, 1.0)
    assert near(sample(ours, tiny.SD15, conds=conds), sample(ours, tiny.SD15, conds=twice))
