"""Asks the Asterisk Manager (AMI) for what ARI can't do: act on a channel that is in the dialplan.

A visitor's channel stands in `AudioSocket()` or `Dial()`, not in Stasis, so ARI answers 409 for it. The
Manager acts on any channel. It is asked over Asterisk's own web server (`/arawman`, manager.conf
`webenabled`), one request an action, with digest authentication (RFC 7616): the password never travels, and
no connection is kept that could be half dead when a gate waits. The facts here were measured with Asterisk
22.10.
"""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx2

from bridge.pbx import PbxError
from bridge.settings import Tenant
from bridge.settings_problems import SettingsError
from providers.tls import system_tls

ANSWER_S = 2.0
"""For one action, from connecting to the end of the answer, beside the time that the action itself takes.
A well Asterisk needs 5 ms."""
MAX_ANSWER = 64 * 1024
"""Bytes of an answer that are read; the longest we ask for is the list of actions, some 10 KB."""
DIGITS = frozenset("0123456789*#ABCD")
"""What PlayDTMF plays. Of anything else Asterisk says "Success" and plays nothing."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


class ManagerError(PbxError):
    """An action was not carried out, or nobody knows.

    Attributes:
        status: of the HTTP answer; 0 without one, 200 where the Manager itself refused.
    """

    def __init__(self, text: str, *, status: int = 0, unknown: bool = False) -> None:
        super().__init__(text, unknown=unknown)
        self.status = status


@dataclass(frozen=True, slots=True)
class ManagerAddress:
    """Where a Manager is, and who we are there. `url`: of Asterisk's web server, without a path or with
    http.conf's `prefix`."""

    url: str
    username: str
    password: str = field(repr=False)


@dataclass(slots=True)
class _Attempt:
    """How far a request has come."""

    sent: bool = False
    """Something of a request that could be carried out has left."""


class AsteriskManager:
    """The actions that we need. Nothing is kept between two of them: nothing is to be started or closed."""

    def __init__(self, address: ManagerAddress) -> None:
        self._address = address
        # Once: reading the system's certificates takes tens of milliseconds, which running calls would hear.
        self._tls: ssl.SSLContext | bool = system_tls() if address.url.startswith("https://") else False

    @property
    def name(self) -> str:
        """How people hear of it."""
        return f"the Asterisk Manager at {self._address.url}"

    async def play_digit(self, channel: str, digit: str, duration_ms: int) -> None:
        """Play one DTMF digit to whoever is on a channel, and return when it has ended. Never tried twice.

        Asterisk answers when the digit is over, and sends no sound meanwhile on a channel with RFC 4733
        events: what is being said can't mask it.

        Raises:
            ManagerError: it was not played, or nobody knows.
            ValueError: there is no such digit.
        """
        if len(digit) != 1 or digit not in DIGITS:
            raise ValueError(f"the digit {digit!r}; allowed: one of {''.join(sorted(DIGITS))}")
        fields = {"Channel": channel, "Digit": digit, "Duration": str(duration_ms)}
        await self._act("PlayDTMF", fields, ANSWER_S + duration_ms / 1000)

    async def set_variable(self, channel: str, name: str, value: str) -> None:
        """Set a variable of a channel. Tried again where the answer was lost: twice set is once set.

        Raises:
            ManagerError: it was not set, or nobody knows.
        """
        fields = {"Channel": channel, "Variable": name, "Value": value}
        try:
            await self._act("Setvar", fields, ANSWER_S)
        except ManagerError as error:
            if not error.unknown:
                raise
            await self._act("Setvar", fields, ANSWER_S)

    async def actions(self) -> frozenset[str]:
        """The actions that our user may ask for.

        Raises:
            ManagerError: it did not answer.
        """
        return frozenset(await self._act("ListCommands", {}, ANSWER_S)) - {"Response"}

    async def _act(self, action: str, fields: Mapping[str, str], limit_s: float) -> Mapping[str, str]:
        """What the Manager answers to one action.

        Raises:
            ManagerError: it did not answer in time, or not with success.
        """
        for name, value in fields.items():
            # Setvar without a channel would set a global variable; a line end would begin another header.
            if not value and name == "Channel":
                raise ManagerError("no channel is known to act on")
            if _CONTROL.search(value):
                raise ManagerError(f"{action} is not asked for with a control character in its {name}")
        attempt = _Attempt()
        try:
            async with asyncio.timeout(limit_s):
                status, body = await self._ask({"Action": action, **fields}, attempt, limit_s)
        except (TimeoutError, httpx2.TimeoutException):
            raise ManagerError(f"{self.name} gave no answer in {limit_s:g} s", unknown=attempt.sent) from None
        except (httpx2.HTTPError, httpx2.StreamError, OSError) as error:
            text = f"{self.name} does not answer: {_plain(error)}"
            raise ManagerError(text, unknown=attempt.sent) from error
        return self._judge(action, status, body)

    async def _ask(self, fields: Mapping[str, str], attempt: _Attempt, limit_s: float) -> tuple[int, str]:
        """(status, body) of the answer to a request that follows the digest challenge."""

        async def trace(event: str, _: Mapping[str, Any]) -> None:
            if event.endswith("send_request_headers.started"):
                attempt.sent = True

        # trust_env: a proxy or a .netrc of this machine has nothing to say about the PBX.
        # timeout: its own, a little before ours, so that it tidies its connection up.
        async with httpx2.AsyncClient(verify=self._tls, trust_env=False, timeout=0.9 * limit_s) as client:
            request = client.build_request(
                "POST",
                f"{self._address.url}/arawman",
                data=dict(fields),
                headers={"Accept-Encoding": "identity", "User-Agent": "porteiro"},
                extensions={"trace": trace},
            )
            flow = httpx2.DigestAuth(self._address.username, self._address.password).auth_flow(request)
            status, headers, body = await self._send(client, next(flow))
            if status != 401:
                return status, body
            attempt.sent = False  # what has no password is refused, and nothing of it is done
            try:
                answered = flow.send(httpx2.Response(status, headers=headers, request=request))
            except StopIteration:
                raise ManagerError(
                    f"{self.name} is none: it asks for another authentication than digest", status=404
                ) from None
            except (httpx2.ProtocolError, ValueError, NotImplementedError):
                raise ManagerError(
                    f"{self.name} sent a digest challenge that can't be read", status=401
                ) from None
            status, _, body = await self._send(client, answered)
            return status, body

    @staticmethod
    async def _send(client: httpx2.AsyncClient, request: httpx2.Request) -> tuple[int, httpx2.Headers, str]:
        response = await client.send(request, stream=True, auth=None, follow_redirects=False)
        body = bytearray()
        try:
            async for chunk in response.aiter_bytes():
                body += chunk[: MAX_ANSWER - len(body)]
                if len(body) >= MAX_ANSWER:
                    break
        finally:
            await response.aclose()
        return response.status_code, response.headers, body.decode("utf-8", "replace")

    def _judge(self, action: str, status: int, body: str) -> Mapping[str, str]:
        """The answer's fields. An action that failed is answered with status 200, too."""
        if status == 401:
            raise ManagerError(
                f"{self.name} refused the user {self._address.username} or its password", status=401
            )
        if status == 403:
            raise ManagerError(
                f"{self.name} does not let the user {self._address.username} in from here", status=403
            )
        if status == 404:
            raise ManagerError(f"{self.name} is not there: its web server has no /arawman", status=404)
        if status != 200:
            raise ManagerError(
                f"{self.name} answered {status}", status=status, unknown=not 400 <= status < 500
            )
        found = read_answer(body)
        response = found.get("Response", "")
        if response == "Success":
            return found
        if response == "Error":
            said = found.get("Message", "")[:120] or "without a reason"
            raise ManagerError(f"{self.name} refused {action}: {said}", status=200)
        raise ManagerError(f"{self.name} answered what is no Manager's answer", status=200, unknown=True)


def read_answer(body: str) -> dict[str, str]:
    """The `Name: value` lines of the first message of an answer; a name that comes again counts once, the
    first. Lines of any other form are passed over."""
    found: dict[str, str] = {}
    for line in body.lstrip("\r\n").split("\n"):
        text = line.rstrip("\r")
        if not text:
            break
        name, colon, value = text.partition(":")
        if colon and name.strip():
            found.setdefault(name.strip(), value.strip())
    return found


def _plain(error: BaseException) -> str:
    """The class of an error in words; its message may quote what was sent."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return "its certificate is not trusted"
        if isinstance(cause, ConnectionRefusedError):
            return "connection refused"
        cause = cause.__cause__ or cause.__context__
    if isinstance(error, httpx2.ConnectError):
        return "it can't be reached"
    if isinstance(error, httpx2.RemoteProtocolError | httpx2.DecodingError):
        return "its answer can't be read"
    return f"the connection failed ({type(error).__name__})"


def manager_address(tenant: Tenant, secret: Callable[[str | None], str | None]) -> ManagerAddress | None:
    """Where the Asterisk Manager of a tenant is; None where its settings name none.

    Args:
        secret: looks an environment variable up (:meth:`Settings.secret`).

    Raises:
        SettingsError: its password is not set.
    """
    settings = tenant.manager
    if settings is None:
        return None
    password = secret(settings.password_env)
    if password is None:
        where = f"tenants.{tenant.id}.manager.password_env"
        raise SettingsError(
            [f"{where}: the environment variable {settings.password_env} is not set; put the secret there"]
        )
    return ManagerAddress(settings.url, settings.username, password)


def build_manager(tenant: Tenant, secret: Callable[[str | None], str | None]) -> AsteriskManager | None:
    """The Asterisk Manager of a tenant; None where its settings name none.

    Raises:
        SettingsError: its password is not set.
    """
    address = manager_address(tenant, secret)
    return None if address is None else AsteriskManager(address)


__all__ = [
    "AsteriskManager",
    "ManagerAddress",
    "ManagerError",
    "build_manager",
    "manager_address",
    "read_answer",
]
