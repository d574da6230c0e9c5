"""How strong an image prompt is: weight types per block, layer weights, and the window over sigma."""

import pytest
from core.sites import FAMILIES, SD15, SDXL, unet_sites
from image_prompt.ipadapter_core.errors import MismatchError, SettingError
from image_prompt.ipadapter_core.families.site import block_labels
from image_prompt.ipadapter_core.weighting import WEIGHT_TYPES, site_weights

INPUTS = {"SD1.5": 6, "SDXL": 4}


def by_block(family: str, weight_type: str, weight: float = 1.0, own: dict[str, float] | None = None):
    """Weight of each attention block in the order the UNet runs them, once all depths of it are seen to agree."""
    sites = FAMILIES[family]
    found: dict[str, set[float]] = {name: set() for name in block_labels(sites)}
    for site, value in zip(sites, site_weights(sites, weight, weight_type, own), strict=True):
        found[site.label].add(value)
    assert all(len(values) == 1 for values in found.values())
    return [values.pop() for values in found.values()]


def blocks(family: str, inputs: float, middle: float, outputs: float) -> list[float]:
    count = {"SD1.5": 16, "SDXL": 11}[family]
    return [inputs] * INPUTS[family] + [middle] + [outputs] * (count - 1 - INPUTS[family])


def curve(family: str, shape: str) -> list[float]:
    """Weights at block t of n: 0.05 + 0.95·f(t/n)."""
    count = {"SD1.5": 16, "SDXL": 11}[family]
    depth = [t / count for t in range(count)]
    falling, rising = [1 - d for d in depth], depth
    peak = [2 * d if d < 0.5 else 2 - 2 * d for d in depth]
    values = {"in": falling, "out": rising, "in-out": peak, "reverse": [1 - p for p in peak]}[shape]
    return [0.05 + 0.95 * value for value in values]


def only(family: str, weights: dict[int, float]) -> list[float]:
    """Weights by number of the block as the UNet runs them, as the de-facto pack counts; 0 elsewhere."""
    return [weights.get(t, 0.0) for t in range({"SD1.5": 16, "SDXL": 11}[family])]


_STYLE_15 = dict.fromkeys([0, 1, 2, 3, 9, 10, 11, 12, 13, 14, 15], 1.0)
EXPECTED = {
    "linear": {f: blocks(f, 1, 1, 1) for f in FAMILIES},
    "ease in": {f: curve(f, "in") for f in FAMILIES},
    "ease out": {f: curve(f, "out") for f in FAMILIES},
    "ease in-out": {f: curve(f, "in-out") for f in FAMILIES},
    "reverse in-out": {f: curve(f, "reverse") for f in FAMILIES},
    "weak input": {f: blocks(f, 0.2, 1, 1) for f in FAMILIES},
    "weak middle": {f: blocks(f, 1, 0.2, 1) for f in FAMILIES},
    "weak output": {f: blocks(f, 1, 1, 0.2) for f in FAMILIES},
    "strong middle": {f: blocks(f, 0.2, 1, 0.2) for f in FAMILIES},
    "style transfer": {"SDXL": only("SDXL", {6: 1}), "SD1.5": only("SD1.5", _STYLE_15)},
    "composition": {"SDXL": only("SDXL", {3: 1}), "SD1.5": only("SD1.5", {4: 0.25, 5: 1})},
    "strong style transfer": {
        "SDXL": only("SDXL", {t: 1 for t in range(11) if t != 3}),
        "SD1.5": only("SD1.5", {t: 1 for t in range(16) if t not in (4, 5)}),
    },
    "style and composition": {
        "SDXL": only("SDXL", {3: 1, 6: 1}),
        "SD1.5": only("SD1.5", _STYLE_15 | {4: 0.25, 5: 1}),
    },
}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("weight_type", WEIGHT_TYPES)
def test_each_weight_type_gives_each_block_its_weight(weight_type: str, family: str):
    assert by_block(family, weight_type) == pytest.approx(EXPECTED[weight_type][family])


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("weight", [0.0, 0.7, -0.5, 3.0])
def test_the_weight_multiplies_the_curve(family: str, weight: float):
    doubled = [value * weight for value in EXPECTED["ease in"][family]]
    assert by_block(family, "ease in", weight) == pytest.approx(doubled)


def test_instantstyle_blocks_are_those_of_the_paper():
    """arXiv 2404.02733: style is up_blocks.0.attentions.1, layout down_blocks.2.attentions.1."""
    for weight_type, block in (("style transfer", "output 1"), ("composition", "input 8")):
        weights = zip(SDXL, site_weights(SDXL, 1.0, weight_type), strict=True)
        assert {site.label for site, value in weights if value} == {block}


def test_layer_weights_multiply_their_own_block_only():
    own = {"input 4": 0.5, "middle": 0.0, "output 5": -2.0}
    assert by_block("SDXL", "linear", 2.0, own) == [1, 2, 2, 2, 0, 2, 2, 2, 2, 2, -4]
    assert by_block("SDXL", "composition", 2.0, {"input 8": 0.25}) == only("SDXL", {3: 0.5})


def test_an_unknown_weight_type_is_answered_with_all_that_there_are():
    with pytest.raises(SettingError) as caught:
        site_weights(SD15, 1.0, "styl transfer")
    assert "'styl transfer'" in str(caught.value)
    assert all(name in str(caught.value) for name in WEIGHT_TYPES)


@pytest.mark.parametrize(("family", "other"), [("SD1.5", "output 0"), ("SDXL", "input 1")])
def test_layer_weights_of_another_model_are_refused_with_the_blocks_there_are(family: str, other: str):
    with pytest.raises(MismatchError) as caught:
        site_weights(FAMILIES[family], 1.0, "linear", {other: 0.5, "middle": 1.0})
    assert f"{family} has no attention block '{other}'" in str(caught.value)
    assert all(name in str(caught.value) for name in block_labels(FAMILIES[family]))


@pytest.mark.parametrize("weight_type", ["style transfer", "composition", "style and composition"])
def test_weight_types_of_named_blocks_are_refused_where_no_one_knows_the_blocks(weight_type: str):
    unknown = unet_sites(1024, {"input": {1: 1}, "middle": {0: 1}})
    with pytest.raises(MismatchError) as caught:
        site_weights(unknown, 1.0, weight_type)
    assert f"'{weight_type}' is known for" in str(caught.value)
    assert "Use 'linear'" in str(caught.value)
    assert site_weights(unknown, 0.3, "linear") == (0.3, 0.3)


# --- the window over sigma ---------------------------------------------------------------------------------------
