"""CLIP-I and CLIP-T beside transformers and torchmetrics, on a tiny random CLIP."""

import numpy as np
import pytest
import torch
from image_prompt.evaluation.clip import Clip
from image_prompt.evaluation.matching import Group
from image_prompt.evaluation.scoring import Embeddings, evaluate
from image_prompt.ipadapter_core.metrics.published import TABLE_1, parameter_count
from image_prompt.ipadapter_core.metrics.scores import Captions
from PIL import Image
from support import layouts, tiny, tiny_clip
from torchmetrics.functional.multimodal import clip_score
from transformers import CLIPModel, CLIPProcessor

CAPTIONS = (("a cat on a mat", "the cat"), ("two dogs run", "x" * 200), ("",))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_clip.write(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="module")
def groups(tmp_path_factory):
    root, made = tmp_path_factory.mktemp("pictures"), []
    for number, captions in enumerate(CAPTIONS):
        paths = []
        for n in range(3):
            values = tiny.picture(10 * number + n, 48 + 16 * n, 64)[0]
            paths.append(root / f"{number}_{n}.png")
            Image.fromarray((values * 255).round().to(torch.uint8).numpy()).save(paths[-1])
        made.append(Group(str(number), paths[0], tuple(paths[1:]), captions if captions[0] else ()))
    return made


@pytest.fixture(scope="module")
def result(folder, groups):
    return evaluate("tiny", groups, Embeddings(Clip(str(folder))))


def embeds(folder, pictures=(), texts=()):
    """By transformers alone."""
    model, processor = CLIPModel.from_pretrained(folder).eval(), CLIPProcessor.from_pretrained(folder)
    with torch.no_grad():
        if pictures:
            opened = [Image.open(path).convert("RGB") for path in pictures]
            got = model.get_image_features(**processor(images=opened, return_tensors="pt"))
        else:
            tokens = processor(
                text=list(texts), return_tensors="pt", padding=True, truncation=True, max_length=77
            )
            got = model.get_text_features(**tokens)
    got = got if isinstance(got, torch.Tensor) else got.pooler_output
    return got / got.norm(dim=-1, keepdim=True)


def test_embeddings_are_those_of_transformers(folder, groups):
    clip = Clip(str(folder))
    paths = [path for group in groups for path in group.generated]
    ours = torch.nn.functional.normalize(clip.pictures(paths), dim=-1)
    torch.testing.assert_close(ours, embeds(folder, pictures=paths), atol=1e-5, rtol=0)
    texts = [caption for captions in CAPTIONS[:2] for caption in captions]
    ours = torch.nn.functional.normalize(clip.texts(texts), dim=-1)
    torch.testing.assert_close(ours, embeds(folder, texts=texts), atol=1e-5, rtol=0)


def test_clip_i_is_the_mean_cosine_with_the_reference(folder, groups, result):
    cosines = [
        embeds(folder, pictures=g.generated) @ embeds(folder, pictures=[g.reference])[0] for g in groups
    ]
    assert result.summary.clip_i == pytest.approx(torch.cat(cosines).mean().item(), abs=1e-5)
    for own, wanted in zip(result.scores, cosines, strict=True):
        assert own.clip_i == pytest.approx(wanted.mean().item(), abs=1e-5)


@pytest.mark.parametrize("which", Captions)
def test_clip_t_takes_the_first_the_mean_or_the_best_caption(folder, groups, which):
    own = evaluate("tiny", groups, Embeddings(Clip(str(folder))), which).summary.clip_t
    tables = [
        embeds(folder, pictures=g.generated) @ embeds(folder, texts=g.captions).T
        for g in groups
        if g.captions
    ]
    pick = {"first": lambda t: t[:, 0], "mean": lambda t: t.mean(1), "max": lambda t: t.amax(1)}[which.value]
    assert own == pytest.approx(torch.cat([pick(t) for t in tables]).mean().item(), abs=1e-5)


def test_clip_t_times_100_is_torchmetrics_clip_score(folder, groups, result):
    """torchmetrics: 100 · max(mean cosine, 0); for references with captions."""
    told = [group for group in groups if group.captions]
    pictures = [path for group in told for path in group.generated]
    texts = [group.captions[0] for group in told for _ in group.generated]
    arrays = [torch.from_numpy(np.array(Image.open(path).convert("RGB"))).movedim(-1, 0) for path in pictures]

    class AsBefore(CLIPModel):
        """torchmetrics wants the tensors that transformers gave before version 5."""

        def get_image_features(self, *args, **options):
            got = super().get_image_features(*args, **options)
            return got if isinstance(got, torch.Tensor) else got.pooler_output

        def get_text_features(self, *args, **options):
            got = super().get_text_features(*args, **options)
            return got if isinstance(got, torch.Tensor) else got.pooler_output

    def model():
        return AsBefore.from_pretrained(folder).eval(), CLIPProcessor.from_pretrained(folder)

    theirs = clip_score(arrays, texts, model_name_or_path=model).item()
    assert max(result.summary.clip_t, 0) * 100 == pytest.approx(theirs, abs=1e-3)


def test_clip_score_is_the_mean_of_two_and_a_half_cosines_not_below_zero(folder, groups, result):
    cosines = [
        embeds(folder, pictures=g.generated) @ embeds(folder, texts=g.captions[:1]).T
        for g in groups
        if g.captions
    ]
    assert result.summary.clip_s == pytest.approx(
        (2.5 * torch.cat(cosines).clamp(min=0)).mean().item(), abs=1e-5
    )


def test_a_prefix_goes_before_every_caption(folder, groups, result):
    told = evaluate("tiny", groups, Embeddings(Clip(str(folder)), "A photo depicts ")).summary
    assert told.clip_i == result.summary.clip_i
    assert told.clip_t != result.summary.clip_t


def test_trainable_parameters_are_counted_from_an_adapters_shapes():
    shapes = layouts.base(1024, 768) | layouts.keys_values(layouts.SD15, 768)
    (paper,) = [row for row in TABLE_1 if row.name == "IP-Adapter"]
    assert parameter_count(shapes) == 22_319_616
    assert round(parameter_count(shapes) / 1e6) == paper.millions
