"""Both packs in one graph: patches on patches in both orders, and each one's adapters in the other's nodes."""

import pytest
import torch
from image_prompt import host
from image_prompt.nodes.compat import settings
from support import peer, tiny
from support.parity import LIMIT, max_error

pytestmark = pytest.mark.peer


@pytest.fixture(autouse=True)
def exact(monkeypatch):
    monkeypatch.setenv(settings.EXACT_LEGACY.variable, "1")


@pytest.fixture(scope="module")
def setup():
    return peer.setup("SD1.5", "plus")


def apply(call, setup, model, seed, **more):
    given = {
        "ipadapter": setup.adapter,
        "clip_vision": setup.encoder,
        "image": tiny.picture(seed, 64, 64),
    } | more
    return call("IPAdapterAdvanced", model=model, **given)[0]


@pytest.mark.parametrize(
    "order", [("theirs", "ours"), ("ours", "theirs"), ("ours", "theirs", "ours")], ids=str
)
def test_a_chain_of_both_is_a_chain_of_one(setup, order):
    calls = {"theirs": peer.theirs, "ours": peer.ours}
    mixed = one = setup.model
    for seed, name in enumerate(order, 5):
        mixed, one = apply(calls[name], setup, mixed, seed), apply(peer.theirs, setup, one, seed)
    assert max_error(setup.forward(mixed), setup.forward(one), " then ".join(order)) <= LIMIT


def test_their_node_reads_our_adapter(setup):
    ours = host.adapter_of(setup.adapter)
    expected = setup.forward(apply(peer.theirs, setup, setup.model, 5))
    for value in (ours, setup.pipeline | {"ipadapter": {"file": "a", "model": ours}}):
        assert torch.equal(
            setup.forward(apply(peer.theirs, setup, setup.model, 5, ipadapter=value)), expected
        )


def test_our_nodes_read_their_values(setup):
    prompt = peer.ours(
        "ImagePromptEncode", ipadapter=setup.pipeline, clip_vision=setup.encoder, image=setup.image
    )[0]
    assert not torch.equal(
        setup.forward(host.apply_prompt(setup.model, prompt, 1.0)), setup.forward(setup.model)
    )
