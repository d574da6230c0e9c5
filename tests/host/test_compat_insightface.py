"""The face model as other packs call it: like insightface's FaceAnalysis."""

import numpy as np
import pytest
import torch
from helpers import face_graphs
from image_prompt.nodes.compat import loaders
from image_prompt.nodes.compat.loaders import CLASSES


@pytest.fixture
def app(models):
    return CLASSES["IPAdapterInsightFaceLoader"]().load_insightface("CPU", "buffalo_l")[0]


@pytest.fixture(scope="module")
def crowd():
    """8-bit BGR, as callers give it."""
    image = face_graphs.canvas(480, 640, (40, 160, 96, 40, 120), (200, 240, 160, 128, 60))
    return (image[0] * 255).to(torch.uint8).numpy()[:, :, ::-1]


def test_it_is_called_as_insightface(app, crowd):
    app.prepare(ctx_id=0, det_size=(640, 640))
    app.det_model.input_size = (640, 640)
    faces = app.get(crowd)
    assert [face.det_score for face in faces] == sorted((f["det_score"] for f in faces), reverse=True)
    face = faces[0]
    assert face.bbox.shape == (4,)
    assert face.kps.shape == (5, 2)
    assert face.embedding.shape == face["embedding"].shape == (512,)
    assert np.allclose(np.linalg.norm(face.normed_embedding), 1)
    assert np.allclose(face.normed_embedding * face.embedding_norm, face["embedding"], atol=1e-5)
    assert face.gender is None
    assert "kps" in face
    assert face.get("age") is None


def test_the_faces_are_those_of_our_own_search(app, crowd):
    found = app.analysis.find(np.ascontiguousarray(crowd[:, :, ::-1])).found
    assert [face.bbox.tolist() for face in app.get(crowd)] == [face.box.tolist() for face in found]


def test_its_size_and_threshold_can_be_set(app, crowd):
    app.det_model.input_size = (64, 64)  # a face becomes too small for the toy detector
    assert app.get(crowd) == []
    app.prepare(ctx_id=0, det_thresh=0.99, det_size=(640, 640))
    assert app.get(crowd) == []


def test_detector_and_recogniser_can_be_called_alone(app, crowd):
    boxes, points = app.models["detection"].detect(crowd, input_size=(640, 640))
    face = app.get(crowd)[0]
    assert np.allclose(boxes[0], [*face.bbox, face.det_score])
    assert np.allclose(points[0], face.kps)
    assert np.array_equal(app.models["recognition"].get(crowd, face), face.embedding)
    assert len(app.get(crowd, max_num=1)) == 1


def test_nothing_found_is_an_empty_list(app):
    assert app.get(np.zeros((200, 200, 3), np.uint8)) == []


@pytest.mark.parametrize("provider", ["CPU", "CUDA", "ROCM", "DirectML"])
def test_a_provider_that_is_not_there_runs_on_the_cpu(models, provider, caplog, monkeypatch):
    monkeypatch.setattr(loaders, "available_providers", lambda: ["CPUExecutionProvider"])
    loaders.load_faces(provider)
    assert ("faces run on the CPU" in caplog.text) == (provider != "CPU")
