"""Scores over many pictures: broken ones named, embeddings kept, errors and intervals, what was measured with everywhere."""

import csv
import json
import math

import pytest
import torch
from helpers.evaluation import captioned, painted, picture
from image_prompt.evaluation import command as cli
from image_prompt.evaluation import running
from image_prompt.evaluation.about import MADE, seeds_of, write_made
from image_prompt.evaluation.clip import Clip
from image_prompt.evaluation.embedding import PictureEncoder
from image_prompt.evaluation.kept import Kept
from image_prompt.ipadapter_core.errors import SettingError
from image_prompt.ipadapter_core.metrics.bootstrap import paired_interval, standard_error
from PIL import Image
from scipy.stats import ttest_rel
from support import tiny_clip


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return str(tiny_clip.write(tmp_path_factory.mktemp("clip") / "tiny clip"))


def score(references, out, clip, *folders):
    given = ["--references", str(references), "--out", str(out), "--clip", clip, *folders]
    return cli.main(["score", *given])


def rows(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_a_thousand_pictures_of_which_five_are_broken(tmp_path, clip, caplog, monkeypatch):
    references, made = tmp_path / "references", tmp_path / "made"
    painted(references, *(f"r{n:03d}.png" for n in range(100)))
    painted(made, *(f"r{n:03d}_{k}.png" for n in range(100) for k in range(9)))
    broken = [f"r{n:03d}_0.png" for n in (3, 30, 31, 77)]
    for name in broken:
        (made / name).write_bytes((made / name).read_bytes()[:200])
    (references / "r050.png").write_bytes(b"<html>")
    assert score(references, tmp_path / "out", clip, f"mine={made}") == 0
    text = (tmp_path / "out" / "scores.md").read_text()
    for name in [*broken, "r050.png"]:
        assert name in text
    assert len(rows(tmp_path / "out" / "scores.csv")) == 99
    pictures = rows(tmp_path / "out" / "pictures.csv")
    assert len(pictures) == 900 - 4 - 9
    assert "left out" in caplog.text
    # again, from what was kept: nothing is loaded
    first = (tmp_path / "out" / "pictures.csv").read_bytes()
    monkeypatch.setattr(PictureEncoder, "load", lambda _: pytest.fail("loaded again"))
    monkeypatch.setattr(PictureEncoder, "encoded", lambda *_: pytest.fail("encoded again"))
    assert score(references, tmp_path / "out", clip, f"mine={made}") == 0
    assert (tmp_path / "out" / "pictures.csv").read_bytes() == first
    assert caplog.text.count("mine, left out:") == 2 * (len(broken) + 1)


def test_a_changed_picture_and_another_model_are_encoded_anew(tmp_path, clip):
    kept = Kept(tmp_path, "a model")
    painted(tmp_path, "a.png")
    key = kept.of_file(tmp_path / "a.png")
    kept.put([key], torch.ones(1, 4))
    kept.save()
    assert torch.equal(Kept(tmp_path, "a model").get(key), torch.ones(4))
    assert Kept(tmp_path, "another model").get(key) is None
    picture(3, 60).save(tmp_path / "a.png")
    assert kept.of_file(tmp_path / "a.png") != key
    kept.path.write_bytes(b"damaged")
    assert Kept(tmp_path, "a model").get(key) is None


def test_every_output_says_what_was_measured_with(tmp_path, clip):
    references = captioned(tmp_path / "references")
    made = painted(tmp_path / "made", "cat_0.png", "owl_0.png")
    write_made(made, {"workflow": "x", "count": 1, "seed": 7, "seeds": "differ"})
    out = tmp_path / "out"
    assert score(references, out, clip, f"mine={made}", "--prefix", "A photo depicts ") == 0
    identity = Clip(clip, lazy=True).identity
    for name in ("scores.md", "scores.csv", "pictures.csv", "table-1.md", "scores.json"):
        text = (out / name).read_text()
        assert identity in text, name
        assert "A photo depicts" in text, name
    for name in ("scores.md", "scores.csv", "pictures.csv", "scores.json"):
        assert "1 from 7 on, differ for every reference" in (out / name).read_text(), name
    with Image.open(out / "best-and-worst mine.png") as sheet:
        assert identity in sheet.info["measured with"]
    content = json.loads((out / "scores.json").read_text())
    assert content["methods"]["mine"]["references"] == 2
    assert seeds_of(tmp_path) == ""
    assert (made / MADE).is_file()


def test_first_limits_what_is_scored(tmp_path, clip, caplog):
    references = captioned(tmp_path / "references")
    made = painted(tmp_path / "made", "cat_0.png", "dog_1_0.png", "owl_0.png")
    assert score(references, tmp_path / "out", clip, f"mine={made}", "--first", "2") == 0
    assert [row["reference"] for row in rows(tmp_path / "out" / "scores.csv")] == ["cat", "dog_1"]
    assert "belong to no reference" not in caplog.text


def test_methods_are_compared_over_what_they_share(tmp_path, clip):
    references = captioned(tmp_path / "references")
    near = tmp_path / "near"
    near.mkdir()
    for path in references.glob("*.png"):
        Image.open(path).save(near / path.name)
    far = painted(tmp_path / "far", "cat_0.png", "owl_0.png")
    assert score(references, tmp_path / "out", clip, f"near={near}", f"far={far}") == 0
    (image,) = [
        row
        for row in json.loads((tmp_path / "out" / "scores.json").read_text())["differences"]
        if row["measure"] == "CLIP-I"
    ]
    assert image["count"] == 2
    assert 0 < image["low"] <= image["difference"] <= image["high"]
    assert "95 %" in (tmp_path / "out" / "scores.md").read_text()


def test_dino_is_measured_too(tmp_path, clip):
    """By any vision transformer: here a tiny one."""
    from transformers import ViTConfig, ViTImageProcessor, ViTModel

    config = ViTConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, image_size=32
    )
    torch.manual_seed(0)
    model = ViTModel(config, add_pooling_layer=False).eval()
    model.save_pretrained(tmp_path / "vit")
    processor = ViTImageProcessor(size={"height": 32, "width": 32})
    processor.save_pretrained(tmp_path / "vit")
    references = captioned(tmp_path / "references")
    made = painted(tmp_path / "made", "cat_0.png")
    assert score(references, tmp_path / "out", clip, f"mine={made}", "--dino", str(tmp_path / "vit")) == 0
    (row,) = rows(tmp_path / "out" / "pictures.csv")
    both = [Image.open(path).convert("RGB") for path in (references / "cat.png", made / "cat_0.png")]
    with torch.no_grad():
        tokens = model(**processor(both, return_tensors="pt")).last_hidden_state[:, 0]
    assert float(row["dino_i"]) == pytest.approx(torch.cosine_similarity(*tokens, 0).item(), abs=1e-4)
    assert "DINO-I" in (tmp_path / "out" / "scores.md").read_text()


def test_seeds_are_the_same_or_differ_between_references(tmp_path):
    references = sorted(captioned(tmp_path / "references").glob("*.png"))
    same, differ = (
        running.plan_jobs(references, {}, running.Seeds(2, 5, each), tmp_path) for each in ("same", "differ")
    )
    assert [job.seed for job in same] == [5, 6] * 3
    seeds = [job.seed for job in differ]
    assert len(set(seeds)) == 6
    assert [seeds[n + 1] - seeds[n] for n in (0, 2, 4)] == [1] * 3
    assert seeds == [
        job.seed for job in running.plan_jobs(references, {}, running.Seeds(2, 5, "differ"), tmp_path)
    ]
    assert all(0 <= seed < 2**64 for seed in seeds)


def test_intervals_agree_with_the_paired_t_test():
    generator = torch.Generator().manual_seed(1)
    first = torch.rand(400, generator=generator)
    second = first - 0.02 + 0.1 * torch.randn(400, generator=generator)
    found = paired_interval(first, second)
    theirs = ttest_rel(first.numpy(), second.numpy()).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((theirs.low, theirs.high), abs=1e-3)
    assert found == paired_interval(first, second)
    assert found.clear
    assert not paired_interval(first, first.flip(0)).clear
    with pytest.raises(SettingError, match="make no pairs"):
        paired_interval(first, second[1:])


def test_the_standard_error_is_that_of_the_mean():
    assert standard_error(torch.tensor([1.0, 2.0, 3.0, 4.0])) == pytest.approx((5 / 3) ** 0.5 / 2)
    assert math.isnan(standard_error(torch.tensor([1.0])))
