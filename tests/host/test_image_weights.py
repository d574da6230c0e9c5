"""The text of per-image weights: what is read, and what is refused instead of misread."""

import pytest
from image_prompt.ipadapter_core.errors import MismatchError
from image_prompt.nodes.prompts import parse_weights


@pytest.mark.parametrize(
    ("text", "weights"),
    [("", []), ("1", [1]), ("1, 0.5", [1, 0.5]), (" 1 ; -0.5 2, ", [1, -0.5, 2]), ("1,\n0.5", [1, 0.5])],
)
def test_weights_are_read(text, weights):
    assert parse_weights(text) == weights


@pytest.mark.parametrize("text", ["0,5", "1, x", "1.2.3"])
def test_what_is_no_number_is_shown(text):
    with pytest.raises(MismatchError, match="image_weights"):
        parse_weights(text)
