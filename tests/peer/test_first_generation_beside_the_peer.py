"""The first generation's apply and encoder nodes beside the pack as it was before March 2024 (commit 6a411dc)."""

import pytest
import torch
from image_prompt.nodes.compat import settings
from image_prompt.nodes.compat.first_generation import LegacyEncoderNode
from support import peer, tiny
from support.parity import LIMIT, max_error
from support.peer import first_pack

pytestmark = pytest.mark.peer


@pytest.fixture(autouse=True)
def exact(monkeypatch):
    monkeypatch.setenv(settings.EXACT_LEGACY.variable, "1")


def both(setup, run=None, node_id="IPAdapterApply", **more):
    given = {"model": setup.model, "ipadapter": setup.adapter} | more
    if node_id != "IPAdapterApplyEncoded":
        given |= {"clip_vision": setup.encoder, "image": more.get("image", setup.image)}
    their, our = (
        peer.run(nodes, node_id, **given)[0] for nodes in (first_pack().NODE_CLASS_MAPPINGS, peer.OURS)
    )
    return setup.forward(our, **(run or {})), setup.forward(their, **(run or {}))


def mask(n=1):
    return torch.rand(n, 64, 64, generator=torch.Generator().manual_seed(9))


CASES = {
    **{kind: ({"weight_type": kind}, {}) for kind in ("original", "linear", "channel penalty")},
    "noise": ({"noise": 0.4}, {}),
    "mask": ({"attn_mask": mask()}, {}),
    "mask, odd": ({"attn_mask": mask()}, {"size": (13, 21)}),
    "several": ({"image": tiny.picture(6, 64, 64, 3)}, {}),
    "unfolded": ({"image": tiny.picture(6, 64, 64, 2), "unfold_batch": True}, {"pictures": 3}),
    "window": ({"start_at": 0.3, "end_at": 0.9}, {"sigma": 2.0}),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("kind", ["base", "plus"])
@pytest.mark.parametrize("family", ["SD1.5", "SDXL"])
def test_apply(family, kind, name):
    more, run = CASES[name]
    ours, theirs = both(peer.setup(family, kind), run, weight=0.8, **more)
    assert max_error(ours, theirs, f"{name} {family} {kind}") <= LIMIT


@pytest.mark.parametrize("plus", [False, True])
@pytest.mark.parametrize("noise", [0.0, 0.3])
def test_encoder_and_encoded(plus, noise):
    setup = peer.setup("SD1.5", "plus" if plus else "base")
    given = {"clip_vision": setup.encoder, "image_1": setup.image, "image_2": tiny.picture(2, 50, 70)}
    given |= {"ipadapter_plus": plus, "noise": noise, "weight_1": 0.38, "weight_2": 0.9}
    their = peer.run(first_pack().NODE_CLASS_MAPPINGS, "IPAdapterEncoder", **given)[0]
    our = LegacyEncoderNode().preprocess(**given)[0]
    # the warp differs in the last bits, and the encoder reads pictures in 8 bits
    torch.testing.assert_close(our, their, atol=1e-3 if noise else 1e-5, rtol=0)
    ours, theirs = both(setup, node_id="IPAdapterApplyEncoded", embeds=their)
    assert max_error(ours, theirs, "encoded") <= LIMIT


@pytest.mark.parametrize("tiles", [0, 1, 2])
@pytest.mark.parametrize("size", [(64, 96), (64, 64)], ids=str)
def test_masked_tiles(size, tiles):
    setup = peer.setup("SD1.5", "plus")
    ours, theirs = both(
        setup,
        node_id="IPAdapterTilesMasked",
        image=tiny.picture(6, *size),
        short_side_tiles=tiles,
        tile_weight=0.6,
    )
    assert max_error(ours, theirs, f"{tiles} tiles of {size}") <= LIMIT
