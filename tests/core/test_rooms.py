"""The rooms of the core: which module may import which, and that none needs ComfyUI."""

import ast
import subprocess
import sys
from pathlib import Path

import image_prompt
import pytest

ROOT = Path(image_prompt.__path__[0])
CORE = ROOT / "ipadapter_core"
# A module imports from rows above its own only. A new module gets its place here.
FLOORS: tuple[set[str], ...] = (
    {"errors"},
    {"checkpoint", "projections", "masking", "pixels"},
    {"variants", "attention"},
    {"adapter", "sites"},
    {"prompt", "weighting"},
)
FLOOR = {module: floor for floor, modules in enumerate(FLOORS) for module in modules}
LIBRARIES = {"torch", "safetensors", "einops", "numpy"} | sys.stdlib_module_names
MODULES = sorted(path.stem for path in CORE.glob("*.py") if path.stem != "__init__")


def imports(module: str) -> tuple[set[str], set[str]]:
    """(names of packages, names of sibling modules) that a module imports anywhere in it."""
    packages: set[str] = set()
    siblings: set[str] = set()
    for node in ast.walk(ast.parse((CORE / f"{module}.py").read_text())):
        if isinstance(node, ast.Import):
            packages |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level <= 1, f"{module} reaches out of the core"
            if node.level and node.module:
                siblings.add(node.module.split(".")[0])
            elif node.level:
                siblings |= {alias.name for alias in node.names}
            else:
                packages.add((node.module or "").split(".")[0])
    return packages, siblings


def test_every_module_has_its_place():
    assert set(MODULES) == set(FLOOR)


@pytest.mark.parametrize("module", ["__init__", *MODULES])
def test_the_core_knows_nothing_of_the_host(module: str):
    packages, _ = imports(module)
    assert not packages & {"comfy", "folder_paths", "nodes", "server", "execution"}
    assert packages <= LIBRARIES


@pytest.mark.parametrize("module", MODULES)
def test_imports_go_down_only(module: str):
    _, siblings = imports(module)
    assert {name for name in siblings if FLOOR[name] >= FLOOR[module]} == set()


def test_the_core_works_where_there_is_no_comfyui():
    """In a fresh interpreter in which importing the host raises: from tensors to K'/V'."""
    program = f"""
import sys
sys.path[:0] = [{str(ROOT)!r}]
for name in ("comfy", "folder_paths", "nodes", "server", "torchvision", "transformers"):
    sys.modules[name] = None  # importing it raises ImportError
from importlib import import_module
for name in {MODULES!r}:
    import_module("ipadapter_core." + name)
import torch
from ipadapter_core.adapter import Adapter
from ipadapter_core.checkpoint import Checkpoint
from ipadapter_core.prompt import make_prompt
proj = {{"proj.weight": torch.ones(32, 4), "proj.bias": torch.ones(32)}}
proj |= {{"norm.weight": torch.ones(8), "norm.bias": torch.ones(8)}}
file = Checkpoint("x", proj, {{"1.to_k_ip.weight": torch.ones(6, 8), "1.to_v_ip.weight": torch.ones(6, 8)}})
adapter = Adapter(file).take(file)
tokens = adapter.project(torch.zeros(2, 4))
print([tuple(t.shape) for t in make_prompt(adapter, tokens[:1], tokens[1:]).keys_values[0]])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "[(2, 4, 6), (2, 4, 6)]", done.stderr
