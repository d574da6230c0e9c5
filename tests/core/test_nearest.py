"""Names of files in shared graphs: which installed one each means, and which are shown first where none is meant."""

import pytest
from image_prompt.model_files.catalog import CATALOG, file_named
from image_prompt.model_files.nearest import is_generic_name, list_nearest, match_name, nearest, same_path

PLUS = "ip-adapter-plus_sd15.safetensors"
INSTALLED = [
    "Kolors-IP-Adapter-FaceID-Plus.bin",
    "Kolors-IP-Adapter-Plus.bin",
    "ip-adapter-faceid-plusv2_sd15.bin",
    "ip-adapter-faceid-plusv2_sdxl.bin",
    "ip-adapter-faceid-portrait_sdxl.bin",
    "ip-adapter-faceid_sd15.bin",
    "ip-adapter-faceid_sdxl.bin",
    "ip-adapter-full-face_sd15.safetensors",
    "ip-adapter-plus-face_sd15.safetensors",
    "ip-adapter-plus_sdxl_vit-h.safetensors",
    "ip-adapter_sd15.safetensors",
    "ip-adapter_sd15_light_v11.bin",
    "ip-adapter_sd15_vit-G.safetensors",
    "ip-adapter_sdxl.safetensors",
    "ip_plus_composition_sd15.safetensors",
]


@pytest.mark.parametrize(
    "wanted",
    [
        PLUS,
        "ip-adapter-plus_sd15.bin",
        "ip-adapter-plus_sd15 .safetensors",
        " IP-Adapter_Plus-SD15.BIN ",
        "ip_adapter_plus_sd15.pth",
        "ip-adapter-plus_sd15",
        "ip-adapter_sd15_plus.pth",
        "ip-adapter_sd15-plus.safetensors",
        "ipadapter-plus-sd1.5.ckpt",
        "IPAdapter_Plus_SD_1.5.safetensors",
        "IPAdapterPlus_SD15.safetensors",
        "ip-adapter-plus_sd15 (1).safetensors",
        "SD15\\ip-adapter-plus_sd15.bin",
        "./sd15/ip-adapter-plus_sd15.safetensors",
    ],
)
def test_a_renamed_file_is_the_same_file(wanted):
    assert match_name(wanted, [*INSTALLED, PLUS]) == PLUS
    assert (
        match_name(wanted, [*INSTALLED, "sub/ip-adapter-plus_sd15 .bin"]) == "sub/ip-adapter-plus_sd15 .bin"
    )
    assert match_name(wanted, INSTALLED) is None


@pytest.mark.parametrize(
    ("wanted", "meant"),
    [
        ("ip-adapter_xl.pth", "ip-adapter_sdxl.safetensors"),
        ("ip-adapter_sd15_light_v1.1.safetensors", "ip-adapter_sd15_light_v11.bin"),
        ("ip-adapter-faceid-plus-v2_sd15.bin", "ip-adapter-faceid-plusv2_sd15.bin"),
        ("ipadapter_sd15_vit_g.safetensors", "ip-adapter_sd15_vit-G.safetensors"),
        ("ip-adapter-fullface_sd15.bin", "ip-adapter-full-face_sd15.safetensors"),
        ("ip-adapter-plus-composition_sd15.bin", "ip_plus_composition_sd15.safetensors"),
        ("ip-adapter-faceid-plus_sd15.bin", None),
        ("ip-adapter_sdxl_vit-h.safetensors", None),
        ("ip-adapter_sd15_light.bin", None),
        ("gone.safetensors", None),
        ("", None),
    ],
)
def test_other_words_are_another_file(wanted, meant):
    assert match_name(wanted, INSTALLED) == meant


def test_no_released_name_is_taken_for_another():
    everything = [known.name for known in CATALOG]
    for name in everything:
        assert match_name(name, [other for other in everything if other != name]) is None
        assert file_named(f"somewhere\\{name.rpartition('.')[0]} .bin") is file_named(name)


def test_the_nearer_folder_comes_first_then_safetensors():
    names = ["a/x1.bin", "b/x1.bin", "b/x1.safetensors"]
    assert match_name("B\\x1.bin", names) == "b/x1.bin"
    assert match_name("b/x1.pth", names) == "b/x1.safetensors"
    assert match_name("c/x1.bin", names) == "a/x1.bin"


@pytest.mark.parametrize(
    ("wanted", "names", "meant"),
    [
        ("SD1.5/model.safetensors", ["sdxl/model.safetensors"], None),
        (
            "SD1.5/model.safetensors",
            ["sdxl/model.safetensors", "sd15/model.safetensors"],
            "sd15/model.safetensors",
        ),
        ("SDXL\\pytorch_model.bin", ["sdxl/model.safetensors"], "sdxl/model.safetensors"),
        ("model.safetensors", ["sdxl/model.safetensors", "sd15/model.safetensors"], None),
        ("model.safetensors", ["sdxl/model.safetensors"], "sdxl/model.safetensors"),
        ("pytorch_model.bin", ["model.safetensors"], None),
    ],
)
def test_a_generic_name_counts_with_its_folder(wanted, names, meant):
    assert is_generic_name(wanted)
    assert match_name(wanted, names) == meant


@pytest.mark.parametrize("wanted", ["Buffalo_L", "buffalo-l", " buffalo_l"])
def test_face_models_are_named_alike(wanted):
    assert match_name(wanted, ["antelopev2", "buffalo_s", "buffalo_l"]) == "buffalo_l"
    assert match_name("antelope_v2", ["antelopev2", "buffalo_l"]) == "antelopev2"


def test_paths_of_another_system_are_the_same_path():
    assert same_path("embeds\\Face.ipadpt", ["face.ipadpt", "embeds/face.ipadpt"]) == "embeds/face.ipadpt"
    assert same_path("face.ipadpt", ["embeds/face.ipadpt"]) is None


def test_the_nearest_come_first():
    assert nearest("ip-adapter-plus_sd15.safetensors", INSTALLED, 2) == [
        "ip-adapter-plus-face_sd15.safetensors",
        "ip-adapter_sd15.safetensors",
    ]
    assert nearest("ip-adpater-faceid_sd15.bin", INSTALLED, 1) == ["ip-adapter-faceid_sd15.bin"]
    assert list_nearest(PLUS, INSTALLED).startswith("ip-adapter-plus-face_sd15.safetensors, ")
    assert list_nearest(PLUS, INSTALLED).endswith(" and 7 more")
    assert list_nearest(PLUS, []) == "none"
