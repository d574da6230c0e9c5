"""Whatever the bytes of a file are: this package's own errors, within little memory and time."""

import resource
import sys
from pathlib import Path

import pytest
from core.hostile import SINGLE, mutated, write
from core.outlines import write_outline
from helpers.reads import ends
from image_prompt.ipadapter_core.adapter import Adapter
from image_prompt.ipadapter_core.checkpoint import read_checkpoint, read_shapes
from image_prompt.ipadapter_core.errors import CheckpointError
from image_prompt.model_files.index import Index
from image_prompt.model_files.inspection import FileKind, inspect_file
from support.layouts import LAYOUTS

BYTES = 10**9


def largest() -> int:
    """Bytes that this process had at once, so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def attempt(path: Path) -> str:
    """Everything that is done to a file. The message, '' where it is whole; any other error fails the test."""
    found = inspect_file(path)
    assert len(found.text) < 1000
    found.text.encode("utf-8")
    message = ""
    for read in (read_shapes, _load):
        try:
            with ends():
                read(path)
        except CheckpointError as error:
            message = str(error)
            message.encode("utf-8")
            assert "\n" not in message
            assert len(message) < 800
    return message


def _load(path: Path) -> None:
    file = read_checkpoint(path)
    Adapter(file).load_checkpoint(file)


def within_bounds(path: Path) -> str:
    before = largest()
    message = attempt(path)
    assert largest() - before < BYTES
    return message


@pytest.mark.parametrize("case", SINGLE)
def test_a_file_made_to_harm_is_refused_in_a_sentence(case: str, tmp_path: Path):
    path = write(tmp_path / "adapter", *SINGLE[case])
    message = within_bounds(path)
    assert path.name in message
    assert message.endswith(".")


def fuzz(folder: Path, seeds: range) -> int:
    """How many were refused."""
    refused = 0
    for seed in seeds:
        suffix, content = mutated(seed)
        path = write(folder / f"seed-{seed}", suffix, content)
        refused += bool(within_bounds(path))
        path.unlink()
    return refused


def test_a_few_hundred_mutated_files(tmp_path: Path):
    assert fuzz(tmp_path, range(150)) > 75


@pytest.mark.slow
def test_three_thousand_mutated_files(tmp_path: Path):
    assert fuzz(tmp_path, range(1000, 4000)) > 1500


def test_one_bad_file_disables_nothing(tmp_path: Path):
    """A folder of them beside a whole one: the scan finds that, and says of each what is wrong."""
    for n, (suffix, content) in enumerate(SINGLE.values()):
        write(tmp_path / f"bad {n}", suffix, content)
    for seed in range(5000, 5040):
        write(tmp_path / f"mutated {seed}", *mutated(seed))
    write_outline(tmp_path / "good.safetensors", LAYOUTS[0].table)
    store = tmp_path / "user" / "index.json"
    for _ in range(2):  # read, and remembered
        found = {entry.name: entry.info for entry in Index(store).scan({"ipadapter": [tmp_path]})}
        assert found["good.safetensors"].kind is FileKind.ADAPTER
        assert len(found) == len(SINGLE) + 41
