"""Keeps the embedded model server running as a process of its own, beside the service.

A process of its own, because speech recognition is heavy: on the service's event loop every call would
stutter. When it dies its sessions end, which each visit handles as it would a provider's outage, and it is
started again on the same port.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import structlog

from bridge.settings import Log
from bridge.settings import ModelServer as ModelServerSettings
from providers.local.pipeline import Pipelines, write

TOKEN_VARIABLE = "PORTEIRO_MODEL_SERVER_TOKEN"
"""The environment variable with the bearer token that clients must bring; not set: none is asked for."""
PIPELINES_VARIABLE = "PORTEIRO_MODEL_SERVER_PIPELINES"
"""The one that holds the tenants' pipelines, with their keys: :func:`providers.local.pipeline.write`."""
STOP_S = 5.0
RESTART_S = (0.5, 1.0, 2.0, 5.0)
"""Pauses before it is started again, the last for every further time."""
STEADY_S = 60.0
"""Having run for so long, it starts anew with the shortest pause."""

log = structlog.get_logger(__name__)


class ModelServerError(RuntimeError):
    """The model server did not start; the text says why and what to do."""


@dataclass(frozen=True, slots=True)
class ModelServerAddress:
    """Where it listens, and the token that it wants."""

    base_url: str
    token: str


class ModelServerProcess:
    """The process, started again when it dies."""

    def __init__(
        self,
        settings: ModelServerSettings,
        models: Path,
        log_to: TextIO | None = None,
        form: Log | None = None,
        pipelines: Pipelines | None = None,
        only_pipelines: bool = False,
    ) -> None:
        """
        Args:
            pipelines: the tenants' pipelines, by the tenants' ids.
            only_pipelines: it needs nothing for sessions that name none.
            log_to: a real file for its log; None: our standard error.
            form: how it writes that; None: as the settings say by default.
        """
        self._form = form or Log()
        self._pipelines = pipelines or {}
        self._only_pipelines = only_pipelines
        self._settings = settings
        self._log_to = log_to
        self._models = models
        self._port = settings.port
        self._token = secrets.token_urlsafe(24)
        self._process: asyncio.subprocess.Process | None = None
        self._keeper: asyncio.Task[None] | None = None
        self.ready = False
        """It listens."""

    async def start(self) -> ModelServerAddress:
        """Start it, and wait until it listens.

        Raises:
            ModelServerError: it ended, or was not ready in time.
        """
        url = await self._launch()
        self._keeper = asyncio.create_task(self._keep(), name="model server's keeper")
        return ModelServerAddress(url.replace("ws://", "http://", 1), self._token)

    def _command(self) -> Sequence[str]:
        command = [sys.executable, "-m", "bridge.cli", "model-server", "--exit-with-parent"]
        command += ["--port", str(self._port), "--models", str(self._models)]
        command += ["--threads", str(self._settings.threads)]
        command += ["--log-format", self._form.format, "--log-level", self._form.level]
        if self._settings.piper_voice is not None:
            command += ["--piper-voice", str(self._settings.piper_voice)]
        if self._only_pipelines:
            command.append("--pipelines-only")
        return command

    async def _launch(self) -> str:
        environment = {**os.environ, TOKEN_VARIABLE: self._token, PIPELINES_VARIABLE: write(self._pipelines)}
        self._process = await asyncio.create_subprocess_exec(
            *self._command(),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=self._log_to,
            env=environment,
        )
        assert self._process.stdout is not None
        try:
            async with asyncio.timeout(self._settings.start_timeout_s):
                line = await self._process.stdout.readline()
        except TimeoutError:
            await self._end()
            raise ModelServerError(
                f"the model server was not ready after {self._settings.start_timeout_s:g} s "
                "(service.model_server.start_timeout_s)"
            ) from None
        if not line:
            status = await self._process.wait()
            raise ModelServerError(f"the model server ended with status {status}; its log above says why")
        try:
            url: str = json.loads(line)["listening"]
            self._port = int(url.rsplit(":", 1)[1].split("/", 1)[0])
        except (ValueError, KeyError, TypeError):
            await self._end()
            raise ModelServerError("the model server began with something else than its address") from None
        self.ready = True
        log.info("model_server.ready", port=self._port, pid=self._process.pid)
        return url

    async def _keep(self) -> None:
        deaths = 0
        while True:
            assert self._process is not None
            began = asyncio.get_running_loop().time()
            status = await self._process.wait()
            self.ready = False
            deaths = 0 if asyncio.get_running_loop().time() - began >= STEADY_S else deaths + 1
            log.error("model_server.died", status=status)
            while True:
                await asyncio.sleep(RESTART_S[min(deaths, len(RESTART_S)) - 1] if deaths else RESTART_S[0])
                try:
                    await self._launch()
                except (ModelServerError, OSError) as error:  # OSError: no process could be made at all
                    deaths += 1
                    log.error("model_server.not_started", reason=str(error))
                else:
                    break

    @property
    def pid(self) -> int | None:
        """The process, while it runs."""
        running = self._process is not None and self._process.returncode is None
        return self._process.pid if running and self._process is not None else None

    async def stop(self) -> None:
        """End it for good."""
        self.ready = False
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait({self._keeper})
        await self._end()

    async def _end(self) -> None:
        process = self._process
        if process is None or process.returncode is not None:
            return
        process.terminate()
        try:
            async with asyncio.timeout(STOP_S):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()
