"""The registry of calls: registrations, arrivals and time in any order, held against an oracle."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID, uuid4

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from bridge.calls import (
    AlreadyRegisteredError,
    CallRegistry,
    RegisteredCall,
    TooManyCallsError,
    UnknownTenantError,
    WrongTenantError,
)

NUMBERS = {"jardim": ("9000", "portaria"), "bosque": ("9100",), "sem-numero": ()}
EXPIRES_S = 60.0
MOST = 3


@dataclass(frozen=True)
class Said:
    """What the PBX may say of a call."""

    uuid: UUID
    tenant: str
    dialled: str
    channel: str


uuids = st.sampled_from([UUID(int=number) for number in range(5)])
tenants = st.sampled_from([*NUMBERS, "", "praia"])
dialled = st.sampled_from(["9000", "portaria", "9100", "9200", ""])
channels = st.sampled_from(["", "PJSIP/intercom-00000001"])
things_said = st.builds(Said, uuids, tenants, dialled, channels)


class AnyOrder(RuleBasedStateMachine):
    """The oracle keeps every registration for good, and reckons from them who waits now."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        self.registry = CallRegistry(NUMBERS, expires_s=EXPIRES_S, most=MOST)
        self.noted: dict[UUID, tuple[RegisteredCall, float]] = {}

    def waits(self, uuid: UUID) -> RegisteredCall | None:
        call, at = self.noted.get(uuid, (None, 0.0))
        return call if self.now < at + EXPIRES_S else None

    def meant(self, said: Said) -> str | None:
        if said.tenant:
            return said.tenant if said.tenant in NUMBERS else None
        owners = [tenant for tenant, numbers in NUMBERS.items() if said.dialled in numbers]
        return owners[0] if owners else None

    @rule(seconds=st.floats(0, 2 * EXPIRES_S, allow_nan=False))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(said=things_said)
    def registers(self, said: Said) -> None:
        def register() -> RegisteredCall:
            return self.registry.register(
                said.uuid, tenant=said.tenant, dialled=said.dialled, channel=said.channel, now=self.now
            )

        tenant, known = self.meant(said), self.waits(said.uuid)
        if tenant is None:
            with pytest.raises(UnknownTenantError, match="allowed"):
                register()
        elif known is not None:
            if (known.tenant, known.dialled, known.channel) == (tenant, said.dialled, said.channel):
                assert register() == known  # neither a second one nor a longer one
            else:
                with pytest.raises(AlreadyRegisteredError, match="another call"):
                    register()
        elif sum(self.waits(uuid) is not None for uuid in self.noted) >= MOST:
            with pytest.raises(TooManyCallsError, match=f"allowed are {MOST}"):
                register()
        else:
            call = register()
            assert (call.uuid, call.tenant, call.channel) == (said.uuid, tenant, said.channel)
            assert self.registry.left_s(call, now=self.now) == pytest.approx(EXPIRES_S)
            self.noted[said.uuid] = call, self.now

    @rule(uuid=uuids, tenant=st.sampled_from([*NUMBERS]))
    def a_leg_comes(self, uuid: UUID, tenant: str) -> None:
        known = self.waits(uuid)
        if known is not None and known.tenant != tenant:
            with pytest.raises(WrongTenantError, match=known.tenant):
                self.registry.claim(uuid, tenant, now=self.now)
            return
        assert self.registry.claim(uuid, tenant, now=self.now) == known
        self.noted.pop(uuid, None)

    @invariant()
    def as_many_wait_as_should(self) -> None:
        waiting = self.registry.waiting(now=self.now)
        assert waiting == sum(self.waits(uuid) is not None for uuid in self.noted) <= MOST


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)


def test_the_only_tenant_needs_no_numbers() -> None:
    registry = CallRegistry({"jardim": ()}, expires_s=60, most=1)
    assert registry.register(uuid4(), dialled="anything", now=0).tenant == "jardim"


def test_the_only_tenant_that_names_numbers_has_these_alone() -> None:
    registry = CallRegistry({"jardim": ("9000",)}, expires_s=60, most=1)
    with pytest.raises(UnknownTenantError, match="found '9001' and no tenant; allowed: the numbers"):
        registry.register(uuid4(), dialled="9001", now=0)


def test_a_tenant_that_is_not_there_is_named_with_those_that_are() -> None:
    registry = CallRegistry(NUMBERS, expires_s=60, most=1)
    with pytest.raises(UnknownTenantError, match="found 'praia'; allowed: jardim, bosque, sem-numero"):
        registry.register(uuid4(), tenant="praia", now=0)
