"""Training inside the host: what changes, what does not, what an interruption leaves."""

import io
import json

import pytest
import torch
from helpers.training import SIZES, Remembers, TinyBase, captioned, trainer
from helpers.two_processes import launch
from image_prompt import host
from image_prompt.ipadapter_core.checkpoint import read_checkpoint
from image_prompt.ipadapter_core.errors import MismatchError, SettingError
from image_prompt.ipadapter_core.families.site import Site
from image_prompt.ipadapter_core.spec import Variant
from image_prompt.ipadapter_core.training.config import Precision, TrainingConfig
from image_prompt.ipadapter_core.training.trainable import new_trainable, trainable_from
from image_prompt.training.cache import Disk
from image_prompt.training.encoded import Encodings
from image_prompt.training.pictures import Pictures
from image_prompt.training.records import Record
from image_prompt.training.states import states
from PIL import Image
from support import layouts, tiny

CONFIG = TrainingConfig(steps=6, batch_size=2, drop_text=0.2, drop_image=0.2, drop_both=0.2, seed=5)


@pytest.fixture(scope="module")
def base(encoder):
    return TinyBase(tiny.SD15, tiny.host_model(tiny.SD15), encoder)


@pytest.fixture(scope="module")
def sdxl_base(encoder):
    return TinyBase(tiny.SDXL, tiny.host_model(tiny.SDXL), encoder)


def weights(made):
    return {key: tensor.clone() for key, tensor in made.trainable.adapter.state_dict().items()}


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(tensor, b[key]) for key, tensor in a.items())


@pytest.fixture(scope="module")
def whole_run(base, tmp_path_factory):
    made, seen = trainer(CONFIG, base, tmp_path_factory.mktemp("whole")), Remembers()
    made.run(seen)
    return weights(made), seen.losses


def changed(config, **more):
    return TrainingConfig.from_dict({**config.to_dict(), **more})


# --- what is trained ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["base", "plus"])
def test_keys_and_values_start_as_those_of_the_text(base, kind):
    made = new_trainable(TrainingConfig(Variant(kind)), base.model.model.diffusion_model, base.sites, 48)
    state = base.model.model.diffusion_model.state_dict()
    for number, site in enumerate(base.sites):
        for role in "kv":
            ours = made.adapter.state_dict()[f"ip_adapter.{2 * number + 1}.to_{role}_ip.weight"]
            assert torch.equal(ours, state[f"{site.path}.attn2.to_{role}.weight"])
    assert made.adapter.spec.variant.value == kind
    assert made.adapter.spec.tokens == (4 if kind == "base" else 16)


def test_sizes_are_those_of_the_released_adapters():
    """22 M of the paper: SD1.5's sites and ViT-H's embedding, on the meta device."""
    sites = [host_site(number, width) for number, width in enumerate(layouts.SD15)]
    unet = torch.nn.Module()
    blocks = unet.blocks = torch.nn.ModuleList()
    for width in layouts.SD15:
        block = torch.nn.Module()
        block.attn2 = torch.nn.Module()
        block.attn2.to_k = torch.nn.Linear(768, width, bias=False)
        block.attn2.to_v = torch.nn.Linear(768, width, bias=False)
        blocks.append(block)
    assert new_trainable(TrainingConfig(), unet, sites, 1024).parameter_count == 22_319_616
    assert new_trainable(TrainingConfig(Variant.PLUS), unet, sites, 1280).parameter_count == 49_087_488


def host_site(number, width):
    return Site(f"input {number}", "input", number, 0, width, 768, 8, f"blocks.{number}")


def test_only_the_adapter_changes_and_nothing_of_the_hosts_model(base, tmp_path):
    model = base.model.model.diffusion_model
    before = {key: (tensor.data_ptr(), tensor.clone()) for key, tensor in model.state_dict().items()}
    options = str(base.model.model_options)
    made = trainer(CONFIG, base, tmp_path)
    start = weights(made)
    made.run(Remembers())
    after = model.state_dict()
    assert all(
        after[key].data_ptr() == ptr and torch.equal(after[key], t) for key, (ptr, t) in before.items()
    )
    assert str(base.model.model_options) == options
    assert not any(p.requires_grad or p.grad is not None for p in base.unet.parameters())
    assert all((weights(made)[key] != tensor).any() for key, tensor in start.items())


def test_patches_of_the_model_are_on_the_copy_alone(base):
    """A LoRA before the trainer is trained with, and the model that it came from stays as it was."""
    model = base.model.clone()
    model.add_patches({"diffusion_model.out.2.bias": (torch.ones(4),)}, 0.5)
    before = base.model.model.diffusion_model.out[2].bias.clone()
    patched = TinyBase(tiny.SD15, model, base.clip_vision)
    patched.load(False)
    torch.testing.assert_close(patched.unet.out[2].bias, before + 0.5)
    assert torch.equal(base.model.model.diffusion_model.out[2].bias, before)


def test_it_learns_one_batch(base, tmp_path):
    """The loss of the same pictures, noise and timesteps falls."""
    config = changed(CONFIG, steps=40, learning_rate=3e-3, drop_text=0, drop_image=0, drop_both=0)
    made, seen = trainer(config, base, tmp_path, captioned(2)), Remembers()
    loss = made._loss
    made._loss = lambda batch: loss(0)
    made.run(seen)
    assert sum(seen.losses[-5:]) < 0.8 * sum(seen.losses[:5])


def test_a_v_prediction_model_is_trained_on_v(base, tmp_path, monkeypatch):
    made, seen = trainer(changed(CONFIG, steps=1), base, tmp_path), Remembers()
    made.run(seen)
    v = type(base.diffusion)(base.diffusion.alphas_cumprod, True)
    monkeypatch.setitem(base.__dict__, "diffusion", v)
    other, seen_v = trainer(changed(CONFIG, steps=1), base, tmp_path / "v"), Remembers()
    other.run(seen_v)
    assert seen_v.losses != seen.losses


@pytest.mark.parametrize("which", ["base", "sdxl_base"])
def test_recomputing_activations_changes_nothing_but_memory(which, request, tmp_path):
    base = request.getfixturevalue(which)
    runs = []
    for gradient_checkpointing in (False, True):
        own = TinyBase(base.family, base.model, base.clip_vision)
        config = changed(CONFIG, steps=2, checkpointing=gradient_checkpointing, drop_text=0)
        made, seen = trainer(config, own, tmp_path / str(gradient_checkpointing)), Remembers()
        made.run(seen)
        runs.append((seen.losses, weights(made)))
    assert runs[0][0] == pytest.approx(runs[1][0], abs=1e-6)
    off = max((tensor - runs[1][1][key]).abs().max().item() for key, tensor in runs[0][1].items())
    assert off < 1e-5


def test_two_batches_for_one_step_are_the_mean_of_both(base, tmp_path):
    """Gradients of accumulation 2 are those of both batches together."""
    made = trainer(changed(CONFIG, accumulation=2, steps=1), base, tmp_path)
    base.load(False)
    (made._loss(0) / 2 + made._loss(1) / 2).backward()
    wanted = {name: p.grad.clone() for name, p in made.trainable.named_parameters()}
    made.trainable.zero_grad()
    got, step = {}, made.optimizer.optimizer.step

    def look(*args, **options):
        got.update({name: p.grad.clone() for name, p in made.trainable.named_parameters()})
        return step(*args, **options)

    made.optimizer.optimizer.step = look
    made._step()
    assert all(torch.allclose(got[name], grad, atol=1e-7) for name, grad in wanted.items())


def test_half_precision_trains_weights_of_full_precision(base, tmp_path):
    config = changed(CONFIG, precision=Precision.BF16.value, steps=2)
    made, seen = trainer(config, base, tmp_path), Remembers()
    made.run(seen)
    assert {tensor.dtype for tensor in weights(made).values()} == {torch.float32}
    assert all(0 < loss < 10 for loss in seen.losses)


def test_an_average_of_the_weights_is_saved_beside_them(base, tmp_path):
    made, seen = trainer(changed(CONFIG, ema=0.5, steps=3, learning_rate=0.01), base, tmp_path), Remembers()
    start = weights(made)
    made.run(seen)
    averaged = read_checkpoint(tmp_path / "adapter-000003-ema.safetensors").state_dict()
    now = weights(made)
    key = "ip_adapter.1.to_k_ip.weight"
    between = (averaged[key] - start[key]).abs().mean(), (now[key] - start[key]).abs().mean()
    assert 0 < between[0] < between[1]


def test_a_loss_that_is_no_number_stops_and_saves_what_is_whole(base, tmp_path):
    made, seen = trainer(CONFIG, base, tmp_path), Remembers()
    loss = made._loss
    made._loss = lambda batch: loss(batch) * (float("nan") if batch == 2 else 1.0)
    with pytest.raises(SettingError, match="the loss is nan in step 3"):
        made.run(seen)
    saved = read_checkpoint(tmp_path / "adapter-000002.safetensors").state_dict()
    assert all(tensor.isfinite().all() for tensor in saved.values())


# --- going on ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", [{"stop_after": 3}, {"raise_after": 3}])
@pytest.mark.parametrize("more", [{}, {"ema": 0.9, "accumulation": 2, "schedule": "cosine", "warmup": 2}])
def test_interrupted_and_resumed_it_ends_where_an_uninterrupted_run_does(base, tmp_path, how, more):
    config = changed(CONFIG, **more)
    whole, seen = trainer(config, base, tmp_path / "whole"), Remembers()
    whole.run(seen)
    first, halves = trainer(config, base, tmp_path / "parts"), Remembers(**how)
    try:
        first.run(halves)
    except KeyboardInterrupt:
        assert "raise_after" in how
    assert halves.files == [tmp_path / "parts" / "adapter-000003.safetensors"]
    second, rest = trainer(config, base, tmp_path / "parts"), Remembers()
    assert second.resume() == 3
    second.run(rest)
    assert halves.losses + rest.losses == seen.losses
    assert equal(weights(second), weights(whole))
    if config.ema:
        pair = (
            read_checkpoint(tmp_path / each / "adapter-000006-ema.safetensors") for each in ("whole", "parts")
        )
        assert equal(*(file.state_dict() for file in pair))


def test_old_states_go_and_a_torn_one_is_not_used(base, tmp_path):
    made = trainer(CONFIG, base, tmp_path)
    for _ in range(4):
        made._step() if made.number else made.base.load(False) or made._step()
        made.save(Remembers())
    assert [path.name for path in states(tmp_path)] == ["state-000003", "state-000004"]
    (tmp_path / "state-000004" / "about.json").unlink()  # written last: without it the state is not whole
    assert trainer(CONFIG, base, tmp_path).resume() == 3


def test_another_recipe_does_not_go_on(base, tmp_path):
    trainer(changed(CONFIG, steps=1), base, tmp_path).run(Remembers())
    with pytest.raises(SettingError, match=r"learning_rate was 0\.0001 and is 0\.01"):
        trainer(changed(CONFIG, learning_rate=0.01), base, tmp_path).resume()


def test_a_file_is_trained_on_and_of_another_kind_refused(base, tmp_path, whole_run):
    trainer(CONFIG, base, tmp_path).run(Remembers())
    file = read_checkpoint(tmp_path / "adapter-000006.safetensors")
    assert equal(
        {k: v.clone() for k, v in trainable_from(file, CONFIG, base.sites).adapter.state_dict().items()},
        whole_run[0],
    )
    with pytest.raises(MismatchError, match="is a base adapter of 4 tokens"):
        trainable_from(file, TrainingConfig(Variant.PLUS), base.sites)


# --- several processes -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory):
    """(where they wrote, how they ended): accelerate over gloo, on the CPU, batch 1 each."""
    folder = tmp_path_factory.mktemp("two")
    return folder, launch(changed(CONFIG, batch_size=1).to_dict(), folder, broken=2)


def test_two_processes_equal_one_with_twice_the_batch(two_processes, whole_run):
    """Beside batch 2 in this process."""
    folder, done = two_processes
    assert (folder / "losses.json").is_file(), done.stderr[-3000:]
    saved = read_checkpoint(folder / "whole" / "adapter-000006.safetensors").state_dict()
    off = max((tensor - saved[key]).abs().max().item() for key, tensor in whole_run[0].items())
    losses = json.loads((folder / "losses.json").read_text())
    print(f"two processes: worst difference of a weight {off:.1e}")
    assert losses == pytest.approx(whole_run[1], abs=1e-4)
    assert off < 1e-4


def test_a_loss_that_is_no_number_on_one_process_stops_all_of_them(two_processes):
    folder, done = two_processes
    assert done.returncode != 0
    assert "the loss is nan in step 3" in done.stderr
    assert "the loss is not finite on another process in step 3" in done.stderr
    saved = read_checkpoint(folder / "broken" / "adapter-000002.safetensors").state_dict()
    assert all(tensor.isfinite().all() for tensor in saved.values())
    assert [path.name for path in states(folder / "broken")] == ["state-000002"]


# --- pictures ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("store", ["none", "disk"])
def test_where_encodings_are_kept_changes_no_weight(base, tmp_path, whole_run, store):
    made = trainer(CONFIG, base, tmp_path / "out")
    made.data.store = None if store == "none" else Disk(tmp_path / "cache")
    made.run(Remembers())
    assert equal(weights(made), whole_run[0])


def test_what_is_on_disk_is_not_encoded_again_and_other_encoders_do_not_find_it(base, tmp_path, monkeypatch):
    calls, latents = [], base.latents
    monkeypatch.setattr(base, "latents", lambda pictures: calls.append(1) or latents(pictures), raising=False)

    def encode():
        data = Encodings(base, TrainingConfig(), captioned(), SIZES, Disk(tmp_path))
        calls.clear()
        return data.batch([0, 1, 2])[0]["latents"], len(calls)

    first, again = encode(), encode()
    assert (first[1], again[1]) == (1, 0)
    assert torch.equal(first[0], again[0])
    monkeypatch.setattr(
        base, "latents", lambda pictures: calls.append(1) or latents(pictures) * 2, raising=False
    )
    assert encode()[1] == 1


def jpeg(seed: int) -> bytes:
    file = io.BytesIO()
    noise = torch.randint(256, (64, 64, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))
    Image.fromarray(noise.numpy()).save(file, "JPEG")
    return file.getvalue()


def test_pictures_that_break_while_training_are_left_out_counted_and_named(base, tmp_path):
    contents = {
        "good.jpg": jpeg(1),
        "torn.jpg": jpeg(2)[:-2000],
        "text.jpg": b"no picture",
        "last.jpg": jpeg(3),
    }
    pictures = Pictures.of(Record(name, name, name, lambda kept=c: kept) for name, c in contents.items())
    assert list(pictures.left_out) == ["text.jpg"]
    made, seen = trainer(changed(CONFIG, steps=3), base, tmp_path, pictures), Remembers()
    made.run(seen)
    assert sorted(pictures.left_out) == ["text.jpg", "torn.jpg"]
    assert "3 pictures; 2 broken and left out: text.jpg, torn.jpg" in pictures.summary
    assert len(seen.losses) == 3


def test_the_trained_file_is_an_adapter_for_the_nodes(base, tmp_path):
    made = trainer(changed(CONFIG, steps=2, learning_rate=0.05), base, tmp_path)
    path = made.run(Remembers())
    adapter = host.load_adapter(path)
    prompt = host.encode_prompt(adapter, base.clip_vision, host.Reference(tiny.picture(1)))
    steered = tiny.run_unet(host.apply_prompt(base.model, prompt, 1.0), tiny.SD15)
    assert (steered - tiny.run_unet(base.model, tiny.SD15)).abs().max() > 0.01
