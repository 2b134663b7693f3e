"""The declared tools of one tenant, and what one visit may ask of them."""

from __future__ import annotations

import ssl
import urllib.parse
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from bridge.amqp_address import read_address
from bridge.declared.client import OutsideAnswer, OutsideCall, OutsideTool, Secret, Secrets
from bridge.settings import AmqpGate, AriDialer, DeclaredTool, HttpGate, Tenant
from bridge.settings_problems import SettingsError
from bridge.signing import key_of
from providers.tls import system_tls
from tools.declared import declared_tool
from tools.registry import Registry, porteiro_tools
from visits.events import Role

NOT_IN_A_TEST = {"status": "not_in_a_test", "message": "this is a test call: nothing was done"}
"""What a tool that changes something answers there."""


@dataclass(frozen=True, slots=True)
class OutsideTools:
    """All of one tenant's.

    Attributes:
        rehearsed: for test calls, in which nothing outside is changed.
    """

    tools: Mapping[str, OutsideTool] = field(default_factory=dict)
    rehearsed: bool = False

    def in_rehearsal(self) -> OutsideTools:
        """The same for a test call."""
        return replace(self, rehearsed=True)

    def visit(self) -> VisitCalls:
        """What a new visit asks by."""
        return VisitCalls(self)


class VisitCalls:
    """What one visit has asked so far: one thing at a time, and each tool so often."""

    def __init__(self, outside: OutsideTools) -> None:
        self._outside = outside
        self._made: Counter[str] = Counter()
        self._asking = ""
        """The tool whose answer is awaited."""

    def refusal(self, tool: str) -> Mapping[str, Any] | None:
        """Why a tool is not asked now, as its model is told; None: it may be, and this counts as a call."""
        found = self._outside.tools[tool]
        if self._asking:
            return {"status": "busy", "message": f"one at a time: {self._asking} has not answered yet"}
        if self._made[tool] >= found.declared.calls_per_visit:
            return {"status": "exhausted", "message": "called too often in this visit"}
        if self._outside.rehearsed and not found.only_reads:
            return NOT_IN_A_TEST
        self._made[tool] += 1
        self._asking = tool
        return None

    async def ask(self, call: OutsideCall) -> OutsideAnswer:
        """Carry a call out that was not refused."""
        try:
            return await self._outside.tools[call.tool].ask(call)
        finally:
            self._asking = ""


# --------------------------------------------------------------------------------------------------------
# Out of the settings
# --------------------------------------------------------------------------------------------------------


def registry_of(tenant: Tenant) -> Registry:
    """What the models on a tenant's legs may call."""
    declared = (
        declared_tool(name, one.description, map(Role, one.roles), one.parameters.as_schema)
        for name, one in tenant.tools.items()
    )
    return porteiro_tools(declared, reception=tenant.kind == "reception")


def build_outside(tenant: Tenant, secret: Secret) -> OutsideTools:
    """What carries a tenant's declared tools out. Reads certificates: not for the event loop.

    Raises:
        SettingsError: a secret or a certificate that the settings name can't be used.
    """
    guarded = movers_of_the_gate(tenant, secret)
    return OutsideTools(
        {name: _tool(tenant.id, name, one, secret, guarded) for name, one in tenant.tools.items()}
    )


def _tool(
    tenant: str, name: str, one: DeclaredTool, secret: Secret, guarded: Sequence[tuple[str, int | None]]
) -> OutsideTool:
    where = f"tenants.{tenant}.tools.{name}"
    headers = {header: secret(variable) or "" for header, variable in one.headers_env.items()}
    key = None
    if one.signing_secret_env is not None:
        try:
            key = key_of(secret(one.signing_secret_env) or "")
        except ValueError as error:
            variable = f"the environment variable {one.signing_secret_env}"
            raise SettingsError([f"{where}.signing_secret_env: {variable}; allowed: {error}"]) from None
    return OutsideTool(name, one, Secrets(headers, key), _tls(where, one), guarded)


def _tls(where: str, one: DeclaredTool) -> ssl.SSLContext | bool:
    if one.url.startswith("http://"):
        return False
    if one.ca_file is None:
        return system_tls()
    try:
        return ssl.create_default_context(cafile=str(one.ca_file))
    except OSError as error:
        raise SettingsError([f"{where}.ca_file: {one.ca_file}: can't be used: {error}"]) from None


def movers_of_the_gate(tenant: Tenant, secret: Secret) -> list[tuple[str, int | None]]:
    """(host, port) of all that can move a tenant's gate, where no declared tool ever connects to; None: any.

    The door itself and the broker of a site's door system with all that listens there. Of the PBX only what
    takes orders: a site may have its other services on the same machine.
    """
    found: list[tuple[str, int | None]] = []
    if isinstance(tenant.gate, HttpGate):
        found.append((_host(tenant.gate.url), None))
    if isinstance(tenant.gate, AmqpGate) and (url := secret(tenant.gate.url_env)):
        found.append((read_address(url).host, None))
    urls = [tenant.dialer.url] if isinstance(tenant.dialer, AriDialer) else []
    urls += [tenant.manager.url] if tenant.manager is not None else []
    found += [(_host(url), _port(url)) for url in urls]
    return found + ([(tenant.esl.host, tenant.esl.port)] if tenant.esl is not None else [])


def _host(url: str) -> str:
    return urllib.parse.urlsplit(url).hostname or ""


def _port(url: str) -> int:
    parts = urllib.parse.urlsplit(url)
    return parts.port or (443 if parts.scheme == "https" else 80)


__all__ = ["OutsideTools", "VisitCalls", "build_outside", "movers_of_the_gate", "registry_of"]
