"""What the demo shows, counted over references that no training saw."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..toy import reader, world
from ..toy import text as language
from .gallery import LAYOUT_TEXT, STYLE_TEXT, WEIGHTS, side_by_side
from .studio import Part, Scene, Studio

HELD_OUT = 987_654
# pictures made at once
BATCH = 16
# between the colours of two references that share a picture, in RGB of 0..1
APART = 0.5


@dataclass
class Figures:
    """studio: that makes the pictures. judge: that reads them."""

    studio: Studio
    judge: reader.Reader = field(default_factory=reader.load_reader)

    def kept(
        self, scenes: world.Scenes, weight_type: str = "linear", text: str = "", weight: float = 1.0
    ) -> dict[str, Tensor]:
        """Which results show the shape and the pattern of the reference, and those that the text names: booleans
        (n,) each.
        """
        shape, pattern = self._read(scenes, weight_type, text, weight)
        found = {"the reference's shape": shape == scenes.shape, "its pattern": pattern == scenes.pattern}
        wanted = language.scene_of(text)
        if "shape" in wanted:
            found["the text's shape"] = shape == world.SHAPES.index(wanted["shape"])
        if "pattern" in wanted:
            found["the text's pattern"] = pattern == world.PATTERNS.index(wanted["pattern"])
        return found

    def likeness(self, scenes: world.Scenes, weight: float) -> float:
        """Toy CLIP-I: mean cosine of the image embeddings of results and references."""
        pictures = world.render(scenes).movedim(1, -1)
        return self.studio.similarity(self._make(pictures, weight), pictures).mean().item()

    def _read(
        self, scenes: world.Scenes, weight_type: str, text: str, weight: float
    ) -> tuple[Tensor, Tensor]:
        made = self._make(world.render(scenes).movedim(1, -1), weight, weight_type, text)
        return reader.read(self.judge, made)

    def _make(self, pictures: Tensor, weight: float, weight_type: str = "linear", text: str = "") -> Tensor:
        """A result for each reference."""
        made = [
            self.studio.make(
                Scene((Part(part, weight, weight_type=weight_type),), text, pictures=len(part), seed=seed)
            )
            for seed, part in enumerate(pictures.split(BATCH), 1)
        ]
        return torch.cat(made)

    def shares(self, a: world.Scenes, b: world.Scenes) -> Tensor:
        """Two references (one scene each), a left and b right -> of the colours of both shapes and both grounds, the part
        inside the own half (4,).
        """
        left, right = (world.render(scene).movedim(1, -1) for scene in (a, b))
        made = side_by_side(self.studio, left, right)[0]
        half = torch.zeros(made.shape[:2], dtype=torch.bool)
        half[:, : made.shape[1] // 2] = True
        colours = torch.cat([a.colour_rgb, b.colour_rgb, a.ground_rgb, b.ground_rgb])
        return reader.shares(made, colours, torch.stack([half, ~half, half, ~half]))


def pairs(count: int, seed: int = HELD_OUT) -> list[tuple[world.Scenes, world.Scenes]]:
    """References that can be told apart: no colour of the one is near a colour of the other."""
    found: list[tuple[world.Scenes, world.Scenes]] = []
    while len(found) < count:
        seed += 1
        scenes = world.make_scenes(2, seed)
        colours = torch.stack([scenes.colour_rgb, scenes.ground_rgb], dim=1)
        if torch.cdist(colours[0], colours[1]).min() > APART:
            found.append((scenes[:1], scenes[1:]))
    return found


def report_in_short(studio: Studio, count: int) -> str:
    """Likeness by weight, and what is recognised without and with the image prompt, as lines."""
    figures, scenes = Figures(studio), world.make_scenes(count, HELD_OUT)
    by_weight = (f"{weight:g}: {figures.likeness(scenes, weight):.3f}" for weight in WEIGHTS)
    lines = [f"{count} references", f"likeness by weight: {', '.join(by_weight)}"]
    for weight in (0.0, 1.0):
        kept = figures.kept(scenes, weight=weight)
        counts = ", ".join(f"{what} in {int(right.sum())}" for what, right in kept.items())
        lines.append(f"weight {weight:g}, no text: {counts}")
    return "\n".join(lines)


def report(studio: Studio, count: int) -> str:
    """The counts, as lines."""
    figures, scenes = Figures(studio), world.make_scenes(count, HELD_OUT)
    by_weight = (f"{weight:g}: {figures.likeness(scenes, weight):.2f}" for weight in WEIGHTS)
    lines = [f"{count} references", f"likeness by weight: {', '.join(by_weight)}"]
    for name, kind, text in (
        ("weight 1, no text", "linear", ""),
        (f"style only, “{STYLE_TEXT}”", "style transfer", STYLE_TEXT),
        (f"composition only, “{LAYOUT_TEXT}”", "composition", LAYOUT_TEXT),
    ):
        kept = figures.kept(scenes, kind, text)
        counts = ", ".join(f"{what} in {int(right.sum())}" for what, right in kept.items())
        lines.append(f"{name}: {counts}")
    shares = torch.stack([figures.shares(a, b) for a, b in pairs(count // 2)])
    means = ", ".join(f"{share:.3f}" for share in shares.mean(0).tolist())
    whole = int((shares >= 0.9).all(1).sum())
    lines.append(
        f"two regions, {len(shares)} pairs: inside its half, of the shapes' colours A and B and the grounds' A and B: "
        f"{means}; all four at least 0.9 in {whole}"
    )
    return "\n".join(lines)
