"""Calls that the PBX has told us of before their audio comes: whose they are, and what only it knows.

AudioSocket carries a UUID and nothing else. What a registration adds (the caller's number, the channel's
name) belongs to the one visitor's leg that comes with that UUID, within a minute or so. No I/O: time is an
argument, in seconds of whatever steady clock the caller keeps to.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID


@dataclass(frozen=True, slots=True)
class RegisteredCall:
    """What the PBX said of a call.

    Attributes:
        uuid: what its audio will come with.
        tenant: the id of the tenant that it is for.
        caller_id: the caller's number; empty where the PBX knows none.
        dialled: the number that was called; empty where it did not say.
        channel: the PBX's name for the caller's channel (`PJSIP/intercom-00000001`); empty where it did not
            say.
        registered_at: when, in seconds of the registry's clock.
        tested_by: the id of the operator whose test call it is; empty: it is a call like any other.
    """

    uuid: UUID
    tenant: str
    caller_id: str = ""
    dialled: str = ""
    channel: str = ""
    registered_at: float = 0.0
    tested_by: str = ""


class RegistrationError(Exception):
    """A call can't be registered, or a leg can't be the registered call's; the text is for the PBX's log."""


class UnknownTenantError(RegistrationError):
    """No tenant is meant, or one that is not there."""


class AlreadyRegisteredError(RegistrationError):
    """The UUID is another call's."""


class TooManyCallsError(RegistrationError):
    """As many calls as may be are registered and have not come."""


class NotTakingCallsError(RegistrationError):
    """No call is taken now: the service starts, or comes to its end."""


class WrongTenantError(RegistrationError):
    """The call came to the port of another tenant than the one that it is registered for."""


class CallRegistry:
    """The calls that are registered and have not come yet.

    Args:
        numbers: the dialled numbers of each tenant, by its id.
        expires_s: for how long a registration holds.
        most: so many may be waiting at the same time.
    """

    def __init__(self, numbers: Mapping[str, Sequence[str]], *, expires_s: float, most: int) -> None:
        self.expires_s = expires_s
        self._most = most
        self._calls: dict[UUID, RegisteredCall] = {}
        """In the order in which they were registered, and so in the order in which they expire."""
        self.assign(numbers)

    def assign(self, numbers: Mapping[str, Sequence[str]]) -> None:
        """Whose numbers are whose from now on. Calls that were registered for who is gone are forgotten."""
        self._tenants = tuple(numbers)
        self._by_number = {number: tenant for tenant, owned in numbers.items() for number in owned}
        self._calls = {uuid: call for uuid, call in self._calls.items() if call.tenant in numbers}

    def register(
        self,
        uuid: UUID,
        *,
        tenant: str = "",
        dialled: str = "",
        caller_id: str = "",
        channel: str = "",
        tested_by: str = "",
        now: float,
    ) -> RegisteredCall:
        """Note a call. The same said twice is one registration, which expires when the first one does.

        Args:
            tenant: the id of a tenant; empty: the one whose number was dialled.

        Raises:
            UnknownTenantError: that names no tenant.
            AlreadyRegisteredError: another call waits under this UUID.
            TooManyCallsError: no more may wait.
        """
        self._expire(now)
        owner = self._tenant(tenant, dialled)
        call = RegisteredCall(uuid, owner, caller_id, dialled, channel, now, tested_by)
        known = self._calls.get(uuid)
        if known is not None:
            if _said(known) != _said(call):
                raise AlreadyRegisteredError(
                    f"uuid: found {uuid}, which is registered for another call; allowed: one uuid a call"
                )
            return known
        if len(self._calls) >= self._most:
            raise TooManyCallsError(
                f"found {len(self._calls)} calls registered that have not come; allowed are {self._most}"
            )
        self._calls[uuid] = call
        return call

    def claim(self, uuid: UUID, tenant: str, *, now: float) -> RegisteredCall | None:
        """The registration of a visitor's leg that has come, which uses it up; None where there is none.

        Args:
            tenant: at whose port it came.

        Raises:
            WrongTenantError: it is registered for another tenant; the registration stays as it is.
        """
        self._expire(now)
        call = self._calls.get(uuid)
        if call is None:
            return None
        if call.tenant != tenant:
            raise WrongTenantError(
                f"found the call {uuid} at {tenant}; it is registered for {call.tenant}: allowed is its port"
            )
        del self._calls[uuid]
        return call

    def owner(self, dialled: str) -> str:
        """The tenant whose number was dialled.

        Raises:
            UnknownTenantError: nobody's.
        """
        return self._tenant("", dialled)

    def left_s(self, call: RegisteredCall, *, now: float) -> float:
        """For how much longer a registration holds, in seconds."""
        return max(0.0, call.registered_at + self.expires_s - now)

    def waiting(self, tenant: str | None = None, *, now: float) -> int:
        """How many calls are registered and have not come, of one tenant or of all."""
        self._expire(now)
        return sum(tenant is None or call.tenant == tenant for call in self._calls.values())

    def _tenant(self, tenant: str, dialled: str) -> str:
        if tenant:
            if tenant not in self._tenants:
                raise UnknownTenantError(f"tenant: found {tenant!r}; allowed: {', '.join(self._tenants)}")
            return tenant
        if dialled in self._by_number:
            return self._by_number[dialled]
        if not self._by_number and len(self._tenants) == 1:
            return self._tenants[0]  # it can be meant for nobody else
        allowed = (
            "the numbers of a tenant's setting `numbers`" if self._by_number else "none without `tenant`"
        )
        raise UnknownTenantError(f"dialled: found {dialled!r} and no tenant; allowed: {allowed}")

    def _expire(self, now: float) -> None:
        while self._calls:
            oldest = next(iter(self._calls.values()))
            if self.left_s(oldest, now=now) > 0:
                return
            del self._calls[oldest.uuid]


def _said(call: RegisteredCall) -> tuple[str, ...]:
    return call.tenant, call.caller_id, call.dialled, call.channel, call.tested_by


__all__ = [
    "AlreadyRegisteredError",
    "CallRegistry",
    "NotTakingCallsError",
    "RegisteredCall",
    "RegistrationError",
    "TooManyCallsError",
    "UnknownTenantError",
    "WrongTenantError",
]
