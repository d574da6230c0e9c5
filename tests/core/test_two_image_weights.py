"""Weight types with two sources of tokens: which block gets which, by the tables users know."""

import pytest
from core.sites import FAMILIES, unet_sites
from image_prompt.ipadapter_core.errors import MismatchError
from image_prompt.ipadapter_core.families.site import block_labels
from image_prompt.nodes.compat.arithmetic.two_image_weights import (
    Source,
    Strengths,
    two_image_weights,
    two_image_weights_by_layer,
)


def by_number(family: str, weight_type: str, strengths: Strengths) -> dict[Source, dict[int, float]]:
    """Weights that are not 0, by the number of the attention block as the UNet runs them."""
    found = FAMILIES[family]
    names = block_labels(found)
    return {
        source: {names.index(site.label): w for site, w in zip(found, weights, strict=True) if w}
        for source, weights in two_image_weights(found, weight_type, strengths).items()
    }


S = Strengths(weight=0.8, composition=0.6, boost=2.0)
STYLE = [*range(4), *range(9, 16)]
# family, weight type: what the image, and what the other source, gets
TABLES = {
    ("SDXL", "style and composition"): ({6: 0.8}, {3: 0.6}),
    ("SDXL", "strong style and composition"): ({n: 0.8 for n in range(11) if n != 3}, {3: 0.6}),
    ("SDXL", "style transfer precise"): ({6: 0.8}, {3: 2.0}),
    ("SDXL", "composition precise"): ({3: 0.8}, {n: 2.0 if n == 6 else 0.2 for n in range(11) if n != 3}),
    ("SD1.5", "style and composition"): (dict.fromkeys(STYLE, 0.8), {4: 0.15, 5: 0.6}),
    ("SD1.5", "strong style and composition"): (
        {n: 0.8 for n in range(16) if n not in (4, 5)},
        {4: 0.6, 5: 0.6},
    ),
    ("SD1.5", "style transfer precise"): (dict.fromkeys(STYLE, 0.8), {4: 0.5, 5: 2.0}),
    ("SD1.5", "composition precise"): (
        {4: 0.2, 5: 0.8},
        {n: 2.0 if n in STYLE else 0.2 for n in range(16) if n not in (4, 5)},
    ),
}


@pytest.mark.parametrize(("family", "weight_type"), TABLES)
def test_blocks_get_their_weights(family: str, weight_type: str):
    image, other = TABLES[family, weight_type]
    source = Source.NEGATED if "precise" in weight_type else Source.COMPOSITION
    found = by_number(family, weight_type, S)
    assert found[Source.IMAGE] == pytest.approx(image)
    assert found[source] == pytest.approx(other)


def test_other_types_have_one_source():
    assert by_number("SDXL", "style transfer", S) == {Source.IMAGE: {6: pytest.approx(0.8)}}


@pytest.mark.parametrize(
    ("weight_type", "image", "negated"),
    [
        ("ease in", {3: 1.0, 6: 0.5}, None),
        ("style transfer precise", {6: 0.5}, {3: 1.0}),
        ("composition precise", {3: 1.0}, {6: 0.5}),
    ],
)
def test_weights_by_number_keep_only_the_negative_side_of_a_type(
    weight_type: str, image: dict, negated: dict | None
):
    found = FAMILIES["SDXL"]
    names = block_labels(found)
    made = two_image_weights_by_layer(found, weight_type, {3: 1.0, 6: 0.5, 40: 9.0, -1: 9.0})
    found_weights = {
        source: {names.index(s.label): w for s, w in zip(found, weights, strict=True) if w}
        for source, weights in made.items()
    }
    assert found_weights == {Source.IMAGE: image} | ({} if negated is None else {Source.NEGATED: negated})


def test_a_family_without_these_blocks_is_refused():
    odd = unet_sites(1024, {"input": dict.fromkeys(range(5), 1)})
    with pytest.raises(MismatchError, match="weight type 'composition precise' is known for"):
        two_image_weights(odd, "composition precise", S)
