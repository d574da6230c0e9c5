"""IPADAPTER values travel between packs: ours read as their dicts, and their dicts go into our nodes."""

from collections.abc import Mapping

import pytest
import torch
from helpers.faces import given_faces
from image_prompt import host
from image_prompt.ipadapter_core.checkpoint import Checkpoint
from image_prompt.ipadapter_core.errors import MismatchError
from image_prompt.ipadapter_core.spec import Variant
from image_prompt.nodes.compat.values import (
    adapter_of,
    clip_vision_of,
    face_analysis_of,
    held,
    is_pipeline,
    pipeline,
)
from support import tiny
from support.parity import call

KINDS = ("base", "plus", "full", "faceid", "faceid plus", "faceid plus v2", "faceid portrait")


def tensors(kind: str, lora_rank: int = 0):
    return tiny.adapter_tensors(kind, tiny.SD15, lora_rank=lora_rank)


def ours(kind: str, lora_rank: int = 0) -> host.HostAdapter:
    return host.HostAdapter(Checkpoint(f"{kind}.bin", **tensors(kind, lora_rank)), Variant(kind))


# --- ours, read by others ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_ours_reads_as_the_dict_of_the_file(kind):
    made, raw = ours(kind, lora_rank=4), tensors(kind, lora_rank=4)
    for role in ("image_proj", "ip_adapter"):
        assert made[role].keys() == raw[role].keys()
        assert all(torch.equal(made[role][key], raw[role][key]) for key in raw[role])


def test_ours_is_a_mapping_and_no_pipeline():
    made = ours("base")
    assert isinstance(made, Mapping)
    assert "ipadapter" not in made
    assert "clipvision" not in made
    assert list(made) == ["image_proj", "ip_adapter"]
    assert len(made) == 2
    assert dict(made.items()).keys() == {"image_proj", "ip_adapter"}
    assert made.get("insightface") is None
    assert not is_pipeline(made)
    with pytest.raises(KeyError):
        made["ipadapter"]


@pytest.mark.parametrize(
    ("kind", "flags"),
    [
        ("faceid plus", set()),
        ("faceid plus v2", {"faceidplusv2"}),
        ("faceid portrait unnorm", {"portraitunnorm"}),
    ],
)
def test_the_variant_shows_as_a_flag(kind, flags):
    made = ours(kind)
    assert set(made) == {"image_proj", "ip_adapter"} | flags
    assert all(made[flag] is True for flag in flags)


def test_tensors_are_shared():
    made = ours("base", lora_rank=4)
    module = made.patcher.model.ip_adapter["1"].to_k_ip.weight
    assert made["ip_adapter"]["1.to_k_ip.weight"].data_ptr() == module.data_ptr()
    assert made["ip_adapter"]["0.to_q_lora.up.weight"] is made.lora["0.to_q_lora.up.weight"]


def test_two_are_equal_only_if_they_are_the_same():
    one, other = ours("base"), ours("base")
    assert one == one
    assert one != other
    assert len({one, other}) == 2


# --- theirs, into ours -------------------------------------------------------------------------------------------


def test_ours_stays_itself():
    made = ours("base")
    assert adapter_of(made) is made


@pytest.mark.parametrize("kind", KINDS)
def test_the_raw_dict_becomes_the_same_adapter_without_a_copy(kind):
    raw = tensors(kind, lora_rank=4)
    flags = {"faceidplusv2": True} if kind == "faceid plus v2" else {}
    made = adapter_of({**raw, **flags})
    assert made.spec == ours(kind, lora_rank=4).spec
    assert made.digest == ours(kind, lora_rank=4).digest
    key = "1.to_k_ip.weight"
    assert made["ip_adapter"][key].data_ptr() == raw["ip_adapter"][key].data_ptr()


@pytest.mark.parametrize(
    ("kind", "flags", "variant"),
    [
        ("faceid plus v2", {}, Variant.FACEID_PLUS),
        ("faceid plus v2", {"faceidplusv2": True}, Variant.FACEID_PLUS_V2),
        ("faceid", {"faceidplusv2": True}, Variant.FACEID),  # a folder's name set it
        ("faceid portrait unnorm", {"portraitunnorm": True}, Variant.FACEID_PORTRAIT_UNNORM),
        ("plus", {"portraitunnorm": True}, Variant.PLUS),
    ],
)
def test_flags_tell_the_variant_where_the_keys_allow_it(kind, flags, variant):
    assert adapter_of({**tensors(kind), **flags}).spec.variant is variant


def test_ours_goes_through_another_packs_copy_and_back():
    made = ours("faceid plus v2", lora_rank=4)
    back = adapter_of(dict(made))
    assert (back.spec, back.digest, back.lora.keys()) == (made.spec, made.digest, made.lora.keys())


def test_a_pipeline_gives_its_parts():
    made = ours("base")
    value = pipeline({"file": "a.bin", "model": made}, {"file": "b", "model": "encoder"}, None)
    assert adapter_of(value) is made
    assert clip_vision_of(value) == "encoder"
    assert clip_vision_of(value, "given") == "given"
    assert face_analysis_of(value) is None
    assert face_analysis_of(value, "given") == "given"
    assert clip_vision_of(made) is None


def test_a_pipeline_of_raw_tensors_is_named_after_its_file():
    value = {"ipadapter": {"file": "C:\\models\\ip-adapter_sd15.bin", "model": tensors("base")}}
    assert adapter_of(value).name == "ip-adapter_sd15.bin"


def test_parts_are_used_again_only_for_the_same_file():
    value = pipeline({"file": "a.bin", "model": "adapter"})
    assert held(value, "ipadapter", "file", "a.bin") == "adapter"
    assert held(value, "ipadapter", "file", "b.bin") is None
    assert held(value, "insightface", "provider", "CPU") is None
    assert held(None, "ipadapter", "file", "a.bin") is None
    assert held(ours("base"), "ipadapter", "file", "a.bin") is None


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (None, "but nothing"),
        ({"weights": 1}, "a dictionary of weights"),
        (pipeline({"file": None, "model": None}), "but nothing"),
        (3.5, "but a float"),
    ],
)
def test_anything_else_is_refused_in_a_sentence(value, words):
    with pytest.raises(MismatchError, match=f"the ipadapter input holds no adapter.*{words}"):
        adapter_of(value)


# --- our own nodes -----------------------------------------------------------------------------------------------


@pytest.fixture(params=["raw", "pipeline"])
def shape(request):
    """Wraps raw tensors as another pack hands them over."""
    if request.param == "raw":
        return lambda raw: raw
    return lambda raw: pipeline({"file": "x.bin", "model": raw})


def test_encode_image_takes_their_adapters(shape, encoder):
    made = call("ImagePromptEncode", shape(tensors("base")), encoder, tiny.picture(1))
    same = call("ImagePromptEncode", ours("base"), encoder, tiny.picture(1))
    assert torch.equal(made.cond, same.cond)


def test_encode_face_takes_their_adapters(shape):
    made = call("ImagePromptEncodeFace", shape(tensors("faceid")), given_faces(1))
    assert torch.equal(made.cond, call("ImagePromptEncodeFace", ours("faceid"), given_faces(1)).cond)
