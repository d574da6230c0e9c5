"""The LoRA inside a FaceID file: put on the model by Apply, once, and never beside the same LoRA from a loader."""

import comfy.sd
import pytest
import torch
from image_prompt import host
from image_prompt.ipadapter_core.checkpoint import Checkpoint
from image_prompt.ipadapter_core.prompt import make_prompt
from support import tiny
from support.parity import call

RANK = 4
KEY = "diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_q.weight"


@pytest.fixture(scope="module")
def model():
    return tiny.host_model(tiny.SD15)


def adapter(seed: int = 7, lora_rank: int = RANK) -> host.HostAdapter:
    tensors = tiny.adapter_tensors("faceid", tiny.SD15, seed, lora_rank)
    return host.HostAdapter(Checkpoint(f"faceid-{seed}.bin", **tensors))


def prompt(made: host.HostAdapter):
    tokens = torch.randn(1, 4, made.spec.token_width, generator=torch.Generator().manual_seed(1))
    return make_prompt(made, tokens, tokens * 0)


def apply(model, prompt, weight=1.0, **options):
    return call("ImagePromptApply", model, prompt, weight, **options)


def strengths(model) -> list[float]:
    """Of every patch on one of the LoRA's weights."""
    return [patch[0] for patch in model.patches.get(KEY, [])]


def separate_file(made: host.HostAdapter) -> dict[str, torch.Tensor]:
    """The same LoRA as a file of its own, under diffusers' names, as it is distributed."""
    names = {"0": "attn1", "1": "attn2"}
    return {
        f"unet.down_blocks.0.attentions.0.transformer_blocks.0.{names[number]}.processor.{rest}": tensor.clone()
        for number, rest, tensor in (
            (*key.split(".", 1), value) for key, value in made.lora.items() if key[:2] in ("0.", "1.")
        )
    }


def test_apply_puts_it_on_the_model_with_its_strength(model):
    patched = apply(model, prompt(adapter()), lora_strength=0.6)
    assert strengths(patched) == [0.6]
    assert len(patched.patches) == 2 * 4 * tiny.SD15.sites
    assert strengths(model) == []


def test_several_prompts_of_one_adapter_add_it_once(model):
    made = adapter()
    patched = apply(apply(apply(model, prompt(made)), prompt(made)), prompt(made), lora_strength=0.5)
    assert strengths(patched) == [1.0]


def test_the_same_file_loaded_again_is_the_same_adapter(model):
    patched = apply(apply(model, prompt(adapter())), prompt(adapter()))
    assert strengths(patched) == [1.0]


def test_two_adapters_each_bring_theirs(model):
    patched = apply(apply(model, prompt(adapter(1))), prompt(adapter(2)))
    assert strengths(patched) == [1.0, 1.0]


def test_a_lora_loader_before_it_is_enough(model):
    made = adapter()
    loaded, _ = comfy.sd.load_lora_for_models(model, None, separate_file(made), 0.8, 0)
    assert strengths(loaded) == [0.8]
    patched = apply(apply(loaded, prompt(made)), prompt(made))
    assert strengths(patched) == [0.8]


def test_another_lora_on_the_same_weights_does_not_count_as_it(model):
    loaded, _ = comfy.sd.load_lora_for_models(model, None, separate_file(adapter(99)), 0.8, 0)
    assert strengths(apply(loaded, prompt(adapter()))) == [0.8, 1.0]


def test_a_separate_file_takes_the_place_of_the_inner_one(model):
    made = adapter()
    patched = host.ensure_lora(model, made, 0.7, separate_file(adapter(99)))
    assert strengths(apply(patched, prompt(made))) == [0.7]


@pytest.mark.parametrize("options", [{"lora_strength": 0.0}, {"weight": 0.0}], ids=["strength 0", "weight 0"])
def test_off_means_off(model, options):
    assert apply(model, prompt(adapter()), **options).patches == {}


def test_strength_0_settles_it_for_the_prompts_that_follow(model):
    made = adapter()
    off = host.ensure_lora(model, made, 0.0)
    assert apply(off, prompt(made)).patches == {}


def test_a_prompt_of_weight_0_settles_nothing(model):
    made = adapter()
    assert strengths(apply(apply(model, prompt(made), 0.0), prompt(made))) == [1.0]


def test_an_adapter_without_one_adds_nothing(model):
    assert apply(model, prompt(adapter(lora_rank=0))).patches == {}


def test_it_survives_other_nodes_and_stays_off_other_branches(model):
    made = adapter()
    patched = apply(model, prompt(made))
    clone = patched.clone()
    assert strengths(apply(clone, prompt(made))) == [1.0]
    assert strengths(apply(model, prompt(made))) == [1.0]
