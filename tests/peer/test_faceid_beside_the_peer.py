"""FaceID nodes beside the de-facto pack's, both with the insightface package on the same toy face models."""

import pytest
import torch
from helpers import face_graphs
from image_prompt.nodes.compat import settings
from insightface.app import FaceAnalysis
from support import layouts, peer, tiny
from support.oracle import lively_
from support.parity import LIMIT, max_error

pytestmark = pytest.mark.peer
# what the loader of the pack adds to the dict by the file's name
FLAGS = {"faceid plus v2": {"faceidplusv2": True}, "faceid portrait unnorm": {"portraitunnorm": True}}


@pytest.fixture(autouse=True)
def exact(monkeypatch):
    monkeypatch.setenv(settings.EXACT_LEGACY.variable, "1")


@pytest.fixture(scope="module")
def insightface(tmp_path_factory):
    folder = face_graphs.toy_pack(tmp_path_factory.mktemp("buffalo_l"))
    made = FaceAnalysis(
        name=str(folder), providers=["CPUExecutionProvider"], allowed_modules=["detection", "recognition"]
    )
    made.prepare(ctx_id=0, det_size=(640, 640))
    return made


def adapter(kind):
    """SD1.5, with the LoRA keys by which the pack tells a FaceID file; portraits have none."""
    proj = {
        "faceid": lambda: layouts.faceid(768),
        "faceid portrait": lambda: layouts.faceid(768, 16),
        "faceid plus": lambda: layouts.faceid_plus(64, 768),
        "faceid plus v2": lambda: layouts.faceid_plus(64, 768),
        "faceid portrait unnorm": lambda: layouts.plus(512, 768, 1280, 12),
    }[kind]()
    widths = tiny.site_widths(tiny.SD15)
    table = layouts.keys_values(widths, 768)
    if "portrait" not in kind:
        table |= layouts.lora(widths, 768, 4)
    made = {"image_proj": proj, "ip_adapter": table}
    tensors = {
        role: {k.split(".", 1)[1]: torch.zeros(s) for k, s in keys.items()} for role, keys in made.items()
    }
    for seed, part in enumerate(tensors.values(), 41):
        lively_(part, seed)
    return tensors | FLAGS.get(kind, {})


KINDS = ("faceid", "faceid portrait", "faceid plus", "faceid plus v2", "faceid portrait unnorm")


@pytest.mark.parametrize("combine", ["concat", "average"])
@pytest.mark.parametrize("node_id", ["IPAdapterFaceID", "IPAAdapterFaceIDBatch"])
@pytest.mark.parametrize("kind", KINDS)
def test_faces(insightface, kind, node_id, combine):
    setup = peer.setup("SD1.5", "plus")
    people = [(40, 160, 96, 40, 120), (200, 240, 160, 128, 60)]
    image = torch.cat([face_graphs.canvas(480, 640, *people), face_graphs.canvas(480, 640, *people[1:])])
    given = {
        "model": setup.model,
        "ipadapter": adapter(kind),
        "image": image,
        "weight": 0.8,
        "weight_faceidv2": 0.7,
        "combine_embeds": combine,
        "clip_vision": setup.encoder,
        "insightface": insightface,
    }
    (their, their_faces), (our, our_faces) = (call(node_id, **given) for call in (peer.theirs, peer.ours))
    run = {"pictures": 2} if node_id.endswith("Batch") else {}
    assert torch.equal(our_faces, their_faces)
    assert our.patches == {}, "the LoRA inside the file is not applied by this node"
    assert max_error(setup.forward(our, **run), setup.forward(their, **run), f"{kind} {node_id}") <= LIMIT
