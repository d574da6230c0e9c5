"""Flux compiled by the host's own wrapper: one graph for all steps and prompts, and the prompt stays where it breaks."""

import pytest
import torch
from helpers.beside import foreign, has_hooks, near
from helpers.flux import OnHost, prompt_of
from image_prompt import host
from torch._dynamo.testing import CompileCounter


@pytest.fixture(params=["xlabs", "instantx"])
def kind(request):
    return request.param


@pytest.fixture
def fresh_compiler():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@has_hooks
def test_the_hosts_compiled_model_samples_the_picture_of_eager(kind, fresh_compiler):
    """In one graph, which serves another prompt too: what is of a prompt or a step is not traced."""
    from comfy_api.torch_helpers import set_torch_compile_wrapper
    from comfy_extras import nodes_torch_compile

    filters = getattr(nodes_torch_compile, "skip_torch_compile_dict", None)
    model, counter = OnHost.make(), CompileCounter()
    mask = torch.rand(1, 40, 56, generator=torch.Generator().manual_seed(2))
    for seed in (1, 2):
        patched = host.apply_prompt(model, prompt_of(kind, seed), 0.8, 0.0, 0.9, mask=mask)
        compiled = patched.clone()
        options = {"guard_filter_fn": filters} if filters else None
        set_torch_compile_wrapper(model=compiled, backend=counter, options=options)
        assert near(OnHost.sample(compiled), OnHost.sample(patched))


@has_hooks
@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
@pytest.mark.parametrize("breaks", [False, True])
def test_a_compiled_model_keeps_the_prompt_whether_its_graph_breaks_or_not(
    kind, backend, breaks, fresh_compiler
):
    """A foreign block that the compiler cannot trace cuts the graph between our blocks."""
    from comfy_api.torch_helpers import set_torch_compile_wrapper

    def untraced(args, original):
        torch._dynamo.graph_break()
        return original["original_block"](args)

    model = OnHost.make()
    model = foreign(model, untraced, [("double_block", 1)]) if breaks else model
    patched = host.apply_prompt(model, prompt_of(kind), 0.8, 0.0, 0.9)
    compiled = patched.clone()
    set_torch_compile_wrapper(model=compiled, backend=backend)
    eager = OnHost.sample(patched)
    assert near(OnHost.sample(compiled), eager)
    assert not near(eager, OnHost.sample(model))
