"""The rooms of the core: which module may import which, and that none needs ComfyUI."""

import ast
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import image_prompt
import pytest

ROOT = Path(image_prompt.__path__[0])
CORE = ROOT / "ipadapter_core"
# A module imports from rows above its own only. A new module gets its place here.
FLOORS: tuple[set[str], ...] = (
    {"errors"},
    {"values", "packages", "foreign", "siglip", "variant"},
    {"files.writing", "blocks"},
    {"files.stored", "files.paths"},
    {"files.header", "files.rebuilt"},
    {"files.unpickle"},
    {"files.pickled"},
    {"checkpoint", "features", "masking", "regions", "rows", "scaling", "timing"},
    {"families.site", "families.weights"},
    {"families.family"},
    {"families.unet", "families.flux", "families.sd3", "families.qwen", "families.lumina"},
    {"families.table"},
    {"projections.base"},
    {"projections.linear", "projections.resampler", "spec"},
    {"projections.faceid", "projections.timed"},
    {"projections.pooled"},
    {"variants", "attention", "families.matching", "joint_pairs", "heatmap"},
    {"adapter", "stacking"},
    {"joint"},
    {"lora", "prompt", "weighting"},
    {"combine", "prompt_file"},
    {"pictures.preprocessing", "pictures.lists", "pictures.reading", "pictures.sheets", "pictures.heat"},
    {"faces.runtime", "faces.graphs"},
    {"faces.sessions", "faces.detection", "faces.identity"},
    {"faces.selection"},
    {"faces.analysis"},
    {"faces.detect"},
    {"training.config", "training.export", "training.residuals"},
    {"training.objective", "training.kinds", "training.precision"},
    {"training.flow", "training.noise", "training.starts"},
    {"training.batches", "training.lora"},
    {"training.trainable"},
    {"training.base"},
    {"metrics.captions", "metrics.bootstrap", "metrics.published"},
    {"metrics.scores"},
)
FLOOR = {module: floor for floor, modules in enumerate(FLOORS) for module in modules}
LIBRARIES = {"torch", "safetensors", "einops", "numpy"} | sys.stdlib_module_names
# Imported by name, when they are needed, through one module.
OPTIONAL = {"onnxruntime", "cv2", "accelerate", "matplotlib", "tensorboard", "transformers"} | {
    "bitsandbytes",
    "prodigyopt",
    "torchmetrics",
}
DOORS = {"packages": OPTIONAL, "faces.runtime": {"onnxruntime", "cv2"}}  # the second asks the first for them
PILLOW = {"pictures.reading", "pictures.sheets"}  # Pillow, which every ComfyUI has, reads and writes pictures
MODULES = sorted(
    ".".join(path.relative_to(CORE).with_suffix("").parts)
    for path in CORE.rglob("*.py")
    if path.stem != "__init__"
)


def source(module: str) -> ast.Module:
    return ast.parse((CORE / module.replace(".", "/")).with_suffix(".py").read_text(encoding="utf-8"))


def imports(module: str) -> tuple[set[str], set[str]]:
    """(names of packages, names of modules of the core) that a module imports anywhere in it."""
    packages: set[str] = set()
    siblings: set[str] = set()
    for node in ast.walk(source(module)):
        if isinstance(node, ast.Import):
            packages |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            parents = module.split(".")
            assert node.level <= len(parents), f"{module} reaches out of the core"
            if node.level:
                room = [*parents[: len(parents) - node.level], *(node.module or "").split(".")]
                name = ".".join(part for part in room if part)
                siblings |= {name} if node.module else {f"{name}.{a.name}".strip(".") for a in node.names}
            else:
                packages.add((node.module or "").split(".")[0])
    return packages, siblings


def test_every_module_has_its_place():
    assert set(MODULES) == set(FLOOR)


def test_the_core_knows_nothing_of_the_host():
    for module in ("__init__", *MODULES):
        packages, _ = imports(module)
        beyond = packages - LIBRARIES - ({"PIL"} if module in PILLOW else set())
        assert beyond == set(), module


def test_imports_go_down_only():
    upwards = {
        (module, name) for module in MODULES for name in imports(module)[1] if FLOOR[name] >= FLOOR[module]
    }
    assert upwards == set()


def test_optional_packages_have_one_door():
    for module in ("__init__", *MODULES):
        named = {node.value for node in ast.walk(source(module)) if isinstance(node, ast.Constant)} & OPTIONAL
        assert named == DOORS.get(module, set()), module


# From top to bottom; a room imports from rooms below it only. The laboratory and the tests stand outside.
ROOMS = (
    {"nodes"},
    {"training", "evaluation", "doctor"},
    {"__main__"},
    {"host"},
    {"model_files"},
    {"ipadapter_core"},
)


def files_of(room: str) -> list[Path]:
    return [ROOT / f"{room}.py"] if (ROOT / f"{room}.py").is_file() else sorted((ROOT / room).rglob("*.py"))


def reached(path: Path) -> set[str]:
    """The rooms that this file imports from."""
    depth = len(path.relative_to(ROOT).parts)
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level == depth:
            names |= {node.module.split(".")[0]} if node.module else {alias.name for alias in node.names}
    return names


def test_rooms_import_from_rooms_below_them_only():
    level = {name: floor for floor, names in enumerate(ROOMS) for name in names}
    for room in level:
        for path in files_of(room):
            assert {name for name in reached(path) if level[name] <= level[room]} == set(), path


@pytest.mark.parametrize("name", ["comfy", "comfy.model_management", "folder_paths", "nodes", "server"])
def test_no_test_of_the_core_gets_at_comfyui(name: str):
    """Not even where tests of other folders have loaded it into this process."""
    assert name not in sys.modules
    with pytest.raises(ModuleNotFoundError, match="goes to tests/host"):
        import_module(name)


def test_the_core_works_where_there_is_no_comfyui():
    """In a fresh interpreter in which importing the host raises: from tensors to K'/V'."""
    program = f"""
import sys
sys.path[:0] = [{str(ROOT)!r}]
for name in ("comfy", "folder_paths", "nodes", "server", "torchvision", "transformers", "onnxruntime", "cv2"):
    sys.modules[name] = None  # importing it raises ImportError
from importlib import import_module
for name in {MODULES!r}:
    import_module("ipadapter_core." + name)
import torch
from ipadapter_core.adapter import Adapter
from ipadapter_core.checkpoint import Checkpoint
from ipadapter_core.features import Features
from ipadapter_core.prompt import make_prompt
proj = {{"proj.weight": torch.ones(32, 4), "proj.bias": torch.ones(32)}}
proj |= {{"norm.weight": torch.ones(8), "norm.bias": torch.ones(8)}}
file = Checkpoint("x", proj, {{"1.to_k_ip.weight": torch.ones(6, 8), "1.to_v_ip.weight": torch.ones(6, 8)}})
adapter = Adapter(file).load_checkpoint(file)
tokens = adapter.project(Features(torch.zeros(2, 4)))
print([tuple(t.shape) for t in make_prompt(adapter, tokens[:1], tokens[1:]).keys_values[0]])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "[(2, 4, 6), (2, 4, 6)]", done.stderr
