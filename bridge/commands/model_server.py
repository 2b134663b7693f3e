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
from bridge.model_server import TOKEN_VARIABLE
from providers.local.models import ModelError, models_root, own_checkout, verified_dir

if TYPE_CHECKING:
    from providers.local.server import ServerSettings
    from providers.local.session import Parts

log = structlog.get_logger(room="model_server")


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command and its options."""
    parser = subparsers.add_parser(
        "model-server",
        help="run the local provider's model server by itself",
        description="Speaks the OpenAI Realtime protocol. When it is ready it prints one line of JSON with "
        f'the address: {{"listening": "ws://127.0.0.1:PORT/v1"}}. Where {TOKEN_VARIABLE} is set, clients '
        "must bring it as their bearer token.",
    )
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen on")
    parser.add_argument("--port", type=int, default=0, help="0: any free one")
    parser.add_argument("--models", type=Path, metavar="DIR", help="where models are kept")
    parser.add_argument("--threads", type=int, default=0, metavar="N", help="of the CPU, for recognition")
    parser.add_argument("--piper-voice", type=Path, metavar="FILE", help="a piper voice (.onnx)")
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
        try:
            parts = load_parts(arguments.models, arguments.threads, arguments.piper_voice)
        except (ModelError, SpeechError, VadError) as error:
            sys.stderr.write(f"the model server can't start: {error}\n")
            return 1
        settings = ServerSettings(
            arguments.host,
            arguments.port,
            os.environ.get(TOKEN_VARIABLE, ""),
            arguments.max_sessions,
        )
        try:
            asyncio.run(_serve(parts, settings, arguments.exit_with_parent, out or sys.stdout))
        except OSError as error:
            where = f"{arguments.host}:{arguments.port}"
            sys.stderr.write(f"the model server can't listen on {where}: {error}\n")
            return 1
        finally:
            parts.recogniser.close()
            parts.speaker.close()
    return 0


def load_parts(models: Path | None, threads: int, piper_voice: Path | None) -> Parts:
    """Load all that sessions share; one to two seconds.

    Raises:
        ModelError: the weights are missing or wrong.
        SpeechError: the voice can't be had.
        VadError: the voice detector's file is missing.
    """
    from providers.local.dialogue import new_engine
    from providers.local.recognition import Recogniser
    from providers.local.session import Parts
    from providers.local.speech import Speaker, make_voice
    from providers.local.vad import load_vad

    root = models_root(models, cwd=Path.cwd(), environ=os.environ, checkout=own_checkout())
    folder = verified_dir(root)
    vad = load_vad()
    speaker = Speaker(make_voice(piper_voice))
    recogniser = Recogniser(folder, vad, threads=threads)
    recogniser.warm_up()
    return Parts(recogniser, speaker, vad, new_engine)


async def _serve(parts: Parts, settings: ServerSettings, with_parent: bool, out: TextIO) -> None:
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
    async with ModelServer(parts, settings).listening() as url:
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
