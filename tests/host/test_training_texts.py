"""Captions, lists and config files as editors, tables and scripts of any system write them."""

import codecs
import io
import json
import tarfile

import pytest
from image_prompt.evaluation.matching import read_captions
from image_prompt.ipadapter_core.errors import SettingError
from image_prompt.training.job import parse
from image_prompt.training.pictures import find_pictures
from PIL import Image

MARKS = {
    "plain": lambda text: text.encode(),
    "UTF-8 with a mark": lambda text: codecs.BOM_UTF8 + text.encode(),
    "UTF-16 of Windows": lambda text: text.encode("utf-16"),
}
CAPTION = "a café, naïve"


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "sub").mkdir()
    for name in ("a.png", "sub/b.png"):
        Image.new("RGB", (64, 64), "red").save(tmp_path / name)
    return tmp_path


def read(path):
    return [(record.name, record.caption) for record in find_pictures(path).records]


@pytest.mark.parametrize("mark", MARKS)
def test_a_caption_beside_its_picture(folder, mark):
    (folder / "a.txt").write_bytes(MARKS[mark](f"{CAPTION}\r\n"))
    assert read(folder)[0] == ("a.png", CAPTION)


@pytest.mark.parametrize("mark", MARKS)
@pytest.mark.parametrize("kind", ["jsonl", "json", "csv"])
def test_a_list(folder, mark, kind):
    rows = [{"image_file": "a.png", "text": CAPTION}, {"image_file": "sub/b.png", "text": "two\nlines"}]
    text = {
        "jsonl": "\r\n".join(json.dumps(row, ensure_ascii=False) for row in rows),
        "json": json.dumps(rows, ensure_ascii=False),
        "csv": f'image_file,text\r\na.png,"{CAPTION}"\r\nsub/b.png,"two\nlines"\r\n',
    }[kind]
    path = folder / f"list.{kind}"
    path.write_bytes(MARKS[mark](text))
    assert read(path) == [("a.png", CAPTION), ("sub/b.png", "two\nlines")]
    assert read_captions(path) == {"a": (CAPTION,), "b": ("two\nlines",)}


@pytest.mark.parametrize("mark", MARKS)
@pytest.mark.parametrize("kind", ["txt", "json"])
def test_a_shard(folder, mark, kind):
    text = CAPTION if kind == "txt" else json.dumps({"caption": CAPTION}, ensure_ascii=False)
    with tarfile.open(folder / "shard.tar", "w") as shard:
        for name, content in (
            ("x.png", (folder / "a.png").read_bytes()),
            (f"x.{kind}", MARKS[mark](text)),
        ):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            shard.addfile(info, io.BytesIO(content))
    assert read(folder / "shard.tar") == [("shard.tar:x", CAPTION)]


@pytest.mark.parametrize("content", [b"{", b"[1]", b"\xff\xfe\x00", b"[" * 100_000])
def test_a_shards_broken_caption_leaves_its_picture_out_by_name(folder, content):
    with tarfile.open(folder / "shard.tar", "w") as shard:
        for name, data in (
            ("x.png", (folder / "a.png").read_bytes()),
            ("x.json", content),
            ("y.png", (folder / "a.png").read_bytes()),
        ):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            shard.addfile(info, io.BytesIO(data))
    found = find_pictures(folder / "shard.tar")
    assert [record.name for record in found.records] == ["shard.tar:y"]
    assert "its caption cannot be read" in found.left_out["shard.tar:x"]


BY_NAME = {
    "captions": {"a.png": "one", "sub/b.png": "two"},
    "several captions": {"a.png": ["one", "more"], "sub/b.png": ["two"]},
    "objects, as kohya's scripts write": {"a.png": {"caption": "one"}, "sub/b.png": {"caption": "two"}},
    "names without suffix": {"a": {"caption": "one"}, "sub/b": {"caption": "two"}},
}


@pytest.mark.parametrize("kind", BY_NAME)
def test_a_dictionary_by_file_name(folder, kind):
    path = folder / "list.json"
    path.write_text(json.dumps(BY_NAME[kind]))
    found = find_pictures(path)
    assert [record.caption for record in found.records] == ["one", "two"]
    assert {stem: texts[0] for stem, texts in read_captions(path).items()} == {"a": "one", "b": "two"}


@pytest.mark.parametrize("kind", ["json", "jsonl"])
def test_a_list_of_names(folder, kind):
    path = folder / f"list.{kind}"
    names = ["a.png", "sub/b.png"]
    path.write_text(json.dumps(names) if kind == "json" else "\n".join(map(json.dumps, names)))
    assert read(path) == [("a.png", ""), ("sub/b.png", "")]


@pytest.mark.parametrize("kind", ["json", "by name", "csv"])
def test_names_as_windows_writes_them(folder, kind):
    names = {".\\a.png": "one", "sub\\b.png": "two"}
    path = folder / ("list.csv" if kind == "csv" else "list.json")
    if kind == "csv":
        path.write_text("file_name,text\n" + "".join(f"{name},{text}\n" for name, text in names.items()))
    else:
        rows = [{"file_name": name, "text": text} for name, text in names.items()]
        path.write_text(json.dumps(names if kind == "by name" else rows))
    assert [caption for _, caption in read(path)] == ["one", "two"]
    assert read_captions(path) == {"a": ("one",), "b": ("two",)}


def test_a_table_with_spaces_and_capitals_in_its_head(folder):
    (folder / "list.CSV").write_text("File_Name, Caption\na.png,one\n")
    assert read(folder / "list.CSV") == [("a.png", "one")]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("3", "holds int, and no list of pictures"),
        ('"a.png"', "holds str"),
        ("null", "holds NoneType"),
        ("[3]", "entry 1 of list.json is 3"),
        ('[["a.png", "one"]]', "entry 1 of list.json is"),
        ('{"images": [], "annotations": []}', "holds dict"),
        ('[{"text": "x"}]', "names no picture; it has text"),
        ("[" * 100_000, "cannot be read as .json"),
        ("[}", "cannot be read as .json"),
    ],
)
def test_what_is_no_list_of_pictures_is_told(folder, content, told):
    (folder / "list.json").write_text(content)
    with pytest.raises(SettingError, match=told):
        find_pictures(folder / "list.json")


def test_bytes_that_are_no_text_are_told(folder, caplog):
    (folder / "list.csv").write_bytes(b"file_name,text\na.png,caf\xe9\n")
    with pytest.raises(SettingError, match="save it as UTF-8"):
        find_pictures(folder / "list.csv")
    (folder / "a.txt").write_bytes(b"caf\xe9")
    assert read(folder)[0] == ("a.png", "caf�")
    assert "a.txt is not UTF-8" in caplog.text


@pytest.mark.parametrize("name", ["a\0.png", "a\ud800.png", "x" * 5000 + ".png"])
def test_names_that_no_file_can_have_are_left_out(folder, name):
    (folder / "list.json").write_text(json.dumps([name, "a.png"]))
    found = find_pictures(folder / "list.json")
    assert [record.name for record in found.records] == ["a.png"]
    assert len(found.left_out) == 1
    assert found.summary.encode()


def test_a_caption_with_half_a_character_is_left_out(folder):
    (folder / "list.json").write_text('[{"file": "a.png", "text": "x\\ud800y"}, {"file": "sub/b.png"}]')
    found = find_pictures(folder / "list.json")
    assert list(found.left_out) == ["a.png"]


@pytest.mark.parametrize("mark", MARKS)
def test_a_config_file(tmp_path, mark):
    path = tmp_path / "train.yaml"
    path.write_bytes(MARKS[mark]("checkpoint: é\r\nclip-vision: b\r\ndata: c\r\nprecision: no\r\n"))
    _, job, config = parse(["--config", str(path)])
    assert job.checkpoint == "é"
    assert config.precision.value == "no"


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00", b"[" * 5000, b"a: \xe9"])
def test_a_config_file_that_is_none(tmp_path, content):
    (tmp_path / "train.yaml").write_bytes(content)
    with pytest.raises(SettingError):
        parse(["--config", str(tmp_path / "train.yaml")])
