"""Full-size files through the host's public loaders and ours. Needs 8 GB of memory and 4 GB of disk."""

import folder_paths
import pytest
import torch
from helpers import full_size
from image_prompt import host
from image_prompt.nodes import NODE_CLASS_MAPPINGS
from support import tiny

import nodes


@pytest.fixture
def models(tmp_path, monkeypatch):
    """The three files, in model folders of their own."""
    full_size.write_checkpoint(tmp_path / "checkpoints" / "sd15.safetensors")
    full_size.write_clip_vision(tmp_path / "clip_vision" / "vit-h.safetensors")
    full_size.write_adapter(tmp_path / "ipadapter" / "ip-adapter_sd15.safetensors")
    for kind in ("checkpoints", "clip_vision", "ipadapter"):
        monkeypatch.setitem(
            folder_paths.folder_names_and_paths, kind, ([str(tmp_path / kind)], {".safetensors"})
        )
    folder_paths.filename_list_cache.clear()
    return tmp_path


@pytest.mark.slow
def test_a_full_size_sd15_graph_runs_through_the_public_loaders(models):
    with torch.inference_mode():
        model, clip, vae = nodes.CheckpointLoaderSimple().load_checkpoint("sd15.safetensors")[:3]
        encoder = nodes.CLIPVisionLoader().load_clip("vit-h.safetensors")[0]
        text = nodes.CLIPTextEncode().encode(clip, "a photo")[0]
        latent = {"samples": torch.zeros(1, 4, 16, 16)}

        def picture(patched):
            settings = (1, 2, 7.0, "euler", "normal", text, text, latent)
            samples = nodes.KSampler().sample(patched, *settings)[0]
            return nodes.VAEDecode().decode(vae, samples)[0], samples["samples"]

        node = NODE_CLASS_MAPPINGS["ImagePrompt"]()
        image = tiny.picture(1, 96, 128)
        steered = node.apply(model, encoder, image, "ip-adapter_sd15.safetensors", 1.0)[0]
        slots = host.residuals_of(steered)
        base, steered_picture = picture(model), picture(steered)
    assert len(slots) == 16
    assert steered_picture[0].shape == (1, 128, 128, 3)
    assert steered_picture[1].isfinite().all()
    assert not torch.allclose(base[1], steered_picture[1], rtol=1e-2)
