"""Masks. Where a mask is aligned to the coarsest site, or is linear, every way to resize it agrees."""

import pytest
import torch
from diffusers.image_processor import IPAdapterMaskProcessor
from support import tiny
from support.parity import LIMIT, make_batch, max_error, run_host

SIZES = {"square": (16, 16), "24x40": (24, 40)}
# in units of the 1/8 latent, so that SD1.5's coarsest site (2x2, 3x5) sees whole cells
LEFT = {"square": (slice(0, 2), slice(0, 1)), "24x40": (slice(0, 3), slice(0, 2))}


def left_region(size: str) -> torch.Tensor:
    """A binary mask (1, H, W) at picture size, 8 times the latent."""
    height, width = SIZES[size]
    coarse = torch.zeros(height // 8, width // 8)
    coarse[LEFT[size]] = 1
    return coarse.repeat_interleave(64, 0).repeat_interleave(64, 1)[None]


def soft_region(size: str) -> torch.Tensor:
    """A mask that grows linearly along both sides: mean over a cell and value at its centre are the same."""
    height, width = (8 * side for side in SIZES[size])
    down, right = (torch.arange(height) + 0.5) / height, (torch.arange(width) + 0.5) / width
    return ((0.2 + 0.8 * down)[:, None] * (1 - 0.9 * right))[None]


def for_diffusers(*masks: torch.Tensor, binary: bool = True) -> torch.Tensor:
    """(1, images, H, W) as pipelines prepare it."""
    height, width = masks[0].shape[-2:]
    processor = IPAdapterMaskProcessor(do_binarize=binary)
    return torch.cat([processor.preprocess(mask[:, None], height, width) for mask in masks], dim=1)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", ["base", "plus"])
def test_two_regions_two_images(twins, kind, size, called):
    adapter, pictures = twins.adapter(kind), tiny.picture(seed=8, count=2)
    batch, left = make_batch(twins.family, size=SIZES[size]), left_region(size)
    oracle = twins.oracle.load(adapter.tensors, scale=0.9)
    patched = twins.model
    for picture, mask in zip(pictures, (left, 1 - left), strict=True):
        patched = twins.apply(twins.encode(adapter, picture[None]), 0.9, patched, mask=mask)

    ours = run_host(patched, batch)
    theirs = oracle(batch, [twins.embeds(kind, batch, pictures)], [for_diffusers(left, 1 - left)])

    assert max_error(ours, theirs, f"two regions {kind} {twins.family.name} {size}") <= LIMIT
    assert len(called) == len(set(called)) == 2 * twins.family.sites


@pytest.mark.parametrize("size", SIZES)
def test_a_soft_mask(twins, size):
    adapter, picture, mask = twins.adapter("base"), tiny.picture(seed=9), soft_region(size)
    batch = make_batch(twins.family, size=SIZES[size])
    oracle = twins.oracle.load(adapter.tensors)
    ours = run_host(twins.apply(twins.encode(adapter, picture), mask=mask), batch)
    theirs = oracle(batch, [twins.embeds("base", batch, picture)], [for_diffusers(mask, binary=False)])
    assert max_error(ours, theirs, f"soft mask {twins.family.name} {size}") <= LIMIT


def test_a_mask_for_one_adapter_and_another_for_the_next(twins):
    kinds, left, soft = ("base", "plus"), left_region("square"), soft_region("square")
    adapters, batch = [twins.adapter(kind) for kind in kinds], make_batch(twins.family)
    picture = tiny.picture(seed=10)
    oracle = twins.oracle.load(*(adapter.tensors for adapter in adapters), scale=[0.7, 1.1])
    first = twins.apply(twins.encode(adapters[0], picture), 0.7, mask=left)
    patched = twins.apply(twins.encode(adapters[1], picture), 1.1, first, mask=soft)
    theirs = oracle(
        batch,
        [twins.embeds(kind, batch, picture) for kind in kinds],
        [for_diffusers(left), for_diffusers(soft, binary=False)],
    )
    assert max_error(run_host(patched, batch), theirs, f"masks of two adapters {twins.family.name}") <= LIMIT
