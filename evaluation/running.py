"""k pictures from every reference with a workflow, resumable, spread over servers and processes."""

from __future__ import annotations

import io
import logging
import os
import queue
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from PIL import Image
from tqdm import tqdm

from ..common.extras import extra
from ..ipadapter_core.errors import RecipeError
from .workflow import IMAGE, TEXT, Graph, Workflow

log = logging.getLogger(__name__)


class Generator(Protocol):
    """What runs graphs: a server, or ComfyUI's code in this process."""

    def upload(self, picture: Path, name: str) -> str: ...
    def pictures(self, graph: Graph) -> list[bytes]: ...


@dataclass(frozen=True)
class Wish:
    """One picture to make."""

    reference: Path
    caption: str
    seed: int
    path: Path


def wishes(
    references: Sequence[Path], captions: Mapping[str, Sequence[str]], count: int, seed: int, folder: Path
) -> list[Wish]:
    """Pictures '<reference>_0.png', ... of every reference, with seeds seed, seed + 1, ...; the same for each of them."""
    if count < 1:
        raise RecipeError(f"count is {count}; it must be 1 or more.")
    return [
        Wish(path, next(iter(captions.get(path.stem, ())), ""), seed + n, folder / f"{path.stem}_{n}.png")
        for path in references
        for n in range(count)
    ]


def processes() -> tuple[int, int]:
    """(number of this process, how many) that `accelerate launch` or torchrun started."""
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


def meet() -> bool:
    """Wait for the other processes. Whether this is the first of them."""
    if processes()[1] > 1:
        extra("accelerate").PartialState().wait_for_everyone()
    return processes()[0] == 0


def share(todo: Sequence[Wish]) -> list[Wish]:
    """This process's part of them, in whole references."""
    rank, world = processes()
    stems = list(dict.fromkeys(wish.reference for wish in todo))
    mine = set(stems[rank::world])
    return [wish for wish in todo if wish.reference in mine]


def run(flow: Workflow, todo: Sequence[Wish], generators: Sequence[Generator]) -> int:
    """Make what is not there yet; each generator takes the next wish when it is free. Returns how many were made.

    The first error stops all; what was made stays, and the next run goes on there.
    """
    if TEXT in flow.marks and not all(wish.caption for wish in todo):
        bare = next(wish.reference.name for wish in todo if not wish.caption)
        raise RecipeError(f"{flow.name} has a place for {TEXT}, but {bare} has no caption. Give --captions.")
    left = [wish for wish in todo if not wish.path.is_file()]
    waiting: queue.SimpleQueue[Wish] = queue.SimpleQueue()
    for wish in left:
        waiting.put(wish)
    failed: list[BaseException] = []
    with tqdm(total=len(todo), initial=len(todo) - len(left), unit="picture", desc=flow.name) as bar:
        workers = [
            threading.Thread(target=_work, args=(flow, generator, waiting, failed, bar), daemon=True)
            for generator in generators
        ]
        for worker in workers:
            worker.start()
        for worker in workers:
            while worker.is_alive():
                worker.join(0.2)  # so that Ctrl-C is heard
    if failed:
        raise failed[0]
    return len(left)


def _work(
    flow: Workflow, generator: Generator, waiting: queue.SimpleQueue[Wish], failed: list, bar: tqdm
) -> None:
    uploaded: dict[Path, str] = {}
    while not failed:
        try:
            wish = waiting.get_nowait()
        except queue.Empty:
            return
        try:
            if IMAGE in flow.marks and wish.reference not in uploaded:
                uploaded = {wish.reference: generator.upload(wish.reference, wish.reference.name)}
            _make(flow, generator, wish, uploaded.get(wish.reference, ""))
        except Exception as error:  # told by the thread that waits
            failed.append(error)
            return
        bar.update()


def _make(flow: Workflow, generator: Generator, wish: Wish, image: str) -> None:
    made = generator.pictures(flow.filled(image, wish.caption, wish.seed))
    if len(made) != 1:
        raise RecipeError(
            f"{flow.name} saved {len(made)} pictures for one seed; it must save one: batch size 1, one SaveImage."
        )
    wish.path.parent.mkdir(parents=True, exist_ok=True)
    part = wish.path.with_suffix(".unfinished")
    Image.open(io.BytesIO(made[0])).convert("RGB").save(part, "PNG")
    part.replace(wish.path)
