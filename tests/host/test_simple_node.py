"""The one-node Image Prompt: finds its files, remembers what it encoded, presets."""

import gc
import weakref

import folder_paths
import pytest
import torch
from helpers import stand_ins
from image_prompt import host
from image_prompt.host import vision
from image_prompt.ipadapter_core.errors import MismatchError, MissingFileError
from image_prompt.nodes import NODE_CLASS_MAPPINGS
from image_prompt.nodes.simple import AUTO
from support import tiny

NODE = NODE_CLASS_MAPPINGS["ImagePrompt"]
FILE = "ip-adapter-plus_sd15.safetensors"


@pytest.fixture
def encoded(monkeypatch):
    """Sizes of the batches that an encoder saw."""
    batches, run = [], vision._run
    monkeypatch.setattr(vision, "_run", lambda *args: batches.append(len(args[1])) or run(*args))
    return batches


def base():
    return tiny.host_model(tiny.SD15)


def apply(model, **values):
    return NODE().apply(**{"model": model, "image": tiny.picture(1), **values})[0]


def keys_of(model):
    return [residual.site.keys for at_site in host.residuals_of(model).values() for residual in at_site]


def weights_of(model):
    return {residual.site.weight for at_site in host.residuals_of(model).values() for residual in at_site}


def test_the_menu_begins_with_auto_and_ends_with_special_files(models):
    files = NODE.INPUT_TYPES()["required"]["ipadapter_file"][0]
    assert files[0] == AUTO
    special = ["face" in name or "composition" in name for name in files[1:]]
    assert special == sorted(special)
    assert {False, True} == {*special}
    assert NODE.INPUT_TYPES()["required"]["weight"][1]["default"] == 0.7
    assert NODE.VALIDATE_INPUTS(AUTO) is True


def test_auto_is_the_file_that_fits_with_the_encoder_that_it_reads(models):
    model = base()
    by_name = apply(model, ipadapter_file=FILE, clip_vision=stand_ins.clip_vision())
    by_itself = apply(model, ipadapter_file=AUTO)
    assert all(torch.equal(a, b) for a, b in zip(keys_of(by_name), keys_of(by_itself), strict=True))


def test_another_weight_encodes_and_reads_nothing_again(models, encoded, monkeypatch):
    model, image = base(), tiny.picture(1)
    first = apply(model, image=image, ipadapter_file=FILE, weight=0.7)
    assert encoded
    encoded.clear()
    monkeypatch.setattr(host, "load_adapter", None)
    again = apply(model, image=image.clone(), ipadapter_file=FILE, weight=0.3)
    assert encoded == []
    assert (weights_of(first), weights_of(again)) == ({0.7}, {0.3})
    assert all(a is b for a, b in zip(keys_of(first), keys_of(again), strict=True))


def test_another_image_or_model_is_encoded_anew(models, encoded):
    model = base()
    apply(model, ipadapter_file=FILE)
    for values in ({"image": tiny.picture(2)}, {"model": base()}):
        encoded.clear()
        apply(**{"model": model, "ipadapter_file": FILE, **values})
        assert encoded


def test_what_is_remembered_goes_with_the_model(models):
    model = base()
    keys = weakref.ref(keys_of(apply(model, ipadapter_file=FILE))[0])
    assert keys() is not None
    del model
    gc.collect()
    assert keys() is None


def test_presets_are_weight_types(models):
    model = base()
    steered = apply(model, ipadapter_file=FILE, preset="style", weight=1.0)
    adapter = host.load_adapter(folder_paths.get_full_path("ipadapter", FILE))
    prompt = host.encode_prompt(adapter, stand_ins.clip_vision(), host.Reference(tiny.picture(1)))
    typed = host.apply_prompt(model, prompt, 1.0, weight_type="style transfer")
    assert host.residuals_of(steered).keys() == host.residuals_of(typed).keys()
    assert 0 < len(host.residuals_of(steered)) < 16


def test_without_files_or_an_image_it_says_what_to_get(models, tmp_path, monkeypatch):
    with pytest.raises(MismatchError, match="there is no image"):
        NODE().apply(base())
    empty = ([str(tmp_path / "none")], set())
    for name in ("ipadapter", "clip_vision"):
        monkeypatch.setitem(folder_paths.folder_names_and_paths, name, empty)
    monkeypatch.setattr(folder_paths, "filename_list_cache", {})
    with pytest.raises(MissingFileError, match=r"for 'plus' on SD1\.5 you need"):
        apply(base())
