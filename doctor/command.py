"""The doctor's command line."""

from __future__ import annotations

import argparse
import difflib
import io
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from ..ipadapter_core.errors import ImagePromptError, SettingError, shown
from ..ipadapter_core.faces.graphs import is_cut
from ..ipadapter_core.families.table import FAMILIES as FAMILY_ROWS
from ..ipadapter_core.files.writing import explaining
from ..model_files.catalog import CATALOG, FAMILIES, catalog_row, families_for, file_named, files_for
from ..model_files.index import Index
from ..model_files.model_folders import face_models
from ..model_files.released import HUB, Intent, Kind, KnownFile
from .download import download
from .folders import SearchedFolders, find_folders
from .progress import shown_progress
from .report import Report, build
from .text import as_markdown, as_text, file_list, style_for

PACK = Path(__file__).parent.parent


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        "doctor",
        description="Says which model files of Image Prompt are installed, what is wrong with them, and what is missing.",
        epilog=_goals_help(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument(
        "--goal", type=_goal_named, metavar="GOAL", help="check what this goal needs (see below)"
    )
    made.add_argument(
        "--family",
        type=_family,
        metavar="NAME",
        help=f"of the base model: {', '.join(FAMILIES)}; without it all, without --goal every goal that it has",
    )
    made.add_argument("--get", action="store_true", help="download all that the goal still needs")
    made.add_argument("--download", nargs="+", metavar="NAME", help="download these released files")
    made.add_argument("--list", action="store_true", help="list the released files that can be downloaded")
    made.add_argument(
        "--verify", action="store_true", help="compare files of released names with their sha256"
    )
    made.add_argument("--long", action="store_true", help="with addresses and sha256")
    made.add_argument("--comfyui", type=Path, help="ComfyUI's folder, if the pack is not in its custom_nodes")
    made.add_argument("--models", type=Path, help="the models folder, if it is not in ComfyUI's")
    made.add_argument("--extra-paths", type=Path, help="an extra_model_paths.yaml elsewhere")
    form = made.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="write JSON")
    form.add_argument("--markdown", action="store_true", help="write Markdown")
    return made


def goal_word(intent: Intent) -> str:
    """As it is typed: 'standard, ViT-bigG' is standard-vit-bigg."""
    return intent.value.replace(",", "").replace(" ", "-").lower()


_GOALS = {goal_word(intent): intent for intent in Intent}


def _goal_named(text: str) -> Intent:
    """Of a goal as it is typed, or as the node's menu writes it."""
    word = text.replace(",", "").replace(" ", "-").lower()
    if word not in _GOALS:
        near = difflib.get_close_matches(word, _GOALS, 3)
        hint = f"Did you mean {' or '.join(near)}?" if near else f"There are: {', '.join(_GOALS)}."
        raise argparse.ArgumentTypeError(f"'{shown(text)}' is no goal. {hint}")
    return _GOALS[word]


def _goals_help() -> str:
    lines = [f"  {word:<22}{', '.join(families_for(intent))}" for word, intent in _GOALS.items()]
    return "\n".join(["goals, and the base models for which they exist:", *lines])


def _family(text: str) -> str:
    """The family of the adapters for a model that is named in any spelling: 'flux', 'SD 1.5', 'chroma'."""
    adapters = {_plain(family.name): family.adapters_of for family in FAMILY_ROWS}
    wanted = _plain(text)
    found = [adapters[name] for name in adapters if name == wanted] or [
        family for name, family in adapters.items() if wanted and name.startswith(wanted)
    ]
    if not found or found[0] not in FAMILIES:
        raise argparse.ArgumentTypeError(f"'{shown(text)}' is none of: {', '.join(FAMILIES)}")
    return found[0]


def _plain(name: str) -> str:
    return "".join(part for part in name.lower() if part.isalnum())


def main(arguments: Sequence[str] | None = None) -> int:
    """0 if all is well, 1 if something is missing, broken, or could not be done."""
    options = parser().parse_args(arguments)
    for stream in (sys.stdout, sys.stderr):
        # names of files may hold what a terminal cannot show
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        return _run(options)
    except ImagePromptError as error:
        sys.stderr.write(f"{error}\n")
        return 1


def _run(options: argparse.Namespace) -> int:
    if options.list:
        return _write(_list(options.json, options.long))
    searched = find_folders(PACK, options.comfyui, options.models, options.extra_paths)
    if options.download:
        return _download([_released(name) for name in options.download], searched.models)
    report = examine(searched, options.goal, options.family, options.verify)
    if options.get:
        _download([catalog_row(name) for name in _to_get(report)], searched.models)
        report = examine(searched, options.goal, options.family, options.verify)
    _write(_formatted(report, options))
    return int(bool(report.broken) or any(not goal.ready for goal in report.goals))


def _to_get(report: Report) -> list[str]:
    """Names of what the report's one goal lacks. Raises SettingError where that is not one goal on one family."""
    lacking = [goal for goal in report.goals if not goal.ready]
    if not report.goals or len(lacking) > 1:
        missing = "; ".join(f"{goal.goal} on {goal.family}" for goal in lacking)
        raise SettingError(
            "--get downloads what one goal needs on one family, such as --goal plus --family SDXL."
            + (f" Missing are: {missing}." if missing else " --help lists the goals.")
        )
    return [name for goal in lacking for name in goal.needs]


def examine(
    searched: SearchedFolders, intent: Intent | None = None, family: str | None = None, verify: bool = False
) -> Report:
    """The report on these folders. family: without it all that have the goal. intent: without it all goals of the family."""
    index = Index(searched.store)
    entries = index.scan(searched.folders)
    intents = [intent] if intent else list(Intent) if family else []
    goals = [(base, goal) for base in FAMILIES for goal in intents if family in (None, base)]
    if family is None or intent is None:
        goals = [(base, goal) for base, goal in goals if files_for(goal, base)]
    faces = _face_models(searched.models)
    return build(entries, goals, index.sha256, faces, searched.folders, searched.notes, verify)


def _face_models(models: Path) -> list[str]:
    packs = [known for known in CATALOG if known.kind is Kind.FACE_PACK]
    return [
        name for known in packs for name in face_models(models, known.members, lambda path: not is_cut(path))
    ]


def _formatted(report: Report, options: argparse.Namespace) -> str:
    if options.json:
        return json.dumps(report.as_json(), indent=1)
    return as_markdown(report) if options.markdown else as_text(report, options.long, style_for(sys.stdout))


def _list(as_json: bool, long: bool) -> str:
    if as_json:
        rows = [{"name": k.name, "url": k.url, "sha256": k.sha256, "size": k.size} for k in CATALOG]
        return json.dumps(rows, indent=1)
    return f"{file_list(CATALOG, long)}\n\n--download NAME gets one; --long shows addresses, licences and sha256."


def _released(name: str) -> KnownFile:
    known = file_named(name)
    if known is None:
        raise SettingError(f"'{name}' is no released file that is known here. --list shows those that are.")
    return known


def _download(files: Sequence[KnownFile], models: Path) -> int:
    for known in files:
        if not known.commercial:
            sys.stderr.write(f"{known.name}: licence {known.licence}, see {known.page}\n")
        mirror = os.environ.get("HF_ENDPOINT") or HUB
        _write(f"{known.name}: {download(known, models, shown_progress(known.name), mirror)}")
    return 0


def _write(text: str) -> int:
    """To standard output. Raises WriteError where that fails, as into a file on a full disk."""
    with explaining("the report"):
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()
    return 0
