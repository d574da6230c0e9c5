"""Table 1 by one command: every shipped workflow, by a server that paints, and folders named as the paper's systems."""

import threading
from http.server import ThreadingHTTPServer

import pytest
from helpers.comfyui_server import ComfyUI
from helpers.evaluation import captioned, saved
from image_prompt.evaluation import command as cli
from image_prompt.evaluation.arguments import SHIPPED
from image_prompt.ipadapter_core.metrics.published import TABLE_1
from support import tiny_clip


@pytest.fixture
def server():
    made = ThreadingHTTPServer(("127.0.0.1", 0), ComfyUI)
    made.graphs = []
    threading.Thread(target=made.serve_forever, daemon=True).start()
    yield made
    made.shutdown()


def test_table_1_of_all_that_is_shipped_and_folders_named_as_the_papers_systems(tmp_path, server, capsys):
    """What was measured stands behind the paper's row of the same name, and nothing buries the table."""
    references, clip = captioned(tmp_path / "references"), str(tiny_clip.write(tmp_path / "tiny clip"))
    shipped = [path.stem for path in sorted(SHIPPED.glob("*.json"), key=lambda path: path.stem)]
    others = [each.name for each in TABLE_1 if each.name not in shipped]
    run = ["table", "--references", str(references), "--out", str(tmp_path / "out"), "--clip", clip]
    run += ["--count", "2", "--server", f"127.0.0.1:{server.server_port}"]
    for name in (*others, "Mine"):
        made = saved(
            tmp_path / name, *(f"{each}_{n}.png" for each in ("cat", "dog_1", "owl") for n in (0, 1))
        )
        run += ["--folder", f"{name}={made}"]
    assert cli.main([*run, "--parameters", "Mine=22319616"]) == 0
    told = capsys.readouterr().out
    table = [[cell.strip() for cell in line.strip("|").split("|")] for line in table_lines(told)]
    names = [row[0] for row in table]
    doubled = [name for each in TABLE_1 for name in (each.name, each.name)]
    assert names == [*doubled, *(name for name in shipped if name not in doubled), "Mine"]
    measured = [row for row in table if row[1].startswith("here")]
    assert {row[1] for row in measured} == {"here, 6 pictures of 3"}
    assert [row[2] for row in table if row[0] == "Mine"] == ["22 M"]
    assert all(0 <= float(row[3]) <= 2.5 and -1 <= float(row[4]) <= 1 for row in measured)
    pairs = len(measured) * (len(measured) - 1)
    assert f"{pairs} lines with their intervals: in scores.md" in told
    assert told.count("\n") < 60
    out = tmp_path / "out"
    assert table_lines((out / "table-1.md").read_text()) == table_lines(told)
    assert (out / "scores.md").read_text().count("| CLIP-I ") == 1 + pairs // 2
    assert len([*out.glob("best-and-worst *.png")]) == len(measured)


def table_lines(text):
    """The rows of table 1."""
    head, rows = "trained as", text.splitlines()
    start = next(number for number, line in enumerate(rows) if head in line) + 2
    return [line for line in rows[start:] if line.startswith("|")]
