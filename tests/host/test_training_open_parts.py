"""Training for Qwen-Image, Z-Image and Lumina 2: their texts, VAE, files of the command, the node."""

import copy
from types import SimpleNamespace

import comfy.sd
import comfy.utils
import folder_paths
import pytest
import torch
from helpers.beside import has_hooks
from helpers.transformer_training import (
    ChatEncoder,
    TinyOpenBase,
    VideoVae,
    install_hooks,
    require_node_trains_and_goes_on,
    stand_in,
)
from image_prompt import host
from image_prompt.host import base_models
from image_prompt.host.captions import MOST_TOKENS, plain_tokens
from image_prompt.ipadapter_core.families import table
from image_prompt.ipadapter_core.families.lumina import FAMILIES as NEXT_DITS
from image_prompt.ipadapter_core.families.qwen import QWEN_IMAGE
from image_prompt.ipadapter_core.spec import Variant
from image_prompt.ipadapter_core.training.kinds import kinds_for
from support import parity, tiny, tiny_open


def base_of(model):
    return TinyOpenBase(model, parity.lively_encoder())


@has_hooks
def test_a_vae_of_videos_gets_each_picture_alone():
    base = base_of(tiny_open.KINDS["qwen"].make())
    pictures = tiny.picture(2, 64, 64, count=3)
    together = base.latents(pictures)
    assert together.shape == (3, 16, 8, 8)
    assert torch.equal(together, torch.cat([base.latents(each) for each in pictures.split(1)]))
    assert VideoVae().encode(pictures).shape == (1, 16, 3, 8, 8)


def test_every_family_has_kinds_that_are_trained_for_it():
    assert all(kinds_for(known) for known in table.FAMILIES)


def test_all_of_them_have_the_same_kinds():
    for known in (QWEN_IMAGE, *NEXT_DITS):
        assert kinds_for(known) == (Variant.BASE, Variant.PLUS)
        assert known.resampler_width == 1280


def test_distilled_z_image_is_sampled_without_guidance(monkeypatch):
    install_hooks(monkeypatch)
    base = base_of(stand_in("z-image"))
    assert base.CFG == 4.0  # of a NextDiT that nobody knows
    network = base.model.model.diffusion_model
    network.layers.extend(copy.deepcopy(network.layers[0]) for _ in range(28))
    assert base_of(base.model).CFG == 1.0


@pytest.mark.parametrize(("case", "kind"), [("qwen", "QWEN_IMAGE"), ("z-image", "LUMINA2")])
@has_hooks
def test_parts_are_loaded_by_the_host(case, kind, monkeypatch, encoder):
    seen = {}
    monkeypatch.setattr(base_models, "load_clip_vision", lambda path: encoder)
    monkeypatch.setattr(comfy.sd, "load_diffusion_model", lambda path: tiny_open.KINDS[case].make())
    monkeypatch.setattr(comfy.sd, "load_clip", lambda **given: seen.update(given) or ChatEncoder())
    monkeypatch.setattr(comfy.utils, "load_torch_file", lambda path: {"file": path})
    monkeypatch.setattr(comfy.sd, "VAE", lambda sd: VideoVae())
    base = host.load_base(host.BaseFiles("vit", "", "model", ("text",), "vae"))
    assert seen["clip_type"] is getattr(comfy.sd.CLIPType, kind)
    assert base.owned


# --- texts -------------------------------------------------------------------------------------------------------


class Host:
    """As much of the host's CLIP as tokens pass through."""

    def __init__(self, tokenizer):
        self.tokenizer, self.tokenize = tokenizer, tokenizer.tokenize_with_weights


CAPTIONS = ["", "a red cube, in the snow", r"Paris (2012) \(poster\) [x:1.5]", "two words " * 40]


@has_hooks  # as hosts with Chroma have
@pytest.mark.parametrize("caption", CAPTIONS)
def test_chromas_captions_have_as_many_tokens_as_the_host_gives_them(caption):
    import comfy.text_encoders.pixart_t5 as pixart

    clip = Host(pixart.PixArtTokenizer())
    ids = clip.tokenizer.clip_t5xxl.tokenizer(caption)["input_ids"]
    assert [token for token, _ in plain_tokens(clip, caption)["t5xxl"][0]] == ids
    if not set(caption) & set("()[]"):
        assert plain_tokens(clip, caption) == clip.tokenize(caption)
    long = plain_tokens(clip, "word " * 2000)["t5xxl"][0]
    assert (len(long), long[-1]) == (MOST_TOKENS, (1, 1.0))


@has_hooks
@pytest.mark.parametrize("caption", CAPTIONS)
@pytest.mark.parametrize("name", ["qwen_image.QwenImageTokenizer", "z_image.ZImageTokenizer"])
def test_captions_of_chats_stand_in_the_hosts_own_words(name, caption):
    module, kind = name.split(".")
    found = pytest.importorskip(f"comfy.text_encoders.{module}")
    clip = Host(getattr(found, kind)())
    [rows] = plain_tokens(clip, caption).values()
    assert all(weight == 1.0 for _, weight in rows[0])
    part = getattr(clip.tokenizer, clip.tokenizer.clip)
    text = part.tokenizer.decode([token for token, _ in rows[0]])
    assert text == clip.tokenizer.llama_template.format(caption)


def test_captions_of_lumina_2_are_what_its_pieces_say():
    """Its tokenizer takes a text and no more."""
    part = SimpleNamespace(
        pad_to_max_length=False, min_length=1, tokenizer=lambda text: {"input_ids": [2, *text.encode()]}
    )
    holder = SimpleNamespace(gemma2_2b=part)
    clip = SimpleNamespace(tokenizer=holder, tokenize=lambda text: {"gemma2_2b": []})
    assert plain_tokens(clip, "(a:1.2)") == {"gemma2_2b": [[(t, 1.0) for t in (2, *b"(a:1.2)")]]}


# --- the node ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["base", "plus"])
@pytest.mark.parametrize("family", ["qwen", "z-image"])
def test_the_node_trains_and_goes_on(family, kind, models, tmp_path, monkeypatch):
    install_hooks(monkeypatch)
    monkeypatch.setattr(folder_paths, "get_output_directory", lambda: str(tmp_path))
    parts = {"model": stand_in(family), "clip": ChatEncoder(), "clip_vision": tiny.clip_vision()}
    require_node_trains_and_goes_on(kind, "one\ntwo words\nthree", **parts)
