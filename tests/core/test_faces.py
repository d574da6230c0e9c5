"""Geometry of faces, selection, embeddings of groups, crops and masks."""

import numpy as np
import pytest
import torch
from helpers.face_graphs import canvas
from image_prompt.ipadapter_core.errors import MismatchError
from image_prompt.ipadapter_core.faces.detection import Detection, anchor_centers, nms
from image_prompt.ipadapter_core.faces.identity import similarity_transform, template
from image_prompt.ipadapter_core.faces.selection import (
    Face,
    Faces,
    FaceSelection,
    Order,
    as_bytes,
    similarity,
    without_outliers,
)
from image_prompt.ipadapter_core.pictures.preprocessing import rgb

ANYONE = (10.0, 20.0, 50.0, 80.0)


def face(box=ANYONE, score=0.9, embedding=None, picture=0, size=112):
    """A face that fills its box: key points where the template of `size` has them."""
    x, y, x2, _ = box
    points = template(size) * ((x2 - x) / size) + np.array((x, y), np.float32)
    embedding = np.eye(512, dtype=np.float32)[0] if embedding is None else np.asarray(embedding, np.float32)
    return Face(picture, np.array(box, np.float32), points.astype(np.float32), score, embedding)


def detected(box, score):
    return Detection(np.array(box, np.float32), np.zeros((5, 2), np.float32), score)


def person(seed, scale=20.0, noise=0.0):
    generator = np.random.default_rng(seed)
    own = generator.normal(size=512)
    return (own + noise * np.random.default_rng(1000 + seed).normal(size=512)) * scale


# --- geometry ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("angle", [0, 30, 180, -100])
@pytest.mark.parametrize("scale", [0.2, 1, 7])
def test_a_similarity_transform_is_recovered(angle, scale):
    turn = np.deg2rad(angle)
    linear = scale * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    points = np.random.default_rng(0).normal(size=(5, 2)) * 30
    found = similarity_transform(points, points @ linear.T + (5, -70))
    np.testing.assert_allclose(found, np.c_[linear, (5, -70)], atol=1e-9)


def test_noise_is_fitted_by_least_squares_and_mirrored_points_are_not_reflected():
    points = template(112)
    mirrored = similarity_transform(points * np.array((-1, 1), np.float32), points)
    assert np.linalg.det(mirrored[:, :2]) > 0
    noisy = points + np.random.default_rng(0).normal(0, 1, (5, 2))
    best = similarity_transform(noisy, points)

    def miss(matrix):
        return np.square(noisy @ matrix[:, :2].T + matrix[:, 2] - points).sum()

    for change in np.eye(6).reshape(6, 2, 3)[[2, 5]]:
        assert miss(best) < min(miss(best + 0.1 * change), miss(best - 0.1 * change))


@pytest.mark.parametrize(("size", "left_eye"), [(112, 38.2946), (224, 76.5892), (336, 114.8838)])
def test_multiples_of_112_are_filled(size, left_eye):
    assert template(size)[0, 0] == pytest.approx(left_eye)


@pytest.mark.parametrize("size", [128, 256, 160, 300])
def test_others_have_the_margin_of_128(size):
    assert template(size)[0] == pytest.approx(np.array((46.2946, 51.6963)) * size / 128, rel=1e-5)


def test_nms_keeps_the_best_of_overlapping_boxes():
    boxes = [(0, 0, 99, 99), (10, 0, 109, 99), (40, 0, 139, 99), (200, 200, 299, 299), (45, 0, 144, 99)]
    # overlaps with the first: 90 / 110, 60 / 140 = 0.43, none, 55 / 145 = 0.38; the third is gone before the last
    assert nms(np.array(boxes, np.float32), 0.4) == [0, 3, 4]
    assert nms(np.zeros((0, 4), np.float32), 0.4) == []


def test_anchors_go_row_by_row():
    assert anchor_centers((64, 32), 32, 2).tolist() == [[0, 0], [0, 0], [32, 0], [32, 0]]


# --- selection ---------------------------------------------------------------------------------------------------

CROWD = {
    "a": detected((0, 50, 40, 90), 0.6),
    "b": detected((60, 0, 160, 100), 0.8),
    "c": detected((200, 100, 220, 120), 0.9),
}
ORDERS = {
    Order.LARGEST: "bac",
    Order.CERTAIN: "cba",
    Order.LEFT: "abc",
    Order.RIGHT: "cba",
    Order.TOP: "bac",
}


def chosen(*values):
    picked = FaceSelection(*values).select([CROWD[name] for name in "cab"])
    return "".join(name for one in picked for name, other in CROWD.items() if one is other)


@pytest.mark.parametrize("order", Order)
def test_orders(order):
    assert chosen(order, 0, 0) == ORDERS[order]


@pytest.mark.parametrize(
    ("index", "count", "names"),
    [
        (0, 1, "a"),
        (1, 1, "b"),
        (-1, 1, "c"),
        (-3, 1, "a"),
        (0, 2, "ab"),
        (1, 0, "bc"),
        (-2, 2, "bc"),
        (2, 5, "c"),
        (3, 1, ""),
        (-4, 0, ""),
    ],
)
def test_index_and_count(index, count, names):
    assert chosen(Order.LEFT, index, count) == names


def test_faces_that_are_equal_stay_in_the_detectors_order():
    equal = [detected(ANYONE, 0.9), detected(ANYONE, 0.8)]
    assert FaceSelection(Order.LARGEST, 0, 0).select(equal) == tuple(equal)


# --- identities --------------------------------------------------------------------------------------------------


def group_of(*groups, size=(100, 120)):
    return Faces(torch.rand(3, *size, 3), groups)


def test_an_identity_is_the_mean_of_unit_vectors():
    a, b = person(1, 3), person(2, 50)
    faces = group_of((face(embedding=a), face(embedding=b)), (face(embedding=b),), ())
    mean = a / np.linalg.norm(a) + b / np.linalg.norm(b)
    expected = np.stack([mean / np.linalg.norm(mean), b / np.linalg.norm(b), np.zeros(512)])
    torch.testing.assert_close(faces.embeddings(True), torch.from_numpy(expected).float())
    plain = np.stack([(a + b) / 2, b, np.zeros(512)])
    torch.testing.assert_close(faces.embeddings(False), torch.from_numpy(plain).float())
    assert faces.present == (True, True, False)
    assert faces.sizes == (2, 1, 0)


def test_one_face_alone_is_itself():
    a = person(4)
    assert torch.equal(group_of((face(embedding=a),)).embeddings(False)[0], torch.from_numpy(a).float())
    assert similarity([face(embedding=a)]) == [1.0]


def test_no_groups_are_no_rows():
    assert group_of().embeddings(True).shape == (0, 512)
    assert group_of().crops(112).shape == (0, 112, 112, 3)
    assert group_of().masks().shape == (0, 100, 120)


def test_similarity_is_the_cosine_to_the_mean_of_the_others():
    a, b = np.eye(512)[:2]
    cosines = similarity([face(embedding=9 * a), face(embedding=a), face(embedding=b)])
    assert cosines == pytest.approx([2**-0.5, 2**-0.5, 0], abs=1e-6)


def test_the_stranger_is_left_out():
    same = [face(embedding=np.eye(512)[0] + np.eye(512)[n] / 2) for n in (1, 2, 3)]
    stranger = face(embedding=person(9))
    assert without_outliers([same[0], stranger, *same[1:]]) == tuple(same)


def test_among_strangers_all_stay():
    strangers = [face(embedding=person(n)) for n in range(3)]
    assert without_outliers(strangers) == tuple(strangers)
    assert without_outliers(strangers[:2]) == tuple(strangers[:2])


# --- crops and masks ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [112, 224])
def test_a_crop_shows_the_face_upright_and_in_its_colours(size):
    picture = canvas(120, 200, (30, 10, 100, 77, 200))
    faces = Faces(picture, ((face((30, 10, 130, 110)),),))
    crop = faces.crops(size)
    assert crop.shape == (1, size, size, 3)
    inner = slice(4, size - 4)
    assert torch.equal(
        crop[:, inner, inner] * 255, torch.tensor((255.0, 77.0, 200.0)).expand(1, size - 8, size - 8, 3)
    )


def test_views_have_a_black_one_where_nobody_is():
    faces = Faces(canvas(60, 60, (0, 0, 60, 99)), ((), (face((0, 0, 60, 60)),)))
    views = faces.views(112)
    assert views[0].abs().max() == 0
    assert torch.equal(views[1:], faces.crops(112))
    assert [mask.sum().item() for mask in faces.masks()] == [0, 3600]


def test_masks_are_the_boxes_within_the_picture():
    boxes = [(10.4, 20, 49.2, 80), (-30, -5, 5, 10.5), (90, 90, 300, 300), (150, 10, 200, 20)]
    masks = group_of(tuple(face(box) for box in boxes)).masks()
    expected = torch.zeros(4, 100, 120)
    expected[0, 20:80, 10:50] = 1
    expected[1, :11, :5] = 1
    expected[2, 90:, 90:] = 1
    assert torch.equal(masks, expected)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_pictures_of_any_channels_become_three(channels):
    image = torch.rand(2, 8, 9, channels)
    assert torch.equal(rgb(image), image[..., :3].expand(2, 8, 9, 3))


def test_bytes_are_rounded_and_bounded():
    values = torch.tensor([-1.0, 0.6, 0.4, 254.6, 300.0]) / 255
    assert as_bytes(values).tolist() == [0, 1, 0, 255, 255]
    assert as_bytes(torch.arange(256) / 255).tolist() == list(range(256))


@pytest.mark.parametrize("shape", [(8, 9, 3), (1, 8, 9, 2), (0, 8, 9, 3)])
def test_other_shapes_are_refused(shape):
    with pytest.raises(MismatchError, match="expected"):
        rgb(torch.zeros(shape))
