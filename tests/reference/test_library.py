"""The core as a library, without ComfyUI: the example of its page on diffusers' UNet, and the sites of that UNet."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import image_prompt
import pytest
from image_prompt.ipadapter_core import model_sites
from support.oracle import adapter_sites
from support.parity import LIMIT

ROOT = Path(image_prompt.__path__[0])
PAGE = (ROOT / "docs" / "library.md").read_text(encoding="utf-8")
# Packages that only parts of the pack, or of the core, need.
OTHERS = {
    "PIL",
    "onnxruntime",
    "cv2",
    "transformers",
    "diffusers",
    "torchvision",
    "matplotlib",
    "accelerate",
    "scipy",
}


def example() -> str:
    (code,) = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    return code


@pytest.fixture(scope="module")
def outcome(tmp_path_factory):
    """What tests/helpers/library_example.py found, in a process that sees the core alone, as installed."""
    folder = tmp_path_factory.mktemp("library")
    site = folder / "site"
    site.mkdir()
    (site / "ipadapter_core").symlink_to(ROOT / "ipadapter_core")
    program = folder / "example.py"
    program.write_text(example(), encoding="utf-8")
    script = ROOT / "tests" / "helpers" / "library_example.py"
    paths = os.pathsep.join(map(str, (site, ROOT / "lab")))
    done = subprocess.run(
        [sys.executable, str(script), str(program), str(folder)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": paths},
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_the_example_has_15_lines():
    lines = [line for line in example().splitlines() if line.strip()]
    assert len(lines) <= 15


@pytest.mark.parametrize("family", ["SD1.5", "SDXL"])
def test_the_example_is_diffusers_own_adapter(outcome, family):
    error, effect = outcome["errors"][family]
    assert error <= LIMIT
    assert effect > 1000 * LIMIT


def test_it_runs_without_comfyui(outcome):
    assert outcome["host"] == []
    assert "site/ipadapter_core/__init__.py" in outcome["core"].replace(os.sep, "/")


def test_importing_it_imports_only_what_it_needs(outcome):
    assert {"torch", "safetensors", "einops", "numpy"} <= set(outcome["at import"])
    assert not OTHERS & set(outcome["at import"])


def test_sites_of_diffusers_unet_come_in_its_own_order(twins):
    names = [f"{site.path}.attn2.processor" for site in model_sites(twins.oracle.unet)]
    assert names == list(adapter_sites(twins.oracle.unet))


def test_sites_of_diffusers_unet_are_those_of_the_hosts(twins):
    """All that is known of a site is equal, but its path in the model."""
    ours, theirs = (model_sites(unet) for unet in (twins.model.model.diffusion_model, twins.oracle.unet))
    assert len(ours) == len(theirs) == twins.family.sites
    for a, b in zip(ours, theirs, strict=True):
        assert (a.label, a.stage, a.run_index, a.depth) == (b.label, b.stage, b.run_index, b.depth)
        assert (a.width, a.context_width, a.heads) == (b.width, b.context_width, b.heads)
