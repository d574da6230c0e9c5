"""Cases of our own nodes."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import product
from typing import Any

import torch
from helpers import stand_ins
from safetensors.torch import load_file

from . import models as m
from .running import Case

ARRANGE = ("all together", "one per picture")
CUTS = [("crop", p) for p in ("center", "top", "bottom", "left", "right")] + [
    ("pad", "center"),
    ("squash", "center"),
]
WINDOWS = ((0.0, 0.5), (0.5, 1.0), (0.2, 0.8), (0.3, 0.3), (0.0, 1.0))
SIGMAS = (14.0, 3.0, 1.0, 0.4, 0.05)
# attention blocks that the other family has
ABSENT = {
    "SD1.5": [f"output_{n}" for n in range(3)],
    "SDXL": ["input_1", "input_2", *(f"output_{n}" for n in range(6, 12))],
}
NEGATIVES = {
    "no negative": {},
    "negative": {"negative_image": (9, 1)},
    "negatives": {"negative_image": (9, 2)},
}


def cases() -> Iterator[Case]:
    for part in (encode, faces, combine, apply, rows, stacks, windows, layers, saved, lora, files):
        yield from part()


def kinds(*families: str) -> Iterator[tuple[str, str]]:
    for family in families or m.FAMILIES:
        yield from ((family, kind) for kind in m.FAMILIES[family])


def choices(node_id: str, name: str) -> list[Any]:
    return list(m.declared(node_id)[name][0])


# --- prompts -----------------------------------------------------------------------------------------------------


def encode() -> Iterator[Case]:
    for family, kind in kinds():
        if kind in m.FACES or kind == "faceid kolors":
            continue
        settings = product(ARRANGE, CUTS, ("", "1, 0.5"), NEGATIVES, ("whole", "part"))
        for n, (arrange, (fit, position), weights, negative, part) in enumerate(settings):
            if (family, kind) == ("SD1.5", "plus") or n % 6 == 0:
                name = f"encode/{family}/{kind}/{arrange}/{fit} {position}/{weights}/{negative}/{part}"
                given = {"arrange": arrange, "fit": fit, "position": position, "image_weights": weights}
                yield name, partial(encoded, family, kind, negative, part, given)
        if family != "Kolors":
            yield (
                f"encode/{family}/{kind}/larger",
                partial(encoded, family, kind, "negative", "part", {"encoder_size": 64}),
            )


def encoded(family: str, kind: str, negative: str, part: str, given: dict[str, Any]) -> Any:
    pictures = {name: m.picture(*seed) for name, seed in NEGATIVES[negative].items()}
    masks = {"reference_mask": m.mask(2)} if part == "part" else {}
    return m.written(m.prompt(family, kind, pictures=2, **given, **pictures, **masks))


def faces() -> Iterator[Case]:
    for family, kind in kinds():
        if kind not in m.FACES and kind != "faceid kolors":
            continue
        for arrange, weights, structure in product(ARRANGE, ("", "1, 0.5"), (1.0, 0.3)):
            given = {"arrange": arrange, "image_weights": weights, "structure_weight": structure}
            make = partial(lambda f, k, g: m.written(m.prompt(f, k, pictures=2, **g)), family, kind, given)
            yield f"faces/{family}/{kind}/{arrange}/{weights}/{structure}", make


def combine() -> Iterator[Case]:
    methods = choices("ImagePromptCombine", "method")
    for (family, kind), method, number in product((*kinds("SD1.5"), ("SDXL", "plus")), methods, (2, 3)):
        yield f"combine/{family}/{kind}/{method}/{number}", partial(combined, family, kind, method, number)


def combined(family: str, kind: str, method: str, number: int) -> Any:
    more = {f"image_prompt_{n}": m.prompt(family, kind, n) for n in range(2, number + 1)}
    weights = {"weight": 0.9, "weight_2": 0.5, "weight_3": -0.3}
    first = m.prompt(family, kind)
    return m.written(m.call("ImagePromptCombine", image_prompt=first, method=method, **weights, **more)[0])


# --- models ------------------------------------------------------------------------------------------------------


def steered(
    family: str, kind: str, model: Any = None, made: dict[str, Any] | None = None, **options: Any
) -> Any:
    """made: how the prompt is made."""
    prompt = m.prompt(family, kind, **made or {})
    return m.call("ImagePromptApply", model=model or m.model(family), image_prompt=prompt, **options)[0]


def seen(family: str, kind: str, called: dict[str, Any] | None = None, **options: Any) -> Any:
    """called: how the UNet is."""
    return m.forward(steered(family, kind, **options), family, **called or {})


def apply() -> Iterator[Case]:
    types = [(name, 0.7) for name in choices("ImagePromptApply", "weight_type")]
    for family, kind in kinds():
        whole = family == "SD1.5" or kind in ("base", "plus kolors")
        for weight_type, weight in [("linear", 1.0), ("linear", -0.4), *(types if whole else types[-1:])]:
            make = partial(seen, family, kind, weight=weight, weight_type=weight_type)
            yield f"apply/{family}/{kind}/{weight_type}/{weight}", make


def rows() -> Iterator[Case]:
    """Batches, masks, sides and sizes."""
    tables = {
        ("SD1.5", "base"): ((8, 8), (13, 23)),
        ("SD1.5", "plus"): ((8, 8),),
        ("SDXL", "base"): ((8, 12),),
    }
    table = product(tables, ARRANGE, ("no mask", "mask", "masks"), (1, 2, 3), ((1, 0), (0,), (0, 1, 1)))
    for (family, kind), arrange, region, pictures, chunks in table:
        for size in tables[family, kind]:
            number = {"no mask": 0, "mask": 1, "masks": pictures}[region]
            masks = {"mask": m.mask(number)} if number else {}
            called = {"pictures": pictures, "chunks": chunks, "size": size}
            made = {"pictures": 2 if arrange == "all together" else pictures, "arrange": arrange}
            make = partial(seen, family, kind, called, made=made, **masks)
            yield f"rows/{family}/{kind}/{arrange}/{region}/{pictures} {chunks} {size}", make


def stacks() -> Iterator[Case]:
    pairs = [("base", "plus"), ("plus", "base"), ("base", "base"), ("full", "faceid"), ("faceid", "full")]
    for family, pair, region, arrange in product(("SD1.5", "SDXL"), pairs, ("no mask", "mask"), ARRANGE):
        yield f"stack/{family}/{pair}/{region}/{arrange}", partial(stacked, family, pair, region, arrange)


def stacked(family: str, pair: tuple[str, ...], region: str, arrange: str) -> Any:
    model = m.model(family)
    for n, kind in enumerate(pair):
        masks = {"mask": m.mask(1, n)} if region == "mask" else {}
        made = {"seed": n, "pictures": 2, "arrange": arrange}
        model = steered(family, kind, model, made, weight=0.8 - 0.3 * n, end_at=1.0 - 0.2 * n, **masks)
    return m.forward(model, family)


def windows() -> Iterator[Case]:
    for family, (start, end), sigma in product(("SD1.5", "SDXL"), WINDOWS, SIGMAS):
        make = partial(seen, family, "base", {"sigma": sigma}, start_at=start, end_at=end)
        yield f"window/{family}/{start} {end}/{sigma}", make
    for family, (start, end) in product(("SD1.5", "SDXL"), WINDOWS):
        make = partial(
            lambda f, **o: m.sampled(steered(f, "plus", **o), f, steps=4), family, start_at=start, end_at=end
        )
        yield f"window/{family}/{start} {end}/sampled", make


def layers() -> Iterator[Case]:
    node_id = "ImagePromptLayerWeights"
    for family, absent in ABSENT.items():
        names = [name for name in m.required(node_id) if name not in ("model", *absent)]
        yield f"layers/{family}/all", partial(weighed, family, {n: 0.1 * k for k, n in enumerate(names)})
        for name in names:
            yield f"layers/{family}/{name}", partial(weighed, family, {name: 0.0})


def weighed(family: str, values: dict[str, float]) -> Any:
    weights = m.call("ImagePromptLayerWeights", model=m.model(family), **values)[0]
    return seen(family, "base", layer_weights=weights, weight_type="ease in")


# --- files -------------------------------------------------------------------------------------------------------


def saved() -> Iterator[Case]:
    for family, kind in kinds("SD1.5", "Kolors"):
        yield f"saved/{family}/{kind}", partial(opened, family, kind)


def opened(family: str, kind: str) -> Any:
    path = m.saved(m.prompt(family, kind, pictures=2, arrange="one per picture"))
    name = f"output/image_prompts/{path.name}"
    loaded = m.call("ImagePromptLoad", ipadapter=m.adapter(family, kind), prompt_file=name)[0]
    model = m.call("ImagePromptApply", model=m.model(family), image_prompt=loaded)[0]
    return m.written(loaded), m.forward(model, family)


def lora() -> Iterator[Case]:
    table = product(
        (("SD1.5", "faceid"), ("SD1.5", "faceid plus v2"), ("SDXL", "faceid")), (1.0, -0.5, 0.0), (0.8, 0.0)
    )
    for (family, kind), strength, weight in table:
        make = partial(sampled_with_lora, family, kind, lora_strength=strength, weight=weight)
        yield f"lora/{family}/{kind}/{strength}/{weight}", make


def sampled_with_lora(family: str, kind: str, **options: Any) -> Any:
    return m.sampled(steered(family, kind, made={"rank": 4}, **options), family)


def files() -> Iterator[Case]:
    """Nodes that name files: the one-node pack, the automatic loader, the export, the search for faces."""
    for family, name in (("SD1.5", "sd15"), ("SDXL", "sdxl")):
        for file in [file for file in stand_ins.ADAPTERS if name in file]:
            yield f"files/ImagePrompt/{file}", partial(one_node, family, file)
        for intent in ("standard", "plus", "face identity plus") if name == "sd15" else ("plus",):
            yield f"files/ImagePromptAutoLoader/{family}/{intent}", partial(auto, family, intent)
    for layout, precision in product((".safetensors", ".bin"), ("fp16", "bf16", "fp32")):
        yield f"files/ImagePromptExport/{layout}/{precision}", partial(exported, layout, precision)
    settings = product(
        choices("ImagePromptFaces", "order"), choices("ImagePromptFaces", "combine"), ((0, 1), (1, 1), (0, 0))
    )
    for order, joined, (index, number) in settings:
        given = {"order": order, "combine": joined, "index": index, "count": number}
        yield f"found/{order}/{joined}/{index} {number}", partial(found, **given)


def one_node(family: str, file: str) -> Any:
    given = {"model": m.model(family), "clip_vision": stand_ins.clip_vision(), "image": m.people()}
    given["weight"] = 1.0
    return m.sampled(m.call("ImagePrompt", ipadapter_file=file, **given)[0], family)


def auto(family: str, intent: str) -> Any:
    model, adapter, encoder, _ = m.call("ImagePromptAutoLoader", model=m.model(family), intent=intent)
    given = {"ipadapter": adapter, "clip_vision": encoder}
    if "face" in intent:
        faces = m.call("ImagePromptFaces", image=m.people(), face_model="buffalo_l")[0]
        prompt = m.call("ImagePromptEncodeFace", faces=faces, **given)[0]
    else:
        prompt = m.call("ImagePromptEncode", image=m.picture(), **given)[0]
    return m.sampled(m.call("ImagePromptApply", model=model, image_prompt=prompt)[0], family)


def exported(layout: str, precision: str) -> Any:
    given = {"ipadapter": m.adapter("SD1.5", "plus"), "name": f"e {precision}"}
    path = m.call("ImagePromptExport", layout=layout, precision=precision, **given)[0]
    return load_file(path) if layout == ".safetensors" else torch.load(path, weights_only=True)


def found(**given: Any) -> Any:
    """Images, masks, and what FaceID makes of the faces."""
    faces, images, masks, _ = m.call("ImagePromptFaces", image=m.people(), face_model="buffalo_l", **given)
    prompt = m.call("ImagePromptEncodeFace", ipadapter=m.adapter("SD1.5", "faceid"), faces=faces)[0]
    return images, masks, m.written(prompt)
