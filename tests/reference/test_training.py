"""Our trainer beside a plain PyTorch loop written from the equations, on diffusers' UNet: the same losses and weights."""

import contextlib

import pytest
import torch
import torch.nn.functional as F
from diffusers.loaders.ip_adapter import IPAdapterMixin
from helpers import published
from helpers.training import Remembers, TinyBase, faces_of_colour, trainer
from image_prompt import host
from image_prompt.ipadapter_core.spec import Variant
from image_prompt.ipadapter_core.training.config import TrainingConfig
from image_prompt.ipadapter_core.training.export import save_adapter
from image_prompt.ipadapter_core.training.noise import batch_noise
from image_prompt.training.pictures import from_tensors
from support import parity, tiny

RATES = {"drop_text": 0.2, "drop_image": 0.2, "drop_both": 0.2}  # often enough that each occurs in every run


class Diffusers:
    """UNet, projection and processors of diffusers."""

    def __init__(self, config, start, twins):
        parts = {role: {} for role in ("image_proj", "ip_adapter")}
        for key, tensor in start.items():
            role, name = key.split(".", 1)
            parts[role][name] = tensor
        self.oracle = oracle = twins.oracle
        oracle.unet.encoder_hid_proj = None
        oracle.unet._load_ip_adapter_weights([parts], low_cpu_mem_usage=False)
        self.trained = [oracle.unet.encoder_hid_proj, *oracle.image_attentions]

    def predict(self, noisy, timesteps, context, features, added):
        added = {"image_embeds": [features[:, None]], **added}
        return self.oracle.unet(noisy, timesteps, context, added_cond_kwargs=added).sample

    def matrices(self):
        """W'k and W'v in the file's order, as diffusers holds them."""
        pairs = [(each.to_k_ip[0].weight, each.to_v_ip[0].weight) for each in self.oracle.image_attentions]
        return [matrix for pair in pairs for matrix in pair]


class Published:
    """The published trainer's module: its projection, tokens behind the text, its processors with or without a LoRA."""

    def __init__(self, config, start, twins):
        self.rank, self.unet = config.rank, twins.oracle.load().unet
        roles = {
            role: {k.removeprefix(f"{role}."): t for k, t in start.items() if k.startswith(f"{role}.")}
            for role in ("image_proj", "ip_adapter")
        }
        tokens = config.token_count or 0
        self.projection = published.projection(config.kind.value, 512, twins.family.context, tokens)
        self.projection.load_state_dict(roles["image_proj"])
        made = published.processors(self.unet, roles["ip_adapter"], 1.0, tokens, self.rank)
        modules = (p if isinstance(p, torch.nn.Module) else torch.nn.Identity() for p in made.values())
        self.numbered = torch.nn.ModuleList(modules)
        self.trained = [self.projection, self.numbered]
        # which empties the dictionary
        self.unet.set_attn_processor(made)

    def predict(self, noisy, timesteps, context, features, added):
        text = torch.cat((context, self.projection(features)), 1)
        return self.unet(noisy, timesteps, text, added_cond_kwargs=added).sample

    def matrices(self):
        state = self.numbered.state_dict()
        return [state[key] for key in sorted(state, key=_in_file)]


def _in_file(key):
    """Sorts K', V' and the LoRA of every attention as our state has them."""
    return "_lora." in key, int(key.split(".")[0]), [*"qkvo"].index(key.split(".to_")[1][0]), key


def plain_loop(config, base, theirs, data, plan):
    """Eq. (1), (6), AdamW, one uniform draw for what is dropped."""
    parameters = [p.requires_grad_(True) for module in theirs.trained for p in module.parameters()]
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
        added = {}
        if "pooled" in rows:
            pooled = rows["pooled"].clone()
            pooled[drawn.drop_text] = data.no_text.pooled
            ids = torch.tensor([[64.0, 64, 0, 0, 64, 64]]).expand(len(context), -1)
            added = {"text_embeds": pooled, "time_ids": ids}
        loss = F.mse_loss(theirs.predict(noisy, drawn.timesteps, context, features, added), drawn.noise)
        optimizer.zero_grad()
        loss.backward()
        for group in optimizer.param_groups:
            group["lr"] = config.learning_rate * min(1.0, (number + 1) / max(1, config.warmup))
        optimizer.step()
        losses.append(loss.item())
    assert len(dropped) == 4  # neither, the text, the image, both
    return losses


# AdamW's first step is the learning rate times g / (|g| + 1e-8). Of SDXL's 17 million weights some have a first gradient
# below the rounding of 70 layers, 1e-8: there its sign is chance. A warm-up makes that step small.
RUNS = {
    "base": ("SD1.5", {}),
    "plus": ("SD1.5", {"kind": "plus"}),
    "plus, another picture": ("SD1.5", {"kind": "plus"}),
    "full": ("SD1.5", {"kind": "full"}),
    "faceid": ("SD1.5", {"kind": "faceid", "lora_rank": 8}),
    "faceid without LoRA": ("SD1.5", {"kind": "faceid", "lora_rank": 0}),
    "SDXL": ("SDXL", {"warmup": 10}),
    "SDXL faceid": ("SDXL", {"kind": "faceid", "lora_rank": 4, "warmup": 10}),
}
# fewer steps of those that are slow, but in the slow tests
STEPS = {"base": 50, "faceid": 50, "full": 50}
OFTEN = [pytest.param(run, STEPS.get(run, 20)) for run in RUNS if run != "SDXL faceid"]
LONG = [pytest.param(run, 50, marks=pytest.mark.slow) for run in RUNS if run not in STEPS]


@pytest.mark.parametrize(("run", "steps"), [*OFTEN, *LONG])
def test_a_run_equals_a_plain_loop(run, steps, tmp_path):
    name, more = RUNS[run]
    config = TrainingConfig.from_dict({"steps": steps, "batch_size": 2, **RATES, **more})
    twins = parity.Twins(tiny.FAMILIES[name])  # of its own: their half is trained
    base = TinyBase(twins.family, twins.model, parity.lively_encoder())
    pictures = with_references() if "another" in run else None
    face = config.kind is Variant.FACEID
    with faces_of_colour(base) if face else contextlib.nullcontext():
        ours, seen = trainer(config, base, tmp_path, pictures), Remembers()
        start = ours.trainable.checkpoint("start").state_dict()
        before = {key: tensor.clone() for key, tensor in base.unet.state_dict().items()}
        ours.run(seen)
        theirs = (Published if face else Diffusers)(config, start, twins)
        losses = plain_loop(config, base, theirs, ours.data, ours.sampler)
    worst = max(abs(a - b) for a, b in zip(seen.losses, losses, strict=True))
    print(f"{run}, {steps} steps: worst difference of a loss {worst:.1e}")
    assert worst < 1e-5
    state = ours.trainable.checkpoint("end").state_dict()
    keys = sorted((key for key in state if key.startswith("ip_adapter.")), key=lambda key: _in_file(key[11:]))
    pairs = [(state[key], own) for key, own in zip(keys, theirs.matrices(), strict=True)]
    off = max((a - b).abs().max().item() for a, b in pairs)
    print(f"{run}, {steps} steps: worst difference of a weight {off:.1e}")
    assert off < 2e-6 * steps
    assert all((state[key] != start[key]).any() for key in keys)
    assert max((state[key] - start[key]).abs().max() for key in keys) > 1e-3
    assert all(torch.equal(tensor, before[key]) for key, tensor in base.unet.state_dict().items())


def with_references():
    """Pictures whose image prompts are others, as plus-face was trained."""
    references = [tiny.picture(70 + number, 48, 48)[0] for number in range(6)]
    return from_tensors(
        [tiny.picture(5, 64, 64, count=6)],
        [f"picture of {number}" for number in range(6)],
        [each[None] for each in references],
    )


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
