"""One adapter in every container that is in use: the tensors are the same, and nothing else of the file is read."""

import io
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors
import torch
from core.small import flat, nested, randn
from image_prompt.ipadapter_core import checkpoint as reader
from image_prompt.ipadapter_core.adapter import Adapter
from image_prompt.ipadapter_core.checkpoint import read_checkpoint, read_shapes
from safetensors.torch import save_file
from torch import Tensor

Tensors = dict[str, Tensor]


def _renamed(tensors: Tensors, **roles: str) -> Tensors:
    names = ((key.split(".", 1), tensor) for key, tensor in tensors.items())
    return {f"{roles.get(role, role)}.{name}": tensor for (role, name), tensor in names}


def _trainer_output(tensors: Tensors) -> Tensors:
    """accelerate's model.safetensors: the frozen UNet too, whose processors are the adapter's modules again."""
    unet = {f"unet.down_blocks.{n}.weight": randn(64, 64, seed=n) for n in range(3)}
    processors = {
        f"unet.attn_processors.{key.removeprefix('ip_adapter.')}": tensor.clone()
        for key, tensor in tensors.items()
        if key.startswith("ip_adapter.")
    }
    return unet | processors | _renamed(tensors, image_proj="image_proj_model", ip_adapter="adapter_modules")


def _legacy(data: object, path: Path) -> None:
    torch.save(data, path, _use_new_zipfile_serialization=False)


Write = Callable[[Tensors, Path], object]
CONTAINERS: dict[str, tuple[str, Write]] = {
    "flat safetensors": (".safetensors", save_file),
    "safetensors with metadata": (".safetensors", lambda t, p: save_file(t, p, {"format": "pt"})),
    "nested bin": (".bin", lambda t, p: torch.save(nested(t), p)),
    "flat bin": (".bin", lambda t, p: torch.save(t, p)),
    "nested pt": (".pt", lambda t, p: torch.save(nested(t), p)),
    "adapter_modules, safetensors": (
        ".safetensors",
        lambda t, p: save_file(_renamed(t, ip_adapter="adapter_modules"), p),
    ),
    "adapter_modules, bin": (
        ".bin",
        lambda t, p: torch.save(
            {"image_proj_model": nested(t)["image_proj"], "adapter_modules": nested(t)["ip_adapter"]}, p
        ),
    ),
    "trainer output, safetensors": (".safetensors", lambda t, p: save_file(_trainer_output(t), p)),
    "trainer output, bin": (".bin", lambda t, p: torch.save(_trainer_output(t), p)),
    "state_dict wrapper": (".ckpt", lambda t, p: torch.save({"state_dict": t, "epoch": 3}, p)),
    "wrapped trainer output": (".pt", lambda t, p: torch.save({"module": _trainer_output(t)}, p)),
    "legacy pickle": (".bin", lambda t, p: _legacy(nested(t), p)),
    "parameters": (
        ".bin",
        lambda t, p: torch.save({key: torch.nn.Parameter(tensor) for key, tensor in t.items()}, p),
    ),
    "safetensors named bin": (".bin", save_file),
    "bin named safetensors": (".safetensors", lambda t, p: torch.save(nested(t), p)),
    "legacy pickle named safetensors": (".safetensors", lambda t, p: _legacy(nested(t), p)),
    "no extension": ("", save_file),
}
each_container = pytest.mark.parametrize("container", CONTAINERS)


def written(container: str, tensors: Tensors, folder: Path) -> Path:
    extension, write = CONTAINERS[container]
    path = folder / f"adapter{extension}"
    write(tensors, path)
    return path


@each_container
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_every_container_gives_the_same_tensors(container: str, dtype: torch.dtype, tmp_path: Path):
    tensors = flat("plus", dtype)
    read = read_checkpoint(written(container, tensors, tmp_path)).state_dict()
    assert read.keys() == tensors.keys()
    for key, tensor in tensors.items():
        assert read[key].dtype == dtype
        assert torch.equal(read[key], tensor), key


@each_container
def test_every_container_gives_the_same_adapter(container: str, tmp_path: Path):
    tensors = flat("base")
    file = read_checkpoint(written(container, tensors, tmp_path))
    adapter = Adapter(file)
    adapter.take(file)
    assert adapter.digest == Adapter(reader.Checkpoint("same", **nested(tensors))).digest
    assert not any(parameter.requires_grad for parameter in adapter.parameters())
    for key, parameter in adapter.state_dict().items():
        assert torch.equal(parameter, tensors[key]), key


@each_container
def test_shapes_alone_are_those_of_the_tensors(container: str, tmp_path: Path):
    tensors = flat("full")
    assert read_shapes(written(container, tensors, tmp_path)) == {
        k: tuple(t.shape) for k, t in tensors.items()
    }


@each_container
def test_the_adapter_shares_the_memory_of_the_file(container: str, tmp_path: Path):
    file = read_checkpoint(written(container, flat("plus"), tmp_path))
    owned = Adapter(file).take(file).state_dict()
    assert {key: tensor.data_ptr() for key, tensor in file.state_dict().items()} == {
        key: tensor.data_ptr() for key, tensor in owned.items()
    }


@pytest.mark.parametrize(
    "container", ["flat safetensors", "trainer output, safetensors", "trainer output, bin"]
)
def test_tensors_stay_on_disk_until_they_are_used(container: str, tmp_path: Path):
    """What is written into the file after it was opened shows in the tensors: they are the file, mapped."""
    marker = torch.full((4 * 24, 12), 7.0)
    tensors = flat("base") | {"image_proj.proj.weight": marker}
    path = written(container, tensors, tmp_path)
    file = read_checkpoint(path)
    place = path.read_bytes().index(marker.numpy().tobytes())
    with path.open("r+b") as stream:
        stream.seek(place)
        stream.write((marker * 3).numpy().tobytes())
    assert torch.equal(file.image_proj["proj.weight"], marker * 3)


def test_the_frozen_unet_of_a_trainer_is_never_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = written("trainer output, safetensors", flat("base"), tmp_path)
    asked: list[str] = []

    class Spy:
        def __init__(self, *args: object, **kwargs: object):
            self.file = safetensors.safe_open(*args, **kwargs)

        def __enter__(self):
            self.file.__enter__()
            return self

        def __exit__(self, *error: object):
            return self.file.__exit__(*error)

        def get_tensor(self, key: str) -> Tensor:
            asked.append(key)
            return self.file.get_tensor(key)

    monkeypatch.setattr(reader, "safe_open", Spy)
    read_checkpoint(path)
    assert len(asked) == len(flat("base"))
    assert not [key for key in asked if key.startswith("unet.")]


def test_shapes_are_read_from_the_header_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = written("trainer output, safetensors", flat("plus"), tmp_path)
    header = 8 + struct.unpack("<Q", path.read_bytes()[:8])[0]
    counted: list[int] = []

    class Counting(io.FileIO):
        def read(self, size: int | None = -1, /) -> bytes:
            data = super().read(size)
            counted.append(len(data))
            return data

    monkeypatch.setattr(Path, "open", lambda self, mode="r", *_: Counting(str(self), mode))
    monkeypatch.delattr(reader, "safe_open")
    assert len(read_shapes(path)) == len(flat("plus"))
    assert header <= sum(counted) <= header + 1024 < path.stat().st_size
