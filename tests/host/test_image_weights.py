"""The texts of weights: what is read, and what is refused instead of misread, through the node and by itself."""

import pytest
from image_prompt.ipadapter_core.errors import SettingError
from image_prompt.ipadapter_core.values import numbers
from image_prompt.nodes.compat.execute import parse_layers
from support import tiny
from support.parity import call
from support.prompts import make_adapter


@pytest.mark.parametrize(
    ("text", "weights"),
    [
        ("", []),
        ("1", [1]),
        ("1, 0.5", [1, 0.5]),
        (" 1 ; -0.5 2, ", [1, -0.5, 2]),
        ("1,\n0.5", [1, 0.5]),
        ("1,0.5,0.5", [1, 0.5, 0.5]),
        ("1;0.5", [1, 0.5]),
        ("1\n0.5\n", [1, 0.5]),
        ("1,0.5,", [1, 0.5]),
        ("1,-.5", [1, -0.5]),
        ("0,5,1", [0, 5, 1]),  # three numbers: with a comma inside a number there would be no reading
        ("0,0.5", [0, 0.5]),
        ("1，0.5", [1, 0.5]),
    ],
)
def test_weights_are_read(text, weights):
    assert numbers(text, "image_weights") == weights


@pytest.mark.parametrize(
    "text", ["0,5", "0,5 1,5", "1, x", "1.2.3", "nan", "1, inf", "1e400", "-1e400", "1, 1e9", "1,,x"]
)
def test_what_is_no_number_or_has_two_readings_is_shown(text):
    with pytest.raises(SettingError, match="image_weights"):
        numbers(text, "image_weights")


def test_the_node_reads_them_without_spaces(encoder):
    adapter, images = make_adapter("base", tiny.SD15), tiny.picture(1, count=3)
    made = call("ImagePromptEncode", adapter, encoder, images, image_weights="1,0.5,0.5")
    assert made.value_scale[0, ::4].tolist() == [1, 0.5, 0.5]


@pytest.mark.parametrize(
    ("text", "weights"), [("1.0, 0.5", [1, 0.5]), ("1;0.5", [1, 0.5]), ("1 0.5\n", [1, 0.5]), ("1,0", [1, 0])]
)
def test_older_weights_have_always_had_commas_between(text, weights):
    assert call("IPAdapterWeights", weights=text, timing="custom", method="full batch") == weights


@pytest.mark.parametrize(
    "text", ["3:2.5, 6:1", "3:2.5,6:1", "3:2.5;6:1", "3:2.5\n6:1,", "3: 2.5 6 :1", "3：2.5，6：1"]
)
def test_layer_weights_are_read(text):
    assert parse_layers(text) == {3: 2.5, 6: 1}


@pytest.mark.parametrize("text", ["3", "3:", "x:1", "3:1e400", "3:nan", "-1:1", "3:1:2", "99999999:1"])
def test_layer_weights_that_are_none_are_shown(text):
    with pytest.raises(SettingError, match="layer_weights"):
        parse_layers(text)
