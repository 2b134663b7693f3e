"""How a request comes to a resource: first who asks, then the body, strictly, and then the resource."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

import orjson
from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response

from bridge.http.access import Guard
from bridge.http.problems import Problem

JSON = "application/json"


class StrictRequest(Request):
    """A request whose JSON is JSON: no NaN, no other encoding than UTF-8."""

    async def json(self) -> Any:
        """The body. Raises :class:`orjson.JSONDecodeError`."""
        return orjson.loads(await self.body())


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
                _check_type(strict)
            return await handle(strict)

        return handle_guarded


def _check_type(request: Request) -> None:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != JSON:
        raise Problem(415, f"content-type: found {kind[:80]!r}; allowed: {JSON}")
