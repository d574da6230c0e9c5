"""Pictures and captions that cannot be scored are left out and named, and nothing else is lost."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import hostile
from helpers.evaluation import painted, score
from image_prompt.evaluation.clip import Clip
from image_prompt.evaluation.matching import read_captions
from image_prompt.ipadapter_core.errors import ImagePromptError, SettingError
from PIL import Image


def break_pictures(folder: Path) -> None:
    whole = (folder / "cat_0.png").read_bytes()
    (folder / "cat_1.png").write_bytes(whole[:200])
    (folder / "dog_1.png").write_bytes(b"")
    (folder / "owl_1.png").write_text("<html>not found</html>")
    (folder / "owl_2.png").write_bytes(hostile.huge_png(12_000, 12_000))
    (folder / "yak_1.png").mkdir()
    os.mkfifo(folder / "yak_2.png")


def test_broken_pictures_are_left_out_and_named(references, tmp_path, clip, capsys, caplog):
    made = painted(tmp_path / "made", *(f"{name}_0.png" for name in ("cat", "dog", "owl", "yak")))
    assert score(references, tmp_path / "before", clip, f"m={made}") == 0
    before = capsys.readouterr().out
    break_pictures(made)
    assert score(references, tmp_path / "after", clip, f"m={made}") == 0
    assert capsys.readouterr().out.replace("after", "before") == before
    text = (tmp_path / "after" / "scores.md").read_text()
    for name in ("cat_1", "dog_1", "owl_1", "owl_2", "yak_1", "yak_2"):
        assert f"{name}.png cannot be " in text or f"{name}.png is no file" in text, name
        assert f"{name}.png" in caplog.text
    assert "12000 x 12000 pixels" in text
    assert "left out" not in (tmp_path / "before" / "scores.md").read_text()


def test_a_broken_reference_takes_its_pictures_with_it(references, tmp_path, clip, capsys):
    made = painted(tmp_path / "made", "cat_0.png", "dog_0.png", "dog_1.png")
    (references / "dog.png").write_bytes((references / "dog.png").read_bytes()[:99])
    assert score(references, tmp_path / "out", clip, f"m={made}") == 0
    text = (tmp_path / "out" / "scores.md").read_text()
    assert "Its 2 pictures are left out." in text
    assert len((tmp_path / "out" / "scores.csv").read_text().splitlines()) == 1 + 1


def test_nothing_but_broken_pictures_is_a_sentence(references, tmp_path, clip, caplog):
    made = painted(tmp_path / "made", "cat_0.png")
    (made / "cat_0.png").write_bytes(b"GIF89a")
    assert score(references, tmp_path / "out", clip, f"m={made}") == 1
    assert "none of its pictures can be scored" in caplog.text


def test_bare_references_strangers_and_unequal_sets_are_reported_and_the_shared_compared(
    references, tmp_path, clip, capsys
):
    one = painted(tmp_path / "one", "cat_0.png", "cat_1.png", "dog_0.png", "lion_0.png")
    two = painted(tmp_path / "two", "dog_0.png", "owl_0.png")
    assert score(references, tmp_path / "out", clip, f"one={one}", f"two={two}") == 0
    text = (tmp_path / "out" / "scores.md").read_text()
    assert "one: nothing was generated from 2 references: owl, yak." in text
    assert "two: nothing was generated from 2 references: cat, yak." in text
    assert "one: 1 pictures belong to no reference and are left out: lion_0.png." in text
    assert "one: references have from 1 to 2 pictures" in text
    assert "one has pictures of 1 references that another method lacks: cat." in text
    assert "Over the 1 references that all methods have, so that rows compare:" in text
    shared = text.split("Over the 1 references")[1]
    lone = painted(tmp_path / "lone", "x.png") and tmp_path / "lone"
    (lone / "x.png").unlink()
    (lone / "dog_0.png").write_bytes((one / "dog_0.png").read_bytes())
    assert score(references, tmp_path / "alone", clip, f"one={lone}") == 0
    row = next(
        line for line in (tmp_path / "alone" / "scores.md").read_text().splitlines() if "| one" in line
    )
    value = row.split("|")[5].strip()
    assert value in next(line for line in shared.splitlines() if "| one" in line)


def test_deep_pictures_have_their_true_values(references, tmp_path, clip):
    """A 16-bit grey PNG is the 8-bit one; it was white."""
    grey = np.linspace(0, 255, 1600).reshape(40, 40)
    Image.fromarray(grey.astype(np.uint8)).save(tmp_path / "8.png")
    Image.fromarray(grey.astype(np.uint8).astype(np.uint16) * 257).save(tmp_path / "16.png")
    a, b = Clip(clip).pictures([tmp_path / "8.png", tmp_path / "16.png"])
    torch.testing.assert_close(a, b, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("c.jsonl", b'["cat.png", "a cat"]\n', "entry 1 of c.jsonl"),
        ("c.jsonl", b'{"text": "a cat"}\n', "names no picture"),
        ("c.jsonl", b'{"file_name": "cat.png", "text": "\\ud800"}\n', "no text"),
        ("c.jsonl", b"\xff\xff{", "cannot be read"),
        ("c.json", b"[" * 100_000, "nested too deeply"),
        ("c.json", b"7", "expected a list"),
        ("c.json", b'{"images": [], "licenses": []}', "no COCO captions file"),
        ("c.json", b'{"images": [7], "annotations": []}', "no whole COCO"),
        ("c.json", b'{"images": [], "annotations": [{"id": 1, "image_id": 2, "caption": "x"}]}', "no whole COCO"),
        ("c.json", b'{"images": null, "annotations": null}', "no whole COCO"),
        ("nowhere.json", None, "does not exist"),
    ],
)  # fmt: skip
def test_captions_of_another_shape_are_a_sentence(tmp_path, name, content, told):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ImagePromptError, match=told):
        read_captions(tmp_path / name)


def test_captions_with_a_mark_of_windows_editors_and_those_that_are_no_text(tmp_path):
    (tmp_path / "cat.txt").write_bytes(b"\xef\xbb\xbfa cat\r\nan animal\r\n")
    assert read_captions(tmp_path) == {"cat": ("a cat", "an animal")}
    (tmp_path / "dog.txt").write_bytes(b"un caf\xe9")
    with pytest.raises(SettingError, match=r"dog\.txt cannot be read.*UTF-8"):
        read_captions(tmp_path)
