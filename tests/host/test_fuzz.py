"""Every node id under values that nobody thought of: a sentence or a finite result, through the host's own executor.

A failing seed is told: it goes to SEEDS_KEPT, which run first.
"""

import random

import pytest
from helpers import fuzz_values, stand_ins
from helpers.fuzz_host import run
from image_prompt.nodes import NODE_CLASS_MAPPINGS as OURS

CASES, PART = 2000, 50
# They train for as many steps as asked, read a CLIP model from the hub, or look through all model files.
ELSEWHERE = {"ImagePromptTrain", "ImagePromptScore", "ImagePromptDoctor"}
NODES = sorted(set(OURS) - ELSEWHERE)
WIDGETS = ("FLOAT", "INT", "STRING", "BOOLEAN")
SEEDS_KEPT = (
    ("inside", 45, "ImagePromptEncode"),  # encoder_size less than a patch
    ("inside", 164, "ImagePromptLegacyEncoder"),  # lines of pixels across each other, cut to nothing
    ("inside", 734, "ImagePromptLegacyEncoder"),
    ("inside", 905, "ImagePromptLegacyEncoder"),
    ("outside", 1345, "ImagePromptExport"),  # a name that no file system takes
)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    with pytest.MonkeyPatch.context() as monkeypatch:
        folder = tmp_path_factory.mktemp("models")
        stand_ins.use_models(stand_ins.write_models(folder), monkeypatch)
        for kind in ("input", "output"):
            (folder / kind).mkdir()
            path = str(folder / kind)
            monkeypatch.setattr(f"folder_paths.get_{kind}_directory", lambda path=path: path)
        yield folder


def case(kind: str, seed: int, node_id: str) -> tuple[dict, set]:
    """(values, names of linked ones)."""
    rng = random.Random(f"{kind} {seed}")
    sections = OURS[node_id].INPUT_TYPES()
    declared = {**sections.get("required", {}), **sections.get("optional", {})}
    names = [n for n in declared if n in sections["required"] or rng.random() < 0.6]
    given = {name: fuzz_values.meant(rng, name, declared[name]) for name in names}
    odd = rng.sample(names, min(len(names), rng.choice([1, 1, 2]))) if kind == "outside" and names else []
    for name in odd:
        given[name] = fuzz_values.odd(rng, name, declared[name])
    widgets = {n for n in names if not isinstance(declared[n][0], str) or declared[n][0] in WIDGETS}
    plain = {n for n in widgets - set(odd) if rng.random() < 0.7}
    return given, set(names) - plain


def check(kind: str, seed: int, node_id: str) -> str | None:
    given, linked = case(kind, seed, node_id)
    outcome = run(node_id, given, linked)
    return None if outcome.own else f"{kind} {seed} {node_id}: {outcome.error[-1500:]}"


@pytest.mark.slow
@pytest.mark.parametrize("start", range(0, CASES, PART))
@pytest.mark.parametrize("kind", ["inside", "outside"])
def test_a_sentence_or_a_finite_result(kind, start, models):
    raw = [
        found for seed in range(start, start + PART) if (found := check(kind, seed, NODES[seed % len(NODES)]))
    ]
    assert raw == []


@pytest.mark.parametrize(("kind", "seed", "node_id"), SEEDS_KEPT)
def test_what_was_found_once(kind, seed, node_id, models):
    assert check(kind, seed, node_id) is None
