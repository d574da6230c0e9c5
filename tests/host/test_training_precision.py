"""Gradients in half precision beside those of fp32, for every UNet and precision; the settings of the launcher count."""

import pytest
import torch
from helpers.training import SIZES, Remembers, TinyBase, captioned, faces_of_colour, trainer
from image_prompt.ipadapter_core.errors import SettingError
from image_prompt.ipadapter_core.spec import Variant
from image_prompt.ipadapter_core.training.config import TrainingConfig
from image_prompt.ipadapter_core.training.precision import DTYPES, LossScale
from image_prompt.training import loop
from image_prompt.training.launch import LAUNCHED, REFUSED, as_launched
from image_prompt.training.session import Setup, prepare
from support import tiny

CONFIG = TrainingConfig(steps=1, batch_size=2, seed=5, drop_text=0.0, drop_image=0.0, drop_both=0.0)
# the mean over 1024 x 1024 pixels and 16 pictures divides by so much more than these tests' do
SMALL = 2.0**-12


def loaded(dtype: torch.dtype, family=tiny.SD15):
    """A model as a host loads it whose card computes in this dtype."""
    model = tiny.host_model(family)
    model.model.diffusion_model.to(dtype).dtype = dtype
    return model


@pytest.fixture(autouse=True)
def small(monkeypatch):
    mean = loop.loss_of
    monkeypatch.setattr(loop, "loss_of", lambda *given: mean(*given) * SMALL)


@pytest.fixture(autouse=True)
def no_launcher(monkeypatch):
    for variable in (*LAUNCHED.values(), *REFUSED):
        monkeypatch.delenv(variable, raising=False)


def gradients(folder, encoder, dtype, family=tiny.SD15, **more):
    """What the optimizer gets in the first step, in a row each: of projection, K' and V', LoRA if there is one."""
    base = TinyBase(family, loaded(dtype, family), encoder)
    with faces_of_colour(base):
        made = trainer(TrainingConfig.from_dict({**CONFIG.to_dict(), **more}), base, folder)
        parts = made.trainable.adapter.image_proj, made.trainable.adapter.ip_adapter, made.trainable.lora
        if made.trainable.lora is not None:
            begun(made.trainable.lora)
        seen, step = [], made.optimizer.optimizer.step

        def look(*args, **options):
            for part in filter(None, parts):
                seen.append(torch.cat([p.grad.detach().flatten().double() for p in part.parameters()]))
            return step(*args, **options)

        made.optimizer.optimizer.step = look
        made.run(Remembers())
    return seen, made


@torch.no_grad()
def begun(lora):
    """As after some steps: while `up` is zero, `down` has no gradient."""
    generator = torch.Generator().manual_seed(9)
    for key, weight in lora.state_dict().items():
        if ".up." in key:
            weight.copy_(torch.randn(weight.shape, generator=generator) * 0.02)


def cosine(a, b):
    """The least of all parts."""
    return min(torch.cosine_similarity(ours, exact, 0).item() for ours, exact in zip(a, b, strict=True))


@pytest.fixture(scope="module")
def exact(encoder, tmp_path_factory):
    made = {}

    def of(kind, family=tiny.SD15):
        if (kind, family.name) not in made:
            with pytest.MonkeyPatch.context() as patch:
                mean = loop.loss_of
                patch.setattr(loop, "loss_of", mean)
                folder = tmp_path_factory.mktemp("exact")
                more = {"kind": kind, **KINDS.get(kind, {})}
                made[kind, family.name] = gradients(folder, encoder, torch.float32, family, **more)[0]
        return made[kind, family.name]

    return of


# every pair for adapters that are small, and each dtype and each precision once for the resampler, which is slow
KINDS = {"base": {}, "full": {}, "faceid": {"lora_rank": 8}}
TOO_COARSE = ("faceid", "fp16", "bf16")
SLOW = [("fp16", "no"), ("fp32", "fp16"), ("bf16", "bf16")]
PAIRS = [(unet, asked) for unet in DTYPES for asked in ("no", "fp16", "bf16")]
CASES = [
    *((kind, *pair) for kind in KINDS for pair in PAIRS if (kind, *pair) != TOO_COARSE),
    *(("plus", *pair) for pair in SLOW),
    *(pytest.param("plus", *pair, marks=pytest.mark.slow) for pair in PAIRS if pair not in SLOW),
]


@pytest.mark.parametrize(("kind", "unet", "asked"), CASES)
def test_gradients_agree_with_full_precision(kind, unet, asked, exact, encoder, tmp_path):
    got, made = gradients(tmp_path, encoder, DTYPES[unet], precision=asked, kind=kind, **KINDS.get(kind, {}))
    wanted = exact(kind)
    found = [torch.cosine_similarity(a, b, 0).item() for a, b in zip(got, wanted, strict=True)]
    print(f"UNet {unet}, precision {asked}, {kind}: cosines {', '.join(f'{each:.5f}' for each in found)}")
    assert cosine(got, wanted) > 0.999
    assert all(a.norm() / b.norm() == pytest.approx(1, abs=0.02) for a, b in zip(got, wanted, strict=True))
    assert {p.dtype for p in made.trainable.parameters()} == {torch.float32}


def test_a_pair_through_which_they_do_not_is_refused(encoder, tmp_path):
    kind, unet, asked = TOO_COARSE
    with pytest.raises(SettingError, match=r"two roundings.*Set precision to fp16"):
        gradients(tmp_path, encoder, DTYPES[unet], precision=asked, kind=kind, **KINDS[kind])


@pytest.mark.parametrize("asked", ["no", "fp16"])
def test_so_do_those_of_sdxl(asked, exact, encoder, tmp_path):
    got, _ = gradients(tmp_path, encoder, torch.float16, tiny.SDXL, precision=asked)
    assert cosine(got, exact("base", tiny.SDXL)) > 0.999


def test_without_the_scale_they_would_not(exact, encoder, tmp_path, monkeypatch):
    monkeypatch.setattr(LossScale, "FIRST", 1.0)
    got, _ = gradients(tmp_path, encoder, torch.float16)
    assert cosine(got, exact("base")) < 0.99


def test_a_scale_that_is_too_large_is_halved_and_the_step_done_again(exact, encoder, tmp_path, monkeypatch):
    monkeypatch.setattr(LossScale, "FIRST", 2.0**40)
    got, made = gradients(tmp_path, encoder, torch.float16)
    assert cosine(got, exact("base")) > 0.999
    assert made.scale.value < 2.0**40
    again = trainer(made.config, made.base, tmp_path)
    assert again.resume() == 1
    assert again.scale.value == made.scale.value


def test_a_scale_grows_after_many_good_steps():
    scale = LossScale(TrainingConfig(), torch.float16)
    for _ in range(LossScale.PATIENCE):
        scale.update()
    assert scale.value == 2 * LossScale.FIRST
    assert LossScale(TrainingConfig(), torch.float32).value == 1


@pytest.mark.parametrize(
    ("part", "told"),
    [
        ("latents", "The VAE gave"),
        ("features", "The image encoder gave"),
        ("context", "The text encoder gave"),
    ],
)
def test_an_encoder_that_gives_nan_is_named(part, told, encoder, tmp_path):
    """Not the learning rate: a VAE in fp16 is known for it."""
    base = TinyBase(tiny.SD15, loaded(torch.float32), encoder)
    made = trainer(TrainingConfig.from_dict({**CONFIG.to_dict(), "vae": "host"}), base, tmp_path)
    batch = made.data.batch

    def broken(*given):
        rows, crops = batch(*given)
        return {**rows, part: rows[part] * float("nan")}, crops

    made.data.batch = broken
    with pytest.raises(SettingError, match=f"the loss is nan in step 1. {told} numbers like this") as error:
        made.run(Remembers())
    assert ("set vae to auto" in str(error.value)) == (part == "latents")
    assert "The adapter after" not in str(error.value)


def test_gradients_that_stay_endless_stop_the_run_and_the_weights_are_whole(encoder, tmp_path):
    base = TinyBase(tiny.SD15, loaded(torch.float32), encoder)
    made = trainer(TrainingConfig.from_dict({**CONFIG.to_dict(), "steps": 3}), base, tmp_path)
    loss = made._loss
    # finite, and its slope is not
    weight = next(made.trainable.parameters())
    made._loss = lambda batch: loss(batch) + (weight.sum() * 0).abs().sqrt() if batch == 1 else loss(batch)
    with pytest.raises(SettingError, match="a gradient is not finite in step 2"):
        made.run(Remembers())
    assert made.number == 1
    assert all(p.isfinite().all() for p in made.trainable.parameters())


@pytest.mark.parametrize(
    ("unet", "asked", "runs_in"),
    [("fp16", "bf16", "bf16"), ("bf16", "no", "fp32"), ("bf16", "fp16", "fp16"), ("fp32", "fp16", "fp32")],
)
def test_a_unet_meets_no_other_half_precision(unet, asked, runs_in, encoder):
    base = TinyBase(tiny.SD15, loaded(DTYPES[unet]), encoder)
    base.compute_in(TrainingConfig.from_dict({"precision": asked}))
    assert base.unet.out[2].weight.dtype is DTYPES[runs_in]
    assert base.model.model.diffusion_model.out[2].weight.dtype is DTYPES[unet]


def test_the_dtype_of_the_unet_can_be_asked_for(encoder, tmp_path, exact):
    got, made = gradients(tmp_path, encoder, torch.float16, unet="fp32")
    assert made.base.unet.out[2].weight.dtype is torch.float32
    assert cosine(got, exact("base")) > 0.99999


@pytest.mark.parametrize(("unet", "asked"), [("fp16", "bf16"), ("bf16", "no"), ("bf16", "fp16")])
def test_what_does_not_go_together_is_refused(unet, asked):
    with pytest.raises(SettingError, match=f"unet is {unet} and precision is {asked}"):
        TrainingConfig.from_dict({"unet": unet, "precision": asked})


def test_bf16_is_refused_where_it_is_too_coarse(encoder, tmp_path):
    base = TinyBase(tiny.SDXL, loaded(torch.float32, tiny.SDXL), encoder)
    with pytest.raises(SettingError, match="precision is bf16, which rounds too coarsely"):
        prepare(
            TrainingConfig.from_dict({"precision": "bf16"}),
            base,
            captioned(),
            Setup(SIZES, loop.Output(tmp_path), {}),
        )


@pytest.mark.parametrize("more", [{"unet": "fp32"}, {"precision": "bf16"}])
def test_an_adapter_is_sampled_in_the_dtype_it_is_trained_in(encoder, tmp_path, more):
    """Samples of a run whose UNet was moved to another dtype."""
    from image_prompt.ipadapter_core.training.base import SampleRequest

    _, made = gradients(tmp_path, encoder, torch.float16, **more)
    picture = made.base.sample(
        made.trainable.checkpoint("x"), SampleRequest(tiny.picture(1), "a", 64, 1, steps=2)
    )
    assert picture.isfinite().all()
    assert made._step().number == 2


# --- settings of the launcher --------------------------------------------------------------------------------------


def test_the_launchers_precision_and_accumulation_are_followed(encoder, tmp_path, monkeypatch):
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "2")
    base = TinyBase(tiny.SD15, loaded(torch.float32), encoder)
    made = prepare(CONFIG, base, captioned(), Setup(SIZES, loop.Output(tmp_path), {}))
    assert (made.config.precision.value, made.config.accumulation) == ("bf16", 2)
    assert made.accelerator.mixed_precision == "bf16"
    before = [p.detach().clone() for p in made.trainable.parameters()]
    batches, loss = [], made._loss
    made._loss = lambda batch: batches.append(batch) or loss(batch)
    made.run(Remembers())
    assert batches == [0, 1]
    assert any((p != was).any() for p, was in zip(made.trainable.parameters(), before, strict=True))


def test_weights_move_in_every_step_whatever_accelerate_counted(encoder, tmp_path, monkeypatch):
    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "1")  # as its config files have it
    base = TinyBase(tiny.SD15, loaded(torch.float32), encoder)
    made = trainer(TrainingConfig.from_dict({**CONFIG.to_dict(), "accumulation": 3}), base, tmp_path)
    assert made.config.accumulation == 3
    made.accelerator.step = 1  # as after a run that broke off between two batches
    made.base.load(False)
    weight = made.trainable.adapter.state_dict()["ip_adapter.1.to_k_ip.weight"]
    for _ in range(2):
        before = weight.clone()
        made._step()
        assert (weight != before).any()


@pytest.mark.parametrize(
    ("variable", "value", "settings", "told"),
    [
        ("ACCELERATE_MIXED_PRECISION", "bf16", {"precision": "fp16"}, "fp16 in the settings, and accelerate .* says bf16"),
        ("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4", {"accumulation": 2}, "2 in the settings, .* says 4"),
        ("ACCELERATE_MIXED_PRECISION", "fp8", {}, "must be no, fp16, bf16"),
        ("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "many", {}, "'many'"),
        ("ACCELERATE_USE_DEEPSPEED", "true", {}, "set to use DeepSpeed"),
        ("ACCELERATE_USE_FSDP", "true", {}, "set to use FSDP"),
    ],
)  # fmt: skip
def test_what_contradicts_is_told_before_anything_is_encoded(
    variable, value, settings, told, encoder, tmp_path, monkeypatch
):
    monkeypatch.setenv(variable, value)
    base = TinyBase(tiny.SD15, loaded(torch.float32), encoder)
    monkeypatch.setattr(base, "texts", lambda captions: pytest.fail("encoded"), raising=False)
    with pytest.raises(SettingError, match=told):
        prepare(
            TrainingConfig.from_dict({**CONFIG.to_dict(), **settings}),
            base,
            captioned(),
            Setup(SIZES, loop.Output(tmp_path), {}),
        )


def test_a_launcher_without_settings_leaves_the_config(monkeypatch):
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")
    config = TrainingConfig.from_dict({"precision": "bf16", "kind": Variant.PLUS.value})
    assert as_launched(config) is config
