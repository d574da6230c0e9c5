"""Adapters for transformers are recognised by their keys and shapes, and their neighbours are refused by name."""

from pathlib import Path

import pytest
import torch
from core.outlines import write_outline
from core.sites import SD15
from image_prompt.ipadapter_core.adapter import Adapter
from image_prompt.ipadapter_core.checkpoint import Checkpoint, read_checkpoint, role_names
from image_prompt.ipadapter_core.errors import CheckpointError, MismatchError
from image_prompt.ipadapter_core.families.matching import match_sites
from image_prompt.ipadapter_core.families.site import Site
from image_prompt.ipadapter_core.features import Features
from image_prompt.ipadapter_core.joint_pairs import PARTS, JointPairs
from image_prompt.ipadapter_core.spec import Feature, Target, Variant
from image_prompt.ipadapter_core.variants import detect
from image_prompt.model_files.inspection import FileKind, inspect_file
from safetensors.torch import save_file
from support.layouts import Table, base, keys_values
from support.transformer_layouts import (
    TRANSFORMER_LAYOUTS,
    instantx,
    instantx_sd3,
    open_blocks,
    resaved_sd3,
    xlabs,
    xlabs_resaved,
)

each_layout = pytest.mark.parametrize("layout", TRANSFORMER_LAYOUTS, ids=lambda layout: layout.file)


def by_role(table: Table) -> Table:
    return {f"{role}.{name}": table[key] for key, (role, name) in role_names(table).items()}


@each_layout
def test_a_released_file_is_recognised(layout):
    spec = detect(by_role(layout.table), "x.safetensors")
    assert (spec.variant, spec.family, spec.tokens) == (layout.variant, layout.family, layout.tokens)
    assert (spec.unconditional, spec.feature, spec.encoder) == (
        layout.unconditional,
        layout.feature,
        layout.encoder,
    )
    assert spec.site_widths == (layout.width,) * layout.pairs
    assert spec.site_keys == tuple(range(layout.pairs))
    assert spec.context_width == layout.context
    of_xlabs, timed = layout.variant is Variant.XLABS, layout.family != "Flux.1"
    assert spec.token_width == (1152 if timed else 4096)
    assert spec.bias is of_xlabs
    assert spec.entry.timed is timed
    assert spec.entry.normed_keys is not (of_xlabs or timed)
    assert not spec.needs_context_projection
    assert spec.entry.target is (Target.BLOCK if of_xlabs else Target.ATTENTION)


@pytest.mark.parametrize(
    ("prefix", "pairs", "family"),
    [
        ("transformer_blocks-", 60, "Qwen-Image"),
        ("layers-", 30, "Z-Image"),
        ("layers-", 26, "Lumina 2"),
        ("layers-", 5, "NextDiT with 5 blocks"),
    ],
)
def test_this_packs_own_layout_says_what_it_is_for(prefix, pairs, family):
    spec = detect(open_blocks(prefix, pairs, 64, 48, 1024), "mine.safetensors")
    assert (spec.variant, spec.family, spec.tokens, spec.token_width) == (Variant.BASE, family, 4, 48)
    assert (spec.site_keys, spec.site_widths) == (tuple(range(pairs)), (64,) * pairs)
    assert spec.site_names[-1] == f"{prefix}{pairs - 1}"
    assert spec.entry.normed_keys


@each_layout
def test_its_tensors_fill_the_module(layout):
    """And nothing of it is left over: on the meta device, at full size."""
    parts: dict[str, dict[str, torch.Tensor]] = {"image_proj": {}, "ip_adapter": {}}
    for key, shape in by_role(layout.table).items():
        role, name = key.split(".", 1)
        parts[role][name] = torch.empty(shape, device="meta", dtype=torch.float16)
    file = Checkpoint("x", **parts)
    spec = detect(file.shapes)
    proj = spec.projection.from_shapes({k: tuple(t.shape) for k, t in parts["image_proj"].items()})
    assert {k: tuple(t.shape) for k, t in proj.state_dict().items()} == {
        k: tuple(t.shape) for k, t in parts["image_proj"].items()
    }
    if spec.entry.timed:
        pairs = JointPairs({key: parts["ip_adapter"][f"0.{key}"].shape for key in PARTS}, layout.pairs, "x")
        found = {key: tuple(tensor.shape) for key, tensor in pairs.by_site(spec.site_keys).items()}
        assert found == {key: tuple(tensor.shape) for key, tensor in parts["ip_adapter"].items()}


@each_layout
def test_the_doctor_names_it(layout, tmp_path: Path):
    found = inspect_file(write_outline(tmp_path / "x.safetensors", layout.table))
    assert found.kind is FileKind.ADAPTER
    assert (
        f"{layout.variant.value} adapter for {layout.family}, {layout.encoder}, {layout.tokens} tokens"
        in found.text
    )


SMALL = {
    "xlabs": xlabs(2, 32, 24, 12, 4),
    "resaved": xlabs_resaved(2, 32, 24, 12, 4),
    "instantx": instantx(4, 32, 24, 12, 4),
}


SD35, ROLES = instantx_sd3(2, 128, 12, 4, 128, depth=2, waves=32), ("image_proj.", "ip_adapter.")


@pytest.mark.parametrize("kind", SMALL)
def test_a_small_file_is_read_and_projects(kind: str, tmp_path: Path):
    torch.manual_seed(0)
    path = tmp_path / "x.safetensors"
    save_file({key: torch.randn(shape) for key, shape in SMALL[kind].items()}, str(path))
    file = read_checkpoint(path)
    adapter = Adapter(file).load_checkpoint(file)
    tokens = adapter.project(Features(torch.randn(3, 12)))
    assert tokens.shape == (3, 4, 24)
    pairs = adapter.keys_values(torch.zeros(1, 4, 24))
    assert len(pairs) == (4 if kind == "instantx" else 2)
    assert (float(pairs[0][1].abs().max()) > 0) is (kind != "instantx")  # the bias alone
    assert adapter.spec.feature is (Feature.POOLED if kind == "instantx" else Feature.IMAGE_EMBEDS)


@pytest.mark.parametrize("names", ["released", "diffusers"])
@pytest.mark.parametrize("nested", [False, True])
def test_a_small_file_for_sd35_is_one_adapter_under_all_its_names(names: str, nested: bool, tmp_path: Path):
    torch.manual_seed(0)
    tensors = {key: torch.randn(shape) for key, shape in SD35.items()}
    truth = Checkpoint(
        "truth", *({k[11:]: t for k, t in tensors.items() if k.startswith(role)} for role in ROLES)
    )
    if names == "diffusers":
        tensors = {resaved_sd3(key): tensor for key, tensor in tensors.items()}
    if nested:
        roles = {role[:-1]: {k[11:]: t for k, t in tensors.items() if k.startswith(role)} for role in ROLES}
        torch.save(roles, path := tmp_path / "x.bin")
    else:
        save_file(tensors, str(path := tmp_path / "x.safetensors"))
    file = read_checkpoint(path)
    adapter = Adapter(file).load_checkpoint(file)
    assert adapter.digest == Adapter(truth).digest
    assert adapter.spec.family == "SD3.5 with 2 K'/V' pairs"
    flat = truth.state_dict()
    assert adapter.tensors().keys() == flat.keys()
    assert all(torch.equal(tensor, flat[key]) for key, tensor in adapter.tensors().items())
    features = torch.randn(3, 5, 12)
    assert torch.equal(adapter.project(Features(features)), features)
    keys, values = adapter.keys_values_at(features, torch.tensor([700.0]), torch.float32)
    assert keys.shape == values.shape == (2, 3, 4, 128)
    with pytest.raises(MismatchError, match="follow from the timestep"):
        adapter.keys_values(features)


@pytest.mark.parametrize("part", ["norm_ip.linear.bias", "norm_k.weight"])
def test_a_damaged_file_for_sd35_is_refused(part: str, tmp_path: Path):
    tensors = {key: torch.randn(shape) for key, shape in SD35.items()}
    odd = tensors | {f"ip_adapter.1.{part}": torch.randn(3)}
    for wrong, words in (
        ({k: t for k, t in tensors.items() if k != f"ip_adapter.1.{part}"}, "missing"),
        (odd, "shape"),
    ):
        save_file(wrong, str(path := tmp_path / "x.safetensors"))
        file = read_checkpoint(path)
        with pytest.raises(CheckpointError, match=words):
            Adapter(file).load_checkpoint(file)


def transformer(double: int, single: int, width: int = 32, architecture: str = "Flux") -> tuple[Site, ...]:
    places = [("double", n) for n in range(double)] + [("single", n) for n in range(single)]
    return tuple(
        Site(f"{stage} {n}", stage, index, 0, width, 0, 2, f"{stage}_blocks.{n}", architecture)
        for index, (stage, n) in enumerate(places)
    )


def joint(blocks: int, width: int) -> tuple[Site, ...]:
    return tuple(
        Site(f"joint {n}", "joint", n, 0, width, 0, width // 64, f"joint_blocks.{n}", "SD3")
        for n in range(blocks)
    )


def spec_of(table: Table):
    return detect(by_role(table))


def test_pairs_belong_to_the_blocks_that_the_adapter_has_them_for():
    assert match_sites(spec_of(SMALL["xlabs"]), "x", transformer(2, 2)) == (0, 1, None, None)
    assert match_sites(spec_of(SMALL["instantx"]), "x", transformer(2, 2)) == (0, 1, 2, 3)
    assert match_sites(spec_of(xlabs(19, 32, 24, 12, 4)), "x", transformer(19, 38)) == (
        *range(19),
        *[None] * 38,
    )
    assert match_sites(spec_of(SD35), "x", joint(2, 128)) == (0, 1)
    assert match_sites(spec_of(instantx_sd3(38, 128, 12, 4, 128)), "x", joint(38, 128)) == tuple(range(38))
    chroma = transformer(19, 38, architecture="Chroma")
    assert match_sites(spec_of(instantx(57, 32, 24, 12, 4)), "x", chroma) == tuple(range(57))


RELEASED_FILES = {
    "xlabs": xlabs(19, 32, 24, 12, 4),
    "re-saved": xlabs_resaved(19, 32, 24, 12, 4),
    "instantx": instantx(57, 32, 24, 12, 4),
}
OTHER_BLOCKS = {
    "Flux.2 dev": (8, 48),
    "Flux.2 Klein 9B": (8, 24),
    "Flux.2 Klein 4B": (5, 20),
    "LongCat": (10, 20),
    "as many in all": (18, 39),
    "fewer single": (19, 20),
    "fewer double": (8, 38),
}


@pytest.mark.parametrize("file", RELEASED_FILES)
@pytest.mark.parametrize("architecture", ["Flux", "Chroma"])
@pytest.mark.parametrize("model", OTHER_BLOCKS)
def test_a_model_of_other_block_counts_is_refused_with_both(file: str, architecture: str, model: str):
    double, single = OTHER_BLOCKS[model]
    sites = transformer(double, single, architecture=architecture)
    words = f"a Flux-like transformer with {double} double and {single} single blocks.*have 19 double and 38 single"
    with pytest.raises(MismatchError, match=words):
        match_sites(spec_of(RELEASED_FILES[file]), "x", sites)


WRONG = {
    "Flux.2's counts": (xlabs(19, 32, 24, 12, 4), transformer(8, 48)),
    "pruned of single blocks": (xlabs(19, 32, 24, 12, 4), transformer(19, 20)),
    "more blocks": (instantx(57, 32, 24, 12, 4), transformer(57, 0) + transformer(0, 1)),
    "another width": (xlabs(19, 32, 24, 12, 4), transformer(19, 38, 64)),
    "SD3.5 Medium": (instantx_sd3(38, 2432, 12, 4, 128), joint(24, 1536)),
    "SD3.5 Large of another width": (instantx_sd3(38, 2432, 12, 4, 128), joint(38, 2048)),
    "SD3.5 and an adapter for Flux": (xlabs(2, 32, 24, 12, 4), joint(2, 32)),
    "Flux and an adapter for SD3.5": (instantx_sd3(4, 128, 12, 4, 128), transformer(2, 2, 128)),
    "an adapter for SD1.5": (
        base(12, 768) | keys_values(tuple(s.width for s in SD15), 768),
        transformer(2, 2),
    ),
    "a UNet": (SMALL["xlabs"], SD15),
    "no model that is known": (SMALL["xlabs"], ()),
}


@pytest.mark.parametrize("case", WRONG)
def test_another_model_is_refused_by_a_sentence(case: str):
    table, sites = WRONG[case]
    with pytest.raises(MismatchError, match=r"is an adapter for .*, but the connected model"):
        match_sites(spec_of(table), "x", sites)
