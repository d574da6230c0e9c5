"""Runs every case and hashes what it gives."""

from __future__ import annotations

import hashlib
import random
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from bootstrap import pack_package, start_host

Case = tuple[str, Any]  # a name, and a function without inputs


def run(only: str = "") -> tuple[dict[str, str], int]:
    """(hash by name, how many cases failed), of the cases whose names begin so."""
    pack_package()
    start_host()
    torch.set_num_threads(1)
    hashes: dict[str, str] = {}
    seconds: Counter[str] = Counter()
    with tempfile.TemporaryDirectory(prefix="outputs-") as folder, torch.inference_mode():
        for name, make in cases(Path(folder)):
            if name.startswith(only):
                assert name not in hashes, name
                start = time.perf_counter()
                hashes[name] = outcome(name, make)
                seconds[name.split("/")[0]] += time.perf_counter() - start
    for kind, spent in seconds.items():
        print(f"{sum(name.split('/')[0] == kind for name in hashes):5} {kind}, {spent:.1f} s")
    return hashes, sum(value == FAILED for value in hashes.values())


FAILED = "failed"


def cases(folder: Path) -> Iterator[Case]:
    from . import models, older, own, training

    models.use(folder)
    for part in (own, older, training):
        yield from part.cases()


def outcome(name: str, make: Any) -> str:
    """The hash, or FAILED: no case may be refused."""
    torch.manual_seed(0)
    random.seed(0)
    try:
        return digest(make())
    except Exception:
        print(f"{name}:\n{traceback.format_exc()}", file=sys.stderr)
        return FAILED


def digest(value: Any) -> str:
    """sha256 of every number, with its type and shape, in order."""
    told = hashlib.sha256()
    for part in _parts(value):
        told.update(part)
    return told.hexdigest()


def _parts(value: Any) -> Iterator[bytes]:
    if isinstance(value, torch.Tensor):
        yield f"{value.dtype} {tuple(value.shape)} ".encode()
        yield value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
    elif isinstance(value, dict):
        for key in sorted(value, key=str):
            yield f"{key}: ".encode()
            yield from _parts(value[key])
    elif isinstance(value, list | tuple):
        yield f"{len(value)} of ".encode()
        for each in value:
            yield from _parts(each)
    elif value is None or isinstance(value, str | int | float | bool):
        yield f"{value!r} ".encode()
    else:
        raise TypeError(f"a case gave {type(value).__name__}, which has no hash")
