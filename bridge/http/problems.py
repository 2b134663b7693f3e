"""What is answered where a request is not carried out: JSON that says what was found and what is allowed."""

from __future__ import annotations

import http
from collections.abc import Mapping, Sequence
from typing import Any, Final, TypedDict

import structlog
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from storage.base import StorageError, StorageRefused, StorageTimeout, StorageUnavailable
from storage.catalogue import AlreadyThere, Conflict, NotThere

MEDIA_TYPE = "application/problem+json"
"""RFC 9457."""

log = structlog.get_logger(__name__)

_SHOWN: Final = 80
"""How much of what was found is said again, in characters."""
_SECRET: Final = ("password", "secret", "token", "key")
"""What stands in a field of such a name is not said again."""


class FieldProblem(TypedDict):
    """One thing that is wrong in what was sent."""

    field: str
    """Where, with dots between the names; "" for the whole."""
    detail: str


class Problem(HTTPException):
    """Ends a request.

    Args:
        status: an HTTP status, 400 or above.
        detail: what was found and what is allowed, for whoever asked.
        headers: further ones of the answer.
        problems: the same by field, where there are several.
    """

    def __init__(
        self,
        status: int,
        detail: str,
        headers: Mapping[str, str] | None = None,
        problems: Sequence[FieldProblem] = (),
    ) -> None:
        super().__init__(status, detail, headers)
        self.problems = tuple(problems)

    def __str__(self) -> str:
        """What is wrong."""
        return self.detail

    @property
    def status(self) -> int:
        """The HTTP status."""
        return self.status_code

    def answer(self) -> Response:
        """As it is sent."""
        title = http.HTTPStatus(self.status).phrase
        content: dict[str, Any] = {"title": title, "status": self.status, "detail": self.detail}
        if self.problems:
            content["problems"] = self.problems
        return JSONResponse(content, self.status, self.headers, MEDIA_TYPE)


def refused_fields(problems: Sequence[FieldProblem]) -> Problem:
    """The 422 that names each field with what is wrong in it."""
    said = "; ".join(
        f"{one['field']}: {one['detail']}" if one["field"] else one["detail"] for one in problems
    )
    return Problem(422, said, problems=problems)


async def of_problem(_: Request, error: Exception) -> Response:
    """The answer to a request that we ended."""
    assert isinstance(error, Problem)
    return error.answer()


async def of_routing(request: Request, error: Exception) -> Response:
    """The answer to a request that leads nowhere: 404, 405."""
    assert isinstance(error, HTTPException)
    headers = dict(error.headers or {})
    if error.status_code == 405 and (methods := request.scope["porteiro.methods"].of(request.url.path)):
        headers["Allow"] = ", ".join(methods)
    found = f"found {request.method} {request.url.path[:_SHOWN]!r}"
    allowed = f"; allowed: {headers['Allow']}" if "Allow" in headers else ""
    return Problem(error.status_code, f"{found}{allowed}", headers).answer()


async def of_validation(_: Request, error: Exception) -> Response:
    """The answer to a request whose fields are not what they may be."""
    assert isinstance(error, RequestValidationError)
    errors = error.errors()
    if any(one["type"] == "json_invalid" for one in errors):
        return Problem(400, "found a body that is not valid JSON; allowed: JSON in UTF-8").answer()
    return refused_fields([_field_problem(one) for one in errors]).answer()


def _field_problem(error: Mapping[str, Any]) -> FieldProblem:
    place = ".".join(str(part)[:_SHOWN] for part in error["loc"][1:])
    said = error["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    if error["type"] == "extra_forbidden":
        return {"field": place, "detail": "there is no such field; allowed: those of /v1/openapi.json"}
    if error["type"] == "missing":
        return {"field": place, "detail": "found nothing; it must be given"}
    found = error.get("input")
    named_secret = any(word in place.lower() for word in _SECRET)
    if isinstance(found, (str, int, float, bool)) and not named_secret:
        said = f"found {found!r:.{_SHOWN}}; allowed: {said}"
    return {"field": place, "detail": said}


async def of_storage(_: Request, error: Exception) -> Response:
    """The answer where the database can't be asked, or refuses."""
    assert isinstance(error, StorageError)
    if isinstance(error, StorageRefused):
        return Problem(refusal(error), str(error)).answer()
    log.warning("http.storage_failed", error=str(error))
    if isinstance(error, StorageTimeout):
        return Problem(503, "the database did not answer in time; whether it was done is not known").answer()
    if isinstance(error, StorageUnavailable):
        return Problem(503, "the database can't be reached now", {"Retry-After": "5"}).answer()
    return await of_fault(_, error)


def refusal(error: StorageRefused) -> int:
    """The status that says why the catalogue, or a list, refused something."""
    match error:
        case NotThere():
            return 404
        case AlreadyThere():
            return 409
        case Conflict():
            return 412
        case _:
            return 422


async def of_fault(_: Request, __: Exception) -> Response:
    """The answer where we failed; the log has the rest."""
    return Problem(500, "the service failed at this request; its log says how").answer()
