"""Where image prompts act: what is watched is what was added, by hand; without the node nothing is watched."""

from dataclasses import replace

import pytest
import torch
from helpers.heat import assert_same_as_by_hand
from image_prompt import host
from image_prompt.host.attach import base
from image_prompt.host.attach.watch import WATCH
from image_prompt.ipadapter_core.errors import MismatchError, SettingError
from image_prompt.lab.benchmarks.counting import count
from image_prompt.lab.demo.gallery import halves
from image_prompt.lab.demo.studio import Part, Scene, Studio, node
from image_prompt.lab.toy import models as toy
from image_prompt.lab.toy import world
from support import tiny
from support.sampling import prompts, sample

HALVES = torch.zeros(1, 64, 128)
HALVES[..., :64] = 1


def two_regions(model, prompt, other):
    model = host.apply_prompt(model, prompt, 0.9, mask=HALVES)
    return host.apply_prompt(model, other, 0.7, mask=1 - HALVES)


def run_of(watch):
    (run,) = watch.runs.values()
    return run


def test_maps_are_the_norms_of_the_residuals_by_hand(model, family, prompt, other_prompt, by_hand):
    watched, watch = host.watched(two_regions(model, prompt, other_prompt), 0)
    sample(watched, family, steps=2, size=(16, 32))
    assert_same_as_by_hand(watch, watched, by_hand, (16, 32))


def test_pictures_are_the_same_bit_for_bit_with_a_watch(model, family, prompt, other_prompt):
    plain = two_regions(model, prompt, other_prompt)
    watched, _ = host.watched(plain, 3)
    assert torch.equal(sample(watched, family, size=(16, 32)), sample(plain, family, size=(16, 32)))
    assert WATCH not in plain.model_options["transformer_options"]


def test_a_watch_before_the_prompts_sees_them_too(sd15, sd15_prompt):
    watched, watch = host.watched(sd15, 4)
    sample(host.apply_prompt(watched, sd15_prompt, 0.8), tiny.SD15)
    assert [len(maps) for _, maps in run_of(watch).heat()] == [1]


def counted(model, watch=None):
    def forward():
        return tiny.run_unet(model, tiny.SD15)

    return count(forward if watch is None else lambda: watch.sample(forward))


def test_without_the_node_operations_and_bytes_are_what_they_were(sd15, sd15_prompt, monkeypatch):
    plain = host.apply_prompt(sd15, sd15_prompt, 0.8)
    after = counted(plain)
    monkeypatch.setattr(base, "watch_site", lambda *_: None)
    assert counted(plain) == after


@pytest.mark.parametrize(("sites", "watched"), [(4, 4), (0, 16)])
def test_a_watched_site_costs_five_operations_and_reads_nothing(sd15, sd15_prompt, sites, watched):
    """The norms of both parts, the least of one, their quotient, the sum."""
    plain = host.apply_prompt(sd15, sd15_prompt, 0.8)
    more = counted(*host.watched(plain, sites)).beyond(counted(plain))
    assert (more.real, more.reads) == (5 * watched, 0)
    assert 0 < more.peak < 4 * 4 * 2 * 256  # four numbers for each position of the latent


# --- the toy world ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def studio():
    return Studio()


@pytest.fixture(scope="module")
def references():
    return world.render(world.make_scenes(2, 987_654)).movedim(1, -1)


def seen(studio, scene, sites=8):
    """The pictures of a scene, and the watch of its model."""
    model, watch = node("ImagePromptWatch")(studio.model, sites)
    return replace(studio, model=model).make(scene), watch


@pytest.mark.parametrize("sites", [4, 0])
def test_each_prompt_acts_in_its_own_region(studio, references, sites):
    parts = [Part(references[n : n + 1], 1.0, mask) for n, mask in enumerate(halves())]
    side = toy.LATENT_SIZE
    pictures, watch = seen(studio, Scene(tuple(parts), size=(side, 2 * side)), sites)
    drawn, masks, report = node("ImagePromptHeatMap")(watch, pictures, 0.6)
    shares = [float((heat * part.mask).sum() / heat.sum()) for heat, part in zip(masks, parts, strict=True)]
    print("share of each prompt inside its own region:", shares)
    assert min(shares) > 0.9
    assert drawn.shape == (2, world.SIZE, 2 * world.SIZE, 3)
    assert masks.max() == 1
    assert len(report.splitlines()) == 2


def test_the_own_scale_shows_where_an_image_acts_most_and_least(studio, references):
    pictures, watch = seen(studio, Scene((Part(references[:1]),)))
    _, shared, _ = node("ImagePromptHeatMap")(watch, pictures)
    _, own, _ = node("ImagePromptHeatMap")(watch, pictures, scale="each prompt's own")
    assert (own.min(), own.max(), shared.max()) == (0, 1, 1)
    assert shared.min() > 0.5


# --- runs, batches, parts of pictures -------------------------------------------------------------------------------


def test_pictures_of_a_batch_have_maps_of_their_own(studio, references):
    """One image for each picture: each map is that of the picture sampled alone."""
    both, watch = seen(studio, Scene((Part(references),), pictures=2))
    ((_, maps),) = run_of(watch).heat()
    assert maps.shape == (2, toy.LATENT_SIZE, toy.LATENT_SIZE)
    assert (maps[0] - maps[1]).abs().max() > 1e-3
    assert len(node("ImagePromptHeatMap")(watch, both)[1]) == 2


def test_areas_are_laid_where_they_are(sd15, sd15_prompt):
    """A conditioning with an area runs the model on that part of the picture alone."""
    positive, negative = prompts(tiny.SD15)
    left, right = ([positive[0][0], {"area": (16, 16, 0, at)}] for at in (0, 16))
    plain, _ = sample_watched(sd15, sd15_prompt, None)
    parts, _ = sample_watched(sd15, sd15_prompt, ([left, right], negative))
    if not hasattr(sd15, "add_wrapper_with_key"):  # nothing says which part it is
        assert parts.shape == (1, 16, 16)
        return
    assert parts.shape == plain.shape == (1, 16, 32)
    assert parts.min() > 0


def sample_watched(model, prompt, conds):
    watched, watch = host.watched(host.apply_prompt(model, prompt, 0.8), 0)
    samples = sample(watched, tiny.SD15, steps=2, size=(16, 32), conds=conds)
    ((_, maps),) = run_of(watch).heat()
    return maps, samples


def drawn(watch, image=None, **values):
    return node("ImagePromptHeatMap")(
        watch, torch.zeros(1, 128, 128, 3) if image is None else image, **values
    )


def test_a_watch_that_saw_nothing_says_so(sd15):
    with pytest.raises(MismatchError, match="nothing was watched"):
        drawn(host.watched(sd15, 8)[1])
    with pytest.raises(MismatchError, match="is no watch"):
        drawn({})


def test_pictures_of_another_number_or_aspect_are_refused(sd15, sd15_prompt):
    watched, watch = host.watched(host.apply_prompt(sd15, sd15_prompt, 0.8), 8)
    sample(watched, tiny.SD15, steps=1)
    assert drawn(watch)[0].shape == (1, 128, 128, 3)
    for other in (torch.zeros(2, 128, 128, 3), torch.zeros(1, 64, 128, 3)):
        with pytest.raises(MismatchError, match="were watched"):
            drawn(watch, other)


def test_sampling_again_begins_anew_and_of_several_samplers_the_latent_says_which(
    sd15, sd15_prompt, monkeypatch
):
    if not hasattr(sd15, "add_wrapper_with_key"):
        pytest.skip("hosts before December 2024 name no runs")
    names = iter(["3", "3", "7"])
    monkeypatch.setattr("image_prompt.host.apply.running_node", lambda: next(names))
    watched, watch = host.watched(host.apply_prompt(sd15, sd15_prompt, 0.8), 8)
    first = sample(watched, tiny.SD15, steps=1, pictures=2)
    again = sample(watched, tiny.SD15, steps=2)
    assert [run.pictures for run in watch.runs.values()] == [1]
    other = sample(watched, tiny.SD15, steps=3)
    graph = {"3": {}, "7": {}}
    with pytest.raises(SettingError, match="2 samplers used the watched model"):
        drawn(watch, prompt=graph)
    of_again, of_other = (drawn(watch, prompt=graph, samples={"samples": each}) for each in (again, other))
    assert not torch.equal(of_again[1], of_other[1])
    assert torch.equal(drawn(watch, prompt={"7": {}})[1], of_other[1])
    assert first.shape[0] == 2


def test_a_second_run_does_not_add_to_the_first(sd15, sd15_prompt):
    watched, watch = host.watched(host.apply_prompt(sd15, sd15_prompt, 0.8), 8)
    maps = []
    for _ in range(2):
        sample(watched, tiny.SD15, steps=2)
        ((_, each),) = run_of(watch).heat()
        maps.append((each, run_of(watch).calls))
    assert torch.equal(maps[0][0], maps[1][0])
    assert maps[0][1] == maps[1][1]
