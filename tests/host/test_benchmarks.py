"""The benchmarks' counted numbers: small enough, and counted right."""

import json

import pytest
import torch
from image_prompt.lab.benchmarks import bars, plot, report, scan, transformers
from image_prompt.lab.benchmarks.cases import CHANGES, KINDS, Case, cases
from image_prompt.lab.benchmarks.counted import measure
from image_prompt.lab.benchmarks.counting import count, size_in_bytes
from image_prompt.lab.benchmarks.full_size import WIDTHS, adapter_bytes, our_bytes
from image_prompt.lab.benchmarks.machine import machine
from image_prompt.lab.benchmarks.timed import Site, Timing, time_site


def test_views_are_told_from_what_moves_data():
    x = torch.ones(4, 6)
    counted = count(lambda: (x.reshape(2, 12).transpose(0, 1)[:1] + 1).sum().item())
    # view, transpose, slice; add, sum, the read
    assert (counted.all, counted.real, counted.reads) == (6, 3, 1)


def test_the_peak_is_what_was_alive_together():
    x = torch.ones(1024)  # 4096 bytes, made before
    assert count(lambda: ((x + 1) * 2).view(2, -1).sum(1)).peak == 2 * 4096
    assert count(lambda: [(x + n).sum() for n in range(9)]).peak == 4096 + 9 * 4


def test_a_tensor_held_twice_is_counted_once():
    x = torch.ones(8)
    assert size_in_bytes([x, x, torch.ones(2, dtype=torch.float16)]) == 36


def test_one_change_at_a_time():
    todo = list(cases(["SDXL"], KINDS))
    assert len(todo) == len(CHANGES) * len(KINDS) == len(set(todo))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("change", ["central", "CFG 1", "batch 4"])
def test_operations_per_site(kind, change):
    row = measure(Case("SD1.5", kind, **CHANGES[change], change=change), "ours")
    every, real = row.per_site
    assert row.sites == 16
    assert 0 < real <= bars.REAL
    assert real < every <= bars.ALL
    assert row.beyond.reads == 0


@pytest.mark.parametrize(("family", "kind"), transformers.KINDS)
@pytest.mark.parametrize("change", ["central", "window", "bf16"])
def test_operations_per_block_of_a_transformer(family, kind, change):
    """With what a step computes for all blocks, at their full number."""
    row = transformers.measure(Case(family, kind, **CHANGES[change], change=change))
    assert (
        row.sites
        == {("Flux", "xlabs"): 19, ("Flux", "instantx"): 57, ("SD3.5", "instantx"): 38}[family, kind]
    )
    assert 0 < row.per_site[1] <= bars.TRANSFORMER
    assert row.beyond.reads == (change == "window")
    assert all(bar.holds for bar in transformers.bars([row]))


def test_a_window_reads_once_per_step_however_many_prompts():
    row = measure(Case("SD1.5", "base", prompts=4, window=(0.1, 0.9)), "ours")
    assert row.beyond.reads == bars.READS


def test_diffusers_is_counted_at_all_sites_and_computes_more():
    ours, theirs = (measure(Case("SD1.5", "base"), side) for side in ("ours", "diffusers"))
    assert theirs.sites == ours.sites
    assert theirs.per_site[0] > ours.per_site[0]
    assert theirs.held > ours.held


def test_what_is_held_is_keys_and_values_of_cond_and_uncond():
    """Two of each, 16 tokens, at every width, in the UNet's dtype."""
    expected = 2 * 2 * 16 * sum(WIDTHS["SDXL"]) * 2
    assert our_bytes("SDXL", "plus") == expected
    assert expected / 1e6 <= bars.MEGABYTES
    # ip-adapter-plus_sdxl_vit-h.safetensors is 847.5 MB, in fp16 (library/catalog.py)
    assert adapter_bytes("SDXL", "plus") == pytest.approx(847.5e6, rel=0.001)


def test_both_processors_answer_alike_at_a_site():
    """`time_site` compares the sides' outputs; the times of so small a site say nothing."""
    base, added = time_site(Site("SD1.5", "plus", 4, 64, torch.device("cpu")), rounds=1)
    assert {"ours", "diffusers"} <= base.keys() == added.keys()


def test_results_are_written(tmp_path):
    families, kinds = ["SD1.5"], ["plus"]
    rows = [measure(Case("SD1.5", "plus"), side) for side in ("ours", "diffusers")]
    timings = [
        Timing("SD1.5", "plus", 16, 64, {"ours": 1.0, "diffusers": 1.0}, {"ours": 1.0, "diffusers": 2.0})
    ]
    held = [*bars.counted_bars(rows), *bars.timed_bars(timings)]
    made_on = machine("a host", torch.device("cpu"), 1)
    results = report.Results(made_on, ["de-facto pack"], rows, [], timings, held)
    assert all(bar.holds for bar in held)
    assert "de-facto pack: absent" in report.text(results, families, kinds)
    content = json.loads(json.dumps(report.as_dict(results, families, kinds)))
    assert content["machine"]["torch"] == torch.__version__
    plot.draw(content, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 10_000


@pytest.mark.parametrize("shuffled", [False, True])
def test_a_folder_of_adapters_is_scanned(shuffled):
    """By the benchmark's own way, with every released layout."""
    told = scan.measure(40, shuffled)
    assert told.startswith("40 adapters, " + ("no two headers alike" if shuffled else "headers as one tool"))
    assert "json.loads" in told
