"""Heat maps on SD3.5, whose prompts attend to the picture's own keys again: on the host's model and on a stand-in."""

import pytest
import torch
from helpers.heat import assert_same_as_by_hand
from helpers.sd3 import BLOCKS, adapter_of, prompt_of
from image_prompt import host
from image_prompt.host.attach import base
from image_prompt.ipadapter_core.checkpoint import Checkpoint
from image_prompt.lab.benchmarks.counting import count
from support import tiny_sd3

SIZE = (8, 12)
LEFT = torch.zeros(1, 64, 96)
LEFT[..., :48] = 1


@pytest.fixture
def two_regions(sd3_model, sd3_prompt):
    model = host.apply_prompt(sd3_model, sd3_prompt, 0.8, mask=LEFT)
    return host.apply_prompt(model, prompt_of(2, adapter=adapter_of(8)), 0.5, mask=0.2 + 0.8 * (1 - LEFT))


def test_maps_are_the_norms_of_the_residuals_by_hand(sd3_world, two_regions, by_hand):
    watched, watch = host.watched(two_regions, 0)
    sd3_world.sample(watched, steps=2, size=SIZE)
    assert_same_as_by_hand(watch, watched, by_hand, SIZE)
    (run,) = watch.runs.values()
    assert run.calls == 2 * BLOCKS


def test_a_prompt_acts_in_its_region(sd3_world, sd3_model, sd3_prompt):
    watched, watch = host.watched(host.apply_prompt(sd3_model, sd3_prompt, 0.8, mask=LEFT), 0)
    sd3_world.sample(watched, steps=2, size=SIZE)
    (run,) = watch.runs.values()
    ((_, maps),) = run.heat()
    assert maps[..., :6].min() > 0
    assert maps[..., 6:].max() == 0


def test_pictures_are_the_same_bit_for_bit_with_a_watch(sd3_world, two_regions):
    watched, _ = host.watched(two_regions, 2)
    assert torch.equal(sd3_world.sample(watched, size=SIZE), sd3_world.sample(two_regions, size=SIZE))


def test_the_part_of_an_image_holds_the_pictures_own_values(sd3_world, sd3_model):
    """As the adapter adds them: with V' of zeros there is a map all the same."""
    roles = tiny_sd3.instantx(BLOCKS)
    for name, tensor in roles["ip_adapter"].items():
        if name.endswith("to_v_ip.weight"):
            tensor.zero_()
    adapter = host.HostAdapter(Checkpoint("silent", **roles))
    watched, watch = host.watched(host.apply_prompt(sd3_model, prompt_of(adapter=adapter), 0.8), 0)
    sd3_world.sample(watched, steps=1, size=SIZE)
    (run,) = watch.runs.values()
    ((_, maps),) = run.heat()
    assert maps.min() > 0.01


def test_without_the_node_operations_and_bytes_are_what_they_were(sd3_world, two_regions, monkeypatch):
    def counted(model):
        return count(lambda: sd3_world.sample(model, steps=1, size=SIZE))

    after = counted(two_regions)
    watched = counted(host.watched(two_regions, 0)[0])
    monkeypatch.setattr(base, "watch_site", lambda *_: None)
    assert counted(two_regions) == after
    # five for the first prompt, three for the second, two for the mask of each
    assert watched.beyond(after).real == (5 + 3 + 2 * 2) * BLOCKS
    assert watched.reads == after.reads
