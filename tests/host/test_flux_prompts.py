"""Encode, Combine, Save, Load, negative images, weights of images and masks of references, with an adapter for Flux."""

import folder_paths
import pytest
import torch
from image_prompt import host
from image_prompt.ipadapter_core.checkpoint import Checkpoint, role_names
from image_prompt.ipadapter_core.errors import MismatchError
from image_prompt.nodes import NODE_CLASS_MAPPINGS
from support import tiny, tiny_flux, transformer

BLOCKS = 2


@pytest.fixture
def model(monkeypatch):
    transformer.install_hooks(monkeypatch)
    return transformer.stand_in(BLOCKS, BLOCKS)


@pytest.fixture(scope="module")
def adapter():
    roles = {"image_proj": {}, "ip_adapter": {}}
    tensors = tiny_flux.xlabs(BLOCKS)
    for key, (role, name) in role_names(tensors).items():
        roles[role][name] = tensors[key]
    return host.HostAdapter(Checkpoint("xlabs", **roles))


def run(name, **inputs):
    node = NODE_CLASS_MAPPINGS[name]()
    return getattr(node, node.FUNCTION)(**inputs)


def encode(adapter, encoder, **more):
    return run(
        "ImagePromptEncode", ipadapter=adapter, clip_vision=encoder, **{"image": tiny.picture(1), **more}
    )[0]


def steered(model, prompt, weight=0.8, **more):
    return transformer.sample(run("ImagePromptApply", model=model, image_prompt=prompt, weight=weight,
                                  start_at=0.0, end_at=1.0, weight_type="linear")[0], **more)  # fmt: skip


def near(a, b):
    return (a - b).norm() <= 1e-5 * b.norm()


def test_a_negative_image_takes_the_place_of_the_black_picture(model, adapter, encoder):
    plain = encode(adapter, encoder)
    negative = encode(adapter, encoder, negative_image=tiny.picture(2))
    assert near(negative.cond, plain.cond)
    assert not near(steered(model, negative), steered(model, plain))
    assert near(steered(model, negative, cfg=1.0), steered(model, plain, cfg=1.0))


def test_weights_of_images_reach_each_image(model, adapter, encoder):
    two = torch.cat((tiny.picture(1), tiny.picture(2)))
    both = encode(adapter, encoder, image=two)
    muted = encode(adapter, encoder, image=two, image_weights="1, 0")
    doubled = encode(adapter, encoder, image=two, image_weights="2, 2")
    assert not near(steered(model, both), steered(model, muted))
    assert near(steered(model, doubled, weight=0.4, cfg=1.0), steered(model, both, cfg=1.0))


def test_one_image_for_each_picture(model, adapter, encoder):
    two = torch.cat((tiny.picture(1), tiny.picture(2)))
    each = encode(adapter, encoder, image=two, arrange="one per picture")
    pictures = steered(model, each, pictures=2)
    for n, single in enumerate((encode(adapter, encoder), encode(adapter, encoder, image=tiny.picture(2)))):
        assert near(steered(model, single, pictures=2)[n], pictures[n])


def test_a_mask_of_the_reference_hides_a_part_of_it(model, adapter, encoder):
    mask = torch.zeros(1, 32, 32)
    mask[..., :16] = 1
    half, whole = encode(adapter, encoder, reference_mask=mask), encode(adapter, encoder)
    assert not near(steered(model, half), steered(model, whole))
    changed = tiny.picture(1).clone()
    changed[:, :, changed.shape[2] * 3 // 4 :] = 0.1
    assert not near(encode(adapter, encoder, image=changed).cond, whole.cond)


@pytest.mark.parametrize("method", ["concat", "add", "subtract", "average", "norm average"])
def test_combined(model, adapter, encoder, method):
    one, other = encode(adapter, encoder), encode(adapter, encoder, image=tiny.picture(2))
    made = run("ImagePromptCombine", image_prompt=one, method=method, weight=1.0, image_prompt_2=other,
               **{f"weight_{n}": 0.5 for n in range(2, 6)})[0]  # fmt: skip
    out = steered(model, made)
    assert torch.isfinite(out).all()
    assert not near(out, steered(model, one))


def test_two_adapters_do_not_combine(adapter, encoder):
    roles = tiny_flux.instantx(2 * BLOCKS)
    other = host.HostAdapter(Checkpoint("instantx", **roles))
    tokens = encode(adapter, encoder)
    from dataclasses import replace

    with pytest.raises(MismatchError, match=r"prompts of different adapters .* do not combine"):
        run("ImagePromptCombine", image_prompt=tokens, method="concat", weight=1.0,
            image_prompt_2=replace(tokens, adapter=other), **{f"weight_{n}": 1.0 for n in range(2, 6)})  # fmt: skip


@pytest.mark.parametrize("no_image", ["as trained", "nothing"])
def test_saved_and_read(model, adapter, encoder, no_image, tmp_path, monkeypatch):
    monkeypatch.setattr(folder_paths, "get_output_directory", lambda: str(tmp_path))
    monkeypatch.setattr(folder_paths, "get_input_directory", lambda: str(tmp_path / "in"))
    prompt = encode(adapter, encoder, no_image=no_image)
    name = run("ImagePromptSave", image_prompt=prompt, filename_prefix="flux")["ui"]["text"][0].split(" ")[1]
    back = run("ImagePromptLoad", ipadapter=adapter, prompt_file=f"output/{name}")[0]
    assert torch.equal(steered(model, back), steered(model, prompt))


def test_encode_face_says_what_to_use(adapter):
    from image_prompt.ipadapter_core.faces.selection import Faces

    with pytest.raises(MismatchError, match=r"xlabs adapter and reads no face embedding"):
        host.encode_faces(adapter, None, Faces.__new__(Faces))
