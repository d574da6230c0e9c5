"""The LoRA of FaceID adapters: trained with the adapter, exported inside it and beside it, resumed and started from."""

import json

import comfy.sd
import pytest
import torch
from helpers.training import Remembers, TinyBase, changed, faces_of_colour, trainer
from helpers.two_processes import launch
from image_prompt import host
from image_prompt.ipadapter_core.checkpoint import read_checkpoint
from image_prompt.ipadapter_core.errors import MismatchError, SettingError
from image_prompt.ipadapter_core.lora import lora_tensors
from image_prompt.ipadapter_core.spec import Variant
from image_prompt.ipadapter_core.training.config import TrainingConfig
from image_prompt.ipadapter_core.training.lora import TrainableLora
from image_prompt.ipadapter_core.training.noise import batch_noise
from image_prompt.ipadapter_core.training.trainable import TrainableAdapter, trainable_from
from image_prompt.model_files.inspection import FileKind, inspect_file
from image_prompt.training import loop
from safetensors.torch import load_file
from support import layouts, tiny

RANK = 4
FACEID = changed(kind="faceid", lora_rank=RANK, steps=4, learning_rate=1e-3, drop_image=0.2)


@pytest.fixture(scope="module")
def base(encoder):
    made = TinyBase(tiny.SD15, tiny.host_model(tiny.SD15), encoder)
    with faces_of_colour(made):
        yield made


@pytest.fixture(scope="module")
def whole(base, tmp_path_factory):
    """(trainer after a run, its folder, its losses)"""
    folder = tmp_path_factory.mktemp("whole")
    made, seen = trainer(faceid(ema=0.5), base, folder), Remembers()
    made.run(seen)
    return made, folder, seen.losses


def faceid(**more):
    return TrainingConfig.from_dict({**FACEID.to_dict(), **more})


def state(made):
    return {key: tensor.clone() for key, tensor in made.trainable.state_dict().items()}


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(tensor, b[key]) for key, tensor in a.items())


# --- what is trained -----------------------------------------------------------------------------------------------------


def test_it_starts_as_nothing_with_the_published_values(base):
    lora = TrainableLora(changed(kind="faceid"), base.sites)
    tensors = lora.state_dict()
    assert len(tensors) == 2 * 4 * 2 * tiny.SD15.sites
    downs = torch.cat([tensor.flatten() for key, tensor in tensors.items() if ".down." in key])
    assert downs.std().item() == pytest.approx(1 / 128, rel=0.01)
    assert abs(downs.mean().item()) < 1e-4
    assert not any(tensor.any() for key, tensor in tensors.items() if ".up." in key)
    assert {t.shape[0] for key, t in tensors.items() if ".down." in key} == {128}


def test_the_settings_decide_whether_there_is_one(base):
    assert (TrainingConfig(Variant.FACEID).rank, TrainingConfig().rank) == (128, 0)
    assert changed(kind="faceid", lora_rank=0).rank == 0
    with pytest.raises(SettingError, match="lora_rank is 8 and kind is plus; only faceid has a LoRA"):
        changed(kind="plus", lora_rank=8)
    with pytest.raises(SettingError, match="lora_rank is -1"):
        changed(kind="faceid", lora_rank=-1)


def test_noise_drops_and_timesteps_are_those_of_a_run_without_it():
    plain = batch_noise(faceid(lora_rank=0), 3, (4, 4, 8, 8), 1000)
    drawn = batch_noise(FACEID, 3, (4, 4, 8, 8), 1000)
    assert all(torch.equal(getattr(drawn, name), getattr(plain, name)) for name in vars(drawn))


def test_every_matrix_learns_and_the_unet_does_not(base, whole):
    made, _, _ = whole
    start = TrainableLora(FACEID, base.sites).state_dict()
    assert all((tensor != start[key]).any() for key, tensor in made.trainable.lora.state_dict().items())
    own, theirs = base.unet.state_dict(), base.model.model.diffusion_model.state_dict()
    assert equal(own, theirs)


def test_gradient_checkpointing_and_accumulation_change_no_weight(base, whole, encoder, tmp_path):
    fresh = TinyBase(tiny.SD15, tiny.host_model(tiny.SD15), encoder)
    with faces_of_colour(fresh):
        made = trainer(faceid(ema=0.5, checkpointing=True), fresh, tmp_path)
        made.run(Remembers())
    for key, tensor in state(whole[0]).items():
        assert torch.allclose(tensor, state(made)[key], atol=1e-5), key


def test_its_rate_is_that_of_keys_and_values_not_of_the_projection(base, tmp_path):
    made = trainer(faceid(steps=1, projection_rate=1e-2, weight_decay=0.0, drop_image=0.0), base, tmp_path)
    start = state(made)
    made.run(Remembers())
    up = "lora.1.to_q_lora.up.weight"
    assert (state(made)[up] - start[up]).abs().max().item() == pytest.approx(1e-3, rel=0.01)


def test_a_run_after_it_on_the_same_base_is_without_it(base, whole, tmp_path):
    """Its hooks leave with its trainer; a resumed one replaces them."""
    plain = faceid(lora_rank=0, steps=1)
    losses = []
    for number in range(2):
        made, seen = trainer(plain, base, tmp_path / f"plain-{number}"), Remembers()
        made.run(seen)
        losses += seen.losses
        if not number:
            other = trainer(FACEID, base, tmp_path / "with")
            torch.nn.init.ones_(other.trainable.lora["0"]["to_q_lora"].up.weight)
    assert losses[0] == losses[1]


# --- files ---------------------------------------------------------------------------------------------------------------


def test_the_adapter_has_it_inside_as_released_files_have(base, whole):
    made, folder, _ = whole
    shapes = read_checkpoint(folder / "adapter-000004.safetensors").shapes
    table = layouts.faceid(768) | layouts.keys_values(tiny.site_widths(tiny.SD15), 768)
    assert shapes == table | layouts.lora(tiny.site_widths(tiny.SD15), 768, RANK)
    found = inspect_file(folder / "adapter-000004.safetensors")
    assert (found.kind, found.adapter.lora) == (FileKind.ADAPTER, True)


@pytest.mark.parametrize("kind", ["", "-ema"])
def test_its_own_file_is_what_the_hosts_lora_loader_reads(base, whole, kind):
    made, folder, _ = whole
    path = folder / f"adapter-000004{kind}_lora.safetensors"
    assert inspect_file(path).kind is FileKind.LORA
    adapter = host.load_adapter(folder / f"adapter-000004{kind}.safetensors")
    loaded, _ = comfy.sd.load_lora_for_models(base.model, None, load_file(path), 1.0, 0)
    assert len(loaded.patches) == 2 * 4 * tiny.SD15.sites
    # the same matrices: Apply finds them there, and adds nothing
    assert len(host.ensure_lora(loaded, adapter).patches[next(iter(loaded.patches))]) == 1
    inner = host.ensure_lora(base.model, adapter)
    assert inner.patches.keys() == loaded.patches.keys()


def test_a_lora_of_the_published_rank_is_known_as_faceids(base, tmp_path):
    made = trainer(changed(kind="faceid", steps=1), base, tmp_path)
    made.run(Remembers())
    assert inspect_file(tmp_path / "adapter-000001_lora.safetensors").lora.face


@pytest.mark.parametrize("family", ["SD1.5", "SDXL"])
def test_what_is_trained_is_what_apply_computes_from_the_file(family, encoder, tmp_path):
    """The UNet with hooks, beside the host's own with the file's adapter and its LoRA as weight patches."""
    small = tiny.FAMILIES[family]
    base = TinyBase(small, tiny.host_model(small), encoder)
    with faces_of_colour(base):
        made = trainer(faceid(steps=1, learning_rate=1e-2), base, tmp_path)
        path = made.run(Remembers())
    with torch.no_grad():
        noisy, times = torch.randn(2, 4, 8, 8), torch.tensor([300, 700])
        rows, crops = made.data.batch([0, 1])
        texts = base.texts(["a", "b"])
        pairs = made.trainable(rows["features"])
        hooked = base.predict(noisy, times, texts, crops, pairs)
        base.attach_lora(None)
        without = base.predict(noisy, times, texts, crops, pairs)
        own = base.model.model.diffusion_model
        patched = host.ensure_lora(base.model, host.load_adapter(path))
        patched.patch_model()
        try:
            base._own.model.diffusion_model = own
            merged = base.predict(noisy, times, texts, crops, pairs)
        finally:
            patched.unpatch_model()
    assert (hooked - merged).abs().max() < 2e-5 * hooked.abs().max()
    assert (hooked - without).abs().max() > 1e-3 * hooked.abs().max()


# --- resuming ------------------------------------------------------------------------------------------------------------


def test_a_stopped_run_goes_on_to_the_same_weights(base, whole, tmp_path):
    config = faceid(ema=0.5)
    trainer(config, base, tmp_path).run(Remembers(stop_after=2))
    rest, seen = trainer(config, base, tmp_path), Remembers()
    assert rest.resume() == 2
    rest.run(seen)
    assert seen.losses == whole[2][2:]
    assert equal(state(rest), state(whole[0]))
    names = (
        "adapter-000004.safetensors",
        "adapter-000004_lora.safetensors",
        "adapter-000004-ema_lora.safetensors",
    )
    for name in names:
        assert equal(load_file(tmp_path / name), load_file(whole[1] / name))


def test_where_the_adapter_is_its_lora_is(base, tmp_path, monkeypatch):
    """A run that ends between the two files writes both when it goes on."""

    def ends(*_):
        raise KeyboardInterrupt

    save = loop.save_adapter
    monkeypatch.setattr(loop, "save_adapter", ends)
    with pytest.raises(KeyboardInterrupt):
        trainer(faceid(steps=1), base, tmp_path).run(Remembers())
    assert not (tmp_path / "adapter-000001.safetensors").exists()
    monkeypatch.setattr(loop, "save_adapter", save)
    (tmp_path / "adapter-000001_lora.safetensors").write_bytes(b"half")
    again = trainer(faceid(steps=1), base, tmp_path)
    assert again.resume() == 1
    again.run(Remembers())
    inside = lora_tensors(read_checkpoint(tmp_path / "adapter-000001.safetensors").ip_adapter)
    beside = load_file(tmp_path / "adapter-000001_lora.safetensors")
    assert len(inside) == len(beside) == 2 * 4 * 2 * tiny.SD15.sites


def test_other_ranks_are_not_resumed(base, whole):
    made = trainer(faceid(ema=0.5, lora_rank=8), base, whole[1])
    with pytest.raises(SettingError, match="lora_rank was 4 and is 8"):
        made.resume()


# --- starting from a file ------------------------------------------------------------------------------------------------


def test_the_lora_of_a_file_is_trained_on(base, whole):
    file = read_checkpoint(whole[1] / "adapter-000004.safetensors")
    made = trainable_from(file, FACEID, base.sites)
    assert equal(made.state_dict(), state(whole[0]))


def test_a_file_without_one_gets_a_new_one(base, whole, caplog):
    file = whole[0].trainable.checkpoint("x")
    bare = type(file)("x", file.image_proj, {k: t for k, t in file.ip_adapter.items() if "_lora." not in k})
    made = trainable_from(bare, FACEID, base.sites)
    assert equal(made.lora.state_dict(), TrainableLora(FACEID, base.sites).state_dict())
    assert "x has no LoRA, so that it starts new" in caplog.text


def test_a_lora_that_is_not_wanted_is_left_out_with_a_word(base, whole, caplog):
    made = trainable_from(whole[0].trainable.checkpoint("x"), faceid(lora_rank=0), base.sites)
    assert isinstance(made, TrainableAdapter)
    assert made.lora is None
    assert "the LoRA of x is left out" in caplog.text
    assert not lora_tensors(made.checkpoint("y").ip_adapter)


def test_one_of_another_rank_is_refused(base, whole):
    with pytest.raises(MismatchError, match=r"has a LoRA of rank 4 .* one of rank 8"):
        trainable_from(whole[0].trainable.checkpoint("x"), faceid(lora_rank=8), base.sites)


# --- several processes ---------------------------------------------------------------------------------------------------


def test_two_processes_train_it_as_one_does(base, whole, tmp_path):
    done = launch(faceid(batch_size=1).to_dict(), tmp_path, broken=2)
    saved = tmp_path / "whole" / "adapter-000004.safetensors"
    assert saved.is_file(), done.stderr[-3000:]
    theirs = read_checkpoint(saved).state_dict()
    own = whole[0].trainable.checkpoint("x").state_dict()
    off = torch.cat([(tensor - theirs[key]).abs().flatten() for key, tensor in own.items()])
    print(f"two processes: difference of a weight at most {off.max():.1e}, in the mean {off.mean():.1e}")
    # AdamW moves a weight by its rate whatever its gradient: of those whose first one is below rounding, the sign is chance
    assert off.mean() < 1e-7
    assert off.max() < FACEID.learning_rate
    assert json.loads((tmp_path / "losses.json").read_text()) == pytest.approx(whole[2], abs=1e-5)
