"""A run that is killed at random moments, again and again: arguments are a folder, a seed, and how often."""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

from lab.bootstrap import ROOT, pack_package


def killed(folder: Path, seed: int, times: int) -> None:
    """Prints where each run went on from, and at last whether it ended where an undisturbed one does."""
    pack_package()
    sys.path.insert(0, str(ROOT / "tests"))
    # only now: they import the pack
    import torch
    from image_prompt.training.callbacks import Callback

    from helpers.quick_trainer import quick, weights

    torch.set_num_threads(1)  # a process with threads is not to be forked
    quick(folder / "warm", steps=1).run(Callback())  # so that no child imports
    chance, least = random.Random(seed), 0
    for _ in range(times):
        reader, writer = os.pipe()
        child = os.fork()
        if not child:
            made = quick(folder)
            os.write(writer, bytes([made.resume()]))
            made.run(Callback())
            os._exit(0)
        os.close(writer)
        began = os.read(reader, 1)
        assert began, "the run did not go on"
        assert began[0] >= least, f"steps were lost: {began[0]} after {least}"
        time.sleep(chance.random() * 0.15)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(reader)
        least = began[0]
        sys.stdout.write(f"{began[0]}\n")
    made = quick(folder)
    made.resume()
    made.run(Callback())
    whole = quick(folder / "whole", every=0)
    whole.run(Callback())
    assert torch.equal(weights(made), weights(whole))
    sys.stdout.write("the same\n")


if __name__ == "__main__":
    killed(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
