"""The retraining command, a few steps of every stage: what it writes has the layout of the weights that are kept."""

import torch
from image_prompt.ipadapter_core.checkpoint import read_checkpoint
from image_prompt.ipadapter_core.spec import Variant
from image_prompt.ipadapter_core.variants import detect
from image_prompt.lab.toy import __main__ as train
from image_prompt.lab.toy import storage
from image_prompt.lab.toy.config import WEIGHTS
from safetensors.torch import load_file


def test_a_few_steps_of_every_stage_write_the_layouts_that_are_kept(tmp_path):
    threads = torch.get_num_threads()
    folders = ["--out", str(tmp_path), "--state", str(tmp_path / "state")]
    train.main([*folders, "--steps", "0.002", "--threads", str(threads), "--stages", *train.STAGES])
    names = sorted(path.name for path in WEIGHTS.glob("*.safetensors"))
    assert sorted(path.name for path in tmp_path.glob("*.safetensors")) == names
    for name in names:
        made, kept = load_file(tmp_path / name), load_file(WEIGHTS / name)
        assert {key: tensor.shape for key, tensor in made.items()} == {k: t.shape for k, t in kept.items()}, (
            name
        )
    spec = detect(read_checkpoint(tmp_path / "ip-adapter_toy.safetensors").shapes)
    assert (spec.variant, spec.tokens, len(spec.site_keys)) == (Variant.BASE, 4, 16)
    spec = detect(read_checkpoint(tmp_path / "ip-adapter_toy-flux.safetensors").shapes)
    assert (spec.variant, spec.tokens, len(spec.site_keys)) == (Variant.XLABS, 4, 3)


def test_weights_in_eight_bits_come_back_beside_those_named_scale(tmp_path):
    weights = {"norm.scale": torch.rand(4), "linear.weight": torch.randn(3, 4), "linear.bias": torch.randn(3)}
    storage.save(weights, tmp_path / "some.safetensors", eight_bits=True)
    found = storage.load(tmp_path / "some.safetensors")
    assert found.keys() == weights.keys()
    for key, tensor in weights.items():
        torch.testing.assert_close(found[key], tensor, rtol=1e-2, atol=2e-2)


def test_the_kept_weights_stay_small():
    assert sum(path.stat().st_size for path in WEIGHTS.iterdir()) < 15e6
