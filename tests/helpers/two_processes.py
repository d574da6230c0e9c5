"""One of several processes of two training runs, started by accelerate: arguments are the config as JSON, a folder, and the
number of the batch whose loss is no number on the second process. The first run is whole, in `whole`; then one with that
loss, in `broken`."""

import json
import subprocess
import sys
from pathlib import Path


def main(config_as_json: str, folder: Path, broken: int) -> None:
    # not for those who import this: the repository's `nodes` would hide the host's
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))
    from lab.bootstrap import ROOT, pack_package, start_host

    start_host()
    pack_package()
    sys.path.insert(0, str(ROOT / "tests"))
    # only now: they import the host's code
    from image_prompt.ipadapter_core.training.config import TrainingConfig
    from support import tiny

    from helpers.training import Remembers, TinyBase, faces_of_colour, trainer

    config = TrainingConfig.from_dict(json.loads(config_as_json))
    base = TinyBase(tiny.SD15, tiny.host_model(tiny.SD15), tiny.clip_vision())
    with faces_of_colour(base):
        made, seen = trainer(config, base, folder / "whole"), Remembers()
        made.run(seen)
        assert made.accelerator.num_processes == 2
        if made.accelerator.is_main_process:
            (folder / "losses.json").write_text(json.dumps(seen.losses))
        made = trainer(config, base, folder / "broken")
        loss = made._loss
        if made.accelerator.process_index == 1:
            made._loss = lambda batch: loss(batch) * (float("nan") if batch == broken else 1.0)
        made.run(Remembers())


def launch(config: dict, folder: Path, broken: int) -> subprocess.CompletedProcess:
    """Both processes, over gloo on the CPU."""
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc_per_node",
        "2",
        "--standalone",
        __file__,
    ]
    given = [*command, json.dumps(config), str(folder), str(broken)]
    return subprocess.run(given, capture_output=True, text=True, check=False, timeout=300)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
