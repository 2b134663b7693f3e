"""`porteiro model-server`: runs the embedded model server by itself."""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import orjson
import structlog

from bridge import log as logs
from bridge.model_server import PIPELINES_VARIABLE, TOKEN_VARIABLE
from providers.local.models import ModelError, models_root, own_checkout, verified_dir
from providers.local.pipeline import PipelineError, Pipelines, read

if TYPE_CHECKING:
    from providers.local.listening import WholeTurns
    from providers.local.recognition import Recogniser
    from providers.local.server import ServerSettings
    from providers.local.session import Parts
    from providers.local.speech import Speaker

log = structlog.get_logger(room="model_server")


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command and its options."""
    parser = subparsers.add_parser(
        "model-server",
        help="run the local provider's model server by itself",
        description="Speaks the OpenAI Realtime protocol. When it is ready it prints one line of JSON with "
        f'the address: {{"listening": "ws://127.0.0.1:PORT/v1"}}. Where {TOKEN_VARIABLE} is set, clients '
        f"must bring it as their bearer token. {PIPELINES_VARIABLE} may hold tenants' pipelines, as the "
        "service writes them.",
    )
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen on")
    parser.add_argument("--port", type=int, default=0, help="0: any free one")
    parser.add_argument("--models", type=Path, metavar="DIR", help="where models are kept")
    parser.add_argument("--threads", type=int, default=0, metavar="N", help="of the CPU, for recognition")
    parser.add_argument("--piper-voice", type=Path, metavar="FILE", help="a piper voice (.onnx)")
    parser.add_argument("--pipelines-only", action="store_true", help="no sessions but those of a pipeline")
    parser.add_argument("--max-sessions", type=int, default=256, metavar="N", help="at the same time")
    parser.add_argument("--log-format", choices=("auto", "json", "pretty"), default="auto")
    parser.add_argument("--log-level", choices=("debug", "info", "warning", "error"), default="info")
    parser.add_argument("--exit-with-parent", action="store_true", help="stop when standard input is closed")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace, out: TextIO | None = None) -> int:
    """Serve until SIGTERM or SIGINT; 1 where it can't start."""
    # Half a second of imports that no other command should wait for.
    from providers.local.server import ServerSettings
    from providers.local.speech import SpeechError
    from providers.local.vad import VadError

    with logs.configure(arguments.log_format, arguments.log_level):
        loading = Loading(arguments.models, arguments.threads)
        try:
            parts = None if arguments.pipelines_only else loading.parts(arguments.piper_voice)
            pipelines = loading.pipelines(read(os.environ.get(PIPELINES_VARIABLE) or "{}"))
        except (ModelError, SpeechError, VadError, PipelineError) as error:
            loading.close()
            sys.stderr.write(f"the model server can't start: {error}\n")
            return 1
        settings = ServerSettings(
            arguments.host,
            arguments.port,
            os.environ.get(TOKEN_VARIABLE, ""),
            arguments.max_sessions,
        )
        try:
            asyncio.run(_serve(parts, pipelines, settings, arguments.exit_with_parent, out or sys.stdout))
        except OSError as error:
            where = f"{arguments.host}:{arguments.port}"
            sys.stderr.write(f"the model server can't listen on {where}: {error}\n")
            return 1
        finally:
            loading.close()
    return 0


class Loading:
    """Loads what sessions share, each thing once and only where somebody needs it; whisper takes a second.

    Making it raises ``VadError`` where the voice detector's file is missing; its methods raise
    :class:`ModelError` where weights are missing or wrong, and ``SpeechError`` where a voice can't be had.
    """

    def __init__(self, models: Path | None, threads: int) -> None:
        from providers.local.vad import load_vad

        self._models, self._threads = models, threads
        self._vad = load_vad()
        self._recogniser: Recogniser | None = None
        self._speakers: dict[Path | None, Speaker] = {}

    def parts(self, piper_voice: Path | None) -> Parts:
        """Those of sessions without a pipeline: whisper, the rules, and a voice."""
        from providers.local.dialogue import new_engine
        from providers.local.dialogue.base import at_once
        from providers.local.session import Parts

        return Parts(self._whisper(), self._speaker(piper_voice), self._vad, at_once(new_engine))

    def pipelines(self, specs: Pipelines) -> dict[str, Parts]:
        """Those of each pipeline, by its name."""
        from providers.local.pipeline import make_parts

        return {
            name: make_parts(spec, self._vad, self._whisper, self._speaker) for name, spec in specs.items()
        }

    def _whisper(self) -> WholeTurns:
        from providers.local.listening import WholeTurns
        from providers.local.recognition import Recogniser

        if self._recogniser is None:
            root = models_root(self._models, cwd=Path.cwd(), environ=os.environ, checkout=own_checkout())
            self._recogniser = Recogniser(verified_dir(root), self._vad, threads=self._threads)
            self._recogniser.warm_up()
        return WholeTurns(self._recogniser)

    def _speaker(self, piper_voice: Path | None) -> Speaker:
        from providers.local.speech import Speaker, make_voice

        if piper_voice not in self._speakers:
            self._speakers[piper_voice] = Speaker(make_voice(piper_voice))
        return self._speakers[piper_voice]

    def close(self) -> None:
        """Let the threads go."""
        if self._recogniser is not None:
            self._recogniser.close()
        for speaker in self._speakers.values():
            speaker.close()


async def _serve(
    parts: Parts | None,
    pipelines: dict[str, Parts],
    settings: ServerSettings,
    with_parent: bool,
    out: TextIO,
) -> None:
    from providers.local.server import ModelServer

    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, stop.set)
    if with_parent:
        loop.add_reader(sys.stdin.fileno(), _read_or_stop, stop)
    # What is loaded stays: the collector need not walk through it again and again.
    gc.collect()
    gc.freeze()
    async with ModelServer(parts, settings, pipelines).listening() as url:
        out.write(orjson.dumps({"listening": url}).decode() + "\n")
        out.flush()
        log.info("listening", url=url)
        await stop.wait()
        log.info("stopping")


def _read_or_stop(stop: asyncio.Event) -> None:
    """Standard input has something: its end is the parent's. What comes before is of no interest."""
    if not os.read(sys.stdin.fileno(), 4096):
        asyncio.get_running_loop().remove_reader(sys.stdin.fileno())
        stop.set()
