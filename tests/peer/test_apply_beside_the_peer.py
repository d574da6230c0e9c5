"""Every apply node beside the de-facto pack's, same call, same models: with exact legacy results the same numbers."""

import pytest
import torch
from image_prompt.ipadapter_core.scaling import Scaling
from image_prompt.nodes.compat import settings
from image_prompt.nodes.compat.arithmetic.two_image_weights import ALL_TYPES
from support import peer, tiny
from support.parity import LIMIT, max_error

pytestmark = pytest.mark.peer
FAMILIES, KINDS = ("SD1.5", "SDXL"), ("base", "plus", "full")


@pytest.fixture(autouse=True)
def exact(monkeypatch):
    monkeypatch.setenv(settings.EXACT_LEGACY.variable, "1")


def inputs_of(setup, node_id, **more):
    """The connections of a node: model, adapter, encoder and pictures, as far as it has such inputs."""
    node = peer.OURS[node_id]
    names = {**node.INPUT_TYPES()["required"], **node.INPUT_TYPES().get("optional", {})}
    offers = {
        "model": setup.model,
        "ipadapter": setup.pipeline if node_id == "IPAdapter" else setup.adapter,
        "clip_vision": setup.encoder,
        "image": setup.image,
        "image_style": setup.image,
        "image_composition": tiny.picture(4, 64, 64),
    }
    return {name: value for name, value in offers.items() if name in names} | more


def gap(setup, node_id, run=None, **more):
    """Largest difference of the UNet's outputs under their node and ours, called alike."""
    given = inputs_of(setup, node_id, **more)
    models = [call(node_id, **given)[0] for call in (peer.theirs, peer.ours)]
    their, our = (setup.forward(model, **(run or {})) for model in models)
    base = setup.forward(setup.model, **(run or {}))
    return max_error(our, their, f"{node_id} {setup.family.name} {setup.kind}"), (
        their - base
    ).abs().max().item()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("weight_type", ALL_TYPES)
def test_weight_types_and_scalings(family, kind, weight_type):
    setup = peer.setup(family, kind)
    for scaling in Scaling:
        error, effect = gap(
            setup, "IPAdapterAdvanced", weight=0.8, weight_type=weight_type, embeds_scaling=scaling.value
        )
        assert error <= LIMIT, scaling
        assert effect > 100 * LIMIT


def pictures(n, seed=6, height=64, width=64):
    return tiny.picture(seed, height, width, n)


def mask(n=1, height=64, width=64):
    return torch.rand(n, height, width, generator=torch.Generator().manual_seed(9))


FRAMES = {"pictures": 3}
NODES = {
    "simple": ("IPAdapter", {"weight": 0.7}, {}),
    "simple, more important": ("IPAdapter", {"weight_type": "prompt is more important"}, {}),
    "simple, any style": ("IPAdapter", {"weight_type": "style transfer"}, {}),
    "negative image": ("IPAdapterAdvanced", {"image_negative": pictures(1, 8)}, {}),
    "three images against two": (
        "IPAdapterAdvanced",
        {"image": pictures(3), "image_negative": pictures(2, 8)},
        {},
    ),
    "not square": ("IPAdapterAdvanced", {"image": pictures(1, 6, 60, 97)}, {}),
    "window at its border": ("IPAdapterAdvanced", {"start_at": 0.2, "end_at": 0.8}, {"sigma": 1.0}),
    "window passed": ("IPAdapterAdvanced", {"end_at": 0.1}, {"sigma": 0.3}),
    "start after end": ("IPAdapterAdvanced", {"start_at": 0.8, "end_at": 0.2}, {"sigma": 1.0}),
    "mask": ("IPAdapterAdvanced", {"attn_mask": mask()}, {}),
    "mask, odd sizes": ("IPAdapterAdvanced", {"attn_mask": mask()}, {"size": (13, 21)}),
    "mask, odd sizes, larger": ("IPAdapterAdvanced", {"attn_mask": mask()}, {"size": (25, 39)}),
    "two masks, three pictures": ("IPAdapterAdvanced", {"attn_mask": mask(2)}, FRAMES),
    "weight list, not unfolded": ("IPAdapterAdvanced", {"weight": [0.3, 0.9]}, {}),
    "three images, cond alone": ("IPAdapterAdvanced", {"image": pictures(3)}, {"chunks": (0,)}),
    "batch": ("IPAdapterBatch", {"image": pictures(3)}, FRAMES),
    "batch, fewer images": ("IPAdapterBatch", {"image": pictures(2)}, FRAMES),
    "batch, more images": ("IPAdapterBatch", {"image": pictures(5), "encode_batch_size": 2}, FRAMES),
    "batch, weights": ("IPAdapterBatch", {"weight": [0.1, 0.5, 1.0]}, FRAMES),
    "batch, weights and K+V": (
        "IPAdapterBatch",
        {"image": pictures(3), "weight": [0.1, 0.5], "embeds_scaling": "K+V"},
        FRAMES,
    ),
    "batch, masks": ("IPAdapterBatch", {"image": pictures(3), "attn_mask": mask(3)}, FRAMES),
    "animation window": (
        "IPAdapterBatch",
        {"image": pictures(4), "weight": [0.2, 0.4, 0.6, 0.8], "attn_mask": mask(4)},
        FRAMES | {"ad_params": {"sub_idxs": [1, 2, 3], "full_length": 6}},
    ),
    "animation window past the images": (
        "IPAdapterBatch",
        {"image": pictures(2)},
        FRAMES | {"ad_params": {"sub_idxs": [3, 4, 5], "full_length": 6}},
    ),
    "precise style": ("IPAdapterPreciseStyleTransfer", {"style_boost": 0.4}, {}),
    "precise style, batch": ("IPAdapterPreciseStyleTransferBatch", {"image": pictures(3)}, FRAMES),
    "precise composition": ("IPAdapterPreciseComposition", {"composition_boost": 0.6}, {}),
    "precise composition, plain": ("IPAdapterPreciseComposition", {}, {}),
    "precise composition, batch": ("IPAdapterPreciseCompositionBatch", {"image": pictures(3)}, FRAMES),
    "layer weights": ("IPAdapterMS", {"layer_weights": "0:0.5, 3:2,\n6:1.5, 9:-0.5"}, {}),
    "layer weights, precise": (
        "IPAdapterMS",
        {"layer_weights": "3:1, 4:0.5, 7:1", "weight_type": "composition precise"},
        {},
    ),
    "enhancer": ("IPAdapterClipVisionEnhancer", {"enhance_tiles": 2, "enhance_ratio": 0.7}, {}),
    "enhancer, average": (
        "IPAdapterClipVisionEnhancer",
        {"enhance_tiles": 3, "combine_embeds": "average"},
        {},
    ),
    "enhancer, several": ("IPAdapterClipVisionEnhancer", {"image": pictures(2), "enhance_ratio": 0.3}, {}),
    "enhancer, batch": ("IPAdapterClipVisionEnhancerBatch", {"image": pictures(3)}, FRAMES),
    "enhancer, batch of one": ("IPAdapterClipVisionEnhancerBatch", {}, FRAMES),
}
NODES |= {
    f"combine {mode}": ("IPAdapterAdvanced", {"image": pictures(3), "combine_embeds": mode}, {})
    for mode in ("concat", "add", "subtract", "average", "norm average")
}


@pytest.mark.parametrize("kind", ["base", "plus"])
@pytest.mark.parametrize("name", NODES)
def test_every_apply_node(name, kind):
    node_id, more, run = NODES[name]
    error, effect = gap(peer.setup("SD1.5", kind), node_id, run, **more)
    assert error <= LIMIT
    assert name in ("window passed", "start after end") or effect > 50 * LIMIT


@pytest.mark.parametrize("images", [1, 2])
@pytest.mark.parametrize("expand", [False, True])
@pytest.mark.parametrize("node_id", ["IPAdapterStyleComposition", "IPAdapterStyleCompositionBatch"])
def test_style_and_composition(node_id, images, expand):
    run = FRAMES if node_id.endswith("Batch") else {}
    more = {"image_style": pictures(images), "image_composition": pictures(images, 4)}
    error, _ = gap(
        peer.setup("SDXL", "base"),
        node_id,
        run,
        expand_style=expand,
        weight_style=0.8,
        weight_composition=1.2,
        **more,
    )
    assert error <= LIMIT


@pytest.mark.parametrize("kind", ["base", "plus"])
@pytest.mark.parametrize("size", [(64, 96), (75, 100), (64, 64), (64, 300)], ids=str)
@pytest.mark.parametrize("node_id", ["IPAdapterTiled", "IPAdapterTiledBatch"])
def test_tiles(node_id, size, kind):
    given = inputs_of(
        peer.setup("SD1.5", kind), node_id, image=pictures(2, 6, *size), attn_mask=mask(), sharpening=0.3
    )
    run = {"pictures": 2} if node_id.endswith("Batch") else {}
    setup = peer.setup("SD1.5", kind)
    (their, their_tiles, their_masks), (our, tiles, masks) = (
        call(node_id, **given) for call in (peer.theirs, peer.ours)
    )
    assert torch.equal(tiles, their_tiles)
    torch.testing.assert_close(masks, their_masks, atol=1e-6, rtol=0)
    assert max_error(setup.forward(our, **run), setup.forward(their, **run), f"{node_id} {size}") <= LIMIT


@pytest.mark.parametrize("kind", ["base", "plus"])
@pytest.mark.parametrize("node_id", ["IPAdapterEmbeds", "IPAdapterEmbedsBatch"])
def test_embeds(node_id, kind):
    setup, image = peer.setup("SD1.5", kind), pictures(3, 6, 60, 97)
    given = {"ipadapter": setup.adapter, "image": image, "weight": 0.6, "mask": mask(1, 60, 97)}
    (their_pos, their_neg), (pos, neg) = (
        call("IPAdapterEncoder", clip_vision=setup.encoder, **given) for call in (peer.theirs, peer.ours)
    )
    torch.testing.assert_close(pos, their_pos, atol=1e-5, rtol=0)
    torch.testing.assert_close(neg.expand_as(their_neg), their_neg, atol=1e-5, rtol=0)
    for neg_embed in (None, neg):
        run = FRAMES if node_id.endswith("Batch") else {}
        error, _ = gap(setup, node_id, run, pos_embed=pos, neg_embed=neg_embed)
        assert error <= LIMIT


@pytest.mark.parametrize("kind", ["base", "plus"])
def test_regions(kind):
    setup = peer.setup("SD1.5", kind)
    params = []
    for seed, weight_type in ((6, "linear"), (7, "ease in")):
        made = peer.theirs(
            "IPAdapterRegionalConditioning",
            image=pictures(1, seed),
            image_weight=0.7,
            weight_type=weight_type,
            mask=mask(1),
        )[0]
        params.append(made)
    both = peer.theirs("IPAdapterCombineParams", params_1=params[0], params_2=params[1])[0]
    error, effect = gap(setup, "IPAdapterFromParams", ipadapter_params=both)
    assert error <= LIMIT
    assert effect > 100 * LIMIT
