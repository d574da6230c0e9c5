"""The nodes of the packs for Flux and SD3.5: each equals our own nodes with the same settings, on a small stand-in."""

import pytest
import torch
from core.outlines import write_outline
from helpers import flux_stand_ins
from image_prompt import host
from image_prompt.host import folders
from image_prompt.host.attach.calls import Call
from image_prompt.ipadapter_core.checkpoint import Checkpoint, role_names
from image_prompt.ipadapter_core.errors import MismatchError, MissingFileError
from image_prompt.ipadapter_core.features import Features
from image_prompt.ipadapter_core.prompt import make_prompt
from image_prompt.nodes import NODE_CLASS_MAPPINGS
from image_prompt.nodes.compat import node_classes, old_prompts, transformer_encoding
from image_prompt.nodes.compat.arithmetic.block_strengths import CURVES, block_strengths
from image_prompt.nodes.compat.transformer_packs import SIGLIP
from image_prompt.nodes.compat.values import pipeline
from safetensors.torch import save_file
from support import tiny, tiny_flux, transformer
from support.prompts import counted_residuals

DOUBLE, SINGLE = 3, 2


@pytest.fixture(autouse=True)
def hooks(monkeypatch):
    """Of newer hosts, where this one lacks them: the stand-in of a model speaks their protocol."""
    transformer.install_hooks(monkeypatch)


@pytest.fixture
def model():
    return transformer.stand_in(DOUBLE, SINGLE)


def run(node_id, *args, **named):
    node = node_classes()[node_id]
    return getattr(node(), node.FUNCTION)(*args, **named)


def differ(a, b):
    return ((a - b).abs().max() / b.abs().max()).item()


def sample(model, **options):
    return transformer.sample(model, **options)


# --- XLabs -------------------------------------------------------------------------------------------------------


def xlabs_adapter(seed=7):
    roles = {"image_proj": {}, "ip_adapter": {}}
    tensors = tiny_flux.xlabs(DOUBLE, seed=seed)
    for key, (role, name) in role_names(tensors).items():
        roles[role][name] = tensors[key]
    return host.HostAdapter(Checkpoint("xlabs", **roles))


@pytest.fixture
def xlabs():
    """What XLabs' loader gives."""
    encoder = {"file": "clip.safetensors", "model": tiny.clip_vision()}
    return pipeline({"file": "xlabs.safetensors", "model": xlabs_adapter()}, encoder)


def ours(model, loaded, picture, **settings):
    """The same with our own nodes."""
    encode, apply = (NODE_CLASS_MAPPINGS[f"ImagePrompt{name}"]() for name in ("Encode", "Apply"))
    (prompt,) = encode.encode(loaded, loaded["clipvision"]["model"], picture)
    return apply.apply(model, prompt, **settings)[0]


@pytest.mark.parametrize("cfg", [1.0, 3.0])
def test_xlabs_apply_is_ours_with_a_black_picture_on_the_negative_side(model, xlabs, cfg):
    (steered,) = run("ApplyFluxIPAdapter", model, xlabs, tiny.picture(1, 40, 40), 0.6)
    expected = ours(model, xlabs, tiny.picture(1, 40, 40), weight=0.6)
    assert torch.equal(sample(steered, cfg=cfg), sample(expected, cfg=cfg))
    assert differ(sample(steered, cfg=cfg), sample(model, cfg=cfg)) > 1e-3


def test_of_several_images_each_acts_with_its_share_and_pictures_stay_apart(model, xlabs):
    pictures = tiny.picture(1, 40, 40, count=2)
    (steered,) = run("ApplyFluxIPAdapter", model, xlabs, pictures, 0.8)
    expected = ours(model, xlabs, pictures[:1], weight=0.4)
    expected = ours(expected, xlabs, pictures[1:], weight=0.4)
    assert torch.equal(sample(steered), sample(expected))
    batch = sample(steered, pictures=2)
    assert differ(batch[:1], sample(expected, pictures=2)[:1]) == 0


@pytest.mark.parametrize("curve", list(CURVES))
def test_xlabs_advanced_weights_blocks(model, xlabs, curve):
    (steered,) = run("ApplyAdvancedFluxIPAdapter", model, xlabs, tiny.picture(1, 40, 40), 0.2, 1.4, curve)
    strengths = block_strengths(curve, 0.2, 1.4, DOUBLE)
    layers = {f"double {n}": strength for n, strength in enumerate(strengths)}
    expected = ours(model, xlabs, tiny.picture(1, 40, 40), weight=1.0, layer_weights=layers)
    assert differ(sample(steered), sample(expected)) < 1e-6


def test_xlabs_advanced_averages_what_the_encoder_sees(model, xlabs):
    """As it does in that pack: of two equal pictures one remains."""
    picture = tiny.picture(1, 40, 40)
    (one,) = run("ApplyAdvancedFluxIPAdapter", model, xlabs, picture, 0.0, 1.0, "Linear")
    (two,) = run(
        "ApplyAdvancedFluxIPAdapter", model, xlabs, torch.cat((picture, picture)), 0.0, 1.0, "Linear"
    )
    assert differ(sample(two), sample(one)) < 1e-5


@pytest.mark.parametrize(
    ("curve", "expected"),
    [
        ("Linear", [0, 1 / 18, 1]),
        ("First half", [0, 1 / 8, 1]),
        ("Second half", [0, 0, 1]),
        ("Sigmoid", [0, None, 1]),
    ],
)
def test_curves_over_the_19_blocks(curve, expected):
    """Each goes from the first strength to the last; of two halves one is flat."""
    made = block_strengths(curve, 0.0, 1.0, 19)
    assert len(made) == 19
    assert made == sorted(made)
    for value, wanted in zip((made[0], made[1], made[-1]), expected, strict=True):
        assert wanted is None or value == pytest.approx(wanted)
    assert made[9] == pytest.approx({"First half": 1, "Second half": 0}.get(curve, 0.5), abs=1e-9)


# --- InstantX ----------------------------------------------------------------------------------------------------


@pytest.fixture
def instantx(monkeypatch):
    """What Shakker's loader gives. Hosts of August 2024 have no SigLIP: what it would see is given."""
    adapter = host.HostAdapter(Checkpoint("instantx", **tiny_flux.instantx(DOUBLE + SINGLE)))
    tokens = adapter.project(Features(torch.randn(1, 48, generator=torch.Generator().manual_seed(1))))
    prompt, asked = make_prompt(adapter, tokens, torch.zeros_like(tokens)), []

    def encode(adapter, encoder, reference):
        asked.append((len(reference.image), reference.fit))
        return prompt

    monkeypatch.setattr(transformer_encoding.host, "encode_prompt", encode)
    loaded = pipeline({"file": None, "model": adapter}, {"file": None, "model": "siglip"})
    return loaded, prompt, asked


@pytest.mark.parametrize("node_id", ["ApplyIPAdapterFlux", "ApplyIPAdapterFluxChroma"])
def test_shakkers_apply_is_ours(model, instantx, node_id):
    loaded, prompt, asked = instantx
    more = (False,) if node_id.endswith("Chroma") else ()
    (steered,) = run(node_id, model, loaded, tiny.picture(1), 0.75, 0.2, 0.6, *more)
    assert torch.equal(
        sample(steered, steps=5), sample(host.apply_prompt(model, prompt, 0.75, 0.2, 0.6), steps=5)
    )
    assert asked == [(1, None)]  # as trained: SigLIP squashes


def test_two_of_one_loader_keep_their_own_weights(model, instantx):
    """In that pack the second overwrites the first one's."""
    loaded, prompt, _ = instantx
    (one,) = run("ApplyIPAdapterFlux", model, loaded, tiny.picture(1), 0.2)
    before = sample(one)
    (other,) = run("ApplyIPAdapterFlux", model, loaded, tiny.picture(1), 1.5)
    assert torch.equal(sample(one), before)
    assert differ(sample(other), before) > 1e-3


def test_the_weight_runs_over_the_steps_in_the_window(model, instantx, monkeypatch):
    """From the first to the last over 3 steps, and on with the last; each run begins anew."""
    loaded, prompt, _ = instantx
    (steered,) = run("ApplyIPAdapterFluxAdvanced", model, loaded, tiny.picture(1), 0.4, 1.0, 3, 0.0, 1.0)
    factors = factors_of(steered, steps=5)
    assert factors == pytest.approx([0.4, 0.7, 1.0, 1.0, 1.0])
    assert factors_of(steered, steps=2) == pytest.approx([0.4, 0.7])
    (late,) = run(
        "ApplyIPAdapterFluxChromaAdvanced", model, loaded, tiny.picture(1), 0.4, 1.0, 2, 0.5, 1.0, True
    )
    assert [f for f in factors_of(late, steps=4) if f] == pytest.approx([0.4, 1.0])
    (single,) = run("ApplyIPAdapterFluxAdvanced", model, loaded, tiny.picture(1), 0.4, 1.0, 1)
    assert torch.equal(sample(single), sample(host.apply_prompt(model, prompt, 1.0)))


def factors_of(model, steps):
    """The factor on the weight at every step's sigma."""
    seen, original = {}, Call.factor

    def factor(call, timing):
        seen[float(call.sigmas[0])] = made = original(call, timing)
        return made

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Call, "factor", factor)
        sample(model, steps=steps, cfg=1.0)
    return [seen[sigma] for sigma in sorted(seen, reverse=True)]


# --- loaders -----------------------------------------------------------------------------------------------------


@pytest.fixture
def files(models, monkeypatch):
    """Adapters in the folders of the packs, and an encoder under a name of its own."""
    save_file(tiny_flux.xlabs(DOUBLE), models / folders.ADAPTERS / "flux-ip-adapter.safetensors")
    torch.save(tiny_flux.instantx(DOUBLE + SINGLE), models / folders.ADAPTERS / "ip-adapter.bin")
    write_outline(models / "clip_vision" / "clip_l.safetensors", {"vision_model.a": (1,)})
    return models


def test_xlabs_loader_reads_what_its_names_mean(files):
    (loaded,) = run("LoadFluxIPAdapter", "flux-ip-adapter.safetensors", "clip_l.safetensors", "CPU")
    assert loaded["ipadapter"]["model"].spec.variant.value == "xlabs"
    assert loaded["clipvision"]["file"].endswith("clip_l.safetensors")


@pytest.mark.parametrize("node_id", ["IPAdapterFluxLoader", "IPAdapterFluxChromaLoaderAdvanced"])
def test_an_encoder_named_by_its_repository_must_be_installed(files, node_id):
    (files / "clip_vision" / flux_stand_ins.SIGLIP).unlink()
    with pytest.raises(MissingFileError, match="google/siglip-so400m-patch14-384"):
        run(node_id, "ip-adapter.bin", SIGLIP, "cuda")


def test_a_missing_adapter_is_a_sentence_before_anything_runs(files):
    node = node_classes()["LoadFluxIPAdapter"]
    said = node.VALIDATE_INPUTS(ipadatper="nothing.safetensors", clip_vision="x", provider="CPU")
    assert "'nothing.safetensors' is not in" in said
    assert node.VALIDATE_INPUTS(ipadatper="flux-ip-adapter.safetensors", clip_vision="x") is True
    assert node.VALIDATE_INPUTS(clip_vision="x") is True  # a linked name is not known yet


def test_what_another_packs_loader_gives_is_a_sentence(model):
    with pytest.raises(MismatchError, match="holds no adapter, but a object"):
        run("ApplyIPAdapterFlux", model, object(), tiny.picture(1), 1.0)


def test_wan_is_refused_where_the_file_is_named_and_where_it_runs(model):
    said = node_classes()["IPAdapterWANLoader"].VALIDATE_INPUTS(ipadapter="ip-adapter.bin", provider="cuda")
    assert "no IP-Adapter for Wan is known" in said
    with pytest.raises(MismatchError, match="no IP-Adapter for Wan"):
        run("IPAdapterWANLoader", "ip-adapter.bin", "cuda")


# --- queued prompts ----------------------------------------------------------------------------------------------


def renewed(class_type, **inputs):
    prompt = {"7": {"class_type": class_type, "inputs": dict(inputs)}}
    classes = node_classes()
    old_prompts.renew(prompt, classes, lambda node: node in classes.values())
    return prompt["7"]


def test_the_strength_of_before_october_2024():
    node = renewed(
        "ApplyFluxIPAdapter", model=["1", 0], ip_adapter_flux=["2", 0], image=["3", 0], strength_model=2.5
    )
    assert node["inputs"]["ip_scale"] == 2.5
    assert "strength_model" not in node["inputs"]
    assert node_classes()["ApplyFluxIPAdapter"].VALIDATE_INPUTS(ip_scale=2.5) is True


def test_a_loader_that_named_no_encoder():
    node = renewed("IPAdapterFluxLoader", ipadapter="ip-adapter.bin", provider="cuda")
    assert node["inputs"]["clip_vision"] == SIGLIP


def test_the_sd3_node_of_before_december_2024():
    links = {"model": ["1", 0], "ipadapter": ["2", 0]}
    node = renewed("ApplyIPAdapterSD3", **links, image=["3", 0], weight=0.5)
    assert node["class_type"] == "ImagePromptLegacySD3Apply"
    assert (node["inputs"]["start_percent"], node["inputs"]["end_percent"]) == (0.0, 1.0)
    node = renewed("ApplyIPAdapterSD3", **links, image_embed=["3", 0], weight=0.5)
    assert node["class_type"] == "ApplyIPAdapterSD3"


def test_a_pack_that_has_the_id_keeps_its_own_form():
    theirs = type(
        "Theirs", (), {"INPUT_TYPES": classmethod(lambda cls: {"required": {"strength_model": ()}})}
    )
    prompt = {"7": {"class_type": "ApplyFluxIPAdapter", "inputs": {"strength_model": 0.6}}}
    old_prompts.renew(prompt, {"ApplyFluxIPAdapter": theirs}, lambda _: False)
    assert prompt["7"]["inputs"] == {"strength_model": 0.6}


def test_every_site_is_called(model, xlabs, instantx, monkeypatch):
    (steered,) = run("ApplyIPAdapterFlux", model, instantx[0], tiny.picture(1), 1.0)
    with counted_residuals(monkeypatch) as calls:
        sample(steered, steps=2)
    assert (len(calls), set(calls.values())) == (DOUBLE + SINGLE, {2})
