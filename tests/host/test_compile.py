"""Under torch.compile: the pictures of eager, no graph break, no new compilation from step to step."""

import pytest
import torch
from image_prompt import host
from support import tiny
from support.sampling import sample
from torch._dynamo.testing import CompileCounter

CLOSED, OPEN = 10.0, 0.5  # sigmas before a window's start and in it


@pytest.fixture(autouse=True)
def fresh_compiler():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def windowed(model, prompt, weight=1.0):
    mask = torch.rand(1, 32, 32, generator=torch.Generator().manual_seed(2))
    patched = host.apply_prompt(model, prompt, weight, 0.5, 1.0)
    return host.apply_prompt(patched, prompt, 0.5 * weight, mask=mask)


def with_unet(model, unet):
    model = model.clone()
    model.add_object_patch("diffusion_model", unet)
    return model


def test_one_graph_without_breaks_serves_all_steps_and_prompts(sd15, sd15_prompt):
    counter = CompileCounter()
    unet = sd15.get_model_object("diffusion_model")
    unet = torch.compile(unet, backend=counter, fullgraph=True)  # a break would raise
    pictures = []
    for weight in (1.0, 0.3):
        patched = windowed(sd15, sd15_prompt, weight)
        compiled = with_unet(patched, unet)
        for sigma in (CLOSED, OPEN):
            pictures.append(tiny.run_unet(patched, tiny.SD15, sigma=sigma))
            assert torch.equal(tiny.run_unet(compiled, tiny.SD15, sigma=sigma), pictures[-1])
    assert counter.frame_count == 1
    assert len({picture.sum().item() for picture in pictures}) == 4


def compiled(model):
    """By torch.compile directly, all guards on. Traced, but not translated, as below."""
    patched = model.clone()
    patched.add_object_patch(
        "diffusion_model", torch.compile(model.get_model_object("diffusion_model"), backend="eager")
    )
    return patched


def compiled_as_the_host_does(model):
    """What TorchCompileModel gives."""
    try:
        from comfy_api.torch_helpers import set_torch_compile_wrapper
    except ImportError:  # hosts before wrappers
        return compiled(model)
    from comfy_extras import nodes_torch_compile

    filters = getattr(nodes_torch_compile, "skip_torch_compile_dict", None)
    patched = model.clone()
    options = {"guard_filter_fn": filters} if filters else None
    set_torch_compile_wrapper(model=patched, backend="eager", options=options)
    return patched


@pytest.mark.slow
def test_the_hosts_compiled_model_samples_the_picture_of_eager(sd15, sd15_prompt, monkeypatch):
    """Each conditioning in a call of its own: the same shapes, and on later hosts no guard tells them apart."""
    monkeypatch.setattr("comfy.model_management.get_free_memory", lambda *_, **__: 0)
    patched = windowed(sd15, sd15_prompt)
    eager = sample(patched, tiny.SD15, steps=3)
    compiled = sample(compiled_as_the_host_does(patched), tiny.SD15, steps=3)
    assert (compiled - eager).abs().max() < 2e-5 * eager.abs().max()
    assert (sample(sd15, tiny.SD15, steps=3) - eager).abs().max() > 0.01 * eager.abs().max()


@pytest.mark.slow
@pytest.mark.parametrize("compiles", [compiled, compiled_as_the_host_does])
def test_a_graph_of_a_model_with_no_prompt_or_fewer_sites_serves_no_other(sd15, sd15_prompt, compiles):
    """The host drops all guards on patches, and the compiler itself makes none for empty slots."""
    few = host.apply_prompt(sd15, sd15_prompt, 1.0, weight_type="style transfer")
    for model in (sd15, few, windowed(sd15, sd15_prompt), sd15, few):
        eager = sample(model, tiny.SD15, steps=2)
        again = sample(compiles(model), tiny.SD15, steps=2)
        assert (again - eager).abs().max() < 2e-5 * eager.abs().max()
