"""Values of each kind: what is taken, as what, and what is a sentence."""

import math
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from core.small import CONTEXT, adapter, checkpoint, randn
from image_prompt.ipadapter_core import values
from image_prompt.ipadapter_core.adapter import Adapter
from image_prompt.ipadapter_core.errors import CheckpointError, MismatchError, SettingError
from image_prompt.ipadapter_core.prompt import make_prompt
from image_prompt.ipadapter_core.prompt_file import load_prompt, save_prompt
from image_prompt.nodes.compat.arithmetic.embeds import load_embeds
from image_prompt.nodes.compat.arithmetic.masked_tiles import masked_tiles
from image_prompt.nodes.compat.arithmetic.tiles import tiled
from safetensors import safe_open
from safetensors.torch import save_file

NAN, INF = math.nan, math.inf


@pytest.mark.parametrize(
    "given", [1, 1.0, "1.0", " 1 ", np.float32(1), torch.tensor(1.0), torch.ones(1, 1), [1.0], True]
)
def test_a_number_comes_in_many_forms(given):
    assert values.weight(given, "weight") == 1.0


@pytest.mark.parametrize(
    "given",
    [NAN, INF, -INF, "nan", "1e400", 10**400, 1e9, -101, None, "x", [], [1.0, 2.0], {}, 1j, torch.ones(2),
     torch.tensor(NAN), torch.ones((), device="meta"), b"x", object()],
)  # fmt: skip
def test_what_is_no_weight_names_the_input(given):
    with pytest.raises(SettingError, match=r"^weight_2 is "):
        values.weight(given, "weight_2")


def test_lists_of_weights():
    for given in ([1, 0.5], (1, 0.5), np.array([1, 0.5]), torch.tensor([1, 0.5])):
        assert values.weights(given, "weight") == [1, 0.5]
    for given in ([], [1, NAN], [None], np.array([]), [[1], [2, 3]]):
        with pytest.raises(SettingError, match="weight"):
            values.weights(given, "weight")


def test_words_and_switches():
    assert values.choice(" Crop ", "fit", ("crop", "pad")) == "crop"
    for given in ("cropped", 3, None, []):
        with pytest.raises(SettingError, match=r"fit.*choose one of: crop, pad"):
            values.choice(given, "fit", ("crop", "pad"))
    assert values.switch(1, "resume") is True
    for given in ("false", 2, None, NAN):
        with pytest.raises(SettingError, match="resume"):
            values.switch(given, "resume")


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((4, 5), (1, 4, 5)), ((3, 4, 5), (3, 4, 5)), ((3, 1, 4, 5), (3, 4, 5)), ((3, 1, 1, 4, 5), (3, 4, 5)),
     ((1, 3, 4, 5), (3, 4, 5)), ((3, 4, 5, 1), (3, 4, 5)), ((1, 1, 1, 4, 5), (1, 4, 5)), ((1, 3, 1, 4, 5), (3, 4, 5)),
     ((1, 1, 1), (1, 1, 1)), ((2, 1, 1, 1), (2, 1, 1))],
)  # fmt: skip
def test_singletons_of_masks_mean_nothing(shape, expected):
    mask = torch.rand(shape)
    made = values.masks(mask, "mask")
    assert made.shape == expected
    assert torch.equal(made.flatten(), mask.flatten())


@pytest.mark.parametrize(
    "shape", [(), (4,), (1, 8, 8, 4), (2, 3, 8, 8), (0, 4, 4), (1, 0, 4), (2, 2, 1, 4, 4)]
)
def test_other_shapes_of_masks_are_a_sentence(shape):
    with pytest.raises(MismatchError, match="attn_mask"):
        values.masks(torch.ones(shape), "attn_mask")


def test_pictures_in_other_forms():
    grey = torch.rand(2, 4, 5, 1)
    assert torch.equal(values.pictures(grey, "image"), grey.expand(-1, -1, -1, 3))
    assert values.pictures(torch.rand(2, 4, 5, 4), "image").shape == (2, 4, 5, 3)
    assert values.pictures(torch.rand(2, 4, 5, 4), "image", alpha=True).shape == (2, 4, 5, 4)
    assert values.pictures(torch.rand(1, 2, 4, 5, 3), "image").shape == (2, 4, 5, 3)
    white = torch.full((1, 2, 2, 3), 255, dtype=torch.uint8)
    assert torch.equal(values.pictures(white, "image"), torch.ones(1, 2, 2, 3))


_BROKEN = [
    torch.full((1, 2, 2, 3), NAN), torch.full((1, 2, 2, 3), -INF), torch.ones(1, 2, 2, 2), torch.ones(0, 2, 2, 3),
    torch.ones(1, 2, 2, 3) * 1e20, torch.ones(1, 2, 2, 3, dtype=torch.complex64), torch.ones(1, 2, 2, 3).to_sparse(),
    torch.ones(1, 2, 2, 3, device="meta"), torch.ones(1, 2, 2, 3, dtype=torch.int64), np.ones((1, 2, 2, 3)), None, "x",
]  # fmt: skip


@pytest.mark.parametrize("given", _BROKEN, ids=range(len(_BROKEN)))
def test_what_is_no_picture_names_the_input(given):
    with pytest.raises(MismatchError, match=r"^negative_image "):
        values.pictures(given, "negative_image")


# --- files -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", ["image_proj", "ip_adapter"])
@pytest.mark.parametrize("number", [NAN, INF])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_one_nan_in_an_adapter_is_found_when_it_is_loaded(part, number, dtype):
    whole = checkpoint(dtype=dtype)
    name, tensor = next(iter(getattr(whole, part).items()))
    tensor.view(-1)[tensor.numel() // 3] = number
    with pytest.raises(CheckpointError, match=rf"small-base\.safetensors: the tensor '{part}\.{name}'"):
        Adapter(whole).load_checkpoint(whole)


def _changed(path: Path, **tensors) -> Path:
    save_prompt(
        make_prompt(adapter(), randn(2, 4, CONTEXT), randn(1, 4, CONTEXT), image_weights=(1, 1)), path
    )
    with safe_open(str(path), framework="pt") as file:
        metadata, old = file.metadata(), {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    save_file(old | tensors, str(path), metadata)
    return path


_TOKENS = randn(1, 8, CONTEXT)
_HALF_BROKEN = _TOKENS.clone()
_HALF_BROKEN[0, 3, 2] = NAN
_CHANGES = [
    {"cond": _HALF_BROKEN}, {"uncond": _HALF_BROKEN[:, :4]}, {"gains": torch.full((1, 8), INF)},
    {"cond": _TOKENS.to(torch.float8_e4m3fn)}, {"cond": _TOKENS.long()}, {"cond": _TOKENS.bool()},
    {"cond": _TOKENS.to(torch.complex64)}, {"cond": _TOKENS[:0], "gains": torch.ones(0, 8)},
    {"cond": _TOKENS[:, :0], "gains": torch.ones(1, 0)}, {"uncond": _TOKENS[:0]},
    {"uncond": randn(3, 4, CONTEXT)}, {"gains": torch.ones(2, 8)}, {"gains": torch.ones(1, 8, dtype=torch.int32)},
    {"cond": _TOKENS * 1e30}, {"cond": _TOKENS[0]},
]  # fmt: skip


@pytest.mark.parametrize("change", _CHANGES, ids=range(len(_CHANGES)))
def test_a_saved_prompt_with_tensors_that_cannot_be_is_refused(change, tmp_path):
    with pytest.raises(CheckpointError, match=r"^prompt\.safetensors"):
        load_prompt(adapter(), _changed(tmp_path / "prompt.safetensors", **change))


def test_a_saved_prompt_in_half_precision_is_read_in_full(tmp_path):
    path = _changed(tmp_path / "prompt.safetensors", cond=_TOKENS.half())
    assert load_prompt(adapter(), path).cond.dtype is torch.float32


_EMBEDS = [
    torch.zeros(1).expand(100_000, 257, 1280), torch.zeros(2, 0, 8), torch.zeros(0, 8), torch.full((1, 8), NAN),
    torch.ones(2, 8, dtype=torch.int64), torch.ones(2, 8, dtype=torch.complex64), torch.ones(8), {"a": torch.ones(2, 8)},
]  # fmt: skip


@pytest.mark.parametrize("embeds", _EMBEDS, ids=range(len(_EMBEDS)))
def test_embeds_that_cannot_be_are_refused(embeds, tmp_path):
    torch.save(embeds, tmp_path / "a.ipadpt")
    with pytest.raises(CheckpointError, match=r"^a\.ipadpt|^a tensor of shape"):
        load_embeds(tmp_path / "a.ipadpt")


def test_a_compressed_archive_is_not_unfolded(tmp_path):
    torch.save(torch.zeros(1000, 1000), tmp_path / "plain.pt")
    with (
        zipfile.ZipFile(tmp_path / "plain.pt") as plain,
        zipfile.ZipFile(tmp_path / "a.ipadpt", "w", zipfile.ZIP_DEFLATED) as packed,
    ):
        for entry in plain.infolist():
            packed.writestr(entry.filename, plain.read(entry))
    with pytest.raises(CheckpointError, match="compressed archive"):
        load_embeds(tmp_path / "a.ipadpt")


# --- sizes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(1, 8192), (8192, 1)])
def test_a_strip_is_not_cut_into_endless_tiles(size):
    with pytest.raises(MismatchError, match="tiles"):
        tiled(torch.rand(1, *size, 3))
    with pytest.raises(SettingError, match="tiles"):
        masked_tiles(torch.rand(1, *size, 3), 1, 0.6)


def test_masks_of_many_tiles_share_their_memory():
    _, masks = masked_tiles(torch.rand(1, 512, 512, 3), 12, 0.6)
    assert len(masks) == 145
    stores = {mask.untyped_storage().data_ptr(): mask.untyped_storage().nbytes() for mask in masks}
    assert sum(stores.values()) < 200e6  # 4.2 GB one by one
    for number in (0, 57, 143):  # each is white in its own tile only
        expected = torch.zeros(2688, 2688)
        top, left = number // 12 * 224, number % 12 * 224
        expected[top : top + 224, left : left + 224] = 0.6
        assert torch.equal(masks[1 + number], expected)
