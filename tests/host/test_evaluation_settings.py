"""Numbers and names that cannot work, on the command line and in workflows: a sentence before anything is made."""

import json

import pytest
from helpers.evaluation import GRAPH, painted, score, sentence, workflow
from helpers.hostile import Script, serving
from image_prompt.evaluation import command as cli
from image_prompt.evaluation.workflow import read_workflow
from image_prompt.ipadapter_core.errors import ImagePromptError, SettingError


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["--count", "0"], "count is 0"),
        (["--count", "-4"], "count is -4"),
        (["--count", "1000000000"], "count is 1000000000"),
        (["--seed", "-1"], "seed is -1"),
        (["--seed", str(2**64)], "seed is 1844"),
        (["--first", "0"], "--first is 0"),
        (["--first", "-1"], "--first is -1"),
        (["--patience", "nan"], "--patience is nan"),
        (["--patience", "inf"], "--patience is inf"),
        (["--patience", "0"], "--patience is 0"),
        (["--set", "3.cfg=nan"], "3.cfg is nan"),
        (["--set", "3.cfg=-inf"], "3.cfg is -inf"),
        (["--set", "3.cfg=1e400"], "3.cfg is inf"),
        (["--set", f"3.cfg={'9' * 6000}"], "3.cfg is inf"),
        (["--set", "3.cfg"], "has no value"),
        (["--set", "3.cfg=1", "--set", "3.cfg=2"], "given twice"),
        (["--server", "ftp://x"], "no address"),
        (["--out", "\0"], "could not be written"),
        (["--references", "a\0b"], "no picture in"),
        (["--workflow", "a\0b"], "cannot be read"),
    ],
)
def test_numbers_and_names_that_cannot_work_are_a_sentence(references, tmp_path, caplog, more, told):
    run = ["generate", "--workflow", str(workflow(tmp_path)), "--references", str(references)]
    with serving(Script()) as script:
        run += [
            "--out",
            str(tmp_path / "made"),
            *(["--server", script.address] if "--server" not in more else []),
        ]
        assert cli.main([*run, *more]) == 1
        assert not [path for path in script.asked if path.startswith("/prompt")]
    assert told in sentence(caplog.messages[-1])
    assert not list((tmp_path / "made").glob("*"))


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["--device", "cuda:99"], "cannot be used"),
        (["--device", "toaster"], "cannot be used"),
        (["--device", "meta"], "cannot be used"),
        (["--parameters", "m=nan"], "neither a number nor a file"),
        (["--parameters", "m=²"], "neither a number nor a file"),
        (["--parameters", "other=7"], "no method here"),
        (["--prefix", "a\0b"], "plain text"),
        (["--clip", "\0"], "could not be loaded"),
        (["--clip", "../../x"], "could not be loaded"),
        (["m={made}"], "given twice"),
        (["={made}"], "has no name"),
        (["--out", "x" * 300], "too long"),
    ],
)
def test_scoring_with_what_cannot_work_is_a_sentence(references, tmp_path, clip, caplog, more, told):
    made = painted(tmp_path / "made", "cat_0.png")
    more = [each.format(made=made) for each in more]
    assert score(references, tmp_path / "out", clip, f"m={made}", *more) == 1
    assert told in sentence(caplog.messages[-1])


def test_numbers_of_a_workflow_are_finite(tmp_path):
    for value in ("NaN", "-Infinity", "1e400"):
        text = json.dumps(GRAPH).replace("7.5", value)
        with pytest.raises(SettingError, match=r"flow\.json: 3\.cfg is "):
            read_workflow(workflow(tmp_path, text))
        nested = json.dumps(GRAPH).replace("7.5", f'{{"curve": [1, {value}]}}')
        with pytest.raises(SettingError, match=r"flow\.json: 3\.cfg is "):
            read_workflow(workflow(tmp_path, nested))


@pytest.mark.parametrize(
    "text",
    ["", "[]", "null", "7", '{"1": {"class_type": "X"}}', '{"1": {"class_type": 7, "inputs": {}}}', "[" * 99_999,
     '{"1": {"class_type": "X", "inputs": []}}', '{"prompt": null}', '{"1": null}'],
)  # fmt: skip
def test_workflows_of_any_other_shape_are_a_sentence(tmp_path, text):
    with pytest.raises(ImagePromptError) as failure:
        read_workflow(workflow(tmp_path, text))
    sentence(str(failure.value))


def test_what_is_set_keeps_its_kind(tmp_path):
    given = {"2.text": "nan", "3.steps": "30", "3.cfg": "2.5", "3.add_noise": "False", "1.image": "7"}
    graph = read_workflow(workflow(tmp_path), given | {"3.seed": "{seed}"}).filled("x.png", "", 9)
    assert graph["2"]["inputs"]["text"] == "nan"
    assert graph["3"]["inputs"] == {"seed": 9, "steps": 30, "cfg": 2.5, "add_noise": False}


def test_references_of_one_name_are_refused_before_anything_is_made(references, tmp_path, caplog):
    painted(references, "more/cat.jpg")
    with serving(Script()) as script:
        run = ["generate", "--workflow", str(workflow(tmp_path)), "--references", str(references)]
        assert cli.main([*run, "--out", str(tmp_path / "made"), "--server", script.address]) == 1
        assert "several references are called cat" in caplog.text
        assert script.asked == []
