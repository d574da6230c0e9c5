"""Every released layout is recognised from key names and shapes, whatever the order of the keys."""

import math
import random

import pytest
import torch
from core.layouts import KEYS_VALUES_PARAMETERS, LAYOUTS, Layout, Table, base, keys_values
from image_prompt.ipadapter_core.adapter import SiteMatrices
from image_prompt.ipadapter_core.checkpoint import Checkpoint
from image_prompt.ipadapter_core.errors import UnknownAdapterError
from image_prompt.ipadapter_core.projections import Resampler
from image_prompt.ipadapter_core.variants import AdapterSpec, Variant, detect

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
        "token_width": family.context,
        "site_widths": family.widths,
        "site_keys": tuple(range(1, 2 * len(family.widths), 2)),
        "encoder": layout.encoder,
        "family": family.name,
    }


def told(spec: AdapterSpec) -> dict[str, object]:
    names = ("variant", "feature", "unconditional", "feature_width", "tokens", "token_width")
    names += ("site_widths", "site_keys", "encoder", "family")
    return {name: getattr(spec, name) for name in names}


def network(layout: Layout) -> torch.nn.Module:
    proj = {key.removeprefix("image_proj."): shape for key, shape in layout.image_proj.items()}
    return detect(layout.table).projection.from_shapes(proj, device="meta")


@each_layout
def test_everything_about_the_adapter_is_read_from_its_shapes(layout: Layout):
    assert told(detect(on_meta(layout.table).shapes)) == expected(layout)


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
    sites = [SiteMatrices(spec.token_width, width, device="meta") for width in spec.site_widths]
    counts = [sum(p.numel() for p in m.parameters()) for m in (network(layout), torch.nn.ModuleList(sites))]
    assert counts == [layout.parameters, KEYS_VALUES_PARAMETERS[spec.family]]
    assert sum(counts) == sum(math.prod(shape) for shape in layout.table.values())


@pytest.mark.parametrize(
    "layout", [row for row in LAYOUTS if row.kind.variant is Variant.PLUS], ids=lambda row: row.file
)
def test_resamplers_get_the_heads_and_depth_they_were_trained_with(layout: Layout):
    resampler = network(layout)
    assert isinstance(resampler, Resampler)
    assert [attention.heads for attention, _ in resampler.layers] == [layout.family.resampler_heads] * 4


def test_lora_tensors_that_share_the_numbering_are_passed_over():
    table = base(1024, 768) | keys_values((320, 640), 768)
    lora = {f"ip_adapter.{n}.to_q_lora.down.weight": (128, 320) for n in range(4)}
    assert detect(lora | table) == detect(table)


def test_a_family_without_a_name_is_described_by_its_numbers():
    spec = detect(base(512, 640, tokens=8) | keys_values((32,) * 5, 640))
    assert (spec.tokens, spec.family) == (8, "UNet with 5 cross-attentions of context width 640")
    assert spec.encoder == "an unusual CLIP vision encoder"


_KV = keys_values((320,) * 16, 768)
_FACEID = {"image_proj.proj.0.weight": (1024, 512), "image_proj.proj.2.weight": (3072, 1024)}
_FACEID |= {"image_proj.norm.weight": (768,), "image_proj.norm.bias": (768,)}
_XLABS = {"ip_adapter_proj_model.proj.weight": (16384, 768)}


@pytest.mark.parametrize(
    ("table", "words"),
    [
        (_FACEID | _KV, "proj.0.weight"),
        ({"image_proj.latents": (1, 16, 768)} | _KV, "looks like 'plus', but lacks norm_out.weight"),
        (_XLABS, "none"),
        (base(1024, 768), "no 'N.to_k_ip.weight'"),
    ],
    ids=["FaceID", "half a resampler", "Flux XLabs", "projection alone"],
)
def test_unknown_layouts_are_refused_by_what_they_hold(table: Table, words: str):
    with pytest.raises(UnknownAdapterError) as caught:
        detect(table, "odd.safetensors")
    assert words in str(caught.value)
    assert str(caught.value).startswith("odd.safetensors: ")
