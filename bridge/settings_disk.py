"""Checks what the settings point at: files, directories, keys, the things that only this machine can tell."""

from __future__ import annotations

import json
import os
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile
from typing import TYPE_CHECKING
from uuid import UUID

from audio.aec3 import available as aec3_available
from bridge.amqp_address import read_address
from bridge.costs.prices import PricesError, known_prices
from bridge.esl_commands import playback
from bridge.hold_audio import hold_file_problem
from bridge.signing import key_of
from providers.local.models import missing_files
from storage.lock import in_use
from storage.schema import trouble_with
from visits.directory import Directory, DirectoryError

if TYPE_CHECKING:
    from bridge.settings import Service, Settings, Tenant, Webhooks

KEY_CHARACTERS = 16
"""The least of the HTTP API's key: what can be guessed is no key."""


def problems(settings: Settings) -> list[str]:
    """One line for each thing that keeps the service from starting."""
    lines = service_problems(settings.service) + key_problems(settings) + model_problems(settings)
    for tenant in settings.tenants.values():
        if tenant.directory is not None and (trouble := directory_problem(tenant.directory)):
            lines.append(f"tenants.{tenant.id}.directory: {tenant.directory}: {trouble}")
        lines += tenant_problems(tenant, settings)
    return lines + prices_problems(settings.service)


def model_problems(settings: Settings) -> list[str]:
    """What the embedded model server lacks, where the tenants need one."""
    lines = []
    pipelines = [tenant.pipeline for tenant in settings.tenants.values() if tenant.has_pipeline]
    if settings.needs_local_parts or any(one.recognition.kind == "whisper" for one in pipelines):
        lines += weights_problems(settings.service)
    if settings.needs_local_parts:
        lines += voice_problems(settings.service.model_server.piper_voice, "service.model_server.piper_voice")
    return lines


def prices_problems(service: Service) -> list[str]:
    try:
        known_prices(service.prices_file)
    except PricesError as error:
        return [f"service.prices_file: {error}"]
    return []


def package_problems(tenant: Tenant) -> list[str]:
    if tenant.echo.mode != "aec3" or aec3_available():
        return []
    return [
        "echo.mode: found 'aec3', and the package livekit is not installed; allowed: install the extra aec3 "
        "(uv sync --extra aec3), or 'guard' or 'none'"
    ]


def service_problems(service: Service) -> list[str]:
    lines = []
    for setting, directory in (
        ("service.data_dir", service.data_dir),
        ("service.database", service.locked_path.parent),
        ("service.recordings_dir", service.recordings_path),
    ):
        trouble = _not_writable(directory)
        if trouble:
            lines.append(f"{setting}: {trouble}; allowed: a directory that can be made and written to")
    database = service.database_path
    if database is None:  # whether a server is there and well is asked at the start, and by `porteiro check`
        return lines
    if in_use(database) is None and (trouble := database_problem(database)):
        lines.append(f"service.database: {database}: {trouble}; allowed: Porteiro's own, or a new file")
    return lines


def database_problem(file: Path) -> str:
    """What keeps a file from being the audit log; empty where nothing does."""
    if file.exists() and not file.is_file():
        return "not a file"
    if trouble := trouble_with(file):
        return trouble
    return "" if not file.exists() or os.access(file, os.W_OK) else "can't be written to"


def key_problems(settings: Settings) -> list[str]:
    """What is wrong with the HTTP API's key."""
    variable = settings.service.http_key_env
    if variable is None:
        return []
    where = f"service.http_key_env: the environment variable {variable}"
    key = settings.secret(variable)
    if key is None:
        return [f"{where} is not set; put the key there"]
    if len(key) < KEY_CHARACTERS or not key.isascii() or not key.isprintable() or " " in key:
        return [
            f"{where} holds {len(key)} characters; allowed: {KEY_CHARACTERS} or more, ASCII and no spaces "
            "(`openssl rand -hex 32` makes one)"
        ]
    return []


def weights_problems(service: Service) -> list[str]:
    """What the embedded model server lacks to recognise speech."""
    missing = missing_files(service.models_path)
    if not missing:
        return []
    lacks = ", ".join(missing)
    return [f"service.models_dir: {service.models_path} lacks {lacks}; run `porteiro models fetch`"]


def voice_problems(voice: Path | None, setting: str) -> list[str]:
    """What is wrong with a piper voice; nothing where there is none."""
    return [f"{setting}: {voice}: no such file"] if voice is not None and not voice.is_file() else []


def tenant_problems(tenant: Tenant, settings: Settings) -> list[str]:
    """What a tenant's settings name that is not there, its directory aside."""
    lines = voice_problems(tenant.pipeline.speech.piper_voice, "pipeline.speech.piper_voice")
    if tenant.hold_audio.sound == "file" and (trouble := hold_file_problem(tenant.hold_audio.file)):
        lines.append(f"hold_audio.file: {trouble}")
    for setting, variable in tenant.secret_variables:
        if trouble := secret_problem(setting, settings.secret(variable)):
            lines.append(f"{setting}: the environment variable {variable} {trouble}")
    if not settings.service.http_on and tenant.manager is not None:
        lines += [
            f"{table}: works on calls that the PBX has registered with their channel, and there is nowhere "
            "to register them; allowed: set service.http_listen, and have the dialplan register its calls"
            for table in tenant.tables_that_need_a_channel
        ]
    if tenant.webhooks is not None:
        lines += _webhook_problems(tenant.webhooks, settings.secret(tenant.webhooks.secret_env))
    for table, part in tenant.amqp_parts:
        if url := settings.secret(part.url_env):
            try:
                read_address(url)
            except ValueError as error:
                lines.append(f"{table}.url_env: the environment variable {part.url_env} {error}")
        if part.ca_file is not None and not part.ca_file.is_file():
            lines.append(f"{table}.ca_file: {part.ca_file}: no such file")
    if tenant.esl is not None and tenant.esl.sounds is not None:
        lines += sounds_problems(tenant.esl.sounds, tenant.esl.sounds_in_freeswitch)
    lines += tool_problems(tenant, settings)
    return [f"tenants.{tenant.id}.{line}" for line in lines + package_problems(tenant)]


def sounds_problems(ours: Path, theirs: str) -> list[str]:
    """What is wrong with the directory of the files that FreeSWITCH plays."""
    if not ours.is_dir() or not os.access(ours, os.W_OK | os.X_OK):
        return [f"esl.sounds: {ours}: found no directory that can be written; make one that FreeSWITCH reads"]
    try:
        playback(UUID(int=0), f"{theirs or ours.absolute()}/a.wav")
    except ValueError as error:
        return [f"esl.sounds: {ours}: found a path that FreeSWITCH can't be told; allowed: {error}"]
    return []


def tool_problems(tenant: Tenant, settings: Settings) -> list[str]:
    """What the declared tools name and can't use. A variable that is not set is said elsewhere."""
    lines = []
    for name, tool in tenant.tools.items():
        for header, variable in tool.headers_env.items():
            if not (settings.secret(variable) or "").isascii():
                where = f"tools.{name}.headers_env.{header}: the environment variable {variable}"
                lines.append(f"{where} holds characters that no header has; allowed: ASCII")
        variable = tool.signing_secret_env or ""
        if secret := settings.secret(variable):
            try:
                key_of(secret)
            except ValueError as error:
                where = f"tools.{name}.signing_secret_env: the environment variable {variable}"
                lines.append(f"{where} holds no key; allowed: {error}")
        if tool.ca_file is not None and not tool.ca_file.is_file():
            lines.append(f"tools.{name}.ca_file: {tool.ca_file}: no such file")
    return lines


def _webhook_problems(webhooks: Webhooks, secret: str | None) -> list[str]:
    """What is wrong with a webhook's secret, where it is set, and with its certificate."""
    lines = []
    if secret:
        try:
            key_of(secret)
        except ValueError as error:
            where = f"webhooks.secret_env: the environment variable {webhooks.secret_env}"
            lines.append(f"{where} holds no key; allowed: {error}")
    if webhooks.ca_file is not None and not webhooks.ca_file.is_file():
        lines.append(f"webhooks.ca_file: {webhooks.ca_file}: no such file")
    return lines


def secret_problem(setting: str, secret: str | None) -> str:
    """What is wrong with a secret, without a word of it; empty where nothing is."""
    if secret is None:
        return "is not set; put the secret there"
    if not secret.isprintable():
        return "holds a line break or another character that can't be seen; allowed: the secret alone"
    if setting.endswith("api_key_env") and not secret.isascii():
        return "holds characters that no key has; allowed: ASCII"
    return ""


def directory_problem(file: Path) -> str:
    """What is wrong with a directory file; empty where nothing is."""
    try:
        entries = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return "no such file"
    except OSError as error:
        return f"can't be read: {error.strerror}"
    except ValueError as error:
        return f"not valid JSON: {error}"
    try:
        Directory.from_records(entries)
    except DirectoryError as error:
        return str(error)
    return ""


def _not_writable(directory: Path) -> str:
    """Why the directory could not be made and written to; empty where it can."""
    nearest = directory
    while not nearest.exists() and nearest != nearest.parent:
        nearest = nearest.parent
    if not nearest.is_dir():
        return f"{nearest} is not a directory"
    try:
        # Tried, not asked: root may do anything according to its rights, in /proc too.
        with TemporaryDirectory(prefix=".porteiro-check-", dir=nearest) as made, TemporaryFile(dir=made):
            return ""
    except OSError as error:
        return f"{nearest} can't be written to: {error.strerror}"
