"""Image Prompt: Find Faces, on toy models in the host's folders: pictures in, the right faces out, or one sentence."""

import inspect
import sys

import folder_paths
import pytest
import torch
from helpers import face_graphs
from helpers.face_graphs import canvas
from image_prompt import host
from image_prompt.host import face_models
from image_prompt.ipadapter_core.errors import (
    ImagePromptError,
    MissingFileError,
    MissingPackageError,
    SettingError,
)
from image_prompt.ipadapter_core.pictures.reading import read_size
from image_prompt.nodes import NODE_CLASS_MAPPINGS
from image_prompt.nodes.faces import find_faces
from image_prompt.nodes.inputs import NONE_FOUND

NODE = NODE_CLASS_MAPPINGS["ImagePromptFaces"]
# (x, y, side, person, certainty): in order of size 1, 0, 2; of certainty 2, 0, 1
CROWD = ((40, 160, 96, 40, 120), (200, 240, 160, 128, 60), (480, 80, 80, 220, 200))
CELL = 8


@pytest.fixture(scope="module")
def pack(tmp_path_factory):
    return face_graphs.toy_pack(tmp_path_factory.mktemp("models") / "insightface" / "models" / "buffalo_l")


@pytest.fixture(autouse=True)
def models(pack, monkeypatch):
    """The host's models folder."""
    folder = pack.parents[2]
    monkeypatch.setattr(folder_paths, "models_dir", str(folder))
    monkeypatch.delitem(folder_paths.folder_names_and_paths, "insightface", raising=False)
    return folder


def find(image, **values):
    """The node's outputs, at the defaults of its menus but for `values`."""
    declared = NODE.INPUT_TYPES()["required"]
    defaults = {name: options.get("default") for name, (_, options) in declared.items() if name != "image"}
    return NODE().find(image, **defaults | values)


def people(faces):
    """Which of the crowd each group is, by its place in the first picture."""
    places = [group[0].box[:2].round() for group in faces.groups]
    return [
        next(n for n, one in enumerate(CROWD) if abs(x - one[0]) <= CELL and abs(y - one[1]) <= CELL)
        for x, y in places
    ]


# --- what comes out ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        ("largest first", [1, 0, 2]),
        ("most certain first", [2, 0, 1]),
        ("left to right", [0, 1, 2]),
        ("right to left", [2, 1, 0]),
        ("top to bottom", [2, 0, 1]),
    ],
)
def test_every_order_counts_its_way(order, expected):
    image = canvas(480, 640, *CROWD)
    assert people(find(image, order=order, count=0)[0]) == expected
    assert people(find(image, order=order)[0]) == expected[:1]
    assert people(find(image, order=order, index=-1)[0]) == expected[-1:]
    assert people(find(image, order=order, index=1, count=2)[0]) == expected[1:]


def test_images_and_masks_show_each_face_in_the_order_of_the_groups():
    faces, images, masks, report = find(canvas(480, 640, *CROWD), count=0, crop_size=224)
    assert images.shape == (3, 224, 224, 3)
    assert masks.shape == (3, 480, 640)
    for n, person in enumerate((1, 0, 2)):
        x, y, side, green, blue = CROWD[person]
        assert torch.equal((images[n, 112, 112] * 255).round(), torch.tensor((255.0, green, blue)))
        inside = masks[n, y + CELL : y + side - CELL, x + CELL : x + side - CELL]
        assert inside.min() == 1
        assert masks[n].sum() <= (side + 2 * CELL) ** 2
        assert set(masks[n].unique().tolist()) == {0, 1}
    assert torch.equal(images, faces.crops(224))


def test_the_report_lists_what_was_found_taken_and_tried():
    report = find(canvas(480, 640, *CROWD))[3]
    assert report == (
        "picture 1: 3 found (tried size 640); taken, largest first: score 0.62, box (200, 240)-(360, 400)"
    )


def test_one_person_in_several_pictures_is_one_identity():
    images = torch.cat(
        [canvas(480, 640, (60, 60 + n, 160, 40)) for n in range(3)] + [canvas(480, 640, (60, 60, 160, 220))]
    )
    faces, shown, masks, report = find(images, combine="all as one identity", outliers="leave out")
    assert faces.sizes == (3,)
    assert len(shown) == len(masks) == 3
    assert "picture 4" in report.splitlines()[-1]
    alone = find(images[:1])[0].embeddings(True)
    assert torch.cosine_similarity(faces.embeddings(True), alone) > 0.9999


def test_a_frame_without_a_face_keeps_its_place(caplog):
    frames = torch.cat([canvas(480, 640, CROWD[1]), canvas(480, 640), canvas(480, 640, CROWD[1])])
    faces, images, masks, report = find(frames, no_face="skip")
    assert faces.present == (True, False, True)
    assert [image.amax().item() > 0 for image in images] == [True, False, True]
    assert [mask.amax().item() for mask in masks] == [1, 0, 1]
    assert faces.embeddings(True)[1].abs().max() == 0
    assert "picture 2, tried size 640" in report
    assert [record.message for record in caplog.records] == ["no face in 1 of 3 pictures, skipped: 2"]


def test_the_helper_takes_the_largest_face():
    faces, _ = find_faces(canvas(480, 640, *CROWD))
    assert people(faces) == [1]


def test_the_users_picture_is_not_changed_and_nothing_is_kept():
    image = canvas(480, 640, *CROWD)
    before = image.clone()
    find(image)
    assert torch.equal(image, before)
    assert vars(NODE()) == {}


def test_the_bar_moves_once_a_picture(monkeypatch):
    class Bar:
        def __init__(self):
            self.steps = []

        def update(self, step):
            self.steps.append(step)

    bar, totals = Bar(), []
    monkeypatch.setattr(host, "progress_bar", lambda total: totals.append(total) or bar)
    find(canvas(480, 640, *CROWD).repeat(2, 1, 1, 1))
    assert (totals, bar.steps) == ([2], [1, 1])


def test_defaults_of_the_method_are_those_of_the_menus():
    declared = NODE.INPUT_TYPES()["required"]
    parameters = inspect.signature(NODE.find).parameters
    for name, (_, options) in declared.items():
        if name not in ("image", "face_model"):
            assert parameters[name].default == options["default"]


# --- folders -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "place",
    [
        "insightface/models/antelopev2",
        "insightface/models/antelopev2/antelopev2",
        "insightface/antelopev2",
        "insightface/antelopev2/antelopev2",
        "antelopev2",
        "antelopev2/antelopev2",
    ],
)
def test_wherever_people_put_the_files(place, pack, tmp_path, monkeypatch):
    monkeypatch.setattr(folder_paths, "models_dir", str(tmp_path))
    (tmp_path / place).mkdir(parents=True)
    for path in pack.iterdir():
        (tmp_path / place / path.name).write_bytes(path.read_bytes())
    assert list(face_models.by_name()) == ["antelopev2"]
    assert NODE.INPUT_TYPES()["required"]["face_model"][0] == ["antelopev2"]
    assert find(canvas(480, 640, *CROWD), face_model="antelopev2")[0].sizes == (1,)


def test_a_folder_that_extra_model_paths_adds(pack, tmp_path, monkeypatch):
    monkeypatch.setattr(folder_paths, "models_dir", str(tmp_path))
    added = ([str(pack.parents[1])], set())
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "insightface", added)
    assert face_models.by_name() == {"buffalo_l": pack}


def test_the_menu_opens_no_file(models, monkeypatch):
    monkeypatch.setattr("pathlib.Path.open", None)
    monkeypatch.setattr("builtins.open", None)
    assert NODE.INPUT_TYPES()["required"]["face_model"][0] == ["buffalo_l"]


def test_folders_without_models_are_not_in_the_menu(tmp_path, monkeypatch):
    monkeypatch.setattr(folder_paths, "models_dir", str(tmp_path))
    for name in ("insightface/models/empty", "insightface/other"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "insightface" / "inswapper_128.onnx").write_bytes(b"x")
    assert face_models.by_name() == {}


# --- mistakes ----------------------------------------------------------------------------------------------------


def test_with_no_model_the_menu_says_so_and_the_error_where_to_get_one(tmp_path, monkeypatch):
    monkeypatch.setattr(folder_paths, "models_dir", str(tmp_path))
    assert NODE.INPUT_TYPES()["required"]["face_model"][0] == [NONE_FOUND]
    with pytest.raises(MissingFileError) as caught:
        find(canvas(64, 64))
    message = str(caught.value)
    for word in ("Found: none", "github.com/deepinsight/insightface/releases", "280 MB", "non-commercial"):
        assert word in message
    assert str(tmp_path / "insightface" / "models" / "buffalo_l") in message


def test_a_picture_without_a_face_stops_and_says_what_was_tried():
    with pytest.raises(
        ImagePromptError, match=r"no face found in picture 2, tried size 640, .* set no_face to 'skip'"
    ):
        find(torch.cat([canvas(480, 640, CROWD[0]), canvas(480, 640)]))


@pytest.mark.parametrize(
    ("gone", "package"), [("onnxruntime", "onnxruntime"), ("cv2", "opencv-python-headless")]
)
def test_a_package_that_is_missing_has_its_pip_line(gone, package, monkeypatch):
    monkeypatch.setitem(sys.modules, gone, None)
    with pytest.raises(MissingPackageError, match=rf"{gone} is not installed.* -m pip install {package}$"):
        find(canvas(64, 64))


def test_insightface_is_never_needed(monkeypatch):
    monkeypatch.setitem(sys.modules, "insightface", None)
    monkeypatch.setitem(sys.modules, "onnx", None)
    assert find(canvas(480, 640, *CROWD))[0].sizes == (1,)


def test_a_provider_of_another_package_names_it():
    with pytest.raises(SettingError, match=r"'CUDA' is not in the installed onnxruntime.*onnxruntime-gpu"):
        find(canvas(64, 64), provider="CUDA")


def test_the_page_shows_the_aligned_faces_with_number_and_certainty(tmp_path, monkeypatch):
    lines = []
    monkeypatch.setattr(folder_paths, "get_temp_directory", lambda: str(tmp_path))
    monkeypatch.setattr(host, "show_status", lambda node, text: lines.append((node, text)))
    answer = find(canvas(480, 640, *CROWD), count=0, node_id="7")
    (shown,) = answer["ui"]["images"]
    height, width = read_size(tmp_path / shown["filename"])
    assert (height, width) == (8 + 168 + 22, 3 * (168 + 8) + 8)
    assert lines == [("7", "3 faces taken from 1 picture")]
    assert answer["result"][0].sizes == (1, 1, 1)
