"""Training for Flux and SD3.5: captions, encoders, files of the command, the node."""

from types import SimpleNamespace

import comfy.sd
import comfy.text_encoders.flux
import comfy.text_encoders.sd3_clip
import comfy.utils
import folder_paths
import pytest
import torch
from helpers import flux_stand_ins
from helpers.beside import has_hooks
from helpers.training import CONFIG
from helpers.transformer_training import (
    TextEncoders,
    TinyTransformerBase,
    WideVae,
    config_of,
    install_hooks,
    require_node_trains_and_goes_on,
    stand_in,
    trainer,
)
from image_prompt import host
from image_prompt.host import base_models
from image_prompt.host.captions import plain_tokens
from image_prompt.host.training_transformers import TransformerBase
from image_prompt.ipadapter_core.errors import CheckpointError, SettingError
from image_prompt.ipadapter_core.spec import Variant
from image_prompt.ipadapter_core.training.config import TrainingConfig
from image_prompt.training.held_out import measuring_config
from image_prompt.training.job import Job, parse
from support import parity, tiny


@pytest.fixture
def hooks(monkeypatch):
    install_hooks(monkeypatch)


TOKENIZERS = {
    "Flux": (comfy.text_encoders.flux.FluxTokenizer, {"l": 77, "t5xxl": 256}),
    "SD3.5": (comfy.text_encoders.sd3_clip.SD3Tokenizer, {"l": 77, "g": 77, "t5xxl": 77}),
}


@pytest.mark.parametrize("family", TOKENIZERS)
def test_captions_are_plain_tokens_of_every_text_encoder(family):
    kind, lengths = TOKENIZERS[family]
    tokenizer = kind()
    clip = SimpleNamespace(tokenizer=tokenizer, tokenize=tokenizer.tokenize_with_weights)
    for caption in ("", "a red cube, in the snow"):
        assert plain_tokens(clip, caption) == clip.tokenize(caption)
    found = plain_tokens(clip, "Paris (2012) poster, embedding:x " + "word " * 400)
    assert {name: len(rows[0]) for name, rows in found.items()} == lengths
    assert all(weight == 1.0 for rows in found.values() for _, weight in rows[0])
    # a longer one is cut, and ends as every other
    assert found["t5xxl"][0][-1][0] == tokenizer.t5xxl.end_token


@has_hooks  # as hosts with SigLIP have
@pytest.mark.parametrize("family", ["Flux", "SD3.5"])
def test_what_is_trained_on_is_what_encode_gives(family, models, monkeypatch):
    adapter = host.load_adapter(
        models / "ipadapter" / {"Flux": flux_stand_ins.INSTANTX, "SD3.5": flux_stand_ins.SD3}[family]
    )
    base = TransformerBase(stand_in(family), WideVae(), TextEncoders(), flux_stand_ins.siglip())
    picture = tiny.picture(3, 40, 64)
    wanted = host.encode_images(base.clip_vision, adapter.spec, host.Reference(picture))
    assert torch.equal(base.features(Variant.INSTANTX, picture), wanted)


def test_xlabs_is_trained_on_what_encode_gives(models, hooks):
    adapter = host.load_adapter(models / "ipadapter" / flux_stand_ins.XLABS)
    base = TransformerBase(stand_in("Flux"), WideVae(), TextEncoders(), flux_stand_ins.clip_l())
    picture = tiny.picture(3, 40, 64)
    wanted = host.encode_images(base.clip_vision, adapter.spec, host.Reference(picture))
    assert torch.equal(base.features(Variant.XLABS, picture), wanted)
    nothing = host.no_image_features(base.clip_vision, adapter.spec, wanted)
    torch.testing.assert_close(base.no_features(Variant.XLABS), nothing, rtol=0, atol=1e-6)


def test_the_model_stays_as_it_is_loaded(hooks):
    model = stand_in("Flux")
    model.model.to(torch.bfloat16)
    base = TransformerBase(model, WideVae(), TextEncoders(), parity.lively_encoder())
    for settings, dtype in (
        ({}, torch.bfloat16),
        ({"precision": "bf16"}, torch.bfloat16),
        ({"precision": "fp16"}, torch.float16),
        ({"unet": "fp32"}, torch.float32),
    ):
        base.compute_in(TrainingConfig.from_dict({"kind": "xlabs", **settings}))
        assert base.dtype is dtype
        assert {p.dtype for p in base.unet.parameters()} == {dtype}
    assert {p.dtype for p in model.model.parameters()} == {torch.bfloat16}


@pytest.mark.parametrize("case", ["Flux xlabs", "SD3.5 instantx"])
def test_the_adapter_and_the_loss_are_in_fp32_on_a_model_in_bf16(case, hooks, tmp_path):
    family, kind = case.split()
    losses = []
    for dtype, precision in ((torch.float32, "no"), (torch.bfloat16, "no"), (torch.float32, "bf16")):
        model = stand_in(family)
        model.model.to(dtype)
        made = trainer(
            config_of(kind, precision=precision),
            TinyTransformerBase(model, parity.lively_encoder()),
            tmp_path,
        )
        made.base.load(False)
        loss = made._loss(0)
        loss.backward()
        assert made.base.dtype is dtype
        assert loss.dtype is torch.float32
        parameters = list(made.trainable.parameters())
        assert {p.dtype for p in parameters} == {p.grad.dtype for p in parameters} == {torch.float32}
        losses.append(loss.item())
    assert losses[1:] == pytest.approx([losses[0]] * 2, rel=0.02)


def test_held_out_losses_compare_whatever_the_timesteps_are():
    config = TrainingConfig.from_dict({**CONFIG.to_dict(), "kind": "xlabs", "timesteps": "logit-normal"})
    plain = TrainingConfig.from_dict({**CONFIG.to_dict(), "kind": "xlabs"})
    assert measuring_config(config) == measuring_config(plain)
    assert measuring_config(config).timesteps.value == "uniform"
    assert measuring_config(CONFIG).timesteps.value == "auto"


# --- the command -------------------------------------------------------------------------------------------------

PARTS = ("--diffusion-model", "flux", "--text-encoders", "t5, clip_l", "--vae-file", "ae")


def test_the_command_takes_a_model_in_parts():
    _, job, config = parse(
        ["--clip-vision", "vit-l", "--data", ".", "--kind", "xlabs", "--tokens", "16", *PARTS]
    )
    assert config.token_count == 16
    assert job.models == [
        ("diffusion_models", "flux"),
        ("text_encoders", "t5"),
        ("text_encoders", "clip_l"),
        ("vae", "ae"),
        ("clip_vision", "vit-l"),
    ]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"diffusion_model": "flux", "vae_file": "ae"}, "text_encoders is missing"),
        ({"diffusion_model": "flux", "text_encoders": "t5"}, "vae_file is missing"),
        (
            {"diffusion_model": "flux", "text_encoders": "t5", "vae_file": "ae", "checkpoint": "sd"},
            "one of them",
        ),
        ({}, "checkpoint is missing"),
    ],
)
def test_parts_that_lack_are_named(given, said):
    with pytest.raises(SettingError, match=said):
        Job(clip_vision="x", data=".", **given)


def test_parts_are_loaded_by_the_host(monkeypatch, hooks, encoder):
    seen = {}
    monkeypatch.setattr(base_models, "load_clip_vision", lambda path: encoder)
    monkeypatch.setattr(comfy.sd, "load_diffusion_model", lambda path: stand_in("Flux"), raising=False)
    monkeypatch.setattr(comfy.sd, "load_clip", lambda **given: seen.update(given) or TextEncoders())
    monkeypatch.setattr(comfy.utils, "load_torch_file", lambda path: {"file": path})
    monkeypatch.setattr(comfy.sd, "VAE", lambda sd: seen.update(vae=sd) or WideVae())
    base = host.load_base(host.BaseFiles("vit", "", "flux", ("t5", "clip_l"), "ae"))
    assert isinstance(base, TransformerBase)
    assert base.owned
    assert seen == {
        "ckpt_paths": ["t5", "clip_l"],
        "clip_type": comfy.sd.CLIPType.FLUX,
        "vae": {"file": "ae"},
    }


def test_a_checkpoint_without_text_encoders_is_a_sentence(monkeypatch, hooks, encoder):
    monkeypatch.setattr(base_models, "load_clip_vision", lambda path: encoder)
    loaded = (stand_in("Flux"), None, WideVae(), None)
    monkeypatch.setattr(comfy.sd, "load_checkpoint_guess_config", lambda *_, **__: loaded)
    with pytest.raises(CheckpointError, match="flux holds no text encoder or no VAE"):
        host.load_base(host.BaseFiles("vit", "flux"))


# --- the node ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "case", ["Flux xlabs", pytest.param("Flux instantx", marks=has_hooks), "SD3.5 instantx"]
)
def test_the_node_trains_a_transformer_and_goes_on(case, models, hooks, tmp_path, monkeypatch):
    monkeypatch.setattr(folder_paths, "get_output_directory", lambda: str(tmp_path))
    family, kind = case.split()
    encoders = {"Flux xlabs": flux_stand_ins.clip_l, "Flux instantx": flux_stand_ins.siglip}
    vision = encoders.get(case, tiny.clip_vision)()
    parts = {"model": stand_in(family), "clip": TextEncoders(), "clip_vision": vision}
    require_node_trains_and_goes_on(kind, "one\ntwo", **parts, batch_size=1)
