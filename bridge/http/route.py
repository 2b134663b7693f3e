"""How a request comes to a resource: first who asks, then the body, strictly, and then the resource."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final

import orjson
from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response

from bridge.http.access import Guard
from bridge.http.problems import Problem

JSON: Final = "application/json"
LARGE: Final = 64 * 1024
"""Bytes of JSON that take longer to read than anybody's audio may wait."""


class StrictRequest(Request):
    """A request whose JSON is JSON: no NaN, no other encoding than UTF-8."""

    async def json(self) -> Any:
        """The body. Raises :class:`orjson.JSONDecodeError`."""
        body = await self.body()
        # The event loop may carry calls.
        return orjson.loads(body) if len(body) < LARGE else await asyncio.to_thread(orjson.loads, body)


class GuardedRoute(APIRoute):
    """A route whose caller is known before its body is read, let alone judged."""

    @property
    def guards(self) -> list[Guard]:
        """What stands before it; nothing for a resource that anybody may use."""
        return [each.call for each in self.dependant.dependencies if isinstance(each.call, Guard)]

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The handler."""
        handle = super().get_route_handler()
        guards = self.guards
        takes_json = self.body_field is not None

        async def handle_guarded(request: Request) -> Response:
            strict = StrictRequest(request.scope, request.receive)
            for guard in guards:
                await guard(strict)
            if takes_json:
                check_type(strict, (JSON,))
            return await handle(strict)

        return handle_guarded


def check_type(request: Request, allowed: Sequence[str]) -> None:
    """See to it that a body is of one of these types. Raises :class:`Problem`."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in allowed:
        raise Problem(415, f"content-type: found {kind[:80]!r}; allowed: {', '.join(allowed)}")
