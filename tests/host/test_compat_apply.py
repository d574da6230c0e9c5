"""The de-facto apply nodes on our core: what is corrected by default, each alone, and how graphs and packs call them."""

import pytest
import torch
from image_prompt import host
from image_prompt.ipadapter_core.errors import ImagePromptError, MismatchError, SettingError
from image_prompt.ipadapter_core.scaling import Scaling
from image_prompt.nodes import NODE_CLASS_MAPPINGS, compat
from image_prompt.nodes.compat import settings
from image_prompt.nodes.compat.arithmetic.two_image_weights import ALL_TYPES
from support import peer, tiny

CLASSES = compat.node_classes()


@pytest.fixture(scope="module")
def sd15():
    return peer.setup("SD1.5", "plus")


@pytest.fixture(scope="module")
def base():
    return peer.setup("SD1.5", "base")


@pytest.fixture
def legacy(monkeypatch):
    """Switches exact legacy results on."""
    return lambda on=True: monkeypatch.setenv(settings.EXACT_LEGACY.variable, "1" if on else "0")


def apply(setup, node_id="IPAdapterAdvanced", **inputs):
    node = CLASSES[node_id]()
    given = {
        "model": setup.model,
        "ipadapter": setup.adapter,
        "clip_vision": setup.encoder,
        "image": setup.image,
    }
    names = {**node.INPUT_TYPES()["required"], **node.INPUT_TYPES().get("optional", {})}
    return peer.run(CLASSES, node_id, **{k: v for k, v in given.items() if k in names} | inputs)


def out(setup, node_id="IPAdapterAdvanced", run=None, **inputs):
    return setup.forward(apply(setup, node_id, **inputs)[0], **(run or {}))


def native(setup, weight=1.0, **options):
    """The same picture through our own nodes, with the black picture on the negative side, as shared graphs have it."""
    adapter = host.adapter_of(setup.adapter)
    black = host.Reference(torch.zeros(1, 224, 224, 3)) if setup.kind != "base" else None
    prompt = host.encode_prompt(adapter, setup.encoder, host.Reference(setup.image), black)
    return setup.forward(host.apply_prompt(setup.model, prompt, weight, **options))


def close(a, b, atol=5e-6):
    torch.testing.assert_close(a, b, atol=atol, rtol=0)


# --- what is computed --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["base", "plus", "full"])
@pytest.mark.parametrize(
    "weight_type", ["linear", "ease in", "weak middle", "composition", "strong style transfer"]
)
def test_a_weight_type_is_that_of_our_own_nodes(kind, weight_type):
    setup = peer.setup("SD1.5", kind)
    close(out(setup, weight=0.7, weight_type=weight_type), native(setup, 0.7, weight_type=weight_type))


@pytest.mark.parametrize("weight_type", ALL_TYPES)
def test_every_type_acts(sd15, weight_type):
    assert not torch.equal(out(sd15, weight_type=weight_type), sd15.forward(sd15.model))


@pytest.mark.parametrize("scaling", [s.value for s in Scaling])
def test_weight_0_is_the_plain_model(sd15, scaling):
    for kind in ("linear", "style and composition", "composition precise"):
        still = out(sd15, weight=0.0, embeds_scaling=scaling, weight_type=kind)
        assert torch.equal(still, sd15.forward(sd15.model))


def test_at_weight_1_and_inner_width_1280_all_scalings_would_agree(sd15):
    """Their difference is the width: at 1 'K+V' is eq. 8 itself."""
    close(out(sd15, embeds_scaling="K+V"), out(sd15))


def test_precise_types_put_the_image_on_the_negative_side(sd15):
    """Without boost they are their plain types; with it the positive pass alone sees no more than that."""
    plain = out(sd15, weight=0.8, weight_type="style transfer", run={"chunks": (0,)})
    boosted = out(sd15, "IPAdapterPreciseStyleTransfer", weight=0.8, style_boost=2.0, run={"chunks": (0,)})
    close(boosted, plain)
    negative = out(sd15, "IPAdapterPreciseStyleTransfer", weight=0.8, style_boost=2.0, run={"chunks": (1,)})
    assert (negative - sd15.forward(sd15.model, chunks=(1,))).abs().max() > 0.01


def test_layer_weights_name_blocks_by_their_number(sd15):
    every = ",".join(f"{n}:0.6" for n in range(16))
    close(out(sd15, "IPAdapterMS", layer_weights=every), out(sd15, weight=0.6))
    close(out(sd15, "IPAdapterMS", layer_weights="6:1"), native(sd15, 1.0, layer_weights=only("middle")))


def only(layer):
    names = [f"input {n}" for n in (1, 2, 4, 5, 7, 8)] + ["middle"] + [f"output {n}" for n in range(3, 12)]
    return {name: float(name == layer) for name in names}


# --- corrections, each alone -------------------------------------------------------------------------------------


def test_the_middle_block_is_reached_unless_exactness_is_asked_for(sd15, legacy):
    """N1. Of 16 blocks the middle one alone: nothing in the older pack."""
    alone = {"layer_weights": "6:1"}
    assert (out(sd15, "IPAdapterMS", **alone) - sd15.forward(sd15.model)).abs().max() > 0.01
    legacy()
    assert torch.equal(out(sd15, "IPAdapterMS", **alone), sd15.forward(sd15.model))


def test_without_the_middle_block_nothing_else_differs(sd15, legacy):
    corrected = out(sd15, "IPAdapterMS", layer_weights=",".join(f"{n}:0.8" for n in range(16) if n != 6))
    legacy()
    close(corrected, out(sd15, weight=0.8))


def test_masks_have_the_true_size_of_each_block(base, legacy):
    """N5. 13 x 23: at half size blocks have 7 x 12, which the square root takes for 6 x 14."""
    mask = torch.zeros(1, 64, 64)
    mask[:, :32] = 1
    inputs, run = {"attn_mask": mask}, {"size": (13, 23)}
    middle = ",".join(f"{n}:1" for n in range(16) if n != 6)
    corrected = out(base, "IPAdapterMS", run, layer_weights=middle, **inputs)
    legacy()
    exact = out(base, "IPAdapterMS", run, layer_weights=middle, **inputs)
    assert (corrected - exact).abs().max() > 1e-3
    same = {"size": (16, 16)}
    close(
        out(base, "IPAdapterMS", same, layer_weights=middle, **inputs),
        _default(base, legacy, same, middle, inputs),
    )


def _default(setup, legacy, run, layers, inputs):
    legacy(False)
    return out(setup, "IPAdapterMS", run, layer_weights=layers, **inputs)


def test_pooled_tiles_are_averaged_not_folded(base, legacy):
    """N4."""
    enhanced = out(base, "IPAdapterClipVisionEnhancer", enhance_ratio=0.5)
    legacy()
    assert (out(base, "IPAdapterClipVisionEnhancer", enhance_ratio=0.5) - enhanced).abs().max() > 1e-2


def test_the_composition_follows_the_weight_where_it_has_none_of_its_own(sd15, legacy):
    half = out(sd15, weight=0.5, weight_type="style and composition")
    close(half, native(sd15, 0.5, weight_type="style and composition"))
    legacy()
    assert (out(sd15, weight=0.5, weight_type="style and composition") - half).abs().max() > 1e-3


def test_two_images_on_sd15_say_which_blocks_they_steer(sd15, caplog):
    """The older pack refused this: SD1.5 has no block of its own for either."""
    out(sd15, weight=0.5, weight_type="style and composition")
    assert "the composition image input 7, input 8" in caplog.text


def test_style_and_composition_images_may_differ_in_number(legacy):
    """Their rows never run into each other: each pass is as if it were alone."""
    setup = peer.setup("SDXL", "base")
    two = {
        "image_style": setup.image,
        "image_composition": tiny.picture(4, 64, 64, 2),
        "combine_embeds": "concat",
    }
    model = apply(setup, "IPAdapterStyleComposition", **two)[0]
    both = setup.forward(model)
    close(both[1:], setup.forward(model, chunks=(1, 0))[1:])
    alone = peer.setup("SDXL", "base").forward(model, chunks=(0,))
    assert alone.shape == both[1:].shape


def test_tiles_of_a_portrait_lose_nothing_and_count_once(base, legacy):
    image = tiny.picture(6, 100, 80)
    _, tiles, masks = apply(base, "IPAdapterTiled", image=image)
    close(masks.sum(0), torch.ones_like(masks[0]), 1e-6)
    legacy()
    _, cut, _ = apply(base, "IPAdapterTiled", image=image)
    assert len(cut) == 4
    assert len(tiles) > 4


# --- batches and animations --------------------------------------------------------------------------------------


def test_each_frame_follows_its_picture_and_the_last_one_goes_on(sd15):
    frames = tiny.picture(6, 64, 64, 2)
    batch = out(sd15, "IPAdapterBatch", {"pictures": 3, "chunks": (0,)}, image=frames)
    plain = sd15.forward(sd15.model, pictures=3, chunks=(0,))
    for row, number in enumerate((0, 1, 1)):
        alone = out(sd15, image=frames[number : number + 1], run={"pictures": 3, "chunks": (0,)})
        close(batch[row], alone[row])
    assert (batch - plain).abs().max() > 0.01


class Window:
    index_list, dim, total_frames = [2, 3], 0, 4


@pytest.mark.parametrize(
    "options",
    [{"ad_params": {"sub_idxs": [2, 3], "full_length": 4}}, {"context_window": Window()}],
    ids=["ad_params", "context_window"],
)
def test_windows_of_an_animation_take_their_own_frames(sd15, options):
    frames = tiny.picture(6, 64, 64, 4)
    run = {"pictures": 2, "chunks": (0,)}
    windowed = out(sd15, "IPAdapterBatch", run | options, image=frames, weight=[0.1, 0.2, 0.5, 0.9])
    for row, (number, weight) in enumerate(((2, 0.5), (3, 0.9))):
        alone = out(sd15, image=frames[number : number + 1], weight=weight, run=run)
        close(windowed[row], alone[row])


def test_a_conditioning_beyond_two_is_positive(sd15):
    three = out(sd15, run={"chunks": (0, 1, 2)})
    assert three.shape[0] == 3
    close(out(sd15, run={"chunks": (2,)}), out(sd15, run={"chunks": (2,)}))


# --- how graphs and packs call them ------------------------------------------------------------------------------


def test_the_model_that_came_in_stays_as_it_is(sd15):
    before = sd15.forward(sd15.model)
    apply(sd15)
    assert torch.equal(sd15.forward(sd15.model), before)


def test_adapters_of_every_shape_give_the_same_picture(sd15):
    expected = out(sd15)
    for value in (host.adapter_of(sd15.adapter), sd15.pipeline):
        assert torch.equal(out(sd15, ipadapter=value), expected)
    assert torch.equal(out(sd15, ipadapter=sd15.pipeline, clip_vision=None), expected)


def test_easy_use_calls(sd15):
    """Two values back where RETURN_TYPES has one, and every keyword on every class."""
    for node_id in (
        "IPAdapterAdvanced",
        "IPAdapterBatch",
        "IPAdapterStyleComposition",
        "IPAdapterPreciseStyleTransfer",
    ):
        model, images = CLASSES[node_id]().apply_ipadapter(
            model=sd15.model, ipadapter=sd15.pipeline, image=sd15.image, weight=0.8, weight_type="linear",
            combine_embeds="concat", weight_faceidv2=1.0, image_negative=None, start_at=0.0, end_at=1.0,
            attn_mask=None, clip_vision=None, insightface=None, embeds_scaling="V only", layer_weights=None,
            weight_kolors=1.0, encode_batch_size=0,
        )  # fmt: skip
        assert images is None
        assert not torch.equal(sd15.forward(model), sd15.forward(sd15.model))
    model, tiles, masks = CLASSES["IPAdapterTiled"]().apply_tiled(
        sd15.model, sd15.adapter, sd15.image, 1.0, "linear", 0.0, 1.0, 0.0, clip_vision=sd15.encoder
    )
    assert len(tiles) == len(masks)
    pos, neg = CLASSES["IPAdapterEncoder"]().encode(
        sd15.adapter, sd15.image, 1.0, None, clip_vision=sd15.encoder
    )
    model, images = CLASSES["IPAdapterEmbeds"]().apply_ipadapter(
        sd15.model, sd15.adapter, pos, 1.0, "linear", 0.0, 1.0,
        neg_embed=neg, attn_mask=None, clip_vision=sd15.encoder, embeds_scaling="V only",
    )  # fmt: skip
    assert images is None
    close(sd15.forward(model), out(sd15))


def test_inspire_calls(sd15):
    node = CLASSES["IPAdapterAdvanced"]
    model = node().apply_ipadapter(
        model=sd15.model, ipadapter=sd15.adapter, weight=1.0, weight_type="linear", start_at=0.0, end_at=1.0,
        embeds_scaling="V only", weight_faceidv2=1.0, image=sd15.image, clip_vision=sd15.encoder,
        combine_embeds="concat", attn_mask=None, insightface=None, image_negative=None,
    )[0]  # fmt: skip
    close(sd15.forward(model), out(sd15))
    assert isinstance(node.INPUT_TYPES()["required"]["weight_type"][0], list)


@pytest.mark.parametrize(
    ("old", "today"),
    [
        ("style transfer (SDXL)", "style transfer"),
        ("composition (SDXL)", "composition"),
        ("style transfer and composition", "style and composition"),
    ],
)
def test_names_of_older_versions_are_understood(sd15, old, today):
    assert CLASSES["IPAdapterAdvanced"].VALIDATE_INPUTS(weight_type=old) is True
    assert torch.equal(out(sd15, weight_type=old), out(sd15, weight_type=today))


def test_a_weight_type_that_never_was_is_refused_before_anything_runs(sd15):
    message = CLASSES["IPAdapterAdvanced"].VALIDATE_INPUTS(weight_type="diagonal")
    assert "weight_type 'diagonal' is unknown" in message
    with pytest.raises(SettingError, match="unknown weight type 'diagonal'"):
        apply(sd15, weight_type="diagonal")


@pytest.mark.parametrize("text", ["3", "0=1", "1.0:1", ";"])
def test_layer_weights_that_make_no_sense_are_shown(sd15, text):
    with pytest.raises(SettingError, match=r"layer_weights: '.+' is not a block's number and its weight"):
        apply(sd15, "IPAdapterMS", layer_weights=text)


def test_an_encoder_that_is_missing_is_asked_for(sd15):
    with pytest.raises(ImagePromptError, match="no CLIP vision model came"):
        apply(sd15, clip_vision=None)


def test_embeds_of_another_adapter_are_refused(sd15, base):
    pos, _ = CLASSES["IPAdapterEncoder"]().encode(base.adapter, base.image, 1.0, None, base.encoder)
    with pytest.raises(MismatchError, match=r"embeds of shape \(1, 49\) came"):
        apply(sd15, "IPAdapterEmbeds", pos_embed=pos)


def test_the_set_is_registered_and_out_of_the_menus():
    for node_id, node in CLASSES.items():
        assert NODE_CLASS_MAPPINGS[node_id] is node
        assert node.DEPRECATED
