"""For tests of what the rows of a call are."""

import comfy.model_patcher
import pytest
import torch

HAS_WRAPPERS = hasattr(comfy.model_patcher.ModelPatcher, "add_wrapper_with_key")
with_wrappers = pytest.mark.skipif(
    not HAS_WRAPPERS,
    reason="hosts of August 2024 tell patches nothing of a run: the place in a call is the role",
)


def near(a, b):
    return (a - b).norm() <= 1e-5 * b.norm()


def half(left):
    mask = torch.zeros(1, 128, 128)
    mask[..., :64] = 1
    return mask if left else 1 - mask
