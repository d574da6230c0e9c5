"""Files of other methods and models, full size: recognised by their keys, refused with what they are and what to use."""

from pathlib import Path

import pytest
from core.outlines import write_outline
from image_prompt.ipadapter_core.checkpoint import read_checkpoint, role_names
from image_prompt.ipadapter_core.errors import CheckpointError, MismatchError, UnknownAdapterError
from image_prompt.ipadapter_core.families.matching import match_sites
from image_prompt.ipadapter_core.foreign import foreign
from image_prompt.ipadapter_core.variants import detect
from image_prompt.model_files.inspection import FileKind, inspect_file
from support.layouts import LAYOUTS, perceiver
from support.neighbours import NEIGHBOURS
from support.transformer_layouts import TRANSFORMER_LAYOUTS

each = pytest.mark.parametrize("name", NEIGHBOURS)


@each
def test_a_neighbour_is_refused_by_name(name: str, tmp_path: Path):
    neighbour = NEIGHBOURS[name]
    path = write_outline(tmp_path / "ip-adapter.safetensors", neighbour.table, shuffle=3)
    with pytest.raises(UnknownAdapterError) as caught:
        read_checkpoint(path)
    found = inspect_file(path)
    assert found.kind is FileKind.OTHER
    for words in neighbour.words:
        assert words in str(caught.value)
        assert words in found.text


@each
def test_also_where_a_wrapper_stands_before_its_names(name: str, tmp_path: Path):
    table = {f"module.{key}": shape for key, shape in NEIGHBOURS[name].table.items()}
    assert inspect_file(write_outline(tmp_path / "x.safetensors", table)).text == foreign(
        NEIGHBOURS[name].table
    )


@pytest.mark.parametrize("layout", [*LAYOUTS, *TRANSFORMER_LAYOUTS], ids=lambda layout: layout.file)
def test_no_released_adapter_is_taken_for_one(layout):
    assert foreign(layout.table) is None


def test_the_half_of_another_adapter_is_no_infinite_you(tmp_path: Path):
    table = {"image_proj.latents": (1, 16, 768)} | perceiver("image_proj", 1280, 768, 768, 12)
    with pytest.raises(CheckpointError, match="holds no 'ip_adapter' tensors"):
        read_checkpoint(write_outline(tmp_path / "x.safetensors", table))


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("ip-adapter-wan2.1.bin", True),
        ("IPAdapter_WAN.safetensors", True),
        ("wander.bin", False),
        ("x.bin", False),
    ],
)
def test_a_file_that_claims_wan_is_told_what_it_is(name: str, said: bool):
    """Such files hold SD3.5's tensors; they are what these say, and a Wan model has no place for them."""
    shapes = {
        f"{role}.{key}": TRANSFORMER_LAYOUTS[0].table[of]
        for of, (role, key) in role_names(TRANSFORMER_LAYOUTS[0].table).items()
    }
    with pytest.raises(
        MismatchError, match=r"is an adapter for Flux\.1, but the connected model has no"
    ) as caught:
        match_sites(detect(shapes), name, ())
    assert ("No IP-Adapter was released for Wan" in str(caught.value)) is said
