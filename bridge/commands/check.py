"""`porteiro check`: says what is wrong with the settings, or what they amount to."""

from __future__ import annotations

import argparse
import asyncio
import sys
from typing import TextIO

from bridge import log as logs
from bridge.amqp_check import look_at_brokers
from bridge.asterisk_manager import manager_address
from bridge.asterisk_manager_check import ManagerUnfit, manager_behind
from bridge.costs.models import budget_warnings, price_warnings
from bridge.costs.prices import known_prices
from bridge.declared.calls import build_outside
from bridge.declared.check import ToolUnfit, reach_tool
from bridge.dialing.ari_check import AriUnfit, asterisk_behind
from bridge.dialing.build import ari_address
from bridge.esl_check import EslUnfit, freeswitch_behind
from bridge.gates.http_check import GateUnfit, reach
from bridge.ports_check import look_at_ports
from bridge.settings import AriDialer, HttpGate, Service, Settings, SettingsError, Tenant, load
from bridge.switchboard import esl_address
from bridge.tenant_provider import look_at_providers
from bridge.tenants import Tenancy
from bridge.webhooks.check import ReceiverUnfit, reach_receiver
from storage.base import StorageError
from storage.maintenance import current
from storage.opening import open_storage

DATABASE_S = 5.0
"""For a PostgreSQL to answer."""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare the command and its options."""
    parser = subparsers.add_parser(
        "check",
        help="say what is wrong with the settings",
        description="Reads the settings as the service would, and the files and variables that they name, "
        "and asks what they name on the network. Exits with 1 where the service would not start, or where "
        "something does not answer.",
    )
    parser.add_argument("--config", metavar="FILE", help="default: $PORTEIRO_CONFIG, then ./porteiro.toml")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace, out: TextIO | None = None) -> int:
    """Print the problems, one a line, or a summary; 1 where there is a problem."""
    out = sys.stdout if out is None else out
    empty: list[str] = []
    try:
        settings = load(arguments.config)
        source, problems = settings.source, settings.problems_at_start()
        if not problems:
            settings, problems, empty = asyncio.run(with_database(settings))
    except SettingsError as error:
        problems, source = error.problems, error.source
    if problems:
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        out.write(f"{source}: {count}\n")
        out.writelines(f"  {problem}\n" for problem in problems)
        return 1
    # What goes wrong is said below, once; the log has only what is no part of that.
    with logs.configure(settings.service.log.format, "error"):
        answers, troubles = asyncio.run(_ask_all(settings))
    if troubles:
        what = "1 thing" if len(troubles) == 1 else f"{len(troubles)} things"
        out.write(f"{source}: the settings are well, but {what} they need would not work now\n")
        out.writelines(f"  {trouble}\n" for trouble in troubles)
    else:
        out.write(f"{source}: all is well\n")
    prices = known_prices(settings.service.prices_file)
    unseen = [*empty, *budget_warnings(settings, prices), *price_warnings(settings)]
    warnings = [f"warning: {line}" for line in unseen]
    out.writelines(f"  {line}\n" for line in (*summary(settings), *answers, *warnings))
    return 1 if troubles else 0


async def with_database(settings: Settings) -> tuple[Settings, list[str], list[str]]:
    """The settings with the tenants of the database beside those of the files, what is wrong with them, and
    which directories are empty.

    Where the database can't be read those of the files are all; what it lacks is said elsewhere.

    Raises:
        SettingsError: a tenant of the files can't be used.
    """
    database = settings.database
    tenancy = Tenancy(settings)
    if database.file is not None and not database.file.exists():
        await tenancy.open(None)
        return tenancy.settings_now, [], empty_directories(tenancy)
    try:
        storage = await open_storage(database, read_only=True, deadline_s=DATABASE_S)
    except StorageError:
        return settings, [], []
    try:
        await tenancy.open(storage.catalogue)
    finally:
        await storage.close()
    problems = [line for lines in tenancy.refused.values() for line in lines]
    return tenancy.settings_now, problems, empty_directories(tenancy)


def empty_directories(tenancy: Tenancy) -> list[str]:
    """A line for each tenant in whose building nobody lives."""
    return [
        f"tenants.{name}.directory: not set, and the database has none: no resident is found"
        for name, one in tenancy.in_force.items()
        if not one.directory.apartments and one.tenant.kind == "condominium"
    ]


async def _ask_all(settings: Settings) -> tuple[list[str], list[str]]:
    """One line for each thing that is well, and one for each that is not."""
    near, far = await asyncio.gather(neighbours(settings), look_at_providers(settings))
    none = [] if settings.tenants else ["tenants: none is set; add one as porteiro.example.toml does"]
    return near[0] + far[0], none + near[1] + far[1]


async def neighbours(settings: Settings) -> tuple[list[str], list[str]]:
    """The same for what is on the house's own network, with what to do."""
    answers, troubles = [], []
    for tenant in settings.tenants.values():
        if isinstance(tenant.dialer, AriDialer):
            address = ari_address(tenant, tenant.dialer, settings.secret)
            try:
                version = await asterisk_behind(
                    address, websocket=settings.service.websocket_port is not None
                )
            except AriUnfit as error:
                troubles.append(f"tenants.{tenant.id}.dialer: {error}")
            else:
                answers.append(f"{tenant.id}: ARI at {address.url} answers, Asterisk {version}")
        if (manager := manager_address(tenant, settings.secret)) is not None:
            try:
                name = await manager_behind(manager)
            except ManagerUnfit as error:
                troubles.append(f"tenants.{tenant.id}.manager: {error}")
            else:
                answers.append(f"{tenant.id}: {name} answers, and would act on calls")
        await _look_at_freeswitch(tenant, settings, answers, troubles)
        if isinstance(tenant.gate, HttpGate):
            try:
                name = await reach(tenant.gate)
            except GateUnfit as error:
                troubles.append(f"tenants.{tenant.id}.gate: {error}")
            else:
                answers.append(f"{tenant.id}: {name} takes connections; nothing was asked of it")
        for tool in build_outside(tenant, settings.secret).tools.values():
            try:
                name = await reach_tool(tool)
            except ToolUnfit as error:
                troubles.append(f"tenants.{tenant.id}.tools.{tool.name}: {error}")
            else:
                answers.append(f"{tenant.id}: {name} takes connections; nothing was asked of it")
        if tenant.webhooks is not None:
            try:
                name = await reach_receiver(tenant.webhooks)
            except ReceiverUnfit as error:
                troubles.append(f"tenants.{tenant.id}.webhooks: {error}")
            else:
                answers.append(
                    f"{tenant.id}: {name}, which hears of visits, takes connections; nothing was sent"
                )
    if (trouble := await database_trouble(settings)) is not None:
        (troubles if trouble else answers).append(
            f"service.database_url: {trouble}"
            if trouble
            else f"{settings.database} answers, its schema is ours"
        )
    brokers = await look_at_brokers(settings)
    ports = await look_at_ports(settings)
    return answers + brokers.answers + ports[0], troubles + brokers.troubles + ports[1]


async def _look_at_freeswitch(
    tenant: Tenant, settings: Settings, answers: list[str], troubles: list[str]
) -> None:
    """What a tenant's event socket says; nothing where it has none."""
    address = esl_address(tenant, settings.secret)
    if address is None or tenant.freeswitch is None:
        return
    try:
        name = await freeswitch_behind(address, tenant.freeswitch)
    except EslUnfit as error:
        troubles.append(f"tenants.{tenant.id}.esl: {error}")
    else:
        answers.append(f"{tenant.id}: {name} answers, and FreeSWITCH can stream")


async def database_trouble(settings: Settings) -> str | None:
    """What keeps a PostgreSQL from being used; empty where nothing does, None where there is none."""
    if settings.database.file is not None:  # looked at with the other files
        return None
    try:
        version, wanted = await current(settings.database, DATABASE_S)
    except StorageError as error:
        return str(error)
    if version < wanted:
        return f"found schema {version}, this program needs {wanted}; run `porteiro db upgrade`"
    return f"found schema {version}, this program knows up to {wanted}" if version > wanted else ""


def _registering(service: Service) -> str:
    if service.http_key_env:
        return "with the key, or an API key"
    return "with an API key" if service.http_public else "without a key, by this machine"


def summary(settings: Settings) -> list[str]:
    """What these settings will do, one line each."""
    service = settings.service
    lines = [
        f"listening on {', '.join(service.listen)}, for peers in {', '.join(service.allowed_peers)}",
        f"audit log in {settings.database}",
    ]
    if service.http_on:
        how = "HTTPS" if service.http_certificate else "HTTP"
        lines.append(
            f"console and {how} API on {', '.join(service.http_listen)}, port {service.http_port}; calls are "
            f"registered {_registering(service)}"
        )
    for tenant in settings.tenants.values():
        recorded = "recorded" if tenant.recording.enabled else "not recorded"
        providers = " then ".join(account.provider for _, account in tenant.accounts)
        what, gate = f"visitors on port {tenant.visitor_port}", f", gate {tenant.gate.kind}"
        if tenant.kind == "reception":
            what, gate = f"a reception, callers on port {tenant.visitor_port}", ""
        else:
            what += f", residents on {tenant.resident_port}"
        lines.append(f"{tenant.id} ({tenant.title}): {what}, provider {providers}{gate}, calls {recorded}")
        lines += [
            f"{tenant.id}: {name} may be called for the {' and the '.join(one.roles)}: {one.method} at "
            f"{one.host_and_port[0]}"
            for name, one in tenant.tools.items()
        ]
    return lines
