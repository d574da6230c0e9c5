"""SD3.5 for tests of the host's room: the host's own small model, the stand-in, and prompts for both."""

import torch
from image_prompt import host
from image_prompt.ipadapter_core.checkpoint import Checkpoint
from image_prompt.ipadapter_core.features import Features
from image_prompt.ipadapter_core.prompt import make_prompt
from support import joint_transformer, tiny_sd3, transformer

BLOCKS, IMAGE = 3, 9  # IMAGE: encoder tokens of one image


class OnHost:
    sample = staticmethod(tiny_sd3.sample)
    make = staticmethod(tiny_sd3.host_model)


class StandIn:
    sample = staticmethod(transformer.sample)
    make = staticmethod(joint_transformer.stand_in)


def adapter_of(seed=7, blocks=BLOCKS):
    return host.HostAdapter(Checkpoint(f"sd35-{seed}", **tiny_sd3.instantx(blocks, seed=seed)))


def prompt_of(seed=1, images=1, adapter=None, **options):
    adapter = adapter or adapter_of()
    generator = torch.Generator().manual_seed(seed)
    seen = torch.randn(images, IMAGE, tiny_sd3.FEATURE, generator=generator)
    tokens = adapter.project(Features(torch.cat((seen, torch.zeros_like(seen[:1])))))
    return make_prompt(adapter, tokens[:images], tokens[images:], **options)
