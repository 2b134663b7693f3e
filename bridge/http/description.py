"""OpenAPI: what FastAPI knows of the resources, and with it what holds for each of them."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute

from bridge.http.access import COOKIE
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
    for route in routes_of(app):
        if route.include_in_schema:
            for method in route.methods or ():
                _complete(whole["paths"][route.path_format][method.lower()], route)
    return whole


def routes_of(app: FastAPI) -> Iterator[APIRoute]:
    """The resources of an application."""
    yield from (route for route in app.routes if isinstance(route, APIRoute))


def _complete(operation: dict[str, Any], route: APIRoute) -> None:
    guarded = isinstance(route, GuardedRoute) and bool(route.guards)
    always = [429, 503] if guarded else [503]
    if guarded:
        always += [401, 403]
        operation["security"] = [{"key": []}, {"session": []}]
        scopes = [scope for guard in getattr(route, "guards", ()) for scope in guard.scopes]
        roles = [guard.role for guard in getattr(route, "guards", ()) if guard.role != "pbx"]
        needs = ", ".join([*(f"scope `{scope}`" for scope in scopes), *(f"role `{role}`" for role in roles)])
        if needs:
            operation["description"] = f"{operation.get('description', '')}\n\nNeeds {needs}.".strip()
    if "requestBody" in operation:
        always += [400, 408, 413, 415, 422]
    if operation.get("parameters"):
        always += [414, 422] if 414 in _WHY else [422]
    responses: Mapping[str, Any] = {str(k): v for k, v in problems(*always).items()}
    # FastAPI's own 422 is of a shape that we never send.
    operation["responses"] = {**operation["responses"], **responses}
