"""For tests of the evaluation: pictures, workflows, the command."""

import json
import sys
from pathlib import Path

import torch
from image_prompt.evaluation import command as cli
from PIL import Image
from support import tiny

COMMAND = [
    sys.executable,
    str(Path(__file__).parent / "command.py"),
    "evaluate",
]
GRAPH = {
    "1": {"class_type": "LoadImage", "inputs": {"image": "example.png"}},
    "2": {"class_type": "CLIPTextEncode", "inputs": {"text": "a cat", "clip": ["4", 1]}},
    "3": {"class_type": "KSampler", "inputs": {"seed": 5, "steps": 20, "cfg": 7.5, "add_noise": True}},
    "5": {"class_type": "SaveImage", "inputs": {"images": ["3", 0]}},
}


def painted(folder: Path, *names: str) -> Path:
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.effect_noise((40 + number, 40), 60).convert("RGB").save(folder / name)
    return folder


def workflow(tmp_path: Path, graph: object = GRAPH) -> Path:
    path = tmp_path / "flow.json"
    path.write_text(graph if isinstance(graph, str) else json.dumps(graph))
    return path


def score(references: Path, out: Path, clip: Path, *more: str) -> int:
    return cli.main(["score", "--references", str(references), "--out", str(out), "--clip", str(clip), *more])


def sentence(text: str) -> str:
    assert text.isprintable(), ascii(text)
    assert len(text) < 700
    assert text.endswith(".")
    return text


def picture(seed: int, side: int = 48) -> Image.Image:
    return Image.fromarray((tiny.picture(seed, side, side)[0] * 255).round().to(torch.uint8).numpy())


def saved(folder: Path, *names: str) -> Path:
    for seed, name in enumerate(names, 50):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        picture(seed).save(folder / name)
    return folder


def captioned(folder: Path) -> Path:
    """Three references with captions."""
    folder.mkdir()
    for seed, name in enumerate(("cat", "dog_1", "owl")):
        picture(seed).save(folder / f"{name}.png")
        (folder / f"{name}.txt").write_text(f"a {name}\nan animal\n")
    return folder
