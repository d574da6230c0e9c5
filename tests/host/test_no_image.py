"""What stands for 'no image' on the negative side, as a setting of Encode Image, for Flux and for UNets."""

import pytest
import torch
from image_prompt import host
from image_prompt.ipadapter_core.checkpoint import Checkpoint, role_names
from image_prompt.ipadapter_core.errors import SettingError
from image_prompt.ipadapter_core.features import Features
from image_prompt.nodes import NODE_CLASS_MAPPINGS
from support import tiny, tiny_flux, transformer
from support.prompts import counted_residuals, make_adapter


def xlabs():
    roles = {"image_proj": {}, "ip_adapter": {}}
    tensors = tiny_flux.xlabs(2)
    for key, (role, name) in role_names(tensors).items():
        roles[role][name] = tensors[key]
    return host.HostAdapter(Checkpoint("xlabs", **roles))


@pytest.fixture(params=["xlabs", "base", "plus"])
def adapter(request):
    return xlabs() if request.param == "xlabs" else make_adapter(request.param, tiny.SD15)


def encode(adapter, encoder, **more):
    given = {"ipadapter": adapter, "clip_vision": encoder, "image": tiny.picture(1), **more}
    return NODE_CLASS_MAPPINGS["ImagePromptEncode"]().encode(**given)[0]


def near(a, b):
    return (a - b).norm() <= 1e-5 * b.norm()


def test_each_choice_is_what_it_says(adapter, encoder):
    size = 32
    black = encode(adapter, encoder, negative_image=torch.zeros(1, size, size, 3)).uncond
    assert near(encode(adapter, encoder, no_image="black picture").uncond, black)
    assert encode(adapter, encoder, no_image="nothing").uncond.shape[1] == 0
    features = host.encode_images(encoder, adapter.spec, host.Reference(tiny.picture(1)))
    zero = adapter.project(Features(torch.zeros_like(features)))
    assert near(encode(adapter, encoder, no_image="zero features").uncond, zero)
    grey = encode(adapter, encoder, no_image="grey picture").uncond
    mean = torch.tensor((0.48145466, 0.4578275, 0.40821073)).expand(1, size, size, 3)
    near_grey = encode(adapter, encoder, negative_image=mean).uncond
    assert (grey - near_grey).norm() < 0.1 * grey.norm()  # its pixels are rounded to 8 bits


def test_as_trained_is_the_default_and_what_the_spec_says(adapter, encoder):
    named = {"xlabs": "black picture", "base": "zero features", "plus": "grey picture"}[
        adapter.spec.variant.value
    ]
    plain = encode(adapter, encoder)
    for choice in ("as trained", named):
        assert torch.equal(encode(adapter, encoder, no_image=choice).uncond, plain.uncond)
    assert near(encode(adapter, encoder, no_image="nothing").cond, plain.cond)


def test_nothing_leaves_the_negative_of_a_unet_alone(encoder):
    model = tiny.host_model(tiny.SD15)
    prompt = encode(make_adapter("base", tiny.SD15), encoder, no_image="nothing")
    steered, plain = (
        tiny.run_unet(each, tiny.SD15) for each in (host.apply_prompt(model, prompt, 0.8), model)
    )
    assert torch.equal(steered[:1], plain[:1])  # the negative stands first
    assert not torch.equal(steered[1:], plain[1:])


def test_nothing_leaves_the_negative_of_flux_alone_though_its_matrices_have_a_bias(encoder, monkeypatch):
    transformer.install_hooks(monkeypatch)
    model = transformer.stand_in(2, 2)
    prompt = encode(xlabs(), encoder, no_image="nothing")
    patched = host.apply_prompt(model, prompt, 0.8)
    with counted_residuals(monkeypatch) as calls:
        negative = transformer.sample(patched, steps=1, cfg=0.0)
    assert torch.equal(negative, transformer.sample(model, steps=1, cfg=0.0))
    assert calls
    assert not torch.equal(transformer.sample(patched, steps=1), transformer.sample(model, steps=1))


def test_a_negative_image_and_another_choice_are_refused(encoder):
    with pytest.raises(
        SettingError, match=r"negative_image stands in for 'no image', and no_image is 'nothing'"
    ):
        encode(xlabs(), encoder, negative_image=tiny.picture(2), no_image="nothing")
