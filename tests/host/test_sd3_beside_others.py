"""Image prompts on SD3.5 beside other packs, in memory, saved and through the nodes, and what is refused."""

from dataclasses import replace

import comfy.model_management as mm
import pytest
import torch
from helpers import sd3
from helpers.beside import (
    assert_attention_runs_as_often,
    assert_patch_runs_as_often,
    foreign,
    has_hooks,
    near,
    skip,
)
from helpers.sd3 import BLOCKS, IMAGE, adapter_of, prompt_of
from image_prompt import host
from image_prompt.ipadapter_core.combine import Combine, combine
from image_prompt.ipadapter_core.errors import CheckpointError, MismatchError
from image_prompt.ipadapter_core.prompt_file import load_prompt, save_prompt
from image_prompt.ipadapter_core.scaling import Scaling
from image_prompt.nodes import NODE_CLASS_MAPPINGS, compat
from support import peer, tiny, tiny_sd3
from support.prompts import counted_residuals
from torch._dynamo.testing import CompileCounter


@pytest.fixture
def world(sd3_world):
    return sd3_world


@pytest.fixture
def model(sd3_model):
    return sd3_model


@pytest.fixture
def prompt(sd3_prompt):
    return sd3_prompt


# --- other packs ------------------------------------------------------------------------------------------------------


def test_another_packs_patch_runs_as_often_before_us_and_behind_us(world, model, prompt):
    assert_patch_runs_as_often(world, model, prompt, (("double_block", 1),))


def test_another_packs_attention_runs_as_often(world, model, prompt):
    assert_attention_runs_as_often(world, model, prompt)


def test_a_block_that_is_left_out_adds_nothing(world, model, prompt, monkeypatch):
    skipped = foreign(model, skip, [("double_block", n) for n in range(BLOCKS)])
    with counted_residuals(monkeypatch) as calls:
        assert torch.equal(world.sample(host.apply_prompt(skipped, prompt, 0.8)), world.sample(skipped))
    assert calls.total() == 0


@has_hooks
def test_the_hosts_compiled_model_samples_the_picture_of_eager():
    """In one graph, which serves another prompt too: what is of a prompt or a step is not traced."""
    from comfy_api.torch_helpers import set_torch_compile_wrapper
    from comfy_extras import nodes_torch_compile

    torch._dynamo.reset()
    filters = getattr(nodes_torch_compile, "skip_torch_compile_dict", None)
    model, counter = sd3.OnHost.make(BLOCKS), CompileCounter()
    mask = torch.rand(1, 40, 56, generator=torch.Generator().manual_seed(2))
    for seed in (1, 2):
        patched = host.apply_prompt(model, prompt_of(seed), 0.8, 0.0, 0.9, mask=mask)
        compiled = patched.clone()
        options = {"guard_filter_fn": filters} if filters else None
        set_torch_compile_wrapper(model=compiled, backend=counter, options=options)
        assert near(sd3.OnHost.sample(compiled), sd3.OnHost.sample(patched))
    torch._dynamo.reset()


# --- memory -----------------------------------------------------------------------------------------------------------


def test_the_adapter_stands_beside_the_model_once(world, model, prompt):
    patched = host.apply_prompt(
        host.apply_prompt(model, prompt, 0.8), prompt_of(2, adapter=prompt.adapter), 0.4
    )
    beside = patched.get_additional_models_with_key("image_prompt")
    assert [each.model for each in beside] == [prompt.adapter.patcher.model]
    assert not model.get_additional_models_with_key("image_prompt")
    assert len(patched.clone().get_additional_models_with_key("image_prompt")) == 1


@has_hooks
def test_the_host_loads_it_for_sampling(prompt, monkeypatch):
    loaded, plain = [], mm.load_models_gpu

    def watched(models, *args, **kwargs):
        loaded.extend(each.model for each in models)
        return plain(models, *args, **kwargs)

    monkeypatch.setattr(mm, "load_models_gpu", watched)
    model = sd3.OnHost.make(BLOCKS)
    sd3.OnHost.sample(host.apply_prompt(model, prompt, 0.8), steps=1)
    assert prompt.adapter.patcher.model in loaded
    assert model.model in loaded


def test_nothing_is_kept_when_sampling_is_done(world, model, prompt):
    world.sample(host.apply_prompt(model, prompt, 0.8))
    if world is sd3.OnHost:
        pairs = prompt.timed_pairs
        assert [*pairs._features, *pairs._step, *pairs._call] == []


# --- prompts ----------------------------------------------------------------------------------------------------------


def test_saved_and_loaded_it_is_the_same(world, model, tmp_path):
    prompt = prompt_of(images=2, image_weights=[1.0, 0.5])
    save_prompt(prompt, tmp_path / "x.safetensors")
    loaded = load_prompt(prompt.adapter, tmp_path / "x.safetensors")
    assert loaded.tokens_per_image == IMAGE
    there, back = (world.sample(host.apply_prompt(model, each, 0.8)) for each in (prompt, loaded))
    assert torch.equal(there, back)
    save_prompt(replace(prompt, tokens_per_image=7), tmp_path / "y.safetensors")
    with pytest.raises(CheckpointError, match="each image has 7 tokens"):
        load_prompt(prompt.adapter, tmp_path / "y.safetensors")


def test_combined_they_are_images_of_one_prompt(world, model):
    adapter = adapter_of()
    both = prompt_of(images=2, adapter=adapter)
    parts = [replace(both, cond=cond, value_scale=torch.ones(1, IMAGE)) for cond in both.cond.split(IMAGE, 1)]
    joined = combine(parts, Combine.CONCAT, [1.0, 1.0])
    there, back = (world.sample(host.apply_prompt(model, each, 0.8), cfg=1.0) for each in (both, joined))
    assert near(there, back)
    other = replace(parts[0], tokens_per_image=3)
    with pytest.raises(MismatchError, match="different encoders"):
        combine([parts[0], other], Combine.CONCAT, [1.0, 1.0])


# --- sentences --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("weight_type", "words"), [("weak input", "whose blocks are joint"), ("style transfer", "is known for")]
)
def test_weight_types_of_unets_are_refused(model, prompt, weight_type, words):
    with pytest.raises(MismatchError, match=words):
        host.apply_prompt(model, prompt, 1.0, weight_type=weight_type)


def test_ramps_are_over_all_blocks(model, prompt):
    patched = host.apply_prompt(model, prompt, 1.0, weight_type="ease in")
    weights = [residuals[0].site.weight for residuals in host.residuals_of(patched).values()]
    assert weights == sorted(weights, reverse=True)
    assert len(set(weights)) == BLOCKS


def test_scaled_keys_are_refused(model, prompt):
    settings = host.ApplySettings((1.0,) * BLOCKS, scaling=Scaling.KEYS_TOO)
    with pytest.raises(MismatchError, match="attends to the picture's own keys"):
        host.add_prompt(model, prompt, settings)


@pytest.mark.parametrize("part", ["ln_q", "ln_k"])
def test_norms_that_cannot_be_taken_back_are_refused(world, model, prompt, part):
    getattr(model.model.diffusion_model.joint_blocks[1].x_block.attn, part).weight[3] = 0
    with pytest.raises(MismatchError, match="norms its queries or keys to almost nothing"):
        world.sample(host.apply_prompt(model, prompt, 0.8))


def test_another_model_is_refused(prompt, sd15, world):
    with pytest.raises(MismatchError, match=r"but the connected model is SD1\.5"):
        host.apply_prompt(sd15, prompt, 1.0)
    medium = world.make(24)
    with pytest.raises(MismatchError, match=r"but the connected model is SD3 Medium or SD3\.5 Medium"):
        host.apply_prompt(medium, prompt_of(adapter=adapter_of(blocks=38)), 1.0)


# --- through the nodes ------------------------------------------------------------------------------------------------


@pytest.fixture
def adapter_file(tmp_path, monkeypatch):
    import folder_paths

    torch.save(tiny_sd3.instantx(BLOCKS, feature=64), tmp_path / "zzz.bin")
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "ipadapter", ([str(tmp_path)], {".bin"}))
    return "zzz.bin"


def run_node(name, **inputs):
    node = NODE_CLASS_MAPPINGS[name]()
    return getattr(node, node.FUNCTION)(**inputs)[0]


def test_a_file_under_any_name_through_the_nodes(world, model, adapter_file, encoder):
    adapter = run_node("ImagePromptLoader", ipadapter_file=adapter_file)
    prompt = run_node("ImagePromptEncode", ipadapter=adapter, clip_vision=encoder, image=tiny.picture(1))
    assert (prompt.cond.shape, prompt.uncond.shape) == ((1, 17, 64), (1, 17, 64))
    assert not prompt.uncond.any()
    assert prompt.cond.std() > 0
    patched = run_node("ImagePromptApply", model=model, image_prompt=prompt, weight=0.8)
    assert not near(world.sample(patched), world.sample(model))


def test_another_pack_reads_the_files_tensors(adapter_file):
    adapter = run_node("ImagePromptLoader", ipadapter_file=adapter_file)
    released = tiny_sd3.instantx(BLOCKS, feature=64)
    for role, tensors in released.items():
        assert adapter[role].keys() == tensors.keys()
        assert all(torch.equal(adapter[role][key], tensor) for key, tensor in tensors.items())


@pytest.mark.parametrize("unfold", [False, True])
def test_older_ids_take_it_with_its_own_no_image(world, model, adapter_file, encoder, unfold):
    adapter = run_node("ImagePromptLoader", ipadapter_file=adapter_file)
    pictures = torch.cat([tiny.picture(1), tiny.picture(2)]) if unfold else tiny.picture(1)
    given = {"ipadapter": adapter, "clip_vision": encoder, "image": pictures}
    node_id = "IPAdapterBatch" if unfold else "IPAdapterAdvanced"
    theirs = peer.run(compat.node_classes(), node_id, model=model, **given)[0]
    assert not near(world.sample(theirs, pictures=len(pictures)), world.sample(model, pictures=len(pictures)))
