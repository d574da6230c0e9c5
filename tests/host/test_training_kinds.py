"""Data sets with shares, kinds of adapters, one UNet in memory, the held-out loss, optimizers."""

import sys
from types import SimpleNamespace

import pytest
import torch
from helpers.training import (
    CONFIG,
    SIZES,
    Remembers,
    SeededClip,
    ShrinkingVae,
    TinyBase,
    captioned,
    changed,
    faces_of_colour,
    picture_folder,
    saved,
    trainer,
)
from image_prompt.host.training import HostBase
from image_prompt.ipadapter_core.checkpoint import read_checkpoint
from image_prompt.ipadapter_core.errors import MismatchError, SettingError
from image_prompt.ipadapter_core.spec import Variant
from image_prompt.ipadapter_core.training.trainable import trainable_from
from image_prompt.training.data_sets import DataSet, data_sets
from image_prompt.training.encoded import Encodings
from image_prompt.training.held_out import HeldOut
from image_prompt.training.pictures import find_pictures
from PIL import Image
from support import tiny


@pytest.fixture(scope="module")
def base(encoder):
    return TinyBase(tiny.SD15, tiny.host_model(tiny.SD15), encoder)


@pytest.fixture
def folder(tmp_path):
    return picture_folder(tmp_path / "data")


# --- data sets -----------------------------------------------------------------------------------------------------------


def test_several_data_sets_with_shares(folder, tmp_path):
    saved(tmp_path / "more, and commas" / "x.png", 50)
    named = data_sets(f"{folder}*3, {folder / 'faces'}*0.5")
    assert [(each.path, each.share) for each in named] == [(str(folder), 3.0), (str(folder / "faces"), 0.5)]
    assert data_sets(str(tmp_path / "more, and commas")) == [DataSet(str(tmp_path / "more, and commas"))]
    found = find_pictures(*named)
    assert list(found.shares) == [3.0] * 6 + [0.5] * 3
    assert find_pictures(folder).shares == ()
    with pytest.raises(SettingError, match="0 times an epoch"):
        data_sets(f"{folder}*0")


@pytest.mark.parametrize(
    "rule", ["faces/{stem}.png", "{folder} faces/{stem}.png", "{stem}_face.png", "style.png"]
)
def test_image_prompts_by_a_rule_are_no_pictures_to_train_on(tmp_path, rule, caplog):
    """Wherever they lie: in a folder below, beside the folder, or beside the picture."""
    caplog.set_level("INFO")
    data = tmp_path / "data"
    for name in ("a", "b"):
        saved(data / "people" / f"{name}.png", ord(name))
        saved(data / "people" / rule.format(stem=name, folder="people"), 7, 32)
    found = find_pictures(*data_sets(str(data), rule))
    names = [record.name for record in found.records]
    assert names == ["people/a.png", "people/b.png"] + ["people/style.png"] * (rule == "style.png")
    assert not found.left_out
    assert all(found.reference(n).shape[1] == 32 for n in range(len(found)))
    assert ("2 pictures are image prompts of others" in caplog.text) == (rule != "style.png")


def test_one_without_its_image_prompt_is_left_out_by_name(tmp_path):
    for name in ("a", "b"):
        saved(tmp_path / f"{name}.png", 1)
    saved(tmp_path / "faces" / "a.png", 2)
    found = find_pictures(*data_sets(str(tmp_path), "faces/{stem}.png"))
    assert [*found.left_out] == ["b.png"]


# --- kinds ---------------------------------------------------------------------------------------------------------------


def test_a_full_adapter_has_a_token_for_each_of_the_encoders(base, tmp_path):
    made = trainer(changed(kind="full"), base, tmp_path)
    path = made.run(Remembers())
    spec = made.trainable.adapter.spec
    assert (spec.variant, spec.tokens) == (Variant.FULL, None)
    again = trainable_from(read_checkpoint(path), changed(kind="full"), base.sites)
    assert all(
        torch.equal(a, b) for a, b in zip(made.trainable.parameters(), again.parameters(), strict=True)
    )


@pytest.fixture
def with_faces(base):
    """Faces by the mean colour; in a dark picture there is none."""
    made = HostBase(base.model, base.vae, SeededClip(tiny.SD15), base.clip_vision)
    with faces_of_colour(made):
        yield made


def test_a_faceid_adapter_is_trained_from_embeddings(with_faces, tmp_path):
    made = trainer(changed(kind="faceid", lora_rank=0), with_faces, tmp_path)
    path = made.run(Remembers())
    adapter = read_checkpoint(path)
    assert made.trainable.adapter.spec.variant is Variant.FACEID
    assert adapter.image_proj["proj.0.weight"].shape == (1024, 512)
    again = trainable_from(adapter, changed(kind="faceid", lora_rank=0), with_faces.sites)
    assert again.adapter.spec.tokens == 4


def test_pictures_without_a_face_are_left_out_by_name(with_faces, tmp_path):
    saved(tmp_path / "good.png", 1)
    Image.new("RGB", (64, 64)).save(tmp_path / "dark.png")
    data = Encodings(with_faces, changed(kind="faceid"), find_pictures(tmp_path), SIZES, {})
    rows, _ = data.batch([0, 1])
    assert list(data.pictures.left_out) == ["dark.png"]
    assert torch.equal(rows["features"][0], rows["features"][1])


def test_faces_need_a_model(base):
    with pytest.raises(SettingError, match="needs a face model"):
        base.features(Variant.FACEID, tiny.picture(1))


@pytest.mark.parametrize(("kind", "count"), [("base", 6), ("base", 2), ("plus", 9)])
def test_a_file_of_another_number_of_tokens_is_started_from(base, tmp_path, kind, count, caplog):
    file = trainer(changed(kind=kind, steps=1), base, tmp_path).trainable.checkpoint("x")
    made = trainable_from(file, changed(kind=kind, tokens=count), base.sites)
    assert made.adapter.spec.tokens == count
    assert "start new" in caplog.text
    state, key = made.adapter.state_dict(), "latents" if kind == "plus" else "proj.bias"
    own, old = state[f"image_proj.{key}"].flatten(), file.image_proj[key].flatten()
    same = min(len(own), len(old))
    assert torch.equal(own[:same], old[:same])
    if count > same:
        assert own[same:].std() > 0
    with pytest.raises(MismatchError):
        trainable_from(file, changed(kind="full"), base.sites)


# --- one UNet ------------------------------------------------------------------------------------------------------------


def test_a_model_that_nobody_else_uses_is_trained_through_itself(encoder, tmp_path):
    """One UNet in memory; the same losses as through a copy."""
    runs = []
    for owned in (False, True):
        model = tiny.host_model(tiny.SD15)
        own = HostBase(model, ShrinkingVae(), SeededClip(tiny.SD15), encoder, owned=owned)
        made, seen = trainer(CONFIG, own, tmp_path / str(owned)), Remembers()
        made.run(seen)
        assert (own.unet is model.model.diffusion_model) is owned
        runs.append(seen.losses)
    assert runs[0] == runs[1]


# --- held-out loss, optimizers -------------------------------------------------------------------------------------------


def test_the_held_out_loss_is_of_the_same_noise_whatever_the_seed(base, tmp_path):
    held, weights = [], None
    for seed in (5, 6):
        config = changed(steps=4, seed=seed, learning_rate=0.0, weight_decay=0.0)
        data = Encodings(base, config, captioned(3), SIZES, {})
        made, seen = trainer(config, base, tmp_path / str(seed), held_out=HeldOut(data, 2, 2)), Remembers()
        weights = weights or {name: t.clone() for name, t in made.trainable.state_dict().items()}
        made.trainable.load_state_dict(weights)
        made.run(seen)
        held.append([step.held_out for step in seen.steps])
    assert [each is None for each in held[0]] == [True, False, True, False]
    # nothing learns: all the same
    assert held[0][1] == held[0][3] == held[1][1] == held[1][3]
    assert seen.losses[0] != held[0][1]
    assert seen.steps[0].seconds > 0


@pytest.mark.parametrize("optimizer", ["adamw-fused", "prodigy"])
def test_other_optimizers_move_the_weights_and_resume(base, tmp_path, optimizer):
    config = changed(optimizer=optimizer, learning_rate=1.0 if optimizer == "prodigy" else 1e-3, steps=4)
    whole, seen = trainer(config, base, tmp_path / "whole"), Remembers()
    start = [p.detach().clone() for p in whole.trainable.parameters()]
    whole.run(seen)
    assert all((p != was).any() for p, was in zip(whole.trainable.parameters(), start, strict=True))
    trainer(config, base, tmp_path / "parts").run(Remembers(stop_after=2))
    rest = trainer(config, base, tmp_path / "parts")
    assert rest.resume() == 2
    rest.run(Remembers())
    pairs = zip(whole.trainable.parameters(), rest.trainable.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_an_optimizer_that_does_not_know_the_device_is_told_before_the_first_step(
    base, tmp_path, monkeypatch
):
    """Libraries find out in a step."""

    class NotHere(torch.optim.SGD):
        def step(self, closure=None):
            raise ValueError("expected all tensors to be on a GPU")

    monkeypatch.setitem(
        sys.modules, "bitsandbytes", SimpleNamespace(optim=SimpleNamespace(AdamW8bit=NotHere))
    )
    with pytest.raises(SettingError, match=r"adamw-8bit, which does not run here \(expected all tensors"):
        trainer(changed(optimizer="adamw-8bit"), base, tmp_path)


def test_two_rates_move_two_parts(base, tmp_path):
    """AdamW's first step is its rate."""
    made = trainer(
        changed(steps=1, learning_rate=1e-3, projection_rate=1e-2, weight_decay=0.0), base, tmp_path
    )
    start = {name: p.detach().clone() for name, p in made.trainable.adapter.named_parameters()}
    made.run(Remembers())
    moved = {
        name: (p - start[name]).abs().max().item() for name, p in made.trainable.adapter.named_parameters()
    }
    assert moved["image_proj.proj.weight"] == pytest.approx(1e-2, rel=0.01)
    assert moved["ip_adapter.1.to_k_ip.weight"] == pytest.approx(1e-3, rel=0.01)
