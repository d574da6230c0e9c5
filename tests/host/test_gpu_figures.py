"""A card's figures: the same code in small on the processor; what a run found stays, whatever comes."""

import json
import math
import sys
import time

import pytest
import torch
from image_prompt.ipadapter_core.errors import SettingError
from image_prompt.ipadapter_core.training.config import TrainingConfig
from image_prompt.lab.benchmarks import transformers
from image_prompt.lab.gpu import carry, parts, plan, report
from support import tiny

OF_FOUR = 4  # operations at a site, those that are no views; masks are one more


def part(name, **more):
    return plan.Part(name, more.pop("kind", "steps"), more.pop("family", "SD1.5"), "float16", 60, 1)


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """The rows of the steps of SD1.5, in small, and the folder of the results."""
    out = tmp_path_factory.mktemp("gpu")
    of = part("SD1.5 fp16")
    plan.add_row(out, {"part": of.name, "what": "machine", **parts.about(of, "cpu")})
    plan.run_sections(of.name, parts.sections_of(of, "cpu", small=True), out)
    report.write(out, "cpu")
    return plan.read_rows(out), out


def of_kind(rows, what):
    return {row["case"]: row for row in rows if row["what"] == what}


def test_nothing_fails_and_every_case_is_measured(measured):
    rows, _ = measured
    assert of_kind(rows, "failed") == {}
    times, costs, shares = (of_kind(rows, what) for what in ("time", "cost", "share"))
    assert (
        costs.keys() == shares.keys() == {case for case in times if ":" not in case and "ms" in times[case]}
    )
    assert {
        "none",
        "1 base",
        "1 plus, mask",
        "1 plus, window",
        "4 plus, masks",
        "diffusers: 1 plus",
    } <= times.keys()
    assert times["older pack"]["absent"].startswith("not carried")
    assert all(row["ms"] > 0 for row in times.values() if "ms" in row)


def test_bits_and_near_equality(measured):
    exact = of_kind(measured[0], "exact")
    assert all(exact[case]["bit-identical"] for case in ("the base model again", *report.MUST_EQUAL))
    assert not exact["weight 0.8"]["bit-identical"]
    assert all(exact[case]["difference"] < 1e-5 for case in exact if "beside four" in case)


def test_four_prompts_take_few_operations(measured):
    costs = of_kind(measured[0], "cost")
    per_site = {
        case: row["operations, no views"] / row["sites"] for case, row in costs.items() if row["sites"]
    }
    assert per_site["1 plus"] == per_site["1 plus, mask"] == 2
    assert per_site["2 plus"] == 4
    assert per_site["4 plus"] == per_site["4 base"] == OF_FOUR
    assert per_site["4 plus, masks"] == OF_FOUR + 1
    assert per_site["4 plus, one by one"] == 8
    assert all(row["numbers read"] == ("window" in case) for case, row in costs.items())


def test_our_share_is_of_the_step(measured):
    shares = of_kind(measured[0], "share")
    assert shares["none"]["our bytes"] == shares["none"]["our device us"] == 0
    for case in ("1 plus", "4 plus"):
        assert 0 < shares[case]["our share of bytes"] < 1
        assert 0 < shares[case]["our share of device us"] < 1
    assert shares["1 plus"]["our bytes"] < shares["4 plus"]["our bytes"]


def test_results_are_written_and_judged(measured):
    rows, out = measured
    content = json.loads((out / report.JSON).read_text())
    assert content["machine"]["torch"] == torch.__version__
    assert len(content["rows"]) == len(rows) - 1
    judged = {(bar["case"], bar["bar"]): bar["holds"] for bar in content["bars"]}
    assert judged["4 plus", "operations a site"]
    assert not judged["4 plus, masks", "operations a site"]
    assert all(judged[case, "differs from the base model"] for case in report.MUST_EQUAL)
    assert (out / report.PICTURE).stat().st_size > 10_000
    text = (out / report.TEXT).read_text()
    assert "Milliseconds of a step" in text
    assert "not carried" in text


def test_flux_is_measured_where_the_host_has_hooks(tmp_path):
    of = part("Flux bf16", family="Flux")
    sections = parts.sections_of(of, "cpu", small=True)
    plan.run_sections(of.name, {name: sections[name] for name in ("exactness", "costs")}, tmp_path)
    rows = plan.read_rows(tmp_path)
    if not transformers.HAS_HOOKS:
        # hosts of August 2024 cannot build this model; the run says so and goes on
        assert of_kind(rows, "failed").keys() == of_kind(rows, "spent").keys() == {"exactness", "costs"}
        return
    assert of_kind(rows, "failed") == {}
    costs = of_kind(rows, "cost")
    assert costs["1 xlabs"]["sites"] == 2
    assert costs["1 instantx"]["sites"] == 4
    assert all(of_kind(rows, "exact")[case]["bit-identical"] for case in report.MUST_EQUAL)


def test_a_training_step_in_every_precision(tmp_path):
    of = part("training SD1.5", kind="training")
    plan.run_sections(of.name, parts.sections_of(of, "cpu", small=True), tmp_path)
    rows = plan.read_rows(tmp_path)
    assert of_kind(rows, "failed") == {}
    done = of_kind(rows, "training")
    assert len(done) == 6
    for row in done.values():
        assert all(map(math.isfinite, row["losses"]))
    # and no pair is missing that a config takes
    allowed = [
        (unet, asked)
        for unet in ("fp32", "fp16", "bf16")
        for asked in ("no", "fp16", "bf16")
        if takes(unet=unet, precision=asked)
    ]
    assert {f"unet {unet}, precision {asked}" for unet, asked in allowed} == done.keys()


def takes(**settings):
    try:
        TrainingConfig.from_dict(settings)
    except SettingError:
        return False
    return True


@pytest.mark.slow
def test_compiled_is_near_eager(tmp_path):
    torch._dynamo.reset()
    of = part("compiled SD1.5 fp16", kind="compiled")
    plan.run_sections(of.name, parts.sections_of(of, "cpu", small=True), tmp_path)
    torch._dynamo.reset()
    rows = plan.read_rows(tmp_path)
    assert of_kind(rows, "failed") == {}
    near = [row["difference to eager"] for row in rows if "difference to eager" in row]
    assert len(near) == 3
    assert max(near) < 1e-5


# --- whatever comes -----------------------------------------------------------------------------------------------------


def test_a_section_that_fails_is_a_row_and_the_next_goes_on(tmp_path):
    def fails():
        yield {"what": "time", "case": "first", "ms": 1.0}
        raise RuntimeError("CUDA out of memory")

    def works():
        yield {"what": "time", "case": "second", "ms": 2.0}

    plan.run_sections("a part", {"bad": fails, "good": works}, tmp_path)
    rows = plan.read_rows(tmp_path)
    assert of_kind(rows, "time").keys() == {"first", "second"}
    assert of_kind(rows, "failed")["bad"]["why"] == "RuntimeError: CUDA out of memory"


def test_a_part_is_ended_when_its_time_is_over_and_what_it_wrote_stays(tmp_path):
    half = '{"part": "a part", "what": "time", "case": "first", "ms": 1}\n{"part": "a pa'
    code = (
        f"import pathlib, subprocess, sys; pathlib.Path({str(tmp_path / plan.ROWS)!r}).write_text({half!r}); "
    )
    code += "subprocess.run([sys.executable, '-c', 'import time; time.sleep(600)'])"
    began = time.monotonic()
    plan.run_apart(part("a part"), [sys.executable, "-c", code], tmp_path, 5.0)
    assert time.monotonic() - began < 60
    rows = plan.read_rows(tmp_path)
    assert of_kind(rows, "time").keys() == {"first"}
    plan.run_apart(part("other"), [sys.executable, "-c", "raise SystemExit(3)"], tmp_path, 60.0)
    assert "status 3" in plan.read_rows(tmp_path)[-1]["why"]


def test_parts_without_time_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr(plan, "run_apart", lambda *_: pytest.fail("no time was left"))
    seen = []
    plan.run_all([part("late")], [], tmp_path, plan.RESERVE, lambda: seen.append(1))
    assert plan.read_rows(tmp_path)[0]["why"] == "no time was left"
    assert seen


def test_only_source_is_carried(tmp_path, monkeypatch):
    host, older = tmp_path / "host", tmp_path / "older"
    for path, size in {
        "comfy/ops.py": 10,
        "comfy/vocab.json": 3 * 2**20,
        "comfy/__pycache__/ops.pyc": 10,
        "folder_paths.py": 5,
        "models/large.safetensors": 10,
        "web/page.py": 10,
    }.items():
        (host / path).parent.mkdir(parents=True, exist_ok=True)
        (host / path).write_bytes(b"#" * size)
    older.mkdir()
    (older / "IPAdapterPlus.py").write_bytes(b"#" * 7)
    monkeypatch.setattr(carry, "CARRIED", tmp_path / "carried")
    monkeypatch.setattr(carry, "PACKAGES", ("no_such_package",))
    assert carry.carry(host, str(older)) == 22
    # set, so that what use_carried writes is taken back
    monkeypatch.setenv("COMFYUI_PATH", "")
    monkeypatch.setenv("IPADAPTER_PLUS_PATH", "")
    carry.use_carried()
    assert carry.os.environ["COMFYUI_PATH"] == str(tmp_path / "carried" / "comfyui")
    assert carry.os.environ["IPADAPTER_PLUS_PATH"] == str(tmp_path / "carried" / "older-pack")


def test_models_are_full_size_where_they_are_not_small():
    subjects = parts.subject("SDXL", parts.Place(torch.device("cpu"), torch.float16))
    assert subjects.unet.unet["model_channels"] == 320
    assert subjects.unet.unet["num_head_channels"] == 64
    assert tiny.FAMILIES["SDXL"].unet["model_channels"] == 32
