"""k pictures from every reference with a workflow, resumable, spread over servers and processes."""

from __future__ import annotations

import logging
import os
import queue
import tempfile
import threading
import zlib
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
# pictures of one reference
MOST_OF_ONE = 10_000
LAST_SEED = 2**64 - 1
# failing references, after which a generator is no longer used
IN_A_ROW = 3


class Generator(Protocol):
    """What runs graphs: a server, or ComfyUI's code in this process."""

    @property
    def address(self) -> str:
        """Its name in messages."""
        ...

    def upload(self, picture: Path, name: str) -> str: ...
    def pictures(self, graph: Graph) -> list[bytes]: ...


@dataclass(frozen=True)
class GenerationJob:
    """One picture to make."""

    reference: Path
    caption: str
    seed: int
    path: Path


@dataclass
class Outcome:
    """made: number of new pictures. failed: those that could not be made, with the reason. untried: number of those that
    were left when no generator was usable any more."""

    made: int = 0
    failed: list[tuple[GenerationJob, str]] = field(default_factory=list)
    untried: int = 0

    @property
    def missing(self) -> int:
        return len(self.failed) + self.untried


@dataclass(frozen=True)
class Seeds:
    """count: pictures of each reference. first: seed of the first of them; the others count on. each: 'same' for every
    reference, or 'differ', as in the paper, where each begins elsewhere, by its name."""

    count: int = 4
    first: int = 0
    each: str = "same"

    def of(self, name: str, number: int) -> int:
        """The seed of a reference's picture 0, 1, ..."""
        offset = zlib.crc32(name.encode("utf-8", "surrogatepass")) << 20 if self.each == "differ" else 0
        return (self.first + number + offset) % (LAST_SEED + 1)


def plan_jobs(
    references: Sequence[Path], captions: Mapping[str, Sequence[str]], seeds: Seeds, folder: Path
) -> list[GenerationJob]:
    """Pictures '<reference>_0.png', ... of every reference.

    Raises SettingError for a count or seed out of range, or for two references with one name.
    """
    count, seed = seeds.count, seeds.first
    if not 1 <= count <= MOST_OF_ONE:
        raise SettingError(f"count is {shown(count)}; it must be from 1 to {MOST_OF_ONE}.")
    if not 0 <= seed <= LAST_SEED - count + 1:
        raise SettingError(f"seed is {shown(seed)}; it must be from 0 to {LAST_SEED - count + 1}.")
    require_own_names(references)
    return [
        GenerationJob(
            path,
            next(iter(captions.get(path.stem, ())), ""),
            seeds.of(path.stem, n),
            folder / f"{path.stem}_{n}.png",
        )
        for path in references
        for n in range(count)
    ]


def processes() -> tuple[int, int]:
    """(number of this process, how many) that `accelerate launch` or torchrun started."""
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


def barrier() -> bool:
    """Wait for the other processes. Returns whether this is the first of them."""
    if processes()[1] > 1:
        load("accelerate").PartialState().wait_for_everyone()
    return processes()[0] == 0


def shard(todo: Sequence[GenerationJob]) -> list[GenerationJob]:
    """This process's jobs, all of a reference together."""
    rank, world = processes()
    stems = list(dict.fromkeys(job.reference for job in todo))
    mine = set(stems[rank::world])
    return [job for job in todo if job.reference in mine]


def run(flow: Workflow, todo: Sequence[GenerationJob], generators: Sequence[Generator]) -> Outcome:
    """Make the pictures that do not exist yet; each generator takes the next job when it is free.

    A picture that fails is reported, and the others are made; the next run tries it again. A generator that fails for
    several references in a row is no longer used. Raises SettingError where captions are missing, WriteError where the
    pictures cannot be written.
    """
    if TEXT in flow.marks and not all(job.caption for job in todo):
        bare = next(shown(job.reference.name) for job in todo if not job.caption)
        raise SettingError(f"{flow.name} uses {TEXT}, but {bare} has no caption. Give --captions.")
    _require_paths(todo)
    left = [job for job in todo if not _is_made(job.path)]
    pending = _Queue(flow, len(todo), left)
    with pending.bar:
        workers = [
            threading.Thread(target=pending.work, args=(generator,), daemon=True) for generator in generators
        ]
        for worker in workers:
            worker.start()
        for worker in workers:
            # with a time-out, so that Ctrl-C interrupts it
            while worker.is_alive():
                worker.join(0.2)
    if pending.stopped:
        raise pending.stopped[0]
    outcome = pending.outcome
    outcome.untried = len(left) - outcome.made - len(outcome.failed)
    return outcome


def require_writable(folder: Path) -> None:
    """Create the folder. Raises WriteError, before anything is computed for it, where no file can be written."""
    make_folder(folder)
    with explaining(folder), tempfile.TemporaryFile(dir=folder):
        pass


def _require_paths(todo: Sequence[GenerationJob]) -> None:
    for folder in dict.fromkeys(job.path.parent for job in todo):
        require_writable(folder)
    for job in todo:
        with explaining(job.path), suppress(FileNotFoundError):
            os.lstat(job.path)


def _is_made(path: Path) -> bool:
    """Whether an earlier run made it, whole. A damaged picture is made again."""
    if not path.is_file():
        return False
    try:
        require_whole(path)
    except ImagePromptError as error:
        log.warning("%s is made again: %s", shown(path.name), error)
        return False
    return True


class _Queue:
    """The jobs that are left, and the outcome of the others; shared by the threads of all generators."""

    def __init__(self, flow: Workflow, total: int, left: Sequence[GenerationJob]):
        self.flow, self.outcome = flow, Outcome()
        self.bar = tqdm(total=total, initial=total - len(left), unit="picture", desc=flow.name)
        self.stopped: list[BaseException] = []
        self._waiting: queue.SimpleQueue[GenerationJob] = queue.SimpleQueue()
        self._lock = threading.Lock()
        for job in left:
            self._waiting.put(job)

    def work(self, generator: Generator) -> None:
        """Run jobs until none is left, or this generator fails for several references in a row."""
        uploaded: dict[Path, str] = {}
        in_a_row: set[Path] = set()
        while not self.stopped and len(in_a_row) < IN_A_ROW:
            try:
                job = self._waiting.get_nowait()
            except queue.Empty:
                return
            try:
                _make(self.flow, generator, job, uploaded)
            # all others would fail too
            except WriteError as error:
                self.stopped.append(error)
            except ImagePromptError as error:
                in_a_row.add(job.reference)
                self._failed(job, str(error))
            # raised again by the thread that waits
            except Exception as error:
                self.stopped.append(error)
            else:
                in_a_row.clear()
                self._made()
        if len(in_a_row) == IN_A_ROW:
            log.error("%d references failed in a row; that generator is no longer used.", IN_A_ROW)

    def _made(self) -> None:
        with self._lock:
            self.outcome.made += 1
            self.bar.update()

    def _failed(self, job: GenerationJob, why: str) -> None:
        with self._lock:
            self.outcome.failed.append((job, why))
        log.error("%s was not made: %s", shown(job.path.name), why)


def _make(flow: Workflow, generator: Generator, job: GenerationJob, uploaded: dict[Path, str]) -> None:
    """Make one picture. uploaded: the last reference's name at the generator."""
    if IMAGE in flow.marks and job.reference not in uploaded:
        uploaded.clear()
        uploaded[job.reference] = generator.upload(job.reference, job.reference.name)
    made = generator.pictures(flow.filled(uploaded.get(job.reference, ""), job.caption, job.seed))
    if len(made) != 1:
        raise SettingError(
            f"{flow.name} saved {len(made)} pictures for one seed; it must save one: batch size 1, one SaveImage."
        )
    try:
        picture = picture_of(made[0])
    except ImagePromptError as error:
        raise SettingError(f"what {generator.address} sent for it cannot be used: {error}") from error
    with replacing(job.path) as part:
        picture.save(part, "PNG")
