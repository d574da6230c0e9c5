"""Values that cannot be, at every input of every node: a sentence that names the input, by link as by widget."""

import math
import random

import pytest
import torch
from helpers import fuzz_values
from image_prompt import host
from image_prompt.ipadapter_core.errors import ImagePromptError, MismatchError, SettingError
from image_prompt.nodes import NODE_CLASS_MAPPINGS as OURS
from support import tiny
from support.parity import call
from support.prompts import make_adapter

NAN, INF = math.nan, math.inf
TEXTS = {"image_weights": "1, nan", "layer_weights": "3:1e400", "weights": "0.5, inf"}


def number(rng: random.Random):
    return rng.choice([NAN, INF, -INF, [1.0, NAN], "nan", "1e400"])


def tensors(kind: str):
    return lambda rng: fuzz_values.poked(fuzz_values.MEANT[kind](rng), rng.choice([NAN, INF, -INF]))


def params(rng: random.Random) -> dict:
    usual = fuzz_values.params(rng)
    return usual | {"weight": [NAN for _ in usual["weight"]]}


# kind of an input -> a value of it with one number that is none
WITH_NAN = {
    "FLOAT": number,
    "INT": number,
    **{kind: tensors(kind) for kind in ("IMAGE", "MASK", "EMBEDS")},
    "IMAGE_PROMPT": fuzz_values.odd_prompt,
    "LAYER_WEIGHTS": lambda _: {"middle": NAN},
    "IPADAPTER_PARAMS": params,
}


def inputs_of(node_id: str) -> dict:
    sections = OURS[node_id].INPUT_TYPES()
    return {**sections.get("required", {}), **sections.get("optional", {})}


PLACES = [
    (node_id, name)
    for node_id in sorted(OURS)
    for name, declared in inputs_of(node_id).items()
    if isinstance(declared[0], str)
    and (declared[0] in WITH_NAN or (declared[0] == "STRING" and name in TEXTS))
]


def invoke(node_id: str, given: dict):
    node = OURS[node_id]()
    lists = getattr(node, "INPUT_IS_LIST", False)
    return getattr(node, node.FUNCTION)(**({k: [v] for k, v in given.items()} if lists else given))


def meant(node_id: str) -> dict:
    made = {}
    for name, declared in inputs_of(node_id).items():
        kind = declared[0]
        if kind in ("VAE", "CLIP"):
            made[name] = object()
        else:
            made[name] = fuzz_values.meant(random.Random(name), name, declared)
    return made | (
        {"no_image": "as trained"} if "no_image" in made else {}
    )  # beside a negative image no other may stand


def test_there_are_many_places():
    assert len(PLACES) > 250
    assert {"ImagePromptTrain", "ImagePromptScore", "IPAdapterTiled", "IPAdapterApply"} <= {
        i for i, _ in PLACES
    }


@pytest.mark.parametrize(("node_id", "name"), PLACES)
def test_one_number_that_is_none_is_refused_by_name(node_id, name):
    kind, rng = inputs_of(node_id)[name][0], random.Random(f"{node_id} {name}")
    given = meant(node_id) | {name: TEXTS[name] if kind == "STRING" else WITH_NAN[kind](rng)}
    with pytest.raises(ImagePromptError, match=name):
        invoke(node_id, given)


MENUS = [
    (node_id, name)
    for node_id in sorted(OURS)
    for name, declared in inputs_of(node_id).items()
    if not isinstance(declared[0], str) and name not in OURS[node_id].FREE.split()
]


@pytest.mark.parametrize(("node_id", "name"), MENUS)
@pytest.mark.parametrize("word", ["no such word", 3.5])
def test_a_word_that_no_menu_has_is_refused_by_name(node_id, name, word):
    with pytest.raises(ImagePromptError, match=rf"{name}.*choose one of"):
        invoke(node_id, meant(node_id) | {name: word})


@pytest.mark.parametrize(
    "node_id", ["IPAdapterAdvanced", "IPAdapterBatch", "IPAdapterFromParams", "IPAdapterTiled"]
)
def test_an_unknown_weight_type_is_a_sentence_of_ours(node_id, sd15, encoder):
    given = {"model": sd15, "ipadapter": make_adapter("plus", tiny.SD15), "clip_vision": encoder}
    if node_id == "IPAdapterFromParams":
        given["ipadapter_params"] = fuzz_values.params(random.Random(5)) | {"weight_type": ["diagonal"] * 9}
        given["ipadapter_params"] = {k: [v[0]] for k, v in given["ipadapter_params"].items()}
    else:
        given |= {
            "image": tiny.picture(1),
            "weight": 1.0,
            "weight_type": "diagonal",
            "start_at": 0.0,
            "end_at": 1.0,
        }
    given |= {"sharpening": 0.0} if node_id == "IPAdapterTiled" else {}
    with pytest.raises(SettingError, match="unknown weight type 'diagonal'"):
        invoke(node_id, given)


# --- the same picture, however it is given -----------------------------------------------------------------------


def test_masks_with_singletons_steer_as_those_without(sd15, encoder):
    prompt = host.encode_prompt(make_adapter("plus", tiny.SD15), encoder, host.Reference(tiny.picture(1)))
    mask = torch.rand(2, 16, 16)
    shapes = (mask, mask[:, None], mask[:, None, None], mask[None], mask[..., None])
    own = [
        tiny.run_unet(call("ImagePromptApply", sd15, prompt, 1.0, mask=m), tiny.SD15, pictures=2)
        for m in shapes
    ]
    older = {"ipadapter": make_adapter("plus", tiny.SD15), "clip_vision": encoder, "image": tiny.picture(1)}
    theirs = [
        tiny.run_unet(
            call("IPAdapterAdvanced", sd15, weight=1.0, attn_mask=m, **older), tiny.SD15, pictures=2
        )
        for m in shapes
    ]
    assert all(torch.equal(own[0], other) for other in own[1:])
    assert all(torch.equal(theirs[0], other) for other in theirs[1:])


@pytest.mark.parametrize("kind", ["base", "plus"])
def test_grey_and_alpha_are_read_as_rgb(kind, encoder):
    adapter, image = make_adapter(kind, tiny.SD15), tiny.picture(3)[..., :1]
    rgb, alpha = image.expand(-1, -1, -1, 3), torch.rand(1, 32, 32, 1)
    for node_id in ("ImagePromptEncode", "IPAdapterEncoder"):
        forms = (image, rgb, torch.cat((rgb, alpha), -1))
        more = {"weight": 1.0} if node_id == "IPAdapterEncoder" else {}
        made = [call(node_id, adapter, clip_vision=encoder, image=form, **more) for form in forms]
        made = [getattr(each, "cond", each) for each in made]
        assert torch.equal(made[0], made[1])
        assert torch.equal(made[0], made[2])


@pytest.mark.parametrize("shape", [(1, 40), (40, 1), (1, 1)])
def test_lines_of_pixels_at_the_older_encoder_with_noise(shape, encoder):
    given = {"clip_vision": encoder, "image_1": torch.rand(1, *shape, 3), "noise": 0.5, "weight_1": 1.0}
    for plus in (True, False):
        assert call("ImagePromptLegacyEncoder", ipadapter_plus=plus, **given).isfinite().all()


@pytest.mark.parametrize("count", [1, 2, 4])
def test_negative_embeds_of_another_shape_are_a_sentence(count, sd15):
    adapter, encoder = make_adapter("plus", tiny.SD15), fuzz_values.encoder()
    given = {"model": sd15, "ipadapter": adapter, "clip_vision": encoder, "pos_embed": torch.randn(2, 17, 64)}
    given |= {"weight": 1.0, "weight_type": "linear", "start_at": 0.0, "end_at": 1.0}
    for negative in (torch.randn(count, 64), torch.randn(count, 17, 48), torch.randn(count, 3, 17, 64)):
        with pytest.raises(MismatchError, match="embeds of shape"):
            invoke("IPAdapterEmbeds", given | {"neg_embed": negative})
    assert invoke("IPAdapterEmbeds", given | {"neg_embed": torch.randn(count, 17, 64)})[0] is not None


def test_an_encoder_that_gives_nan_is_named(encoder, monkeypatch):
    monkeypatch.setattr(
        host.vision, "_run", lambda *_: [None, torch.full((1, 17, 64), NAN), torch.ones(1, 48)]
    )
    for node_id in ("ImagePromptEncode", "IPAdapterEncoder"):
        more = {"weight": 1.0} if node_id == "IPAdapterEncoder" else {}
        with pytest.raises(MismatchError, match="CLIP vision"):
            call(node_id, make_adapter("plus", tiny.SD15), clip_vision=encoder, image=tiny.picture(1), **more)


@pytest.mark.parametrize(("role", "key"), [("image_proj", "latents"), ("ip_adapter", "1.to_k_ip.weight")])
def test_a_connected_dictionary_with_nan_is_refused(role, key, encoder):
    raw = tiny.adapter_tensors("plus", tiny.SD15)
    raw[role][key] = fuzz_values.poked(raw[role][key], NAN)
    with pytest.raises(ImagePromptError, match=rf"adapter: the tensor '{role}\.{key}'"):
        call("ImagePromptEncode", raw, encoder, tiny.picture(1))


def test_frames_are_bounded_before_they_are_made():
    image = torch.zeros(2, 512, 512, 3)
    for more in (
        {"frames": 10**9},
        {"add_starting_frames": 10**7},
        {"frames": 9999, "add_ending_frames": 9999},
    ):
        with pytest.raises(SettingError, match="frames"):
            call("IPAdapterWeights", image=image, timing="linear", method="full batch", **more)
    strategy = {"frames": 9999, "timing": "linear", "weights": "0, 1", "frame_count": 50_000}
    with pytest.raises(SettingError, match="over 10,000,000 characters"):
        call("IPAdapterPromptScheduleFromWeightsStrategy", strategy, "x" * 1000)
    with pytest.raises(SettingError, match="frames"):
        call("IPAdapterWeightsFromStrategy", weights_strategy=strategy | {"frames": 1e12}, image=image)
