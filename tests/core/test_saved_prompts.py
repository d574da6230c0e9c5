"""Saved prompts: what is written comes back, for the adapter it was made with and no other."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from core.small import CONTEXT, adapter, flat, randn
from image_prompt.ipadapter_core.combine import Combine, combine
from image_prompt.ipadapter_core.errors import (
    CheckpointError,
    ImagePromptError,
    MismatchError,
    MissingFileError,
    WriteError,
)
from image_prompt.ipadapter_core.prompt import Arrange, ImagePrompt, make_prompt
from image_prompt.ipadapter_core.prompt_file import FORMAT, is_saved_prompt, load_prompt, save_prompt
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file


def single() -> ImagePrompt:
    tokens = randn(2, 4, CONTEXT)  # one tensor for both, as the host's projection gives them
    return make_prompt(adapter(), tokens[:1], tokens[1:], note={"images": "1", "fit": "crop"})


def batch() -> ImagePrompt:
    return make_prompt(adapter(), randn(3, 4, CONTEXT), randn(1, 4, CONTEXT), Arrange.ONE_EACH, (1, 0.5, 2))


def combined() -> ImagePrompt:
    return combine([batch(), single()], Combine.CONCAT, (0.5, 1.5))


@pytest.mark.parametrize("make", [single, batch, combined], ids=lambda make: make.__name__)
def test_a_saved_prompt_comes_back_whole(make: Callable[[], ImagePrompt], tmp_path: Path):
    path, made = tmp_path / "prompt.safetensors", make()
    save_prompt(made, path)
    back = load_prompt(adapter(), path)
    for name in ("cond", "uncond", "value_scale"):
        assert torch.equal(getattr(back, name), getattr(made, name)), name
    assert back.note == made.note
    for before, after in zip(made.keys_values, back.keys_values, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_the_file_says_what_it_is_and_where_from(tmp_path: Path):
    path = tmp_path / "prompt.safetensors"
    save_prompt(single(), path)
    with safe_open(str(path), framework="pt") as file:
        metadata = file.metadata()
    assert metadata["format"] == FORMAT
    assert metadata["adapter"] == "small-base.safetensors"
    assert metadata["variant"] == "base"
    assert is_saved_prompt(path)


def test_the_adapter_itself_is_not_in_the_file(tmp_path: Path):
    path = tmp_path / "prompt.safetensors"
    save_prompt(single(), path)
    with safe_open(str(path), framework="pt") as file:
        assert set(file.keys()) == {"cond", "uncond", "gains"}


def test_another_adapter_is_refused_and_the_right_one_named(tmp_path: Path):
    path = tmp_path / "prompt.safetensors"
    save_prompt(single(), path)
    other = adapter("plus", seed=1)
    with pytest.raises(MismatchError) as caught:
        load_prompt(other, path)
    message = str(caught.value)
    assert message.startswith("prompt.safetensors was made with small-base.safetensors")
    assert "small-plus.safetensors is connected" in message


def _other_format(path: Path) -> None:
    save_file({"cond": torch.zeros(1), "uncond": torch.zeros(1)}, path, {"format": "image-prompt/0"})


def _half(path: Path) -> None:
    save_prompt(single(), path)
    path.write_bytes(path.read_bytes()[:-40])


def _no_gains(path: Path) -> None:
    save_file({"cond": torch.zeros(1), "uncond": torch.zeros(1)}, path, {"format": FORMAT})


OTHER_FILES: dict[str, Callable[[Path], object]] = {
    "missing": lambda path: None,
    "folder": lambda path: path.mkdir(),
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("<html>"),
    "pickle": lambda path: torch.save({"cond": torch.zeros(1)}, path),
    "adapter": lambda path: save_file(flat(), path),
    "other format": _other_format,
    "cut": _half,
    "without gains": _no_gains,
}


@pytest.mark.parametrize("case", [case for case in OTHER_FILES if case != "missing"])
def test_what_is_no_saved_prompt_is_refused_by_name(case: str, tmp_path: Path):
    path = tmp_path / "prompt.safetensors"
    OTHER_FILES[case](path)
    with pytest.raises(ImagePromptError) as caught:
        load_prompt(adapter(), path)
    assert type(caught.value) is CheckpointError
    assert str(caught.value).startswith("prompt.safetensors is not a saved image prompt")


def test_a_missing_prompt_is_named(tmp_path: Path):
    with pytest.raises(
        MissingFileError, match=r"gone\.safetensors does not exist\. Put the saved image prompt there"
    ):
        load_prompt(adapter(), tmp_path / "gone.safetensors")


@pytest.mark.parametrize("case", [case for case in OTHER_FILES if case != "without gains"])
def test_what_is_no_saved_prompt_is_not_listed_as_one(case: str, tmp_path: Path):
    path = tmp_path / "prompt.safetensors"
    OTHER_FILES[case](path)
    assert not is_saved_prompt(path)


def test_one_tensor_for_both_sides_can_be_saved(tmp_path: Path):
    tokens = randn(1, 4, CONTEXT)
    save_prompt(make_prompt(adapter(), tokens, tokens), tmp_path / "prompt.safetensors")
    assert is_saved_prompt(tmp_path / "prompt.safetensors")


def test_what_cannot_be_written_is_said_and_leaves_nothing(tmp_path: Path):
    (tmp_path / "taken").write_text("a file where a folder should be")
    for path in (
        tmp_path / "taken" / "a.safetensors",
        tmp_path / f"{'x' * 300}.safetensors",
        tmp_path / "a\0b",
    ):
        with pytest.raises(WriteError, match="could not be written"):
            save_prompt(single(), path)
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


def test_a_full_disk_leaves_no_half_prompt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def half(tensors: object, path: str, metadata: object) -> None:
        Path(path).write_bytes(b"half")
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("image_prompt.ipadapter_core.prompt_file.save_file", half)
    with pytest.raises(WriteError, match="disk is full"):
        save_prompt(single(), tmp_path / "a.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_a_saved_prompt_that_is_cut_while_it_is_used_changes_nothing(tmp_path: Path):
    path = tmp_path / "prompt.safetensors"
    save_prompt(single(), path)
    back = load_prompt(adapter(), path)
    os.truncate(path, 10)
    assert torch.equal(back.cond, single().cond)


def test_a_saved_prompt_that_was_changed_is_refused(tmp_path: Path):
    path = tmp_path / "prompt.safetensors"
    save_prompt(single(), path)
    with safe_open(str(path), framework="pt") as file:
        metadata, tensors = file.metadata(), {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    save_file(tensors | {"cond": tensors["cond"][..., :-1].contiguous()}, str(path), metadata)
    with pytest.raises(CheckpointError, match="was changed"):
        load_prompt(adapter(), path)
