"""Image Prompt: Encode Face: which faces steer which pictures, and what it refuses."""

from dataclasses import replace

import pytest
import torch
from helpers.faces import given_faces
from image_prompt import host
from image_prompt.ipadapter_core.checkpoint import Checkpoint
from image_prompt.ipadapter_core.errors import MismatchError
from image_prompt.ipadapter_core.spec import Variant
from support import tiny
from support.parity import call


def adapter(kind):
    tensors = tiny.adapter_tensors(kind, tiny.SD15)
    return host.HostAdapter(Checkpoint(f"{kind}.bin", **tensors), Variant(kind))


@pytest.fixture(scope="module")
def plus_v2():
    return adapter("faceid plus v2")


@pytest.fixture(scope="module")
def faceid():
    return adapter("faceid")


def encode(made, faces, **options):
    return call("ImagePromptEncodeFace", made, faces, **options)


def run(model, prompt, pictures=1):
    return tiny.run_unet(call("ImagePromptApply", model, prompt, 1.0), tiny.SD15, pictures=pictures)


def test_a_frame_without_a_face_is_not_steered(sd15, plus_v2, encoder):
    faces = given_faces(2)
    video = replace(faces, groups=((0,), (), (1,)))
    prompt = encode(plus_v2, video, arrange="one per picture", clip_vision=encoder)
    steered, plain = run(sd15, prompt, 3), tiny.run_unet(sd15, tiny.SD15, pictures=3)
    cond, base = steered[3:], plain[3:]  # chunks (1, 0): uncond first
    assert torch.equal(cond[1], base[1])
    assert not torch.equal(cond[0], base[0])
    assert not torch.equal(cond[2], base[2])


def test_a_video_without_any_face_is_the_plain_model(sd15, plus_v2, encoder):
    nobody = replace(given_faces(), groups=((), ()))
    for arrange in ("one per picture", "all together"):
        prompt = encode(plus_v2, nobody, arrange=arrange, clip_vision=encoder)
        cond = run(sd15, prompt, 2)[2:]
        assert torch.equal(cond, tiny.run_unet(sd15, tiny.SD15, pictures=2)[2:])


def test_all_together_leaves_missing_faces_out(sd15, faceid):
    faces = given_faces(2)
    gaps = encode(faceid, replace(faces, groups=((0,), (), (1,))))
    assert torch.equal(gaps.cond, encode(faceid, faces).cond)


def test_faces_of_one_group_are_one_identity():
    raw, faces = adapter("faceid portrait unnorm"), given_faces(3)
    together = encode(raw, replace(faces, groups=((0, 1, 2),)))
    mean = encode(raw, replace(given_faces(), identities=faces.identities.mean(0, keepdim=True)))
    assert together.cond.shape == (1, 16, 768)
    torch.testing.assert_close(together.cond, mean.cond)


def test_weights_are_of_faces_and_stay_with_them(faceid):
    faces = replace(given_faces(2), groups=((0,), (), (1,)))
    prompt = encode(faceid, faces, image_weights="1, 9, 0.5")
    assert prompt.value_scale.tolist() == [[1.0] * 4 + [0.5] * 4]


def test_structure_weight_turns_the_view_of_the_face(plus_v2, encoder):
    faces = given_faces()
    tokens = [
        encode(plus_v2, faces, structure_weight=weight, clip_vision=encoder).cond
        for weight in (0.0, 1.0, 2.0)
    ]
    torch.testing.assert_close(tokens[2] - tokens[1], tokens[1] - tokens[0], atol=1e-5, rtol=0)
    other = replace(faces, aligned=1 - faces.aligned)
    blind = encode(plus_v2, other, structure_weight=0.0, clip_vision=encoder).cond
    assert torch.equal(tokens[0], blind)


def test_an_adapter_that_looks_needs_its_encoder(plus_v2):
    with pytest.raises(MismatchError, match=r"also looks at the face with .* Connect clip_vision"):
        encode(plus_v2, given_faces())


def test_an_adapter_that_reads_no_face_is_sent_to_encode_image():
    with pytest.raises(MismatchError, match="is a base adapter and reads no face embedding"):
        encode(adapter("base"), given_faces())


def test_a_face_adapter_is_sent_to_find_faces(faceid, encoder):
    with pytest.raises(MismatchError, match="reads a face embedding, not a whole picture"):
        call("ImagePromptEncode", faceid, encoder, tiny.picture())


def test_weights_for_another_number_of_faces_are_refused(faceid):
    with pytest.raises(MismatchError, match="2 image weights for 3 faces"):
        encode(faceid, given_faces(3), image_weights="1, 2")
