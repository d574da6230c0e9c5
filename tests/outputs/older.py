"""Cases of the older packs' ids: every input of every node varied alone, with and without exact legacy results."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache, partial
from itertools import count, product
from typing import Any

import torch
from helpers import stand_ins

from . import models as m
from .running import Case

# The family and the kinds of adapter that a node is swept with; where several, the first with every value.
SWEPT: dict[str, tuple[tuple[str, str], ...]] = {
    "IPAdapter": (("SD1.5", "base"), ("SD1.5", "plus"), ("SDXL", "plus")),
    "IPAdapterBatch": (("SD1.5", "plus"), ("SDXL", "base")),
    "IPAdapterFaceID": (*(("SD1.5", kind) for kind in m.FACES), ("SDXL", "faceid plus v2")),
    "IPAdapterFaceIDKolors": (("Kolors", "faceid kolors"),),
    "IPAAdapterFaceIDBatch": (("SD1.5", "faceid plus v2"),),
    "IPAdapterStyleComposition": (("SDXL", "plus"), ("SD1.5", "base")),
    "IPAdapterStyleCompositionBatch": (("SDXL", "base"), ("SD1.5", "plus")),
    "IPAdapterMS": (("SD1.5", "plus"), ("SD1.5", "faceid plus"), ("SDXL", "base")),
    "IPAdapterClipVisionEnhancer": (("SD1.5", "base"), ("SD1.5", "plus")),
    "IPAdapterClipVisionEnhancerBatch": (("SD1.5", "plus"),),
    "IPAdapterFromParams": (("SD1.5", "base"), ("SDXL", "plus")),
    "IPAdapterPreciseStyleTransfer": (("SD1.5", "plus"), ("SDXL", "base")),
    "IPAdapterPreciseStyleTransferBatch": (("SD1.5", "plus"),),
    "IPAdapterPreciseComposition": (("SD1.5", "plus"), ("SDXL", "base")),
    "IPAdapterPreciseCompositionBatch": (("SD1.5", "plus"),),
    "IPAdapterTiled": (("SD1.5", "base"),),
    "IPAdapterTiledBatch": (("SD1.5", "base"),),
    "IPAdapterEncoder": (("SD1.5", "base"), ("SD1.5", "plus"), ("SD1.5", "full"), ("SDXL", "plus")),
    "IPAdapterEmbeds": (("SD1.5", "base"), ("SD1.5", "plus")),
    "IPAdapterEmbedsBatch": (("SD1.5", "plus"),),
    "IPAdapterCombineEmbeds": (("SD1.5", "plus"),),
    "IPAdapterBatchEmbeds": (("SD1.5", "plus"),),
    "PrepImageForClipVision": (("SD1.5", "base"),),
    "PrepImageForInsightFace": (("SD1.5", "base"),),
    "IPAdapterNoise": (("SD1.5", "base"),),
    "IPAdapterWeights": (("SD1.5", "base"),),
    "IPAdapterWeightsFromStrategy": (("SD1.5", "base"),),
    "IPAdapterPromptScheduleFromWeightsStrategy": (("SD1.5", "base"),),
    "IPAdapterCombineWeights": (("SD1.5", "base"),),
    "IPAdapterRegionalConditioning": (("SD1.5", "base"),),
    "IPAdapterCombineParams": (("SD1.5", "base"),),
    "IPAdapterApply": (("SD1.5", "base"), ("SD1.5", "plus"), ("SDXL", "plus")),
    "IPAdapterApplyFaceID": (("SD1.5", "faceid"), ("SD1.5", "faceid plus"), ("SD1.5", "faceid plus v2")),
    "IPAdapterApplyEncoded": (("SD1.5", "base"),),
    "IPAdapterTilesMasked": (("SD1.5", "base"),),
    "ImagePromptLegacyEncoder": (("SD1.5", "base"),),
}
# Of inputs whose range says nothing of good values, or that more than one belongs to.
VALUES: dict[str, tuple[Any, ...]] = {
    "layer_weights": ("3:2.5, 6:1", "0:0.5, 15:-1"),
    "weights": ("1.0, 0.0", "0.2, 0.9, 0.4"),
    "prompt": ('a "cat"\na dog',),
    # in every combination below
    "weight_type": ("style and composition", "composition precise", "channel penalty"),
    "embeds_scaling": ("K+V", "K+mean(V) w/ C penalty"),
    "combine_embeds": ("subtract", "norm average"),
    "frames": (5,),
    "end_frame": (3,),
    "weight": (0.4, -0.5),
    "blur": (3,),
}
RESULTS = (
    "MODEL",
    "IMAGE",
    "MASK",
    "EMBEDS",
    "FLOAT",
    "INT",
    "CONDITIONING",
    "IPADAPTER_PARAMS",
    "WEIGHTS_STRATEGY",
)
LEGACY = {"corrected": False, "exact": True}
_numbers = count()


def cases() -> Iterator[Case]:
    for part in (advanced, swept, embeds_files, loaders, wide):
        yield from part()


def ours(make: Callable[[], Any], legacy: str) -> Any:
    with m.exact(LEGACY[legacy]):
        return make()


# --- connected values --------------------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def insightface() -> Any:
    return m.call("IPAdapterInsightFaceLoader", provider="CPU", model_name="buffalo_l")[0]


def pipeline(family: str, kind: str) -> Any:
    """What unified loaders give."""
    parts = {"clipvision": m.encoder(family, kind), "ipadapter": m.adapter(family, kind), "insightface": None}
    return {name: {"file": name, "model": part} for name, part in parts.items()}


def embeds(family: str, kind: str, seed: int) -> Any:
    """What the encoder gives; of a face, its embedding."""
    if kind in m.FACES:
        return torch.randn(1, 512, generator=torch.Generator().manual_seed(seed))
    given = {"ipadapter": m.adapter(family, kind), "clip_vision": m.encoder(family, kind)}
    return m.call("IPAdapterEncoder", image=m.picture(seed), **given)[0]


def params(seed: int) -> Any:
    given = {"image": m.picture(seed), "mask": m.mask(1, seed), "image_weight": 0.3 + seed / 10}
    return m.call("IPAdapterRegionalConditioning", **given)[0]


def conditioning(seed: int) -> Any:
    return [[torch.randn(1, 7, 768, generator=torch.Generator().manual_seed(seed)), {}]]


def seen(family: str, seed: int) -> Any:
    return stand_ins.clip_vision().encode_image(m.picture(seed))


def connected(node_id: str, name: str, family: str, kind: str) -> Any:
    """What a graph would connect to this input; None for a widget."""
    seed = sum(map(ord, name)) % 7
    faces = kind in m.FACES or kind == "faceid kolors"
    given: dict[str, Callable[[], Any]] = {
        "MODEL": lambda: m.model(family),
        "IPADAPTER": lambda: pipeline(family, kind) if node_id == "IPAdapter" else m.adapter(family, kind),
        "CLIP_VISION": lambda: stand_ins.clip_vision() if "Legacy" in node_id else m.encoder(family, kind),
        "INSIGHTFACE": insightface,
        "IMAGE": lambda: (
            m.people() if faces else m.picture(seed, 3 if "Batch" in node_id or "Weights" in node_id else 1)
        ),
        "MASK": lambda: m.mask(),
        "EMBEDS": lambda: embeds(family, kind, seed),
        "CONDITIONING": lambda: conditioning(seed),
        "IPADAPTER_PARAMS": lambda: params(seed),
        "WEIGHTS_STRATEGY": lambda: m.call("IPAdapterWeights", weights="1, 0.2, 0.7", frames=4)[5],
        "CLIP_VISION_OUTPUT": lambda: seen(family, seed),
    }
    declared = m.declared(node_id)[name][0]
    return given[declared]() if isinstance(declared, str) and declared in given else None


# --- each input alone --------------------------------------------------------------------------------------------


def swept() -> Iterator[Case]:
    for node_id, tables in SWEPT.items():
        for n, (family, kind) in enumerate(tables):
            for name, value in variations(node_id, whole=n == 0 and "Batch" not in node_id):
                for legacy in LEGACY if n == 0 else ("corrected",):
                    make = partial(one, node_id, family, kind, name, value)
                    yield (
                        f"older/{node_id}/{family}/{kind}/{name}={value}/{legacy}",
                        partial(ours, make, legacy),
                    )


def variations(node_id: str, whole: bool) -> Iterator[tuple[str, Any]]:
    """Names of inputs and a value of each, first none. whole: numbers too, and every choice, not only the last."""
    yield "", ""
    needed = m.required(node_id)
    for name, declared in m.declared(node_id).items():
        values = values_of(name, declared)
        if name not in needed and not values and name not in ("clip_vision", "insightface"):
            yield name, "connected"
        if whole or declared[0] not in ("FLOAT", "INT"):
            yield from ((name, value) for value in (values if whole else values[-1:]))


def values_of(name: str, declared: Any) -> tuple[Any, ...]:
    kind, first = declared[0], m.default(declared)
    if name in VALUES:
        allowed = kind if isinstance(kind, list | tuple) and kind else VALUES[name]
        return tuple(value for value in VALUES[name] if value != first and value in allowed)
    if isinstance(kind, list | tuple):
        return (
            tuple(choice for choice in kind if choice != first) if name not in ("provider", "dtype") else ()
        )
    return {"FLOAT": (0.4,), "INT": (2,), "BOOLEAN": (not first,)}.get(kind, ())


def one(node_id: str, family: str, kind: str, varied: str, value: Any) -> Any:
    always = [*m.required(node_id), "clip_vision", "insightface"]
    names = [name for name in m.declared(node_id) if name in always or name == varied]
    given = {name: connected(node_id, name, family, kind) for name in names}
    return results(node_id, family, **given | ({varied: value} if varied and value != "connected" else {}))


def results(node_id: str, family: str, **given: Any) -> Any:
    """Every output that is a value; of a model, what it predicts."""
    outputs = m.call(node_id, **given)
    kinds = m.NODE_CLASS_MAPPINGS[node_id].RETURN_TYPES
    named = list(zip(kinds, outputs, strict=False))
    if "Schedule" in node_id:
        return outputs
    return [
        m.forward(value, family) if kind == "MODEL" else value for kind, value in named if kind in RESULTS
    ]


# --- products ----------------------------------------------------------------------------------------------------


def advanced() -> Iterator[Case]:
    """Weight types by scalings, ways to combine by negatives and masks."""
    types, scalings, ways = (
        choices("IPAdapterAdvanced", n) for n in ("weight_type", "embeds_scaling", "combine_embeds")
    )
    swept = (("SD1.5", "base"), ("SD1.5", "plus"), ("SD1.5", "full"), ("SDXL", "base"))
    for (family, kind), legacy in product(swept, LEGACY):
        for n, (weight_type, scaling) in enumerate(product(types, scalings)):
            if (family, kind) == swept[0] or n % 5 == 0:
                given = {"weight_type": weight_type, "embeds_scaling": scaling, "weight": 0.8}
                make = partial(on_pictures, "IPAdapterAdvanced", family, kind, (1, 1), **given)
                yield (
                    f"advanced/{family}/{kind}/{weight_type}/{scaling}/{legacy}",
                    partial(ours, make, legacy),
                )
    for way, numbers, masks, legacy in product(ways, ((3, 0), (3, 1), (2, 2)), (0, 2), LEGACY):
        make = partial(on_pictures, "IPAdapterAdvanced", "SD1.5", "plus", numbers, masks, combine_embeds=way)
        yield f"advanced/{way}/{numbers}/{masks}/{legacy}", partial(ours, make, legacy)


def choices(node_id: str, name: str) -> list[Any]:
    return list(m.declared(node_id)[name][0])


def on_pictures(
    node_id: str, family: str, kind: str, numbers: tuple[int, int], masks: int = 0, **given: Any
) -> Any:
    """numbers: of pictures and of negative ones."""
    given |= {name: connected(node_id, name, family, kind) for name in ("model", "ipadapter", "clip_vision")}
    pictures, negatives = numbers
    if negatives:
        given["image_negative"] = m.picture(5, negatives)
    if masks:
        given["attn_mask"] = m.mask(masks)
    return results(node_id, family, image=m.picture(1, pictures), **given)


def wide() -> Iterator[Case]:
    """Weights of animations, and two adapters in both orders."""
    for kind, legacy in product(("base", "plus"), LEGACY):
        make = partial(on_pictures, "IPAdapterBatch", "SD1.5", kind, (3, 0), weight=[0.1, 0.5, 0.9])
        yield f"older/frames/{kind}/{legacy}", partial(ours, make, legacy)
    for pair, legacy in product((("base", "plus"), ("plus", "base")), LEGACY):
        yield f"older/stack/{pair}/{legacy}", partial(ours, partial(stacked, pair), legacy)


def stacked(pair: tuple[str, str]) -> Any:
    model = m.model("SD1.5")
    for n, kind in enumerate(pair):
        given = {
            name: connected("IPAdapterAdvanced", name, "SD1.5", kind) for name in ("ipadapter", "clip_vision")
        }
        model = m.call("IPAdapterAdvanced", model=model, image=m.picture(n), weight=0.9 - 0.4 * n, **given)[0]
    return m.forward(model, "SD1.5")


# --- files -------------------------------------------------------------------------------------------------------


def embeds_files() -> Iterator[Case]:
    for kind in ("base", "plus", "faceid"):
        yield f"older/IPAdapterLoadEmbeds/{kind}", partial(reopened, kind)


def reopened(kind: str) -> Any:
    m.call("IPAdapterSaveEmbeds", embeds=embeds("SD1.5", kind, 1), filename_prefix=f"e{next(_numbers)}")
    newest = max(m.folder().glob("output/e*.ipadpt"), key=lambda path: path.stat().st_mtime_ns)
    return m.call("IPAdapterLoadEmbeds", embeds=f"output/{newest.name}")


def loaders() -> Iterator[Case]:
    for preset in ("STANDARD (medium strength)", "PLUS (high strength)"):
        yield f"older/IPAdapterUnifiedLoader/{preset}", partial(unified, "IPAdapterUnifiedLoader", preset)
    for preset in ("FACEID", "FACEID PLUS V2"):
        yield (
            f"older/IPAdapterUnifiedLoaderFaceID/{preset}",
            partial(unified, "IPAdapterUnifiedLoaderFaceID", preset),
        )
    for file, rows, weight in product(("ip-adapter_sd15", "ip-adapter-plus_sd15"), (0, 1), (1.0, 0.4)):
        make = partial(first_pack, f"{file}.safetensors", rows, weight)
        yield f"older/ImagePromptLegacyApply/{file}/{rows}/{weight}", make


def first_pack(file: str, rows: int, weight: float) -> Any:
    given = {"image": m.picture(), "clip_vision": stand_ins.clip_vision(), "mask": m.mask() if rows else None}
    made = m.call("ImagePromptLegacyApply", model=m.model("SD1.5"), model_name=file, weight=weight, **given)
    return m.forward(made[0], "SD1.5"), made[1]["image_embeds"]


def unified(node_id: str, preset: str) -> Any:
    model, pipeline = m.call(node_id, model=m.model("SD1.5"), preset=preset)
    apply = "IPAdapterFaceID" if "FaceID" in node_id else "IPAdapterAdvanced"
    image = m.people() if "FaceID" in node_id else m.picture()
    return m.sampled(m.call(apply, model=model, ipadapter=pipeline, image=image)[0], "SD1.5")
