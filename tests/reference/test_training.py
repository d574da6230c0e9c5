"""Our trainer beside a plain PyTorch loop written from the equations, on diffusers' UNet: the same losses and weights."""

import pytest
import torch
import torch.nn.functional as F
from diffusers.loaders.ip_adapter import IPAdapterMixin
from helpers.training import Remembers, TinyBase, trainer
from image_prompt import host
from image_prompt.ipadapter_core.spec import Variant
from image_prompt.ipadapter_core.training.config import TrainingConfig
from image_prompt.ipadapter_core.training.export import save_adapter
from image_prompt.ipadapter_core.training.noise import batch_noise
from support import parity, tiny

RATES = {"drop_text": 0.2, "drop_image": 0.2, "drop_both": 0.2}  # often enough that each occurs in every run


def plain_loop(config, base, start, oracle, data, plan):
    """Eq. (1), (6), AdamW, one uniform draw for what is dropped; UNet, projection and processors are diffusers'."""
    parts = {role: {} for role in ("image_proj", "ip_adapter")}
    for key, tensor in start.items():
        role, name = key.split(".", 1)
        parts[role][name] = tensor
    oracle.unet.encoder_hid_proj = None
    oracle.unet._load_ip_adapter_weights([parts], low_cpu_mem_usage=False)
    trained = [oracle.unet.encoder_hid_proj, *oracle.image_attentions]
    parameters = [p.requires_grad_(True) for module in trained for p in module.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=config.learning_rate, weight_decay=config.weight_decay)
    losses, dropped = [], set()
    for number in range(config.steps):
        rows, _ = data.batch(plan.batch(number))
        drawn = batch_noise(config, number, tuple(rows["latents"].shape), 1000)
        dropped |= set(zip(drawn.drop_text.tolist(), drawn.drop_image.tolist(), strict=True))
        signal = base.diffusion.alphas_cumprod[drawn.timesteps].view(-1, 1, 1, 1)
        noisy = signal.sqrt() * rows["latents"] + (1 - signal).sqrt() * drawn.noise
        context, features = rows["context"].clone(), rows["features"].clone()
        context[drawn.drop_text] = data.no_text.context
        features[drawn.drop_image] = data.no_image
        added = {"image_embeds": [features[:, None]]}
        if "pooled" in rows:
            pooled = rows["pooled"].clone()
            pooled[drawn.drop_text] = data.no_text.pooled
            ids = torch.tensor([[64.0, 64, 0, 0, 64, 64]]).expand(len(context), -1)
            added |= {"text_embeds": pooled, "time_ids": ids}
        predicted = oracle.unet(noisy, drawn.timesteps, context, added_cond_kwargs=added).sample
        loss = F.mse_loss(predicted, drawn.noise)
        optimizer.zero_grad()
        loss.backward()
        for group in optimizer.param_groups:
            group["lr"] = config.learning_rate * min(1.0, (number + 1) / max(1, config.warmup))
        optimizer.step()
        losses.append(loss.item())
    assert len(dropped) == 4  # neither, the text, the image, both
    return losses


def matrices(oracle):
    """W'k and W'v by released key, as diffusers holds them."""
    found = {}
    for number, processor in enumerate(oracle.image_attentions):
        found[f"{number}.k"], found[f"{number}.v"] = processor.to_k_ip[0].weight, processor.to_v_ip[0].weight
    return found


# AdamW's first step is the learning rate times g / (|g| + 1e-8). Of SDXL's 17 million weights some have a first gradient
# below the rounding of 70 layers, 1e-8: there its sign is chance. A warm-up makes that step small.
RUNS = [("SD1.5", "base", 50, 0), ("SD1.5", "plus", 20, 0), ("SDXL", "base", 20, 10)]
LONG = [pytest.param(name, kind, 50, warmup, marks=pytest.mark.slow) for name, kind, _, warmup in RUNS[1:]]


@pytest.mark.parametrize(("name", "kind", "steps", "warmup"), [*RUNS, *LONG])
def test_a_run_equals_a_plain_loop(name, kind, steps, warmup, tmp_path):
    config = TrainingConfig(Variant(kind), steps=steps, batch_size=2, warmup=warmup, **RATES)
    twins = parity.Twins(tiny.FAMILIES[name])  # of its own: diffusers' half is trained
    base = TinyBase(twins.family, twins.model, parity.lively_encoder())
    ours, seen = trainer(config, base, tmp_path), Remembers()
    start = {key: tensor.clone() for key, tensor in ours.trainable.adapter.state_dict().items()}
    before = {key: tensor.clone() for key, tensor in base.unet.state_dict().items()}
    ours.run(seen)
    losses = plain_loop(config, base, start, twins.oracle, ours.data, ours.sampler)
    worst = max(abs(a - b) for a, b in zip(seen.losses, losses, strict=True))
    print(f"{name} {kind}: worst difference of a loss {worst:.1e}")
    assert worst < 1e-5
    state = ours.trainable.adapter.state_dict()
    keys = [key for key in state if key.startswith("ip_adapter.")]
    theirs = list(matrices(twins.oracle).values())
    off = max((state[key] - own).abs().max().item() for key, own in zip(keys, theirs, strict=True))
    print(f"{name} {kind}: worst difference of a weight {off:.1e}")
    assert off < 2e-6 * steps
    assert (state[keys[0]] - start[keys[0]]).abs().max() > 1e-3
    assert all(torch.equal(tensor, before[key]) for key, tensor in base.unet.state_dict().items())


class Pipeline(IPAdapterMixin):
    """As much of a diffusers pipeline as loads an adapter."""

    unet_name = "unet"
    image_encoder = feature_extractor = None

    def __init__(self, unet):
        self.unet = unet

    def register_modules(self, **modules):
        vars(self).update(modules)


@pytest.mark.parametrize("kind", ["base", "plus"])
def test_what_is_exported_loads_in_diffusers_and_gives_the_same_noise(twins, kind, tmp_path):
    config = TrainingConfig(Variant(kind), steps=2, batch_size=2, learning_rate=0.01)
    encoder = parity.lively_encoder()
    base = TinyBase(twins.family, twins.model, encoder)
    made = trainer(config, base, tmp_path)
    made.run(Remembers())
    batch = parity.make_batch(twins.family)
    cond, uncond = (
        features[None]
        for features in (base.features(Variant(kind), tiny.picture(1)), base.no_features(Variant(kind)))
    )
    for suffix in (".safetensors", ".bin"):
        path = save_adapter(made.trainable.checkpoint("mine"), tmp_path / f"exported{suffix}")
        twins.oracle.load()
        Pipeline(twins.oracle.unet).load_ip_adapter(
            str(tmp_path), subfolder="", weight_name=path.name, image_encoder_folder=None
        )
        prompt = host.encode_prompt(host.load_adapter(path), encoder, host.Reference(tiny.picture(1)))
        ours = parity.run_host(host.apply_prompt(twins.model, prompt, 1.0), batch)
        theirs = twins.oracle(batch, [torch.cat((uncond, cond))])
        assert parity.max_error(ours, theirs, f"exported {kind}{suffix}") < 2e-5
    twins.oracle.load()
