"""Pictures of the toy world: one shape on a patterned ground, drawn from signed distances, deterministic by seed."""

import math
from dataclasses import dataclass, fields
from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

SIZE = 96
SHAPES = ("circle", "square", "triangle", "star", "heart", "ring")
TONES = ("pale", "deep")
PATTERNS = ("plain", "striped", "dotted", "checked")
HUES = {
    "red": (-12, 12),
    "orange": (18, 38),
    "yellow": (46, 62),
    "green": (85, 150),
    "cyan": (172, 195),
    "blue": (208, 250),
    "purple": (262, 288),
    "pink": (300, 335),
}
COLOURS = tuple(HUES)
GROUND_RANGES = {"pale": ((0.20, 0.38), (0.92, 1.0)), "deep": ((0.60, 0.85), (0.22, 0.42))}
SHADOW = 0.45
# pixels of a latent cell
CELL = 8
# brightness of a pattern's darker parts; pixels of a dot's radius
DARKER, DOT = 0.66, 4.2
# pixels from a shape's edge within which latents know how far it is
REACH = 10.0
# lightness, red against blue, green against the others; scaled so that latents have std about 1
OPPONENTS = torch.tensor([[1.2, 1.2, 1.2], [2.4, 0.0, -2.4], [-1.6, 3.2, -1.6]])


@dataclass(frozen=True)
class Scenes:
    """n pictures as numbers; every field is a tensor whose first dimension is n."""

    shape: Tensor  # (n,) index into SHAPES
    colour: Tensor  # (n,) index into COLOURS, the shape's
    tone: Tensor  # (n,) index into TONES, the ground's
    ground: Tensor  # (n,) index into COLOURS, the ground's
    pattern: Tensor  # (n,) index into PATTERNS, the ground's
    colour_rgb: Tensor  # (n, 3) in 0..1
    ground_rgb: Tensor  # (n, 3) in 0..1
    centre: Tensor  # (n, 2) pixels, x then y
    radius: Tensor  # (n,) pixels
    turn: Tensor  # (n,) radians

    def __len__(self) -> int:
        return len(self.shape)

    def __getitem__(self, index: slice | Tensor) -> "Scenes":
        return Scenes(**{f.name: getattr(self, f.name)[index] for f in fields(self)})


def make_scenes(n: int, seed: int) -> Scenes:
    """n random scenes; the same seed gives the same scenes."""
    rng = np.random.default_rng(seed)
    colour = rng.integers(len(COLOURS), size=n)
    ground = (colour + rng.integers(1, len(COLOURS), size=n)) % len(COLOURS)
    tone = rng.integers(len(TONES), size=n)
    radius, centre, turn = _placement(n, rng)
    return Scenes(
        shape=torch.from_numpy(rng.integers(len(SHAPES), size=n)),
        colour=torch.from_numpy(colour),
        tone=torch.from_numpy(tone),
        ground=torch.from_numpy(ground),
        pattern=torch.from_numpy(rng.integers(len(PATTERNS), size=n)),
        colour_rgb=_rgb(_hue(colour, rng), rng.uniform(0.72, 0.95, n), rng.uniform(0.86, 1.0, n)),
        ground_rgb=_rgb(_hue(ground, rng), *_ground_levels(tone, rng)),
        centre=centre,
        radius=radius,
        turn=turn,
    )


def replace(scenes: Scenes, seed: int) -> Scenes:
    """The same contents at new places, sizes and angles."""
    radius, centre, turn = _placement(len(scenes), np.random.default_rng(seed))
    kept = {f.name: getattr(scenes, f.name) for f in fields(scenes)}
    return Scenes(**(kept | {"radius": radius, "centre": centre, "turn": turn}))


def captions(scenes: Scenes) -> list[str]:
    """One caption a scene, such as 'red heart on striped pale blue'."""
    rows = zip(scenes.colour, scenes.shape, scenes.pattern, scenes.tone, scenes.ground, strict=True)
    return [f"{COLOURS[a]} {SHAPES[b]} on {PATTERNS[c]} {TONES[d]} {COLOURS[e]}" for a, b, c, d, e in rows]


def render(scenes: Scenes) -> Tensor:
    """Scenes -> anti-aliased pictures (n, 3, 96, 96) in 0..1."""
    return _painted(scenes, _distance(scenes))


def silhouettes(scenes: Scenes) -> Tensor:
    """Each shape in white on black (n, 3, 96, 96): the ControlNet's hint."""
    return _inside(_distance(scenes)).expand(-1, 3, -1, -1).contiguous()


def latents(scenes: Scenes) -> Tensor:
    """The four numbers of every 8x8 cell, (n, 4, 12, 12), mean about 0 and std about 1.

    Three opponent colours of the cell's mean, and how far inside the shape the cell's middle is.
    """
    distance = _distance(scenes)
    means = F.avg_pool2d(_painted(scenes, distance), CELL)
    colours = torch.einsum("oc,nchw->nohw", OPPONENTS, means - 0.5)
    depth = (-F.avg_pool2d(distance, CELL) / REACH).clamp(-1, 1)
    return torch.cat([colours, 1.4 * depth + 0.6], dim=1)


def contact_sheet(pictures: Tensor, columns: int, scale: int = 2) -> Image.Image:
    """Pictures (n, 3, h, w) in 0..1 -> one image, row by row, with a thin white grid."""
    n, _, h, w = pictures.shape
    padded = F.pad(pictures.clamp(0, 1), (2, 2, 2, 2), value=1.0)
    padded = torch.cat([padded, torch.ones(-n % columns, 3, h + 4, w + 4)])
    grid = padded.view(-1, columns, 3, h + 4, w + 4).permute(0, 3, 1, 4, 2)
    array = (grid.reshape(-1, columns * (w + 4), 3) * 255).round().to(torch.uint8).numpy()
    image = Image.fromarray(array)
    return image.resize((image.width * scale, image.height * scale), Image.Resampling.NEAREST)


def _placement(n: int, rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Radius (n,), centre (n, 2) and turn (n,) such that the shape stays inside the picture."""
    radius = rng.uniform(29, 35, n)
    room = (SIZE / 2 - radius - 4) * 0.6
    centre = SIZE / 2 + rng.uniform(-1, 1, (n, 2)) * room[:, None]
    turn = np.radians(rng.uniform(-12, 12, n))
    return torch.from_numpy(radius).float(), torch.from_numpy(centre).float(), torch.from_numpy(turn).float()


def _hue(colour: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    low, high = np.array(list(HUES.values()), dtype=float)[colour].T
    return rng.uniform(low, high) % 360


def _ground_levels(tone: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    ranges = np.array([GROUND_RANGES[name] for name in TONES])[tone]  # (n, 2, 2)
    return rng.uniform(ranges[:, 0, 0], ranges[:, 0, 1]), rng.uniform(ranges[:, 1, 0], ranges[:, 1, 1])


def _rgb(hue: np.ndarray, saturation: np.ndarray, value: np.ndarray) -> Tensor:
    """HSV (degrees, 0..1, 0..1), each (n,) -> RGB (n, 3)."""
    k = (np.array([5.0, 3.0, 1.0]) + hue[:, None] / 60) % 6
    wave = np.clip(np.minimum(k, 4 - k), 0, 1)
    return torch.from_numpy(value[:, None] * (1 - saturation[:, None] * wave)).float()


def _grid() -> tuple[Tensor, Tensor]:
    """Pixel centres as x (1, 96) and y (96, 1)."""
    axis = torch.arange(SIZE) + 0.5
    return axis[None, :], axis[:, None]


@cache
def _patterns() -> Tensor:
    """Brightness of each of PATTERNS (4, 1, 96, 96), 1 or DARKER. One period is two latent cells."""
    x, y = (axis % (2 * CELL) for axis in _grid())
    plain = torch.zeros(SIZE, SIZE)
    striped = (x < CELL).expand(SIZE, SIZE).float()
    dotted = (DOT + 0.5 - torch.hypot(x - CELL / 2, y - CELL / 2)).clamp(0, 1)
    checked = ((x < CELL) ^ (y < CELL)).float()
    return 1 - (1 - DARKER) * torch.stack([plain, striped, dotted, checked])[:, None]


def _painted(scenes: Scenes, distance: Tensor) -> Tensor:
    """Pictures (n, 3, 96, 96) from the signed distances to their shapes."""
    inside = _inside(distance)
    ramp = torch.linspace(1.08, 0.88, SIZE).view(1, 1, SIZE, 1)
    ground = scenes.ground_rgb[..., None, None] * ramp * _patterns()[scenes.pattern]
    ground = ground * (1 - SHADOW * _shadow(inside))
    fill = scenes.colour_rgb[..., None, None] * ramp
    return torch.lerp(ground, fill, inside).clamp(0, 1)


def _inside(distance: Tensor) -> Tensor:
    """How much of each pixel the shape covers (n, 1, 96, 96)."""
    return (0.5 - distance).clamp(0, 1)


def _shadow(inside: Tensor) -> Tensor:
    """Soft drop shadow of a mask (n, 1, 96, 96)."""
    moved = F.pad(inside, (2, 0, 3, 0))[..., :SIZE, :SIZE]
    return F.avg_pool2d(F.avg_pool2d(moved, 5, 1, 2), 5, 1, 2)


def _distance(scenes: Scenes) -> Tensor:
    """Signed distance to each scene's shape in pixels (n, 1, 96, 96), negative inside."""
    gx, gy = _grid()
    x = (gx - scenes.centre[:, 0, None, None]) / scenes.radius[:, None, None]
    y = (scenes.centre[:, 1, None, None] - gy) / scenes.radius[:, None, None]
    c, s = (f(scenes.turn)[:, None, None] for f in (torch.cos, torch.sin))
    x, y = c * x + s * y, c * y - s * x
    distance = torch.empty_like(x)
    for number, name in enumerate(SHAPES):
        rows = scenes.shape == number
        distance[rows] = _DISTANCES[name](x[rows], y[rows])
    return (distance * scenes.radius[:, None, None])[:, None]


def _circle(x: Tensor, y: Tensor) -> Tensor:
    return torch.hypot(x, y) - 0.88


def _square(x: Tensor, y: Tensor) -> Tensor:
    return torch.maximum(x.abs(), y.abs()) - 0.76


def _triangle(x: Tensor, y: Tensor) -> Tensor:
    slope = math.sqrt(3) / 2
    return torch.maximum(slope * x.abs() + y / 2, -y) - 0.55


def _star(x: Tensor, y: Tensor) -> Tensor:
    step = math.pi / 5
    angle = ((torch.atan2(x, y) + step) % (2 * step) - step).abs()
    radius = torch.hypot(x, y)
    along, across = radius * angle.cos(), radius * angle.sin()
    tip, notch = (1.05, 0.0), (0.48 * math.cos(step), 0.48 * math.sin(step))
    edge = (notch[0] - tip[0], notch[1] - tip[1])
    return (edge[1] * (along - tip[0]) - edge[0] * across) / math.hypot(*edge)


def _heart(x: Tensor, y: Tensor) -> Tensor:
    half = 0.52
    u, v = (x + y) / math.sqrt(2) + 0.12, (y - x) / math.sqrt(2) + 0.12
    body = torch.maximum(u.abs(), v.abs()) - half
    lobes = torch.minimum(torch.hypot(u - half, v), torch.hypot(u, v - half)) - half
    return torch.minimum(body, lobes)


def _ring(x: Tensor, y: Tensor) -> Tensor:
    return (torch.hypot(x, y) - 0.68).abs() - 0.25


_DISTANCES = {
    "circle": _circle,
    "square": _square,
    "triangle": _triangle,
    "star": _star,
    "heart": _heart,
    "ring": _ring,
}
