"""Face detection pass after pass, and the faces of a batch of pictures with their report."""

import numpy as np
import pytest
import torch
from helpers import face_graphs
from helpers.face_graphs import canvas
from image_prompt.ipadapter_core.errors import ImagePromptError
from image_prompt.ipadapter_core.faces.analysis import PASSES, DetectionPass, FaceAnalysis
from image_prompt.ipadapter_core.faces.detect import LARGEST_FACES, FaceQuery, NoFace, detect_faces
from image_prompt.ipadapter_core.faces.detection import Detection, Detector
from image_prompt.ipadapter_core.faces.graphs import DetectorSpec, RecogniserSpec
from image_prompt.ipadapter_core.faces.identity import Recogniser
from image_prompt.ipadapter_core.faces.selection import FaceSelection, Grouping, Outliers


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    return FaceAnalysis.open(face_graphs.toy_pack(tmp_path_factory.mktemp("toy")))


# --- passes ------------------------------------------------------------------------------------------------------


def spying(found_at, size=None):
    """An analysis whose detector finds one face, at (10, 20) of what it sees, only where it sees `found_at`."""
    seen = []

    class Spy(Detector):
        def detect(self, picture, size, min_score=0.5):
            seen.append((picture.shape[:2], size, min_score))
            box = np.array((10, 20, 30, 40), np.float32)
            there = [Detection(box, np.tile(box[:2], (5, 1)), 0.9)]
            return tuple(there if (picture.shape[1], size[0]) == found_at else ())

    spy = Spy(DetectorSpec((8, 16, 32), 2, True, size), lambda _: [])
    return FaceAnalysis(spy, Recogniser(RecogniserSpec(112, 127.5, 127.5), lambda _: [])), seen


PICTURE = np.zeros((100, 200, 3), np.uint8)


def test_where_nothing_is_found_every_pass_runs_in_order():
    analysis, seen = spying(None)
    search = analysis.find(PICTURE, 0.3)
    assert search.found == ()
    assert search.attempts == tuple(map(str, PASSES))
    plain = [((100, 200), (n, n), 0.3) for n in (640, 512, 384, 320, 256)]
    padded = [((150, 300), (640, 640), 0.3), ((200, 400), (640, 640), 0.3)]
    assert seen == [*plain, *padded, ((100, 200), (1024, 1024), 0.3)]


@pytest.mark.parametrize(
    ("found_at", "tries", "corner"),
    [
        ((200, 640), 1, (10, 20)),
        ((200, 384), 3, (10, 20)),
        ((300, 640), 6, (10 - 50, 20 - 25)),
        ((400, 640), 7, (10 - 100, 20 - 50)),
        ((200, 1024), 8, (10, 20)),
    ],
)
def test_it_stops_at_the_first_and_places_are_those_of_the_picture(found_at, tries, corner):
    analysis, seen = spying(found_at)
    search = analysis.find(PICTURE)
    assert len(seen) == len(search.attempts) == tries
    (found,) = search.found
    assert found.box.tolist() == [*corner, corner[0] + 20, corner[1] + 20]
    assert found.key_points.tolist() == [list(corner)] * 5


def test_a_graph_of_fixed_size_skips_the_sizes():
    analysis, seen = spying(None, (320, 256))
    assert analysis.find(PICTURE).attempts == tuple(
        str(DetectionPass(320, margin)) for margin in (0, 0.25, 0.5)
    )
    assert {size for _, size, _ in seen} == {(320, 256)}


@pytest.mark.parametrize(
    ("height", "width", "place", "attempts"),
    [
        (480, 640, (300, 200, 160), 1),  # as it comes
        (480, 640, (20, 12, 460), 2),  # large: seen smaller
        (500, 500, (0, 0, 500), 6),  # fills the picture: only with a margin
        (2000, 2000, (400, 800, 60), 8),  # small: seen larger
    ],
)
def test_each_kind_of_pass_finds_what_the_others_miss(toy, height, width, place, attempts):
    x, y, side = place
    picture = (canvas(height, width, (*place, 30))[0] * 255).round().byte().numpy()
    search = toy.find(picture)
    assert len(search.attempts) == attempts
    (found,) = search.found
    np.testing.assert_allclose(found.box, (x, y, x + side, y + side), atol=1.6 * 8 * max(height, width) / 640)


# --- batches -----------------------------------------------------------------------------------------------------

TWO = ((40, 40, 96, 60, 200), (300, 200, 160, 200, 60))


def batch(*crowds):
    return torch.cat([canvas(480, 640, *crowd) for crowd in crowds])


def test_each_face_on_its_own_and_an_empty_group_for_a_skipped_picture(toy):
    query = FaceQuery(FaceSelection(count=0), no_face=NoFace.SKIP)
    faces, report = detect_faces(batch(TWO, (), TWO[:1]), toy, query)
    assert [[one.picture for one in group] for group in faces.groups] == [[0], [0], [], [2]]
    assert faces.present == (True, True, False, True)
    assert report.splitlines()[1].startswith("no face found in picture 2, tried size 640, size 512")
    people = faces.embeddings(True)
    assert people[1] @ people[3] > 0.99
    assert abs(people[0] @ people[1]) < 0.3


def test_one_identity_of_all(toy):
    pictures = batch(TWO[:1], TWO[:1], TWO[1:], TWO[:1])
    query = FaceQuery(grouping=Grouping.TOGETHER)
    faces, report = detect_faces(pictures, toy, query)
    assert faces.sizes == (4,)
    assert "picture 3, box (304, 200)-(456, 360): unlike the others" in report
    assert report.count("unlike") == report.count("kept") == 1
    faces, report = detect_faces(
        pictures, toy, FaceQuery(grouping=Grouping.TOGETHER, outliers=Outliers.LEAVE_OUT)
    )
    assert [one.picture for one in faces.groups[0]] == [0, 1, 3]
    assert "left out" in report
    alone = detect_faces(pictures[:1], toy, LARGEST_FACES)[0].embeddings(True)
    assert torch.cosine_similarity(alone, faces.embeddings(True)) > 0.9999


def test_together_with_nobody_there_is_one_empty_group(toy):
    query = FaceQuery(grouping=Grouping.TOGETHER, no_face=NoFace.SKIP)
    assert detect_faces(batch((), ()), toy, query)[0].groups == ((),)


def test_progress_counts_pictures(toy):
    steps = []
    detect_faces(batch(TWO, TWO), toy, LARGEST_FACES, steps.append)
    assert steps == [1, 1]


def test_the_error_names_pictures_and_what_was_tried(toy):
    with pytest.raises(ImagePromptError) as caught:
        detect_faces(batch(TWO, (), ()), toy)
    message = str(caught.value)
    assert all(str(each) in message for each in PASSES)
    assert "in picture 2, 3, tried" in message
    assert message.count("size 1024") == 1
    assert "of 3 pictures, 640 x 480" in message


def test_only_a_few_pictures_are_named(toy):
    with pytest.raises(ImagePromptError, match=r"in picture 1, 2, .*, 8, and 3 more, tried size 640"):
        detect_faces(torch.zeros(11, 64, 64, 3), toy)


def test_an_index_that_a_picture_lacks_is_reported_otherwise_than_no_face(toy):
    with pytest.raises(ImagePromptError, match=r"picture 1 has 2 face\(s\), and none of index 2"):
        detect_faces(batch(TWO), toy, FaceQuery(FaceSelection(index=2)))


def test_min_score_is_the_detectors(toy):
    picture = batch(((40, 40, 96, 60, 20),))  # score 0.54
    assert detect_faces(picture, toy)[0].sizes == (1,)
    with pytest.raises(ImagePromptError, match=r"lower min_score \(0\.7\)"):
        detect_faces(picture, toy, FaceQuery(min_score=0.7))


def test_grey_pictures_and_half_precision_are_accepted(toy):
    query = FaceQuery(no_face=NoFace.SKIP)
    assert detect_faces(torch.rand(1, 64, 80, 1), toy, query)[0].pictures.shape == (1, 64, 80, 3)
    assert detect_faces(batch(TWO).half(), toy)[0].crops(112).dtype == torch.float32
