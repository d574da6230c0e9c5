"""A training step through the full-size UNets in every precision that the trainer allows."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch

from ...host.training import HostBase
from ...ipadapter_core.errors import SettingError
from ...ipadapter_core.training.base import Texts
from ...ipadapter_core.training.batches import crop_info
from ...ipadapter_core.training.config import TrainingConfig
from ...ipadapter_core.training.trainable import new_trainable
from ...training.loop import Output, Trainer
from .subjects import Place, Subject, subject

STEPS = 4  # the first is warm-up
# (unet, precision), each pair once; what the trainer refuses is a row with its sentence
PRECISIONS = (
    ("fp16", "fp16"),
    ("bf16", "bf16"),
    ("fp16", "no"),
    ("fp32", "fp16"),
    ("fp32", "bf16"),
    ("fp32", "no"),
)
# after them: fp32 weights of SDXL beside their gradients are the largest
LEFT_OUT = {"SDXL": (("fp32", "bf16"),)}


class Noise:
    """Encoded pictures that nobody encoded."""

    shares = ()

    def __init__(self, of: Subject, feature_width: int):
        self.side = of.inputs["x"].shape[-1]
        self.crops = [crop_info((8 * self.side, 8 * self.side), [(8 * self.side, 8 * self.side)])] * 4
        pooled = torch.zeros(1, 1280) if of.unet.adm else None
        self.no_text = Texts(torch.zeros(1, of.inputs["context"].shape[1], of.unet.context), pooled)
        self.no_image = torch.zeros(1, feature_width)

    def prefetch(self, numbers: Sequence[int], views: Any = ()) -> None:
        """Nothing is read."""

    def batch(self, numbers: Sequence[int], views: Any = ()) -> tuple[dict[str, torch.Tensor], Any]:
        generator, rows = torch.Generator().manual_seed(sum(numbers)), len(numbers)

        def noise(*shape: int) -> torch.Tensor:
            return torch.randn(rows, *shape, generator=generator)

        made = {
            "latents": noise(4, self.side, self.side),
            "features": noise(self.no_image.shape[1]),
            "context": noise(*self.no_text.context.shape[1:]),
        }
        pooled = {} if self.no_text.pooled is None else {"pooled": noise(1280)}
        return made | pooled, self.crops[:rows]


def sections(family: str, place: Place) -> dict[str, Callable[[], Iterator[dict[str, Any]]]]:
    pairs = [pair for pair in PRECISIONS if pair not in LEFT_OUT.get(family, ())]
    # one model in memory at a time
    return {
        f"unet {unet}, precision {asked}": lambda u=unet, a=asked: _steps(family, place, u, a)
        for unet, asked in pairs
    }


def _steps(family: str, place: Place, unet: str, precision: str) -> Iterator[dict[str, Any]]:
    row: dict[str, Any] = {"what": "training", "case": f"unet {unet}, precision {precision}"}
    dtype = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[unet]
    of = subject(family, Place(place.device, dtype, place.small))
    config = TrainingConfig.from_dict({"unet": unet, "precision": precision, "batch_size": 1, "steps": STEPS})
    on_card = place.device.type == "cuda"
    if on_card:
        torch.cuda.reset_peak_memory_stats()
    width = 1280 if family == "SDXL" else 1024
    with torch.inference_mode(False), tempfile.TemporaryDirectory() as folder:
        base = HostBase(of.model, None, None, None, owned=True)
        try:
            base.compute_in(config)
        except SettingError as error:
            yield {**row, "refused": str(error)}
            return
        trainable = new_trainable(config, base.unet, base.sites, width)
        trainer = Trainer(config, base, Noise(of, width), trainable, Output(Path(folder), every=0))
        base.load(config.checkpointing)
        # one step of the run, without what a run saves
        done = [trainer._step() for _ in range(STEPS)]
    yield {
        **row,
        "ms": 1e3 * median(step.seconds for step in done[1:]),
        "losses": [step.loss for step in done],
        "peak bytes": torch.cuda.max_memory_allocated() if on_card else None,
    }
