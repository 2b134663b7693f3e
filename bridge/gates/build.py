"""Makes the gate that a tenant's settings describe."""

from __future__ import annotations

import ssl
from collections.abc import Callable

from bridge.amqp import Lease
from bridge.amqp_address import read_address
from bridge.asterisk_manager import build_manager
from bridge.gates.amqp import AmqpGate
from bridge.gates.base import Gate
from bridge.gates.dtmf import DtmfGate
from bridge.gates.http import HttpGate
from bridge.gates.record import RecordGate
from bridge.pbx import DigitsByPbx, PlaysDigits
from bridge.settings import AmqpGate as AmqpGateSettings
from bridge.settings import DtmfGate as DtmfGateSettings
from bridge.settings import RecordGate as RecordGateSettings
from bridge.settings import Tenant
from bridge.settings_problems import SettingsError


def build_gate(
    tenant: Tenant,
    secret: Callable[[str | None], str | None],
    brokers: Lease,
    freeswitch: PlaysDigits | None = None,
) -> Gate:
    """The gate of ``tenant``.

    Args:
        secret: looks an environment variable up (:meth:`Settings.secret`).
        brokers: the service's connections.
        freeswitch: the tenant's, where it has one.

    Raises:
        SettingsError: a secret is not set or not what it should be, or a certificate can't be read.
    """
    if isinstance(tenant.gate, RecordGateSettings):
        return RecordGate()
    missing = [
        f"tenants.{tenant.id}.{setting}: the environment variable {variable} is not set; put the secret there"
        for setting, variable in tenant.secret_variables
        if setting.startswith("gate.") and secret(variable) is None
    ]
    if missing:
        raise SettingsError(missing)
    if isinstance(tenant.gate, AmqpGateSettings):
        try:
            address = read_address(secret(tenant.gate.url_env) or "", tenant.gate.ca_file)
        except ValueError as error:
            where = f"tenants.{tenant.id}.gate.url_env"
            raise SettingsError(
                [f"{where}: the environment variable {tenant.gate.url_env} {error}"]
            ) from None
        return AmqpGate(tenant.gate, brokers.at(address))
    if isinstance(tenant.gate, DtmfGateSettings):
        return DtmfGate(tenant.gate, DigitsByPbx(build_manager(tenant, secret), freeswitch))
    try:
        return HttpGate(tenant.gate, secret)
    except (OSError, ssl.SSLError) as error:
        found = f"tenants.{tenant.id}.gate.ca_file: {tenant.gate.ca_file}: can't be used: {error}"
        raise SettingsError([f"{found}; allowed: a PEM file with certificates"]) from None
