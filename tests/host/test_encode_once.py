"""Encoding: nothing again for the same image, and many pictures in bounded batches with the host's progress bar."""

import inspect

import pytest
import torch
from image_prompt import host
from image_prompt.host import vision
from image_prompt.nodes import NODE_CLASS_MAPPINGS
from support import tiny
from support.prompts import make_adapter

FORGETFUL = {"ImagePromptDoctor"}  # files come and go without the graph knowing; gives text only


def stamped():
    """Ids of our nodes that tell the host themselves whether they changed."""
    return sorted(name for name, node in NODE_CLASS_MAPPINGS.items() if hasattr(node, "IS_CHANGED"))


@pytest.mark.parametrize("name", stamped())
def test_no_node_makes_the_host_run_it_again_for_the_same_inputs(name, tmp_path, monkeypatch):
    """The host keeps the outputs of nodes with unchanged inputs; a stamp that differs would defeat that."""
    node = NODE_CLASS_MAPPINGS[name]
    file = tmp_path / "prompt.safetensors"
    file.write_bytes(b"tokens")
    for get in ("get_annotated_filepath", "get_full_path"):
        monkeypatch.setattr(f"folder_paths.{get}", lambda *_: str(file))
    monkeypatch.setattr("folder_paths.get_input_directory", lambda: str(tmp_path))
    parameters = inspect.signature(node.IS_CHANGED).parameters.values()
    taken = [each.name for each in parameters if each.kind is each.POSITIONAL_OR_KEYWORD]
    inputs = dict.fromkeys(taken, file.name)
    first, again = (node.IS_CHANGED(**inputs) for _ in range(2))
    assert (first == again) == (name not in FORGETFUL)


def test_only_text_leaves_a_node_that_runs_every_time():
    assert all(set(NODE_CLASS_MAPPINGS[name].RETURN_TYPES) == {"STRING"} for name in FORGETFUL)


class Bar:
    def __init__(self, total):
        self.total, self.steps = total, []

    def update(self, count):
        self.steps.append(count)


@pytest.fixture
def watched(monkeypatch):
    """(sizes of the batches that the encoder saw, the progress bars that were shown)."""
    batches, bars, run = [], [], vision._run

    def counting(encoder, values):
        batches.append(len(values))
        return run(encoder, values)

    def bar(total):
        bars.append(Bar(total))
        return bars[-1]

    monkeypatch.setattr(vision, "_run", counting)
    monkeypatch.setattr(vision, "progress_bar", bar)
    return batches, bars


@pytest.mark.parametrize("encode", ["ours", "as the host"])
def test_many_pictures_are_encoded_in_batches_with_a_progress_bar(encoder, watched, encode):
    batches, bars = watched
    adapter, pictures = make_adapter("base", tiny.SD15), tiny.picture(4, count=40)
    if encode == "ours":
        features = host.encode_images(encoder, adapter.spec, host.Reference(pictures))
    else:
        features = host.encode_as_host(encoder, adapter.spec, pictures)
    assert len(features) == 40
    assert batches == [16, 16, 8]
    assert [(bar.total, bar.steps) for bar in bars] == [(40, [16, 16, 8])]


def test_pixel_values_are_made_batch_by_batch_each_with_its_own_mask(encoder, monkeypatch):
    """All at once, 1000 pictures would take 600 MB before the first is encoded."""
    made, pixel_values = [], vision.pixel_values
    monkeypatch.setattr(
        vision, "pixel_values", lambda *args: made.append(len(args[0])) or pixel_values(*args)
    )
    spec, pictures = make_adapter("base", tiny.SD15).spec, tiny.picture(4, count=20)
    masks = torch.rand(20, 8, 8, generator=torch.Generator().manual_seed(1))
    together = host.encode_images(encoder, spec, host.Reference(pictures, mask=masks))
    assert made == [16, 4]
    for n in (0, 17):
        alone = host.encode_images(encoder, spec, host.Reference(pictures[n : n + 1], mask=masks[n : n + 1]))
        torch.testing.assert_close(together[n : n + 1], alone, atol=1e-5, rtol=1e-5)


def test_a_prompt_applied_again_encodes_nothing(sd15, encoder, watched):
    batches, _ = watched
    adapter = make_adapter("plus", tiny.SD15)
    prompt = host.encode_prompt(adapter, encoder, host.Reference(tiny.picture(1)))
    assert batches == [1, 1]  # the picture, and no picture
    for weight in (1.0, 0.5):
        host.apply_prompt(sd15, prompt, weight)
    assert batches == [1, 1]
    assert torch.isfinite(prompt.cond).all()
