"""Which files serve an intent: by contents, then by sha256, then by name; or exactly what to get."""

from pathlib import Path

import pytest
from core.installed import TABLES, Installed, chosen, missing
from core.outlines import VIT_G, VIT_H, VIT_L, VIT_L336, face_lora, write_outline
from image_prompt.model_files.catalog import catalog_row
from image_prompt.model_files.released import Intent

FACES = ["buffalo_l", "antelopev2"]


@pytest.fixture
def installed(tmp_path: Path) -> Installed:
    return Installed(tmp_path)


# --- by contents -------------------------------------------------------------------------------------------------

DECIDED_BY_CONTENTS = [
    ("ip-adapter-full-face_sd15", "SD1.5", Intent.FULL_FACE, VIT_H),
    ("ip-adapter_sd15_vit-G", "SD1.5", Intent.BIG_ENCODER, VIT_G),
    ("ip-adapter_sdxl_vit-h", "SDXL", Intent.STANDARD, VIT_H),
    ("ip_adapter_plus_general", "Kolors", Intent.PLUS, VIT_L336),
    ("ipa-faceid-plus", "Kolors", Intent.FACE_ID_PLUS, VIT_L336),
    ("ip-adapter-faceid-portrait_sdxl", "SDXL", Intent.PORTRAIT, None),
    ("ip-adapter-faceid_sd15", "SD1.5", Intent.FACE_ID, None),
]


@pytest.mark.parametrize(
    ("layout", "family", "intent", "sizes"), DECIDED_BY_CONTENTS, ids=lambda value: str(value)[:34]
)
def test_contents_alone_decide_whatever_the_names(layout, family, intent, sizes, installed: Installed):
    installed.adapter(layout, "zzz").adapter("ip-adapter-plus_sd15", layout)
    for n, other in enumerate((VIT_L, VIT_G, VIT_H, VIT_L336)):
        installed.encoder(other, f"{n}")
    found = chosen(installed.resolve(family, intent))
    assert found.adapter.path.name == "zzz.safetensors"
    assert installed.hashed == []
    assert "by its contents" in found.reason
    if sizes is None:
        assert found.encoder is None
        assert "no encoder is needed" in found.reason
    else:
        facts = found.encoder and found.encoder.info.encoder
        assert facts
        assert (facts.layers, facts.width, facts.image_size) == (*sizes[:2], 336 if sizes[3] == 577 else 224)


# --- by sha256 ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("intent", "wanted"),
    [
        (Intent.PLUS, "ip-adapter-plus_sd15.safetensors"),
        (Intent.PLUS_FACE, "ip-adapter-plus-face_sd15.safetensors"),
        (Intent.COMPOSITION, "ip_plus_composition_sd15.safetensors"),
    ],
)
def test_among_files_that_look_alike_the_sha256_decides_against_the_names(
    intent, wanted, installed: Installed
):
    """The three are installed under each other's names."""
    installed.adapter("ip-adapter-plus_sd15", "composition", "ip-adapter-plus_sd15.safetensors")
    installed.adapter("ip-adapter-plus_sd15", "plus", "ip-adapter-plus-face_sd15.safetensors")
    installed.adapter("ip-adapter-plus_sd15", "face", "ip_plus_composition_sd15.safetensors")
    found = chosen(installed.encoder(VIT_H).resolve("SD1.5", intent))
    assert installed.hashes[found.adapter.path] == catalog_row(wanted).sha256
    assert f"{wanted} by its sha256" in found.reason


def test_a_known_file_of_another_goal_is_never_taken_for_its_name(installed: Installed):
    installed.adapter("ip-adapter-plus_sd15", "my plus face", "ip-adapter-plus_sd15.safetensors")
    found = missing(installed.encoder(VIT_H).resolve("SD1.5", Intent.PLUS_FACE))
    assert [known.name for known in found.files] == ["ip-adapter-plus-face_sd15.safetensors"]


def test_v1_and_v2_of_faceid_plus_are_identified_by_sha256(installed: Installed):
    installed.adapter("ip-adapter-faceid-plus_sd15", "plusv2", "ip-adapter-faceid-plus_sd15.bin")
    found = chosen(installed.encoder(VIT_H).resolve("SD1.5", Intent.FACE_ID_PLUS))
    assert found.variant == "faceid plus"
    installed.adapter("ip-adapter-faceid-plus_sd15", "plus", "ip-adapter-faceid-plusv2_sd15.bin")
    assert chosen(installed.resolve("SD1.5", Intent.FACE_ID_PLUS)).variant == "faceid plus v2"


def test_a_file_of_a_size_that_none_has_is_not_hashed(installed: Installed):
    installed.adapter("ip-adapter_sd15", "mine")
    chosen(installed.encoder(VIT_H).resolve("SD1.5", Intent.STANDARD))
    assert installed.hashed == []


# --- by name -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layout", "names", "family", "intent", "wanted"),
    [
        (
            "ip-adapter-plus_sd15",
            ("own plus", "own plus face", "own composition"),
            "SD1.5",
            Intent.PLUS,
            "own plus",
        ),
        (
            "ip-adapter-plus_sd15",
            ("own plus", "own plus face", "own composition"),
            "SD1.5",
            Intent.PLUS_FACE,
            "own plus face",
        ),
        (
            "ip-adapter-plus_sd15",
            ("own plus", "own composition"),
            "SD1.5",
            Intent.COMPOSITION,
            "own composition",
        ),
        ("ip-adapter_sd15", ("own light", "own"), "SD1.5", Intent.STANDARD, "own"),
        ("ip-adapter_sd15", ("own light", "own"), "SD1.5", Intent.LIGHT, "own light"),
        ("ip-adapter_sdxl", ("noob ipa", "xl"), "SDXL", Intent.BIG_ENCODER, "xl"),
        ("ip-adapter_sdxl", ("noob ipa", "xl"), "SDXL", Intent.ANIME, "noob ipa"),
    ],
)
def test_unknown_files_are_recognised_by_name_and_the_reason_says_so(
    layout, names, family, intent, wanted, installed: Installed
):
    for name in names:
        installed.adapter(layout, name)
    found = chosen(installed.encoder(VIT_H).encoder(VIT_G, "g").resolve(family, intent))
    assert found.adapter.path.stem == wanted
    assert "by its name" in found.reason


@pytest.mark.parametrize(
    ("name", "variant"),
    [("own plusv2", "faceid plus v2"), ("own plus", "faceid plus"), ("own", "faceid plus v2")],
)
def test_the_version_of_an_unknown_faceid_plus_is_recognised_by_name(
    name: str, variant: str, installed: Installed
):
    installed.adapter("ip-adapter-faceid-plus_sd15", name).encoder(VIT_H)
    assert chosen(installed.resolve("SD1.5", Intent.FACE_ID_PLUS)).variant == variant


def test_instantids_adapter_is_not_taken_for_a_portrait(installed: Installed):
    installed.adapter("InstantID ip-adapter", "ip-adapter")
    missing(installed.resolve("SDXL", Intent.PORTRAIT_STRONG))
    installed.adapter("ip-adapter-faceid-portrait_sdxl_unnorm", "own unnorm")
    assert chosen(installed.resolve("SDXL", Intent.PORTRAIT_STRONG)).adapter.path.stem == "own unnorm"


# --- what is missing ---------------------------------------------------------------------------------------------


def test_with_nothing_installed_all_is_listed_with_address_size_and_hash(installed: Installed):
    found = missing(installed.resolve("SDXL", Intent.PLUS_FACE))
    names = ["ip-adapter-plus-face_sdxl_vit-h.safetensors", "CLIP-ViT-H-14-laion2B-s32B-b79K.safetensors"]
    assert [known.name for known in found.files] == names
    for known in found.files:
        assert known.sha256
        for word in (known.url, known.sha256, f"models/{known.folder}", f"{known.megabytes:,.0f} MB"):
            assert word in found.text
    assert "Adapters for SDXL found: none" in found.text


def test_a_wrong_encoder_is_named_beside_the_right_one(installed: Installed):
    installed.adapter("ip-adapter_sdxl_vit-h", "mine").encoder(VIT_G, "my encoder")
    found = missing(installed.resolve("SDXL", Intent.STANDARD))
    assert [known.name for known in found.files] == ["CLIP-ViT-H-14-laion2B-s32B-b79K.safetensors"]
    assert "mine.safetensors is there" in found.text
    assert "my encoder.safetensors (CLIP ViT-bigG/14)" in found.text


def test_an_encoder_without_image_embeds_does_not_serve_a_base_adapter(installed: Installed):
    installed.adapter("ip-adapter_sd15").adapter("ip-adapter-plus_sd15").encoder((32, 1280, 0, 257))
    missing(installed.resolve("SD1.5", Intent.STANDARD))
    chosen(installed.resolve("SD1.5", Intent.PLUS))


def test_an_encoder_of_the_usual_size_comes_first(installed: Installed):
    installed.adapter("ip-adapter-plus_sd15").encoder((32, 1280, 1024, 1025), "a").encoder(VIT_H, "b")
    found = chosen(installed.resolve("SD1.5", Intent.PLUS))
    assert found.encoder
    assert found.encoder.name == "b.safetensors"


def test_files_in_folders_where_no_loader_looks_do_not_serve(installed: Installed):
    installed.adapter("ip-adapter-plus_sd15").adapter("ip-adapter_sdxl_vit-h").encoder(VIT_H)
    (installed.folder / "clip_vision" / "model.safetensors").rename(
        installed.folder / "ipadapter" / "h.safetensors"
    )
    assert [known.name for known in missing(installed.resolve("SD1.5", Intent.PLUS)).files] == [
        "CLIP-ViT-H-14-laion2B-s32B-b79K.safetensors"
    ]
    (installed.folder / "ipadapter" / "h.safetensors").rename(
        installed.folder / "clip_vision" / "h.safetensors"
    )
    (installed.folder / "ipadapter" / "ip-adapter_sdxl_vit-h.safetensors").rename(
        installed.folder / "clip_vision" / "a.safetensors"
    )
    chosen(installed.resolve("SD1.5", Intent.PLUS))
    missing(installed.resolve("SDXL", Intent.STANDARD))


def test_kolors_needs_its_336_pixels(installed: Installed):
    installed.adapter("ip_adapter_plus_general").encoder(VIT_L)
    assert [known.name for known in missing(installed.resolve("Kolors", Intent.PLUS)).files] == [
        "clip-vit-large-patch14-336.bin"
    ]


def test_a_goal_that_no_file_serves_on_a_family_says_what_there_is(installed: Installed):
    found = missing(installed.resolve("SDXL", Intent.FULL_FACE))
    assert found.files == ()
    assert "exists for SD1.5" in found.text
    assert "plus face" in found.text
    assert "none" in missing(installed.resolve("SD2.x", Intent.PLUS)).text


def test_a_pruned_sdxl_takes_sdxls_adapters(installed: Installed):
    installed.adapter("ip-adapter_sdxl_vit-h").encoder(VIT_H)
    chosen(installed.resolve("SSD-1B", Intent.STANDARD))


# --- faces and LoRA ----------------------------------------------------------------------------------------------


def test_a_lora_inside_the_file_is_enough(installed: Installed):
    installed.adapter("ip-adapter-faceid_sdxl").lora("SDXL", "ip-adapter-faceid_sdxl_lora")
    found = chosen(installed.resolve("SDXL", Intent.FACE_ID, FACES))
    assert (found.lora, found.faces) == (None, "buffalo_l")
    assert "its LoRA is in the file" in found.reason


@pytest.fixture
def without_lora(installed: Installed, monkeypatch: pytest.MonkeyPatch) -> Installed:
    """A FaceID Plus v2 that was saved without its LoRA."""
    table = {
        key: shape for key, shape in TABLES["ip-adapter-faceid-plusv2_sd15"].items() if "_lora." not in key
    }
    monkeypatch.setitem(TABLES, "bare", table)
    return installed.adapter("bare", "faceid plusv2").encoder(VIT_H)


def test_without_it_the_separate_file_is_found_by_sha256_then_by_name(without_lora: Installed):
    found = missing(without_lora.resolve("SD1.5", Intent.FACE_ID_PLUS))
    assert [known.name for known in found.files] == ["ip-adapter-faceid-plusv2_sd15_lora.safetensors"]
    without_lora.lora("SD1.5", "faceid_sd15_lora").lora("SD1.5", "faceid-plus_sd15_lora").lora(
        "SDXL", "plusv2"
    )
    missing(without_lora.resolve("SD1.5", Intent.FACE_ID_PLUS))
    without_lora.lora("SD1.5", "own-plusv2")
    named = chosen(without_lora.resolve("SD1.5", Intent.FACE_ID_PLUS)).lora
    assert named
    assert named.path.stem == "own-plusv2"
    without_lora.lora("SD1.5", "zzz", "ip-adapter-faceid-plusv2_sd15_lora.safetensors")
    by_hash = chosen(without_lora.resolve("SD1.5", Intent.FACE_ID_PLUS)).lora
    assert by_hash
    assert by_hash.path.stem == "zzz"


def test_another_lora_is_not_faceids(without_lora: Installed):
    write_outline(without_lora.folder / "loras" / "plusv2.safetensors", face_lora(rank=64))
    missing(without_lora.resolve("SD1.5", Intent.FACE_ID_PLUS))


def test_the_face_model_is_listed_where_it_is_asked_for(installed: Installed):
    installed.adapter("ip-adapter-faceid_sd15")
    assert [known.name for known in missing(installed.resolve("SD1.5", Intent.FACE_ID, [])).files] == [
        "buffalo_l.zip"
    ]
    chosen(installed.resolve("SD1.5", Intent.FACE_ID))
    chosen(installed.resolve("SD1.5", Intent.FACE_ID, FACES))
