"""SDXL adapters on UNets that lack some of SDXL's sites: the pairs of the others go where they were trained."""

import pytest
import torch
from helpers import published
from image_prompt import host
from image_prompt.ipadapter_core.errors import MismatchError
from image_prompt.ipadapter_core.families.matching import match_sites
from support import parity, tiny
from support.oracle import adapter_sites, build_unet
from support.parity import LIMIT, call, make_batch, max_error, run_host, with_tokens

PRUNED = (tiny.SSD1B, tiny.VEGA)
TOKENS = 4


@pytest.fixture(params=PRUNED, ids=lambda family: family.name)
def pruned(request):
    return parity.Twins(request.param)


def by_name(unet, matrices):
    """The matrices of an SDXL adapter under the numbers of the pruned UNet, matched by diffusers' module names."""
    number_in_sdxl = adapter_sites(build_unet(tiny.SDXL.unet))
    return {
        f"{number}.to_{which}_ip.weight": matrices[f"{number_in_sdxl[name]}.to_{which}_ip.weight"]
        for name, number in adapter_sites(unet).items()
        for which in "kv"
    }


def test_an_sdxl_adapter_predicts_the_same_noise_as_the_published_code(pruned, called):
    adapter, picture, batch = (
        parity.adapter_pair("base", "SDXL"),
        tiny.picture(seed=5),
        make_batch(pruned.family),
    )
    unet = pruned.oracle.load().unet
    matrices = by_name(unet, adapter.tensors["ip_adapter"])
    oracle = pruned.oracle.use(published.processors(unet, matrices, scale=0.8, tokens=TOKENS))
    network = published.projection("base", 48, pruned.family.context)
    network.load_state_dict(adapter.tensors["image_proj"])
    with torch.no_grad():
        tokens = network(pruned.embeds("base", batch, picture)[:, 0])

    ours = run_host(pruned.apply(pruned.encode(adapter, picture), 0.8), batch)
    theirs = oracle(with_tokens(batch, tokens))

    assert max_error(ours, theirs, f"SDXL adapter on {pruned.family.name}") <= LIMIT
    assert len(called) == len(set(called)) == pruned.family.sites


def test_where_no_pair_belongs_the_adapter_is_refused():
    """KOALA numbers its blocks differently: the sites of one are not those of the other."""
    model, prompt = tiny.host_model(tiny.KOALA), parity.adapter_pair("base", "SDXL")
    with pytest.raises(MismatchError, match="for SDXL, but the connected model is KOALA-700M"):
        host.check_model(model, prompt.ours)


def test_an_adapter_of_its_own_fits_koala(called):
    model, adapter = tiny.host_model(tiny.KOALA), parity.adapter_pair("base", "KOALA-700M")
    prompt = call("ImagePromptEncode", adapter.ours, parity.lively_encoder(), tiny.picture())
    run_host(call("ImagePromptApply", model, prompt, 1.0), make_batch(tiny.KOALA))
    assert len(set(called)) == tiny.KOALA.sites


def test_an_adapter_of_fewer_sites_does_not_fit_the_whole_model():
    adapter = parity.adapter_pair("base", "SSD-1B").ours
    with pytest.raises(MismatchError, match="for SSD-1B, but the connected model is SDXL"):
        match_sites(adapter.spec, adapter.name, host.model_sites(parity.twins("SDXL").model))
