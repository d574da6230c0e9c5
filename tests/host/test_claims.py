"""The claims' machinery, with trainings of one step: what is compared runs, and the page says what holds and what not."""

import pytest
from image_prompt.lab.claims import claims, lab
from image_prompt.lab.claims import page as claims_page
from image_prompt.lab.toy import models as toy


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lab, "SCENES", 64)
        patch.setattr(toy, "STEPS", 2)
        for module in (lab, claims):
            patch.setattr(module, "REFERENCES", 2)
        yield lab.Lab(tmp_path_factory.mktemp("claims"), steps=1)


@pytest.mark.parametrize("claim", claims.CLAIMS, ids=lambda claim: claim.name)
def test_each_claim_is_measured(small, claim):
    numbers = claim.measure(small, 0)
    assert len(numbers) > 1
    assert all(-1 <= value <= 1 for value in numbers.values())
    assert -2 < claim.margin(numbers) < 2


def test_what_was_trained_is_kept_and_taken_again(small, monkeypatch):
    small.adapter("decoupled", 0)
    monkeypatch.setattr(lab.Lab, "_train", lambda *_, **__: pytest.fail("trained again"))
    small.adapter("decoupled", 0)


def test_concatenation_trains_the_projection_alone_and_full_fine_tuning_all(small):
    start = small._new(lab.training_config()).adapter.state_dict()
    made = small.concatenated(0)
    key = "1.to_k_ip.weight"
    assert (made["ip_adapter"][key] == start[f"ip_adapter.{key}"]).all()
    assert (made["image_proj"]["proj.weight"] != start["image_proj.proj.weight"]).any()
    model, _ = small.fine_tuned(0)
    own, base = (m.model.diffusion_model.out[2].weight for m in (model, small.base.model))
    assert (own != base).any()


def test_the_page_shows_what_does_not_hold(tmp_path):
    chosen = claims.CLAIMS[:2]
    good, bad = {"decoupled": 0.9, "concatenated": 0.5}, {"weight 0": 0.9, "weight 1": 0.2}
    found = {chosen[0].name: [good, good], chosen[1].name: [bad, bad]}
    claims_page.write(chosen, found, [0, 1], 5, tmp_path)
    lines = (tmp_path / "claims.md").read_text().splitlines()
    assert "| yes | +0.400 ± 0.000 | +0.400, +0.400 |" in next(line for line in lines if "decoupled" in line)
    assert "| **no** | -0.700" in next(line for line in lines if "grows with" in line)
    assert (tmp_path / "claims.png").stat().st_size > 10_000
