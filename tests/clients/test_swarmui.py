"""SwarmUI on a ComfyUI that has this pack and not the older one: its menus, and the graphs that it sends."""

import pytest
from clients import swarmui
from clients.engine import CHECKPOINTS
from clients.swarmui import Asked
from helpers.stand_ins import ENCODER

pytestmark = pytest.mark.clients
SD15, SDXL = CHECKPOINTS.values()
PRESETS = {
    SD15: (
        "LIGHT - SD1.5 only (low strength)", "STANDARD (medium strength)", "VIT-G (medium strength)",
        "PLUS (high strength)", "PLUS FACE (portraits)", "FULL FACE - SD1.5 only (portraits stronger)",
        "FACEID", "FACEID PLUS - SD1.5 only", "FACEID PLUS V2", "FACEID PORTRAIT (style transfer)",
    ),
    SDXL: (
        "STANDARD (medium strength)", "VIT-G (medium strength)", "PLUS (high strength)", "PLUS FACE (portraits)",
        "FACEID", "FACEID PLUS V2", "FACEID PORTRAIT (style transfer)", "FACEID PORTRAIT UNNORM - SDXL only (strong)",
    ),
}  # fmt: skip
PLUS = "PLUS (high strength)"
FILES = {SD15: "ip-adapter-plus_sd15.safetensors", SDXL: "ip-adapter-plus_sdxl_vit-h.safetensors"}
OWN_CHOICE = {SD15: "ip-adapter_sd15_vit-G.safetensors", SDXL: "ip-adapter_sdxl.safetensors"}
GRAPHS = {
    **{
        f"{name[:4]} {preset}": Asked(name, preset) for name, presets in PRESETS.items() for preset in presets
    },
    "two images": Asked(SD15, PLUS, images=2),
    "weak": Asked(SDXL, PLUS, weight=0.35),
    "below nothing": Asked(SD15, PLUS, weight=-0.5),
    "the first half": Asked(SDXL, PLUS, end=0.5),
    "style": Asked(SDXL, PLUS, weight_type="style transfer"),
    "the prompt first": Asked(SD15, PLUS, weight_type="prompt is more important"),
    **{f"a file {name[:4]}": Asked(name, f"file:{file}") for name, file in OWN_CHOICE.items()},
    **{
        f"a file and its encoder {name[:4]}": Asked(
            name, f"file:{file}", encoder=ENCODER, weight_type="standard"
        )
        for name, file in FILES.items()
    },
    "a file, the prompt first": Asked(
        SD15, f"file:{FILES[SD15]}", encoder=ENCODER, weight_type="prompt is more important", end=0.8
    ),
}


def test_the_menus_are_lists_of_text_where_it_reads_them(engine):
    said = engine.object_info
    known = swarmui.menu(said, "IPAdapterUnifiedLoader", "preset")
    known += swarmui.menu(said, "IPAdapterUnifiedLoaderFaceID", "preset")
    assert {preset for presets in PRESETS.values() for preset in presets} <= {*known}
    assert {*FILES.values(), *OWN_CHOICE.values()} <= {
        *swarmui.menu(said, "IPAdapterModelLoader", "ipadapter_file")
    }
    types = said["IPAdapter"]["input"]["required"]["weight_type"][0]  # read as a list of the older form
    assert types == ["standard", "prompt is more important", "style transfer"]


def test_every_input_that_it_sends_is_one_of_the_node(engine):
    """An input that the node has not is passed over in silence."""
    said = engine.object_info
    for node, inputs in swarmui.emitted().items():
        known = {name for section in said[node]["input"].values() for name in section}
        assert inputs.keys() <= known, node


@pytest.mark.parametrize("name", GRAPHS)
def test_a_graph_runs(engine, name):
    assert engine.run(swarmui.graph(GRAPHS[name])) == ""


@pytest.mark.parametrize("checkpoint", FILES)
def test_an_encoder_that_does_not_fit_its_file_is_one_sentence(engine, checkpoint):
    """It takes bigG for a single file, unless its user says otherwise."""
    said = engine.run(swarmui.graph(Asked(checkpoint, f"file:{FILES[checkpoint]}")))
    assert "IPAdapterAdvanced" in said
    assert "ViT-H" in said
