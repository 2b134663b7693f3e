"""`porteiro serve`: runs the service until it is told to stop."""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys

import structlog
import uvloop

from bridge import collector
from bridge import log as logs
from bridge.model_server import ModelServerError
from bridge.service import Service
from bridge.settings import Settings, SettingsError, load
from bridge.workers.pool import WorkerError
from storage.base import StorageError

log = structlog.get_logger(__name__)


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command and its options."""
    parser = subparsers.add_parser(
        "serve",
        help="run the service",
        description="Answers calls until SIGTERM or Ctrl-C: then no visitor is taken, and the visits that "
        "run come to their end. A second signal ends them at once, with the gate closed. SIGHUP has the "
        "settings read anew, which they are by themselves too when a file or the database changes.",
    )
    parser.add_argument("--config", metavar="FILE", help="default: $PORTEIRO_CONFIG, then ./porteiro.toml")
    parser.add_argument(
        "--workers",
        type=int,
        metavar="N",
        help="processes that run the visits, behind the same ports; 0: one for each CPU (service.workers)",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Serve; 1 where the service can't start."""
    try:
        settings = load(arguments.config)
        if arguments.workers is not None:
            settings = settings.with_workers(arguments.workers)
        with logs.configure(settings.service.log.format, settings.service.log.level):
            uvloop.run(serve(settings))
    except SettingsError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    except (StorageError, ModelServerError, WorkerError, OSError) as error:
        sys.stderr.write(f"porteiro can't start: {error}\n")
        return 1
    return 0


async def serve(settings: Settings) -> None:
    """Run the service until a signal; see :meth:`Service.start` for what it raises."""
    service = Service(settings)
    asked = asyncio.Event()
    at_once = asyncio.Event()

    def stop() -> None:
        (at_once if asked.is_set() else asked).set()

    loop = asyncio.get_running_loop()
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, stop)
    await service.start()
    loop.add_signal_handler(signal.SIGHUP, service.tenancy.reload_soon)
    collector.settle()
    try:
        log.info("service.ready", tenants=len(service.tenancy.current), workers=settings.service.worker_count)
        await asked.wait()
        drained = asyncio.create_task(service.drain(), name="drain")
        hurry = asyncio.create_task(at_once.wait(), name="second signal")
        await asyncio.wait({drained, hurry}, return_when=asyncio.FIRST_COMPLETED)
        for task in (drained, hurry):
            task.cancel()
    finally:
        await service.stop()
        log.info("service.stopped")
