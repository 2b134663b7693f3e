"""A door controller with an HTTP interface: one templated request, and what its answer means.

No request is ever repeated. A gate that toggles opens at the first and closes at the second, so the only
second request there is follows a digest challenge (RFC 7616), whose 401 says that the first did nothing.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import httpx2

from bridge.gates.base import GateAnswer, GateOrder
from bridge.gates.template import fill
from bridge.settings import GateSuccess
from bridge.settings import HttpGate as HttpGateSettings
from providers.tls import distrusted, system_tls

MAX_BODY = 64 * 1024
"""Bytes of an answer that are read; a door has less to say."""

CONTENT_TYPES = {
    "json": "application/json",
    "form": "application/x-www-form-urlencoded",
    "xml": "application/xml",
    "text": "text/plain; charset=utf-8",
}


@dataclass(slots=True)
class _Attempt:
    """How far an order has come."""

    sent: bool = False
    """Something of a request that could open the door has left."""


class HttpGate:
    """Opens a door with one HTTP request."""

    def __init__(self, settings: HttpGateSettings, secret: Callable[[str | None], str | None]) -> None:
        self._settings = settings
        self._username = secret(settings.auth.username_env) or ""
        self._password = secret(settings.auth.password_env) or ""
        self._secret_headers = {name: secret(var) or "" for name, var in settings.headers_env.items()}
        # Once: reading the system's certificates takes tens of milliseconds, which running calls would hear.
        self._tls = tls_context(settings)

    async def open(self, order: GateOrder) -> GateAnswer:
        """See :class:`bridge.gates.base.Gate`."""
        began = time.perf_counter()
        attempt = _Attempt()
        try:
            async with asyncio.timeout(self._settings.timeout_s):
                opened, detail, unknown = await self._ask(order, attempt)
        except TimeoutError:
            opened, detail, unknown = False, self._late(), attempt.sent
        except (httpx2.HTTPError, httpx2.InvalidURL, httpx2.StreamError, OSError) as error:
            opened, detail, unknown = False, self._failure(error), attempt.sent
        return GateAnswer(opened, detail, round((time.perf_counter() - began) * 1000), unknown)

    async def _ask(self, order: GateOrder, attempt: _Attempt) -> tuple[bool, str, bool]:
        """(opened, detail, unknown)"""
        # trust_env: a proxy or a .netrc of this machine has nothing to say about a device in the building.
        # timeout: its own, a little before ours, since it leaks the connection where a TLS handshake is
        # cancelled from outside, and tidies up where its own time is over.
        limit = 0.9 * self._settings.timeout_s
        async with httpx2.AsyncClient(verify=self._tls, trust_env=False, timeout=limit) as client:
            request = self._request(client, order, attempt)
            auth = self._auth()
            flow = auth.auth_flow(request)
            status, headers, body = await self._send(client, next(flow))
            if status == 401 and self._settings.auth.kind == "digest":
                attempt.sent = False
                challenge = httpx2.Response(status, headers=headers, request=request)
                try:
                    answered = flow.send(challenge)
                except StopIteration:
                    return False, "the device refused us (401) without a digest challenge", False
                except (
                    httpx2.ProtocolError,
                    ValueError,
                    NotImplementedError,
                ):  # the last: qop="auth-int" alone
                    return False, "the device's digest challenge can't be read", False
                status, headers, body = await self._send(client, answered)
        return judge(self._settings.success, status, body)

    def _late(self) -> str:
        return f"no answer in {self._settings.timeout_s:g} s"

    def _failure(self, error: Exception) -> str:
        """The class of an error in words; its message may quote the URL, which may hold a password."""
        if isinstance(error, httpx2.ConnectError) and distrusted(error):
            return "the device's certificate is not trusted"
        if isinstance(error, httpx2.ConnectError | httpx2.ConnectTimeout):
            return "the device can't be reached"
        if isinstance(error, httpx2.TimeoutException):
            return self._late()
        if isinstance(error, httpx2.RemoteProtocolError | httpx2.DecodingError):
            return "the device's answer can't be read"
        return f"the connection failed ({type(error).__name__})"

    def _auth(self) -> httpx2.Auth:
        """A fresh one for each order: a remembered challenge is one more way to fail."""
        if self._settings.auth.kind == "basic":
            return httpx2.BasicAuth(self._username, self._password)
        if self._settings.auth.kind == "digest":
            return httpx2.DigestAuth(self._username, self._password)
        return httpx2.Auth()

    def _request(self, client: httpx2.AsyncClient, order: GateOrder, attempt: _Attempt) -> httpx2.Request:
        values = {
            "visit": order.visit,
            "apartment": order.apartment,
            "tenant": order.tenant,
            "at": order.at.isoformat(timespec="seconds"),
            "username": self._username,
            "password": self._password,
        }

        async def trace(event: str, _: Mapping[str, Any]) -> None:
            if event.endswith("send_request_headers.started"):
                attempt.sent = True

        settings = self._settings
        headers = {"Accept-Encoding": "identity", "User-Agent": "porteiro"}
        if settings.body:
            headers["Content-Type"] = CONTENT_TYPES[settings.body_kind]
        headers |= {name: fill(text, values, "header") for name, text in settings.headers.items()}
        headers |= self._secret_headers
        return client.build_request(
            settings.method,
            fill(settings.url, values, "url"),
            headers=headers,
            content=fill(settings.body, values, settings.body_kind).encode() if settings.body else None,
            extensions={"trace": trace},
        )

    @staticmethod
    async def _send(client: httpx2.AsyncClient, request: httpx2.Request) -> tuple[int, httpx2.Headers, bytes]:
        response = await client.send(request, stream=True, auth=None, follow_redirects=False)
        body = bytearray()
        try:
            async for chunk in response.aiter_bytes():
                body += chunk[: MAX_BODY - len(body)]
                if len(body) >= MAX_BODY:
                    break
        finally:
            await response.aclose()
        return response.status_code, response.headers, bytes(body)


def judge(success: GateSuccess, status: int, body: bytes) -> tuple[bool, str, bool]:
    """(opened, detail, unknown) of an answer that came whole.

    Unknown is what the device did where neither its success nor a plain refusal was said: another 2xx, a
    redirect (devices redirect after they acted), a fault of its own (5xx), a body that is not the JSON that
    was expected.
    """
    if status not in success.status:
        return False, f"the device answered {status}", not 400 <= status < 500
    text = body.decode("utf-8", "replace")
    if success.body_contains and success.body_contains not in text:
        return False, f"the device answered {status}, but not with the words that mean success", False
    if success.json_path:
        try:
            found = at_path(json.loads(text), success.json_path)
        except (ValueError, RecursionError):
            return False, f"the device answered {status} with a body that is not JSON", True
        if not _same(found, success.json_equals):
            return (
                False,
                f"the device answered {status}, but {success.json_path} does not mean success",
                False,
            )
    return True, f"the device answered {status}", False


def at_path(document: Any, path: str) -> Any:
    """What stands at `a.0.b` in a JSON document; None where nothing does."""
    here = document
    for step in path.split("."):
        if isinstance(here, dict):
            here = here.get(step)
        elif isinstance(here, list) and step.isascii() and step.isdigit() and int(step) < len(here):
            here = here[int(step)]
        else:
            return None
    return here


def _same(found: Any, wanted: Any) -> bool:
    """Equal and of the same kind: in Python alone 1 is True, in JSON it is not."""
    return found == wanted and isinstance(found, bool) == isinstance(wanted, bool)


def tls_context(settings: HttpGateSettings) -> ssl.SSLContext:
    """Whose certificates we believe.

    Raises:
        OSError: ca_file can't be used.
    """
    if settings.verify_tls and settings.ca_file is None:
        return system_tls()
    context = ssl.create_default_context(cafile=str(settings.ca_file) if settings.ca_file else None)
    if not settings.verify_tls:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
