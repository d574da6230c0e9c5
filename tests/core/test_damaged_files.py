"""A file that is no whole adapter is refused in one paragraph: its name, the cause, and what to do."""

from pathlib import Path

import pytest
import torch
from core.damaged import CANARY, DAMAGES, Damage
from core.small import flat
from image_prompt.ipadapter_core.adapter import Adapter
from image_prompt.ipadapter_core.checkpoint import read_checkpoint, read_shapes
from image_prompt.ipadapter_core.errors import CheckpointError, ImagePromptError
from image_prompt.ipadapter_core.variants import detect
from safetensors.torch import save_file

# Damage that only the tensors themselves show, not their outline.
INSIDE = {"offsets against shapes", "resampler without a norm", "one layer of another size"}


def load(path: Path) -> Adapter:
    file = read_checkpoint(path)
    return Adapter(file).load_checkpoint(file)


def refused(damage: Damage, path: Path, error: ImagePromptError) -> str:
    """The message, after the checks that hold for every one."""
    message = str(error)
    assert type(error) is damage.error
    assert path.name in message
    assert "\n" not in message
    assert len(message) < 450
    assert message.endswith(".")
    assert damage.remedy in message
    return message


@pytest.mark.parametrize("case", DAMAGES)
def test_loading_says_what_is_wrong_and_what_to_do(case: str, tmp_path: Path):
    damage, path = DAMAGES[case], tmp_path / DAMAGES[case].name
    damage.make(path)
    with pytest.raises(ImagePromptError) as caught:
        load(path)
    assert damage.cause in refused(damage, path, caught.value)
    assert not (tmp_path / CANARY).exists()


@pytest.mark.parametrize("case", [case for case in DAMAGES if case not in INSIDE])
def test_looking_at_the_shapes_says_the_same(case: str, tmp_path: Path):
    damage, path = DAMAGES[case], tmp_path / DAMAGES[case].name
    damage.make(path)
    with pytest.raises(ImagePromptError) as caught:
        detect(read_shapes(path), path.name)
    assert damage.cause in refused(damage, path, caught.value)
    assert not (tmp_path / CANARY).exists()


def test_the_canary_would_sing(tmp_path: Path):
    """Without `weights_only` the same file does run code, so its absence above means something."""
    path = tmp_path / "a.bin"
    DAMAGES["pickled code"].make(path)
    torch.load(path, weights_only=False)
    assert (tmp_path / CANARY).exists()


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_a_pickle_cut_anywhere_is_refused_by_name(legacy: bool, tmp_path: Path):
    path = tmp_path / "cut.bin"
    torch.save(flat(), path, _use_new_zipfile_serialization=not legacy)
    whole = path.read_bytes()
    for length in range(1, len(whole) - 1, len(whole) // 60):
        path.write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match=r"^cut\.bin "):
            load(path)


def test_a_safetensors_file_cut_anywhere_is_refused_by_name(tmp_path: Path):
    path = tmp_path / "cut.safetensors"
    save_file(flat(), path)
    whole = path.read_bytes()
    for length in range(1, len(whole) - 1, len(whole) // 60):
        path.write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match=r"^cut\.safetensors "):
            load(path)
