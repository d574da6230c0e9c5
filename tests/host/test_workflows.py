"""The workflow templates: they fit the node classes of this host, they run, and each does what its note promises."""

from functools import cache

import folder_paths
import pytest
import torch
from helpers import stand_ins, workflows
from helpers.blueprints import check_value
from helpers.workflows import FILES, STEPS, edited, node_classes, of_type, run, unprompted, workflow
from image_prompt import host
from image_prompt.host import folders
from image_prompt.ipadapter_core.checkpoint import read_checkpoint
from image_prompt.model_files.catalog import catalog_row, encoder_file, files_for
from image_prompt.model_files.released import Intent
from PIL import Image
from support import tiny, tiny_clip
from support.prompts import counted_residuals

SAME, OTHER = 2e-5, 1e-3  # of the largest value
by_name = pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    return stand_ins.write_models(tmp_path_factory.mktemp("models"))


@pytest.fixture(autouse=True)
def output(models, tmp_path, monkeypatch):
    """The host's folders, temporary, with small models under the names that the workflows use."""
    stand_ins.use_models(models, monkeypatch)
    prompts = ([str(tmp_path / "prompts")], set(folders.EXTENSIONS))
    monkeypatch.setitem(folder_paths.folder_names_and_paths, folders.PROMPTS, prompts)
    monkeypatch.setattr(folder_paths, "get_input_directory", lambda: str(tmp_path / "input"))
    monkeypatch.setattr(folder_paths, "get_output_directory", lambda: str(tmp_path / "output"))
    (tmp_path / "input").mkdir()
    return tmp_path / "output"


def slots(result):
    """The residuals of the sampled model by site."""
    return host.residuals_of(result.model)


def with_other_image(graph, index):
    """Outputs that give the workflow's LoadImage of this index another picture."""
    return {of_type(graph, "LoadImage")[index]: workflows.picture(graph, 5)}


def distance(a, b):
    """Largest difference of two results' pictures, in parts of the largest value; 0 if they are equal bit by bit."""
    return ((a.pictures - b.pictures).abs().max() / b.pictures.abs().max()).item()


@cache
def original(number):
    """The result of the workflow as it stands in its file."""
    return run(workflow(number))


# --- the files ---------------------------------------------------------------------------------------------------


def test_there_are_templates():
    assert len(FILES) >= 9


@by_name
def test_ids_are_unique_and_every_type_is_known(path):
    flow = workflows.read(path)
    numbers = [node["id"] for node in flow["nodes"]]
    links = [link[0] for link in flow["links"]]
    assert len(set(numbers)) == len(numbers)
    assert len(set(links)) == len(links)
    assert max(numbers) <= flow["last_node_id"]
    assert max(links) <= flow["last_link_id"]
    known = node_classes().keys() | set(workflows.NOTES)
    assert {node["type"] for node in flow["nodes"]} <= known
    assert flow["version"] == 0.4


@by_name
def test_links_join_equal_types_and_agree_with_the_sockets(path):
    flow = workflows.read(path)
    nodes = {node["id"]: node for node in flow["nodes"]}
    for link, source, slot, target, index, kind in flow["links"]:
        socket = nodes[target]["inputs"][index]
        sent = node_classes()[nodes[source]["type"]].RETURN_TYPES[slot]
        taken = workflows.inputs_of(node_classes()[nodes[target]["type"]])[socket["name"]][0]
        assert taken == socket["type"]
        assert sent == kind in taken.split(",")
        assert socket["link"] == link
        assert link in nodes[source]["outputs"][slot]["links"]
    joined = [socket["link"] for node in flow["nodes"] for socket in node["inputs"]]
    assert sorted(link for link in joined if link) == sorted(link[0] for link in flow["links"])


@by_name
def test_widget_values_fit_their_inputs(path):
    for call in workflows.to_graph(workflows.read(path)).values():
        inputs = workflows.inputs_of(node_classes()[call.type])
        for name, value in call.values.items():
            check_value(f"{call.type}.{name}", value, *inputs[name])


@by_name
def test_required_inputs_are_connected(path):
    for call in workflows.to_graph(workflows.read(path)).values():
        required = node_classes()[call.type].INPUT_TYPES()["required"]
        assert required.keys() == required.keys() & (call.values.keys() | call.links.keys())


@by_name
def test_the_note_names_every_file(path):
    flow = workflows.read(path)
    (note,) = [node["widgets_values"][0] for node in flow["nodes"] if node["type"] in workflows.NOTES]
    calls = workflows.to_graph(flow).values()
    used = {(name, value) for call in calls for name, value in call.values.items()}
    for name, value in used:
        if folder := workflows.MODEL_FOLDERS.get(name):
            assert f"`{folder}/` [{value}]" in note
    assert {v for n, v in used if n == "image"} <= {"example.png"}


@by_name
def test_the_note_names_every_file_that_the_auto_loader_looks_for(path):
    flow = workflows.read(path)
    (note,) = [node["widgets_values"][0] for node in flow["nodes"] if node["type"] in workflows.NOTES]
    for node in flow["nodes"]:
        if node["type"] == "ImagePromptAutoLoader":
            adapter = files_for(Intent(node["widgets_values"][0]), "SD1.5")[0]
            needed = [adapter, *filter(None, [encoder_file(adapter.encoder)])]
            told = [{"name": k.name, "url": k.url, "directory": k.folder} for k in needed]
            assert node["properties"]["models"] == told
            assert all(f"`{k.folder}/` [{k.name}]({k.url})" in note for k in needed)
            assert not adapter.faces or f"]({catalog_row(adapter.faces).url})" in note


@by_name
def test_nodes_do_not_overlap(path):
    boxes = [(*node["pos"], *node["size"]) for node in workflows.read(path)["nodes"]]
    for n, (x, y, width, height) in enumerate(boxes):
        for left, top, w, h in boxes[n + 1 :]:
            apart = x + width <= left or left + w <= x or y + height <= top - 30 or top + h <= y - 30
            assert apart, "a node's title bar is 30 high"


@by_name
def test_a_thumbnail_lies_beside(path):
    thumbnail = path.with_suffix(".jpg")
    with Image.open(thumbnail) as picture:
        assert 380 <= min(picture.size) <= max(picture.size) <= 420
    assert thumbnail.stat().st_size < 40_000


# --- the promises ------------------------------------------------------------------------------------------------

# those for transformers: test_templates_for_transformers.py
PICTURES = [n for n in (*range(1, 24), 27, 28) if n not in (11, 12, 21, 22)]


@pytest.mark.parametrize("number", PICTURES)
def test_the_images_steer_the_picture(number):
    graph = workflow(number)
    assert torch.isfinite(original(number).pictures).all()
    assert distance(original(number), run(unprompted(graph))) > OTHER
    for index in range(len(of_type(graph, "LoadImage"))):
        assert distance(original(number), run(graph, with_other_image(graph, index))) > OTHER


def test_the_simplest_equals_full_control_at_its_defaults():
    full = edited(workflow(2), "ImagePromptEncode", fit="crop")
    full = edited(full, "ImagePromptApply", weight=0.7, start_at=0.0, end_at=1.0, weight_type="linear")
    assert distance(original(1), run(full)) == 0


@pytest.mark.parametrize("curve", ["", "0:0.2"])
def test_the_curve_is_neither_of_its_ends(curve):
    assert distance(original(23), run(edited(workflow(23), "ImagePromptApply", weight_curve=curve))) > OTHER


@pytest.mark.parametrize(("number", "steps"), [(1, STEPS), (2, STEPS - 1), (15, STEPS)])
def test_windows_cover_the_steps_they_say(number, steps, monkeypatch):
    with counted_residuals(monkeypatch) as calls:
        run(workflow(number))
    assert calls.total() == steps * tiny.SD15.sites


def test_image_weights_set_the_share_of_each_image():
    alike = run(edited(workflow(3), "ImagePromptEncode", weight_2=1.0))
    nothing = run(edited(workflow(3), "ImagePromptEncode", image_weights="0, 0"))
    assert distance(original(3), alike) > OTHER
    assert distance(original(3), nothing) > OTHER


def test_a_blend_with_nothing_of_the_second_is_the_first():
    graph = edited(workflow(4), "ImagePromptCombine", weight=1.0, weight_2=0.0)
    blended = run(graph)
    (combine,) = of_type(graph, "ImagePromptCombine")
    first = blended.outputs[graph[combine].links["image_prompt"][0]]
    assert distance(blended, run(graph, {combine: first})) < SAME


@pytest.mark.parametrize("number", [5, 19])
def test_the_two_regions_are_left_and_right_and_fill_the_picture(number):
    for residuals in slots(original(number)).values():
        left, right = (residual.site.region.mask for residual in residuals)
        half = left.shape[-1] // 2
        assert left[..., :half].min() == 1
        assert left[..., half:].max() == 0
        assert torch.equal(left + right, torch.ones_like(left))


def test_a_negative_image_acts_through_cfg():
    graph = edited(workflow(6), "KSampler", cfg=1.0)
    assert distance(run(graph), run(graph, with_other_image(graph, 1))) == 0


@pytest.mark.parametrize(
    ("number", "blocks"),
    [(7, {"output 1"}), (8, {"input 8"}), (9, {"output 1", "input 8"})],
)
def test_style_and_layout_go_to_their_own_blocks_of_sdxl(number, blocks):
    assert {label for label, _ in slots(original(number))} == blocks


def test_the_control_net_acts_beside_the_image_prompt():
    without = edited(workflow(10), "ControlNetApplyAdvanced", strength=0.0)
    assert distance(original(10), run(without)) > OTHER


def test_a_saved_prompt_equals_the_fresh_one_bit_for_bit(output):
    (encode,) = of_type(workflow(11), "ImagePromptEncode")
    fresh = run(workflow(11)).outputs[encode]
    assert (output / "image_prompts" / "prompt_00001.safetensors").is_file()
    (load,) = of_type(workflow(12), "ImagePromptLoad")
    loaded = run(workflow(12))
    assert distance(loaded, run(workflow(12), {load: fresh})) == 0
    assert distance(loaded, run(unprompted(workflow(12)))) > OTHER


def test_one_image_per_picture_steers_its_own_picture():
    graph = workflow(13)
    change = (original(13).pictures - run(graph, with_other_image(graph, 1)).pictures).abs()
    largest = original(13).pictures.abs().max()
    assert change[0].max() < SAME * largest
    assert change[1].max() > OTHER * largest


def test_layer_weights_reach_their_blocks_and_ones_change_nothing():
    graph = workflow(14)
    (apply,), (layers,) = of_type(graph, "ImagePromptApply"), of_type(graph, "ImagePromptLayerWeights")
    scale, chosen = graph[apply].values["weight"], graph[layers].values
    for (label, _), (residual,) in slots(original(14)).items():
        assert residual.site.weight == pytest.approx(scale * chosen[label.replace(" ", "_")])
    ones = edited(graph, "ImagePromptLayerWeights", **dict.fromkeys(chosen, 1.0))
    assert distance(run(ones), run(graph, {layers: (None, "")})) == 0


@pytest.mark.parametrize(("rows", "seen"), [(slice(50, 64), False), (slice(12, 20), True)])
def test_of_the_reference_only_the_box_is_seen(rows, seen):
    (image,) = of_type(workflow(16), "LoadImage")
    picture = original(16).outputs[image][0].clone()
    picture[:, rows] = 1 - picture[:, rows]
    change = distance(original(16), run(workflow(16), {image: (picture, None)}))
    assert change > OTHER if seen else change == 0


@pytest.mark.parametrize(("number", "strengths"), [(17, {0.7}), (18, {0.7}), (19, {0.7}), (20, set())])
def test_the_lora_of_a_face_adapter_is_on_the_model_once(number, strengths):
    patches = original(number).model.patches.values()
    assert {patch[0] for on_weight in patches for patch in on_weight} == strengths
    assert all(len(on_weight) == 1 for on_weight in patches)


def test_another_person_among_the_pictures_of_one_face_does_not_count():
    (find,), images = of_type(workflow(18), "ImagePromptFaces"), of_type(workflow(18), "LoadImage")
    first, second, *strangers = (stand_ins.people(person, 20) for person in (40, 43, 220, 160))
    results = [run(workflow(18), dict(zip(images, (first, second, s), strict=True))) for s in strangers]
    assert [result.outputs[find][0].sizes for result in results] == [(2,), (2,)]
    assert distance(*results) == 0


def test_of_two_people_each_steers_their_own_half():
    (image,) = of_type(workflow(19), "LoadImage")
    changed = run(workflow(19), {image: stand_ins.people(40, 100)})  # the right one is somebody else
    for before, after in zip(slots(original(19)).values(), slots(changed).values(), strict=True):
        pairs = zip(before, after, strict=True)
        assert [torch.equal(a.site.keys, b.site.keys) for a, b in pairs] == [True, False]


def test_the_auto_loader_equals_the_simplest_and_the_doctor_agrees():
    assert distance(original(20), original(1)) == 0
    (doctor,), (loader,) = (of_type(workflow(20), f"ImagePrompt{n}") for n in ("Doctor", "AutoLoader"))
    chosen = "ip-adapter-plus_sd15.safetensors is taken for the plus adapter for SD1.5"
    assert f"plus on SD1.5: ready. {chosen}" in " ".join(original(20).outputs[doctor][0].split())
    assert f"SD1.5, plus: {chosen}" in original(20).outputs[loader][3]


def test_the_picture_is_made_with_what_was_trained_and_exported(models, monkeypatch, tmp_path):
    """The training itself has its own tests; here adapters stand in the place of what it gives."""
    names = ("ip-adapter_sd15.safetensors", "ip-adapter-plus_sd15.safetensors")
    trained = [host.load_adapter(models / folders.ADAPTERS / name) for name in names]
    monkeypatch.setitem(
        folder_paths.folder_names_and_paths, folders.ADAPTERS, ([str(tmp_path)], {".safetensors"})
    )
    (train,) = of_type(workflow(21), "ImagePromptTrain")
    one, other = (run(workflow(21), {train: (adapter, None, "")}) for adapter in trained)
    assert distance(one, other) > OTHER
    exported = read_checkpoint(tmp_path / "my-adapter.safetensors")
    tensor = trained[0]["ip_adapter"]["1.to_k_ip.weight"]
    assert torch.equal(exported.ip_adapter["1.to_k_ip.weight"], tensor.half())


def test_the_pictures_are_scored_against_their_reference(tmp_path, monkeypatch):
    tiny_clip.write(tmp_path / "clip")
    known, kinds = folder_paths.folder_names_and_paths["clip_vision"]
    folders = ([*known, str(tmp_path)], kinds)
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "clip_vision", folders)
    (score,) = of_type(workflow(22), "ImagePromptScore")
    clip_i, clip_t, report, sheet = run(edited(workflow(22), "ImagePromptScore", clip_model="clip")).outputs[
        score
    ]
    assert -1 <= clip_i <= 1
    assert clip_t != 0
    assert "| generated |" in report
    assert sheet.shape[-1] == 3
