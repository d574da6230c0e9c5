"""`python custom_nodes/image-prompt/doctor`, or `python -m doctor` in the pack's folder."""

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).absolute().parent.parent))
    from bootstrap import run

    sys.exit(run("doctor.cli"))
