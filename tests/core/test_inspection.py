"""Files are recognised by their contents, whatever their names; of broken ones a sentence says why."""

import json
import os
from pathlib import Path

import pytest
import torch
from core.damaged import CANARY, DAMAGES
from core.outlines import (
    FACE_LORAS,
    SIGLIP,
    VIT_G,
    VIT_H,
    VIT_L,
    VIT_L336,
    encoder,
    face_lora,
    open_clip,
    write_outline,
)
from core.small import CONTEXT, adapter, flat, nested, randn
from helpers.reads import bytes_read
from image_prompt.ipadapter_core.prompt import make_prompt
from image_prompt.ipadapter_core.prompt_file import save_prompt
from image_prompt.model_files.encoders import EncoderFacts
from image_prompt.model_files.inspection import FileInfo, FileKind, inspect_file
from support.layouts import LAYOUTS, SDXL, Layout, Table

# What damage leaves recognisable, or is of another kind than an adapter.
OF_ANOTHER_KIND = {"LoRA": FileKind.OTHER}
# Damage that only the tensors themselves show, not their outline.
INSIDE = {"offsets against shapes", "resampler without a norm", "one layer of another size"}


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.file)
@pytest.mark.parametrize("seed", [1, 2])
def test_every_adapter_is_recognised_under_any_name(layout: Layout, seed: int, tmp_path: Path):
    found = inspect_file(write_outline(tmp_path / f"{seed}.safetensors", layout.table, shuffle=seed))
    assert found.kind is FileKind.ADAPTER
    facts = found.adapter
    assert facts
    assert layout.kind.variant.value in facts.variants
    assert facts.variants[0] == facts.variant
    assert (facts.family, facts.encoder) == (layout.family.name, layout.encoder)
    assert (facts.feature, facts.feature_width) == (layout.kind.feature.value, layout.feature_width)
    assert (facts.tokens, facts.sites, facts.lora) == (
        layout.kind.tokens,
        len(layout.family.widths),
        layout.lora,
    )


@pytest.mark.parametrize("legacy", [False, True])
def test_a_pickled_adapter_is_inspected_too(legacy: bool, tmp_path: Path):
    path = tmp_path / "adapter.bin"
    torch.save(nested(flat("plus")), path, _use_new_zipfile_serialization=not legacy)
    found = inspect_file(path)
    assert found.adapter
    assert (found.kind, found.adapter.variant, found.adapter.tokens) == (FileKind.ADAPTER, "plus", 3)


ENCODERS = {
    "CLIP ViT-H/14": (VIT_H, 224),
    "CLIP ViT-bigG/14": (VIT_G, 224),
    "CLIP ViT-L/14": (VIT_L, 224),
    "CLIP ViT-L/14-336": (VIT_L336, 336),
    "CLIP ViT-H/14-448": ((32, 1280, 1024, 1025), 448),
    "SigLIP so400m/14-384": (SIGLIP, 384),
    "CLIP ViT-B/14": ((12, 768, 512, 257), 224),
}


@pytest.mark.parametrize("name", ENCODERS)
@pytest.mark.parametrize("text", [False, True], ids=["vision alone", "whole CLIP"])
def test_encoders_are_recognised_by_layers_and_width(name: str, text: bool, tmp_path: Path):
    sizes, pixels = ENCODERS[name]
    more: Table = {"text_model.encoder.layers.0.layer_norm1.weight": (768,)} if text else {}
    found = inspect_file(write_outline(tmp_path / "model.safetensors", encoder(*sizes) | more))
    layers, width, projection, _ = sizes
    assert found.kind is FileKind.ENCODER
    assert found.encoder == EncoderFacts(name, layers, width, projection, 14, pixels, text)


def test_open_clip_names_the_same_encoder(tmp_path: Path):
    found = inspect_file(write_outline(tmp_path / "x.safetensors", open_clip(*VIT_H)))
    assert found.encoder == EncoderFacts("CLIP ViT-H/14", 32, 1280, 1024, 14, 224, True)


def test_a_part_of_an_encoder_says_what_it_lacks(tmp_path: Path):
    table = encoder(*VIT_H)
    del table["vision_model.encoder.layers.7.layer_norm1.weight"]
    found = inspect_file(write_outline(tmp_path / "x.safetensors", table))
    assert found.kind is FileKind.BROKEN
    assert found.text.startswith(
        "x.safetensors is a part of a CLIP vision encoder only: it lacks transformer block 7."
    )


@pytest.mark.parametrize("family", FACE_LORAS)
def test_faceids_lora_is_distinguished_from_others(family: str, tmp_path: Path):
    mine = inspect_file(write_outline(tmp_path / "a.safetensors", FACE_LORAS[family])).lora
    assert mine
    assert (mine.family, mine.rank, mine.face) == (family, 128, True)
    other = inspect_file(write_outline(tmp_path / "b.safetensors", face_lora(rank=16))).lora
    fewer = inspect_file(write_outline(tmp_path / "c.safetensors", face_lora(SDXL[:20], 2048))).lora
    assert other
    assert fewer
    assert (other.face, fewer.face, fewer.family) == (False, False, "SDXL")


def test_a_saved_prompt_is_no_adapter(tmp_path: Path):
    path = tmp_path / "prompt.safetensors"
    save_prompt(make_prompt(adapter(), randn(1, 4, CONTEXT), randn(1, 4, CONTEXT)), path)
    found = inspect_file(path)
    assert found.kind is FileKind.PROMPT
    assert "small-base.safetensors" in found.text


OTHERS: dict[str, tuple[str, str]] = {
    "redux_up.weight": ("a Flux Redux model", "models/style_models"),
    "model.diffusion_model.input_blocks.0.0.weight": ("a checkpoint", "models/checkpoints"),
    "control_model.zero_convs.0.0.weight": ("a ControlNet", "models/controlnet"),
    "text_model.encoder.layers.0.mlp.fc1.weight": ("a text encoder", "models/text_encoders"),
    "decoder.conv_in.weight": ("a VAE", "models/vae"),
    "nonsense": ("1 tensors of no kind", "nonsense"),
}


@pytest.mark.parametrize("key", OTHERS)
def test_other_files_are_named_with_their_place(key: str, tmp_path: Path):
    found = inspect_file(write_outline(tmp_path / "x.safetensors", {key: (4, 4)}))
    assert found.kind is FileKind.OTHER
    assert all(words in found.text for words in OTHERS[key])


@pytest.mark.parametrize("case", [case for case in DAMAGES if case not in INSIDE])
def test_a_broken_file_says_its_name_and_cause_in_one_line(case: str, tmp_path: Path):
    damage, path = DAMAGES[case], tmp_path / DAMAGES[case].name
    damage.make(path)
    found = inspect_file(path)
    assert found.kind is OF_ANOTHER_KIND.get(case, FileKind.BROKEN)
    if found.kind is FileKind.BROKEN:
        assert path.name in found.text
        assert "\n" not in found.text
        assert found.text.endswith(".")
        if case not in ("CLIP vision", "dictionary without tensors"):
            assert damage.cause in found.text
    assert not (tmp_path / CANARY).exists()


def test_a_header_that_promises_more_than_the_file_has_is_truncated(tmp_path: Path):
    path = write_outline(tmp_path / "x.safetensors", LAYOUTS[0].table)
    os.truncate(path, path.stat().st_size - 1)
    found = inspect_file(path)
    assert found.kind is FileKind.BROKEN
    assert "truncated" in found.text


def test_an_unreadable_file_is_broken_and_raises_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = write_outline(tmp_path / "x.safetensors", LAYOUTS[0].table)

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    assert inspect_file(path) == FileInfo(
        FileKind.BROKEN, "x.safetensors cannot be read (Permission denied). Check its rights and its drive."
    )


def test_a_large_old_pickle_is_known_without_reading_it(tmp_path: Path):
    path = tmp_path / "old.ckpt"
    torch.save(flat(), path, _use_new_zipfile_serialization=False)
    os.truncate(path, 5 * 2**30)
    with bytes_read() as count:
        assert inspect_file(path).kind is FileKind.ADAPTER
    assert count[0] < 2**25  # of 5 GB: the largest pickle that is looked at, and its start


def test_a_mistake_of_ours_breaks_one_file_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def stumble(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("image_prompt.model_files.inspection._READERS", (stumble,))
    found = inspect_file(write_outline(tmp_path / "x.safetensors", LAYOUTS[0].table))
    assert found.kind is FileKind.BROKEN
    assert "x.safetensors could not be inspected" in found.text


def test_an_old_lora_of_diffusers_is_no_adapter(tmp_path: Path):
    """Its matrices belong to attention processors, as a trainer's K'/V' do."""
    block = "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn2.processor"
    table = {f"{block}.to_k_lora.down.weight": (4, 768), f"{block}.to_k_lora.up.weight": (320, 4)}
    assert inspect_file(write_outline(tmp_path / "x.safetensors", table)).kind is FileKind.LORA


def test_file_infos_survive_json(tmp_path: Path):
    tables: list[Table] = [LAYOUTS[3].table, encoder(*VIT_G), face_lora(), {"nonsense": (1,)}]
    for n, table in enumerate(tables):
        found = inspect_file(write_outline(tmp_path / f"{n}.safetensors", table))
        assert FileInfo.from_json(json.loads(json.dumps(found.to_json()))) == found
