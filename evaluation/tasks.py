"""What the command does: generate pictures with workflows, score folders, print the paper's table 1."""

from __future__ import annotations

import argparse
import logging
import math
import re
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ..ipadapter_core.checkpoint import read_shapes
from ..ipadapter_core.errors import ImagePromptError, RemoteError, SettingError, shown
from ..ipadapter_core.metrics.captions import Captions
from ..ipadapter_core.metrics.published import parameter_count
from ..ipadapter_core.pictures.lists import picture_files
from .about import About, seeds_of, write_made
from .clip import Clip
from .dino import Dino
from .extras import Extras
from .matching import match, pictures_in, read_captions
from .notes import notes
from .report import as_markdown, differences, shared_table, table_1, write
from .running import Generator, Outcome, Seeds, barrier, plan_jobs, processes, require_writable, run, shard
from .scoring import Embeddings, Result, evaluate
from .workflow import Workflow, read_workflow

log = logging.getLogger("image_prompt.evaluation")
SHOWN = 24  # lines of differences on the terminal, so that the table is not out of sight


def generate(args: argparse.Namespace) -> int:
    """Make the pictures of one workflow. Returns how many are missing."""
    flow = read_workflow(args.workflow, _values(args.set))
    (outcome,) = _make(args, [flow], {flow.name: args.out}).values()
    return outcome.missing


def score(args: argparse.Namespace) -> int:
    _score(args, _folders(args.folders))
    return 0


def table(args: argparse.Namespace) -> int:
    """Make and score all. Methods without any picture, for example where a model is missing, are reported and left out."""
    paths = [file for path in args.workflows for file in (_workflows(path) if path.is_dir() else [path])]
    flows = [read_workflow(path, _values(args.set)) for path in paths]
    folders = {flow.name: args.out / "pictures" / flow.name for flow in flows}
    if len(folders) < len(flows):
        raise SettingError("two workflows have the same name. Rename one of the files.")
    given = _folders(args.folder)
    if both := sorted(folders.keys() & given.keys()):
        raise SettingError(f"{shown(both[0])} is a workflow and a --folder. Give the folder another name.")
    outcomes = _make(args, flows, folders)
    # only the first of several processes scores
    if not barrier():
        return sum(outcome.missing for outcome in outcomes.values())
    left_out = {
        name: outcome
        for name, outcome in outcomes.items()
        if outcome.missing and not picture_files(folders[name])
    }
    _score(args, {name: folder for name, folder in folders.items() if name not in left_out} | given)
    for name, outcome in left_out.items():
        reasons = dict.fromkeys(why for _, why in outcome.failed)
        log.info("left out: %s (%s)", shown(name), " ".join(reasons))
    return sum(outcome.missing for name, outcome in outcomes.items() if name not in left_out)


def _workflows(folder: Path) -> list[Path]:
    """By name: a method stands before what its name begins."""
    return sorted(folder.glob("*.json"), key=lambda path: path.stem)


def _make(
    args: argparse.Namespace, flows: Sequence[Workflow], folders: dict[str, Path]
) -> dict[str, Outcome]:
    """Make each workflow's pictures, and report what could not be made."""
    references = pictures_in(args.references)[: args.first]
    captions = read_captions(args.captions) if args.captions else {}
    todos = {
        name: plan_jobs(references, captions, Seeds(args.count, args.seed, args.seeds), folder)
        for name, folder in folders.items()
    }
    generators = _generators(args)
    outcomes: dict[str, Outcome] = {}
    for flow in flows:
        todo = shard(todos[flow.name])
        outcomes[flow.name] = outcome = run(flow, todo, generators)
        if processes()[0] == 0:
            made = {"workflow": flow.name, "count": args.count, "seed": args.seed, "seeds": args.seeds}
            write_made(folders[flow.name], made)
        existing = len(todo) - outcome.made - outcome.missing
        log.info("%s: %d pictures made, %d existed", shown(flow.name), outcome.made, existing)
        if outcome.missing:
            log.error(
                "%s: %d pictures failed, %d were not tried",
                shown(flow.name),
                len(outcome.failed),
                outcome.untried,
            )
    return outcomes


def _generators(args: argparse.Namespace) -> list[Generator]:
    """Servers that do not answer are reported and left out, as long as one does."""
    if not math.isfinite(args.patience) or args.patience <= 0:
        raise SettingError(f"--patience is {args.patience}; it must be a number of seconds above 0.")
    if not args.server:
        from .in_process import InProcess

        return [InProcess(args.comfyui, args.cpu)]
    from .servers import Server

    found: list[Generator] = []
    failed: list[ImagePromptError] = []
    for address in dict.fromkeys(args.server):
        try:
            found.append(Server(address, args.patience))
        except RemoteError as error:
            failed.append(error)
            log.error("%s", error)
    if not found:
        raise failed[-1]
    return found


def _score(args: argparse.Namespace, folders: dict[str, Path]) -> None:
    counts = {name: _parameters(value) for name, value in _pairs(args.parameters).items()}
    if unknown := sorted(counts.keys() - folders.keys()) if args.command == "score" else []:
        raise SettingError(
            f"--parameters names {shown(unknown[0])}, which is no method here; there are {shown(', '.join(folders))}."
        )
    matchings = {
        name: match(args.references, folder, args.captions, args.first) for name, folder in folders.items()
    }
    if not matchings:
        raise SettingError("there is nothing to score: no workflow could run, and no folder was given.")
    require_writable(args.out)
    embeddings = _embeddings(args)
    extras = Extras(args.extras, embeddings.clip.device)
    results = [
        _measured(
            evaluate(name, matching.groups, embeddings, Captions(args.which), counts.get(name)),
            folders[name],
            extras,
        )
        for name, matching in matchings.items()
    ]
    dino = "" if embeddings.dino is None else embeddings.dino.identity
    about = About(embeddings.clip.identity, embeddings.prefix, args.which, dino)
    lines = notes(results, matchings)
    write(results, args.out, about, lines)
    for line in lines:
        log.warning("%s", line)
    parts = [
        as_markdown(results, about),
        shared_table(results),
        differences(results, SHOWN),
        table_1(results),
    ]
    sys.stdout.write("\n".join(part for part in parts if part) + f"\nwrote {shown(args.out)}\n")


def _embeddings(args: argparse.Namespace) -> Embeddings:
    clip = Clip(args.clip, args.device, lazy=True)
    dino = Dino(args.dino, clip.device) if args.dino else None
    return Embeddings(clip, _prefix(args.prefix), args.out / "embeddings", dino)


def _measured(result: Result, folder: Path, extras: Extras) -> Result:
    """With its seeds, where they are known, and other measures."""
    return replace(result, seeds=seeds_of(folder), extras=extras.measure(result.groups))


def _prefix(text: str) -> str:
    if not text.isprintable():
        raise SettingError(f"--prefix is '{shown(text)}'; give plain text.")
    return text


def _folders(given: Sequence[str]) -> dict[str, Path]:
    return {name: Path(folder) for name, folder in _pairs(given).items()}


def _parameters(value: str) -> int:
    """Of an adapter file, or a number as it is."""
    if re.fullmatch(r"[0-9]{1,15}", value):
        return int(value)
    if not Path(value).is_file():
        raise SettingError(
            f"--parameters {shown(value)} is neither a number nor a file. Give an adapter file."
        )
    return parameter_count(read_shapes(value))


def _values(given: Sequence[str]) -> dict[str, str]:
    """'node.input=value'"""
    for each in given:
        if "=" not in each:
            raise SettingError(f"--set {shown(each)} has no value. Give it as 'node id.input=value'.")
    return _pairs(given)


def _pairs(given: Sequence[str]) -> dict[str, str]:
    """'name=value' from the command line. A folder alone is named after itself."""
    pairs: dict[str, str] = {}
    for each in given:
        name, found, value = each.partition("=")
        name, value = (name, value) if found else (Path(each).name, each)
        if name in pairs:
            raise SettingError(f"'{shown(name)}' was given twice. Give every name once.")
        if not name:
            raise SettingError(f"'{shown(each)}' has no name. Give it as NAME=VALUE.")
        pairs[name] = value
    return pairs
