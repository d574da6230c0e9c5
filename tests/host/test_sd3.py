"""Image prompts on SD3.5 through our nodes: on the host's own model where it has the hooks, and on a stand-in everywhere."""

import sys
from dataclasses import replace

import comfy.ldm.modules.attention as host_attention
import comfy.model_management as mm
import pytest
import torch
from image_prompt import host
from image_prompt.ipadapter_core.checkpoint import Checkpoint
from image_prompt.ipadapter_core.combine import Combine, combine
from image_prompt.ipadapter_core.errors import CheckpointError, MismatchError
from image_prompt.ipadapter_core.features import Features
from image_prompt.ipadapter_core.prompt import Arrange, make_prompt
from image_prompt.ipadapter_core.prompt_file import load_prompt, save_prompt
from image_prompt.ipadapter_core.scaling import Scaling
from image_prompt.nodes import NODE_CLASS_MAPPINGS
from support import joint_transformer, tiny, tiny_sd3, transformer
from support.prompts import Reads, counted_residuals
from torch._dynamo.testing import CompileCounter

HAS_HOOKS = hasattr(host_attention, "wrap_attn")
has_hooks = pytest.mark.skipif(
    not HAS_HOOKS,
    reason="the wheel's host of August 2024 has no hooks for transformers: run with COMFYUI_PATH",
)
BLOCKS, IMAGE = 3, 9  # IMAGE: encoder tokens of one image


class OnHost:
    sample = staticmethod(tiny_sd3.sample)
    make = staticmethod(tiny_sd3.host_model)


class StandIn:
    sample = staticmethod(transformer.sample)
    make = staticmethod(joint_transformer.stand_in)


@pytest.fixture(params=["stand-in", pytest.param("host", marks=has_hooks)])
def world(request, monkeypatch):
    if request.param == "host":
        return OnHost
    if not HAS_HOOKS:
        monkeypatch.setitem(sys.modules, "comfy.patcher_extension", transformer.hooks())
        monkeypatch.setattr(host_attention, "wrap_attn", None, raising=False)
    return StandIn


@pytest.fixture
def model(world):
    return world.make(BLOCKS)


def adapter_of(seed=7, blocks=BLOCKS):
    return host.HostAdapter(Checkpoint(f"sd35-{seed}", **tiny_sd3.instantx(blocks, seed=seed)))


def prompt_of(seed=1, images=1, adapter=None, **options):
    adapter = adapter or adapter_of()
    generator = torch.Generator().manual_seed(seed)
    seen = torch.randn(images, IMAGE, tiny_sd3.FEATURE, generator=generator)
    tokens = adapter.project(Features(torch.cat((seen, torch.zeros_like(seen[:1])))))
    return make_prompt(adapter, tokens[:images], tokens[images:], **options)


@pytest.fixture
def prompt():
    return prompt_of()


def near(a, b):
    return (a - b).norm() <= 1e-5 * b.norm()


@pytest.fixture
def computed(monkeypatch):
    """Images whose K' and V' were computed, one entry each time."""
    calls, plain = [], host.HostAdapter.keys_values_at

    def counted(self, features, *args):
        calls.append(len(features))
        return plain(self, features, *args)

    monkeypatch.setattr(host.HostAdapter, "keys_values_at", counted)
    return calls


# --- each step --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cfg", [1.0, 3.0])
def test_every_site_is_called_once_a_step_and_computes_once_for_all(
    world, model, prompt, cfg, monkeypatch, computed
):
    with counted_residuals(monkeypatch) as calls:
        steered = world.sample(host.apply_prompt(model, prompt, 0.8), steps=3, cfg=cfg)
    assert (len(calls), set(calls.values())) == (BLOCKS, {3})
    assert computed == [1 if cfg == 1 else 2] * 3
    assert not near(steered, world.sample(model, steps=3, cfg=cfg))


def test_at_full_count(world, monkeypatch):
    model = world.make(tiny_sd3.RELEASED)
    prompt = prompt_of(adapter=adapter_of(blocks=tiny_sd3.RELEASED))
    assert prompt.adapter.spec.family == host.base_family(model) == "SD3.5 Large"
    with counted_residuals(monkeypatch) as calls:
        world.sample(host.apply_prompt(model, prompt, 0.8), steps=1)
    assert (len(calls), calls.total()) == (38, 38)


def test_regions_of_one_prompt_compute_once(world, model, prompt, computed):
    mask = torch.rand(1, 40, 56, generator=torch.Generator().manual_seed(2))
    parts = host.apply_prompt(host.apply_prompt(model, prompt, 0.8, mask=mask), prompt, 0.8, mask=1 - mask)
    world.sample(parts, steps=3)
    assert computed == [2] * 3


@pytest.mark.parametrize("window", [(0.0, 1.0), (0.0, 0.9)])
def test_at_most_one_read_a_step(world, model, prompt, window):
    patched, counts = host.apply_prompt(model, prompt, 0.8, *window), []
    for each in (model, patched):
        for steps in (2, 6):
            with Reads() as reads:
                world.sample(each, steps=steps)
            counts.append(reads.count)
    plain, ours = (counts[1] - counts[0]) / 4, (counts[3] - counts[2]) / 4
    assert ours - plain <= (window != (0.0, 1.0))


# --- nothing ----------------------------------------------------------------------------------------------------------


def test_weight_0_changes_nothing(world, model, prompt):
    assert torch.equal(world.sample(host.apply_prompt(model, prompt, 0.0)), world.sample(model))


def test_the_window_covers_each_step_once(world, model, prompt, computed):
    whole = world.sample(host.apply_prompt(model, prompt, 0.8), steps=4)
    first = host.apply_prompt(model, prompt, 0.8, 0.0, 0.5)
    both = host.apply_prompt(first, prompt, 0.8, 0.5, 1.0)
    assert torch.equal(world.sample(both, steps=4), whole)
    computed.clear()
    assert not near(world.sample(first, steps=4), whole)
    assert 0 < len(computed) < 4
    never = host.apply_prompt(model, prompt, 0.8, 0.999, 0.9999)
    assert torch.equal(world.sample(never, steps=2), world.sample(model, steps=2))


def test_a_curve_is_a_weight_in_each_step(world, model, prompt):
    patched = run_node(
        "ImagePromptApply", model=model, image_prompt=prompt, weight=0.8, weight_curve="0:0.5, 1:0.5"
    )
    assert near(world.sample(patched), world.sample(host.apply_prompt(model, prompt, 0.4)))


def test_clones_and_siblings_stay_as_they_were(world, model, prompt):
    """A/B/A, and a branch that is bypassed."""
    plain = world.sample(model)
    one = host.apply_prompt(model, prompt, 0.8)
    first = world.sample(one)
    other = host.apply_prompt(one, prompt_of(2), 0.4)
    assert not near(world.sample(other), first)
    assert torch.equal(world.sample(one), first)
    assert torch.equal(world.sample(model), plain)
    assert torch.equal(world.sample(one.clone()), first)


def test_negated_adds_nothing_to_the_positive(world, model, prompt):
    patched = host.apply_prompt(model, prompt.negated, 0.8)
    assert torch.equal(world.sample(patched, cfg=1.0), world.sample(model, cfg=1.0))
    assert not near(world.sample(patched, cfg=3.0), world.sample(model, cfg=3.0))


def test_no_image_is_not_the_same_as_nothing(world, model, prompt):
    """Guided at 0, a step is what the negative alone says: there stand zero features, which the sites do attend to."""
    steered = world.sample(host.apply_prompt(model, prompt, 0.8), steps=1, cfg=0.0)
    assert not near(steered, world.sample(model, steps=1, cfg=0.0))
    assert near(steered, world.sample(host.apply_prompt(model, prompt_of(2), 0.8), steps=1, cfg=0.0))


# --- where and whose --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(8, 12), (9, 7)])
def test_masks_add_up(world, model, prompt, size):
    mask = torch.rand(1, 40, 56, generator=torch.Generator().manual_seed(2))
    parts = host.apply_prompt(model, prompt, 0.8, mask=mask)
    parts = host.apply_prompt(parts, prompt, 0.8, mask=1 - mask)
    whole = world.sample(host.apply_prompt(model, prompt, 0.8), size=size)
    assert near(world.sample(parts, size=size), whole)


def test_a_mask_keeps_a_prompt_in_its_place(world, model, prompt):
    mask = torch.zeros(1, 64, 96)
    mask[:, :, :48] = 1
    weights = {f"joint {n}": float(n == BLOCKS - 1) for n in range(BLOCKS)}
    masked = host.apply_prompt(model, prompt, 1.0, mask=mask, layer_weights=weights)
    change = (world.sample(masked, steps=1, cfg=1.0) - world.sample(model, steps=1, cfg=1.0)).abs()
    assert change[..., :6].mean() > 0
    assert change[..., 6:].max() == 0


def test_images_for_another_number_of_pictures_are_refused(world, model):
    prompt = prompt_of(images=2, arrange=Arrange.ONE_EACH)
    with pytest.raises(MismatchError, match="2 images, one per picture, but 3 pictures"):
        world.sample(host.apply_prompt(model, prompt, 0.8), pictures=3)


def test_a_batch_gives_what_its_pictures_give_alone(world, model):
    prompt = prompt_of(images=2, arrange=Arrange.ONE_EACH)
    first = replace(prompt, cond=prompt.cond[:1], value_scale=prompt.value_scale[:1])
    together = world.sample(host.apply_prompt(model, prompt, 0.8), pictures=2)
    alone = world.sample(host.apply_prompt(model, first, 0.8), pictures=2)
    assert near(together[:1], alone[:1])
    assert not near(together[1:], alone[1:])


def test_several_images_stand_beside_one_zero_image(world, model):
    """Fewer keys on the negative's rows, in the same call: filled up with keys that are hidden."""
    prompt = prompt_of(images=3)
    assert prompt.uncond.shape[1] == IMAGE
    steered = world.sample(host.apply_prompt(model, prompt, 0.8), steps=1, cfg=0.0)
    assert near(steered, world.sample(host.apply_prompt(model, prompt_of(2), 0.8), steps=1, cfg=0.0))


def test_an_image_of_weight_0_keeps_its_keys_and_one_alone_adds_nothing(world, model):
    plain = world.sample(model, cfg=1.0)
    nothing = prompt_of(image_weights=[0.0])
    assert torch.equal(world.sample(host.apply_prompt(model, nothing, 0.8), cfg=1.0), plain)
    halved = host.apply_prompt(model, prompt_of(image_weights=[0.5]), 0.8)
    assert near(
        world.sample(halved, cfg=1.0), world.sample(host.apply_prompt(model, prompt_of(), 0.4), cfg=1.0)
    )
    one, other = (prompt_of(images=2, image_weights=weights) for weights in ([1.0, 0.0], [1.0, 1.0]))
    one, other = (world.sample(host.apply_prompt(model, each, 0.8), cfg=1.0) for each in (one, other))
    assert not near(one, other)


def test_the_order_of_two_adapters_does_not_matter(world, model):
    one, other = prompt_of(1), prompt_of(2, adapter=adapter_of(8))
    there = host.apply_prompt(host.apply_prompt(model, one, 0.8), other, 0.6)
    back = host.apply_prompt(host.apply_prompt(model, other, 0.6), one, 0.8)
    assert near(world.sample(there), world.sample(back))
    assert not near(world.sample(there), world.sample(host.apply_prompt(model, one, 0.8)))


# --- other packs ------------------------------------------------------------------------------------------------------


def counting(calls):
    def patch(args, extra):
        calls.append(1)
        out = extra["original_block"](args)
        out["img"] = out["img"] * 1.01
        return out

    return patch


def skip(args, extra):
    return args


def foreign(model, patch, blocks=(1,)):
    model = model.clone()
    for number in blocks:
        model.set_model_patch_replace(patch, "dit", "double_block", number)
    return model


def test_another_packs_patch_runs_as_often_before_us_and_behind_us(world, model, prompt):
    calls = []
    alone = world.sample(foreign(model, counting(calls)))
    without = len(calls)
    results = []
    for order in ("before", "behind"):
        calls.clear()
        if order == "before":
            both = host.apply_prompt(foreign(model, counting(calls)), prompt, 0.8)
        else:
            both = foreign(host.apply_prompt(model, prompt, 0.8), counting(calls))
        results.append(world.sample(both))
        assert len(calls) == without
    assert torch.equal(*results)
    assert not near(results[0], alone)


def test_another_packs_attention_runs_as_often(world, model, prompt):
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


def test_a_block_that_is_left_out_adds_nothing(world, model, prompt, monkeypatch):
    skipped = foreign(model, skip, range(BLOCKS))
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
    model, counter = OnHost.make(BLOCKS), CompileCounter()
    mask = torch.rand(1, 40, 56, generator=torch.Generator().manual_seed(2))
    for seed in (1, 2):
        patched = host.apply_prompt(model, prompt_of(seed), 0.8, 0.0, 0.9, mask=mask)
        compiled = patched.clone()
        options = {"guard_filter_fn": filters} if filters else None
        set_torch_compile_wrapper(model=compiled, backend=counter, options=options)
        assert near(OnHost.sample(compiled), OnHost.sample(patched))
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
    model = OnHost.make(BLOCKS)
    OnHost.sample(host.apply_prompt(model, prompt, 0.8), steps=1)
    assert prompt.adapter.patcher.model in loaded
    assert model.model in loaded


def test_nothing_is_kept_when_sampling_is_done(world, model, prompt):
    world.sample(host.apply_prompt(model, prompt, 0.8))
    if world is OnHost:
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
