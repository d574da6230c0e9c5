"""Kolors' plus adapter beside the de-facto pack: 336 pixels, a resampler 2048 wide with 12 heads."""

from dataclasses import replace

import pytest
import torch
from image_prompt.nodes.compat import settings
from support import layouts, peer, tiny
from support.oracle import lively_
from support.parity import LIMIT, max_error

pytestmark = pytest.mark.peer


def test_kolors_plus(monkeypatch):
    monkeypatch.setenv(settings.EXACT_LEGACY.variable, "1")
    proj = layouts.plus(1024, 2048, 2048, 12)
    table = layouts.keys_values(tiny.site_widths(tiny.SDXL), 2048)
    adapter = {
        role: {key.split(".", 1)[1]: torch.zeros(shape) for key, shape in keys.items()}
        for role, keys in (("image_proj", proj), ("ip_adapter", table))
    }
    for seed, part in enumerate(adapter.values(), 51):
        lively_(part, seed)
    setup = replace(peer.setup("SDXL", "base"), encoder=peer.encoder(336, 56, 1024), adapter=adapter)
    given = {
        "model": setup.model,
        "ipadapter": adapter,
        "clip_vision": setup.encoder,
        "image": tiny.picture(6, 80, 64),
        "weight": 0.8,
        "weight_type": "style transfer precise",
    }
    their, our = (call("IPAdapterAdvanced", **given)[0] for call in (peer.theirs, peer.ours))
    assert max_error(setup.forward(our), setup.forward(their), "Kolors plus") <= LIMIT
    assert (setup.forward(our) - setup.forward(setup.model)).abs().max() > 100 * LIMIT
