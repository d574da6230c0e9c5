"""The templates for Flux.1 and SD3.5: each does what its note promises, on a small model of the host's own classes."""

import pytest
import torch
from helpers import stand_ins, workflows
from helpers.beside import has_hooks
from helpers.workflows import edited, of_type, run, unprompted, workflow
from image_prompt import host

SAME, OTHER = 2e-5, 1e-3  # of the largest value
XLABS, INSTANTX, SD3, REGIONS = 29, 24, 25, 26
pytestmark = has_hooks


@pytest.fixture(autouse=True)
def on_host(models):
    """The host's folders, with small models under the names that the templates use."""


def distance(a, b):
    return ((a.pictures - b.pictures).abs().max() / b.pictures.abs().max()).item()


def stages(result):
    return {label.split()[0] for label, _ in host.residuals_of(result.model)}


@pytest.mark.parametrize("number", [XLABS, INSTANTX, SD3, REGIONS])
def test_the_images_steer_the_picture(number):
    graph = workflow(number)
    made = run(graph)
    assert torch.isfinite(made.pictures).all()
    assert distance(made, run(unprompted(graph))) > OTHER
    for image in of_type(graph, "LoadImage"):
        assert distance(made, run(graph, {image: workflows.picture(graph, 5)})) > OTHER


@pytest.mark.parametrize(
    ("number", "named"),
    [(XLABS, {"double"}), (INSTANTX, {"double", "single"}), (SD3, {"joint"}), (REGIONS, {"double"})],
)
def test_adapters_act_in_the_blocks_that_their_notes_name(number, named):
    assert stages(run(workflow(number))) == named


def test_xlabs_shows_a_black_picture_to_the_negative_side():
    """So that cfg matters to it; without a negative side, cfg 1, what it is shown does not."""
    (encode,) = of_type(workflow(XLABS), "ImagePromptEncode")
    prompt = run(workflow(XLABS)).outputs[encode][0]
    black = edited(workflow(XLABS), "KSampler", cfg=1.0)
    assert prompt.uncond.any()
    assert distance(run(black), run(workflow(XLABS))) > OTHER


def test_instantx_looks_at_the_squashed_picture_and_adds_nothing_to_the_negative_side():
    (encode,) = of_type(workflow(INSTANTX), "ImagePromptEncode")
    prompt = run(workflow(INSTANTX)).outputs[encode][0]
    assert prompt.note["fit"] == "squash"
    assert not prompt.uncond.any()


def test_the_two_regions_are_left_and_right_and_fill_the_picture():
    for residuals in host.residuals_of(run(workflow(REGIONS)).model).values():
        left, right = (residual.site.region.mask for residual in residuals)
        half = left.shape[-1] // 2
        assert left[..., :half].min() == 1
        assert left[..., half:].max() == 0
        assert torch.equal(left + right, torch.ones_like(left))


def test_the_encoder_of_each_is_found_by_its_name():
    for number, name in ((XLABS, "clip_l"), (INSTANTX, "siglip")):
        (loader,) = of_type(workflow(number), "CLIPVisionLoader")
        made = run(workflow(number)).outputs[loader][0]
        assert made is getattr(stand_ins.flux_stand_ins, name)()
