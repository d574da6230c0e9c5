"""Run one of this pack's commands in a process of its own: python command.py COMMAND ARGUMENTS...

The machines of the tests may have a torchvision that was compiled for another torch; users' have not.
"""

import runpy
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from lab.bootstrap import ROOT, allow_torchvision

allow_torchvision()
runpy.run_path(str(ROOT / "__main__.py"), run_name="__main__")
