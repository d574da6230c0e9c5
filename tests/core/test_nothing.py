"""'Nothing' on the negative side: no K'/V' are computed, held or read for it, and its rows stay what they are to the bit."""

import pytest
import torch
from core.small import naive_attention, randn
from image_prompt.ipadapter_core import prompt as prompt_module
from image_prompt.ipadapter_core.adapter import Adapter
from image_prompt.ipadapter_core.attention import COND, UNCOND, SiteResidual, Step, normed_by_head
from image_prompt.ipadapter_core.checkpoint import Checkpoint
from image_prompt.ipadapter_core.combine import Combine, combine
from image_prompt.ipadapter_core.errors import MismatchError
from image_prompt.ipadapter_core.features import Features
from image_prompt.ipadapter_core.prompt import Arrange, make_prompt
from image_prompt.ipadapter_core.prompt_file import load_prompt, save_prompt
from safetensors.torch import load_file, save_file
from support.transformer_layouts import instantx
from torch.utils._python_dispatch import TorchDispatchMode

HEADS, WIDTH, N = 2, 32, 12
PAIRS = 4


@pytest.fixture(scope="module")
def adapter():
    generator = torch.Generator().manual_seed(3)
    table = instantx(PAIRS, WIDTH, 24, 12, 4)
    roles = {"image_proj": {}, "ip_adapter": {}}
    for key, shape in table.items():
        role, name = key.split(".", 1)
        roles[role][name] = torch.randn(shape, generator=generator) * 0.3
    file = Checkpoint("instantx", **roles)
    return Adapter(file).load_checkpoint(file)


def prompt_of(adapter, images=1, arrange=Arrange.TOGETHER, weights=()):
    tokens = adapter.project(Features(randn(images, 12)))
    return make_prompt(adapter, tokens, tokens[:1, :0], arrange, weights)


class Multiplied(TorchDispatchMode):
    """Numbers that matrix products gave, and norms."""

    def __init__(self):
        super().__init__()
        self.numbers = self.norms = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        if func in (torch.ops.aten.mm.default, torch.ops.aten.addmm.default, torch.ops.aten.bmm.default):
            self.numbers += out.numel()
        self.norms += func in (torch.ops.aten.rsqrt.default, torch.ops.aten._fused_rms_norm.default)
        return out


def test_keys_are_computed_for_the_images_alone_and_normed_once(adapter, monkeypatch):
    prompt = prompt_of(adapter)
    norms = []
    monkeypatch.setattr(prompt_module, "normed_by_head", lambda *of: norms.append(1) or normed_by_head(*of))
    with Multiplied() as counted:
        pairs = prompt.keys_values_for(HEADS)
        assert prompt.keys_values_for(HEADS) is pairs
    assert counted.numbers == PAIRS * 2 * 4 * WIDTH  # K' and V' of four tokens, and none of zeros
    assert len(norms) == PAIRS
    held = sum(tensor.numel() for pair in pairs for tensor in pair)
    assert held == PAIRS * 2 * 4 * WIDTH
    assert "keys_values" not in prompt.__dict__  # what was not normed is not held beside it


def test_another_number_of_heads_norms_anew(adapter):
    prompt = prompt_of(adapter)
    one, other = prompt.keys_values_for(HEADS)[0], prompt.keys_values_for(4)[0]
    assert not torch.allclose(one[0], other[0])
    assert torch.equal(one[1], other[1])


ROLES = [
    (COND,),
    (UNCOND,),
    (COND, UNCOND),
    (UNCOND, COND),
    (COND, UNCOND, COND),
    (UNCOND, COND, COND, UNCOND),
]


@pytest.mark.parametrize("roles", ROLES, ids=str)
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("in_place", [False, True])
def test_rows_of_the_negative_are_untouched_and_those_of_the_positive_as_with_zeros(roles, masked, in_place):
    pictures = 2
    q, out = (randn(len(roles) * pictures, N, WIDTH, seed=seed) for seed in (1, 2))
    keys, values = randn(1, 4, WIDTH, seed=3), randn(1, 4, WIDTH, seed=4)
    mask = torch.rand(1, 6, 8, generator=torch.Generator().manual_seed(5)) if masked else None
    size = (3, 4) if masked else None
    zeros = torch.zeros(1, 4, WIDTH)
    with_zeros = SiteResidual(torch.cat((keys, zeros)), torch.cat((values, zeros)), 1, 0.7, mask)
    expected = with_zeros.add_to(out, q, HEADS, roles, size)
    given = out.clone()
    ours = SiteResidual(keys, values, 1, 0.7, mask).add_to(
        given, q, HEADS, roles, size, step=Step(in_place=in_place)
    )
    assert torch.allclose(ours, expected, atol=1e-6)
    assert in_place or torch.equal(given, out)
    for number, role in enumerate(roles):
        rows = slice(number * pictures, (number + 1) * pictures)
        assert torch.equal(ours[rows], out[rows]) is (role == UNCOND)


def test_each_picture_has_its_own_image():
    keys, values = randn(3, 4, WIDTH, seed=3), randn(3, 4, WIDTH, seed=4)
    q, out = randn(6, N, WIDTH, seed=1), randn(6, N, WIDTH, seed=2)
    ours = SiteResidual(keys, values, 3, 0.7).add_to(out, q, HEADS, (UNCOND, COND), None)
    assert torch.equal(ours[:3], out[:3])
    assert torch.allclose(ours[3:], out[3:] + 0.7 * naive_attention(q[3:], keys, values, HEADS), atol=1e-5)


def test_gradients_flow_through_the_positive_and_past_the_negative():
    keys, values = randn(1, 4, WIDTH, seed=3), randn(1, 4, WIDTH, seed=4)
    q, out = (randn(2, N, WIDTH, seed=seed).requires_grad_() for seed in (1, 2))
    SiteResidual(keys, values, 1, 0.7).add_to(out, q, HEADS, (COND, UNCOND), None).sum().backward()
    assert torch.equal(out.grad, torch.ones_like(out))
    assert q.grad[0].any()
    assert not q.grad[1].any()


def test_it_is_saved_and_read_and_older_files_with_zeros_mean_the_same(adapter, tmp_path):
    prompt = prompt_of(adapter, weights=[0.5])
    save_prompt(prompt, tmp_path / "new.safetensors")
    back = load_prompt(adapter, tmp_path / "new.safetensors")
    assert back.adds_nothing_to_uncond
    older = load_file(tmp_path / "new.safetensors") | {"uncond": torch.zeros_like(prompt.cond)}
    from safetensors import safe_open

    with safe_open(str(tmp_path / "new.safetensors"), "pt") as file:
        save_file(older, str(tmp_path / "old.safetensors"), file.metadata())
    for read in (back, load_prompt(adapter, tmp_path / "old.safetensors")):
        assert read.adds_nothing_to_uncond
        for ours, theirs in zip(read.keys_values_for(HEADS), prompt.keys_values_for(HEADS), strict=True):
            assert all(map(torch.equal, ours, theirs))


def test_weights_of_images_scale_values(adapter):
    plain, half = prompt_of(adapter, 2), prompt_of(adapter, 2, weights=[1.0, 0.5])
    (k, v), (k2, v2) = plain.keys_values_for(HEADS)[0], half.keys_values_for(HEADS)[0]
    assert torch.equal(k, k2)
    assert torch.equal(v[:, :4], v2[:, :4])
    assert torch.allclose(v[:, 4:] * 0.5, v2[:, 4:])


@pytest.mark.parametrize("method", Combine)
def test_combined_prompts_add_nothing_either(adapter, method):
    assert combine([prompt_of(adapter), prompt_of(adapter)], method, [1.0, 0.5]).adds_nothing_to_uncond


def test_nothing_and_something_combine_by_concat_alone(adapter):
    nothing = prompt_of(adapter)
    something = make_prompt(adapter, nothing.cond, nothing.cond)
    assert combine([nothing, something], Combine.CONCAT, [1.0, 1.0]).uncond.shape[1] == 4
    with pytest.raises(MismatchError, match=r"same number of negative tokens, got \[0, 4\]"):
        combine([nothing, something], Combine.AVERAGE, [1.0, 1.0])
