"""The command: generate pictures with workflows, score folders, print the paper's table 1."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..evaluation.clip import Clip
from ..evaluation.matching import groups, pictures_in, read_captions
from ..evaluation.report import as_markdown, table_1, write
from ..evaluation.running import Generator, meet, run, share, wishes
from ..evaluation.scoring import Embeddings, Result, evaluate
from ..evaluation.workflow import Workflow, read_workflow
from ..ipadapter_core.checkpoint import read_shapes
from ..ipadapter_core.errors import ImagePromptError, RecipeError
from ..ipadapter_core.metrics.published import parameter_count
from .arguments import parse

log = logging.getLogger("image_prompt.evaluation")


def main(arguments: Sequence[str] | None = None) -> int:
    """0, or 1 after an error that the user can mend, told in a sentence."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        args = parse(arguments)
        {"generate": generate, "score": score, "table": table}[args.command](args)
    except (ImagePromptError, ImportError) as error:
        log.error("%s", error)
        return 1
    return 0


def generate(args: argparse.Namespace) -> None:
    flow = read_workflow(args.workflow, _values(args.set))
    _make(args, [flow], {flow.name: args.out})


def score(args: argparse.Namespace) -> None:
    _score(args, {name: Path(folder) for name, folder in _pairs(args.folders).items()})


def table(args: argparse.Namespace) -> None:
    """Methods whose models are not there are told and left out."""
    paths = [
        file for path in args.workflows for file in (sorted(path.glob("*.json")) if path.is_dir() else [path])
    ]
    flows = [read_workflow(path, _values(args.set)) for path in paths]
    folders = {flow.name: args.out / "pictures" / flow.name for flow in flows}
    missing = _make(args, flows, folders, go_on=True)
    if not meet():  # only the first of several processes scores
        return
    done = {name: folder for name, folder in folders.items() if name not in missing}
    _score(args, done | {name: Path(folder) for name, folder in _pairs(args.folder).items()})
    for name, why in missing.items():
        log.info("left out: %s (%s)", name, why)


def _make(
    args: argparse.Namespace, flows: Sequence[Workflow], folders: dict[str, Path], go_on: bool = False
) -> dict[str, str]:
    """Make each workflow's pictures. go_on: past a workflow that cannot run; returned is which, and why."""
    references = pictures_in(args.references)[: args.first]
    captions = read_captions(args.captions) if args.captions else {}
    generators, missing = _generators(args), {}
    for flow in flows:
        todo = share(wishes(references, captions, args.count, args.seed, folders[flow.name]))
        try:
            made = run(flow, todo, generators)
        except RecipeError as error:
            if not go_on:
                raise
            missing[flow.name] = str(error)
        else:
            log.info("%s: %d pictures made, %d were there", flow.name, made, len(todo) - made)
    return missing


def _generators(args: argparse.Namespace) -> list[Generator]:
    if args.server:
        from ..evaluation.servers import Server

        return [Server(address) for address in args.server]
    from ..evaluation.in_process import InProcess

    return [InProcess(args.comfyui, args.cpu)]


def _score(args: argparse.Namespace, folders: dict[str, Path]) -> None:
    counts = {name: _parameters(value) for name, value in _pairs(args.parameters).items()}
    sets = {name: groups(args.references, folder, args.captions) for name, folder in folders.items()}
    if not sets:
        raise RecipeError("there is nothing to score: no workflow could run, and no folder was given.")
    embeddings = Embeddings(Clip(args.clip, args.device), args.prefix)
    results: list[Result] = []
    for name, found in sets.items():
        results.append(evaluate(name, found, embeddings, args.which, counts.get(name)))
    write(results, args.out)
    sys.stdout.write(f"{as_markdown(results)}\n{table_1(results)}\nwrote {args.out}\n")


def _parameters(value: str) -> int:
    """Of an adapter file, or a number as it is."""
    return int(value) if value.isdigit() else parameter_count(read_shapes(value))


def _values(given: Sequence[str]) -> dict[str, Any]:
    """'node.input=value', numbers as numbers."""
    return {place: _number(value) for place, value in _pairs(given).items()}


def _number(text: str) -> Any:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return text


def _pairs(given: Sequence[str]) -> dict[str, str]:
    """'name=value' as it comes from the command line. A folder alone is called by its name."""
    return {
        (name if found else Path(each).name): (value if found else each)
        for each in given
        for name, found, value in [each.partition("=")]
    }


if __name__ == "__main__":
    sys.exit(main())
