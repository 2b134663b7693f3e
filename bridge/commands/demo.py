"""`porteiro demo`: a whole visit through the real service, on recorded speech."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

import orjson
import uvloop
from rich.console import Console

from bridge import log as logs
from bridge.demo.report import NAMED
from bridge.demo.script import ALLOWED, ScriptError, Step, step
from bridge.demo.stage import DATA, Cast, Stage, stage_settings
from bridge.demo.story import Story
from bridge.dialing.simulated import Answers
from bridge.model_server import ModelServerError
from bridge.settings import Settings, SettingsError
from storage.base import StorageError

VISITOR = ("v01-leticia.wav", "v10-leticia.wav", "v03-leticia.wav")
RESIDENT = ("r06-grave.wav", "r03-grave.wav")
PICTURE_WIDTH = 140
"""Characters."""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command and its options."""
    parser = subparsers.add_parser(
        "demo",
        help="run a whole visit on recorded speech",
        description="Starts the service and plays a visitor and a resident through two real AudioSocket "
        f"connections. A step is {ALLOWED}; the next one is taken once the other side has finished its turn.",
    )
    parser.add_argument("--visitor", nargs="*", metavar="STEP", help="what the visitor says")
    parser.add_argument("--resident", nargs="*", metavar="STEP", help="what the resident says")
    parser.add_argument("--resident-answers", choices=[each.value for each in Answers], default="yes")
    parser.add_argument("--json", action="store_true", help="print the visit as one JSON object at the end")
    parser.add_argument("--out", type=Path, metavar="DIR", help="the audit log and the recordings (var)")
    parser.add_argument("--picture", type=Path, metavar="FILE.svg", help="keep what is shown as a picture")
    parser.add_argument("--models", type=Path, metavar="DIR", help="where the speech models are")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run the demo; 0 where the visit ended in a named outcome and the audit chain verifies."""
    out: Path = arguments.out or Path("var")
    picture: Path | None = arguments.picture
    console = Console(
        stderr=arguments.json,
        highlight=False,
        record=picture is not None,
        width=PICTURE_WIDTH if picture else None,
    )
    try:
        visitor = _script(arguments.visitor, VISITOR)
        resident = _script(arguments.resident, RESIDENT)
        out.mkdir(parents=True, exist_ok=True)
        if picture is not None and not picture.parent.is_dir():
            raise ScriptError(
                f"--picture: found {str(picture)!r}; allowed: a file in a directory that exists"
            )
        settings = stage_settings(out, arguments.models)
        with (out / "demo.log").open("a", encoding="utf-8") as log, logs.configure("json", "info", log):
            cast = Cast(visitor, resident, Answers(arguments.resident_answers))
            found = uvloop.run(_play(settings, cast, console, log))
    except (ScriptError, SettingsError, StorageError, ModelServerError, OSError) as error:
        sys.stderr.write(f"porteiro demo: {error}\n")
        return 1
    _close(found, console, out)
    if picture is not None:
        picture.write_text(console.export_svg(title="porteiro demo"), encoding="utf-8")
    if arguments.json:
        sys.stdout.write(orjson.dumps(found, option=orjson.OPT_INDENT_2).decode() + "\n")
    if found["outcome"] not in NAMED:
        sys.stderr.write(f"porteiro demo: the visit ended as {found['outcome']}; see {out / 'demo.log'}\n")
        return 1
    if not found["audit_ok"]:
        sys.stderr.write(
            f"porteiro demo: the audit log in {out} does not verify; run porteiro audit verify\n"
        )
        return 1
    return 0


def _script(given: Sequence[str] | None, default: Sequence[str]) -> list[Step]:
    return [
        step(text) for text in (given if given is not None else [str(DATA / "audio" / n) for n in default])
    ]


async def _play(settings: Settings, cast: Cast, console: Console, log: TextIO) -> Mapping[str, Any]:
    stage = Stage(settings, watchers=(Story(console).watch,), log=log)
    console.print("loading the speech models …", style="dim")
    async with stage:
        return await stage.play(cast)


def _close(found: Mapping[str, Any], console: Console, out: Path) -> None:
    verdict = "verifies" if found["audit_ok"] else "DOES NOT VERIFY"
    gate = "opened once" if found["gate_opened"] else "stayed closed"
    console.print()
    console.print(f"[bold]{found['outcome']}[/bold]; the gate {gate}; the audit log {verdict}.")
    for recording in found["recordings"]:
        console.print(f"  listen: {recording}", soft_wrap=True)
    database = "" if out == Path("var") else f" --db {out / 'porteiro.db'}"
    console.print(f"  review: porteiro audit show {found['visit_id']}{database}", soft_wrap=True)
