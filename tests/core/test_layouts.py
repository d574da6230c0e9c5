"""Every released layout is recognised from key names and shapes, whatever the order of the keys."""

import math
import random
from dataclasses import replace

import pytest
import torch
from image_prompt.ipadapter_core.adapter import SiteMatrices
from image_prompt.ipadapter_core.checkpoint import Checkpoint
from image_prompt.ipadapter_core.errors import SettingError, UnknownAdapterError
from image_prompt.ipadapter_core.projections.resampler import Resampler
from image_prompt.ipadapter_core.spec import AdapterSpec, Identity, Variant
from image_prompt.ipadapter_core.variants import ambiguous_variants, detect, variant_by_name
from support.layouts import (
    FACEID_LORA_PARAMETERS,
    KEYS_VALUES_PARAMETERS,
    LAYOUTS,
    SD15,
    SDXL,
    Layout,
    Table,
    base,
    keys_values,
    lora,
)

TWINS = (
    {Variant.FACEID_PLUS, Variant.FACEID_PLUS_V2},
    {Variant.FACEID_PORTRAIT_UNNORM, Variant.INSTANTID},
)
each_layout = pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.file)


def on_meta(table: Table) -> Checkpoint:
    """The file as it comes from the reader, its tensors on the meta device."""
    roles: dict[str, dict[str, torch.Tensor]] = {"image_proj": {}, "ip_adapter": {}}
    for key, shape in table.items():
        role, name = key.split(".", 1)
        roles[role][name] = torch.empty(shape, device="meta")
    return Checkpoint("adapter.safetensors", **roles)


def expected(layout: Layout) -> dict[str, object]:
    family, kind = layout.family, layout.kind
    return {
        "variant": kind.variant,
        "feature": kind.feature,
        "unconditional": kind.unconditional,
        "feature_width": layout.feature_width,
        "tokens": kind.tokens,
        "token_width": family.token_width,
        "context_width": family.context,
        "identity": kind.identity,
        "identity_width": 0 if kind.identity is Identity.NONE else 512,
        "lora": layout.lora,
        "site_widths": family.widths,
        "site_keys": tuple(range(1, 2 * len(family.widths), 2)),
        "encoder": layout.encoder,
        "family": family.name,
    }


def facts(spec: AdapterSpec) -> dict[str, object]:
    names = ("variant", "feature", "unconditional", "feature_width", "tokens", "token_width")
    names += (
        "context_width",
        "identity",
        "identity_width",
        "lora",
        "site_widths",
        "site_keys",
        "encoder",
        "family",
    )
    return {name: getattr(spec, name) for name in names}


def network(layout: Layout) -> torch.nn.Module:
    proj = {key.removeprefix("image_proj."): shape for key, shape in layout.image_proj.items()}
    spec = detect(layout.table, layout.file, layout.kind.variant)
    return spec.projection.from_shapes(proj, device="meta")


@each_layout
def test_everything_about_the_adapter_is_read_from_its_shapes(layout: Layout):
    shapes = on_meta(layout.table).shapes
    assert facts(detect(shapes, layout.file, layout.kind.variant)) == expected(layout)


@each_layout
@pytest.mark.parametrize("seed", range(3))
def test_the_order_of_keys_says_nothing(layout: Layout, seed: int):
    items = list(layout.table.items())
    random.Random(seed).shuffle(items)
    assert detect(dict(items)) == detect(layout.table)


@each_layout
def test_the_projection_network_has_exactly_the_tensors_of_the_file(layout: Layout):
    built = {f"image_proj.{key}": tuple(t.shape) for key, t in network(layout).state_dict().items()}
    assert built == layout.image_proj


@each_layout
def test_parameter_counts_are_those_of_the_paper(layout: Layout):
    spec = detect(layout.table)
    sites = [SiteMatrices(spec.context_width, width, device="meta") for width in spec.site_widths]
    counts = [sum(p.numel() for p in m.parameters()) for m in (network(layout), torch.nn.ModuleList(sites))]
    table = {key: shape for key, shape in layout.table.items() if "_lora." not in key}
    assert counts[1] == KEYS_VALUES_PARAMETERS[spec.family]
    assert layout.parameters in (None, counts[0])
    assert sum(counts) == sum(math.prod(shape) for shape in table.values())


def test_the_lora_of_a_faceid_file_has_the_parameters_of_the_paper():
    shapes = lora(SD15, 768).values()
    assert sum(math.prod(shape) for shape in shapes) == FACEID_LORA_PARAMETERS


@pytest.mark.parametrize(
    "layout", [row for row in LAYOUTS if row.family.resampler_heads], ids=lambda row: row.file
)
def test_resamplers_get_the_heads_and_depth_they_were_trained_with(layout: Layout):
    resampler = network(layout)
    if isinstance(resampler, Resampler):
        assert [attention.heads for attention, _ in resampler.layers] == [layout.family.resampler_heads] * 4


@each_layout
def test_keys_leave_open_only_what_no_key_can_tell(layout: Layout):
    allowed = ambiguous_variants(layout.table, layout.file)
    assert layout.kind.variant in allowed
    assert set(allowed) in TWINS or len(allowed) == 1


@each_layout
def test_the_name_tells_twins_apart(layout: Layout):
    allowed = ambiguous_variants(layout.table, layout.file)
    if len(allowed) > 1:
        assert variant_by_name(allowed, layout.file) is layout.kind.variant


def test_a_variant_that_the_tensors_exclude_is_refused():
    with pytest.raises(SettingError, match="cannot be 'faceid plus v2': its tensors are those of 'base'"):
        detect(LAYOUTS[0].table, "a.safetensors", Variant.FACEID_PLUS_V2)


def test_another_methods_file_is_named():
    table = {"image_proj.body.0.weight": (1024, 1280), "image_proj.mapping_patch_0.0.weight": (1024, 1024)}
    with pytest.raises(UnknownAdapterError, match="is a PuLID adapter"):
        detect(table | keys_values(SDXL, 2048), "pulid.safetensors")


def test_lora_tensors_that_share_the_numbering_are_passed_over():
    table = base(1024, 768) | keys_values((320, 640), 768)
    with_lora = detect(lora((320, 640), 768) | table)
    assert with_lora.lora
    assert replace(with_lora, lora=False) == detect(table)


def test_a_family_without_a_name_is_described_by_its_numbers():
    spec = detect(base(512, 640, tokens=8) | keys_values((32,) * 5, 640))
    assert (spec.tokens, spec.family) == (8, "UNet with 5 cross-attentions of context width 640")
    assert spec.encoder == "an unusual CLIP vision encoder"


_KV = keys_values((320,) * 16, 768)
_NO_NORM = {"image_proj.proj.0.weight": (1024, 512), "image_proj.proj.2.weight": (3072, 1024)}
_XLABS = {"ip_adapter_proj_model.proj.weight": (16384, 768)}


@pytest.mark.parametrize(
    ("table", "words"),
    [
        (_NO_NORM | _KV, "looks like 'faceid', but lacks norm.weight"),
        ({"image_proj.latents": (1, 16, 768)} | _KV, "looks like 'plus', but lacks norm_out.weight"),
        (_XLABS, "none"),
        (base(1024, 768), "no 'N.to_k_ip.weight'"),
    ],
    ids=["half a FaceID", "half a resampler", "Flux XLabs", "projection alone"],
)
def test_unknown_layouts_are_refused_by_what_they_hold(table: Table, words: str):
    with pytest.raises(UnknownAdapterError) as caught:
        detect(table, "odd.safetensors")
    assert words in str(caught.value)
    assert str(caught.value).startswith("odd.safetensors: ")
