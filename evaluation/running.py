"""k pictures from every reference with a workflow, resumable, spread over servers and processes."""

from __future__ import annotations

import logging
import os
import queue
import tempfile
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from tqdm import tqdm

from ..ipadapter_core.errors import ImagePromptError, SettingError, WriteError, shown
from ..ipadapter_core.files.writing import explaining, make_folder, replacing
from ..ipadapter_core.packages import load
from .matching import require_own_names
from .reading import picture_of, require_whole
from .workflow import IMAGE, TEXT, Graph, Workflow

log = logging.getLogger("image_prompt.evaluation")
MOST_OF_ONE = 10_000  # pictures of one reference
LAST_SEED = 2**64 - 1
IN_A_ROW = 3  # failing references, after which a generator is given up


class Generator(Protocol):
    """What runs graphs: a server, or ComfyUI's code in this process."""

    address: str  # as sentences name it

    def upload(self, picture: Path, name: str) -> str: ...
    def pictures(self, graph: Graph) -> list[bytes]: ...


@dataclass(frozen=True)
class Wish:
    """One picture to make."""

    reference: Path
    caption: str
    seed: int
    path: Path


@dataclass
class Outcome:
    """made: how many pictures are new. failed: what could not be made, with a sentence why. untried: how many were left
    when every generator had been given up."""

    made: int = 0
    failed: list[tuple[Wish, str]] = field(default_factory=list)
    untried: int = 0

    @property
    def missing(self) -> int:
        return len(self.failed) + self.untried


def wishes(
    references: Sequence[Path], captions: Mapping[str, Sequence[str]], count: int, seed: int, folder: Path
) -> list[Wish]:
    """Pictures '<reference>_0.png', ... of every reference, with seeds seed, seed + 1, ...; the same for each of them."""
    if not 1 <= count <= MOST_OF_ONE:
        raise SettingError(f"count is {shown(count)}; it must be from 1 to {MOST_OF_ONE}.")
    if not 0 <= seed <= LAST_SEED - count + 1:
        raise SettingError(f"seed is {shown(seed)}; it must be from 0 to {LAST_SEED - count + 1}.")
    require_own_names(references)
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
        load("accelerate").PartialState().wait_for_everyone()
    return processes()[0] == 0


def share(todo: Sequence[Wish]) -> list[Wish]:
    """This process's part of them, in whole references."""
    rank, world = processes()
    stems = list(dict.fromkeys(wish.reference for wish in todo))
    mine = set(stems[rank::world])
    return [wish for wish in todo if wish.reference in mine]


def run(flow: Workflow, todo: Sequence[Wish], generators: Sequence[Generator]) -> Outcome:
    """Make what is not there yet; each generator takes the next wish when it is free.

    A picture that fails is reported, and the others are made; the next run makes it again. A generator that fails for
    several references in a row is given up. Raises WriteError where the pictures cannot be written.
    """
    if TEXT in flow.marks and not all(wish.caption for wish in todo):
        bare = next(shown(wish.reference.name) for wish in todo if not wish.caption)
        raise SettingError(f"{flow.name} has a place for {TEXT}, but {bare} has no caption. Give --captions.")
    _require_places(todo)
    left = [wish for wish in todo if not _is_there(wish.path)]
    job = _Job(flow, len(todo), left)
    with job.bar:
        workers = [
            threading.Thread(target=job.work, args=(generator,), daemon=True) for generator in generators
        ]
        for worker in workers:
            worker.start()
        for worker in workers:
            while worker.is_alive():
                worker.join(0.2)  # so that Ctrl-C is heard
    if job.stopped:
        raise job.stopped[0]
    job.outcome.untried = len(left) - job.outcome.made - len(job.outcome.failed)
    return job.outcome


def require_writable(folder: Path) -> None:
    """Make the folder. Raises WriteError, before anything is made for it, where it takes no files."""
    make_folder(folder)
    with explaining(folder), tempfile.TemporaryFile(dir=folder):
        pass


def _require_places(todo: Sequence[Wish]) -> None:
    for folder in dict.fromkeys(wish.path.parent for wish in todo):
        require_writable(folder)
    for wish in todo:
        with explaining(wish.path), suppress(FileNotFoundError):
            os.lstat(wish.path)


def _is_there(path: Path) -> bool:
    """Whole, from an earlier run. What is damaged is made again."""
    if not path.is_file():
        return False
    try:
        require_whole(path)
    except ImagePromptError as error:
        log.warning("%s is made again: %s", shown(path.name), error)
        return False
    return True


class _Job:
    """The wishes that are left, and what became of the others; several threads work on one."""

    def __init__(self, flow: Workflow, total: int, left: Sequence[Wish]):
        self.flow, self.outcome = flow, Outcome()
        self.bar = tqdm(total=total, initial=total - len(left), unit="picture", desc=flow.name)
        self.stopped: list[BaseException] = []
        self._waiting: queue.SimpleQueue[Wish] = queue.SimpleQueue()
        self._lock = threading.Lock()
        for wish in left:
            self._waiting.put(wish)

    def work(self, generator: Generator) -> None:
        """Until nothing waits, or this generator fails for several references in a row."""
        uploaded: dict[Path, str] = {}
        in_a_row: set[Path] = set()
        while not self.stopped and len(in_a_row) < IN_A_ROW:
            try:
                wish = self._waiting.get_nowait()
            except queue.Empty:
                return
            try:
                _make(self.flow, generator, wish, uploaded)
            except WriteError as error:  # so would all others
                self.stopped.append(error)
            except ImagePromptError as error:
                in_a_row.add(wish.reference)
                self._failed(wish, str(error))
            except Exception as error:  # raised again by the thread that waits
                self.stopped.append(error)
            else:
                in_a_row.clear()
                self._made()
        if len(in_a_row) == IN_A_ROW:
            log.error("%d references failed one after the other; no more are given there.", IN_A_ROW)

    def _made(self) -> None:
        with self._lock:
            self.outcome.made += 1
            self.bar.update()

    def _failed(self, wish: Wish, why: str) -> None:
        with self._lock:
            self.outcome.failed.append((wish, why))
        log.error("%s was not made: %s", shown(wish.path.name), why)


def _make(flow: Workflow, generator: Generator, wish: Wish, uploaded: dict[Path, str]) -> None:
    """uploaded: the last reference's name at the generator."""
    if IMAGE in flow.marks and wish.reference not in uploaded:
        uploaded.clear()
        uploaded[wish.reference] = generator.upload(wish.reference, wish.reference.name)
    made = generator.pictures(flow.filled(uploaded.get(wish.reference, ""), wish.caption, wish.seed))
    if len(made) != 1:
        raise SettingError(
            f"{flow.name} saved {len(made)} pictures for one seed; it must save one: batch size 1, one SaveImage."
        )
    try:
        picture = picture_of(made[0])
    except ImagePromptError as error:
        raise SettingError(f"what {generator.address} sent for it cannot be used: {error}") from error
    with replacing(wish.path) as part:
        picture.save(part, "PNG")
