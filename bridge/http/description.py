"""OpenAPI: what FastAPI knows of the resources, and with it what holds for each of them."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute, iter_route_contexts
from starlette.routing import compile_path

from bridge.http.access import COOKIE, Guard
from bridge.http.problems import MEDIA_TYPE
from bridge.http.route import GuardedRoute

PATH: Final = "/v1/openapi.json"

_PROBLEM: Final = {
    "type": "object",
    "description": "Why a request was not carried out (RFC 9457).",
    "required": ["title", "status", "detail"],
    "properties": {
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string", "description": "What was found, and what is allowed."},
        "problems": {
            "type": "array",
            "description": "The same by field, where fields are wrong.",
            "items": {
                "type": "object",
                "required": ["field", "detail"],
                "properties": {"field": {"type": "string"}, "detail": {"type": "string"}},
            },
        },
    },
}
_WHY: Final = {
    400: "The request can't be read",
    401: "No valid key or session",
    403: "The key or session may not do this, or a page elsewhere sent it",
    404: "There is none, or it is not the caller's",
    408: "The body came too slowly",
    409: "It contradicts what is there",
    412: "Somebody else changed it meanwhile",
    413: "The body is too long",
    414: "The query is too long",
    415: "The body is of another type",
    416: "No such part",
    422: "A field is not what it may be",
    428: "The request must say which version it has seen",
    429: "Too many requests at once, or too many wrong log-ins",
    503: "Not now",
}
_SCHEMES: Final = {
    "key": {"type": "http", "scheme": "bearer", "description": "An API key: `porteiro_…`"},
    "session": {
        "type": "apiKey",
        "in": "cookie",
        "name": COOKIE,
        "description": (
            "An operator's session, begun by `POST /v1/login`; over HTTPS the cookie is "
            "`__Host-porteiro_session`. Whatever changes something also brings `X-CSRF-Token` and `Origin`."
        ),
    },
}


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a resource that may answer with these problems, beside those of all."""
    schema = {"$ref": "#/components/schemas/Problem"}
    return {
        status: {"description": _WHY[status], "content": {MEDIA_TYPE: {"schema": schema}}}
        for status in statuses
    }


def describe(app: FastAPI) -> dict[str, Any]:
    """The description of all resources."""
    whole = get_openapi(
        title="Porteiro",
        version=version("porteiro"),
        description="The doorman's calls, visits, audit log, tenants and directories. See docs/api.md.",
        routes=app.routes,
    )
    schemas = whole.setdefault("components", {}).setdefault("schemas", {})
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    schemas["Problem"] = copy.deepcopy(_PROBLEM)
    whole["components"]["securitySchemes"] = copy.deepcopy(_SCHEMES)
    for resource in resources(app):
        if resource.route.include_in_schema:
            _complete(whole["paths"][resource.path][resource.method.lower()], resource)
    return whole


@dataclass(frozen=True, slots=True)
class Resource:
    """One method of one path."""

    method: str
    path: str
    route: APIRoute

    @property
    def guards(self) -> list[Guard]:
        """What stands before it; nothing where anybody may use it."""
        return self.route.guards if isinstance(self.route, GuardedRoute) else []


def resources(app: FastAPI) -> Iterator[Resource]:
    """All resources of an application, but for the pages."""
    for context in iter_route_contexts(app.routes):
        route = context.original_route
        if isinstance(route, APIRoute) and context.path_format is not None:
            for method in sorted(context.methods or ()):
                yield Resource(method, context.path_format, route)


class Methods:
    """Which methods each path has: a router knows those of one route alone, and each method has one."""

    def __init__(self, app: FastAPI) -> None:
        self._paths: dict[str, set[str]] = {}
        for resource in resources(app):
            self._paths.setdefault(resource.path, set()).add(resource.method)
        self._patterns = {path: compile_path(path)[0] for path in self._paths}

    def of(self, path: str) -> list[str]:
        """Those of what is asked for by this path; none where it leads nowhere."""
        for of_path, pattern in self._patterns.items():
            if pattern.match(path):
                return sorted(self._paths[of_path])
        return []


def _complete(operation: dict[str, Any], resource: Resource) -> None:
    guarded = bool(resource.guards)
    always: list[int] = []
    if guarded:
        always += [401, 403, 429, 503]
        operation["security"] = [{"key": []}, {"session": []}]
        scopes = [scope for guard in resource.guards for scope in guard.scopes]
        roles = [guard.role for guard in resource.guards if guard.role != "pbx"]
        needs = ", ".join([*(f"scope `{scope}`" for scope in scopes), *(f"role `{role}`" for role in roles)])
        if needs:
            operation["description"] = f"{operation.get('description', '')}\n\nNeeds {needs}.".strip()
    if "requestBody" in operation:
        always += [400, 408, 413, 415, 422]
    if operation.get("parameters"):
        always += [400, 414, 422]
    common = {str(status): said for status, said in problems(*always).items()}
    own = {str(status) for status in resource.route.responses}
    # FastAPI's own 422 is of a shape that we never send.
    told = {
        status: said for status, said in operation["responses"].items() if status != "422" or status in own
    }
    operation["responses"] = {**common, **told}
