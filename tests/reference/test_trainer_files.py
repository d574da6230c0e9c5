"""What the published trainer's module leaves on the disk, written by accelerate itself: one adapter in every form."""

import pytest
import torch
from accelerate import Accelerator
from diffusers import UNet2DConditionModel
from helpers.published import projection, trainer_processors
from image_prompt.ipadapter_core.adapter import Adapter
from image_prompt.ipadapter_core.checkpoint import read_checkpoint, read_shapes
from image_prompt.model_files.inspection import FileKind, inspect_file
from safetensors.torch import load_file, save_file
from support import tiny
from support.oracle import lively_, unet_config
from torch import nn


class TrainerModule(nn.Module):
    """The module of the published tutorial_train.py; `first` is registered first, and keeps what is shared."""

    def __init__(self, unet: nn.Module, image_proj_model: nn.Module, first: str = "unet"):
        super().__init__()
        processors = nn.ModuleList(unet.attn_processors.values())
        parts = {"unet": unet, "image_proj_model": image_proj_model, "adapter_modules": processors}
        for name in sorted(parts, key=lambda name: name != first):
            setattr(self, name, parts[name])


def trainer_module(family: tiny.Family, face: bool = False, first: str = "unet") -> TrainerModule:
    unet = UNet2DConditionModel(**unet_config(family.unet))
    unet.set_attn_processor(trainer_processors(unet, face))
    network = (
        projection("faceid", 512, family.context, width=4) if face else projection("base", 64, family.context)
    )
    module = TrainerModule(unet, network, first)
    with torch.no_grad():
        lively_(module.state_dict(), seed=7)
    return module


def adapter_of(path):
    file = read_checkpoint(path)
    return Adapter(file).load_checkpoint(file), file


@pytest.fixture(params=["SD1.5", "SDXL"])
def family(request):
    return tiny.FAMILIES[request.param]


@pytest.mark.parametrize("face", [False, True], ids=["base", "faceid"])
def test_both_files_of_a_run_are_the_same_adapter(family, face, tmp_path):
    module = trainer_module(family, face)
    for write in ("save_state", "save_model"):
        same_in_both_files(family, module, write, tmp_path / write)


def same_in_both_files(family, module, write, both):
    accelerator = Accelerator(cpu=True)
    adapters, files = [], []
    for safe in (True, False):
        folder = both / str(safe)
        if write == "save_state":
            prepared = accelerator.prepare(module)
            accelerator.save_state(folder, safe_serialization=safe)
            del prepared
            accelerator._models.clear()
        else:
            accelerator.save_model(module, folder, safe_serialization=safe)
        path = folder / ("model.safetensors" if safe else "pytorch_model.bin")
        adapter, file = adapter_of(path)
        adapters.append(adapter)
        files.append(file)
    stored, whole = files
    names = load_file(both / "True" / "model.safetensors")
    assert not any(key.startswith("adapter_modules.") for key in names)  # else this test tests nothing
    assert stored.state_dict().keys() == whole.state_dict().keys()
    truth = module.adapter_modules.state_dict()
    assert stored.ip_adapter.keys() == truth.keys()
    for key, tensor in truth.items():
        assert torch.equal(stored.ip_adapter[key], tensor), key
        assert torch.equal(whole.ip_adapter[key], tensor), key
    first, second = adapters
    assert first.spec == second.spec
    assert first.digest == second.digest
    assert len(first.spec.site_widths) == family.sites
    assert read_shapes(both / "True" / "model.safetensors") == stored.shapes
    assert inspect_file(both / "True" / "model.safetensors").kind is FileKind.ADAPTER


@pytest.mark.parametrize("first", ["unet", "adapter_modules", "image_proj_model"])
def test_whichever_name_the_shared_tensors_kept(first, tmp_path):
    """By the order of the parts; some scripts save the UNet's own names, and several devices put 'module.' in front."""
    module = trainer_module(tiny.FAMILIES["SD1.5"], first=first)
    Accelerator(cpu=True).save_model(module, tmp_path, safe_serialization=True)
    tensors = load_file(tmp_path / "model.safetensors")
    for prefix, strip in (("", ""), ("", "unet."), ("module.", "")):
        path = tmp_path / "renamed.safetensors"
        save_file({f"{prefix}{key.removeprefix(strip)}": tensor for key, tensor in tensors.items()}, path)
        _, file = adapter_of(path)
        for key, tensor in module.adapter_modules.state_dict().items():
            assert torch.equal(file.ip_adapter[key], tensor), (prefix, strip, key)
