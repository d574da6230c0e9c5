"""The evaluation's client against servers that answer as no ComfyUI does: bounded, one sentence, and the run goes on."""

import json
import logging
import re
import time
import tracemalloc
from dataclasses import replace

import pytest
from helpers import hostile
from helpers.hostile import Script, encoded, history, png, saved, say, sends_on, serving
from helpers.reads import ends
from image_prompt.evaluation import client, reading, running, servers
from image_prompt.evaluation import command as cli
from image_prompt.evaluation.client import Limits
from image_prompt.evaluation.servers import Server
from image_prompt.evaluation.workflow import Workflow
from image_prompt.ipadapter_core.errors import ImagePromptError, SettingError
from PIL import Image

GRAPH = {
    "1": {"class_type": "LoadImage", "inputs": {"image": "{image}"}},
    "3": {"class_type": "KSampler", "inputs": {"seed": "{seed}"}},
    "5": {"class_type": "SaveImage", "inputs": {"images": ["3", 0]}},
}
# seconds are short, so that a hanging server is soon given up; bytes as they are
LIMITS = Limits(picture_bytes=32 << 20, call_seconds=1.5, transfer_seconds=1.5)
SHORTER = replace(LIMITS, call_seconds=0.5, transfer_seconds=0.5)  # for those that are waited for in vain
DEEP = b"[" * 200_000
PAGE = b"<html><body>Welcome to nginx!</body></html>"

REFUSED = {"3": {"class_type": "KSampler", "errors": [{"message": "Bad", "details": "seed"}]}}
OUT_OF_MEMORY = {"node_type": "VAEDecode", "exception_message": "out of memory\n"}


def failed(*messages):
    return {"outputs": {}, "status": {"status_str": "error", "messages": list(messages)}}


IN_VAIN = {
    "silence": (hostile.silent, "did not answer within"),
    "headers by drops": (hostile.drips_headers, "did not answer within"),
    "a body by drops": (hostile.drips_body, "did not answer within"),
}
EVERYWHERE = {
    "401": (say(PAGE, 401), "answered with status 401"),
    "404": (say(PAGE, 404), "answered with status 404"),
    "500": (say(b"", 500), "answered with status 500"),
    "502 and JSON": (say([1], 502), "answered with status 502"),
    "redirect to another host": (sends_on("http://example.invalid/"), "redirects to http://example.invalid/"),
    "redirect in a loop": (lambda handler: sends_on(handler.path, 307)(handler), "which is not followed"),
    "redirect to nowhere": (lambda handler: handler.send(b"", 301), "redirects to nowhere"),
    "redirect to a file": (sends_on("file:///etc/passwd"), "which is not followed"),
    "3 GB": (hostile.three_gigabytes, "MB, and was stopped"),
    "endless": (hostile.endless_body, "MB, and was stopped"),
    "endless in chunks": (hostile.endless_chunks, "MB, and was stopped"),
    "a length of 1 PB": (hostile.announces("9" * 15), "MB, and was stopped"),
    "an impossible length": (hostile.announces("9" * 30), "broken or not HTTP"),
    "a length that is no number": (hostile.announces("many"), "broken or not HTTP"),
    "shorter than announced": (hostile.announces("400"), "broken or not HTTP"),
    **IN_VAIN,
    "endless headers": (hostile.endless_headers, "broken or not HTTP"),
    "no HTTP": (hostile.not_http, "broken or not HTTP"),
    "a closed connection": (hostile.closes, "no ComfyUI server answers"),
    "a bomb": (encoded("deflate", hostile.deflate_bomb()), "answered compressed"),
    "broken gzip": (encoded("gzip", b"not gzip"), "answered compressed"),
    "an unknown coding": (encoded("x-rot13", b"{}"), "answered compressed"),
}
NO_JSON = {
    "nothing": (say(b""), "no JSON: nothing"),
    "a page": (say(PAGE), "no JSON: '<html>"),
    "half a JSON": (say(b'{"prompt_id": '), "no JSON"),
    "deep JSON": (say(DEEP), "no JSON"),
    "bytes that are no text": (say(b"\xff\xfe\xfa{}"), "no JSON"),
    "another charset": (hostile.with_type("application/json; charset=x-none", b"\x80{}"), "no JSON"),
    "a number of 5,000 digits": (say(b"9" * 5000), "no JSON"),
    "a list": (say([]), "as no ComfyUI does"),
    "null": (say(None), "as no ComfyUI does"),
    "NaN": (say(b"NaN"), "as no ComfyUI does"),
    "a text": (say("ok"), "as no ComfyUI does"),
    "escape codes": (say(b"\x1b[31mred\x1b[0m\n\n"), r"\\x1b\[31mred"),
}
SHAPES = {
    "/upload/image": {
        "no name": (say({"subfolder": ""}), "name None"),
        "a number": (say({"name": 7}), "name 7"),
        "a list": (say({"name": "a.png", "subfolder": []}), "as no ComfyUI does"),
    },
    "/prompt": {
        "no number": (say({}), "prompt_id None"),
        "a path": (say({"prompt_id": "../../view"}), "prompt_id '../../view'"),
        "NaN": (say(b'{"prompt_id": NaN}'), "prompt_id nan"),
        "a list": (say({"prompt_id": ["a"]}), "as no ComfyUI does"),
        "a refusal": (say({"error": {"message": "invalid"}, "node_errors": REFUSED}, 400), r"node 3 \(KSampler\): Bad seed"),
        "a refusal of one output": (
            say({"prompt_id": "1", "number": 1, "node_errors": REFUSED}),
            r"refuses a part of the workflow: node 3 \(KSampler\): Bad seed",
        ),
        "a refusal of another shape": (say({"error": {"message": []}, "node_errors": [1]}, 400), "status 400"),
        "errors of other shapes": (
            say({"error": "no", "node_errors": {"1": None, "2": {"errors": [None, 3]}, "3": {"errors": 7}}}, 400),
            "node 2",
        ),
        "a refusal with escape codes": (say({"error": {"message": "\x1b[2J\nx"}}, 400), r"\\x1b\[2J"),
    },
    "/history": {
        "nothing ever": (say({}), "did not finish a picture within 2 s"),
        "never done": (history({"status": {"completed": False}}), "did not finish a picture within 2 s"),
        "an entry that is a list": (history([1]), "as no ComfyUI does"),
        "a status that is a text": (history({"status": "ok", "outputs": {}}), "as no ComfyUI does"),
        "an error": (
            history(failed(["execution_error", OUT_OF_MEMORY])),
            "VAEDecode: out of memory",
        ),
        "an error without words": (history(failed(7, ["a"], None)), "the workflow failed"),
        "interrupted": (history(failed(["execution_interrupted", {}])), "interrupted"),
        "no outputs": (history({"status": {"completed": True}}), "outputs None"),
        "outputs that are a list": (history({"outputs": [1]}), "as no ComfyUI does"),
        "an output that is a text": (history({"outputs": {"5": "x"}}), "as no ComfyUI does"),
        "images that are a number": (history({"outputs": {"5": {"images": 4}}}), "as no ComfyUI does"),
        "images that are null": (history({"outputs": {"5": {"images": None}}}), "saved 0 pictures"),
        "an image that is a text": (history(saved("a.png")), "as no ComfyUI does"),
        "no picture": (history(saved()), "saved 0 pictures"),
        "two pictures": (history(saved(hostile.IMAGE, hostile.IMAGE)), "saved 2 pictures"),
        "5,000 pictures": (history(saved(*[hostile.IMAGE] * 5_000)), "saved 5000 pictures"),
        "no file name": (history(saved({"type": "output"})), "as no ComfyUI does"),
        "a file name that climbs": (history(saved(hostile.IMAGE | {"filename": "../../etc/passwd"})), "as no ComfyUI does"),
        "a folder that climbs": (history(saved(hostile.IMAGE | {"subfolder": "..\\.."})), "as no ComfyUI does"),
        "a rooted name": (history(saved(hostile.IMAGE | {"filename": "/etc/passwd"})), "as no ComfyUI does"),
        "a name on a share": (history(saved(hostile.IMAGE | {"filename": "\\\\host\\share\\a.png"})), "as no ComfyUI does"),
        "NUL in a name": (history(saved(hostile.IMAGE | {"filename": "a\0.png"})), "as no ComfyUI does"),
        "an unknown type": (history(saved(hostile.IMAGE | {"type": "secret"})), "as no ComfyUI does"),
        "types of other kinds": (history(saved(hostile.IMAGE | {"type": ["output"]})), "as no ComfyUI does"),
    },
    "/view": {
        "nothing": (say(b""), "no picture"),
        "a page": (say(PAGE), "no picture"),
        "JSON": (say({}), "no picture"),
        "a program for other programs": (say(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"), "no picture"),
        "half a picture": (say(png((400, 400))[:300]), "damaged"),
        "a changed picture": (say(png()[:60] + b"\0\0\0\0" + png()[64:]), "damaged"),
        "144 megapixels": (say(hostile.huge_png(12_000, 12_000)), "12000 x 12000 pixels"),
        "4 gigapixels": (say(hostile.huge_png(65_000, 65_000)), "damaged|pixels"),
        "no pixels": (say(hostile.huge_png(0, 9)), "no picture|damaged"),
        "rows that end early": (say(hostile.huge_png(4_000, 4_000)), "damaged"),
    },
}  # fmt: skip
TABLE = [
    pytest.param(endpoint, answer, told, SHORTER if name in IN_VAIN else LIMITS, id=f"{endpoint}, {name}")
    for endpoint in hostile.ENDPOINTS
    for name, (answer, told) in {
        **EVERYWHERE,
        **(NO_JSON if endpoint != "/view" else {}),
        **SHAPES.get(endpoint, {}),
    }.items()
]


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch):
    monkeypatch.setattr(client, "PAUSE_SECONDS", 0.0)
    monkeypatch.setattr(servers, "POLL_SECONDS", 0.01)


@pytest.fixture
def references(tmp_path):
    folder = tmp_path / "references"
    folder.mkdir()
    for name in ("cat", "dog"):
        Image.new("RGB", (20, 20), "olive").save(folder / f"{name}.png")
    return folder


def one_sentence(text: str) -> None:
    assert text.isprintable()
    assert len(text) < 600
    assert "Traceback" not in text


@pytest.mark.parametrize(("endpoint", "answer", "told", "limits"), TABLE)
def test_a_bad_answer_is_bounded_and_one_sentence(endpoint, answer, told, limits, tmp_path, references):
    """The server is bad once for each connection; then the same run goes on with the next picture."""
    flow = Workflow("method", GRAPH)
    todo = running.plan_jobs([references / "cat.png"], {}, running.Seeds(1, 0), tmp_path / "made")
    with serving(Script({endpoint: answer})) as script, ends():
        tracemalloc.start()
        try:
            ((_, said),) = running.run(flow, todo, [Server(script.address, 2.0, limits)]).failed
        except ImagePromptError as error:
            assert endpoint == "/system_stats"
            said = str(error)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert re.search(told, said), said
    assert script.address in said or "saved" in said
    one_sentence(said)
    assert peak < 160 << 20
    assert [path.name for path in (tmp_path / "made").glob("*")] == []


def test_the_table_is_long_enough():
    assert len(TABLE) >= 40


@pytest.mark.parametrize(
    ("answer", "times"),
    [
        (say(PAGE, 500), 3),
        (say(png()[:50]), 3),
        (hostile.closes, 6),  # aiohttp asks once more itself
        (hostile.drips_body, 3),
        (sends_on("http://x.invalid"), 3),
    ],
    ids=["500", "half", "closes", "drips", "redirect"],
)
def test_the_run_goes_on_with_the_next_picture_and_the_next_run_makes_the_rest(
    answer, times, tmp_path, references, monkeypatch, caplog
):
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(client, "TRIES", 1)
    limits = SHORTER if answer is hostile.drips_body else LIMITS
    monkeypatch.setattr(Server.__init__, "__defaults__", (3600.0, limits))
    path = tmp_path / "flow.json"
    path.write_text(json.dumps(GRAPH))
    made = tmp_path / "made"
    with serving(Script({"/view": answer}, times=times)) as script:
        run = ["generate", "--workflow", str(path), "--references", str(references), "--out", str(made)]
        run += ["--server", script.address, "--count", "4"]
        assert cli.main(run) == 3
        assert "3 pictures are missing. Run this again to make them." in caplog.text
        assert len(list(made.glob("*.png"))) == 5
        assert cli.main(run) == 0
    assert sorted(path.name for path in made.glob("*.png")) == sorted(
        f"{name}_{n}.png" for name in ("cat", "dog") for n in range(4)
    )
    assert all(Image.open(path).size == (24, 16) for path in made.glob("*.png"))


def test_a_server_that_always_fails_is_given_up_and_another_goes_on(tmp_path):
    names = [f"{n}.png" for n in range(9)]
    for name in names:
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    todo = running.plan_jobs([tmp_path / name for name in names], {}, running.Seeds(1, 0), tmp_path / "made")
    flow = Workflow("method", GRAPH)
    with serving(Script({"/prompt": say(PAGE, 503)})) as bad:
        outcome = running.run(flow, todo, [Server(bad.address)])
        assert (outcome.made, len(outcome.failed), outcome.untried, outcome.missing) == (0, 3, 6, 9)
        with serving(Script()) as good:
            outcome = running.run(flow, todo, [Server(bad.address), Server(good.address)])
    assert outcome.made >= 6
    assert outcome.untried == 0


def test_a_server_that_is_not_there_is_named_and_the_others_work(tmp_path, references, caplog):
    path = tmp_path / "flow.json"
    path.write_text(json.dumps(GRAPH))
    run = [
        "generate",
        "--workflow",
        str(path),
        "--references",
        str(references),
        "--out",
        str(tmp_path / "made"),
    ]
    with serving(Script()) as good, serving(Script({"/system_stats": say(PAGE)})) as bad:
        run += ["--count", "1"]
        assert cli.main([*run, "--server", bad.address, "--server", good.address]) == 0
        assert bad.address in caplog.text
        assert cli.main([*run, "--server", bad.address]) == 1


def test_a_broken_connection_is_tried_again(references):
    with serving(Script({"/view": hostile.closes}, times=2)) as script:
        assert len(Server(script.address).pictures(GRAPH)) == 1
        assert sum(path.startswith("/view") for path in script.asked) == 3


def test_what_a_server_says_beside_what_is_needed_does_not_matter():
    """NaN in outputs of other nodes is what Python's json writes; ComfyUI passes it on."""
    entry = saved(hostile.IMAGE)
    entry["outputs"]["7"] = {"text": [float("nan"), float("inf")]}
    entry["status"] = None
    with serving(Script({"/history": history(entry)})) as script:
        assert len(Server(script.address).pictures(GRAPH)) == 1


def test_3_gb_are_stopped_early():
    with serving(Script({"/view": hostile.three_gigabytes})) as script:
        with pytest.raises(ImagePromptError, match="256 MB"):
            Server(script.address).pictures(GRAPH)
        time.sleep(0.2)
        assert script.sent < 16 << 20


@pytest.mark.parametrize(
    "address",
    ["", "http://", "ftp://host", "file:///etc/passwd", "host:port", "host:99999", "http://[::1", "a\0b", "a b",
     "http://host/?q=1", "host#x", "\\\\host\\share", "javascript:alert(1)", "\ud800"],
)  # fmt: skip
def test_what_is_no_address_is_refused_before_anything_is_asked(address):
    with pytest.raises(SettingError) as failure:
        Server(address)
    one_sentence(str(failure.value))


def test_a_password_in_an_address_is_not_shown():
    with pytest.raises(ImagePromptError) as failure:
        Server("http://me:secret@127.0.0.1:9/comfy/")
    assert "127.0.0.1:9/comfy" in str(failure.value)
    assert "secret" not in str(failure.value)


@pytest.mark.parametrize(
    "name",
    [
        "cat.png",
        "a b.png",
        "..",
        "\\\\host\\x.png",
        "a\0.png",
        "\udcff.png",
        "x" * 300 + ".png",
        "猫.jpg",
    ],
)
def test_every_name_can_be_sent_and_two_stay_two(name, references):
    safe = reading.plain_name(name)
    assert safe.isascii()
    assert len(safe) <= 120
    assert not set(safe) & set('/\\:*?"<>|\0')
    assert safe.strip(".")
    assert reading.plain_name(name + "x.png") != safe
    with serving(Script()) as script:
        assert Server(script.address).upload(references / "cat.png", name) == "cat.png"
