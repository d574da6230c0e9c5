"""From pictures of people to a FaceID adapter, by the command: the face models really run, on toy graphs."""

import comfy.sd
import pytest
import torch
from helpers import face_graphs
from helpers.face_graphs import canvas
from helpers.training import SeededClip, ShrinkingVae
from image_prompt import host
from image_prompt.host import base_models, face_models, folders
from image_prompt.ipadapter_core.checkpoint import read_checkpoint
from image_prompt.ipadapter_core.variant import Variant
from image_prompt.training import command as cli
from image_prompt.training.encoded import Encodings
from PIL import Image
from safetensors.torch import load_file
from support import tiny
from support.parity import call


@pytest.fixture
def ready(monkeypatch, encoder, tmp_path):
    """Files of a small base model, and of toy face models in the host's folder."""
    face_graphs.toy_pack(tmp_path / "models" / "insightface" / "models" / "buffalo_l")
    monkeypatch.setattr(face_models.folder_paths, "models_dir", str(tmp_path / "models"))
    monkeypatch.delitem(face_models.folder_paths.folder_names_and_paths, "insightface", raising=False)

    def loaded(*_, **__):
        """Anew each time, as from a file: a model is trained through itself."""
        return tiny.host_model(tiny.SD15), SeededClip(tiny.SD15), ShrinkingVae()

    monkeypatch.setattr(comfy.sd, "load_checkpoint_guess_config", loaded)
    monkeypatch.setattr(base_models, "load_clip_vision", lambda _: encoder)
    monkeypatch.setattr(folders, "model_path", lambda kind, name: name)
    monkeypatch.setattr(cli, "require_model", lambda *_: None)


def saved(path, picture):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray((picture[0] * 255).round().to(torch.uint8).numpy()).save(path)
    return picture


@pytest.fixture
def people(tmp_path):
    """Of two persons: the second picture has another one behind the first, the third none."""
    pictures = {
        "anna": canvas(160, 192, (60, 40, 80, 40)),
        "anna and ben": canvas(160, 256, (20, 30, 96, 40), (180, 60, 40, 200)),
        "ben": canvas(160, 160, (50, 40, 72, 200)),
        "street": canvas(160, 160),
    }
    for name, picture in pictures.items():
        saved(tmp_path / "people" / f"{name}.png", picture)
    return tmp_path / "people", pictures


def train(data, out, *more):
    given = ["--checkpoint", "tiny", "--clip-vision", "tiny", "--data", str(data), "--out", str(out)]
    given += ["--size", "64", "--batch-size", "2", "--kind", "faceid", "--lora-rank", "4"]
    return cli.main([*given, "--learning-rate", "1e-3", *more])


def test_pictures_of_people_become_a_faceid_adapter_that_encodes_and_applies(ready, people, tmp_path, caplog):
    caplog.set_level("INFO")
    folder, pictures = people
    out = tmp_path / "out"
    sampled = ["--samples-every", "2", "--samples", "4", "--sample-steps", "1"]
    assert train(folder, out, "--steps", "2", *sampled) == 0
    assert "left out: street.png" in caplog.text
    # a picture without a face is on the sheet too
    assert (out / "samples-000002.png").is_file()
    assert "a sample is made without its picture" in caplog.text

    # the file is an adapter for the same face models, with its LoRA
    adapter = host.load_adapter(out / "adapter-000002.safetensors")
    assert (adapter.spec.variant.value, adapter.spec.tokens, adapter.spec.lora) == ("faceid", 4, True)
    faces = call("ImagePromptFaces", pictures["anna"], "buffalo_l")
    prompt = call("ImagePromptEncodeFace", adapter, faces)
    model = tiny.host_model(tiny.SD15)
    applied = call("ImagePromptApply", model, prompt, 1.0)
    assert len(applied.patches) == 2 * 4 * tiny.SD15.sites
    lora, _ = comfy.sd.load_lora_for_models(
        model, None, load_file(out / "adapter-000002_lora.safetensors"), 1.0, 0
    )
    assert lora.patches.keys() == applied.patches.keys()

    # it goes on to the same weights as a run without a stop
    assert train(folder, tmp_path / "parts", "--steps", "1") == 0
    assert train(folder, tmp_path / "parts", "--steps", "2") == 0
    whole, parts = (
        read_checkpoint(each / "adapter-000002.safetensors").state_dict()
        for each in (out, tmp_path / "parts")
    )
    assert all(torch.equal(tensor, parts[key]) for key, tensor in whole.items())


def test_what_is_trained_on_is_the_embedding_that_encoding_reads(ready, people):
    """Of the largest face, of length 1, as Encode Face's own."""
    _, pictures = people
    base = base_models.load_base(base_models.BaseFiles("tiny", "tiny", face_model="buffalo_l"))
    kind = Variant.FACEID
    rows = base.features(kind, pictures["anna"], pictures["anna and ben"], pictures["ben"])
    assert rows.norm(dim=1).tolist() == pytest.approx([1, 1, 1], abs=1e-5)
    faces = call("ImagePromptFaces", pictures["ben"], "buffalo_l")
    assert torch.allclose(rows[2:], faces.embeddings(normalise=True).cpu(), atol=1e-5)
    alike = rows @ rows.T
    # anna is the larger one in the second
    assert alike[0, 1] > 0.9 > alike[0, 2]


def test_a_face_model_that_is_not_there_is_told_before_anything_is_loaded(
    ready, people, tmp_path, caplog, monkeypatch
):
    monkeypatch.setattr(comfy.sd, "load_checkpoint_guess_config", lambda *_, **__: pytest.fail("loaded"))
    monkeypatch.setattr(Encodings, "batch", lambda *_: pytest.fail("encoded"))
    assert train(people[0], tmp_path / "out", "--steps", "1", "--face-model", "antelopev2") == 1
    assert "face model 'antelopev2' is not in" in caplog.text
    assert "Found: buffalo_l" in caplog.text
