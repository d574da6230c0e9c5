"""The pack's commands as users start them."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path


def started(comfyui: Path, missing: Sequence[str], *arguments: str):
    """The doctor in a process of its own, in which modules are missing."""
    blocked = comfyui / "blocked"
    blocked.mkdir()
    for name in missing:
        (blocked / f"{name}.py").write_text(f"raise ModuleNotFoundError('{name} is not here', name='{name}')")
    return subprocess.run(
        [sys.executable, "custom_nodes/image-prompt", "doctor", *arguments],
        cwd=comfyui,
        env=os.environ | {"PYTHONPATH": str(blocked)},
        capture_output=True,
        text=True,
        check=False,
    )
