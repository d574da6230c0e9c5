"""Captions are texts, not prompts with a syntax: the tokens of transformers' CLIPTokenizer, all of weight 1."""

from pathlib import Path

import comfy.sd1_clip
import comfy.sdxl_clip
import pytest
import torch
from helpers.training import ShrinkingVae
from image_prompt.host.captions import plain_tokens
from image_prompt.host.training import HostBase
from support import tiny
from transformers import CLIPTokenizer

CAPTIONS = [
    "",
    "a plain caption",
    "Paris (2012) poster",
    "((very)) [important] (red:1.5) thing)",
    "a face, embedding:easynegative, and embedding:missing.pt (x)",
    "embedding:easynegative",
    "sunset BREAK beach AND sea",
    r"C:\pictures\cat \(1\) \\ (2)",
    "two\nlines\tand  spaces ",
    "{a|b} <lora:x:1> __wildcard__ # comment",
    "naïve café, 東京, emoji 🙂, it's O'Neill's",
    "word " * 100,
    "extraordinarily unpronounceable supercalifragilisticexpialidocious " * 12,
    "<|endoftext|> (end)",
]


@pytest.fixture(scope="module")
def tokenizer():
    return CLIPTokenizer.from_pretrained(str(Path(comfy.sd1_clip.__file__).parent / "sd1_tokenizer"))


class Clip:
    """As much of the host's CLIP as tokens pass through, with textual inversions in a folder."""

    def __init__(self, kind, folder):
        torch.save({"emb_params": torch.randn(2, 768)}, folder / "easynegative.pt")
        self.tokenizer = kind(embedding_directory=str(folder))
        self.seen = None

    def tokenize(self, text):
        return self.tokenizer.tokenize_with_weights(text)

    def encode_from_tokens(self, tokens, return_pooled):
        self.seen = tokens
        return torch.zeros(1, 77, 768), None


@pytest.mark.parametrize("caption", CAPTIONS)
@pytest.mark.parametrize("family", ["SD1.5", "SDXL"])
def test_tokens_are_those_of_transformers(caption, family, tokenizer, tmp_path):
    kind = {"SD1.5": comfy.sd1_clip.SD1Tokenizer, "SDXL": comfy.sdxl_clip.SDXLTokenizer}[family]
    ids = tokenizer(caption, truncation=True, max_length=77)["input_ids"]
    pads = {"l": 49407, "g": 0}  # of SDXL's second encoder it is '!', as in its own tokenizer_config.json
    wanted = {
        name: [[(token, 1.0) for token in ids + [pads[name]] * (77 - len(ids))]]
        for name in ({"SD1.5": "l", "SDXL": "lg"}[family])
    }
    assert plain_tokens(Clip(kind, tmp_path), caption) == wanted


def test_what_was_plain_has_the_tokens_that_it_had(tmp_path):
    clip = Clip(comfy.sdxl_clip.SDXLTokenizer, tmp_path)
    for caption in ("", "a plain caption", "a red cube, in the snow; 4k"):
        assert plain_tokens(clip, caption) == clip.tokenize(caption)


def test_training_encodes_these(encoder, tmp_path):
    clip = Clip(comfy.sd1_clip.SD1Tokenizer, tmp_path)
    HostBase(tiny.host_model(tiny.SD15), ShrinkingVae(), clip, encoder).texts(["Paris (2012) poster"])
    assert clip.seen == plain_tokens(clip, "Paris (2012) poster")
    assert {weight for _, weight in clip.seen["l"][0]} == {1.0}


def test_another_packs_encoder_gets_the_hosts_syntax_escaped(tokenizer, tmp_path):
    """Its tokenizer is not known, only its call."""
    host = Clip(comfy.sd1_clip.SD1Tokenizer, tmp_path)

    class Wrapped:
        def tokenize(self, text):
            return host.tokenize(text)

    for caption in CAPTIONS[:10]:
        assert plain_tokens(Wrapped(), caption) == plain_tokens(host, caption), caption
