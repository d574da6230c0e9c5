"""`python custom_nodes/image-prompt/doctor`, or `python -m doctor` in the pack's folder."""

import importlib
import sys
import types
from pathlib import Path

PACK = "image_prompt"


def load_pack() -> None:
    """This repository as a package, without its node registration, which needs ComfyUI."""
    package = types.ModuleType(PACK)
    package.__path__ = [
        str(Path(__file__).absolute().parent.parent)
    ]  # unresolved: it may be a link in custom_nodes
    sys.modules.setdefault(PACK, package)


if __name__ == "__main__":
    load_pack()
    sys.exit(importlib.import_module(f"{PACK}.doctor.cli").main())
