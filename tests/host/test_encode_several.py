"""Encode Image with images of any size and a folder, and what nodes show on the page."""

import folder_paths
import pytest
import torch
from image_prompt import host
from image_prompt.host import previews
from image_prompt.ipadapter_core.errors import MismatchError, MissingFileError, SettingError
from image_prompt.ipadapter_core.pictures.reading import read_values
from image_prompt.ipadapter_core.pictures.sheets import as_image
from image_prompt.nodes import NODE_CLASS_MAPPINGS
from support import tiny
from support.prompts import make_adapter

WIDE, TALL = tiny.picture(1, 32, 64), tiny.picture(2, 96, 32, count=2)


@pytest.fixture(autouse=True)
def places(tmp_path, monkeypatch):
    """The host's input and temporary folders."""
    for kind in ("input", "temp"):
        (tmp_path / kind).mkdir()
        monkeypatch.setattr(folder_paths, f"get_{kind}_directory", lambda kind=kind: str(tmp_path / kind))
    return tmp_path


@pytest.fixture
def encode(encoder):
    node, adapter = NODE_CLASS_MAPPINGS["ImagePromptEncode"](), make_adapter("plus", tiny.SD15)
    return lambda **values: node.encode(adapter, encoder, **values)


def test_images_of_several_sizes_are_those_encoded_alone_side_by_side(encode):
    (prompt,) = encode(image=WIDE, image_2=TALL, weight_2=0.5)
    alone = [encode(image=each)[0] for each in (WIDE, TALL[:1], TALL[1:])]
    torch.testing.assert_close(prompt.cond, torch.cat([each.cond for each in alone], 1), atol=1e-5, rtol=1e-5)
    tokens = alone[0].cond.shape[1]
    assert prompt.value_scale[0].unflatten(0, (3, tokens)).unique(dim=1).flatten().tolist() == [1, 0.5, 0.5]
    assert prompt.note["images"] == "3"


@pytest.mark.parametrize(
    ("written", "weights"), [("2", [2, 1, 1]), ("1, 2, 4", [1, 1, 2]), ("3.0", [3, 1.5, 1.5])]
)
def test_written_weights_are_of_all_images_in_order(encode, written, weights):
    (prompt,) = encode(image=WIDE, image_2=TALL, weight_2=0.5, image_weights=written)
    assert prompt.value_scale[0].unflatten(0, (3, -1))[:, 0].tolist() == weights


def test_a_folder_alone_or_beside_images(encode, places):
    folder = places / "input" / "cats"
    folder.mkdir()
    for n, picture in enumerate((WIDE[0], TALL[0])):
        as_image(picture).save(folder / f"{n}.png")
    (prompt,) = encode(folder="cats")
    (named,) = encode(image=WIDE, image_2=TALL[:1])
    torch.testing.assert_close(prompt.cond, named.cond, atol=1e-5, rtol=1e-5)
    assert encode(image=WIDE, folder="cats")[0].note["images"] == "3"
    node = NODE_CLASS_MAPPINGS["ImagePromptEncode"]
    before = node.IS_CHANGED(folder="cats")
    assert before == node.IS_CHANGED(folder="cats")
    (folder / "1.png").unlink()
    assert before != node.IS_CHANGED(folder="cats")


def test_what_is_not_there_is_said(encode, places):
    (places / "input" / "empty").mkdir()
    (places / "input" / "broken").mkdir()
    (places / "input" / "broken" / "a.png").write_bytes(b"<html>")
    for values, error, sentence in (
        ({}, MismatchError, "there is no image"),
        ({"folder": "nowhere"}, MissingFileError, "does not exist.*empty"),
        ({"folder": "empty"}, MissingFileError, "has no pictures"),
        ({"folder": "../x"}, SettingError, "leads out"),
        ({"folder": "broken"}, SettingError, "a.png cannot be read"),
        (
            {"image": WIDE, "image_2": TALL, "image_weights": "1, 2"},
            MismatchError,
            "2 image weights for 1 or 3",
        ),
    ):
        with pytest.raises(error, match=sentence):
            encode(**values)


# --- previews -----------------------------------------------------------------------------------------------------


def shown(answer, places):
    return [
        torch.from_numpy(read_values(places / "temp" / each["filename"])) for each in answer["ui"]["images"]
    ]


def test_encode_shows_the_square_that_the_encoder_sees(encode, places, monkeypatch):
    lines = []
    monkeypatch.setattr(host, "show_status", lambda node, text: lines.append((node, text)))
    mask = torch.zeros(1, 32, 64)
    mask[..., 16:32] = 1
    answer = encode(image=WIDE, image_2=TALL, reference_mask=mask, node_id="5")
    first, *others = shown(answer, places)
    assert first.shape == (32, 32, 3)
    torch.testing.assert_close(first[:, 2:14], WIDE[0, :, 18:30], atol=2 / 255, rtol=0)  # the centre, masked
    assert first[:, 20:].flatten(0, 1).std(0).max() < 0.01  # the encoder's mean colour
    assert len(others) == 2
    assert lines == [("5", "3 images encoded, 48 tokens")]
    assert torch.equal(
        answer["result"][0].cond, encode(image=WIDE, image_2=TALL, reference_mask=mask)[0].cond
    )


def test_a_preview_is_at_most_sixteen_pictures(places):
    assert len(shown({"ui": previews.preview(torch.rand(40, 8, 8, 3))}, places)) == 16
