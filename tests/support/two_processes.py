"""One of several processes of a training run, started by accelerate: arguments are the recipe as JSON and a folder."""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

from demo.bootstrap import ROOT, pack_package, start_host


def main(recipe_as_json: str, folder: Path) -> None:
    start_host()
    pack_package()
    sys.path.insert(0, str(ROOT / "tests"))
    # only now: they import the host's code
    from image_prompt.ipadapter_core.training.recipe import Recipe

    from support import tiny
    from support.training import Remembers, TinyBase, trainer

    recipe = Recipe.of(json.loads(recipe_as_json))
    made = trainer(recipe, TinyBase(tiny.SD15, tiny.host_model(tiny.SD15), tiny.clip_vision()), folder)
    seen = Remembers()
    made.run(seen)
    assert made.accelerator.num_processes == 2
    if made.accelerator.is_main_process:
        (folder / "losses.json").write_text(json.dumps(seen.losses))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
