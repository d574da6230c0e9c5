"""The nodes Train and Export in the host, as its queue runs them: in inference mode, with lists."""

import comfy.model_management as mm
import folder_paths
import pytest
import torch
from helpers.training import SeededClip, ShrinkingVae
from image_prompt import host
from image_prompt.ipadapter_core.checkpoint import read_checkpoint
from image_prompt.ipadapter_core.errors import SettingError
from image_prompt.nodes import NODE_CLASS_MAPPINGS, training
from support import tiny
from support.prompts import make_adapter


@pytest.fixture(autouse=True)
def folders(tmp_path, monkeypatch):
    monkeypatch.setattr(folder_paths, "get_output_directory", lambda: str(tmp_path / "output"))
    paths = ([str(tmp_path / "models" / "ipadapter")], {".safetensors", ".bin"})
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "ipadapter", paths)
    return tmp_path


class Bar:
    def __init__(self):
        self.seen = []

    def update_absolute(self, value, total, preview=None):
        self.seen.append((value, total, preview and preview[1].size))


@pytest.fixture
def bar(monkeypatch):
    made = Bar()
    monkeypatch.setattr(training, "PREVIEW_SECONDS", 0)
    monkeypatch.setattr(host, "progress_bar", lambda total: made)
    return made


def defaults():
    inputs = NODE_CLASS_MAPPINGS["ImagePromptTrain"].INPUT_TYPES()
    given = {}
    for name, (kind, *more) in {**inputs["required"], **inputs["optional"]}.items():
        if more and "default" in more[0]:
            given[name] = [more[0]["default"]]
        elif isinstance(kind, list):
            given[name] = [kind[0]]
    return given


def train(sd15, encoder, **more):
    node = NODE_CLASS_MAPPINGS["ImagePromptTrain"]()
    given = {
        **defaults(),
        "model": [sd15],
        "vae": [ShrinkingVae()],
        "clip": [SeededClip(tiny.SD15)],
        "clip_vision": [encoder],
        "images": [tiny.picture(1, 64, 96), tiny.picture(2, 96, 64), tiny.picture(3, 64, 64, count=2)],
        "captions": ["one\ntwo\nthree\nfour"],
        "steps": [3],
        "batch_size": [2],
        "size": [64],
        "learning_rate": [0.01],
    }
    with torch.inference_mode():
        return node.train(**{**given, **{name: [value] for name, value in more.items()}})


def test_the_trained_adapter_steers_the_model_it_was_trained_on(sd15, encoder, bar, folders):
    before = tiny.run_unet(sd15, tiny.SD15)
    adapter, curve, path = train(sd15, encoder)
    assert path == str(
        folders / "output" / "image_prompt_training" / "adapter" / "adapter-000003.safetensors"
    )
    assert curve.shape[0] == 1
    assert curve.shape[-1] == 3
    prompt = host.encode_prompt(adapter, encoder, host.Reference(tiny.picture(1)))
    assert (tiny.run_unet(host.apply_prompt(sd15, prompt, 1.0), tiny.SD15) - before).abs().max() > 0.01
    assert torch.equal(tiny.run_unet(sd15, tiny.SD15), before)


class LearnedVae(torch.nn.Module):
    """One with weights, as the host's, which it does not freeze."""

    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 4, 8, 8)

    def encode(self, pictures):
        return self.conv(pictures.movedim(-1, 1))


def test_models_that_the_host_loaded_in_inference_mode_can_be_trained_on(encoder, bar):
    """Its queue loads everything so, and autograd takes no such tensor."""
    with torch.inference_mode():
        model, vae = tiny.host_model(tiny.SD15), LearnedVae()
    assert model.model.diffusion_model.out[2].weight.is_inference()
    adapter, _, _ = train(model, encoder, vae=vae)
    assert not adapter["ip_adapter"]["1.to_k_ip.weight"].isnan().any()


def test_the_host_sees_progress_and_a_loss_curve(sd15, encoder, bar):
    train(sd15, encoder)
    assert [(value, total) for value, total, _ in bar.seen] == [(1, 3), (2, 3), (3, 3)]
    assert all(size == (660, 440) for *_, size in bar.seen)


def test_cancel_saves_first_and_the_next_queue_goes_on(sd15, encoder, bar, folders, monkeypatch):
    _, _, path = train(sd15, encoder, name="whole")
    whole = read_checkpoint(path).state_dict()

    class Cancelled(BaseException): ...

    def cancel_at_two():
        if bar.seen and bar.seen[-1][0] == 2:
            raise Cancelled

    with monkeypatch.context() as patch:
        patch.setattr(mm, "throw_exception_if_processing_interrupted", cancel_at_two)
        with pytest.raises(Cancelled):
            train(sd15, encoder, name="parts")
    folder = folders / "output" / "image_prompt_training" / "parts"
    assert (folder / "parts-000002.safetensors").is_file()
    _, _, path = train(sd15, encoder, name="parts")
    parts = read_checkpoint(path).state_dict()
    assert all(torch.equal(tensor, parts[key]) for key, tensor in whole.items())


def test_so_it_does_where_a_longer_run_of_the_same_name_lies(sd15, encoder, bar, monkeypatch):
    _, _, path = train(sd15, encoder, name="whole", steps=4, save_every=1)
    whole = read_checkpoint(path).state_dict()
    train(sd15, encoder, name="parts", steps=9, seed=7, save_every=3)
    bar.seen.clear()

    class Cancelled(BaseException): ...

    def cancel_at_two():
        if bar.seen and bar.seen[-1][0] == 2:
            raise Cancelled

    with monkeypatch.context() as patch:
        patch.setattr(mm, "throw_exception_if_processing_interrupted", cancel_at_two)
        with pytest.raises(Cancelled):
            train(sd15, encoder, name="parts", steps=4, resume=False)
    bar.seen.clear()
    _, _, path = train(sd15, encoder, name="parts", steps=4)
    assert [value for value, *_ in bar.seen] == [3, 4]
    parts = read_checkpoint(path).state_dict()
    assert all(torch.equal(tensor, parts[key]) for key, tensor in whole.items())


def test_a_model_in_half_precision_can_be_trained_on(encoder, bar):
    model = tiny.host_model(tiny.SD15)
    model.model.diffusion_model.half().dtype = torch.float16
    for precision in ("no", "fp16", "bf16"):
        adapter, _, _ = train(model, encoder, name=precision, precision=precision, steps=1)
        assert adapter["ip_adapter"]["1.to_k_ip.weight"].isfinite().all()
    with pytest.raises(SettingError, match="unet is fp16 and precision is bf16"):
        train(model, encoder, name="x", precision="bf16", unet="fp16")


@pytest.mark.parametrize("name", ["x" * 300, "x" * 250])
def test_a_name_that_no_disk_takes_is_told_before_anything_is_encoded(sd15, encoder, bar, name, monkeypatch):
    monkeypatch.setattr(host.HostBase, "texts", lambda *_: pytest.fail("encoded"))
    with pytest.raises(ValueError, match="the name is too long"):
        train(sd15, encoder, name=name)


def test_an_adapter_can_be_trained_on(sd15, encoder, bar):
    first, _, _ = train(sd15, encoder)
    again, _, _ = train(sd15, encoder, name="second", start_from=first, steps=1, learning_rate=0.0)
    assert again["ip_adapter"].keys() == first["ip_adapter"].keys()
    for key, tensor in first["ip_adapter"].items():
        torch.testing.assert_close(again["ip_adapter"][key], tensor, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"captions": "one\ntwo"}, "2 captions came for 4 pictures"),
        ({"drop_text": 0.9, "drop_image": 0.9}, "add up to"),
        ({"name": "../../outside"}, "out of the output folder"),
    ],
)
def test_mistakes_are_told_before_anything_is_written(sd15, encoder, bar, folders, more, told):
    with pytest.raises(ValueError, match=told):
        train(sd15, encoder, **more)
    assert not (folders / "output").exists()


def test_a_missing_package_is_told_with_the_line_that_installs_it(sd15, encoder, bar, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "accelerate", None)
    with pytest.raises(ValueError, match="-m pip install accelerate"):
        train(sd15, encoder)


def test_other_settings_under_the_same_name_are_refused(sd15, encoder, bar):
    train(sd15, encoder)
    with pytest.raises(SettingError, match="seed was 0 and is 5"):
        train(sd15, encoder, seed=5, steps=4)


# --- export ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", [".safetensors", ".bin"])
@pytest.mark.parametrize("kind", ["base", "plus"])
def test_an_exported_adapter_is_the_same_adapter(folders, layout, kind):
    adapter = make_adapter(kind, tiny.SD15)
    export = NODE_CLASS_MAPPINGS["ImagePromptExport"]().export
    first = export(adapter, "mine", layout, "fp32")["result"][0]
    assert first == str(folders / "models" / "ipadapter" / f"mine{layout}")
    read = read_checkpoint(first).state_dict()
    assert all(
        torch.equal(tensor, read[f"ip_adapter.{key}"]) for key, tensor in adapter["ip_adapter"].items()
    )
    assert export(adapter, "mine", layout, "fp32")["result"][0].endswith(f"mine_00001{layout}")
    half = read_checkpoint(export(adapter, "half", layout, "fp16")["result"][0])
    assert {tensor.dtype for tensor in half.state_dict().values()} == {torch.float16}


def test_an_export_does_not_leave_its_folder():
    with pytest.raises(ValueError, match="leads out of"):
        NODE_CLASS_MAPPINGS["ImagePromptExport"]().export(
            make_adapter("base", tiny.SD15), "../../x", ".bin", "fp16"
        )
