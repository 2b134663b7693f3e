"""`POST /v1/calls`: registers a call before its audio comes."""

from __future__ import annotations

from typing import Annotated, Any, Protocol
from uuid import UUID

import structlog
from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError

from bridge.calls import (
    AlreadyRegisteredError,
    NotTakingCallsError,
    RegisteredCall,
    RegistrationError,
    TooManyCallsError,
)
from bridge.http.access import Caller, allowed
from bridge.http.description import problems
from bridge.http.fields import FORM, JSON, read_fields
from bridge.http.problems import Problem
from bridge.http.route import GuardedRoute

log = structlog.get_logger(__name__)

# No control characters of either set, no other line ends, nothing that turns the direction of writing: a
# terminal that shows the log would obey them.
WORD = r"^[^\x00-\x20\x7f-\xa0\u2028-\u202e\u2066-\u2069]*$"
TEXT = r"^[^\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]*$"
Word = Annotated[str, StringConstraints(pattern=WORD, max_length=80)]
Text = Annotated[str, StringConstraints(pattern=TEXT, max_length=80)]
# A channel's name is handed to the Asterisk Manager, whose lines it must not break.
Channel = Annotated[str, StringConstraints(pattern=WORD, max_length=255)]

ALLOWED = {
    "uuid": "a UUID, such as 3f0d9a52-7c51-4f0e-9d43-6a1d2a6f7f10",
    "tenant": "a tenant's id",
    "dialled": "up to 80 characters without spaces",
    "caller_id": "up to 80 characters of one line",
    "channel": "up to 255 characters without spaces, as Asterisk's ${CHANNEL}",
}


class Registration(BaseModel):
    """What the PBX says of a call; an empty text says nothing."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    uuid: UUID
    tenant: Word = ""
    dialled: Word = ""
    caller_id: Text = ""
    channel: Channel = ""


class Registrar(Protocol):
    """Who keeps the registered calls."""

    def register_call(self, registration: Registration) -> tuple[RegisteredCall, float]:
        """Note a call; also for how much longer that holds, in seconds.

        Raises:
            RegistrationError: it can't be.
        """


class Registered(BaseModel):
    """A call that is expected."""

    uuid: UUID
    tenant: str
    expires_in_s: float


def router(registrar: Registrar) -> APIRouter:
    """The resources of this file."""
    routes = APIRouter(tags=["calls"], route_class=GuardedRoute)
    schema = {"schema": Registration.model_json_schema()}
    body = {"required": True, "content": {JSON: schema, FORM: schema}}

    @routes.post("/calls", status_code=201, responses=problems(409, 422), openapi_extra={"requestBody": body})
    async def register(request: Request, caller: Annotated[Caller, allowed("calls:write")]) -> Registered:
        """Register a call before its audio comes: JSON, or a form as the dialplan's CURL() sends it."""
        registration = read_registration(await read_fields(request))
        if caller.tenant is not None:
            registration = of_tenant(registration, caller.tenant)
        try:
            call, left_s = registrar.register_call(registration)
        except RegistrationError as error:
            log.warning("call.not_registered", call_id=str(registration.uuid), reason=str(error))
            raise Problem(status_of(error), str(error)) from None
        return Registered(uuid=call.uuid, tenant=call.tenant, expires_in_s=round(left_s, 1))

    return routes


def of_tenant(registration: Registration, tenant: str) -> Registration:
    """The registration by somebody who may register this tenant's calls alone.

    Raises:
        Problem: it names another; which others there are is not said.
    """
    if registration.tenant not in ("", tenant):
        raise Problem(422, f"tenant: found {registration.tenant!r}; allowed: {tenant}")
    return registration.model_copy(update={"tenant": tenant})


def read_registration(fields: dict[str, Any]) -> Registration:
    """A registration out of a body's fields.

    Raises:
        Problem: with everything that is wrong.
    """
    try:
        return Registration.model_validate(fields)
    except ValidationError as error:
        wrong = dict.fromkeys(str(one["loc"][0]) for one in error.errors(include_url=False))
        raise Problem(422, "; ".join(_complaint(name, fields) for name in wrong)) from None


def _complaint(name: str, fields: dict[str, Any]) -> str:
    if name not in ALLOWED:
        return f"found the field {name[:40]!r}; allowed are {', '.join(ALLOWED)}"
    found = repr(fields[name])[:80] if name in fields else "nothing"
    return f"{name}: found {found}; allowed: {ALLOWED[name]}"


def status_of(error: RegistrationError) -> int:
    """The HTTP status that says why a call was not registered."""
    match error:
        case AlreadyRegisteredError():
            return 409
        case TooManyCallsError() | NotTakingCallsError():
            return 503
        case _:
            return 422
