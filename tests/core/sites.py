"""Sites of the released UNets, written down by hand."""

from image_prompt.ipadapter_core.families.site import Site

RUN = ("input", "middle", "output")


def unet_sites(context: int, blocks: dict[str, dict[int, int]], width: int = 320) -> tuple[Site, ...]:
    """blocks: stage -> number -> depth, in checkpoint order."""
    numbered = sorted(
        ((stage, n) for stage, numbers in blocks.items() for n in numbers),
        key=lambda b: (RUN.index(b[0]), b[1]),
    )
    return tuple(
        Site(
            stage if stage == "middle" else f"{stage} {n}",
            stage,
            numbered.index((stage, n)),
            d,
            width,
            context,
            8,
        )
        for stage, numbers in blocks.items()
        for n, depth in numbers.items()
        for d in range(depth)
    )


SD15 = unet_sites(
    768,
    {
        "input": dict.fromkeys((1, 2, 4, 5, 7, 8), 1),
        "output": dict.fromkeys(range(3, 12), 1),
        "middle": {0: 1},
    },
)
SDXL = unet_sites(
    2048,
    {
        "input": {4: 2, 5: 2, 7: 10, 8: 10},
        "output": {0: 10, 1: 10, 2: 10, 3: 2, 4: 2, 5: 2},
        "middle": {0: 10},
    },
)
FAMILIES = {"SD1.5": SD15, "SDXL": SDXL}
