"""Run one of this pack's commands in a process of its own: python command.py PATH ARGUMENTS...

The machines of the tests may have a torchvision that was compiled for another torch; users' have not.
"""

import runpy
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from lab.bootstrap import allow_torchvision

allow_torchvision()
sys.argv[:] = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
