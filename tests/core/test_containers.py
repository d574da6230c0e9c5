"""One adapter in every container that is in use: the tensors are the same, and nothing else of the file is read."""

import io
import struct
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from core.small import flat, nested, randn
from image_prompt.ipadapter_core import checkpoint as reader
from image_prompt.ipadapter_core.adapter import Adapter
from image_prompt.ipadapter_core.checkpoint import read_checkpoint, read_shapes
from image_prompt.ipadapter_core.errors import CheckpointError
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
    adapter.load_checkpoint(file)
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
def test_the_adapter_holds_the_tensors_that_were_read_and_no_second_copy(container: str, tmp_path: Path):
    file = read_checkpoint(written(container, flat("plus"), tmp_path))
    owned = Adapter(file).load_checkpoint(file).state_dict()
    assert {key: tensor.data_ptr() for key, tensor in file.state_dict().items()} == {
        key: tensor.data_ptr() for key, tensor in owned.items()
    }


@each_container
@pytest.mark.parametrize("change", ["overwritten", "cut", "removed"])
def test_what_happens_to_the_file_later_changes_nothing(container: str, change: str, tmp_path: Path):
    """Mapped, a file that is cut would end this process (SIGBUS), and one that is overwritten change the adapter."""
    path = written(container, flat("plus"), tmp_path)
    file = read_checkpoint(path)
    with path.open("r+b") as stream:
        if change == "overwritten":
            stream.write(b"\xff" * path.stat().st_size)
        elif change == "cut":
            stream.truncate(10)
    if change == "removed":
        path.unlink()
    for key, tensor in flat("plus").items():
        assert torch.equal(file.state_dict()[key], tensor), key


@contextmanager
def bytes_read(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """How many bytes each read of a file gave meanwhile."""
    counted: list[int] = []

    class Counting(io.FileIO):
        def read(self, size: int | None = -1, /) -> bytes:
            data = super().read(size)
            counted.append(len(data))
            return data

        def readinto(self, buffer: Any, /) -> int | None:
            count = super().readinto(buffer)
            counted.append(count or 0)
            return count

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", lambda self, mode="r", *_, **__: Counting(str(self), mode))
        yield counted


@pytest.mark.parametrize("container", ["trainer output, safetensors", "trainer output, bin"])
def test_the_frozen_unet_of_a_trainer_is_never_read(
    container: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    tensors = flat("base")
    path = tmp_path / f"a{CONTAINERS[container][0]}"
    unet = {"unet.conv_in.weight": randn(1000, 1000)}
    CONTAINERS[container][1](unet | _trainer_output(tensors), path)
    with bytes_read(monkeypatch) as counted:
        assert read_checkpoint(path).state_dict().keys() == tensors.keys()
    assert sum(counted) < 500_000 < path.stat().st_size - 3_500_000


@each_container
def test_no_tensor_is_read_for_the_shapes(container: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Of a .safetensors file the header alone; of a pickle what is no tensor."""
    path = written(container, flat("plus") | {"image_proj.large": randn(1000, 6000)}, tmp_path)
    with bytes_read(monkeypatch) as counted:
        assert len(read_shapes(path)) == len(flat("plus")) + 1
    if container.startswith("legacy"):
        return  # the pickles stand in front, of no known length
    assert sum(counted) < 250_000 < path.stat().st_size


def test_of_a_safetensors_file_the_header_alone_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = written("trainer output, safetensors", flat("plus"), tmp_path)
    header = 8 + struct.unpack("<Q", path.read_bytes()[:8])[0]
    with bytes_read(monkeypatch) as counted:
        assert len(read_shapes(path)) == len(flat("plus"))
    assert header <= sum(counted) <= header + 1024 < path.stat().st_size


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_bin_that_was_packed_again_is_unpacked(dtype: torch.dtype, tmp_path: Path):
    """As a zip program packs it: compressed, so that its bytes are no weights."""
    path, packed = tmp_path / "plain.bin", tmp_path / "packed.bin"
    torch.save(nested(flat("plus", dtype)), path)
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as target:
        for name in source.namelist():
            target.writestr(name, source.read(name))
    read = read_checkpoint(packed).state_dict()
    assert read.keys() == flat("plus").keys()
    for key, tensor in flat("plus", dtype).items():
        assert torch.equal(read[key], tensor), key


def test_rows_of_any_stride_and_views_of_one_memory_are_read(tmp_path: Path):
    whole = randn(64, 96, seed=5)
    views = {"rows": whole[8:16], "columns": whole[:, 3:9], "turned": whole.t(), "steps": whole[::3, ::2]}
    named = {f"image_proj.{key}": view for key, view in views.items()} | flat("base")
    for legacy in (False, True):
        path = tmp_path / f"{legacy}.bin"
        torch.save(named, path, _use_new_zipfile_serialization=not legacy)
        read = read_checkpoint(path).state_dict()
        for key, view in named.items():
            assert torch.equal(read[key], view), key
            assert read[key].is_contiguous()


def test_names_of_modules_on_several_devices_or_compiled_are_the_same(tmp_path: Path):
    path = tmp_path / "a.safetensors"
    save_file({f"module._orig_mod.{key}": tensor for key, tensor in _trainer_output(flat()).items()}, path)
    assert read_checkpoint(path).state_dict().keys() == flat().keys()


def test_a_part_of_a_model_says_that_it_is_one(tmp_path: Path):
    path = tmp_path / "model-00002-of-00003.safetensors"
    save_file({key: tensor for key, tensor in flat().items() if key.startswith("ip_adapter.")}, path)
    with pytest.raises(CheckpointError, match="one of several parts"):
        read_checkpoint(path)
