"""Makes each tenant's dialer from its settings; tenants of one ARI, event socket or broker share it."""

from __future__ import annotations

from collections.abc import Callable
from weakref import WeakValueDictionary

from bridge.amqp import Lease
from bridge.amqp_address import BrokerAddress, read_address
from bridge.dialing.amqp import AmqpDialer
from bridge.dialing.ari import AriDialer
from bridge.dialing.ari_connection import AriConnection
from bridge.dialing.ari_rest import AriAddress
from bridge.dialing.base import Dialer
from bridge.dialing.esl import EslDialer
from bridge.dialing.manual import ManualDialer
from bridge.dialing.simulated import SimulatedDialer
from bridge.esl import EslAddress, EslConnection
from bridge.settings import AmqpDialer as AmqpDialerSettings
from bridge.settings import AriDialer as AriDialerSettings
from bridge.settings import FreeswitchDialer, Tenant
from bridge.settings_problems import SettingsError
from bridge.sound_files import SoundDirectory
from bridge.switchboard import Switchboard, esl_address

Secret = Callable[[str | None], str | None]


class Dialers:
    """Makes dialers, none of them started."""

    def __init__(self) -> None:
        self._connections: WeakValueDictionary[AriAddress, AriConnection] = WeakValueDictionary()
        """As long as a dialer has them."""
        self._sockets: WeakValueDictionary[EslAddress, EslConnection] = WeakValueDictionary()
        """As long as a switchboard has them."""

    def switchboard(self, tenant: Tenant, secret: Secret) -> Switchboard | None:
        """A tenant's FreeSWITCH; None where its settings name no event socket.

        Raises:
            SettingsError: its password is not set, or can be none.
        """
        address = esl_address(tenant, secret)
        if address is None:
            return None
        connection = self._sockets.get(address)
        if connection is None:
            connection = self._sockets[address] = EslConnection(address)
        assert tenant.esl is not None
        assert tenant.freeswitch is not None  # the settings see to it
        files = None
        if tenant.esl.sounds is not None:
            files = SoundDirectory(
                tenant.esl.sounds, tenant.esl.sounds_in_freeswitch or str(tenant.esl.sounds.absolute())
            )
        return Switchboard(connection, tenant.freeswitch.domain_uuid, tenant.attendant, files)

    def build(
        self, tenant: Tenant, secret: Secret, brokers: Lease, switchboard: Switchboard | None = None
    ) -> Dialer:
        """The dialer that a tenant's settings name.

        Args:
            secret: looks an environment variable up (:meth:`Settings.secret`).
            brokers: the service's connections, which a dialer by click-to-call shares with the gates.
            switchboard: the tenant's FreeSWITCH, where it has one.

        Raises:
            SettingsError: a secret is not set, or not what it should be.
        """
        settings = tenant.dialer
        if isinstance(settings, AriDialerSettings):
            address = ari_address(tenant, settings, secret)
            connection = self._connections.get(address)
            if connection is None:
                connection = self._connections[address] = AriConnection(address)
            return AriDialer(settings, connection)
        if isinstance(settings, AmqpDialerSettings):
            return AmqpDialer(settings, brokers.at(_broker(tenant, settings, secret)))
        if isinstance(settings, FreeswitchDialer):
            stream = tenant.freeswitch
            assert switchboard is not None  # the settings see to it
            assert stream is not None
            token = None if stream.token_env is None else secret(stream.token_env) or ""
            return EslDialer(settings, stream, token, tenant.limits.max_visit_s, switchboard.connection)
        return SimulatedDialer() if settings.kind == "simulated" else ManualDialer()


def _broker(tenant: Tenant, settings: AmqpDialerSettings, secret: Secret) -> BrokerAddress:
    try:
        return read_address(secret(settings.url_env) or "", settings.ca_file)
    except ValueError as error:
        where = f"tenants.{tenant.id}.dialer.url_env"
        raise SettingsError([f"{where}: the environment variable {settings.url_env} {error}"]) from None


def ari_address(tenant: Tenant, settings: AriDialerSettings, secret: Secret) -> AriAddress:
    """Where a tenant's ARI is.

    Raises:
        SettingsError: its password is not set.
    """
    password = secret(settings.password_env)
    if password is None:
        where = f"tenants.{tenant.id}.dialer.password_env"
        raise SettingsError(
            [f"{where}: the environment variable {settings.password_env} is not set; put the secret there"]
        )
    return AriAddress(settings.url, settings.username, password, settings.app)
