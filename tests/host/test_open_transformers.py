"""Image prompts on transformers for which nobody released an adapter: Qwen-Image and Z-Image."""

from functools import partial
from types import SimpleNamespace

import pytest
import torch
from helpers.beside import has_hooks, near
from image_prompt import host
from image_prompt.host.attach import lumina
from image_prompt.ipadapter_core.adapter import Adapter
from image_prompt.ipadapter_core.checkpoint import Checkpoint, read_checkpoint
from image_prompt.ipadapter_core.errors import MismatchError
from image_prompt.ipadapter_core.families.lumina import NEXT_DIT
from image_prompt.ipadapter_core.families.qwen import QWEN
from image_prompt.ipadapter_core.families.table import model_sites
from image_prompt.ipadapter_core.features import Features
from image_prompt.ipadapter_core.prompt import make_prompt
from image_prompt.ipadapter_core.training.export import save_adapter
from safetensors import safe_open
from support import tiny_open, transformer
from support.open_transformer import OneStream, Qwen, stand_in
from support.prompts import Reads, counted_residuals
from support.tiny_open import BLOCKS, HEADS
from torch.nn.functional import rms_norm, scaled_dot_product_attention

OVERRIDE = "optimized_attention_override"
ON_HOST = {
    name: SimpleNamespace(
        architecture=kind.architecture, make=kind.make, sample=partial(tiny_open.sample, kind=kind)
    )
    for name, kind in tiny_open.KINDS.items()
}
STAND_INS = {
    name: SimpleNamespace(architecture=kind, make=partial(stand_in, network), sample=transformer.sample)
    for name, kind, network in (("qwen", QWEN, Qwen), ("z-image", NEXT_DIT, OneStream))
}


@pytest.fixture(params=["qwen", "z-image"])
def family(request):
    return request.param


@pytest.fixture(params=[pytest.param("host", marks=has_hooks), "stand-in"])
def kind(request, family, monkeypatch):
    if request.param == "host":
        return ON_HOST[family]
    transformer.install_hooks(monkeypatch)
    return STAND_INS[family]


@pytest.fixture
def model(kind, family):
    made = kind.make()
    if family == "z-image" and not _says_which_block_runs(made, kind):
        pytest.skip("this host does not say which block runs")
    return made


def _says_which_block_runs(model, kind):
    seen, model = [], model.clone()

    def override(attention, *args, **kwargs):
        seen.append(kwargs["transformer_options"].get("block_index"))
        return attention(*args, **kwargs)

    model.model_options["transformer_options"][OVERRIDE] = override
    kind.sample(model, cfg=1.0)
    return BLOCKS - 1 in seen


@pytest.fixture
def adapter(kind):
    return host.HostAdapter(Checkpoint("open", **tiny_open.adapter(kind.architecture)))


@pytest.fixture
def prompt(adapter):
    seen = torch.randn(2, 48, generator=torch.Generator().manual_seed(1))
    tokens = adapter.project(Features(seen))
    return make_prompt(adapter, tokens[:1], tokens[1:])


@pytest.mark.parametrize("cfg", [1.0, 3.0])
def test_every_block_is_steered_once_a_step(kind, model, prompt, cfg, monkeypatch):
    with counted_residuals(monkeypatch) as calls:
        steered = kind.sample(host.apply_prompt(model, prompt, 0.8), cfg=cfg)
    assert (len(calls), set(calls.values())) == (BLOCKS, {3})
    assert not near(steered, kind.sample(model, cfg=cfg))


def _beside(model, prompt, weight):
    """The formula, by an override that knows nothing of ours: λ·Attn(q, normed K', V') on the image rows of each block."""
    model, pairs, seen = model.clone(), prompt.adapter.keys_values(prompt.cond), []
    image = 4 * 6

    def override(attention, *args, **kwargs):
        out, q = attention(*args, **kwargs), args[0]
        q = q if q.ndim == 4 else q.unflatten(-1, (HEADS, -1)).transpose(1, 2)
        padded = -(-image // tiny_open.PADDED) * tiny_open.PADDED
        if q.shape[2] > padded:
            seen.append(q.shape[2])
            k, v = (t.unflatten(-1, (HEADS, -1)).transpose(1, 2) for t in pairs[(len(seen) - 1) % BLOCKS])
            k = rms_norm(k, k.shape[-1:], eps=1e-5)
            more = scaled_dot_product_attention(q[:, :, -padded:], k, v).transpose(1, 2).flatten(2)
            out = torch.cat((out[:, :-padded], out[:, -padded:] + weight * more), 1)
        return out

    model.model_options["transformer_options"][OVERRIDE] = override
    return model


def test_sampling_has_the_numbers_of_the_formula(kind, model, prompt):
    ours, plain = (kind.sample(each, cfg=1.0) for each in (host.apply_prompt(model, prompt, 0.8), model))
    beside = kind.sample(_beside(model, prompt, 0.8), cfg=1.0)
    assert (ours - beside).abs().max() <= 2e-5 < (ours - plain).abs().max()


def test_weight_0_and_a_closed_window_change_no_bit(kind, model, prompt):
    plain = kind.sample(model)
    assert torch.equal(kind.sample(host.apply_prompt(model, prompt, 0.0)), plain)
    assert torch.equal(kind.sample(host.apply_prompt(model, prompt, 0.8, 1.0, 1.0)), plain)


def test_the_parts_of_a_mask_and_the_rest_add_up(kind, model, prompt):
    mask = torch.rand(1, 40, 56, generator=torch.Generator().manual_seed(2))
    parts = host.apply_prompt(host.apply_prompt(model, prompt, 0.8, mask=mask), prompt, 0.8, mask=1 - mask)
    whole, left = (kind.sample(host.apply_prompt(model, prompt, 0.8, mask=m)) for m in (None, mask))
    assert near(kind.sample(parts), whole)
    assert not near(left, whole)


def test_another_packs_override_runs_as_often_as_without_us(kind, model, prompt):
    counts = []
    for steered in (False, True):
        runs = []

        def override(attention, *args, runs=runs, **kwargs):
            runs.append(1)
            return attention(*args, **kwargs)

        each = host.apply_prompt(model, prompt, 0.8) if steered else model.clone()
        each.model_options["transformer_options"][OVERRIDE] = override
        result = kind.sample(each)
        counts.append(len(runs))
    assert counts[0] == counts[1] > 0
    assert torch.equal(result, kind.sample(host.apply_prompt(model, prompt, 0.8)))


def test_at_most_one_read_a_step(kind, model, prompt):
    counts = []
    for each in (model, host.apply_prompt(model, prompt, 0.8, 0.0, 0.9)):
        with Reads() as reads:
            kind.sample(each)
        counts.append(reads.count)
    assert counts[1] - counts[0] <= 3


def test_a_saved_adapter_says_by_its_keys_and_to_readers_what_it_is_for(kind, adapter, tmp_path):
    given = Checkpoint("open", **tiny_open.adapter(kind.architecture))
    for suffix in (".safetensors", ".bin"):
        path = save_adapter(given, tmp_path / f"open{suffix}")
        again = Adapter(read_checkpoint(path)).load_checkpoint(read_checkpoint(path))
        assert again.digest == adapter.digest
        assert again.spec.entry.architecture == kind.architecture.name
    with safe_open(tmp_path / "open.safetensors", "pt") as file:
        note = file.metadata()
    assert note["image_prompt_model"] == again.spec.family
    assert note["image_prompt_sites"].startswith(f"{BLOCKS}:")
    assert "softmax(q K'^T" in note["image_prompt_formula"]


def test_an_adapter_for_another_family_is_refused_by_name(kind, model, prompt):
    other = QWEN if kind.architecture is NEXT_DIT else NEXT_DIT
    wrong = host.HostAdapter(Checkpoint("other", **tiny_open.adapter(other)))
    with pytest.raises(MismatchError, match="Nobody released an adapter for"):
        host.check_model(model, wrong)


def test_a_host_that_does_not_say_which_block_runs_is_named(monkeypatch):
    """As ComfyUI 0.3.64, which keeps no number of the block in its options."""
    monkeypatch.setattr(lumina, "_block_of", lambda options: -1)
    transformer.install_hooks(monkeypatch)
    kind = STAND_INS["z-image"]
    adapter = host.HostAdapter(Checkpoint("open", **tiny_open.adapter(kind.architecture)))
    tokens = adapter.project(Features(torch.randn(2, 48)))
    steered = host.apply_prompt(kind.make(), make_prompt(adapter, tokens[:1], tokens[1:]), 0.8)
    with pytest.raises(MismatchError, match=r"0\.8\.0 or newer"):
        kind.sample(steered)


@has_hooks
def test_training_starts_from_the_blocks_own_text_attention(family):
    kind = ON_HOST[family]
    network = kind.make().model.diffusion_model
    site = model_sites(network)[1]
    keys, values = kind.architecture.text_matrices(network, site)
    assert keys.shape == values.shape == (site.width, site.width)
    named = dict(network.named_parameters())
    if family == "qwen":
        assert torch.equal(keys, named["transformer_blocks.1.attn.add_k_proj.weight"])
    else:
        assert torch.equal(keys, named["layers.1.attention.qkv.weight"][site.width : 2 * site.width])
