"""States of training: the newest by number, never another run's, never half of one."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers.quick_trainer import STEPS, quick, weights
from helpers.training import Remembers
from image_prompt.ipadapter_core.errors import SettingError
from image_prompt.training.callbacks import Callback
from image_prompt.training.states import DamagedStateError, all_states, states
from safetensors.torch import load_file

SCRIPT = Path(__file__).resolve().parent.parent / "helpers" / "killed.py"


def names(folder):
    return [path.name for path in states(folder)]


def run(folder, steps, **more):
    made = quick(folder, steps=steps, **more)
    made.resume()
    made.run(Callback())
    return made


def test_states_are_ordered_by_number_past_a_million(tmp_path):
    made = run(tmp_path, 3)
    made.number = 999_998
    made.config = quick(tmp_path, steps=1_000_002).config
    made.run(Callback())
    assert names(tmp_path) == ["state-1000001", "state-1000002"]
    assert quick(tmp_path, steps=1_000_003).resume() == 1_000_002


def test_a_new_run_leaves_a_longer_old_one_alone_and_goes_on_from_its_own(tmp_path):
    old = weights(run(tmp_path, 9))
    made = quick(tmp_path, steps=9)  # as with resume off
    made.run(Remembers(stop_after=2))
    assert names(tmp_path) == ["state-000001", "state-000002"]
    again = quick(tmp_path, steps=9)
    assert again.resume() == 2
    assert torch.equal(weights(again), weights(made))
    kept = tmp_path / "state-000009-earlier"
    assert kept.is_dir()
    back = tmp_path / "back"
    shutil.copytree(kept, back / "state-000009")  # nothing was lost
    other = quick(back, steps=9)
    assert other.resume() == 9
    assert torch.equal(weights(other), old)


def test_a_new_run_that_was_stopped_before_it_saved_does_not_go_on_from_the_old_one(tmp_path):
    run(tmp_path, 9)
    made = quick(tmp_path, steps=9, every=0)
    made._step = lambda: (_ for _ in ()).throw(KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):
        made.run(Callback())
    assert quick(tmp_path, steps=9).resume() == 0


def test_several_new_runs_keep_what_they_found(tmp_path):
    for _ in range(3):
        quick(tmp_path, steps=2).run(Callback())
    assert {path.name for path in tmp_path.glob("state-000002*")} == {
        "state-000002",
        "state-000002-earlier",
        "state-000002-earlier-2",
    }


# --- damage ------------------------------------------------------------------------------------------------------


def emptied(state, name):
    (state / name).write_bytes(b"")


def halved(state, name):
    content = (state / name).read_bytes()
    (state / name).write_bytes(content[: len(content) // 2])


def flipped(state, name):
    content = bytearray((state / name).read_bytes())
    content[len(content) // 2] ^= 0xFF
    (state / name).write_bytes(content)


def gone(state, name):
    (state / name).unlink()


FILES = ["about.json", "model.safetensors", "optimizer.bin", "random_states_0.pkl"]
HOW = {each.__name__: each for each in (emptied, halved, flipped, gone)}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("how", HOW)
def test_a_damaged_state_is_passed_over_with_a_line(tmp_path, caplog, name, how):
    whole = weights(run(tmp_path / "whole", 6))
    run(tmp_path, 4)
    HOW[how](tmp_path / "state-000004", name)
    made = quick(tmp_path, steps=6)
    assert made.resume() == 3
    assert f"state-000004 ({name}" in caplog.text
    assert "resuming from state-000003" in caplog.text
    made.run(Callback())
    assert torch.equal(weights(made), whole)
    assert names(tmp_path) == ["state-000005", "state-000006"]
    assert (tmp_path / "state-000004-damaged").is_dir()


def test_an_old_about_over_a_half_written_state(tmp_path, caplog):
    """As a writer leaves it that writes in place."""
    run(tmp_path, 4)
    for name in FILES[1:3]:
        shutil.copy(tmp_path / "state-000003" / name, tmp_path / "state-000004" / name)
    assert quick(tmp_path, steps=6).resume() == 3
    run(tmp_path / "b", 4)
    shutil.copy(
        tmp_path / "b" / "state-000003" / "about.json", tmp_path / "b" / "state-000004" / "about.json"
    )
    assert quick(tmp_path / "b", steps=6).resume() == 3
    assert "about.json is of step 3" in caplog.text


@pytest.mark.parametrize(
    "content", ["[]", "{}", "null", '{"recipe": {}, "steps": "4", "processes": 1}', "\x00\x01"]
)
def test_an_about_that_is_something_else(tmp_path, content):
    run(tmp_path, 4)
    (tmp_path / "state-000004" / "about.json").write_text(content)
    assert quick(tmp_path, steps=6).resume() == 3


def test_where_all_are_damaged_it_is_told_and_nothing_is_lost(tmp_path):
    run(tmp_path, 4)
    for state in all_states(tmp_path):
        halved(state, "optimizer.bin")
    with pytest.raises(
        DamagedStateError, match=r"state-000004 \(optimizer.bin is not as it was written\), state-000003"
    ):
        quick(tmp_path, steps=6).resume()
    assert len(all_states(tmp_path)) == 2


def test_states_of_before_they_told_their_files_are_gone_on_from(tmp_path, caplog):
    made = run(tmp_path, 4)
    for state in all_states(tmp_path):
        about = json.loads((state / "about.json").read_text())
        kept = {name: about[name] for name in ("recipe", "steps", "processes")}
        del kept["recipe"]["unet"]
        (state / "about.json").write_text(json.dumps(kept))
    again = quick(tmp_path, steps=6)
    assert again.resume() == 4
    assert torch.equal(weights(again), weights(made))
    halved(tmp_path / "state-000004", "model.safetensors")
    assert quick(tmp_path, steps=6).resume() == 3


def test_an_average_that_is_damaged(tmp_path):
    run(tmp_path, 4, ema=0.5)
    halved(tmp_path / "state-000004", "custom_checkpoint_0.pkl")
    assert quick(tmp_path, steps=6, ema=0.5).resume() == 3


# --- kills -------------------------------------------------------------------------------------------------------


def test_a_run_that_is_killed_at_random_moments_always_goes_on(tmp_path):
    command = [sys.executable, str(SCRIPT), str(tmp_path), "1", "20"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    lines = done.stdout.splitlines()
    print(lines)
    assert len(lines) == 21
    assert lines[-1] == "the same"
    assert int(lines[-2]) > 0
    assert [path.name for path in states(tmp_path)] == [f"state-{STEPS - 1:06d}", f"state-{STEPS:06d}"]
    assert not list(tmp_path.glob(".state*"))
    for path in tmp_path.glob("*.safetensors"):  # nothing half under a final name
        assert load_file(path)["image_proj.proj.weight"].shape == (16, 8)


def test_what_breaks_off_in_the_middle_of_a_step_is_not_saved_as_a_whole_one(tmp_path):
    made = quick(tmp_path, steps=9, every=0)
    step, calls = made.optimizer.optimizer.step, []

    def broken(*args, **options):
        step(*args, **options)
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt

    made.optimizer.optimizer.step = broken
    with pytest.raises(KeyboardInterrupt):
        made.run(Callback())
    assert names(tmp_path) == []


def test_an_adapter_that_is_gone_is_written_again(tmp_path):
    made = run(tmp_path, 4)
    made.path(4).unlink()
    assert run(tmp_path, 4).path(4).is_file()


def test_another_recipe_is_still_refused(tmp_path):
    run(tmp_path, 4)
    with pytest.raises(SettingError, match="was made with other settings"):
        quick(tmp_path, steps=4, seed=9).resume()
