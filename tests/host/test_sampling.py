"""Through the host's real sampler, beside the host's other nodes."""

import comfy.controlnet
import comfy.t2i_adapter.adapter
import pytest
import torch
from helpers.workflows import control_net
from image_prompt import host
from image_prompt.ipadapter_core.attention import SiteResidual
from image_prompt.ipadapter_core.errors import MismatchError
from image_prompt.ipadapter_core.prompt import Arrange
from image_prompt.ipadapter_core.timing import parse_curve, timing
from image_prompt.lab.benchmarks.counting import count
from support import tiny
from support.prompts import Reads, counted_residuals
from support.sampling import prompts, sample

from nodes import ConditioningCombine, ConditioningSetArea, ConditioningSetMask, ControlNetApplyAdvanced


def same(a, b):
    return torch.allclose(a, b, rtol=2e-5, atol=2e-5 * b.abs().max().item())


def test_weight_zero_samples_the_base_models_picture(model, family, prompt):
    assert torch.equal(sample(host.apply_prompt(model, prompt, 0.0), family), sample(model, family))


@pytest.mark.parametrize("cut", [0.25, 0.5, 0.6])
def test_two_windows_that_meet_act_as_one(sd15, sd15_prompt, cut):
    split = host.apply_prompt(sd15, sd15_prompt, 1.0, 0.0, cut)
    split = host.apply_prompt(split, sd15_prompt, 1.0, cut, 1.0)
    whole = host.apply_prompt(sd15, sd15_prompt, 1.0)
    assert same(sample(split, tiny.SD15), sample(whole, tiny.SD15))


def test_a_window_acts_in_its_steps_only(sd15, sd15_prompt, monkeypatch):
    patched = host.apply_prompt(sd15, sd15_prompt, 1.0, 0.0, 0.5)
    with counted_residuals(monkeypatch) as calls:
        sample(patched, tiny.SD15, steps=4)
    assert calls.total() == 2 * tiny.SD15.sites


def curved(model, prompt, curve: str):
    weights = host.weights_for(model, prompt.adapter, 1.0, "linear")
    return host.add_prompt(model, prompt, host.ApplySettings(weights, timing(0.0, 1.0, parse_curve(curve))))


def test_a_level_curve_is_the_weight_times_it_and_zero_is_the_base_model(sd15, sd15_prompt):
    """To rounding: the factor is applied at the sum, the weight to V'."""
    curve = sample(curved(sd15, sd15_prompt, "0:0.5"), tiny.SD15)
    assert same(curve, sample(host.apply_prompt(sd15, sd15_prompt, 0.5), tiny.SD15))
    off = sample(curved(sd15, sd15_prompt, "0:0"), tiny.SD15)
    assert torch.equal(off, sample(sd15, tiny.SD15))
    ones = sample(curved(sd15, sd15_prompt, "0:1, 1:1"), tiny.SD15)
    assert torch.equal(ones, sample(host.apply_prompt(sd15, sd15_prompt, 1.0), tiny.SD15))


def test_a_curve_gives_each_step_its_factor_and_makes_no_tensors_anew(sd15, sd15_prompt, monkeypatch):
    factors: list[float] = []
    made: set[int] = set()
    add_to = SiteResidual.add_to

    def watched(self, *args):
        factors.append(args[-1].factor)
        done = add_to(self, *args)
        made.update(id(ready[1]) for ready in self.ready.values())
        return done

    monkeypatch.setattr(SiteResidual, "add_to", watched)
    sample(curved(sd15, sd15_prompt, "0:1, 1:0"), tiny.SD15, steps=4)
    by_step = factors[:: tiny.SD15.sites]
    assert len(by_step) == 4
    assert by_step == sorted(by_step, reverse=True)
    assert by_step[0] == pytest.approx(1.0, abs=2e-3)
    assert len(made) == tiny.SD15.sites


def test_a_curve_of_two_points_is_two_applies_with_windows_where_they_coincide(model, family, prompt):
    """The four steps are at the fractions 0, 1/3, 2/3 and 1, so none is between the points."""
    two = host.apply_prompt(model, prompt, 1.0, 0.0, 0.5)
    two = host.apply_prompt(two, prompt, 0.3, 0.5, 1.0)
    curve = sample(curved(model, prompt, "0.45:1, 0.55:0.3"), family)
    assert same(curve, sample(two, family))
    assert not same(curve, sample(host.apply_prompt(model, prompt, 1.0), family))


def test_a_curve_costs_a_site_no_operation(sd15, sd15_prompt):
    """Only the window's read, once a call."""
    level, window, curve = (
        count(lambda model=model: tiny.run_unet(model, tiny.SD15))
        for model in (
            host.apply_prompt(sd15, sd15_prompt, 0.8),
            host.apply_prompt(sd15, sd15_prompt, 0.8, 0.0, 0.99),
            curved(sd15, sd15_prompt, "0:0.2, 0.5:1, 1:0.4"),
        )
    )
    assert curve == window
    assert curve.beyond(level).reads == 1
    assert curve.beyond(level).real <= 1


def test_cfg_1_runs_without_a_negative(sd15, sd15_prompt):
    patched = host.apply_prompt(sd15, sd15_prompt, 1.0)
    assert not same(sample(patched, tiny.SD15, cfg=1.0), sample(sd15, tiny.SD15, cfg=1.0))


def test_one_image_per_picture_in_a_batch(sd15, sd15_prompt, encoder):
    reference = host.Reference(tiny.picture(4, count=2))
    each = host.encode_prompt(
        sd15_prompt.adapter, encoder, reference, encoding=host.Encoding(Arrange.ONE_EACH)
    )
    patched = host.apply_prompt(sd15, each, 1.0)
    batch = sample(patched, tiny.SD15, pictures=2)
    for n in range(2):
        own = host.encode_prompt(sd15_prompt.adapter, encoder, host.Reference(reference.image[n : n + 1]))
        assert same(batch[n], sample(host.apply_prompt(sd15, own, 1.0), tiny.SD15, pictures=2)[n])
    with pytest.raises(MismatchError, match="2 images, one per picture, but 3 pictures"):
        sample(patched, tiny.SD15, pictures=3)


def test_areas_masks_and_several_prompts_of_text(sd15, sd15_prompt):
    positive, negative = prompts(tiny.SD15)
    area = ConditioningSetArea().append(negative, 64, 64, 32, 64, 1.0)[0]
    masked = ConditioningSetMask().append(negative, torch.ones(1, 128, 128), "default", 0.7)[0]
    positive = ConditioningCombine().combine(positive, area)[0]
    positive = ConditioningCombine().combine(positive, masked)[0]
    conds = (positive, negative)
    region = torch.zeros(1, 128, 128)
    region[:, :64] = 1
    patched = host.apply_prompt(sd15, sd15_prompt, 1.0, mask=region)
    assert not same(sample(patched, tiny.SD15, conds=conds), sample(sd15, tiny.SD15, conds=conds))


def test_two_masked_regions_do_not_touch_the_rest(sd15, sd15_prompt, monkeypatch):
    """At the sites; what convolutions carry across is not the adapter's."""
    left = torch.zeros(1, 128, 128)
    left[..., :64] = 1
    residual = host.apply_prompt(sd15, sd15_prompt, 1.0, mask=left)
    site = host.residuals_of(residual)["input 1", 0][0].site
    q = torch.randn(1, 256, site.keys.shape[-1])
    added = site.add_to(torch.zeros_like(q), q, 8, (0,), (16, 16)).view(16, 16, -1)
    assert added[:, 8:].abs().max() == 0
    assert added[:, :8].abs().max() > 0


def t2i_adapter():
    """A small random T2I-Adapter, recognised by the host's own loader."""
    layout = comfy.t2i_adapter.adapter.Adapter(
        cin=192, channels=[32, 64, 128, 128], nums_rb=2, ksize=1, sk=True, use_conv=False, xl=False
    )
    weights = tiny.random_({key: value.clone() for key, value in layout.state_dict().items()}, 31)
    return comfy.controlnet.load_t2i_adapter(weights)


@pytest.mark.parametrize("control", [control_net, t2i_adapter])
def test_it_combines_with_control(sd15, sd15_prompt, control):
    conds = ControlNetApplyAdvanced().apply_controlnet(
        *prompts(tiny.SD15), control(), tiny.picture(6, 128, 128), 0.5, 0.0, 1.0
    )[:2]
    patched = host.apply_prompt(sd15, sd15_prompt, 1.0)
    both = sample(patched, tiny.SD15, conds=conds)
    assert not same(both, sample(sd15, tiny.SD15, conds=conds))
    assert not same(both, sample(patched, tiny.SD15))


def free_u(model):
    from comfy_extras.nodes_freelunch import FreeU_V2

    # the small UNet has 32 channels where FreeU looks for model_channels of its config
    return called(FreeU_V2, model, 1.3, 1.4, 0.9, 0.2)


def hyper_tile(model):
    from comfy_extras.nodes_hypertile import HyperTile

    return called(HyperTile, model, 64, 2, 0, False)


def perturbed_attention(model):
    from comfy_extras.nodes_pag import PerturbedAttentionGuidance

    return called(PerturbedAttentionGuidance, model, 3.0)


def rescale_cfg(model):
    from comfy_extras.nodes_model_advanced import RescaleCFG

    return called(RescaleCFG, model, 0.7)


def lora(model):
    key = "diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"
    weight = model.model_state_dict()[key]
    patched = model.clone()
    patched.add_patches(
        {key: ("diff", (torch.randn(weight.shape, generator=torch.Generator().manual_seed(3)),))}
    )
    return patched


def called(node, model, *values):
    """The node's model, of a class of either schema generation."""
    instance = node() if not hasattr(node, "define_schema") else node
    name = "execute" if hasattr(node, "define_schema") else node.FUNCTION
    result = getattr(instance, name)(model, *values)
    return result[0]


def seeded(model):
    torch.manual_seed(0)
    return sample(model, tiny.SD15, size=(16, 16))


@pytest.fixture(scope="module")
def prompted(sd15, sd15_prompt):
    """The picture of the image prompt alone."""
    assert same(seeded(sd15), seeded(sd15))  # else a difference tells nothing
    return seeded(host.apply_prompt(sd15, sd15_prompt, 1.0))


@pytest.mark.parametrize("other", [free_u, hyper_tile, perturbed_attention, rescale_cfg, lora])
def test_before_or_after_another_node_it_makes_the_same_picture(sd15, sd15_prompt, prompted, other):
    before = seeded(other(host.apply_prompt(sd15, sd15_prompt, 1.0)))
    after = seeded(host.apply_prompt(other(sd15), sd15_prompt, 1.0))
    assert same(before, after)
    assert not same(after, seeded(other(sd15))), "the image prompt has no effect beside this node"
    assert not same(after, prompted), "the other node has no effect"


@pytest.mark.parametrize("curve", ["", "0:0.2, 0.3:1, 0.8:0.4"])
def test_a_step_reads_at_most_one_number_for_the_window_and_the_curve(sd15, sd15_prompt, curve):
    """When sampling begins some more, for the ends of the window in the sigmas of the model that samples."""

    def reads(model, steps):
        with Reads() as counter:
            sample(model, tiny.SD15, steps=steps)
        return counter.count

    def of_five_steps(model):
        return reads(model, 9) - reads(model, 4)

    windowed = (
        host.apply_prompt(sd15, sd15_prompt, 1.0, 0.1, 0.9) if not curve else curved(sd15, sd15_prompt, curve)
    )
    assert of_five_steps(windowed) - of_five_steps(sd15) <= 5
