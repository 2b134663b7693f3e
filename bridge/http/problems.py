"""What is answered where a request is not carried out: JSON that says what was found and what is allowed."""

from __future__ import annotations

import http
from collections.abc import Mapping

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

MEDIA_TYPE = "application/problem+json"
"""RFC 9457."""


class Problem(Exception):
    """Ends a request.

    Args:
        status: an HTTP status, 400 or above.
        detail: what was found and what is allowed, for whoever asked.
        headers: further ones of the answer.
    """

    def __init__(self, status: int, detail: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.headers = headers

    def answer(self) -> Response:
        """As it is sent."""
        title = http.HTTPStatus(self.status).phrase
        content = {"title": title, "status": self.status, "detail": self.detail}
        return JSONResponse(content, self.status, self.headers, MEDIA_TYPE)


async def of_problem(_: Request, error: Exception) -> Response:
    """The answer to a request that we ended."""
    assert isinstance(error, Problem)
    return error.answer()


async def of_routing(request: Request, error: Exception) -> Response:
    """The answer to a request that leads nowhere: 404, 405."""
    assert isinstance(error, HTTPException)
    headers = error.headers
    found = f"found {request.method} {request.url.path[:80]!r}"
    allowed = f"; allowed: {headers['Allow']}" if headers and "Allow" in headers else ""
    return Problem(error.status_code, f"{found}{allowed}", headers).answer()


async def of_fault(_: Request, __: Exception) -> Response:
    """The answer where we failed; the log has the rest."""
    return Problem(500, "the service failed at this request; its log says how").answer()
