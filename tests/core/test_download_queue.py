"""Downloads that the page asks for: known files only, one after the other, each with how it ended."""

import threading
from pathlib import Path

from image_prompt.doctor.queue import Downloads
from image_prompt.ipadapter_core.errors import RemoteError
from image_prompt.model_files.released import KnownFile

PLUS, BASE = "ip-adapter-plus_sd15.safetensors", "ip-adapter_sd15.safetensors"


class Fetch:
    """Stands for a download: waits for a sign, then ends as it is told for the file."""

    def __init__(self, fails: dict[str, Exception] | None = None):
        self.asked: list[tuple[str, Path]] = []
        self.begun, self.go_on, self.fails = threading.Event(), threading.Event(), fails or {}

    def __call__(self, known: KnownFile, models: Path, progress):
        self.asked.append((known.name, models))
        progress(5, 10)
        self.begun.set()
        self.go_on.wait(60)
        if known.name in self.fails:
            raise self.fails[known.name]
        progress(10, 10)


def downloads(fetch: Fetch, models: Path = Path("models")) -> Downloads:
    return Downloads(lambda: models, fetch)


def test_files_come_one_after_the_other_with_how_far_they_are(tmp_path: Path):
    fetch = Fetch()
    queue = downloads(fetch, tmp_path)
    queue.start([PLUS, BASE])
    queue.start([PLUS])  # a second click
    fetch.begun.wait(60)
    assert queue.states()[PLUS] == {"state": "loading", "done": 5, "total": 10, "text": ""}
    assert queue.states()[BASE]["state"] == "waiting"
    fetch.go_on.set()
    queue.join()
    assert [queue.states()[name]["state"] for name in (PLUS, BASE)] == ["ready", "ready"]
    assert fetch.asked == [(PLUS, tmp_path), (BASE, tmp_path)]


def test_what_fails_says_why_lets_others_go_on_and_can_be_tried_again():
    fetch = Fetch({PLUS: RemoteError("no network."), BASE: ValueError("odd")})
    fetch.go_on.set()
    queue = downloads(fetch)
    queue.start([PLUS, BASE])
    queue.join()
    assert queue.states()[PLUS] == {"state": "failed", "done": 5, "total": 10, "text": "no network."}
    assert queue.states()[BASE]["text"] == f"{BASE} could not be downloaded (odd)."
    fetch.fails.clear()
    queue.start([PLUS])
    queue.join()
    assert queue.states()[PLUS]["state"] == "ready"


def test_only_names_of_released_files_start_anything():
    fetch = Fetch()
    queue = downloads(fetch)
    odd = ["../../etc/passwd", "https://example.org/x.safetensors", "", 3, None, PLUS.upper(), f"{PLUS}/.."]
    queue.start(odd)
    queue.join()
    assert fetch.asked == []
    assert {state["state"] for state in queue.states().values()} == {"failed"}
    assert all("is no released file" in state["text"] for state in queue.states().values())
