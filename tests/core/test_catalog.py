"""The table of released files: consistent in itself, and with the layouts and hashes known from elsewhere."""

import math
import re
from collections import Counter

import pytest
from image_prompt.ipadapter_core.spec import Variant
from image_prompt.ipadapter_core.variants import detect
from image_prompt.model_files.catalog import (
    CATALOG,
    FAMILIES,
    catalog_row,
    encoder_file,
    file_named,
    files_for,
    of_layout,
)
from image_prompt.model_files.released import Intent, Kind, KnownFile
from support.layouts import LAYOUTS, Layout
from support.transformer_layouts import TRANSFORMER_LAYOUTS, TransformerLayout

each_row = pytest.mark.parametrize("known", CATALOG, ids=lambda known: known.name)
# The released files and the first 12 digits of their sha256, as collected from public lists before this table was.
KNOWN_BEFORE = {
    "ip-adapter_sd15.safetensors": "289b45f16d04",
    "ip-adapter_sd15_light_v11.bin": "350b63a57847",
    "ip-adapter_sd15_vit-G.safetensors": "a26f736af07b",
    "ip-adapter-plus_sd15.safetensors": "a1c250be4045",
    "ip-adapter-plus-face_sd15.safetensors": "1c9edc21af6f",
    "ip-adapter-full-face_sd15.safetensors": "f4a17fb643bf",
    "ip-adapter_sdxl.safetensors": "ba1002529e78",
    "ip-adapter_sdxl_vit-h.safetensors": "ebf05d918348",
    "ip-adapter-plus_sdxl_vit-h.safetensors": "3f5062b8400c",
    "ip-adapter-plus-face_sdxl_vit-h.safetensors": "677ad8860204",
    "ip-adapter-faceid_sd15.bin": "201344e22e6f",
    "ip-adapter-faceid_sdxl.bin": "f455fed24e20",
    "ip-adapter-faceid-plus_sd15.bin": "252fb53e0d01",
    "ip-adapter-faceid-plusv2_sd15.bin": "26d0d86a1d60",
    "ip-adapter-faceid-plusv2_sdxl.bin": "c6945d82b543",
    "ip-adapter-faceid-portrait_sd15.bin": "",
    "ip-adapter-faceid-portrait-v11_sd15.bin": "a48cb4f89ed1",
    "ip-adapter-faceid-portrait_sdxl.bin": "5631ce7824cd",
    "ip-adapter-faceid-portrait_sdxl_unnorm.bin": "220bb86e2053",
    "ip-adapter-faceid_sd15_lora.safetensors": "70699f0dbfad",
    "ip-adapter-faceid-plus_sd15_lora.safetensors": "3f00341d11e5",
    "ip-adapter-faceid-plusv2_sd15_lora.safetensors": "8abff87a15a0",
    "ip-adapter-faceid_sdxl_lora.safetensors": "4fcf93d6e8dc",
    "ip-adapter-faceid-plusv2_sdxl_lora.safetensors": "f24b4bb2dad6",
    "ip_plus_composition_sd15.safetensors": "",
    "ip_plus_composition_sdxl.safetensors": "",
    "Kolors-IP-Adapter-Plus.bin": "",
    "Kolors-IP-Adapter-FaceID-Plus.bin": "",
    "noobIPAMARK1_mark1.safetensors": "5cdb6a00be1b",
    "flux-ip-adapter.safetensors": "750f912149b84bbb",
    "flux-ip-adapter-v2.safetensors": "8f2bfddaffc4fe2a",
    "FLUX.1-dev-IP-Adapter.bin": "01aaeb0dace9ea4f",
    "SD3.5-Large-IP-Adapter.bin": "9fe54774aa528e71",
    "clip-vit-large-patch14.safetensors": "a2bf730a0c7debf1",
    "sigclip_vision_patch14_384.safetensors": "1fee501deaba",
    "CLIP-ViT-H-14-laion2B-s32B-b79K.safetensors": "6ca9667da1ca",
    "CLIP-ViT-bigG-14-laion2B-39B-b160k.safetensors": "657723e09f46",
}


@pytest.mark.parametrize("name", KNOWN_BEFORE)
def test_every_released_file_is_in_the_table(name: str):
    assert (catalog_row(name).sha256 or "").startswith(KNOWN_BEFORE[name])


@each_row
def test_hashes_sizes_and_addresses_are_well_formed(known: KnownFile):
    assert known.sha256 is None or re.fullmatch(r"[0-9a-f]{64}|[0-9a-f]{16}", known.sha256)
    assert known.size is None or abs(known.size / 1e6 - known.published_mb) < 0.006 * known.published_mb + 0.1
    assert re.fullmatch(
        r"https://(huggingface\.co/[\w.-]+/[\w.-]+/resolve/main/|github\.com/)[\w./-]+", known.url
    )
    assert known.url.rsplit(".", 1)[1] == known.name.rsplit(".", 1)[1]
    assert known.page.startswith("https://")
    assert known.licence


def test_names_and_hashes_are_unique():
    names = Counter(known.name.lower() for known in CATALOG)
    hashes = Counter(known.sha256 for known in CATALOG if known.sha256)
    assert max(names.values()) == max(hashes.values()) == 1


@each_row
def test_what_belongs_with_a_file_is_in_the_table(known: KnownFile):
    if known.kind is not Kind.ADAPTER:
        return
    assert known.intent
    assert known.family in FAMILIES
    assert known.variant in {variant.value for variant in Variant}
    assert encoder_file(known.encoder) or known.encoder == "no CLIP vision encoder"
    if known.lora:
        assert (catalog_row(known.lora).kind, catalog_row(known.lora).family) == (Kind.LORA, known.family)
    if known.variant.startswith("faceid"):
        assert catalog_row(known.faces).kind is Kind.FACE_PACK
        assert not known.commercial


@pytest.mark.parametrize("layout", [x for x in LAYOUTS if file_named(x.file)], ids=lambda layout: layout.file)
def test_each_row_agrees_with_detection(layout: Layout):
    known = file_named(layout.file)
    assert known
    spec = detect(layout.table, layout.file, layout.kind.variant)
    assert (known.variant, known.family, known.encoder) == (spec.variant.value, spec.family, spec.encoder)
    assert known in of_layout([spec.variant.value], spec.family, spec.encoder)


ROWS = {
    "ip_adapter": "flux-ip-adapter.safetensors",
    "ip_adapter v2": "flux-ip-adapter-v2.safetensors",
    "ip-adapter": "FLUX.1-dev-IP-Adapter.bin",
    "ip-adapter for SD3.5": "SD3.5-Large-IP-Adapter.bin",
}


@pytest.mark.parametrize("layout", [x for x in TRANSFORMER_LAYOUTS if x.file in ROWS], ids=lambda x: x.file)
def test_each_row_of_a_transformer_agrees_with_the_size_of_its_tensors(layout: TransformerLayout):
    known = catalog_row(ROWS[layout.file])
    facts = (
        layout.variant.value,
        "SD3.5 Large" if "SD3.5" in layout.file else "Flux.1",
        layout.encoder,
        layout.tokens,
    )
    assert (known.variant, known.family, known.encoder, known.tokens) == facts
    assert of_layout([facts[0]], *facts[1:]) == (known,)
    two_bytes = sum(2 * math.prod(shape) for shape in layout.table.values()) / 1e6
    assert abs(known.published_mb - two_bytes) < 0.2


def test_a_hash_of_which_the_first_digits_are_known_decides():
    known = catalog_row("FLUX.1-dev-IP-Adapter.bin")
    assert known.has_hash("01aaeb0dace9ea4f" + "0" * 48)
    assert not known.has_hash("01aaeb0dace9ea40" + "0" * 48)
    assert not known.has_hash("")
    assert "sha256 begins 01aaeb0dace9ea4f" in known.download_hint
    assert "non-commercial" in known.download_hint


def test_licences_that_ask_for_more_than_a_name_are_in_the_hint():
    assert "non-commercial" in catalog_row("flux-ip-adapter.safetensors").download_hint
    assert "MB)" in catalog_row("flux-ip-adapter-v2.safetensors").download_hint


def test_files_of_one_layout_differ_in_name_hints_or_intent():
    """So that a name decides between them: same layout and same hints means same intent."""
    intents: dict[object, set[object]] = {}
    for known in CATALOG:
        if known.kind is Kind.ADAPTER:
            layout = known.family, known.encoder, known.variant, known.tokens
            intents.setdefault((*layout, known.name_hints), set()).add(known.intent)
    assert all(len(goals) == 1 for goals in intents.values())


@pytest.mark.parametrize(
    "name",
    [
        "IP-Adapter_SD15.safetensors",
        "ip-adapter_sd15.bin",
        "sd15\\ip-adapter_sd15.safetensors",
        "sd15/ip-adapter_sd15.pth",
        " ip-adapter_sd15.safetensors ",
    ],
)
def test_a_file_is_found_by_name_whatever_its_case_folder_and_extension(name: str):
    assert file_named(name) is catalog_row("ip-adapter_sd15.safetensors")


def test_upstream_names_are_known_and_bare_ones_are_not():
    assert file_named("ip_adapter_plus_general.bin") is catalog_row("Kolors-IP-Adapter-Plus.bin")
    assert file_named("model.safetensors") is None
    assert file_named("pytorch_model.bin") is None
    assert file_named("my own.safetensors") is None


def test_every_goal_is_served_on_some_family_the_preferred_file_first():
    assert all(any(files_for(intent, family) for family in FAMILIES) for intent in Intent)
    assert [known.name for known in files_for(Intent.FACE_ID_PLUS, "SD1.5")] == [
        "ip-adapter-faceid-plusv2_sd15.bin",
        "ip-adapter-faceid-plus_sd15.bin",
    ]


def test_a_download_hint_says_all_one_needs():
    hint = catalog_row("ip-adapter-faceid_sd15.bin").download_hint
    for word in ("97 MB", "non-commercial", "h94/IP-Adapter-FaceID", "models/ipadapter", "201344e22e6f5584"):
        assert word in hint
