"""What a user can get wrong: one sentence through the nodes, before sampling, and nothing changed."""

import folder_paths
import pytest
import torch
from image_prompt import host
from image_prompt.ipadapter_core.errors import CheckpointError, MismatchError, MissingFileError, SettingError
from image_prompt.nodes import NODE_CLASS_MAPPINGS
from support import tiny
from support.prompts import make_adapter


def node(node_id):
    instance = NODE_CLASS_MAPPINGS[node_id]()
    return getattr(instance, instance.FUNCTION)


@pytest.mark.parametrize("kind", ["base", "plus", "full"])
def test_the_wrong_encoder_is_named_with_the_right_one(kind, family):
    wrong = tiny.clip_vision(width=96, projection=72)
    with pytest.raises(MismatchError, match=r"reads \w+ of width \d+ .* gives width (72|96)"):
        node("ImagePromptEncode")(make_adapter(kind, family), wrong, tiny.picture())


def test_an_adapter_of_another_family_names_both(sd15, encoder):
    prompt = node("ImagePromptEncode")(make_adapter("base", tiny.SDXL), encoder, tiny.picture())[0]
    with pytest.raises(MismatchError, match=r"adapter for SDXL, but the connected model is SD1\.5"):
        node("ImagePromptApply")(sd15, prompt, 1.0)


def test_a_model_without_cross_attention_is_refused(sd15, sd15_prompt):
    bare = sd15.clone()
    bare.add_object_patch("diffusion_model", torch.nn.Linear(1, 1))
    with pytest.raises(MismatchError, match="no UNet cross-attention"):
        node("ImagePromptApply")(bare, sd15_prompt, 1.0)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"mask": torch.zeros(1, 8, 8)}, MismatchError, "the mask is empty"),
        ({"mask": torch.ones(1, 0, 8)}, MismatchError, "none of them 0"),
        ({"start_at": 0.8, "end_at": 0.2}, SettingError, "start_at may not exceed end_at"),
        ({"weight_type": "styl"}, SettingError, "unknown weight type 'styl'"),
        ({"layer_weights": {"input 3": 1.0}}, MismatchError, "no attention block 'input 3'"),
    ],
)
def test_each_setting_of_apply_is_checked(sd15, sd15_prompt, change, error, message):
    with pytest.raises(error, match=message):
        node("ImagePromptApply")(sd15, sd15_prompt, 1.0, **change)
    assert "patches_replace" not in sd15.model_options["transformer_options"]


def test_a_block_the_model_lacks_is_refused_and_its_blocks_are_listed(sd15):
    with pytest.raises(SettingError, match=r"SD1\.5 has no attention block output 0; it has input 1"):
        node("ImagePromptLayerWeights")(sd15, output_0=0.5)


def test_a_missing_file_names_the_folder_and_what_is_there(tmp_path, monkeypatch):
    (tmp_path / "other.safetensors").write_bytes(b"x")
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "ipadapter", ([str(tmp_path)], {".safetensors"}))
    folder_paths.filename_list_cache.clear()
    with pytest.raises(MissingFileError, match=r"'gone\.safetensors' is not in .*other\.safetensors"):
        node("ImagePromptLoader")("gone.safetensors")


def test_a_web_page_instead_of_a_model_is_recognised(tmp_path, monkeypatch):
    (tmp_path / "page.safetensors").write_text("<!DOCTYPE html><html>Not found")
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "ipadapter", ([str(tmp_path)], {".safetensors"}))
    folder_paths.filename_list_cache.clear()
    with pytest.raises(CheckpointError, match="web page"):
        node("ImagePromptLoader")("page.safetensors")


def test_a_prompt_is_not_saved_outside_the_output_folder(sd15_prompt, tmp_path, monkeypatch):
    monkeypatch.setattr(folder_paths, "get_output_directory", lambda: str(tmp_path / "output"))
    with pytest.raises(SettingError, match="leads out of the output folder"):
        node("ImagePromptSave")(sd15_prompt, "../elsewhere")
    assert not (tmp_path / "elsewhere_00001.safetensors").exists()


def test_one_mask_for_each_picture_or_one_for_all(sd15, sd15_prompt):
    patched = host.apply_prompt(sd15, sd15_prompt, 1.0, mask=torch.ones(2, 8, 8))
    with pytest.raises(MismatchError, match="2 masks came for 3 pictures"):
        tiny.run_unet(patched, tiny.SD15, pictures=3)
