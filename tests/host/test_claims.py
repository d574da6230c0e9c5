"""The claims' machinery, with trainings of one step: what is compared runs, and the page says what holds and what not."""

from dataclasses import replace

import pytest
import torch
from image_prompt.lab.claims import claims, lab, settled
from image_prompt.lab.claims import page as claims_page
from image_prompt.lab.claims.measures import MEANING, Judge
from image_prompt.lab.toy import models as toy
from image_prompt.lab.toy import world
from image_prompt.training.callbacks import Step


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lab, "SCENES", 64)
        patch.setattr(toy, "STEPS", 2)
        for name, value in {"LIMIT": 2, "EVERY": 1, "BATCH": 2, "HELD_OUT": 4}.items():
            patch.setattr(settled, name, value)
        for module in (lab, claims):
            patch.setattr(module, "REFERENCES", 2)
        yield lab.Lab(tmp_path_factory.mktemp("claims"), steps=1)


@pytest.mark.parametrize("claim", claims.CLAIMS, ids=lambda claim: claim.name)
def test_each_claim_is_measured(small, claim):
    found = claim.measure(small, 0)
    assert len(found) > 1
    assert {*claim.better} <= {*found}
    for measured in found.values():
        assert {*MEANING} <= {*measured}
        assert -1 <= measured["likeness"] <= 1
    assert -2 < claim.margin(found) < 2


def test_a_perfect_copy_through_the_vae_bounds_what_can_be_reached(small):
    copy = small.measures(small.through_vae(small.wanted))
    moved = small.measures(small.through_vae(world.replace(small.wanted, 4242)))
    assert copy["likeness"] > 0.95
    assert copy["overlap"] > 0.85
    assert copy["pixels"] < 0.04
    assert moved["overlap"] < copy["overlap"]


def test_what_was_measured_is_kept_and_a_page_is_drawn_of_it(small, monkeypatch, tmp_path):
    first, second = (
        replace(
            claim,
            measure=lambda _, seed: {"a": {"likeness": 0.5 + seed / 10}},
            margin=lambda f: f["a"]["likeness"],
        )
        for claim in claims.CLAIMS[:2]
    )
    here = replace(small, folder=tmp_path)
    claims.try_all(here, [first], [0, 1])
    claims.try_all(here, [second], [0])
    unmeasured = replace(first, name="not tried", measure=lambda *_: pytest.fail("measured"))
    once_more = replace(first, measure=unmeasured.measure)
    found = claims.try_all(here, [once_more], [0, 1])
    assert found == {first.name: [{"a": {"likeness": 0.5}}, {"a": {"likeness": 0.6}}]}
    found = claims.what_is_measured(here, [once_more, second, unmeasured], [0, 1])
    assert {name: len(each) for name, each in found.items()} == {first.name: 2, second.name: 1}
    claims_page.write([once_more, second], found, [0, 1], 5, tmp_path)
    assert "seeds 0, 1, or with the first of them" in (tmp_path / "claims.md").read_text()


def test_what_is_tried_with_some_seeds_alone_is_said_to_be(tmp_path):
    """As the wide start of the resampler."""
    found = [{"decoupled": {"likeness": 0.9}, "concatenated": {"likeness": value}} for value in (0.5, 0.6)]
    del found[1]["concatenated"]
    claim = replace(claims.CLAIMS[0], margin=lambda each: each["decoupled"]["likeness"])
    for seeds in (found, found[::-1]):
        claims_page.write([claim], {claim.name: seeds}, [0, 1], 5, tmp_path)
        assert "| concatenated (1 of 2 seeds) | 0.500 |" in (tmp_path / "claims.md").read_text()


def test_what_was_trained_is_kept_and_taken_again(small, monkeypatch):
    small.adapter("decoupled", 0)
    monkeypatch.setattr(lab.Lab, "_train", lambda *_, **__: pytest.fail("trained again"))
    small.adapter("decoupled", 0)


def test_concatenation_trains_the_projection_alone_and_full_fine_tuning_all(small):
    start = small.new(lab.training_config()).adapter.state_dict()
    made = small.concatenated(0)
    key = "1.to_k_ip.weight"
    assert (made["ip_adapter"][key] == start[f"ip_adapter.{key}"]).all()
    assert (made["image_proj"]["proj.weight"] != start["image_proj.proj.weight"]).any()
    model, _ = small.fine_tuned(0)
    own, base = (m.model.diffusion_model.out[2].weight for m in (model, small.base.model))
    assert (own != base).any()


def test_the_page_shows_what_does_not_hold(tmp_path):
    chosen = claims.CLAIMS[:2]
    good, bad = (
        {name: {"likeness": value, "shape": 0.25} for name, value in each.items()}
        for each in ({"decoupled": 0.9, "concatenated": 0.5}, {"weight 0": 0.9, "weight 1": 0.2})
    )
    found = {chosen[0].name: [good, good], chosen[1].name: [bad, bad]}
    claims_page.write(chosen, found, [0, 1], 5, tmp_path)
    lines = (tmp_path / "claims.md").read_text().splitlines()
    assert "| yes | +0.400 ± 0.000 | +0.400, +0.400 |" in next(line for line in lines if "decoupled" in line)
    assert "| **no** | -0.700" in next(line for line in lines if "grows with" in line)
    assert "| decoupled | 0.900 | 0.250 |" in lines
    assert (tmp_path / "claims.png").stat().st_size > 10_000


@pytest.fixture(scope="module")
def judge():
    return Judge(lambda pictures: pictures.flatten(1))


def test_a_picture_of_the_wanted_scene_is_right_by_every_measure(judge):
    scenes = world.make_scenes(8, 3)
    same = judge.measures(world.render(scenes).movedim(1, -1), scenes)
    assert (same["likeness"], same["shape"], same["pattern"]) == (pytest.approx(1), 1, 1)
    assert same["pixels"] == 0
    assert same["overlap"] > 0.95
    assert same["centre"] < 0.5
    assert same["colours"] < 0.02


def test_each_measure_sees_its_own_fault(judge):
    scenes = world.make_scenes(8, 3)

    def of(**changes):
        changed = world.Scenes(**{**vars(scenes), **changes})
        return judge.measures(world.render(changed).movedim(1, -1), scenes)

    moved = of(centre=scenes.centre + 6)
    assert moved["centre"] == pytest.approx(6 * 2**0.5, abs=1)
    assert (moved["shape"], moved["colours"] < 0.03) == (1, True)
    assert moved["overlap"] < 0.85
    other = of(shape=(scenes.shape + 1) % len(world.SHAPES))
    assert other["shape"] == 0
    assert of(pattern=(scenes.pattern + 1) % len(world.PATTERNS))["pattern"] == 0
    assert of(ground_rgb=scenes.ground_rgb * 0.7)["colours"] > 0.05


def test_a_shape_that_is_nowhere_is_measured_too(judge):
    scenes = world.make_scenes(2, 3)
    ground = scenes.ground_rgb[:, None, None, :].expand(-1, world.SIZE, world.SIZE, -1)
    found = judge.measures(ground, scenes)
    assert found["overlap"] == 0
    assert all(torch.isfinite(torch.tensor(value)) for value in found.values())


def test_training_stops_when_the_held_out_loss_is_flat(tmp_path):
    flat = settled.UntilFlat(tmp_path / "new" / "losses.json")
    falling = [1.0 / (n + 1) for n in range(12)]
    for number, loss in enumerate(falling + [falling[-1]] * 4):
        assert not flat.should_stop
        flat.on_step_end(Step(number, 100, 0.0, 0.0, held_out=loss))
    for number in range(8):
        flat.on_step_end(Step(number, 100, 0.0, 0.0, held_out=falling[-1]))
    assert flat.should_stop
    again = settled.UntilFlat(flat.path)
    again.resume(3 * settled.EVERY)
    assert again.losses == falling[:3]
