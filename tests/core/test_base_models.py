"""The blocks of a base model, from the header of its file."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.base_files import SD15, SDXL, unet_keys, write_keys
from image_prompt.model_files.base_models import base_blocks


def written(folder: Path, keys: list[str], shape: tuple[int, ...]) -> Path:
    return write_keys(folder / "m.safetensors", keys, shape)


@pytest.mark.parametrize(
    ("layout", "family", "first", "count"), [(SD15, "SD1.5", "input 1", 16), (SDXL, "SDXL", "input 4", 11)]
)
@pytest.mark.parametrize("prefix", ["model.diffusion_model.", ""])
def test_of_a_checkpoint_and_of_a_unet_alone(tmp_path: Path, layout, family, first, count, prefix):
    keys = [prefix + key for key in unet_keys(layout)]
    text_encoder = "cond_stage_model.transformer.text_model.encoder.layers.0.self_attn.k_proj.weight"
    found = base_blocks(written(tmp_path, [*keys, text_encoder], (4, layout.context_width)))
    assert found is not None
    assert found.family.name == family
    assert len(found.labels) == count
    assert found.labels[0] == first
    assert found.labels[len(layout.inputs)] == "middle"
    assert found.labels[-1] == f"output {layout.outputs[-1][0]}"


@pytest.mark.parametrize(
    ("extra", "family"), [("guidance_in.bias", "Flux.1"), ("distilled_guidance_layer.x", "Chroma")]
)
def test_of_transformers(tmp_path: Path, extra: str, family: str):
    blocks = [
        f"{stage}_blocks.{n}.a" for stage, count in (("double", 19), ("single", 38)) for n in range(count)
    ]
    found = base_blocks(written(tmp_path, [*blocks, extra], (1,)))
    assert found is not None
    assert found.family.name == family
    assert [*found.labels[:2], found.labels[18], found.labels[19], found.labels[-1]] == [
        "double 0",
        "double 1",
        "double 18",
        "single 0",
        "single 37",
    ]


def test_of_what_is_neither(tmp_path: Path):
    (tmp_path / "no.safetensors").write_bytes(b"")
    assert base_blocks(tmp_path / "no.safetensors") is None
    assert base_blocks(tmp_path / "gone.safetensors") is None
    flux_2 = [f"double_blocks.{n}.a" for n in range(8)] + [f"single_blocks.{n}.a" for n in range(48)]
    assert base_blocks(written(tmp_path, flux_2, (1,))) is None
    assert base_blocks(written(tmp_path, ["transformer_blocks.0.attn2.to_k.weight"], (4, 4))) is None
