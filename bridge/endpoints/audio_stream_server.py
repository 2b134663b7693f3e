"""Takes FreeSWITCH's audio streams: who may connect, for which domain, with which token.

The module connects to ``/stream/{domain_uuid}/{call_uuid}``. The token, where a tenant has one, comes as
``?token=…`` of the URL, as ``Authorization: Bearer …``, or as the password of HTTP's basic authentication,
which is all that mod_audio_fork can send. In its place may be a ticket for the call (``stream_ticket.py``).

How a refusal is told is what the module shows of it. mod_audio_stream's event ``disconnect`` has the code and
the reason of a close frame, and its ``error`` nothing of an HTTP answer: it is let in, and sent away.
mod_audio_fork's ``connect_failed`` shows that a connection was refused, and its ``disconnect`` nothing of a
close frame: it is answered with an HTTP status. It is known by the subprotocol that it asks for.
"""

from __future__ import annotations

import hmac
import http
import ssl
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from urllib.parse import parse_qs, urlsplit
from uuid import UUID

from websockets.exceptions import InvalidHeader
from websockets.headers import parse_authorization_basic
from websockets.http11 import Request, Response
from websockets.protocol import State
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol

from bridge.endpoints.allow_list import Network
from bridge.endpoints.audio_stream import (
    MAX_MESSAGE_BYTES,
    Accept,
    AudioStreamEndpoint,
    stream_limits,
)
from bridge.endpoints.audio_stream_control import StreamForm
from bridge.endpoints.intake import Intake
from bridge.endpoints.stream_ticket import holds
from bridge.endpoints.websocket_connection import WebsocketLimits, WebsocketServer

PREFIX = "/stream/"
"""What every path begins with."""

PASSED_ON = ("Forwarded", "X-Forwarded-For", "X-Real-IP")
"""Headers of requests that a proxy has passed on: the address that they come from is the proxy's."""


@dataclass(frozen=True, slots=True)
class Domain:
    """What streams of a domain find.

    Attributes:
        tenant: the id of the tenant whose it is.
        accept: takes its calls.
        form: as the tenant has set it.
        token: what must come with each; None: the address is enough, where it is the peer's own.
        former: the tenant has another domain now; this one is for residents whom running visits have called.
    """

    tenant: str
    accept: Accept
    form: StreamForm
    token: str | None = field(default=None, repr=False)
    former: bool = False


class _Refused(Exception):
    """A stream is not taken."""

    def __init__(self, status: http.HTTPStatus, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail


class IncomingStream(AudioStreamEndpoint):
    """A stream that a module made; `state`: open where the HTTP request has been answered already."""

    def __init__(self, server: AudioStreamServer, state: State = State.CONNECTING) -> None:
        wire = ServerProtocol(max_size=MAX_MESSAGE_BYTES, state=state, select_subprotocol=_first_offered)
        super().__init__(server, wire)
        self._server = server

    def _opening(self, event: Request | Response) -> None:
        assert isinstance(event, Request)
        if self.ended:
            return
        is_fork = "Sec-WebSocket-Protocol" in event.headers
        try:
            self._call_id, domain = self._server.admit(event)
        except _Refused as refused:
            if is_fork or refused.status is http.HTTPStatus.NOT_FOUND:
                self._mark("refused", f"{refused.detail}; answered {refused.status.value}")
                self._serving.send_response(self._serving.reject(refused.status, f"{refused.detail}\n"))
                return
            self._answer(event)
            self._end("refused", refused.detail)
            return
        self._accept = domain.accept
        self.form = domain.form
        if is_fork and domain.form.playback == "auto":
            self.form = replace(domain.form, playback="fork")
        self._answer(event)


def _first_offered(wire: ServerProtocol, offered: Sequence[Subprotocol]) -> Subprotocol | None:
    """mod_audio_fork's subprotocol has whatever name its site gave it."""
    return offered[0] if offered else None


class AudioStreamServer(WebsocketServer):
    """Takes the streams of all domains; see :class:`~bridge.endpoints.websocket_connection.WebsocketServer`.

    It need not listen on a port of its own: connections may be handed to what :meth:`make` makes.

    Args:
        endpoint: makes what carries a connection.
    """

    kind = "audio_stream"

    def __init__(
        self,
        hosts: Sequence[str],
        port: int,
        *,
        allowed: Sequence[Network],
        limits: WebsocketLimits | None = None,
        tls: ssl.SSLContext | None = None,
        intake: Intake | None = None,
        endpoint: Callable[[AudioStreamServer], IncomingStream] = IncomingStream,
    ) -> None:
        limits = limits or stream_limits()
        super().__init__(hosts, port, allowed=allowed, limits=limits, tls=tls, intake=intake)
        self._endpoint = endpoint
        self._domains: dict[UUID, Domain] = {}

    def make(self) -> IncomingStream:
        """What carries a new connection."""
        return self._endpoint(self)

    def set_domain(self, tenant: str, uuid: UUID, domain: Domain) -> None:
        """What streams of a domain find from now on; the tenant's other domains are former ones."""
        self.retire(tenant)
        self._domains[uuid] = domain

    def tenant_of(self, uuid: UUID) -> str | None:
        """The tenant whose domain it is; None: nobody's, or nobody's any more."""
        domain = self._domains.get(uuid)
        return None if domain is None or domain.former else domain.tenant

    def retire(self, tenant: str) -> None:
        """A tenant's domains are former ones from now on."""
        for uuid, domain in self._domains.items():
            if domain.tenant == tenant:
                self._domains[uuid] = replace(domain, former=True)

    def drop_former(self, tenant: str) -> None:
        """A tenant's former domains lead nowhere any more."""
        for uuid, domain in tuple(self._domains.items()):
            if domain.tenant == tenant and domain.former:
                del self._domains[uuid]

    def admit(self, request: Request) -> tuple[UUID, Domain]:
        """Which call a request is for, and what it finds.

        Raises:
            _Refused: it is not let in.
        """
        try:
            parts = urlsplit(request.path)
            query = parse_qs(parts.query, max_num_fields=20)
        except ValueError:
            raise _Refused(http.HTTPStatus.BAD_REQUEST, "found a URL that can't be read") from None
        if not parts.path.startswith(PREFIX):
            raise _Refused(http.HTTPStatus.NOT_FOUND, "found a path that leads nowhere")
        names = parts.path.removeprefix(PREFIX).split("/")
        try:
            uuid, call_id = map(UUID, names)
        except ValueError:
            found = "found a path that names no domain and call"
            raise _Refused(
                http.HTTPStatus.BAD_REQUEST, f"{found}; allowed is {PREFIX}DOMAIN_UUID/CALL_UUID"
            ) from None
        domain = self._domains.get(uuid)
        if domain is None:
            raise _Refused(http.HTTPStatus.FORBIDDEN, "found a domain_uuid that is no tenant's")
        if domain.token is None:
            if any(name in request.headers for name in PASSED_ON):
                found = "found a stream that came through a proxy; allowed there: freeswitch.token_env"
                raise _Refused(http.HTTPStatus.UNAUTHORIZED, found)
        elif not _shows(request, domain.token, query.get("token", []), uuid, call_id):
            raise _Refused(http.HTTPStatus.UNAUTHORIZED, "found no valid token")
        return call_id, domain


def _shows(request: Request, token: str, in_query: Sequence[str], domain: UUID, call: UUID) -> bool:
    """Whether a request has the token, or a ticket for its call, once, where one of them may be."""
    given = [*in_query, *(_credentials(each) for each in request.headers.get_all("Authorization"))]
    if len(given) != 1 or given[0] == "" or not token:
        return False
    # Compared in a time that does not tell how much of it was right.
    is_token = hmac.compare_digest(given[0].encode(errors="surrogateescape"), token.encode())
    return is_token or holds(given[0], token, domain, call, now=time.time())


def _credentials(authorization: str) -> str:
    scheme, _, value = authorization.partition(" ")
    if scheme.lower() == "bearer":
        return value.strip()
    try:
        return parse_authorization_basic(authorization)[1]
    except (InvalidHeader, ValueError):  # ValueError: what is in it is no UTF-8
        return ""


__all__ = ["PREFIX", "AudioStreamServer", "Domain", "IncomingStream"]
