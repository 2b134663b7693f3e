"""Reads a request's body, JSON or a form, into named texts: with a deadline and a limit."""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import parse_qsl

import orjson
from starlette.requests import ClientDisconnect, Request

from bridge.http.problems import Problem

MAX_BYTES = 4096
"""Of a body."""
READ_S = 5.0
"""For a body to come."""
JSON = "application/json"
FORM = "application/x-www-form-urlencoded"


async def read_fields(request: Request) -> dict[str, Any]:
    """The fields of a body.

    Raises:
        Problem: it is too large or too slow, of another type, or not what its type says.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in (JSON, FORM):
        raise Problem(415, f"content-type: found {kind[:80]!r}; allowed: {JSON} and {FORM}")
    body = await _read(request)
    return _of_json(body) if kind == JSON else _of_form(body)


async def _read(request: Request) -> bytes:
    too_large = Problem(413, f"found a body of more than {MAX_BYTES} bytes; allowed are {MAX_BYTES}")
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced[:12]) > MAX_BYTES:
        raise too_large
    body = bytearray()
    try:
        async with asyncio.timeout(READ_S):
            async for chunk in request.stream():
                body += chunk
                if len(body) > MAX_BYTES:
                    raise too_large
    except TimeoutError:
        raise Problem(408, f"found {len(body)} bytes of a body; allowed are {READ_S:g} s for it") from None
    except ClientDisconnect:
        raise Problem(400, "the connection ended within the body") from None
    return bytes(body)


def _of_json(body: bytes) -> dict[str, Any]:
    try:
        fields = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise Problem(400, f"found a body that is not valid JSON: {error}") from None
    if not isinstance(fields, dict):
        raise Problem(400, f"found JSON of another kind ({type(fields).__name__}); allowed: an object")
    return fields


def _of_form(body: bytes) -> dict[str, Any]:
    try:
        # As the dialplan's CURL() sends it: ASCII, with the rest of UTF-8 as %XX.
        pairs = parse_qsl(
            body.decode("ascii"),
            keep_blank_values=True,
            strict_parsing=bool(body),
            errors="strict",
            max_num_fields=32,
        )
    except ValueError as error:
        raise Problem(400, f"found a body that is not a form ({type(error).__name__})") from None
    fields = dict(pairs)
    if len(fields) < len(pairs):
        raise Problem(400, "found a field twice; allowed: each once")
    return fields
