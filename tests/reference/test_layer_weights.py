"""Weights by attention block, against diffusers' set_ip_adapter_scale, which names the same blocks otherwise."""

import pytest
from support import tiny
from support.parity import LIMIT, call, make_batch, max_error, run_host

# InstantStyle's blocks are published for SDXL; for SD1.5 these are the sets of this pack, in diffusers' names
SCALES = {
    ("SDXL", "style transfer"): {"up": {"block_0": [0.0, 1.0, 0.0]}},
    ("SDXL", "composition"): {"down": {"block_2": [0.0, 1.0]}},
    ("SDXL", "style and composition"): {
        "up": {"block_0": [0.0, 1.0, 0.0]},
        "down": {"block_2": [0.0, 1.0]},
    },
    ("SD1.5", "style transfer"): {
        "down": {"block_0": [1.0, 1.0], "block_1": [1.0, 1.0]},
        "up": {"block_1": [0.0, 0.0, 1.0], "block_2": 1.0, "block_3": 1.0},
    },
    ("SD1.5", "composition"): {"down": {"block_2": [0.25, 1.0]}},
    ("SD1.5", "style and composition"): {
        "down": {"block_0": [1.0, 1.0], "block_1": [1.0, 1.0], "block_2": [0.25, 1.0]},
        "up": {"block_1": [0.0, 0.0, 1.0], "block_2": 1.0, "block_3": 1.0},
    },
}
SITES = {
    ("SDXL", "style transfer"): 10,
    ("SDXL", "composition"): 10,
    ("SDXL", "style and composition"): 20,
    ("SD1.5", "style transfer"): 11,
    ("SD1.5", "composition"): 2,
    ("SD1.5", "style and composition"): 13,
}
# a number for every block, in the order the UNet runs them: (ours, diffusers')
DOWN = {"SD1.5": ("block_0", "block_1", "block_2"), "SDXL": ("block_1", "block_2")}
UP = {"SD1.5": ("block_1", "block_2", "block_3"), "SDXL": ("block_0", "block_1")}
INPUTS = {"SD1.5": (1, 2, 4, 5, 7, 8), "SDXL": (4, 5, 7, 8)}
OUTPUTS = {"SD1.5": range(3, 12), "SDXL": range(6)}


@pytest.mark.parametrize("weight_type", ["style transfer", "composition", "style and composition"])
def test_instantstyle_weight_types_reach_the_published_blocks(twins, weight_type, called):
    key = twins.family.name, weight_type
    adapter, picture, batch = twins.adapter("base"), tiny.picture(seed=11), make_batch(twins.family)
    oracle = twins.oracle.load(adapter.tensors, scale=SCALES[key])
    patched = twins.apply(twins.encode(adapter, picture), weight_type=weight_type)

    ours, theirs = run_host(patched, batch), oracle(batch, [twins.embeds("base", batch, picture)])

    assert max_error(ours, theirs, f"{weight_type} {twins.family.name}") <= LIMIT
    assert len(called) == len(set(called)) == SITES[key]


def test_every_block_has_its_own_layer_weight(twins, called):
    family = twins.family.name
    adapter, picture, batch = twins.adapter("plus"), tiny.picture(seed=12), make_batch(twins.family)
    inputs = {f"input_{n}": 0.1 + 0.13 * i for i, n in enumerate(INPUTS[family])}
    outputs = {f"output_{n}": 1.2 - 0.11 * i for i, n in enumerate(OUTPUTS[family])}
    layer_weights = call("ImagePromptLayerWeights", twins.model, middle=0.77, **inputs, **outputs)
    oracle = twins.oracle.load(
        adapter.tensors,
        scale={
            "down": in_blocks(DOWN[family], list(inputs.values()), 2),
            "mid": 0.77,
            "up": in_blocks(UP[family], list(outputs.values()), 3),
        },
    )

    ours = run_host(twins.apply(twins.encode(adapter, picture), layer_weights=layer_weights), batch)
    theirs = oracle(batch, [twins.embeds("plus", batch, picture)])

    assert max_error(ours, theirs, f"layer weights {family}") <= LIMIT
    assert len(called) == len(set(called)) == twins.family.sites


def in_blocks(names: tuple[str, ...], weights: list[float], each: int) -> dict[str, list[float]]:
    """Weights dealt out to diffusers' blocks, `each` attentions a block."""
    return {name: weights[each * n : each * (n + 1)] for n, name in enumerate(names)}
