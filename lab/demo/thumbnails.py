"""The templates' small pictures, each a result of the toy world by what its template does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from ..toy import models as toy
from .card import AMBER, BLUE, EDGE, PANEL, SIDE, Card
from .gallery import LAYOUT_TEXT, STYLE_TEXT, halves
from .heatmap import watched
from .sheet import reference, references, silhouette
from .studio import Part, Scene, Studio, empty, node

# seeds of world.py
HEART, RING, STAR, CIRCLE, TRIANGLE = 40, 28, 74, 17, 36
# of faces, the auto loader, Flux.1 and SD3.5: nothing here can show them, so they are drawn by hand and say "sketch"
SKETCHES = (17, 18, 19, 20, 24, 25, 26, 29)
QUALITY = 88
MIDDLE = SIDE / 2
Paint = Callable[[Card, Studio], None]


def write(studio: Studio, folder: Path, numbers: list[int] | None = None) -> list[Path]:
    """Paint the pictures of these templates (default: all that can be painted) beside their graphs in `folder`."""
    paths = {int(path.stem.split(" ")[0]): path.with_suffix(".jpg") for path in folder.glob("*.json")}
    done: list[Path] = []
    for number in numbers or PAINTS:
        painted(studio, number).save(paths[number], quality=QUALITY, optimize=True)
        done.append(paths[number])
    return done


def painted(studio: Studio, number: int) -> Image.Image:
    card = Card()
    PAINTS[number](card, studio)
    return card.finished()


# --- layouts ----------------------------------------------------------------------------------------------------------


def _into(card: Card, inputs: list[tuple[Tensor, str]], result: Tensor, text: str = "") -> None:
    """References on the left, one below the other, and the text below; an arrow; the result."""
    side = 112 if len(inputs) > 1 else 136
    step = side + 34
    top = MIDDLE - (step * len(inputs) + (34 if text else -8)) / 2
    for n, (picture, label) in enumerate(inputs):
        card.picture(picture, 26, top + n * step, side, label)
    if text:
        card.words(26 + side / 2, top + len(inputs) * step + 4, text)
    left = 26 + side + 14
    card.arrow(left, MIDDLE, 30)
    room = SIDE - left - 44 - 22
    card.picture(result, left + 44, MIDDLE - room / 2, room, "result")


def _onto_row(
    card: Card, inputs: list[tuple[Tensor, str]], results: list[tuple[Tensor, str]], line: str
) -> None:
    """References above, an arrow down, a row of results with what each is, a line below."""
    side, gap = 104.0, 24.0
    x = MIDDLE - (len(inputs) * (side + gap) - gap) / 2
    for picture, label in inputs:
        x = card.picture(picture, x, 24, side, label) + gap
    card.arrow(MIDDLE, 162, 28, down=True)
    gap = 10
    side = min(116.0, (SIDE - 24 - gap * (len(results) - 1)) / len(results))
    x = MIDDLE - (len(results) * (side + gap) - gap) / 2
    for picture, label in results:
        x = card.picture(picture, x, 206, side, label) + gap
    card.write(MIDDLE, 366, line, 16)


# --- one a template ---------------------------------------------------------------------------------------------------


def _simplest(card: Card, studio: Studio) -> None:
    image = reference(HEART)
    _into(
        card,
        [(image, "image")],
        studio.make(Scene((Part(image, 0.3),), text="triangle")),
        "“triangle”",
    )


def _full_control(card: Card, studio: Studio) -> None:
    image = reference(STAR)
    scenes = {w: Scene((Part(image, w, weight_type="ease in"),), "ring") for w in (0.0, 0.4, 0.8)}
    made = [(studio.make(scene), f"weight {weight:g}") for weight, scene in scenes.items()]
    _onto_row(card, [(image, "image")], made, "beside the text “ring”")


def _several(card: Card, studio: Studio) -> None:
    one, two = reference(HEART), reference(RING)
    prompt = studio.encode(torch.cat((one, two)), image_weights="1, 0.6")
    _into(card, [(one, "image 1"), (two, "image 2, 0.6")], _applied(studio, prompt, Scene()))


def _combined(card: Card, studio: Studio) -> None:
    one, two = reference(CIRCLE), reference(TRIANGLE)
    a, b = studio.encode(one), studio.encode(two)
    weights = ((1.0, 0.0), (1.0, 0.5), (0.5, 1.0), (0.0, 1.0))
    nothing = dict.fromkeys(("weight_3", "weight_4", "weight_5"), 1.0)
    made = []
    for first, second in weights:
        blend = node("ImagePromptCombine")(
            a, "norm average", first, image_prompt_2=b, weight_2=second, **nothing
        )
        made.append((_applied(studio, blend[0], Scene()), f"{first:g} : {second:g}"))
    _onto_row(card, [(one, "image 1"), (two, "image 2")], made, "blends, image 1 : image 2")


def _regions(card: Card, studio: Studio) -> None:
    left, right = reference(HEART), reference(STAR)
    size = toy.LATENT_SIZE
    prompts = {"image_prompt_1": studio.encode(left), "image_prompt_2": studio.encode(right)}
    boxes = "box 0,0,0.5,1; box 0.5,0,0.5,1"
    model = node("ImagePromptRegions")(
        studio.model, 16 * size, 8 * size, boxes, "later on top", 1.0, **prompts
    )[0]
    made = studio.sample(model, Scene(size=(size, 2 * size)))
    for picture, middle, name in ((left, 112, "region 1"), (right, 288, "region 2")):
        card.picture(picture, middle - 48, 18, 96, name)
        card.arrow(middle, 148, 24, down=True)
    card.picture(made, 24, 184, 176, "one picture, a region for each image")


def _negative(card: Card, studio: Studio) -> None:
    towards, away = reference(STAR), reference(HEART)
    plain, steered = (
        _applied(studio, prompt, Scene(), 0.6)
        for prompt in (studio.encode(towards), studio.encode(towards, negative_image=away))
    )
    made = [(plain, "without"), (steered, "away from it")]
    _onto_row(card, [(towards, "towards"), (away, "away from")], made, "negative_image")


def _style(card: Card, studio: Studio) -> None:
    _kind(card, studio, "style transfer", "style of the image", STYLE_TEXT)


def _composition(card: Card, studio: Studio) -> None:
    _kind(card, studio, "composition", "layout of the image", LAYOUT_TEXT)


def _kind(card: Card, studio: Studio, kind: str, label: str, text: str) -> None:
    image = reference(STAR)
    alone, made = (studio.make(Scene((Part(image, w, weight_type=kind),), text)) for w in (0.0, 1.0))
    _onto_row(card, [(image, "image")], [(alone, "text alone"), (made, label)], f"“{text}”")


def _style_and_layout(card: Card, studio: Studio) -> None:
    style, layout = reference(RING), reference(STAR)
    parts = (Part(style, weight_type="style transfer"), Part(layout, 0.8, weight_type="composition"))
    _into(card, [(style, "its style"), (layout, "its layout")], studio.make(Scene(parts)))


def _control(card: Card, studio: Studio) -> None:
    image, shape = reference(RING), silhouette(STAR)
    made = studio.make(Scene((Part(image, 0.7),), hint=shape))
    _into(card, [(image, "look: image"), (shape, "shape: ControlNet")], made)


def _saved(card: Card, studio: Studio) -> None:
    card.picture(reference(HEART), 30, 132, 136, "image")
    card.arrow(184, 200, 34)
    _file(card, 236, 116)


def _loaded(card: Card, studio: Studio) -> None:
    _file(card, 26, 116)
    card.words(26 + 67, 316, "“triangle”")
    card.arrow(176, 200, 30)
    card.picture(studio.make(Scene((Part(reference(HEART), 0.3),), "triangle")), 220, 120, 160, "result")


def _batch(card: Card, studio: Studio) -> None:
    pictures = references((HEART, RING))
    made = studio.make(Scene((Part(pictures, 0.8),), pictures=2))
    for n in range(2):
        y = 22 + 186 * n
        card.picture(pictures[n : n + 1], 34, y, 140, f"image {n + 1}")
        card.arrow(186, y + 70, 28)
        card.picture(made[n : n + 1], 226, y, 140, f"picture {n + 1}")


# of the template: the deep blocks are weak
BLOCKS = {
    "input_4": 1.0,
    "input_5": 0.2,
    "input_7": 0.2,
    "input_8": 0.5,
    "output_3": 0.6,
}


def _layers(card: Card, studio: Studio) -> None:
    image = reference(STAR)
    own = node("ImagePromptLayerWeights")(studio.model, **BLOCKS)
    weights = own["result"][0]
    prompt = studio.encode(image)
    made = _applied(studio, prompt, Scene(text="heart"), layer_weights=weights)
    card.picture(image, 26, 34, 136, "image")
    card.words(94, 214, "“heart”")
    card.arrow(176, 102, 30)
    card.picture(made, 220, 24, 156, "result")
    for n, (_, weight) in enumerate(weights.items()):
        x = 28 + n * 344 / len(weights)
        card.box((x, 350 - 84 * weight, x + 15, 350), BLUE if weight == 1 else AMBER)
    card.write(MIDDLE, 362, "a weight for each block", 16)


def _relay(card: Card, studio: Studio) -> None:
    first, then = reference(TRIANGLE), reference(RING)
    a, b = studio.encode(first), studio.encode(then)
    apply = node("ImagePromptApply")
    model = apply(apply(studio.model, a, 0.9, 0.0, 0.4)[0], b, 0.9, 0.4, 1.0)[0]
    _into(
        card,
        [(first, "first 40 %"), (then, "then")],
        studio.sample(model, Scene()),
    )


def _part(card: Card, studio: Studio) -> None:
    both = torch.cat((reference(HEART), reference(RING)), dim=2)
    mask, _ = halves()
    prompt = studio.encode(both, fit="crop", position="left", reference_mask=mask)
    dimmed = both * (0.3 + 0.7 * mask[..., None])
    card.picture(dimmed, 60, 24, 140, "reference_mask: the left one is seen")
    card.arrow(MIDDLE, 198, 24, down=True)
    card.picture(_applied(studio, prompt, Scene(), 0.8), 130, 232, 136, "result")


def _score(card: Card, studio: Studio) -> None:
    pictures = references((HEART, RING))
    card.write(90, 16, "reference")
    card.write(262, 16, "made from it")
    for row in range(2):
        image, y = pictures[row : row + 1], 42 + 176 * row
        card.picture(image, 26, y, 126)
        made = studio.make(Scene((Part(image),), pictures=2, seed=3))
        likeness = studio.similarity(made, image.repeat(2, 1, 1, 1))
        for n in range(2):
            label = f"CLIP-I {likeness[n]:.2f}"
            card.picture(made[n : n + 1], 166 + 112 * n, y + 8, 104, label)


def _training(card: Card, studio: Studio) -> None:
    pictures = references((HEART, RING, STAR))
    before, after = (studio.make(Scene((Part(pictures, w),), pictures=3)) for w in (0.0, 1.0))
    for n, title in enumerate(("picture", "without", "with the adapter")):
        card.write(68 + 132 * n, 14, title)
    for row in range(3):
        for n, each in enumerate((pictures, before, after)):
            card.picture(each[row : row + 1], 14 + 132 * n, 40 + 118 * row, 108)


CURVES = {"flat": "", "early only": "0:1, 0.3:1, 0.35:0", "late only": "0:0, 0.4:0, 0.6:1"}


def _curve(card: Card, studio: Studio) -> None:
    image, text = reference(STAR), "ring"
    prompt = studio.encode(image)
    made = [
        (_applied(studio, prompt, Scene(text=text), 0.8, weight_curve=curve), name)
        for name, curve in CURVES.items()
    ]
    _onto_row(card, [(image, "image")], made, f"beside “{text}”, its weight over sampling")
    shapes = (((0, 1), (1, 1)), ((0, 1), (0.3, 1), (0.35, 0), (1, 0)), ((0, 0), (0.4, 0), (0.6, 1), (1, 1)))
    for n, points in enumerate(shapes):
        left = MIDDLE + (n - 1) * 126 - 50
        card.line([(left + 100 * x, 200 - 22 * y) for x, y in points], AMBER, 2.5)


def _heat(card: Card, studio: Studio) -> None:
    images = reference(HEART), reference(STAR)
    made, drawn = watched(studio, *images)
    card.picture(made, 164, 14, 102, "made of both")
    for n, image in enumerate(images):
        y = 146 + 128 * n
        card.picture(image, 32, y, 98, f"image {n + 1}")
        card.picture(drawn[n : n + 1], 168, y, 98, "where it acts")


def _swept(card: Card, studio: Studio) -> None:
    image = reference(HEART)
    prompt = studio.encode(image)
    model, latent, labels, columns = node("ImagePromptSweep")(
        studio.model, prompt, empty(Scene()), "0, 0.25, 0.5, 1", curves="flat\n0:0, 0.5:1"
    )
    made = studio.sample(model, Scene(), latent)
    card.picture(image, 152, 14, 96, "image")
    for n, label in enumerate(labels.split("\n")):
        x, y = 10 + 97 * (n % columns), 146 + 126 * (n // columns)
        card.picture(made[n : n + 1], x, y, 89, label.split(",")[-1].strip())


PAINTS: dict[int, Paint] = {
    1: _simplest, 2: _full_control, 3: _several, 4: _combined, 5: _regions, 6: _negative, 7: _style, 8: _composition,
    9: _style_and_layout, 10: _control, 11: _saved, 12: _loaded, 13: _batch, 14: _layers, 15: _relay, 16: _part,
    21: _training, 22: _score, 23: _curve, 27: _heat, 28: _swept,
}  # fmt: skip


# --- what several need ------------------------------------------------------------------------------------------------


def _applied(studio: Studio, prompt: object, scene: Scene, weight: float = 1.0, **settings: object) -> Tensor:
    model = node("ImagePromptApply")(studio.model, prompt, weight, **settings)[0]
    return studio.sample(model, scene)


def _file(card: Card, x: float, y: float) -> None:
    card.box((x, y, x + 134, y + 168), PANEL, EDGE, 8, 1.5)
    for n in range(12):
        left, top = x + 19 + 25 * (n % 4), y + 34 + 22 * (n // 4)
        card.box((left, top, left + 20, top + 14), BLUE)
    card.write(x + 67, y + 124, "prompt_00001", 14)
