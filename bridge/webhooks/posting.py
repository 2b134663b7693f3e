"""One attempt to tell a tenant's own system of an event: one POST, and what became of it."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping

import httpx2

from bridge.settings import Webhooks
from bridge.webhooks.delivery import Answer
from providers.tls import distrusted, system_tls

LONGEST_AFTER = 6
"""Digits of a ``Retry-After`` that is read."""


def tls_of(webhooks: Webhooks) -> ssl.SSLContext:
    """Whose certificates are believed. Blocks for the disk. Raises OSError: ca_file can't be used."""
    if webhooks.ca_file is None:
        return system_tls()
    return ssl.create_default_context(cafile=str(webhooks.ca_file))


async def post(webhooks: Webhooks, tls: ssl.SSLContext, headers: Mapping[str, str], body: bytes) -> Answer:
    """Send it. No redirect is followed, and nothing of the answer is read but its status and its headers."""
    try:
        async with asyncio.timeout(webhooks.timeout_s):
            return await _ask(webhooks, tls, headers, body)
    except TimeoutError:
        return Answer(False, _late(webhooks))
    except (httpx2.HTTPError, httpx2.InvalidURL, httpx2.StreamError, OSError) as error:
        return Answer(False, _failure(webhooks, error))


async def _ask(webhooks: Webhooks, tls: ssl.SSLContext, headers: Mapping[str, str], body: bytes) -> Answer:
    # trust_env: a proxy or a .netrc of this machine has nothing to say about a tenant's system.
    # timeout: a little before ours; the connection is leaked where a TLS handshake is cancelled from outside.
    limit = 0.9 * webhooks.timeout_s
    async with httpx2.AsyncClient(verify=tls, trust_env=False, timeout=limit) as client:
        usual = {"Content-Type": "application/json", "Accept-Encoding": "identity", "User-Agent": "porteiro"}
        request = client.build_request("POST", webhooks.url, headers={**usual, **headers}, content=body)
        response = await client.send(request, stream=True, follow_redirects=False)
        try:
            return judged(response.status_code, response.headers.get("retry-after", ""))
        finally:
            await response.aclose()


def judged(status: int, retry_after: str) -> Answer:
    """What a status means. ``retry_after``: the header, of which seconds are understood."""
    after = retry_after.strip()
    seconds = float(after) if after.isascii() and after.isdigit() and len(after) <= LONGEST_AFTER else 0.0
    return Answer(200 <= status < 300, f"status {status}", gone=status == 410, after_s=seconds)


def _late(webhooks: Webhooks) -> str:
    return f"no answer in {webhooks.timeout_s:g} s"


def _failure(webhooks: Webhooks, error: Exception) -> str:
    """The class of an error in words; its message may quote the URL, which may hold a token."""
    if isinstance(error, httpx2.ConnectError) and distrusted(error):
        return "its certificate is not trusted"
    if isinstance(error, httpx2.ConnectError | httpx2.ConnectTimeout):
        return "it can't be reached"
    if isinstance(error, httpx2.TimeoutException):
        return _late(webhooks)
    if isinstance(error, httpx2.RemoteProtocolError | httpx2.DecodingError):
        return "its answer can't be read"
    return f"the connection failed ({type(error).__name__})"


__all__ = ["judged", "post", "tls_of"]
