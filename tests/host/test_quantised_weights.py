"""Weights as the host's own operations keep scaled fp8 files, read for the start of an adapter."""

import json
from typing import Any

import comfy.ops
import pytest
import torch
from image_prompt.ipadapter_core.families.weights import weight_of

# which of them there are differs between hosts
OPS: Any = comfy.ops
NAMES = ("scaled_fp8_ops", "mixed_precision_ops")
WAYS = [name for name in NAMES if hasattr(OPS, name)]


@pytest.mark.skipif(not WAYS, reason="this host keeps no scales (ComfyUI of August 2024)")
@pytest.mark.parametrize("way", WAYS or NAMES)
def test_the_scale_of_an_fp8_file_is_in_what_an_adapter_starts_from(way):
    torch.manual_seed(0)
    wanted = torch.randn(8, 16) / 50
    scale = wanted.abs().max() / 448
    stored = {"weight": (wanted / scale).to(torch.float8_e4m3fn)}
    if way == "scaled_fp8_ops":
        made = OPS.scaled_fp8_ops(fp8_matrix_mult=False)
        layer = made.Linear(16, 8, bias=False, dtype=torch.float8_e4m3fn)
        stored["scale_weight"] = scale
    else:
        made = OPS.mixed_precision_ops({}, torch.float32)
        layer = made.Linear(16, 8, bias=False, device="cpu", dtype=torch.float32)
        about = json.dumps({"format": "float8_e4m3fn"}).encode()
        stored |= {"weight_scale": scale, "comfy_quant": torch.tensor(list(about), dtype=torch.uint8)}
    layer._load_from_state_dict(stored, "", {}, True, [], [], [])
    found = weight_of(layer)
    assert type(found) is torch.Tensor
    assert torch.allclose(found, wanted, rtol=0.07, atol=1e-4)
