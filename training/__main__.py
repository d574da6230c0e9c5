"""`python custom_nodes/image-prompt/training --config train.yaml`, or `python -m training` in the pack's folder."""

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).absolute().parent.parent))
    from bootstrap import run

    sys.exit(run("commands.train"))
