"""A sweep is what sampling each weight alone gives, in one batch of the same noise; and its sheet has a label for each."""

import importlib

import pytest
import torch
from image_prompt import host
from image_prompt.ipadapter_core.errors import MismatchError, SettingError
from image_prompt.lab.demo.studio import Studio, node
from image_prompt.lab.toy import models as toy
from image_prompt.lab.toy import world
from support import tiny
from support.prompts import make_adapter

host_nodes = importlib.import_module("nodes")
WEIGHTS = "0, 0.5, 1"
CURVES = "flat\n0.3:1, 0.45:0"


@pytest.fixture(scope="module")
def studio():
    return Studio()


@pytest.fixture(scope="module")
def references():
    return world.render(world.make_scenes(2, 987_654)).movedim(1, -1)


def prompt_of(studio, reference):
    return node("ImagePromptEncode")(studio.ipadapter, studio.clip_vision, reference)[0]


def empty(pictures=1):
    return {"samples": torch.zeros(pictures, 4, toy.LATENT_SIZE, toy.LATENT_SIZE)}


def sampled(studio, model, latent, seed=1):
    text = toy.encode_text("")
    settings = (seed, toy.STEPS, toy.CFG, toy.SAMPLER, toy.SCHEDULER)
    with torch.inference_mode():
        samples = host_nodes.KSampler().sample(model, *settings, text, text, latent)[0]
        return host_nodes.VAEDecode().decode(studio.vae, samples)[0]


def alone(studio, reference, weight, curve=""):
    apply = node("ImagePromptApply")
    model = apply(studio.model, prompt_of(studio, reference), weight, weight_curve=curve)[0]
    return sampled(studio, model, empty())


def test_each_picture_is_that_of_its_weight_alone(studio, references):
    prompt = prompt_of(studio, references[:1])
    model, latent, labels, columns = node("ImagePromptSweep")(studio.model, prompt, empty(), WEIGHTS)
    made = sampled(studio, model, latent)
    assert (len(made), columns) == (3, 3)
    assert labels.splitlines() == ["weight 0", "weight 0.5", "weight 1"]
    for picture, weight in zip(made, (0.0, 0.5, 1.0), strict=True):
        torch.testing.assert_close(picture[None], alone(studio, references[:1], weight), atol=2e-4, rtol=0)
    assert (made[0] - made[2]).abs().max() > 0.1


def test_rows_are_prompts_and_curves_and_columns_weights(studio, references):
    prompts = [prompt_of(studio, each[None]) for each in references]
    model, latent, labels, columns = node("ImagePromptSweep")(
        studio.model, prompts[0], empty(), "0.5, 1", curves=CURVES, image_prompt_2=prompts[1]
    )
    made, named = sampled(studio, model, latent), labels.splitlines()
    assert (len(made), len(named), columns) == (8, 8, 2)
    assert named[0] == "prompt 1, flat, weight 0.5"
    assert named[7] == "prompt 2, 0.3:1, 0.45:0, weight 1"
    for number, reference, weight, curve in ((0, 0, 0.5, ""), (3, 0, 1.0, "0.3:1, 0.45:0"), (5, 1, 1.0, "")):
        expected = alone(studio, references[reference : reference + 1], weight, curve)
        torch.testing.assert_close(made[number][None], expected, atol=2e-4, rtol=0)


def test_the_batch_goes_on_from_the_number_that_the_latent_has(studio, references):
    prompt = prompt_of(studio, references[:1])
    latent = node("ImagePromptSweep")(studio.model, prompt, {**empty(), "batch_index": [4]}, WEIGHTS)[1]
    assert latent["batch_index"] == [4, 4, 4]


def test_what_cannot_be_swept_is_said(studio, references, encoder):
    prompt = prompt_of(studio, references[:1])
    sweep = node("ImagePromptSweep")
    for values, error, sentence in (
        ({"weights": ""}, SettingError, "weights is empty"),
        ({"weights": "0,5"}, SettingError, "read in two ways"),
        ({"weights": ", ".join(["1"] * 65)}, SettingError, "65 pictures are more than the 64"),
        ({"latent": empty(2)}, MismatchError, "batch_size to 1"),
        ({"latent": {}}, MismatchError, "connect a latent"),
        ({"curves": "1:x"}, SettingError, "the weight curve has '1:x'"),
    ):
        with pytest.raises(error, match=sentence):
            sweep(
                **{
                    "model": studio.model,
                    "image_prompt": prompt,
                    "latent": empty(),
                    "weights": WEIGHTS,
                    **values,
                }
            )


def test_a_lora_is_not_shared_between_adapters(sd15, encoder):
    def encoded(seed, rank):
        adapter = make_adapter("base", tiny.SD15, seed=seed)
        adapter.lora = {"x": torch.zeros(1)} if rank else {}
        return host.encode_prompt(adapter, encoder, host.Reference(tiny.picture(1)))

    with pytest.raises(SettingError, match="Sweep each adapter alone"):
        node("ImagePromptSweep")(sd15, encoded(7, 0), empty(), WEIGHTS, image_prompt_2=encoded(9, 4))


def test_the_sheet_has_a_row_for_each_prompt(references):
    side = world.SIZE
    sheet = node("ImagePromptSheet")(references.repeat(3, 1, 1, 1), "a\nb", 3, side)[0]
    assert sheet.shape == (1, 2 * (side + 20) + 8, 3 * (side + 8) + 8, 3)
    shown = sheet[0, 8 : 8 + side, 8 : 8 + side]
    torch.testing.assert_close(shown, references[0], atol=1 / 255, rtol=0)
    line = sheet[0, 8 + side : 28 + side]
    label, none = line[:, 8 : 8 + side], line[:, 8 + 2 * (side + 8) :][:, :side]
    assert label.min() < 0.5
    assert none.min() == 1
