"""Asks Asterisk's REST interface (ARI): one request, one deadline, and what went wrong in plain words."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx2
import orjson

from providers.tls import system_tls

REQUEST_S = 4.0
"""For one request, from connecting to the end of the answer. A well Asterisk needs 50 ms."""


class AriError(Exception):
    """ARI could not be asked, or refused; the text is for people. `status`: of its answer, 0 without one."""

    def __init__(self, text: str, status: int = 0) -> None:
        self.status = status
        super().__init__(text)


class AriLate(AriError):
    """There was no answer in time: the request may yet be carried out."""


@dataclass(frozen=True, slots=True)
class AriAddress:
    """Where an ARI is, who we are there, and our Stasis application."""

    url: str
    username: str
    password: str
    app: str

    def __repr__(self) -> str:
        return f"AriAddress({self.url}, {self.username}, {self.app})"


def certificates(address: AriAddress) -> ssl.SSLContext | bool:
    """The system's, where they are needed: reading them takes tens of milliseconds."""
    return system_tls() if address.url.startswith("https://") else False


class AriRest:
    """The requests."""

    def __init__(self, address: AriAddress, verify: ssl.SSLContext | bool) -> None:
        self._address = address
        # trust_env: a proxy or a .netrc of this machine has nothing to say about the PBX.
        self._client = httpx2.AsyncClient(
            auth=(address.username, address.password),
            verify=verify,
            trust_env=False,
            timeout=0.9 * REQUEST_S,
        )

    async def close(self) -> None:
        """Let the connections go."""
        await self._client.aclose()

    async def ask(
        self, method: str, path: str, query: Mapping[str, str] | None = None, body: Any = None
    ) -> Any:
        """The JSON that Asterisk answers, or None where it has nothing to say.

        Raises:
            AriError: it did not answer, or not with success.
            AriLate: not in time.
        """
        try:
            async with asyncio.timeout(REQUEST_S):
                answer = await self._client.request(
                    method, self._address.url + path, params=dict(query or {}), json=body
                )
        except (TimeoutError, httpx2.TimeoutException):
            raise AriLate(f"{self.name} gave no answer in {REQUEST_S:g} s") from None
        except (httpx2.HTTPError, httpx2.InvalidURL, httpx2.StreamError, OSError) as error:
            raise AriError(f"{self.name} does not answer: {plain(error)}") from error
        if answer.status_code >= 300:
            raise AriError(self._refusal(answer), answer.status_code)
        try:
            return orjson.loads(answer.content) if answer.content else None
        except orjson.JSONDecodeError:
            raise AriError(f"{self.name} answered with what is no JSON", answer.status_code) from None

    @property
    def name(self) -> str:
        """How people hear of it."""
        return f"ARI at {self._address.url}"

    def _refusal(self, answer: httpx2.Response) -> str:
        return refusal(self.name, self._address.username, answer.status_code, answer.text)


def refusal(name: str, username: str, status: int, text: str = "") -> str:
    """What an answer that is no success means."""
    if status == 401:
        return f"{name} refused the user {username} or its password"
    if status == 403:
        return f"{name} lets the user {username} only read"
    said = " ".join(text.split())[:120]
    return f"{name} answered {status}: {said}" if said else f"{name} answered {status}"


def plain(error: BaseException) -> str:
    """What went wrong on the way, in words; the innermost cause says most."""
    while isinstance(error.__cause__ or error.__context__, Exception):
        inner = error.__cause__ or error.__context__
        assert inner is not None
        error = inner
    if isinstance(error, socket.gaierror):
        return error.strerror or "no such host"
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno)  # asyncio puts a text of its own into strerror
    return str(error) or type(error).__name__
