"""What the numbers of a run depend on."""

from __future__ import annotations

import os
import platform
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch


def machine(host: str, device: torch.device, rounds: int) -> dict[str, Any]:
    """What the numbers depend on. No paths."""
    on_gpu = device.type == "cuda"
    return {
        "processor": _processor(),
        "device": torch.cuda.get_device_name(device) if on_gpu else "cpu",
        "timed_in": "fp16" if on_gpu else "fp32",
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "comfyui": host,
        "rounds": rounds,
        "date": datetime.now(timezone.utc).date().isoformat(),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def host_version() -> str:
    """Of the checkout, by its own version file; a wheel carries none."""
    path = os.environ.get("COMFYUI_PATH")
    if not path:
        return "installed wheel"
    file = Path(path) / "comfyui_version.py"
    lines = file.read_text().splitlines() if file.is_file() else []
    versions = [line.split('"')[1] for line in lines if line.startswith("__version__")]
    return versions[0] if versions else "checkout without a version"
