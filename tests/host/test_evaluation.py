"""Evaluation around the scores: matching names, workflows, servers, resuming, tables and sheets."""

import io
import json
import subprocess
import sys
import threading
from http.server import ThreadingHTTPServer
from pathlib import Path

import folder_paths
import pytest
from helpers.comfyui_server import ComfyUI
from helpers.evaluation import captioned, picture, saved
from helpers.workflows import node_classes
from image_prompt.evaluation import command as cli
from image_prompt.evaluation import running
from image_prompt.evaluation.arguments import SHIPPED
from image_prompt.evaluation.matching import match, read_captions
from image_prompt.evaluation.messages import failure
from image_prompt.evaluation.servers import Server
from image_prompt.evaluation.workflow import read_workflow
from image_prompt.ipadapter_core.errors import ImagePromptError, MissingFileError, RemoteError, SettingError
from PIL import Image
from support import tiny_clip

GRAPH = {
    "1": {"class_type": "LoadImage", "inputs": {"image": "example.png"}},
    "2": {"class_type": "CLIPTextEncode", "inputs": {"text": "", "clip": ["4", 1]}},
    "3": {"class_type": "KSampler", "inputs": {"seed": 5, "steps": 20, "cfg": 7}},
    "5": {"class_type": "SaveImage", "inputs": {"images": ["3", 0]}},
}


@pytest.fixture
def references(tmp_path):
    return captioned(tmp_path / "references")


def workflow(tmp_path, graph=GRAPH, name="method.json"):
    path = tmp_path / name
    path.write_text(json.dumps(graph))
    return path


# --- names --------------------------------------------------------------------------------------------------------------


def test_generated_pictures_find_their_reference_by_name_number_or_folder(references, tmp_path):
    made = saved(
        tmp_path / "made", "cat_0.png", "cat-1.png", "dog_1.png", "dog_1_0.png", "owl/a.png", "owl/b/c.png"
    )
    found = {group.name: [path.name for path in group.generated] for group in match(references, made).groups}
    assert found == {
        "cat": ["cat-1.png", "cat_0.png"],
        "dog_1": ["dog_1.png", "dog_1_0.png"],
        "owl": ["a.png", "c.png"],
    }


def test_captions_lie_beside_in_lists_or_in_coco(references, tmp_path):
    made = saved(tmp_path / "made", "cat.png", "owl.png")
    assert match(references, made).groups[0].captions == ("a cat", "an animal")
    listed = tmp_path / "list.jsonl"
    listed.write_text('{"file_name": "cat.png", "text": "x"}\n{"file_name": "cat.png", "text": ["y", "z"]}\n')
    assert [group.captions for group in match(references, made, listed).groups] == [
        ("x", "y", "z"),
        ("a owl", "an animal"),
    ]
    coco = {"images": [{"id": 9, "file_name": "cat.jpg"}], "annotations": []}
    coco["annotations"] = [{"id": n, "image_id": 9, "caption": f"c{n} "} for n in (2, 1)]
    (tmp_path / "captions.json").write_text(json.dumps(coco))
    assert read_captions(tmp_path / "captions.json") == {"cat": ("c1", "c2")}


def test_pictures_of_nobody_are_told(references, tmp_path):
    with pytest.raises(SettingError, match="none of the 1 pictures"):
        match(references, saved(tmp_path / "made", "lion.png"))
    with pytest.raises(MissingFileError, match="no picture in"):
        match(references, tmp_path / "nowhere")


# --- workflows ----------------------------------------------------------------------------------------------------------


def test_the_only_image_and_the_seeds_are_marked_and_filled(tmp_path):
    flow = read_workflow(workflow(tmp_path), {"2.text": "a photo of {text}, {text}"})
    assert flow.name == "method"
    graph = flow.filled("sub/cat.png", "cats", 77)
    assert graph["1"]["inputs"]["image"] == "sub/cat.png"
    assert graph["2"]["inputs"] == {"text": "a photo of cats, cats", "clip": ["4", 1]}
    assert graph["3"]["inputs"] == {"seed": 77, "steps": 20, "cfg": 7}
    assert flow.filled("x", "", 1)["3"]["inputs"]["seed"] == 1  # the marks are still there


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"9": {"class_type": "LoadImage", "inputs": {"image": "b.png"}}}, "2 LoadImage nodes; mark"),
        ({"3": {"class_type": "KSampler", "inputs": {"seed": ["9", 0]}}}, "no seed input"),
        ({"5": {"class_type": "Note", "inputs": {}}}, "saves no picture"),
        ({"nodes": []}, "not in API format"),
    ],
)
def test_workflows_that_cannot_be_filled_are_told(tmp_path, change, told):
    with pytest.raises(SettingError, match=told):
        read_workflow(workflow(tmp_path, GRAPH | change))


def test_an_input_that_is_not_there_is_told_with_those_that_are(tmp_path):
    with pytest.raises(SettingError, match=r"no input '3\.sed'.*3 \(KSampler\)"):
        read_workflow(workflow(tmp_path), {"3.sed": 1})


@pytest.mark.parametrize("path", sorted(SHIPPED.glob("*.json")), ids=lambda path: path.stem)
def test_shipped_workflows_fit_the_hosts_nodes(path):
    flow = read_workflow(path)
    assert flow.marks == {"{image}", "{seed}"}
    for node in flow.graph.values():
        known = node_classes()[node["class_type"]].INPUT_TYPES()
        taken = {**known["required"], **known.get("optional", {})}
        # later hosts' inputs may be missing here; the host fills what is optional
        newer = {"crop", "strength", "strength_type"}
        assert set(node["inputs"]) - newer <= set(taken)
        assert set(known["required"]) <= set(node["inputs"]) | {"upload"}
        for name, value in node["inputs"].items():
            if isinstance(value, list):
                source = node_classes()[flow.graph[value[0]]["class_type"]]
                assert source.RETURN_TYPES[value[1]] == taken[name][0]


# --- making -------------------------------------------------------------------------------------------------------------


class Paints:
    """A generator that paints by the seed."""

    address = "the painter"

    def __init__(self, fail_at: int | None = None):
        self.fail_at, self.seeds, self.uploads = fail_at, [], []

    def upload(self, picture, name):
        self.uploads.append(name)
        return name

    def pictures(self, graph):
        self.seeds.append(graph["3"]["inputs"]["seed"])
        if len(self.seeds) == self.fail_at:
            raise SettingError("the GPU is gone")
        file = io.BytesIO()
        picture(self.seeds[-1]).save(file, "PNG")
        return [file.getvalue()]


@pytest.fixture
def todo(references, tmp_path):
    paths = sorted(references.glob("*.png"))
    return running.plan_jobs(paths, {}, running.Seeds(2, 100), tmp_path / "made")


def test_every_reference_gets_the_same_seeds_and_is_uploaded_once(todo, tmp_path):
    paints = Paints()
    assert running.run(read_workflow(workflow(tmp_path)), todo, [paints]).made == 6
    assert sorted(paints.seeds) == [100, 100, 100, 101, 101, 101]
    assert paints.uploads == ["cat.png", "dog_1.png", "owl.png"]
    assert sorted(path.name for path in (tmp_path / "made").iterdir())[:2] == ["cat_0.png", "cat_1.png"]


def test_after_a_failure_only_what_is_missing_is_made(todo, tmp_path):
    flow = read_workflow(workflow(tmp_path))
    outcome = running.run(flow, todo, [Paints(fail_at=4)])
    assert (outcome.made, outcome.untried) == (5, 0)
    assert [(wish.path.name, why) for wish, why in outcome.failed] == [("dog_1_1.png", "the GPU is gone")]
    assert len(list((tmp_path / "made").glob("*"))) == 5
    paints = Paints()
    assert running.run(flow, todo, [paints]) == running.Outcome(made=1)
    assert len(paints.seeds) == 1


def test_several_generators_share_the_work(todo, tmp_path):
    both = [Paints(), Paints()]
    running.run(read_workflow(workflow(tmp_path)), todo, both)
    assert sum(len(paints.seeds) for paints in both) == 6


def test_processes_share_whole_references(todo, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    parts = []
    for rank in "01":
        monkeypatch.setenv("RANK", rank)
        parts.append(running.shard(todo))
    assert sorted(wish.path for part in parts for wish in part) == sorted(wish.path for wish in todo)
    assert not {wish.reference for wish in parts[0]} & {wish.reference for wish in parts[1]}


def test_a_place_for_text_needs_captions(todo, tmp_path):
    with pytest.raises(SettingError, match="has no caption"):
        running.run(read_workflow(workflow(tmp_path), {"2.text": "{text}"}), todo, [Paints()])


# --- servers ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def server():
    made = ThreadingHTTPServer(("127.0.0.1", 0), ComfyUI)
    made.graphs = []
    threading.Thread(target=made.serve_forever, daemon=True).start()
    yield made
    made.shutdown()


def address(server) -> str:
    return f"127.0.0.1:{server.server_port}"


def test_a_server_takes_a_picture_and_a_graph_and_gives_the_result(server, references):
    client = Server(address(server))
    assert client.upload(references / "cat.png", "cat.png") == "s/cat.png"
    (got,) = client.pictures(GRAPH)
    assert Image.open(io.BytesIO(got)).size == (48, 48)


@pytest.mark.parametrize(
    ("steps", "told"), [(1, r"node 3 \(KSampler\): Bad value steps"), (2, "KSampler: out of memory")]
)
def test_what_a_server_says_is_passed_on(server, steps, told):
    graph = json.loads(json.dumps(GRAPH))
    graph["3"]["inputs"]["steps"] = steps
    with pytest.raises(SettingError, match=told):
        Server(address(server)).pictures(graph)


def test_a_failure_without_words_is_told_by_its_type():
    told = {"node_type": "KSampler", "exception_message": "", "exception_type": "AssertionError"}
    assert failure([["execution_error", told]]) == "KSampler: AssertionError"


def test_no_server_is_told(monkeypatch):
    monkeypatch.setattr("image_prompt.evaluation.client.PAUSE_SECONDS", 0)
    with pytest.raises(RemoteError, match="no ComfyUI server answers"):
        Server("127.0.0.1:9")


# --- the command --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return str(tiny_clip.write(tmp_path_factory.mktemp("clip") / "tiny clip"))


@pytest.fixture
def installed(clip, monkeypatch):
    """Its name for graphs, in the host's folder."""
    folders = ([str(Path(clip).parent)], {".safetensors"})
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "clip_vision", folders)
    return Path(clip).name


def test_folders_are_scored_into_tables_and_sheets(references, tmp_path, clip, capsys):
    near, far = tmp_path / "near", saved(tmp_path / "far", "cat_0.png", "dog_1_0.png", "owl_0.png")
    near.mkdir()
    for path in references.glob("*.png"):
        Image.open(path).save(near / path.name)
    out = tmp_path / "out"
    scored = [f"copy={near}", f"other={far}", "--parameters", "copy=22319616"]
    assert (
        cli.main(["score", "--references", str(references), "--out", str(out), "--clip", clip, *scored]) == 0
    )
    told = capsys.readouterr().out
    assert "| copy   | 22 M" in told
    assert "1.0000" in told
    lines = (out / "scores.csv").read_text().splitlines()
    assert lines[0].startswith(
        "method,reference,pictures,clip_i,clip_t,caption,dino_i,clip_model,prefix,which"
    )
    assert lines[1].startswith("copy,cat,1,1.000000,")
    assert len(lines) == 1 + 6
    table = (out / "table-1.md").read_text()
    assert [
        line for line in table.splitlines() if line.startswith("| IP-Adapter ") and "adapter, paper" in line
    ]
    assert "0.828" in table
    with Image.open(out / "best-and-worst copy.png") as sheet:
        assert sheet.width > 300


def table_of(references, folder, clip):
    out = str(folder / "out")
    return ["table", "--references", str(references), "--out", out, "--clip", clip, "--count", "2"]


def test_the_table_makes_what_can_be_made_and_names_the_rest(
    references, tmp_path, clip, server, capsys, caplog
):
    caplog.set_level("INFO")
    good = workflow(tmp_path, GRAPH, "good.json")
    bad = workflow(
        tmp_path,
        GRAPH | {"3": {"class_type": "KSampler", "inputs": {"seed": 1, "steps": 1, "cfg": 1}}},
        "bad.json",
    )
    run = table_of(references, tmp_path, clip)
    run += ["--workflows", str(good), str(bad), "--server", address(server), "--set", "3.cfg=2.5"]
    assert cli.main([*run, "--folder", f"mine={references}"]) == 0
    told = capsys.readouterr().out
    assert "here, 6 pictures of 3" in told
    assert {graph["3"]["inputs"]["cfg"] for graph in server.graphs} == {2.5}
    assert "| mine " in told
    assert "left out: bad (" in caplog.text
    assert cli.main(run) == 0
    assert "good: 0 pictures made, 6 existed" in caplog.text


def test_two_processes_share_the_making_and_one_scores(references, tmp_path, clip, server):
    """As `accelerate launch` starts them."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--standalone"]
    command += [
        str(Path(__file__).parents[1] / "helpers" / "command.py"),
        "evaluate",
    ]
    command += [*table_of(references, tmp_path, clip), "--server", address(server)]
    command += ["--workflows", str(workflow(tmp_path))]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    assert len(server.graphs) == 6
    assert done.stdout.count("here, 6 pictures of 3") == 1


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["score", "x=nowhere"], "no picture in nowhere"),
        (["generate", "--workflow", "nowhere.json"], "cannot be read"),
        (
            ["score", "--clip", "no/such/model", "x={references}"],
            "CLIP model 'no/such/model' could not be loaded",
        ),
    ],
)
def test_mistakes_are_told_in_a_sentence(references, tmp_path, caplog, arguments, told):
    given = [each.format(references=references) for each in arguments]
    assert cli.main([*given, "--references", str(references), "--out", str(tmp_path / "out")]) == 1
    assert told in caplog.text
    assert issubclass(SettingError, ImagePromptError)
