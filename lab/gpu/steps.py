"""A step of a base model with and without image prompts: time, memory, operations, syncs, our share, exactness."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from statistics import median
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile, record_function

from ... import host
from ...host.attach import blocks, flux, unet
from ...ipadapter_core import stacking
from ..benchmarks.clock import interleaved
from ..benchmarks.counting import Operations, count, is_view, tensors_in
from .peers import peer_steps
from .subjects import CLOSED, Subject

Row = dict[str, Any]
Step = Callable[[], Any]
OURS = "image_prompt"  # our work, in the profiler's words
# what makes the processor wait for the card, and what it gives it to do, as the profiler names them
SYNCS = (
    "cudaStreamSynchronize",
    "cudaDeviceSynchronize",
    "cudaEventSynchronize",
    "Memcpy DtoH (Device -> Pageable)",
)
LAUNCHES = ("cudaLaunchKernel", "cudaLaunchKernelExC", "cuLaunchKernel", "cuLaunchKernelEx")
NONE, WINDOW = "none", (0.1, 0.9)


def steps_of(subject: Subject) -> dict[str, Step]:
    """By what is applied."""
    light, rich = subject.light, subject.rich
    of = {
        NONE: subject.model,
        f"1 {light}": subject.with_prompts(light),
        f"1 {rich}": subject.with_prompts(rich),
        f"1 {rich}, mask": subject.with_prompts(rich, masked=True),
        f"1 {rich}, window": subject.with_prompts(rich, window=WINDOW),
        f"2 {rich}": subject.with_prompts(rich, 2),
        f"4 {light}": subject.with_prompts(light, 4),
        f"4 {rich}": subject.with_prompts(rich, 4),
        f"4 {rich}, masks": subject.with_prompts(rich, 4, masked=True),
    }
    made: dict[str, Step] = {name: subject.forward(model) for name, model in of.items()}
    # the same models, each prompt by an attention of its own
    for name in (f"4 {rich}", f"4 {rich}, masks"):
        made[f"{name}, one by one"] = _one_by_one(made[name])
    return made


def _one_by_one(step: Step) -> Step:
    def run() -> Any:
        with patch.object(stacking, "MOST", 1):
            return step()

    return run


def exactness(subject: Subject) -> Iterator[Row]:
    """Whether a step is the base model's bit for bit, where it must be; and that a prompt changes it."""
    base = subject.forward(subject.model)
    expected = base()
    models = {
        "the base model again": subject.model,
        "weight 0": subject.with_prompts(subject.rich, weight=0.0),
        "outside the window": subject.with_prompts(subject.rich, window=CLOSED),
        "outside the window, 4 prompts": subject.with_prompts(subject.rich, 4, window=CLOSED),
        "weight 0.8": subject.with_prompts(subject.rich),
    }
    for name, model in models.items():
        out = subject.forward(model)()
        yield {
            "what": "exact",
            "case": name,
            "finite": bool(torch.isfinite(out).all()),
            "bit-identical": torch.equal(out, expected),
            "difference": relative(out, expected),
        }


def stacked_exactness(subject: Subject) -> Iterator[Row]:
    """Four prompts by one attention beside four by one each."""
    for masked in (False, True):
        step = subject.forward(subject.with_prompts(subject.rich, 4, masked=masked))
        difference = relative(step(), _one_by_one(step)())
        name = f"4 {subject.rich}{', masks' * masked}: one attention beside four"
        yield {"what": "exact", "case": name, "difference": difference}


def relative(out: Tensor, expected: Tensor) -> float:
    """‖out − expected‖ / ‖expected‖"""
    wanted = expected.float()
    return float((out.float() - wanted).norm() / wanted.norm())


def times(subject: Subject, rounds: int) -> Iterator[Row]:
    """Milliseconds of a step, ours and of peers that are there, each beside its own base model; all take turns."""
    steps, absent = steps_of(subject), {}
    bases = dict.fromkeys(steps, NONE)
    for side, made in peer_steps(subject):
        if isinstance(made, str):
            absent[side] = made
            continue
        theirs = {f"{side}: {name}": step for name, step in made.items()}
        bases |= dict.fromkeys(theirs, f"{side}: {NONE}" if f"{side}: {NONE}" in theirs else NONE)
        steps |= theirs
    for side, why in absent.items():
        yield {"what": "time", "case": side, "absent": why}
    spent = dict(zip(steps, interleaved(list(steps.values()), rounds, subject.place.device), strict=True))
    for name, found in spent.items():
        base = median(spent[bases[name]])
        paired = median(own / other for own, other in zip(found, spent[bases[name]], strict=True))
        ordered = sorted(found)
        yield {
            "what": "time",
            "case": name,
            "ms": median(found),
            "quartiles": [ordered[len(ordered) // 4], ordered[3 * len(ordered) // 4]],
            "added ms": median(found) - base,
            "of base": paired,
            "rounds": len(found),
        }


def costs(subject: Subject) -> Iterator[Row]:
    """Operations, memory, allocations and syncs of a step, beyond those of the base model."""
    steps = steps_of(subject)
    sites = _sites(subject)
    counted = {name: count(step) for name, step in steps.items()}
    on_card = {name: _on_card(step, subject.place.device) for name, step in steps.items()}
    for name in steps:
        beyond = counted[name].beyond(counted[NONE])
        row = {
            "what": "cost",
            "case": name,
            "sites": sites[name.split()[1].rstrip(",")] if name != NONE else 0,
            "operations": beyond.all if name != NONE else counted[name].all,
            "operations, no views": beyond.real if name != NONE else counted[name].real,
            "numbers read": counted[name].reads,
            "peak of intermediate bytes": counted[name].peak,
        }
        yield {**row, **on_card[name]}


def _sites(subject: Subject) -> dict[str, int]:
    return {
        kind: len(host.residuals_of(subject.with_prompts(kind))) for kind in (subject.light, subject.rich)
    }


def _on_card(step: Step, device: torch.device) -> Row:
    """What the card's own allocator and runtime say of one step."""
    if device.type != "cuda":
        return {}
    step()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    held = torch.cuda.memory_allocated()
    before = torch.cuda.memory_stats()["allocation.all.allocated"]
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return {
        "peak bytes": torch.cuda.max_memory_allocated() - held,
        "allocations": torch.cuda.memory_stats()["allocation.all.allocated"] - before,
        "syncs": sum("synchroniz" in str(each.message) for each in said),
    }


# --- our share of a step ---


@contextmanager
def around_ours(wrap: Callable[[Callable[..., Any]], Callable[..., Any]]) -> Iterator[None]:
    """All that image prompts do in a step of the model, wrapped, where patches enter our code."""
    with ExitStack() as stack:
        for module, name in (
            (unet, "add_residuals"),
            (blocks, "add_residuals"),
            (flux, "unrotated"),
            (flux, "merged_heads"),
        ):
            stack.enter_context(patch.object(module, name, wrap(getattr(module, name))))
        yield


def profiles(subject: Subject) -> Iterator[Row]:
    """Our share of a step's time on the device, launches, syncs and bytes moved, by the profiler and by counting."""
    for name, step in steps_of(subject).items():
        moved = _traffic(step)
        row: Row = {"what": "share", "case": name, **_profiled(step, subject.place.device), **moved}
        yield row | {
            f"our share of {part}": row[f"our {part}"] / row[part]
            for part in ("device us", "bytes")
            if row.get(part)
        }


def _profiled(step: Step, device: torch.device) -> Row:
    on_card = device.type == "cuda"
    step()
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_card else [])]

    def wrap(own: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            with record_function(OURS):
                return own(*args, **kwargs)

        return run

    with around_ours(wrap), profile(activities=activities) as seen:
        step()
        if on_card:
            torch.cuda.synchronize()
    events = seen.key_averages()
    ours = [each for each in events if each.key == OURS and not _of_card(each)]
    kernels = [each for each in events if _of_card(each) and each.key != OURS]
    every = [each for each in events if each.key != OURS]
    total = sum(each.self_device_time_total for each in kernels)
    return {
        "device us": total if on_card else sum(each.self_cpu_time_total for each in every),
        "our device us": sum(
            each.device_time_total if on_card else each.cpu_time_total - each.self_cpu_time_total
            for each in ours
        ),
        "our processor us": sum(each.cpu_time_total for each in ours),
        "launches": sum(each.count for each in events if each.key in LAUNCHES),
        "waits": {each.key: each.count for each in events if each.key in SYNCS or "DtoH" in each.key},
    }


def _of_card(event: Any) -> bool:
    return "CUDA" in str(event.device_type)


class Traffic(Operations):
    """Bytes that operations read and write, those of ours among them. A view moves none."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = self.ours = self.launched = 0
        self.inside = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = super().__torch_dispatch__(func, types, args, kwargs)
        if not is_view(func, args, out):
            tensors = tensors_in(args, kwargs or {}, out)
            size = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
            self.bytes += size
            self.ours += size * bool(self.inside)
            self.launched += bool(self.inside)
        return out

    def wrap(self, own: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            self.inside += 1
            try:
                return own(*args, **kwargs)
            finally:
                self.inside -= 1

        return run


def _traffic(step: Step) -> Row:
    step()
    moved = Traffic()
    with around_ours(moved.wrap), moved:
        step()
    return {"bytes": moved.bytes, "our bytes": moved.ours, "our operations": moved.launched}


def sections(subject: Subject, rounds: int) -> dict[str, Callable[[], Iterator[Row]]]:
    """What is measured of one base model, the most wanted first."""
    return {
        "exactness": lambda: exactness(subject),
        "times": lambda: times(subject, rounds),
        "costs": lambda: costs(subject),
        "shares": lambda: profiles(subject),
        "stacks": lambda: stacked_exactness(subject),
    }
