"""Face models on disk: recognised by content, refused with their name, and the packages that run them."""

import io
import os
import struct
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers import face_graphs
from image_prompt.ipadapter_core.errors import (
    CheckpointError,
    MissingFileError,
    MissingPackageError,
    SettingError,
)
from image_prompt.ipadapter_core.faces import sessions
from image_prompt.ipadapter_core.faces.analysis import FaceAnalysis
from image_prompt.ipadapter_core.faces.graphs import (
    DetectorSpec,
    Graph,
    RecogniserSpec,
    detector_spec,
    outline,
    read_graph,
    recogniser_spec,
)
from image_prompt.ipadapter_core.faces.identity import Recogniser, template
from image_prompt.ipadapter_core.faces.runtime import require


def detector(graph: Graph) -> DetectorSpec:
    spec = detector_spec(graph)
    assert spec is not None
    return spec


def recogniser(graph: Graph) -> RecogniserSpec:
    spec = recogniser_spec(graph)
    assert spec is not None
    return spec


@pytest.mark.parametrize("outputs", [6, 9, 10, 15])
def test_a_detector_is_recognised_by_its_outputs(outputs, tmp_path):
    graph = read_graph(face_graphs.random_detector(tmp_path / "any name.onnx", outputs))
    spec = detector(graph)
    assert spec.strides == ((8, 16, 32) if outputs in (6, 9) else (8, 16, 32, 64, 128))
    assert (spec.anchors, spec.key_points) == (2 if outputs in (6, 9) else 1, outputs in (9, 15))
    assert spec.size is None
    assert recogniser_spec(graph) is None


def test_a_fixed_size_is_width_then_height(tmp_path):
    build = face_graphs.Builder()
    names = [build("Identity", "input.1") for _ in range(9)]
    path = build.save(tmp_path / "wide.onnx", [1, 3, 320, 640], [(name, [1, 3, 320, 640]) for name in names])
    assert detector(read_graph(path)).size == (640, 320)


@pytest.mark.parametrize(("own_scaling", "scaling"), [(False, (127.5, 127.5)), (True, (0.0, 1.0))])
@pytest.mark.parametrize("size", [112, 128])
def test_a_recogniser_is_recognised_by_its_crop_and_its_512_numbers(size, own_scaling, scaling, tmp_path):
    graph = read_graph(face_graphs.random_recogniser(tmp_path / "any name.onnx", own_scaling, size))
    spec = recogniser(graph)
    assert (spec.size, spec.mean, spec.std) == (size, *scaling)
    assert graph.input_name == "input.1"
    assert detector_spec(graph) is None


@pytest.mark.parametrize("name", ["Sub_0", "Mul_0"])
def test_half_of_the_scaling_in_the_graph_is_none(name, tmp_path):
    build = face_graphs.Builder()
    out = build("Identity", "input.1", name=name)
    graph = read_graph(build.save(tmp_path / "x.onnx", [1, 3, 112, 112], [(out, [1, 512])]))
    assert recogniser(graph).mean == 127.5


@pytest.mark.parametrize(
    ("shape", "outputs"),
    [
        ([1, 3, 192, 192], [[1, 512]]),  # landmarks
        ([1, 3, 96, 96], [[1, 3]]),  # gender and age
        ([1, 3, 112, 112], [[1, 4]]),
        ([1, 3, 112, 128], [[1, 512]]),
        ([1, 3, 120, 120], [[1, 512]]),
        (["n", 3, "h", "w"], [[1, 512]]),
        ([1, 512], [[1, 512]]),
        ([1, 3, 640, 640], [[1, 512]] * 7),
    ],
    ids=str,
)
def test_other_models_of_the_packs_are_passed_over(shape, outputs, tmp_path):
    build = face_graphs.Builder()
    names = [build("Identity", "input.1") for _ in outputs]
    graph = read_graph(build.save(tmp_path / "x.onnx", shape, list(zip(names, outputs, strict=True))))
    assert (detector_spec(graph), recogniser_spec(graph)) == (None, None)


def test_weights_that_old_files_also_list_as_inputs_are_none(tmp_path):
    import onnx

    path = face_graphs.random_recogniser(tmp_path / "old.onnx")
    model = onnx.load(path)
    for weight in model.graph.initializer:
        value = onnx.helper.make_tensor_value_info(weight.name, weight.data_type, weight.dims)
        model.graph.input.insert(0, value)
    onnx.save(model, path)
    graph = read_graph(path)
    assert len(graph.inputs) == 1
    assert graph.input_name == "input.1"
    assert recogniser(graph).size == 112


class Counted(io.FileIO):
    bytes_read = 0

    def read(self, size=-1):
        data = super().read(size)
        self.bytes_read += len(data)
        return data


def test_of_a_large_file_almost_nothing_is_read(tmp_path):
    """300 MB of weights that are a hole in the file: the outline behind them is found."""
    small = face_graphs.random_recogniser(tmp_path / "small.onnx").read_bytes()
    hole = 300_000_000
    blob = b"\x4a" + varint(hole)  # raw_data of a tensor
    tensor = b"\x2a" + varint(len(blob) + hole)  # initializer of a graph
    start = small.index(b"\x3a")  # the graph of the model: fields before it are numbers and short strings
    graph = small[start:]
    length, body = read_varint(graph[1:])
    head = small[:start] + b"\x3a" + varint(len(tensor) + len(blob) + hole + length) + tensor + blob
    path = tmp_path / "large.onnx"
    with path.open("wb") as file:
        file.write(head)
        file.seek(hole, io.SEEK_CUR)
        file.write(body)
    with Counted(path) as file:
        found = outline(file, path.stat().st_size, path)
    assert recogniser(found).size == 112
    assert file.bytes_read < 1000


def varint(value):
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def read_varint(data):
    end = next(n for n, byte in enumerate(data) if byte < 128) + 1
    return sum((byte & 127) << 7 * n for n, byte in enumerate(data[:end])), data[end:]


DAMAGES = {
    "empty": (b"", "is empty"),
    "web page": (b"\n<!DOCTYPE html><html>", "web page"),
    "pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n", "Git LFS pointer"),
    "zip": (b"PK\x03\x04" + bytes(200), "not a whole ONNX file"),
    "zeros": (bytes(300), "not a whole ONNX file"),
    "safetensors": (struct.pack("<Q", 2) + b"{}", "not a whole ONNX file"),
    "part beyond its parent": (
        b"\x3a\x02\x0a\x64\x42\xc8\x01" + bytes(200),
        "a part of 100 bytes does not fit",
    ),
    "endless number": (b"\x08" + b"\xff" * 40, "more than 10 bytes"),
}


@pytest.mark.parametrize("case", DAMAGES)
def test_what_is_no_onnx_file_is_refused_by_name(case, tmp_path):
    content, cause = DAMAGES[case]
    path = tmp_path / "det_10g.onnx"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=cause) as caught:
        read_graph(path)
    assert str(caught.value).startswith("det_10g.onnx ")
    assert "ownload" in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(MissingFileError, match=r"gone\.onnx does not exist"):
        read_graph(tmp_path / "gone.onnx")


def test_a_file_cut_anywhere_is_refused(tmp_path):
    whole = face_graphs.random_detector(tmp_path / "det.onnx").read_bytes()
    path = tmp_path / "cut.onnx"
    for length in range(1, len(whole) - 40, len(whole) // 40):
        path.write_bytes(whole[:length])
        with pytest.raises(
            CheckpointError, match=r"^cut\.onnx .*(does not fit|in the middle).*ownload it again"
        ):
            read_graph(path)


def test_weights_that_do_not_load_are_onnxruntimes_to_say(tmp_path):
    build = face_graphs.Builder()
    path = build.save(tmp_path / "x.onnx", [1], [(build("Identity", "input.1"), [1])])
    path.write_bytes(path.read_bytes().replace(b"Identity", b"Idontity"))
    with pytest.raises(CheckpointError, match=r"onnxruntime does not open x\.onnx: .*Idontity"):
        sessions.open_session(path, "input.1", "CPU")


def test_an_embedding_of_another_length_is_refused(tmp_path):
    build = face_graphs.Builder()
    flat = build("Flatten", build("GlobalAveragePool", "input.1"))
    path = build.save(Path(tmp_path / "x.onnx"), [1, 3, 112, 112], [(flat, ["n", "m"])])
    graph = read_graph(path)
    arcface = Recogniser(recogniser(graph), sessions.open_session(path, graph.input_name, "CPU"))
    with pytest.raises(CheckpointError, match="gives 3 numbers"):
        arcface.embed(np.zeros((9, 9, 3), np.uint8), template(112))


# --- folders -----------------------------------------------------------------------------------------------------


def test_a_folder_in_a_folder_opens_and_names_do_not_matter(tmp_path):
    face_graphs.toy_detector(tmp_path / "antelopev2" / "zz recogniser.onnx")
    face_graphs.toy_recogniser(tmp_path / "antelopev2" / "aa detector.onnx")
    assert FaceAnalysis.open(tmp_path).recogniser.spec.size == 112


def test_of_several_detectors_the_first_by_name_that_gives_key_points(tmp_path):
    face_graphs.toy_pack(tmp_path)
    face_graphs.random_detector(tmp_path / "a.onnx", 6)
    face_graphs.random_detector(tmp_path / "b.onnx", 15)
    face_graphs.random_detector(tmp_path / "inside" / "a.onnx", 9)
    assert len(FaceAnalysis.open(tmp_path).detector.spec.strides) == 5


def test_a_damaged_extra_is_no_hindrance(tmp_path):
    (face_graphs.toy_pack(tmp_path) / "1k3d68.onnx").write_bytes(b"<html>")
    FaceAnalysis.open(tmp_path)


def test_a_damaged_part_is(tmp_path):
    (face_graphs.toy_pack(tmp_path) / "w600k_toy.onnx").write_bytes(b"<html>")
    with pytest.raises(CheckpointError, match=r"w600k_toy\.onnx is a web page"):
        FaceAnalysis.open(tmp_path)


@pytest.mark.parametrize(
    ("kept", "words"),
    [
        ("1k3d68", "no detector with key points .* and no recogniser .*: 1k3d68.onnx"),
        ("det_toy", "has no recogniser .*: det_toy.onnx"),
        ("w600k_toy", "has no detector with key points .*: w600k_toy.onnx"),
        ("nothing", "there: none"),
    ],
)
def test_what_a_folder_lacks_is_said_with_what_it_has(kept, words, tmp_path):
    for path in face_graphs.toy_pack(tmp_path).iterdir():
        if path.stem != kept:
            path.unlink()
    with pytest.raises(MissingFileError, match=words) as caught:
        FaceAnalysis.open(tmp_path)
    assert "https://github.com/deepinsight/insightface/releases" in str(caught.value)


def test_a_provider_that_is_not_there_names_those_that_are(tmp_path):
    with pytest.raises(SettingError, match=r"'DirectML' is not in the installed onnxruntime; it has CPU"):
        FaceAnalysis.open(face_graphs.toy_pack(tmp_path), "DirectML")


@pytest.mark.parametrize(
    ("gone", "packages"),
    [
        ({"cv2"}, "opencv-python-headless"),
        ({"onnxruntime"}, "onnxruntime"),
        ({"cv2", "onnxruntime"}, "onnxruntime opencv-python-headless"),
    ],
)
def test_one_pip_line_has_all_that_is_missing(gone, packages, monkeypatch):
    for name in gone:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingPackageError) as caught:
        require()
    assert str(caught.value).endswith(f"{sys.executable} -m pip install {packages}")
    assert all(f"{name} is not installed" in str(caught.value) for name in gone)


def test_a_package_that_is_there_and_does_not_load_gives_its_reason(tmp_path, monkeypatch):
    (tmp_path / "cv2.py").write_text("raise ImportError('libGL.so.1: cannot open')")
    monkeypatch.delitem(sys.modules, "cv2")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(MissingPackageError, match=r"cv2 does not load \(libGL\.so\.1: cannot open\)"):
        require()


def test_a_graph_of_endless_parts_or_names_is_refused_in_time(tmp_path: Path):
    for n, content in enumerate(
        (b"\x08\x01" * 2_000_000, b"\x3a\x80\x80\x80\x01\x0a\xfa\xff\x7f\x1a" + bytes(2**21))
    ):
        path = tmp_path / f"{n}.onnx"
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match="is not a whole ONNX file") as caught:
            read_graph(path)
        assert "\n" not in str(caught.value)


def test_pipes_and_files_without_rights_are_refused_and_wait_for_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    os.mkfifo(tmp_path / "pipe.onnx")
    with pytest.raises(CheckpointError, match="pipe, socket or device"):
        read_graph(tmp_path / "pipe.onnx")

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    (tmp_path / "a.onnx").write_bytes(b"\x08")
    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_graph(tmp_path / "a.onnx")
