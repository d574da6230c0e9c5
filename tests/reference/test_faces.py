"""Detection, alignment and embedding beside insightface's own code, on the same graphs and pictures."""

import cv2
import numpy as np
import pytest
from helpers import face_graphs
from image_prompt.ipadapter_core.faces.analysis import PASSES, FaceAnalysis
from image_prompt.ipadapter_core.faces.detection import Detector
from image_prompt.ipadapter_core.faces.graphs import detector_spec, read_graph, recogniser_spec
from image_prompt.ipadapter_core.faces.identity import align, template
from image_prompt.ipadapter_core.faces.runtime import Pixels
from image_prompt.ipadapter_core.faces.sessions import open_session
from insightface.app import FaceAnalysis as Published
from insightface.model_zoo import arcface_onnx, scrfd
from insightface.utils import face_align

# (height, width): square, landscape, portrait, tiny, larger than 640, very long
SIZES = [(640, 640), (300, 400), (512, 384), (48, 31), (900, 1300), (1200, 700), (64, 1000), (641, 639)]
DETECTORS = {
    "9 outputs": {"outputs": 9},
    "9 outputs in a batch": {"outputs": 9, "batched": True},
    "15 outputs": {"outputs": 15},
    "fixed size": {"outputs": 9, "size": 320},
}


def picture(height: int, width: int, seed: int = 0) -> Pixels:
    """Smooth random colours, RGB."""
    generator = np.random.default_rng(seed + height * width)
    small = generator.integers(0, 256, (max(2, height // 24), max(2, width // 24), 3), dtype=np.uint8)
    return np.asarray(cv2.resize(small, (width, height)), np.uint8)


def bgr(image):
    return np.ascontiguousarray(image[..., ::-1])


def both_detectors(folder, kind):
    """(ours, insightface's) on the same graph."""
    path = face_graphs.random_detector(folder / "det.onnx", **DETECTORS[kind])
    graph = read_graph(path)
    spec = detector_spec(graph)
    assert spec is not None
    ours = Detector(spec, open_session(path, graph.input_name, "CPU"))
    theirs = scrfd.SCRFD(str(path), static_shape_sessions=False)
    theirs.prepare(-1, input_size=(640, 640), det_thresh=0.5)
    return ours, theirs


@pytest.fixture(scope="module", params=DETECTORS)
def detectors(request, tmp_path_factory):
    return both_detectors(tmp_path_factory.mktemp("det"), request.param)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_boxes_key_points_scores_and_their_order(detectors, size):
    ours, theirs = detectors
    image = picture(*size)
    found = ours.detect(image, ours.spec.size or (640, 640))
    boxes, key_points = theirs.detect(bgr(image))
    assert len(found) == len(boxes) > 1
    np.testing.assert_allclose([f.box for f in found], boxes[:, :4], atol=1e-3, rtol=0)
    np.testing.assert_allclose([f.score for f in found], boxes[:, 4], atol=1e-6, rtol=0)
    np.testing.assert_allclose([f.key_points for f in found], key_points, atol=1e-3, rtol=0)


def test_every_size_of_the_passes(tmp_path):
    ours, theirs = both_detectors(tmp_path, "9 outputs")
    image = picture(500, 700)
    for each in PASSES:
        size = (each.size, each.size)
        boxes, _ = theirs.detect(bgr(image), input_size=size)
        np.testing.assert_allclose([f.box for f in ours.detect(image, size)], boxes[:, :4], atol=1e-3, rtol=0)


@pytest.mark.parametrize("size", [112, 128, 224, 256, 336, 448, 512])
def test_crops_are_the_same_to_the_last_bit(size):
    generator = np.random.default_rng(size)
    for n in range(20):
        image = picture(*SIZES[n % len(SIZES)], seed=n)
        side, angle = generator.uniform(5, 400), generator.uniform(-np.pi, np.pi)
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) * side / 112
        points = (
            template(112) @ turn.T + generator.uniform(-50, 300, 2) + generator.normal(0, side / 30, (5, 2))
        )
        points = points.astype(np.float32)
        assert np.array_equal(bgr(align(image, points, size)), face_align.norm_crop(bgr(image), points, size))


def test_a_mirrored_face_is_turned_and_never_reflected():
    image, points = picture(200, 200), (template(112) * (-1, 1) + (150, 40)).astype(np.float32)
    assert np.array_equal(bgr(align(image, points, 112)), face_align.norm_crop(bgr(image), points, 112))


@pytest.mark.parametrize("own_scaling", [False, True])
def test_the_recognisers_scaling(own_scaling, tmp_path):
    path = face_graphs.random_recogniser(tmp_path / "rec.onnx", own_scaling)
    spec, theirs = recogniser_spec(read_graph(path)), arcface_onnx.ArcFaceONNX(str(path))
    assert spec is not None
    assert (spec.size, spec.mean, spec.std) == (theirs.input_size[0], theirs.input_mean, theirs.input_std)


@pytest.mark.parametrize(("own_scaling", "sizes"), [(False, SIZES[:5]), (True, SIZES[1:3])])
def test_a_whole_folder_gives_the_same_people(own_scaling, sizes, tmp_path):
    face_graphs.landmarks(tmp_path / "1k3d68.onnx")
    face_graphs.random_detector(tmp_path / "det.onnx")
    face_graphs.random_recogniser(tmp_path / "rec.onnx", own_scaling)
    ours = FaceAnalysis.open(tmp_path)
    theirs = Published(str(tmp_path), allowed_modules=["detection", "recognition"])
    theirs.prepare(-1, det_thresh=0.5, det_size=(640, 640))
    for size in sizes:
        image = picture(*size)
        search, published = ours.find(image), theirs.get(bgr(image))
        assert search.attempts == ("size 640",)
        assert len(search.found) == len(published)
        for found, face in zip(search.found, published, strict=True):
            embedding = ours.identify(image, found).embedding
            np.testing.assert_allclose(embedding, face.embedding, atol=1e-4 * np.abs(face.embedding).max())
            cosine = embedding @ face.embedding / np.linalg.norm(embedding) / np.linalg.norm(face.embedding)
            assert cosine > 1 - 1e-6
