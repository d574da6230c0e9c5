"""The core as a library: its public names, what importing it brings, and what pip installs."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import image_prompt
import pytest
import torch
from core.small import CONTEXT, FEATURE, WIDTHS, checkpoint, flat, randn
from image_prompt import ipadapter_core
from image_prompt.ipadapter_core import adapter as adapters
from image_prompt.ipadapter_core.packages import PACKAGES
from safetensors.torch import save_file

ROOT = Path(image_prompt.__path__[0])
ROOMS = ("nodes", "host", "training", "evaluation", "doctor", "model_files", "lab", "tests", "ipadapter_core")
# What only some users need, and what is no part of the way from a file to the residual.
HEAVY = {
    "comfy",
    "PIL",
    "onnxruntime",
    "cv2",
    "transformers",
    "diffusers",
    "torchvision",
    "accelerate",
    "matplotlib",
}
OTHER_PARTS = ("faces", "metrics", "pictures", "training")


def test_the_public_names_are_all_there_and_in_order():
    names = ipadapter_core.__all__
    assert names == sorted(names, key=lambda name: (not name.isupper(), name[0].islower(), name))
    assert all(hasattr(ipadapter_core, name) for name in names)


@pytest.mark.parametrize("name", ipadapter_core.__all__)
def test_public_names_are_explained(name: str):
    """A class or function by a docstring of its own; a constant or alias by the line where it is defined."""
    public = getattr(ipadapter_core, name)
    if isinstance(public, type) or callable(public):
        own = vars(public).get("__doc__") if isinstance(public, type) else public.__doc__
        assert own
        assert not own.startswith(f"{name}(")  # what a dataclass writes where there is none


def in_a_fresh_process(program: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", f"import sys\nsys.path.insert(0, {str(ROOT)!r})\n{program}"],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT.parent,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_it_is_quick_because_it_brings_little():
    """torch takes seconds; beside it, nothing heavy and no other part of the core is imported."""
    loaded = set(
        json.loads(in_a_fresh_process("import ipadapter_core, json; print(json.dumps([*sys.modules]))"))
    )
    assert not HEAVY & {name.split(".")[0] for name in loaded}
    assert not [name for part in OTHER_PARTS if (name := f"ipadapter_core.{part}") in loaded]
    assert {"ipadapter_core.adapter", "ipadapter_core.prompt_file"} <= loaded


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_an_adapter_is_loaded_from_a_path_in_one_call(dtype: torch.dtype, tmp_path: Path):
    path = tmp_path / "small.safetensors"
    save_file(flat("base", dtype), path)
    made = ipadapter_core.load_adapter(path)
    assert made.name == "small.safetensors"
    assert made.spec.variant is ipadapter_core.Variant.BASE
    assert {parameter.dtype for parameter in made.parameters()} == {torch.float32}
    file = checkpoint("base", dtype)
    expected = adapters.Adapter(file).load_checkpoint(file)
    assert made.digest == expected.digest
    tokens = made.project(ipadapter_core.Features(randn(2, FEATURE)))
    assert [k.shape for k, _ in made.keys_values(tokens)] == [(2, 4, width) for width in WIDTHS]
    for ours, theirs in zip(made.parameters(), expected.parameters(), strict=True):
        assert torch.equal(ours, theirs.float())


def test_a_variant_that_it_cannot_be_is_refused(tmp_path: Path):
    path = tmp_path / "small.safetensors"
    save_file(flat(), path)
    with pytest.raises(ipadapter_core.SettingError, match="cannot be 'instantid'"):
        ipadapter_core.load_adapter(path, ipadapter_core.Variant.INSTANTID)


def test_a_missing_file_is_refused(tmp_path: Path):
    with pytest.raises(ipadapter_core.MissingFileError, match=r"gone\.safetensors does not exist"):
        ipadapter_core.load_adapter(tmp_path / "gone.safetensors")


def test_a_prompt_comes_back_from_its_file(tmp_path: Path):
    save_file(flat(), tmp_path / "small.safetensors")
    made = ipadapter_core.load_adapter(tmp_path / "small.safetensors")
    tokens = randn(2, 4, CONTEXT)
    prompt = ipadapter_core.make_prompt(made, tokens[:1], tokens[1:])
    both = ipadapter_core.combine([prompt, prompt], ipadapter_core.Combine.CONCAT, (1, 0.5))
    ipadapter_core.save_prompt(both, tmp_path / "prompt.safetensors")
    assert torch.equal(ipadapter_core.load_prompt(made, tmp_path / "prompt.safetensors").cond, both.cond)


def test_what_is_installed_is_the_core_alone(tmp_path: Path):
    """By the build's own step that gathers a wheel's files, without network, on a copy with all rooms."""
    source, out = tmp_path / "source", tmp_path / "out"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE", "__init__.py", "__main__.py"):
        shutil.copy(ROOT / name, source)
    for room in ROOMS:
        shutil.copytree(
            ROOT / room, source / room, ignore=shutil.ignore_patterns("__pycache__", "*.safetensors")
        )
    build = f"""
import json
from setuptools import setup
made = setup(script_args=["-q", "build_py", "--build-lib", {str(out)!r}])
print(json.dumps([made.get_name(), made.install_requires, made.extras_require]))
"""
    done = subprocess.run(
        [sys.executable, "-c", build], capture_output=True, text=True, check=False, cwd=source
    )
    assert done.returncode == 0, done.stderr
    name, required, extras = json.loads(done.stdout)
    assert (name, required) == ("image-prompt", ["torch", "safetensors", "einops", "numpy"])
    # what a missing package's message names is in an extra
    assert {pip for pip, _ in PACKAGES.values()} <= {package for each in extras.values() for package in each}
    installed = [path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()]
    sources = [path.relative_to(ROOT).as_posix() for path in (ROOT / "ipadapter_core").rglob("*.py")]
    assert sorted(installed) == sorted([*sources, "ipadapter_core/py.typed"])
